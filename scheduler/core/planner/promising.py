"""Promising: what a booking can keep, and the one place where a promise rises.

`break_promise` raises it for a fault or an admin's override, and writes the notice with it.
"""

from collections.abc import Callable
from dataclasses import replace

from scheduler.core.plan import BookedSpan, Reservation
from scheduler.core.planner.draft import Draft
from scheduler.core.reasons import ReasonCode, reason
from scheduler.core.requests import Promise, Request
from scheduler.core.spans import Instant


def running_by_at(draft: Draft, request: Request, span: BookedSpan) -> Instant:
    """Return by when a guest whose span this is will run, by bounds."""
    return span.start_at + draft.lead_s(draft.hosts[span.host].profile, request.gpus)


def promise_of(draft: Draft, request: Request, spans: tuple[BookedSpan, ...]) -> Promise:
    return Promise(start_by_at=running_by_at(draft, request, spans[0]), end_by_at=spans[-1].end_at)


def keeps(
    draft: Draft, request: Request, promise: Promise, spans: tuple[BookedSpan, ...], *, starts: bool = True
) -> bool:
    """Whether a booking keeps a promise; `starts` False: it has started before, only the end counts."""
    if starts and running_by_at(draft, request, spans[0]) > promise.start_by_at:
        return False
    return spans[-1].end_at <= promise.end_by_at


def has_started(reservation: Reservation) -> bool:
    """Whether anything of it was ever pinned: from then on it has a disk and a place to resume."""
    return reservation.generation > 0


def keeps_promise(draft: Draft, reservation: Reservation) -> Callable[[tuple[BookedSpan, ...]], bool]:
    """Return the test whether new spans for what is movable keep the promise."""

    def accept(spans: tuple[BookedSpan, ...]) -> bool:
        if reservation.promise is None:
            return True
        # What covers now is being handed over: the start is no more a matter of where the rest is booked.
        starts = not has_started(reservation) and reservation.span_at(draft.now) is None
        return keeps(draft, reservation.request, reservation.promise, spans, starts=starts)

    return accept


def break_promise(draft: Draft, reservation: Reservation, cause: str) -> None:
    """Raise the promise of a reservation to what its booking can keep now. The only place where a promise rises.

    For a fault or an admin's override alone; the notice is written in the same commit. Without any booking left the
    promise stays as it was told, and is broken: its disk is kept until it is resumed or cancelled.
    """
    current = draft.reservations[reservation.id]
    assert current.promise is not None
    start_by_at, end_by_at = current.promise.start_by_at, current.promise.end_by_at
    ahead = [span for span in current.spans if span.end_at > draft.now]
    if ahead:
        end_by_at = max(end_by_at, ahead[-1].end_at)
        if not any(vm.running_at is not None for _, vm in draft.vms_of(current.id)):
            first_by_at = running_by_at(draft, current.request, ahead[0])
            if first_by_at < draft.now:
                first_by_at = draft.now + draft.lead_s(draft.hosts[ahead[0].host].profile, current.request.gpus)
            start_by_at = max(start_by_at, first_by_at)
            # Overdue near the end of its booking: what it then lacks is booked, and told, once the booking is over.
            end_by_at = max(end_by_at, start_by_at)
    why = reason(
        ReasonCode.PROMISE_BROKEN, reservation=current.id, cause=cause, start_by_at=start_by_at, end_by_at=end_by_at
    )
    draft.put(
        replace(
            current,
            promise=Promise(start_by_at=start_by_at, end_by_at=end_by_at),
            promise_notice=current.promise_notice + 1,
            reasons=(why,),
        )
    )
    draft.note("promise.raised", current, is_notice=True, cause=cause, start_by_at=start_by_at, end_by_at=end_by_at)
