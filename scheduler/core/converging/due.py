"""When a host is to be looked at again although nobody says anything: the next instant that the plan or an ask names.

What a host does by itself cannot be known here; that is what the tick is for.
"""

from collections.abc import Iterator

from scheduler.core.converging.asked import retry_at, was_refused
from scheduler.core.converging.desired import run_end_at, warn_instants
from scheduler.core.converging.diff import half_way_at
from scheduler.core.facts import HostFacts, Verb, VmEnd
from scheduler.core.plan import Plan
from scheduler.core.requests import HostId
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile


def next_due_at(
    plan: Plan, host: HostId, facts: HostFacts, now: Instant, *, profile: HostProfile, settings: Settings
) -> Instant | None:
    """Return the next instant after `now` at which converging a host could have something to do on its own."""
    instants = (
        *_of_plan(plan, host, now),
        *_of_asks(facts, profile, settings),
        *_of_vms(facts, profile, settings),
    )
    return min((at for at in instants if at > now), default=None)


def _of_plan(plan: Plan, host: HostId, now: Instant) -> Iterator[Instant]:
    for reservation in plan.reservations.values():
        if reservation.outcome is not None:
            continue
        for span in reservation.spans:
            if span.host != host or span.end_at <= now:
                continue
            yield span.start_at
            yield span.end_at
            if span.start_at <= now:
                yield from warn_instants(plan, host, run_end_at(reservation, span))
    if host in plan.hosts:
        storage = plan.hosts[host].storage
        yield from (disk.until_at for disk in plan.disks.values() if disk.storage == storage)


def _of_asks(facts: HostFacts, profile: HostProfile, settings: Settings) -> Iterator[Instant]:
    vm_by_subject = {str(vm.uuid): vm for vm in facts.vms}
    for ask in facts.asked:
        yield ask.until_at
        yield ask.until_at + profile.bounds.destroy_s
        if ask.verb is Verb.SHUTDOWN and ask.subject in vm_by_subject:
            yield half_way_at(vm_by_subject[ask.subject], ask)
        if ask.verb in (Verb.REMOVE, Verb.DELETE_DISK):
            yield retry_at(ask, settings.retry_after_s)
        elif was_refused(ask):
            yield ask.asked_at + settings.retry_after_s


def _of_vms(facts: HostFacts, profile: HostProfile, settings: Settings) -> Iterator[Instant]:
    for vm in facts.vms:
        if vm.end is None and vm.running_at is None:
            yield vm.asked_at + profile.bounds.start_s(profile.partition(vm.partition).size)
        if vm.end is VmEnd.START_FAILED and vm.off_at is not None:
            yield vm.off_at + settings.retry_after_s
