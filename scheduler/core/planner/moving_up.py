"""Moving up: who has started before, or is late, goes earlier into room that came free, one at a time.

Whoever had no better place when it was looked at last is looked at again only where somebody has left since: in a gap
that its next piece fits into, before where it is booked. What was left is remembered in `freed`.
"""

from collections.abc import Sequence
from dataclasses import replace

from scheduler.core.plan import BookedSpan, Reservation
from scheduler.core.planner.admission import check_booked_limits
from scheduler.core.planner.booking import Reach, is_disk_bound, movable, rebook, want_of
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.freed import Left
from scheduler.core.planner.limits import book_of, limits_changed_at
from scheduler.core.planner.moving import unmovable
from scheduler.core.planner.placing import earliest_piece, opens_at
from scheduler.core.planner.promising import has_started, is_in_time
from scheduler.core.planner.replanning import in_order_of_claim
from scheduler.core.requests import HostId, Request
from scheduler.core.spans import FOREVER, Instant


def compress(draft: Draft) -> None:
    """Move bookings earlier into room that became free, one at a time; none is moved later.

    Those that have started before, and what is later than it was promised. All others stay where they are until they
    can start: the near future is kept free for whoever may start now.
    """
    now = draft.now
    draft.ready_board()
    left = draft.freed_since((limits_changed_at(draft), len(draft.hosts)))
    room = None if left is None else _Room(draft, left)
    # Those that the board may move wait in time, and are not among them.
    ahead = [*draft.going_on_later().values(), *unmovable(draft)]
    waiting = [r for r in ahead if r.spans and r.spans[-1].start_at > now and _may_move_up(draft, r, room)]
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
    """Whether it is worth the cost of placing one anew.

    `room`: what was freed since all were looked at last; None: anything may have been.
    """
    first, promise = reservation.spans[0], reservation.promise
    if has_started(reservation) or first.start_at <= draft.now or promise is None:
        if room is None or not has_started(reservation):
            return _may_be_earlier(draft, reservation, None)
        if _may_be_earlier(draft, reservation, room):
            return True
        # One without a disk looks for room for one too.
        return not is_disk_bound(draft, reservation) and _may_be_earlier(draft, reservation, None)
    return not is_in_time(draft, reservation) and bool(movable(draft, reservation))


def _may_be_earlier(draft: Draft, reservation: Reservation, room: "_Room | None") -> bool:
    """Whether a span that may be moved could begin before it does, if only there was room; in what was freed, if told.

    Where it had no better place before, each better one that it has now begins in a gap that somebody has left.
    """
    request, now = reservation.request, draft.now
    if draft.openings.earliest.get(reservation.id) is reservation:
        # It may have been written once more as it was.
        draft.rest(reservation)
        return False
    if room is not None:
        if room.is_of_use_by_limits(reservation):
            room = None
        elif not room.gaps_of(request.gpus):
            return False
    from_at, is_earliest = now, True
    # It goes on where its disk is.
    is_bound = request.continues is not None or (has_started(reservation) and is_disk_bound(draft, reservation))
    for span in reservation.spans:
        if span.generation is None and span.start_at > now:
            storage = draft.hosts[span.host].storage if is_bound else None
            let_in_at = opens_at(draft, request, from_at, storage)
            if span.start_at > let_in_at:
                is_earliest = False
                if room is None or (
                    room.may_be_before(request.gpus, span, let_in_at)
                    and room.is_before(reservation, span, let_in_at, storage)
                ):
                    return True
        from_at = max(span.end_at, now)
    if is_earliest:
        # Nobody is let in earlier, now or later, as long as the windows and hosts stay.
        draft.rest(reservation)
    return False


class _Room:
    """What others have left."""

    def __init__(self, draft: Draft, left: Sequence[Left]) -> None:
        self._draft = draft
        self._left = left
        self._gaps: dict[int, list[tuple[HostId, Instant, Instant, int]]] = {}
        self._firsts: dict[tuple[int, Instant], tuple[Instant, frozenset[tuple[HostId, Instant]]]] = {}
        self._owners = {owner for owner, _ in left}
        self._has_limits = draft.rules is not None and book_of(draft).may_bind_bookings

    def is_of_use_by_limits(self, reservation: Reservation) -> bool:
        """Whether somebody left whose bookings count together with those of one's owner."""
        if not self._has_limits:
            return False
        limited = book_of(self._draft).limited(reservation.request.owner)
        return any(self._owners & one.members for one in limited if one.is_bound_by_bookings)

    def may_be_before(self, gpus: int, span: BookedSpan, from_at: Instant) -> bool:
        """Whether any gap that is of use from an instant on begins before a span; costs a look-up."""
        key = gpus, from_at
        if key not in self._firsts:
            ahead = [(host, max(start, from_at), end, least_s) for host, start, end, least_s in self.gaps_of(gpus)]
            first_at = min((start for _, start, end, least_s in ahead if start + least_s <= end), default=FOREVER)
            self._firsts[key] = first_at, frozenset((host, end) for host, start, end, _ in ahead if start < end)
        first_at, ends = self._firsts[key]
        return span.start_at > first_at or (span.host, span.start_at) in ends

    def is_before(self, reservation: Reservation, span: BookedSpan, from_at: Instant, storage: str | None) -> bool:
        """Whether a span of one could begin from an instant on, earlier than it does, in a gap that somebody left.

        `storage`: where its disk is; None: nowhere yet.
        """
        is_long_enough, hosts = False, self._draft.hosts
        for host, start_at, end_at, shortest_s in self.gaps_of(reservation.request.gpus):
            begins_at = max(start_at, from_at)
            if begins_at >= span.start_at or storage not in (None, hosts[host].storage):
                # Its disk is not moved for it.
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
            left = [(part, draft.partition_of(part).mask) for _, part in self._left if part.end_at > draft.now]
            found: set[tuple[HostId, Instant, Instant]] = {
                (part.host, *gap)
                for part, mask in left
                for partition in draft.hosts[part.host].profile.partitions_of_size(gpus)
                if partition.mask & mask
                for gap in draft.board.gaps(part.host, partition.id, part.start_at, part.end_at)
            }
            self._gaps[gpus] = [
                (host, start_at, end_at, self._shortest_s(host, gpus)) for host, start_at, end_at in sorted(found)
            ]
        return self._gaps[gpus]

    def _shortest_s(self, host: HostId, gpus: int) -> int:
        assert self._draft.rules is not None
        return self._draft.lead_s(self._draft.hosts[host].profile, gpus) + self._draft.rules.min_useful_s
