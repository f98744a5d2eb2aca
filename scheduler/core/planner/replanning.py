"""Replanning: many bookings at once. Moved earlier one at a time, or all taken out and placed anew, or not at all.

A booking never moves past its promise, and what waits for something lost does not hold up the others.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from scheduler.core.plan import BookedSpan, Reservation
from scheduler.core.planner.admission import check_booked_limits
from scheduler.core.planner.booking import Reach, is_disk_bound, movable, over_as_it_is, rebook, want_of
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.freed import Left
from scheduler.core.planner.limits import book_of, limits_changed_at
from scheduler.core.planner.placing import earliest_piece
from scheduler.core.planner.promising import has_started, keeps_promise
from scheduler.core.requests import HostId, Request, ReservationId, by_number
from scheduler.core.spans import Instant


def in_order_of_claim(draft: Draft, reservations: Iterable[Reservation]) -> list[Reservation]:
    """Return reservations in the order in which they choose places: resumes first, largest first, then first come."""

    def claim(reservation: Reservation) -> tuple[bool, int, Instant, tuple[int, str]]:
        is_resume = has_started(reservation)
        size = -reservation.request.gpus if is_resume else 0
        return not is_resume, size, reservation.request.submitted_at, by_number(reservation.id)

    return sorted(reservations, key=claim)


def compress(draft: Draft) -> None:
    """Move bookings earlier into room that became free, one at a time; none is moved later.

    Those that have started before, and what is later than it was promised. All others stay where they are until they
    can start: the near future is kept free for whoever may start now.
    """
    now = draft.now
    draft.ready_board()
    left = draft.freed_since((limits_changed_at(draft), len(draft.hosts)))
    room = None if left is None else _Room(draft, left)
    known = draft.board.movable
    waiting = [
        r
        for r in draft.live()
        if r.spans
        and r.spans[-1].start_at > now
        # Those that the board may move wait in time.
        and not (r.id in known and known[r.id].reservation is r)
        and _may_move_up(draft, r, room)
    ]
    for reservation in in_order_of_claim(draft, waiting):
        old = movable(draft, reservation)

        def is_earlier(
            spans: tuple[BookedSpan, ...],
            old: tuple[BookedSpan, ...] = old,
            request: Request = reservation.request,
        ) -> bool:
            before, after = (old[0].start_at, old[-1].end_at), (spans[0].start_at, spans[-1].end_at)
            is_better = after != before and after[0] <= before[0] and after[1] <= before[1]
            return is_better and not check_booked_limits(draft, request, spans)

        rebook(draft, reservation, reach=Reach.ANSWERING, latest_at=old[0].start_at, accept=is_earlier)


def _may_move_up(draft: Draft, reservation: Reservation, room: "_Room | None") -> bool:
    """`room`: what was freed since somebody looked last; None: anything may have been."""
    first, promise = reservation.spans[0], reservation.promise
    if has_started(reservation) or first.start_at <= draft.now or promise is None:
        if room is None or not has_started(reservation):
            return _may_be_earlier(draft, reservation, None)
        if _may_be_earlier(draft, reservation, room):
            return True
        # One that never ran looks for room for its disk too.
        never_ran = reservation.spans[-1].end_at > draft.now and not any(s.is_pinned for s in reservation.spans)
        return never_ran and not is_disk_bound(draft, reservation) and _may_be_earlier(draft, reservation, None)
    by_at = first.start_at + draft.lead_s(draft.hosts[first.host].profile, reservation.request.gpus)
    is_in_time = by_at <= promise.start_by_at and reservation.spans[-1].end_at <= promise.end_by_at
    return not is_in_time and bool(movable(draft, reservation))


def _may_be_earlier(draft: Draft, reservation: Reservation, room: "_Room | None") -> bool:
    """Whether a span that may be moved could begin before it does, if only there was room; in what was freed, if told.

    Where it had no better place before, each better one that it has now begins in a gap that somebody has left.
    """
    request, ends_at, openings = reservation.request, draft.now, draft.openings
    if room is not None:
        if room.is_of_use_by_limits(reservation):
            room = None
        elif not room.gaps_of(request.gpus):
            return False
    for span in reservation.spans:
        if span.generation is None and span.start_at > draft.now:
            from_at = max(ends_at, draft.now)
            key = request.gpus, request.queue, request.at_boundary, from_at
            if key not in openings:
                openings[key] = _opens_at(draft, request, from_at)
            if span.start_at > openings[key] and (room is None or room.is_before(reservation, span, openings[key])):
                return True
        ends_at = span.end_at
    return False


class _Room:
    """What others have left."""

    def __init__(self, draft: Draft, left: Sequence[Left]) -> None:
        self._draft = draft
        self._left = left
        self._gaps: dict[int, list[tuple[HostId, Instant, Instant, int]]] = {}
        self._owners = {owner for owner, _ in left}
        self._has_limits = draft.rules is not None and book_of(draft).may_bind_bookings

    def is_of_use_by_limits(self, reservation: Reservation) -> bool:
        """Whether somebody left whose bookings count together with those of one's owner."""
        if not self._has_limits:
            return False
        limited = book_of(self._draft).limited(reservation.request.owner)
        return any(self._owners & one.members for one in limited if one.is_bound_by_bookings)

    def is_before(self, reservation: Reservation, span: BookedSpan, from_at: Instant) -> bool:
        """Whether a span of one could begin from an instant on, earlier than it does, in a gap that somebody left."""
        is_long_enough = False
        for host, start_at, end_at, shortest_s in self.gaps_of(reservation.request.gpus):
            begins_at = max(start_at, from_at)
            if begins_at >= span.start_at:
                continue
            if host == span.host and begins_at < end_at == span.start_at:
                # It is booked behind the gap: the two together are as long as it likes.
                return True
            is_long_enough = is_long_enough or begins_at + shortest_s <= end_at
        return is_long_enough and self._fits_before(reservation, span, from_at)

    def _fits_before(self, reservation: Reservation, span: BookedSpan, from_at: Instant) -> bool:
        """Whether there is room anywhere for a piece that does what a span and those after it do, earlier."""
        draft, request = self._draft, reservation.request
        rest_s = sum(draft.hours_s(one, request.gpus) for one in reservation.spans if one.start_at >= span.start_at)
        want = replace(
            want_of(draft, request, run_s=rest_s, with_gifts=True),
            only_at=False,
            from_at=from_at,
            latest_at=span.start_at - 1,
            storage=draft.hosts[span.host].storage,
        )
        return earliest_piece(draft, want) is not None

    def gaps_of(self, gpus: int) -> list[tuple[HostId, Instant, Instant, int]]:
        """Return the gaps of all sets of a size that somebody has left, each with the shortest that can be booked."""
        if gpus not in self._gaps:
            draft = self._draft
            found: set[tuple[HostId, Instant, Instant]] = {
                (part.host, *gap)
                for _, part in self._left
                if part.end_at > draft.now
                for partition in draft.hosts[part.host].profile.partitions_of_size(gpus)
                if partition.mask & draft.partition_of(part).mask
                for gap in draft.board.gaps(part.host, partition.id, part.start_at, part.end_at)
            }
            self._gaps[gpus] = [
                (host, start_at, end_at, self._shortest_s(host, gpus)) for host, start_at, end_at in sorted(found)
            ]
        return self._gaps[gpus]

    def _shortest_s(self, host: HostId, gpus: int) -> int:
        assert self._draft.rules is not None
        return self._draft.lead_s(self._draft.hosts[host].profile, gpus) + self._draft.rules.min_useful_s


def _opens_at(draft: Draft, request: Request, from_at: Instant) -> Instant:
    """Return from when on any host lets a request in."""

    def ahead(host: HostId) -> Iterator[Instant]:
        stretches = draft.stretches_of(
            host, gpus=request.gpus, queue=request.queue, at_boundary=request.at_boundary, with_gifts=True
        )
        return (max(stretch.start_at, from_at) for stretch in stretches if stretch.end_at > from_at)

    return min((next(ahead(host), from_at) for host in draft.hosts), default=from_at)


def is_stuck(draft: Draft, reservation: Reservation) -> bool:
    """Whether a booking lies where nothing may be booked anew, for want of another place: lost GPUs, a drained host."""
    return any(draft.is_lost(span) or draft.hosts[span.host].is_drained for span in movable(draft, reservation))


def hours_ahead(draft: Draft, *, stuck: ReservationId | None = None) -> dict[ReservationId, int]:
    """Return the hours that the movable spans of each live reservation deliver.

    Without those that are stuck, `stuck` excepted: what they wait for must not hold up everybody else.
    """
    live = [r for r in draft.live() if _is_ahead(draft, r)]
    live = [r for r in live if r.id == stuck or not is_stuck(draft, r)]
    return {r.id: sum(draft.hours_s(s, r.request.gpus) for s in movable(draft, r)) for r in live}


def replan(
    draft: Draft,
    *,
    first: Callable[[], None] | None = None,
    hours_by_id: Mapping[ReservationId, int] | None = None,
    stuck: ReservationId | None = None,
    on_broken: Callable[[ReservationId, int], None] | None = None,
) -> ReservationId | None:
    """Take all movable bookings out, do `first`, and place them again. None: done, and every promise holds.

    `hours_by_id` is what they have to deliver; by default what they deliver as they are booked now. Bookings that are
    stuck stay where they are, but for `stuck`.

    `on_broken` is told whose promise does not hold, with the hours that are not placed; all others are placed then.

    Else everything is as it was, and the reservation whose promise did not hold is returned. This is what makes a
    boundary a free defragmentation: resumes are placed largest first, on blocks that are all free.
    """
    with draft.attempt() as attempt:
        run_s_by_id = hours_ahead(draft, stuck=stuck) if hours_by_id is None else hours_by_id
        live = [draft.reservations[key] for key in run_s_by_id]
        most_by_id = {r.id: over_as_it_is(draft, r) for r in live}
        for reservation in live:
            gone = movable(draft, reservation)
            draft.put(replace(reservation, spans=tuple(s for s in reservation.spans if s not in gone)))
        if first is not None:
            first()
        resumes = [r for r in in_order_of_claim(draft, live) if has_started(r)]
        others = [r for r in in_order_of_claim(draft, live) if not has_started(r)]
        others.sort(key=lambda r: r.promise.start_by_at if r.promise else 0)
        for before in [*resumes, *others]:
            reservation = draft.reservations[before.id]
            run_s = run_s_by_id[before.id] - _delivered_more_s(draft, before, reservation)
            # What waits on a host that does not answer may stay there: it must not push out those that are well placed.
            is_on_silent = any(span.host in draft.silent_hosts for span in before.spans)
            if run_s > 0 and not rebook(
                draft,
                reservation,
                run_s=run_s,
                reach=Reach.ALL if is_on_silent else Reach.ANSWERING_FIRST,
                may_be_over=most_by_id[before.id],
                accept=keeps_promise(draft, reservation),
            ):
                if on_broken is None:
                    return before.id
                on_broken(before.id, run_s)
        attempt.keep()
        return None


def _is_ahead(draft: Draft, reservation: Reservation) -> bool:
    return any(span.end_at > draft.now for span in reservation.spans)


def _delivered_more_s(draft: Draft, before: Reservation, after: Reservation) -> int:
    """Return how many more hours the spans that stay deliver after a change than before it."""
    kept = [span for span in before.spans if span not in movable(draft, before)]
    return sum(s.end_at for s in after.spans) - sum(s.end_at for s in kept)
