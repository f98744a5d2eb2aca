"""What a host should look like now, by the plan: which VMs, which VMs have ended, which disks may go.

Three answers about a start that was seen on the host: *wanted*, *ended* by a valid plan (it may be stopped), or
*unknown* to the plan (leave it and say so: silence and ignorance never stop anybody). Reads plan and facts only; what
to do about the difference to what is observed is in `diff`.
"""

from dataclasses import dataclass
from enum import StrEnum

from scheduler.core.facts import HostFacts, VmEnd
from scheduler.core.plan import BookedDisk, BookedSpan, Plan, Reservation
from scheduler.core.requests import DiskId, HostId, ReservationId
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant
from scheduler.core.topology import Partition
from scheduler.core.windows import Window


class Standing(StrEnum):
    """What the plan says of one start of a reservation on this host."""

    WANTED = "wanted"
    ENDED = "ended"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredVm:
    """A VM that should run on this host now."""

    reservation: Reservation
    span: BookedSpan
    generation: int | None
    """The start that is to run; None when this span was not started yet."""
    partition: Partition
    disk: BookedDisk | None
    is_resume: bool
    """It ran before: resumes are started before new ones."""
    end_at: Instant
    """When it is to end, spans that follow on the same partition included."""
    warn_at: tuple[Instant, ...]
    """When its guest is to be warned of that end, in order."""

    @property
    def id(self) -> ReservationId:
        return self.reservation.id


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedVm:
    """A start whose time is over by the plan: whatever is left of it is to be stopped and removed."""

    reservation: ReservationId
    generation: int
    grace_s: int
    """How long its guest may take to shut down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredHost:
    host: HostId
    vms: tuple[DesiredVm, ...]
    """In the order in which they are to be started: resumes first, then the largest."""
    ended: tuple[EndedVm, ...]
    """Of the starts that are remembered, those that may be stopped; neither here nor in `vms` means unknown."""
    expired_disks: tuple[BookedDisk, ...]
    """Disks whose retention is over and which nobody uses; all others are kept."""


def desired_host(plan: Plan, host: HostId, now: Instant, facts: HostFacts, settings: Settings) -> DesiredHost:
    """Return what the plan wants of a host now, and what it says of every start that the facts remember."""
    vms = [
        _desired_vm(plan, reservation, span, now)
        for reservation in plan.reservations.values()
        if (span := _span_now(reservation, host, now)) is not None
    ]
    ended = tuple(
        EndedVm(
            reservation=vm.reservation,
            generation=vm.generation,
            grace_s=_grace_s(plan, host, vm.reservation, vm.generation, settings),
        )
        for vm in facts.vms
        if not vm.is_gone and standing_of(plan, host, now, vm.reservation, vm.generation) is Standing.ENDED
    )
    return DesiredHost(
        host=host,
        vms=tuple(sorted(vms, key=_by_turn)),
        ended=ended,
        expired_disks=_expired_disks(plan, host, now, facts),
    )


def _by_turn(vm: DesiredVm) -> tuple[bool, int, Instant, Instant, ReservationId]:
    return (not vm.is_resume, -vm.partition.size, vm.span.start_at, vm.reservation.request.submitted_at, vm.id)


def standing_of(plan: Plan, host: HostId, now: Instant, reservation: ReservationId, generation: int) -> Standing:
    """Return what the plan says of a start that is seen on this host."""
    known = plan.reservations.get(reservation)
    if known is None or generation > known.generation:
        return Standing.UNKNOWN
    span = _span_now(known, host, now)
    if span is not None and _generation_on(known, span) == generation:
        return Standing.WANTED
    return Standing.ENDED


def _span_now(reservation: Reservation, host: HostId, now: Instant) -> BookedSpan | None:
    if reservation.outcome is not None:
        return None
    span = reservation.span_at(now)
    return span if span is not None and span.host == host else None


def _generation_on(reservation: Reservation, span: BookedSpan) -> int | None:
    """Return the start that belongs to a span.

    A span that follows on the same partition without a gap is run by the same start: a boundary that changes nothing
    must not cost a park and a resume.
    """
    while not span.is_pinned:
        before = next((s for s in reservation.spans if s.end_at == span.start_at and _is_same_place(s, span)), None)
        if before is None:
            return None
        span = before
    return span.generation


def _is_same_place(one: BookedSpan, other: BookedSpan) -> bool:
    return (one.host, one.partition) == (other.host, other.partition)


def run_end_at(reservation: Reservation, span: BookedSpan) -> Instant:
    """Return when the guest on a span is to end: spans that follow on the same partition without a gap are one run."""
    end_at = span.end_at
    for following in reservation.spans:
        if following.start_at == end_at and _is_same_place(following, span):
            end_at = following.end_at
    return end_at


def _desired_vm(plan: Plan, reservation: Reservation, span: BookedSpan, now: Instant) -> DesiredVm:
    end_at = run_end_at(reservation, span)
    return DesiredVm(
        reservation=reservation,
        span=span,
        generation=_generation_on(reservation, span),
        partition=plan.hosts[span.host].profile.partition(span.partition),
        disk=None if reservation.disk is None else plan.disks.get(reservation.disk),
        is_resume=reservation.generation > 0,
        end_at=end_at,
        warn_at=warn_instants(plan, span.host, end_at),
    )


def closing_window(plan: Plan, host: HostId, end_at: Instant) -> Window | None:
    """Return the window of a host that begins, and closes it for those before it, at an instant."""
    for window in plan.windows.values():
        if window.start_at == end_at and host in window.hosts and window.closed_span is not None:
            return window
    return None


def warn_instants(plan: Plan, host: HostId, end_at: Instant) -> tuple[Instant, ...]:
    """Return when a guest is to be warned of its end, in order: as the closing window says, else as the policy does."""
    window = closing_window(plan, host, end_at)
    ahead_s = window.warnings_s if window is not None else plan.rules.warnings_s if plan.rules is not None else ()
    return tuple(sorted({end_at - warning_s for warning_s in ahead_s}))


def _grace_s(plan: Plan, host: HostId, reservation: ReservationId, generation: int, settings: Settings) -> int:
    """Return the grace of a start that has ended: its window's, if it had to make room for one, else the policy's."""
    spans = [s for s in plan.reservations[reservation].spans if s.host == host and s.generation == generation]
    window = closing_window(plan, host, run_end_at(plan.reservations[reservation], spans[-1])) if spans else None
    if window is not None:
        return window.grace_s
    return plan.rules.grace_s if plan.rules is not None else settings.grace_s


def _expired_disks(plan: Plan, host: HostId, now: Instant, facts: HostFacts) -> tuple[BookedDisk, ...]:
    if host not in plan.hosts:
        return ()
    storage = plan.hosts[host].storage
    used: set[DiskId | None] = {r.disk for r in plan.reservations.values() if r.outcome is None}
    for vm in facts.vms:
        reservation = plan.reservations.get(vm.reservation)
        # An end that is not understood may not be one: its disk stays until the start is gone.
        if reservation is not None and (vm.end in (None, VmEnd.UNKNOWN) and not vm.is_gone):
            used.add(reservation.disk)
    return tuple(
        disk
        for _, disk in sorted(plan.disks.items())
        if disk.storage == storage and disk.until_at <= now and disk.id not in used
    )
