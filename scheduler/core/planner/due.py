"""When the plan next has something to decide by the clock alone: where a replay jumps to, and what wakes a ticker."""

from collections.abc import Iterable, Mapping

from scheduler.core.bounds import lead_s, longest_grace_s
from scheduler.core.facts import HostFacts, Verb, VmEnd
from scheduler.core.plan import Plan
from scheduler.core.planner.draft import WAIT_FOR_LOOK_S
from scheduler.core.planner.limit_book import next_change_at
from scheduler.core.requests import HostId
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant
from scheduler.core.windows import WindowState


def next_plan_due_at(
    plan: Plan,
    facts: Mapping[HostId, HostFacts],
    now: Instant,
    settings: Settings,
    *,
    awake_since_at: Instant | None = None,
) -> Instant | None:
    """Return the first instant after `now` at which a planning step may change something, facts staying as they are.

    `awake_since_at`: since when planning goes on without a standstill, as the step is told.
    """
    instants: set[Instant] = set()
    if awake_since_at is not None:
        instants.add(awake_since_at + WAIT_FOR_LOOK_S)
    for window in plan.windows.values():
        if window.state is WindowState.PLANNED:
            instants.add(window.decide_at)
        elif window.state is WindowState.OPEN:
            instants.add(window.start_at)
    is_waiting = False
    for reservation in plan.reservations.values():
        if reservation.outcome is not None:
            continue
        instants.update(span.end_at for span in reservation.spans)
        if reservation.promise is not None:
            instants.add(reservation.promise.start_by_at + 1)
        if not reservation.generation and any(span.start_at > now for span in reservation.spans):
            instants.add(reservation.request.not_before_at or 0)
            is_waiting = True
    if is_waiting:
        # Whoever waits may start where a layout begins that lets them in.
        for window in plan.windows.values():
            instants.update((window.start_at, window.end_at, window.released_from_at or 0))
        # Or where a limit allows more.
        if plan.rules is not None:
            instants.add(next_change_at(plan.rules, now) or 0)
    instants.update(disk.until_at for disk in plan.disks.values())
    instants.update(_of_starts_held_up(plan, facts, now))
    for host in facts.values():
        if host.unreachable_since_at is not None:
            instants.add(host.unreachable_since_at + settings.leave_silent_host_after_s)
        for vm in host.vms:
            if vm.end is VmEnd.SELF_SHUTDOWN and vm.off_at is not None:
                instants.add(vm.off_at + settings.self_shutdown_ends_after_s)
    return min((instant for instant in instants if instant > now), default=None)


def _of_starts_held_up(plan: Plan, facts: Mapping[HostId, HostFacts], now: Instant) -> Iterable[Instant]:
    """Yield when a start is late by all bounds, when one on a silent host comes near, and when other places open."""
    if plan.rules is None:
        return
    grace_s = longest_grace_s(plan.rules, (window for window in plan.windows.values() if window.end_at > now))
    up = {vm.reservation for host in facts.values() for vm in host.vms if vm.up_at is not None and vm.off_at is None}
    offs: dict[str, list[Instant]] = {}
    for host in facts.values():
        for vm in host.vms:
            if vm.off_at is not None:
                offs.setdefault(vm.reservation, []).append(vm.off_at)
    is_late = False
    for reservation in plan.reservations.values():
        if reservation.outcome is not None or reservation.id in up:
            continue
        for span in reservation.spans:
            host_facts = facts.get(span.host)
            is_silent = host_facts is not None and host_facts.unreachable_since_at is not None
            if span.end_at <= now:
                continue
            bound_s = lead_s(plan.hosts[span.host].profile, gpus=reservation.request.gpus, grace_s=grace_s)
            if span.start_at > now and is_silent:
                yield span.start_at - bound_s
            yield span.start_at + bound_s
            yield from (off_at + bound_s for off_at in offs.get(reservation.id, ()))
            is_late = is_late or span.start_at <= now
    if is_late:
        # Another place may come free by the clock: at the edges of windows, or where a gift begins. Leads shorten too,
        # where the window of an earlier policy with a longer grace ends.
        for window in plan.windows.values():
            yield window.start_at
            yield window.end_at
            if window.released_from_at is not None:
                yield window.released_from_at
        for host in facts.values():
            yield from (ask.until_at - grace_s for ask in host.asked if ask.verb is Verb.SHUTDOWN)
