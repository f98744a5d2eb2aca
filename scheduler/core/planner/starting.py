"""Starting those that wait: one pass over them in their order, each started now if the plan that is left is whole.

The calendar tries those that it may move, all of them at one blow. Where it has not tried all there is, another place
is looked for: of another kind, in pieces. For whom there is none yet, others may be displaced by hand at the end.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from enum import Enum, auto
from itertools import islice

from scheduler.core.calendar.bookings import Rooms
from scheduler.core.plan import BookedSpan, Reservation
from scheduler.core.planner.admission import check_booked_limits
from scheduler.core.planner.booked_limits import over_limits
from scheduler.core.planner.booking import Reach, follow_disk, movable, rebook, want_of
from scheduler.core.planner.disk_room import DiskRoom
from scheduler.core.planner.displacing import WIDE, Displacer
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.limits import book_of
from scheduler.core.planner.moving import is_well, make_movable
from scheduler.core.planner.placing import Want, fits_of, is_crossed, times_of
from scheduler.core.planner.promising import keeps_promise
from scheduler.core.requests import ReservationId

MOST_AT_ONCE = 64
"""So many are given to the calendar at once."""


class Tries:
    """One pass over those that wait, in their order."""

    def __init__(self, draft: Draft, free: set[int]) -> None:
        """`free`: sizes of which some set is free."""
        self._draft = draft
        self._free = free
        self._room = DiskRoom(draft)
        self._has_limits = draft.rules is not None and book_of(draft).may_bind_bookings
        self._is_over: dict[Hashable, bool] = {}
        self._elsewhere: dict[Hashable, bool] = {}
        self._is_looked_through = False
        """Of all that are left it is known that limits and disks let them start."""
        self._is_one_left_out = False
        """For the disk of some there was no room, or none where GPUs are free."""

    def with_room(self, waiting: Sequence[Reservation]) -> Sequence[Reservation]:
        """Return those for whose disks there is room on a host with GPUs for them that are free."""
        found = self._room.with_room(waiting)
        self._is_one_left_out = len(found) < len(waiting)
        return found

    def start(self, waiting: Sequence[Reservation]) -> None:
        """Start all that can."""
        displacer, left = Displacer(self._draft), list(waiting)
        in_the_way: list[Reservation] = []
        while left:
            left = [one for one in left if one.request.gpus in self._free]
            if not self._is_looked_through:
                worth_it = [one for one in left if self._is_worth_it(one)]
                self._is_one_left_out = self._is_one_left_out or len(worth_it) < len(left)
                left, self._is_looked_through = worth_it, True
            number = self._start_first(left)
            in_the_way += left[:number]
            del left[: number + 1]
        for reservation in displacer.worth_a_look(in_the_way):
            if reservation.request.gpus in self._free and displacer.start(reservation.id):
                displacer.forget()
                self._note_started(reservation)
        if self._room.has_grown and (self._is_one_left_out or in_the_way):
            # Disks went where their bookings went: somebody who was tried before may have room for his now.
            self._draft.are_all_to_be_tried = True

    def _is_worth_it(self, reservation: Reservation) -> bool:
        """Whether one could start as far as limits and disks go."""
        request = reservation.request
        if self._has_limits:
            key = request.owner, request.gpus
            is_over = self._is_over.get(key)
            if is_over is None:
                is_over = self._is_over[key] = _is_over_now(self._draft, reservation)
            if is_over:
                return False
        return self._room.is_plenty or self._room.has_any(reservation)

    def _start_first(self, waiting: Sequence[Reservation]) -> int:
        """Start the first that can; return its place among them, or how many they are."""
        number, alone, rooms = 0, list[ReservationId](), None
        while number < len(waiting):
            found: tuple[int, _Try] | None = None
            if not alone:
                alone, rooms = self._only_for_the_calendar(islice(waiting, number, number + MOST_AT_ONCE))
            if alone:
                found = _start_first(self._draft, alone, rooms)
                number += len(alone) if found is None else found[0]
                alone = [] if found is None else alone[found[0] + 1 :]
                if found is None:
                    continue
            if self._is_started(waiting[number], None if found is None else found[1]):
                self._note_started(waiting[number])
                break
            number += 1
        return number

    def _only_for_the_calendar(self, waiting: Iterable[Reservation]) -> tuple[list[ReservationId], Rooms | None]:
        """Return those that come first for whom there is only what the calendar can do, and where they have room."""
        known, has_plenty = self._draft.board.movable, self._room.is_plenty
        found = list[ReservationId]()
        rooms: Rooms | None = None
        for reservation in waiting:
            movable = known.get(reservation.request.id)
            if movable is None:
                break
            may_be_elsewhere = self._elsewhere.get(movable.shape)
            if may_be_elsewhere is None:
                # Where others are in its way, there may be a place that the calendar has not tried.
                want = want_of(self._draft, reservation.request, run_s=reservation.request.run_s, with_gifts=True)
                may_be_elsewhere = self._elsewhere[movable.shape] = _has_more_places(self._draft, want)
            if may_be_elsewhere:
                break
            if not has_plenty:
                its_rooms = self._room.of(reservation)
                if found and its_rooms is not rooms:
                    break
                rooms = its_rooms
            found.append(reservation.request.id)
        return found, rooms

    def _is_started(self, reservation: Reservation, tried: "_Try | None") -> bool:
        """Start one now if there is room for it; `tried`: what came of it, if the calendar has tried."""
        draft, key = self._draft, reservation.id
        if tried is None and key in draft.board.movable:
            found = _start_first(draft, [key], self._room.of(reservation))
            tried = _Try.IN_THE_WAY if found is None else found[1]
        if tried is _Try.STARTED:
            return True
        return _is_worth_another_look(draft, reservation, tried) and _start_elsewhere(draft, key)

    def _note_started(self, reservation: Reservation) -> None:
        self._draft.board.fix(reservation.id)
        self._free = free_sizes(self._draft, self._free)
        if self._room.look_again() or self._has_limits:
            self._is_looked_through = False
            self._is_over.clear()


def _is_over_now(draft: Draft, reservation: Reservation) -> bool:
    """Whether its owner would go over a limit if it ran now."""
    instant = replace(reservation.spans[0], start_at=draft.now, end_at=draft.now + 1)
    return any(one.is_at_once for one in over_limits(draft, reservation.request, (instant,)))


def free_sizes(draft: Draft, sizes: Iterable[int]) -> set[int]:
    """Return the sizes of which some set has nothing booked on it now."""
    return draft.ready_board().calendar.free_sizes(sizes)


class _Try(Enum):
    """What came of trying to start one now that the board may move."""

    STARTED = auto()
    IN_THE_WAY = auto()
    """On no host of its kind there is room, or those in the way have no other place: by GPUs, or in crowded pools."""
    NOT_WELL = auto()
    """There is room, but a disk or a limit is in the way."""


def _start_first(draft: Draft, keys: Sequence[ReservationId], rooms: Rooms | None) -> tuple[int, _Try] | None:
    """Start the first of those that the board may move for which there is room, or who is in the way has other places.

    `rooms`: where they have room for their disks; None: everywhere.
    Returns which one that is, and whether all that would move keep their promises, disks and limits; else nothing has
    changed. None: there is none.
    """
    known = draft.board.movable
    sizes = [known[key].reservation.request.gpus for key in keys]
    found = draft.board.start_first(keys, [size if size < WIDE else 64 for size in sizes], rooms)
    if found is None:
        return None
    number, moved = found
    before = {key: known[key].reservation for key in moved}
    disks = draft.disks.mark()
    for key, spans in moved.items():
        draft.put_moved(replace(before[key], spans=spans))
        follow_disk(draft, key)
    unwell = next((key for key in moved if not is_well(draft, draft.reservations[key])), None)
    if unwell is None:
        for key in moved:
            known[key].reservation = draft.reservations[key]
        return number, _Try.STARTED
    draft.board.move_back({key: before[key].spans for key in moved})
    for key in moved:
        draft.put_moved(before[key])
    draft.disks.undo(disks)
    # Where pools are crowded, whoever has room for his disk and nobody in his way has been started.
    return number, _Try.NOT_WELL if rooms is None or unwell == keys[number] else _Try.IN_THE_WAY


def _is_worth_another_look(draft: Draft, reservation: Reservation, tried: _Try | None) -> bool:
    """Whether one may find a place now that the board has not tried: of another kind, with room for it, in pieces.

    The board looks on hosts of one kind for one partition, and knows of disk pools only where these are crowded.
    `tried`: what came of that.
    """
    want = want_of(draft, reservation.request, run_s=reservation.request.run_s, with_gifts=True)
    if tried is _Try.IN_THE_WAY and not _has_more_places(draft, want):
        return False
    times = times_of(draft, want)
    return any(draft.board.earliest(fit, draft.now, draft.now, times) for fit in fits_of(draft, want))


def _has_more_places(draft: Draft, want: Want) -> bool:
    """Whether there are hosts of other kinds, or pieces anywhere are of use where others are in the way."""
    return draft.board.kinds_of(want.gpus) != 1 or is_crossed(draft, want)


def _start_elsewhere(draft: Draft, reservation_id: ReservationId) -> bool:
    """Start one now wherever nobody is in its way: in one piece or several, on any host that has room for it."""
    reservation = draft.reservations[reservation_id]
    if len(movable(draft, reservation)) != len(reservation.spans):
        return False
    keeps = keeps_promise(draft, reservation)

    def starts_now(spans: tuple[BookedSpan, ...]) -> bool:
        return (
            spans[0].start_at == draft.now
            and keeps(spans)
            and not check_booked_limits(draft, reservation.request, spans)
        )

    is_started = rebook(draft, reservation, reach=Reach.ANSWERING, latest_at=draft.now, accept=starts_now)
    if not is_started and reservation_id not in draft.board.movable:
        # It was taken out and put back: the board has to be told again.
        make_movable(draft, [draft.reservations[reservation_id]])
    return is_started
