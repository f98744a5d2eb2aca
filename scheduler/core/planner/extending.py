"""Extending: more hours for a reservation, in place or after its boundary.

Who is booked in the way has to have another place by their promise, or the answer is no.

Also the lengthening of a span in place, by whoever has found that there is room, and giving up hours at the end.
"""

from dataclasses import replace

from scheduler.core.calendar.bookings import MOST_DISPLACED
from scheduler.core.plan import BookedSpan, Reservation
from scheduler.core.planner.admission import check_booked_limits
from scheduler.core.planner.booked_limits import AlreadyOver
from scheduler.core.planner.booking import follow_disk, movable, over_as_it_is, rebook
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.promising import keeps_promise
from scheduler.core.reasons import Reason, ReasonCode, reason
from scheduler.core.requests import AtBoundary, by_number
from scheduler.core.spans import Instant


def extend(draft: Draft, reservation: Reservation, by_s: int) -> tuple[Reason, ...]:
    """Give a reservation more hours if nobody is in the way; its owner gets a later end promised with it."""
    assert reservation.promise is not None
    request = replace(reservation.request, run_s=reservation.request.run_s + by_s)
    tail = movable(draft, reservation)
    begun = reservation.span_at(draft.now)
    with draft.attempt() as attempt:
        if begun is not None and not tail:
            if draft.hosts[begun.host].is_drained:
                return (reason(ReasonCode.HOST_DRAINED, host=begun.host),)
            left_s, blocked = _stretch(draft, reservation, begun, by_s)
            if blocked is not None:
                return (blocked,)
            run_s = left_s
        else:
            run_s = sum(draft.hours_s(span, request.gpus) for span in tail) + by_s
        current = draft.reservations[reservation.id]
        keeps_start = keeps_promise(
            draft, replace(current, promise=replace(reservation.promise, end_by_at=draft.horizon_at))
        )
        if run_s > 0 and not rebook(draft, current, run_s=run_s, accept=keeps_start):
            return (_blocked(draft, reservation, by_s),)
        current = draft.reservations[reservation.id]
        over = check_booked_limits(draft, request, current.spans)
        if over:
            return over
        end_by_at = max(reservation.promise.end_by_at, current.spans[-1].end_at)
        promised = replace(current, request=request, promise=replace(reservation.promise, end_by_at=end_by_at))
        draft.put(promised)
        follow_disk(draft, reservation.id, is_owed=True)
        crowded = _crowded_disk(draft, promised, by_s)
        if crowded is not None:
            return (crowded,)
        draft.note("reservation.extended", promised, is_notice=True, by_s=by_s, end_by_at=end_by_at)
        attempt.keep()
    return ()


def _crowded_disk(draft: Draft, reservation: Reservation, by_s: int) -> Reason | None:
    """Return a reason when the pool has no room for a disk as long as it is booked now."""
    if reservation.disk is None:
        return None
    disk = draft.disks[reservation.disk]
    peak_gib = draft.pool_peak_gib(
        disk.storage, is_scratch=disk.is_scratch, start_at=max(disk.from_at, draft.now), end_at=disk.until_at
    )
    if peak_gib <= draft.pool_room_gib(disk.storage, is_scratch=disk.is_scratch):
        return None
    return reason(
        ReasonCode.NO_ROOM_TO_EXTEND,
        reservation=reservation.id,
        by_s=by_s,
        blocker=f"the disk pool of {disk.storage}",
        from_at=reservation.spans[-1].end_at,
    )


def _stretch(draft: Draft, reservation: Reservation, span: BookedSpan, by_s: int) -> tuple[int, Reason | None]:
    """Lengthen a begun span in place up to its boundary; return what is left to deliver, or what is in the way."""
    request = reservation.request
    wanted_at = min(span.end_at + by_s, edge_at(draft, reservation, span))
    end_at = min(wanted_at, room_until_at(draft, reservation, span))
    may_park = request.at_boundary is AtBoundary.PARK
    if end_at < wanted_at and wanted_at < span.end_at + by_s and not may_park:
        return 0, _blocked(draft, reservation, by_s)
    if end_at < wanted_at and _make_room(draft, reservation, span, wanted_at):
        return span.end_at + by_s - wanted_at, None
    if end_at < span.end_at + by_s and not (may_park and end_at > span.end_at):
        return 0, _blocked(draft, reservation, by_s)
    lengthen(draft, reservation, span, end_at)
    return span.end_at + by_s - end_at, None


def _make_room(draft: Draft, reservation: Reservation, span: BookedSpan, end_at: Instant) -> bool:
    """Lengthen a begun span over others' bookings, if each of those has another place by its promise."""
    way = draft.board.in_the_way(span.host, span.partition, span.end_at, end_at)
    owners = sorted({*way}, key=by_number)
    if reservation.id in owners or len(owners) > MOST_DISPLACED:
        return False
    with draft.attempt() as attempt:
        taken: list[tuple[Reservation, int, AlreadyOver]] = []
        for other in [draft.reservations[owner] for owner in owners]:
            gone = movable(draft, other)
            hours_s = sum(draft.hours_s(s, other.request.gpus) for s in gone)
            taken.append((other, hours_s, over_as_it_is(draft, other)))
            draft.put(replace(other, spans=tuple(s for s in other.spans if s not in gone)))
        if not draft.board.is_free(span.host, span.partition, span.end_at, end_at):
            return False
        lengthen(draft, reservation, span, end_at)
        for other, hours_s, may_be_over in sorted(taken, key=lambda item: _urgency(item[0])):
            bare = draft.reservations[other.id]
            if not rebook(draft, bare, run_s=hours_s, may_be_over=may_be_over, accept=keeps_promise(draft, other)):
                return False
        attempt.keep()
    return True


def _urgency(reservation: Reservation) -> tuple[Instant, int]:
    promise = reservation.promise
    return (promise.start_by_at if promise else 0, -reservation.request.gpus)


def room_until_at(draft: Draft, reservation: Reservation, span: BookedSpan) -> Instant:
    """Return until when a span could go on in place: the next booking, or the edge of its stretch."""
    until_at = edge_at(draft, reservation, span)
    return min(until_at, draft.board.free_until(span.host, span.partition, span.end_at))


def edge_at(draft: Draft, reservation: Reservation, span: BookedSpan) -> Instant:
    """Return where the stretch ends that a span lies in."""
    request = reservation.request
    stretches = draft.stretches_of(
        span.host, gpus=request.gpus, queue=request.queue, at_boundary=request.at_boundary, with_gifts=True
    )
    return next((s.end_at for s in stretches if s.start_at <= span.end_at - 1 < s.end_at), span.end_at)


def lengthen(draft: Draft, reservation: Reservation, span: BookedSpan, end_at: Instant) -> None:
    """Give a span that has begun another end."""
    current = draft.reservations[reservation.id]
    draft.put(replace(current, spans=tuple(replace(s, end_at=end_at) if s == span else s for s in current.spans)))
    follow_disk(draft, reservation.id)


def trim(draft: Draft, reservation: Reservation, tail: tuple[BookedSpan, ...], surplus_s: int) -> bool:
    """Take surplus hours off the end of a tail; return whether there was anything to take."""
    assert draft.rules is not None
    of_tail = {id(span) for span in tail}
    kept = [s for s in reservation.spans if id(s) not in of_tail]
    left = list(tail)
    while left and surplus_s >= (hours_s := draft.hours_s(left[-1], reservation.request.gpus)):
        surplus_s -= hours_s
        left.pop()
    if left:
        last = left.pop()
        hours_s = draft.hours_s(last, reservation.request.gpus)
        # The last span keeps at least the minimum useful length: it was padded to it, or is.
        least_s = min(hours_s, draft.rules.min_useful_s)
        left.append(replace(last, end_at=last.end_at - (hours_s - max(hours_s - surplus_s, least_s))))
    if tuple(left) == tail:
        return False
    draft.put(replace(reservation, spans=(*kept, *left)))
    draft.is_room_freed = True
    return True


def _blocked(draft: Draft, reservation: Reservation, by_s: int) -> Reason:
    """Say who is booked behind a reservation's last span."""
    last = reservation.spans[-1]
    mask = draft.partition_of(last).mask
    blocker, from_at = "the end of its time", last.end_at
    behind = [
        (span.start_at, other.id)
        for other in draft.reservations.values()
        for span in other.spans
        if other.id != reservation.id
        and span.host == last.host
        and span.start_at >= last.end_at
        and draft.partition_of(span).mask & mask
        and span.start_at < last.end_at + by_s
    ]
    if behind:
        from_at, blocker_id = min(behind)
        blocker = f"reservation {blocker_id}"
    return reason(ReasonCode.NO_ROOM_TO_EXTEND, reservation=reservation.id, by_s=by_s, blocker=blocker, from_at=from_at)
