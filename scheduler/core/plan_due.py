"""When the plan next has something to decide by the clock alone: where a replay jumps to, and what wakes a ticker."""

from collections.abc import Mapping

from scheduler.core.facts import HostFacts, VmEnd
from scheduler.core.plan import Plan
from scheduler.core.requests import HostId
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant
from scheduler.core.windows import WindowState


def next_plan_due_at(plan: Plan, facts: Mapping[HostId, HostFacts], now: Instant, settings: Settings) -> Instant | None:
    """Return the first instant after `now` at which a planning step may change something, facts staying as they are."""
    instants: set[Instant] = set()
    for window in plan.windows.values():
        if window.state is WindowState.PLANNED:
            instants.add(window.decide_at)
        elif window.state is WindowState.OPEN:
            instants.add(window.start_at)
    for reservation in plan.reservations.values():
        if reservation.outcome is not None:
            continue
        instants.update(span.end_at for span in reservation.spans)
        if reservation.promise is not None:
            instants.add(reservation.promise.start_by_at + 1)
    instants.update(disk.until_at for disk in plan.disks.values())
    for host in facts.values():
        for vm in host.vms:
            if vm.end is VmEnd.SELF_SHUTDOWN and vm.off_at is not None:
                instants.add(vm.off_at + settings.self_shutdown_ends_after_s)
    return min((instant for instant in instants if instant > now), default=None)
