"""Promising: what a booking can keep, and the one place where a promise rises.

`break_promise` raises it for a fault or an admin's override, and writes the notice with it.
"""

from collections.abc import Callable
from dataclasses import replace

from scheduler.core.plan import BookedSpan, Reservation
from scheduler.core.planner.causes import Cause, is_override
from scheduler.core.planner.draft import Draft
from scheduler.core.reasons import Reason, ReasonCode, reason
from scheduler.core.requests import Promise, Request
from scheduler.core.spans import Instant

TOLD_AT_MOST = 8
"""So many causes of a broken promise are remembered, so as not to tell them again."""


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


def is_in_time(draft: Draft, reservation: Reservation) -> bool:
    """Whether one that was not started is booked for later, where it keeps its promise."""
    spans, promise = reservation.spans, reservation.promise
    if not spans or spans[0].start_at <= draft.now or promise is None:
        return False
    return keeps(draft, reservation.request, promise, spans)


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


def _first_by_at(draft: Draft, request: Request, ahead: list[BookedSpan]) -> Instant:
    """Return by when a first start is up in the first of these spans that is long enough for it, else in the last."""

    def by_at(span: BookedSpan) -> Instant:
        at = running_by_at(draft, request, span)
        return at if at >= draft.now else draft.now + at - span.start_at

    return by_at(next((span for span in ahead if by_at(span) <= span.end_at), ahead[-1]))


def told_since_it_ran(draft: Draft, reservation: Reservation) -> tuple[Reason, ...]:
    """Return the causes of a broken promise that were told since a guest of it last ran; the latest is last.

    An admin's override is remembered for good: that a guest runs again does not give back the hours it took.
    """
    ran = [vm for _, vm in draft.vms_of(reservation.id) if vm.running_at is not None]
    since_at = max((vm.off_at or vm.running_at or 0 for vm in ran), default=0)
    return tuple(
        why
        for why in reservation.reasons
        if is_override(why)
        or (why.code is ReasonCode.PROMISE_BROKEN and isinstance(at := why.fact("told_at"), int) and at >= since_at)
    )


def is_told(draft: Draft, reservation: Reservation, cause: Cause) -> bool:
    """Whether this cause of the broken promise was told since a guest of it last ran."""
    return any(cause.is_told_by(why) for why in told_since_it_ran(draft, reservation))


def _remembered(told: tuple[Reason, ...]) -> tuple[Reason, ...]:
    """Return the latest causes, the latest override among them."""
    override = next((why for why in reversed(told) if is_override(why)), None)
    latest = told[-TOLD_AT_MOST:]
    return latest if override is None or override in latest else (override, *latest[1:])


def break_promise(draft: Draft, reservation: Reservation, cause: Cause) -> None:
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
            start_by_at = max(start_by_at, _first_by_at(draft, current.request, ahead))
            # Overdue near the end of its booking: what it then lacks is booked, and told, once the booking is over.
            end_by_at = max(end_by_at, start_by_at)
    why = reason(
        ReasonCode.PROMISE_BROKEN,
        reservation=current.id,
        start_by_at=start_by_at,
        end_by_at=end_by_at,
        told_at=draft.now,
        **cause.as_facts(),
    )
    told = tuple(other for other in told_since_it_ran(draft, current) if not cause.is_told_by(other))
    draft.put(
        replace(
            current,
            promise=Promise(start_by_at=start_by_at, end_by_at=end_by_at),
            promise_notice=current.promise_notice + 1,
            reasons=_remembered((*told, why)),
        )
    )
    draft.note(
        "promise.raised",
        current,
        is_notice=True,
        cause=cause.text,
        cause_code=cause.code.value,
        start_by_at=start_by_at,
        end_by_at=end_by_at,
    )
