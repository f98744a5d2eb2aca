"""Outlook: what happens to a reservation next, in one sentence for people. Decides nothing."""

from collections.abc import Callable
from typing import assert_never

from scheduler.core.phases import Phase
from scheduler.core.plan import BookedSpan, Outcome, Reservation
from scheduler.core.reasons import sentence
from scheduler.core.requests import ReservationId
from scheduler.core.spans import Instant
from scheduler.service.listing import Account
from scheduler.service.snapshot import Snapshot

ShowInstant = Callable[[Instant], str]
_KEPT = "its disk is kept"


def outlook(account: Account, snapshot: Snapshot, show: ShowInstant) -> str:
    """Say what happens next, and by when."""
    reservation = account.reservation
    match account.phase:
        case Phase.WAITING:
            return "waits for a place; it is booked as soon as there is one"
        case Phase.PROMISED:
            by_at = (
                reservation.promise.start_by_at if reservation.promise is not None else reservation.spans[0].start_at
            )
            if by_at <= snapshot.now:
                return f"is late: it was to start by {show(by_at)}"
            return f"starts by {show(by_at)}"
        case Phase.STARTING | Phase.RESUMING:
            return _starting(account, snapshot, show)
        case Phase.RUNNING:
            return _running(account, snapshot, show)
        case Phase.PARKING | Phase.PARKED:
            verb = "is being parked" if account.phase is Phase.PARKING else "is parked"
            coming = _coming(account, snapshot)
            if coming is None:
                return f"{verb}; it goes on as soon as there is a place"
            return f"{verb}; resumes by {show(_runs_by_at(account, snapshot, coming))}"
        case Phase.STOPPING:
            return f"is stopping{_disk_kept(account, snapshot, show)}"
        case Phase.ENDED | Phase.CANCELLED | Phase.FAILED | Phase.REFUSED:
            return _over(account, snapshot, show)
    assert_never(account.phase)


def _starting(account: Account, snapshot: Snapshot, show: ShowInstant) -> str:
    if account.restart_by_at is not None:
        return f"its guest shut itself down; restart it by {show(account.restart_by_at)}, or it ends then"
    verb = "is starting" if account.phase is Phase.STARTING else "is resuming"
    span = account.reservation.span_at(snapshot.now) or _coming(account, snapshot)
    if span is None:
        return verb
    by_at: Instant | None = _runs_by_at(account, snapshot, span)
    if any(vm.end is not None and vm.asked_at >= span.start_at for vm in account.starts):
        # The bound of the span was for its first start, which is over.
        verb = "is starting again"
        by_at = _restarted_by_at(account, snapshot)
    if by_at is None:
        return verb
    promise = account.reservation.promise
    if by_at <= snapshot.now and account.phase is Phase.STARTING and promise is not None:
        # A fault may have raised it.
        by_at = max(by_at, promise.start_by_at)
    if by_at <= snapshot.now:
        return f"{verb}, but late: it was to run by {show(by_at)}"
    return f"{verb}; runs by {show(by_at)}"


def _restarted_by_at(account: Account, snapshot: Snapshot) -> Instant | None:
    if account.vm is None:
        return None
    host_id, vm = account.vm
    host = snapshot.plan.hosts.get(host_id)
    return None if host is None else vm.asked_at + host.profile.bounds.start_s(account.reservation.request.gpus)


def _running(account: Account, snapshot: Snapshot, show: ShowInstant) -> str:
    span = account.reservation.span_at(snapshot.now)
    coming = _coming(account, snapshot)
    if span is None:
        return "runs"
    # Where one span goes on from another on the same GPUs nothing is stopped in between.
    while coming is not None and _goes_on(span, coming):
        span, coming = coming, _after(account, coming)
    if coming is None:
        return f"runs until {show(span.end_at)}"
    by_at = _runs_by_at(account, snapshot, coming)
    return f"runs until {show(span.end_at)}, then it is parked; resumes by {show(by_at)}"


def _goes_on(span: BookedSpan, coming: BookedSpan) -> bool:
    return (coming.start_at, coming.host, coming.partition) == (span.end_at, span.host, span.partition)


def _coming(account: Account, snapshot: Snapshot) -> BookedSpan | None:
    ahead = (span for span in account.reservation.spans if span.start_at > snapshot.now)
    return min(ahead, key=lambda span: span.start_at, default=None)


def _after(account: Account, span: BookedSpan) -> BookedSpan | None:
    later = (other for other in account.reservation.spans if other.start_at > span.start_at)
    return min(later, key=lambda other: other.start_at, default=None)


def _runs_by_at(account: Account, snapshot: Snapshot, span: BookedSpan) -> Instant:
    reservation = account.reservation
    by_at = snapshot.runs_by_at(reservation, span)
    is_first = reservation.spans[0] == span
    if is_first and reservation.promise is not None and reservation.promise.start_by_at >= span.start_at:
        return min(by_at, reservation.promise.start_by_at)
    return by_at


def _over(account: Account, snapshot: Snapshot, show: ShowInstant) -> str:
    reservation = account.reservation
    outcome = reservation.outcome
    assert outcome is not None
    why = sentence(reservation.reasons[0], show) if reservation.reasons else ""
    match outcome:
        case Outcome.REFUSED:
            return f"was refused: {why}" if why else "was refused"
        case Outcome.FAILED:
            told = f"failed: {why}" if why else "failed"
        case Outcome.CANCELLED | Outcome.STOPPED | Outcome.COMPLETED:
            told = outcome.value if reservation.ended_at is None else f"{outcome.value} at {show(reservation.ended_at)}"
        case _:
            assert_never(outcome)
    kept = _disk_kept(account, snapshot, show)
    if told.endswith(_KEPT):
        # Some reasons say so themselves; until when is missing there, and whether it still is.
        return told.removesuffix(f", {_KEPT}") + kept.replace("; ", ", ", 1)
    return told + kept


def _disk_kept(account: Account, snapshot: Snapshot, show: ShowInstant) -> str:
    disk = account.disk
    if disk is None:
        taken_over_by = taker_of_disk(account.reservation, snapshot)
        return "" if taken_over_by is None else f"; its disk went on with {taken_over_by}"
    return "" if disk.until_at <= snapshot.now else f"; {_KEPT} until {show(disk.until_at)}"


def taker_of_disk(reservation: Reservation, snapshot: Snapshot) -> ReservationId | None:
    """Return the later reservation, of the same owner, that has this one's disk now."""
    disk = snapshot.plan.disks.get(reservation.disk) if reservation.disk is not None else None
    return None if disk is None or disk.reservation == reservation.id else disk.reservation
