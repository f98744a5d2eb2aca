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


LEAST_OWED_S = 60
"""Less than this is not worth another start."""


def delivered_s(draft: Draft, reservation: Reservation, vms: Vms, until_at: Instant) -> int:
    """Return the running time that the guests of a reservation have had up to an instant."""
    return sum(_ran_s(draft, reservation, host, vm, until_at) for host, vm in vms)


def _ran_s(draft: Draft, reservation: Reservation, host: HostId, vm: VmFact, until_at: Instant) -> int:
    running_at = ran_since_at(draft, reservation, host, vm)
    if running_at is None:
        return 0
    off_at = until_at if vm.off_at is None else min(vm.off_at, until_at)
    return max(0, off_at - max(running_at, reservation.request.not_before_at or 0))


def ran_since_at(draft: Draft, reservation: Reservation, host: HostId, vm: VmFact) -> Instant | None:
    """Return since when a guest has run; None when it never did.

    A guest that one look found both started and up was looked at by nobody while it booted. It was up by the bound of
    its start, or it would have been slower than any start may be: the time until somebody looked was its own.
    """
    if vm.running_at is None or vm.running_at != vm.up_at or vm.is_agent_silent:
        return vm.running_at
    bound_s = draft.hosts[host].profile.bounds.start_s(reservation.request.gpus)
    return min(vm.running_at, vm.asked_at + bound_s)


def owed_s(draft: Draft, reservation: Reservation, vms: Vms) -> int:
    """Return the hours that are neither delivered by now nor lost by the guest itself."""
    delivered = delivered_s(draft, reservation, vms, draft.now)
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
    for _, vm in vms:
        if vm.generation == reservation.generation:
            return vm
    return None


def is_end_unseen(draft: Draft, reservation: Reservation, vms: Vms) -> bool:
    """Whether the time of the latest start passed in a standstill: what became of it is not known before a look."""
    current = latest_start(reservation, vms)
    if current is None or current.end is not None or current.stop_asked_at is not None:
        return False
    span = reservation.span_of(current.generation)
    if span is None:
        return False
    over_at = run_end_at(reservation, span)
    return over_at <= draft.now and draft.is_unseen_since(span.host, over_at)


def is_boot_unseen(draft: Draft, reservation: Reservation, vms: Vms, by_at: Instant) -> bool:
    """Whether the latest start was to be up by an instant that passed in a standstill."""
    current = latest_start(reservation, vms)
    if current is None or current.end is not None:
        return False
    return any(draft.is_unseen_since(host, by_at) for host, vm in vms if vm is current)


def is_start_of_now(draft: Draft, reservation: Reservation, vm: VmFact) -> bool:
    """Whether a start belongs to the span that covers now, or to one that it goes on from without a stop."""
    span = reservation.span_of(vm.generation)
    return span is not None and span.start_at <= draft.now < run_end_at(reservation, span)
