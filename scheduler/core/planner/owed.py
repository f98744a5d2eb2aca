"""Hours: what a reservation was delivered, what its own guest lost, and what is still owed to it. Changes nothing."""

from scheduler.core.converging.desired import run_end_at
from scheduler.core.facts import VmEnd, VmFact
from scheduler.core.plan import Reservation
from scheduler.core.planner.draft import Draft
from scheduler.core.requests import HostId
from scheduler.core.spans import Instant

Vms = list[tuple[HostId, VmFact]]
"""The remembered starts of one reservation with their hosts, by generation."""

OWN_ENDS = frozenset({VmEnd.CRASHED, VmEnd.SELF_SHUTDOWN})
"""Ends for which the hours they cost are the guest's own loss."""


def delivered_s(reservation: Reservation, vms: Vms, until_at: Instant) -> int:
    """Return the running time that the guests of a reservation have had up to an instant."""
    from_at = reservation.request.not_before_at or 0
    return sum(_ran_s(vm, from_at, until_at) for _, vm in vms)


def _ran_s(vm: VmFact, from_at: Instant, until_at: Instant) -> int:
    if vm.running_at is None:
        return 0
    off_at = until_at if vm.off_at is None else min(vm.off_at, until_at)
    return max(0, off_at - max(vm.running_at, from_at))


def owed_s(draft: Draft, reservation: Reservation, vms: Vms) -> int:
    """Return the hours that are neither delivered by now nor lost by the guest itself."""
    delivered = delivered_s(reservation, vms, draft.now)
    return max(0, reservation.request.run_s - delivered - own_loss_s(draft, reservation, vms))


def own_loss_s(draft: Draft, reservation: Reservation, vms: Vms) -> int:
    """Return the booked time up to now that guests lost by crashing or leaving, up to the bound of the next start."""
    lost_s = 0
    for number, (host, vm) in enumerate(vms):
        span = reservation.span_at(vm.asked_at)
        if vm.end not in OWN_ENDS or vm.off_at is None or span is None:
            continue
        until_at = min(draft.now, run_end_at(reservation, span))
        if number + 1 < len(vms):
            following = vms[number + 1][1]
            start_s = draft.hosts[host].profile.bounds.start_s(reservation.request.gpus)
            up_by_at = following.asked_at + start_s
            until_at = min(until_at, up_by_at if following.running_at is None else min(following.running_at, up_by_at))
        lost_s += max(0, until_at - vm.off_at)
    return lost_s


def latest_start(reservation: Reservation, vms: Vms) -> VmFact | None:
    """Return the latest start of a reservation, if its host remembers it yet."""
    return next((vm for _, vm in vms if vm.generation == reservation.generation), None)


def is_start_of_now(draft: Draft, reservation: Reservation, vm: VmFact) -> bool:
    """Whether a start belongs to the span that covers now, or to one that it goes on from without a stop."""
    span = next((span for span in reservation.spans if span.generation == vm.generation), None)
    return span is not None and span.start_at <= draft.now < run_end_at(reservation, span)
