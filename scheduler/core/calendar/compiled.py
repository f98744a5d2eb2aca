"""The calendar in C, where a compiler has made it: the same answers as `pure`, many times faster.

`tools/compile_calendar.sh` compiles `calendar.c` beside this file; without it `is_available()` is False and
`PureCalendar` does the same.
"""

import ctypes
from collections.abc import Iterable, Sequence
from ctypes import POINTER, Structure, byref, c_int32, c_int64, c_uint64, c_void_p
from functools import cache
from importlib.resources import files

from scheduler.core.calendar.bookings import FIXED, MOST_DISPLACED, MOST_PIECES, ONE_PIECE, Booking, Fit, Place, Rooms
from scheduler.core.calendar.kinds import Kind
from scheduler.core.errors import BrokenInvariant
from scheduler.core.spans import FOREVER, Instant

LIBRARY = "_calendar.so"
VERSION = 6
"""Of what the library and this file have agreed upon: raised together with calendar_version."""
_BUSY, _TAKEN, _NO_PLACE = -1, -2, -4


class _Place(Structure):
    _fields_ = (("start", c_int64), ("end", c_int64), ("host", c_int32), ("set", c_int32))


class _Fit(Structure):
    _fields_ = (
        ("size", c_int32),
        ("whole", c_int64),
        ("shortest", c_int64),
        ("shape", c_int32),
        ("label", c_int32),
        ("silent", c_int32),
        ("kind", c_int32),
        ("lead", c_int64),
        ("end_by", c_int64),
        ("room", c_void_p),
        ("first", c_void_p),
    )


@cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(str(files("scheduler.core.calendar").joinpath(LIBRARY)))
        if library.calendar_version() != VERSION:
            return None
    except (OSError, AttributeError):
        return None
    place, fit, keys = POINTER(_Place), POINTER(_Fit), POINTER(c_int32)
    signatures: dict[str, tuple[object, list[object]]] = {
        "calendar_new": (c_void_p, [c_int64]),
        "calendar_free": (None, [c_void_p]),
        "calendar_add_kind": (c_int32, [c_void_p, POINTER(c_uint64), c_int32]),
        "calendar_add_host": (c_int32, [c_void_p, c_int32, c_int32]),
        "calendar_set_silent": (None, [c_void_p, c_int32, c_int32]),
        "calendar_set_begin": (None, [c_void_p, c_int32, c_int32, c_int64]),
        "calendar_add_shape": (c_int32, [c_void_p]),
        "calendar_set_stretches": (
            c_int32,
            [c_void_p, c_int32, c_int32, POINTER(c_int64), POINTER(c_int64), keys, c_int32],
        ),
        "calendar_advance": (c_int32, [c_void_p, c_int64]),
        "calendar_is_free": (c_int32, [c_void_p, c_int32, c_int32, c_int64, c_int64]),
        "calendar_free_until": (c_int64, [c_void_p, c_int32, c_int32, c_int64]),
        "calendar_gaps": (
            c_int32,
            [c_void_p, c_int32, c_int32, c_int64, c_int64, POINTER(c_int64), POINTER(c_int64), c_int32],
        ),
        "calendar_book": (c_int32, [c_void_p, c_int32, place, fit, c_int64]),
        "calendar_book_pieces": (
            c_int32,
            [c_void_p, c_int32, c_int32, c_int32, POINTER(c_int64), POINTER(c_int64), c_int32, fit, c_int64],
        ),
        "calendar_pieces": (c_int32, [c_void_p, c_int32, POINTER(c_int64), POINTER(c_int64)]),
        "calendar_walk": (
            c_int32,
            [c_void_p, c_int32, c_int32, c_int64, fit, POINTER(c_int64), POINTER(c_int64)],
        ),
        "calendar_free_key": (c_int32, [c_void_p, c_int32]),
        "calendar_booking": (c_int32, [c_void_p, c_int32, place, fit, POINTER(c_int64)]),
        "calendar_set_due": (c_int32, [c_void_p, c_int32, c_int64]),
        "calendar_count": (c_int32, [c_void_p]),
        "calendar_end_at": (c_int32, [c_void_p, c_int32, c_int64]),
        "calendar_free_hosts": (c_int32, [c_void_p, c_int32, keys]),
        "calendar_earliest": (c_int32, [c_void_p, fit, c_int64, c_int64, place]),
        "calendar_latest": (c_int32, [c_void_p, fit, c_int64, c_int64, place]),
        "calendar_conflicts": (c_int32, [c_void_p, c_int32, c_int32, c_int64, c_int64, keys, c_int32]),
        "calendar_book_all": (
            c_int32,
            [c_void_p, c_int32, keys, POINTER(c_int64), c_int32, c_int64, POINTER(c_int64)],
        ),
        "calendar_compact": (c_int32, [c_void_p, keys, c_int32, keys]),
        "calendar_relax": (c_int32, [c_void_p, keys, c_int32, keys]),
        "calendar_rebook": (c_int32, [c_void_p, keys, c_int32, c_int64, POINTER(c_int64)]),
        "calendar_start_now": (
            c_int32,
            [c_void_p, c_int32, c_int32, c_int32, POINTER(c_int64), c_int64, keys],
        ),
        "calendar_start_first": (
            c_int32,
            [c_void_p, keys, keys, c_int32, c_int32, POINTER(c_int64), c_int64, keys, keys],
        ),
    }
    for name, (restype, argtypes) in signatures.items():
        function = getattr(library, name)
        function.restype = restype
        function.argtypes = argtypes
    return library


def is_available() -> bool:
    """Whether the compiled calendar is here."""
    return _library() is not None


class CompiledCalendar:
    """The same as `PureCalendar`. Not thread-safe."""

    def __init__(self, now: Instant) -> None:
        library = _library()
        assert library is not None
        self._c = library
        self._handle = c_void_p(_checked_handle(library.calendar_new(now)))
        self.now = now
        self.sizes: tuple[int, ...] = ()
        self._kinds: dict[int, tuple[Kind, int]] = {}
        self._host_count = 0
        self._place, self._out = _Place(), _Place()
        self._fit = _Fit()
        self._due, self._which = c_int64(), c_int32()
        self._place_ref, self._out_ref = byref(self._place), byref(self._out)
        self._fit_ref, self._due_ref, self._which_ref = byref(self._fit), byref(self._due), byref(self._which)
        # Lent to each call: ctypes makes a type for each length of an array.
        self._moved, self._keys, self._numbers = (c_int32 * 256)(), (c_int32 * 256)(), (c_int32 * 256)()
        self._piece_starts, self._piece_ends = (c_int64 * MOST_PIECES)(), (c_int64 * MOST_PIECES)()
        self._gap_starts, self._gap_ends = (c_int64 * 8)(), (c_int64 * 8)()
        self._stretch_starts, self._stretch_ends = (c_int64 * 256)(), (c_int64 * 256)()
        self._rooms: tuple[Sequence[Instant], ctypes.Array[c_int64]] | None = None
        """What was told last of room, as it was told, and for the library."""
        self._instants: dict[int, _Fit] = {}
        """A fit of hardly any length for each size."""

    def __del__(self) -> None:
        handle = getattr(self, "_handle", None)
        if handle is not None:
            self._c.calendar_free(handle)

    # ---- hosts

    def add_host(self, kind: Kind, label: int = 0) -> int:
        known = self._kinds.get(id(kind))
        if known is None:
            masks = (c_uint64 * len(kind.masks))(*kind.masks)
            known = kind, _checked(self._c.calendar_add_kind(self._handle, masks, len(kind.masks)))
            self._kinds[id(kind)] = known
            self.sizes = tuple(sorted({*self.sizes, *kind.sizes}))
        number = _checked(self._c.calendar_add_host(self._handle, known[1], label))
        self._host_count = number + 1
        return number

    def set_silent(self, host: int, *, is_silent: bool) -> None:
        self._c.calendar_set_silent(self._handle, host, is_silent)

    def set_begin(self, host: int, place: int, at: Instant) -> None:
        self._c.calendar_set_begin(self._handle, host, place, at)

    def add_shape(self) -> int:
        return _checked(self._c.calendar_add_shape(self._handle))

    def set_stretches(
        self, shape: int, hosts: Iterable[int], stretches: Sequence[tuple[Instant, Instant, bool]]
    ) -> None:
        n = len(stretches)
        if len(self._stretch_starts) < n:
            self._stretch_starts, self._stretch_ends = (c_int64 * (2 * n))(), (c_int64 * (2 * n))()
        starts, ends = self._stretch_starts, self._stretch_ends
        parks = self._keys = _filled(self._keys, [may_park for _, _, may_park in stretches])
        starts[:n] = [start for start, _, _ in stretches]
        ends[:n] = [end for _, end, _ in stretches]
        for host in hosts:
            _checked(self._c.calendar_set_stretches(self._handle, shape, host, starts, ends, parks, n))

    # ---- time

    def advance(self, now: Instant) -> None:
        if now < self.now:
            raise BrokenInvariant(f"the calendar cannot go back from {self.now} to {now}")
        if now > self.now:
            self.now = now
            _checked(self._c.calendar_advance(self._handle, now))

    # ---- booking

    def booking(self, key: int) -> Booking:
        count = self._c.calendar_booking(self._handle, key, self._place_ref, self._fit_ref, self._due_ref)
        if count < 0:
            raise KeyError(key)
        fit = self._fit
        pieces: tuple[tuple[Instant, Instant], ...] = ()
        if count:
            count = self._c.calendar_pieces(self._handle, key, self._piece_starts, self._piece_ends)
            pieces = tuple(zip(self._piece_starts[:count], self._piece_ends[:count], strict=True))
        return Booking(
            _told(self._place),
            Fit(
                fit.size,
                fit.whole,
                fit.shortest,
                fit.shape,
                fit.label,
                bool(fit.silent),
                fit.kind,
                fit.lead,
                fit.end_by,
            ),
            self._due.value,
            pieces,
        )

    def __len__(self) -> int:
        return int(self._c.calendar_count(self._handle))

    def book(self, key: int, place: Place, fit: Fit, due_at: Instant = FIXED) -> None:
        self._set_place(place)
        self._set_fit(fit)
        outcome = self._c.calendar_book(self._handle, key, self._place_ref, self._fit_ref, due_at)
        if outcome == _TAKEN:
            raise BrokenInvariant(f"booking {key} is booked already")
        if outcome == _BUSY:
            is_open = "" if fit.lead_s == ONE_PIECE else " or closed"
            raise BrokenInvariant(f"set {place.set} of host {place.host} is already booked{is_open} in {place}")
        _checked(outcome)

    def book_pieces(
        self,
        key: int,
        host: int,
        chosen: int,
        pieces: Sequence[tuple[Instant, Instant]],
        fit: Fit,
        due_at: Instant = FIXED,
    ) -> None:
        self._set_fit(fit)
        n = len(pieces)
        for number, (start, end) in enumerate(pieces):
            self._piece_starts[number], self._piece_ends[number] = start, end
        outcome = self._c.calendar_book_pieces(
            self._handle, key, host, chosen, self._piece_starts, self._piece_ends, n, self._fit_ref, due_at
        )
        if outcome == _TAKEN:
            raise BrokenInvariant(f"booking {key} is booked already")
        if outcome == _BUSY:
            place = Place(pieces[0][0], pieces[-1][1], host, chosen)
            raise BrokenInvariant(f"set {chosen} of host {host} is already booked in {place}")
        _checked(outcome)

    def free(self, key: int) -> Booking:
        booking = self.booking(key)
        self.drop(key)
        return booking

    def drop(self, key: int) -> None:
        _checked(self._c.calendar_free_key(self._handle, key))

    def set_due(self, key: int, due_at: Instant) -> None:
        if self._c.calendar_set_due(self._handle, key, due_at):
            raise KeyError(key)

    def end_at(self, key: int, end_at: Instant) -> None:
        place = self.booking(key).place
        if not place.start_at < end_at:
            raise BrokenInvariant(f"booking {key} of {place} cannot end at {end_at}")
        outcome = self._c.calendar_end_at(self._handle, key, end_at)
        if outcome == _BUSY:
            raise BrokenInvariant(f"booking {key} of {place} cannot go on to {end_at}: its set is booked")
        _checked(outcome)

    # ---- asking

    def is_free(self, host: int, place: int, start_at: Instant, end_at: Instant) -> bool:
        return bool(self._c.calendar_is_free(self._handle, host, place, start_at, end_at))

    def free_sizes(self, sizes: Iterable[int]) -> set[int]:
        found = set()
        for size in sizes:
            fit = self._instants.get(size)
            if fit is None:
                self._set_fit(Fit(size, 1, 1))
                fit = self._instants[size] = _Fit.from_buffer_copy(self._fit)
            if not self._c.calendar_earliest(self._handle, byref(fit), self.now, self.now, self._out_ref):
                found.add(size)
        return found

    def free_hosts(self, size: int) -> list[int]:
        hosts = self._room(self._host_count)
        return list(hosts[: self._c.calendar_free_hosts(self._handle, size, hosts)])

    def free_until(self, host: int, place: int, from_at: Instant) -> Instant:
        return int(self._c.calendar_free_until(self._handle, host, place, from_at))

    def gaps(self, host: int, place: int, start_at: Instant, end_at: Instant) -> list[tuple[Instant, Instant]]:
        most = len(self._gap_starts)
        count = self._c.calendar_gaps(
            self._handle, host, place, start_at, end_at, self._gap_starts, self._gap_ends, most
        )
        if count == most:
            self._gap_starts, self._gap_ends = (c_int64 * (4 * most))(), (c_int64 * (4 * most))()
            return self.gaps(host, place, start_at, end_at)
        return list(zip(self._gap_starts[:count], self._gap_ends[:count], strict=True))

    def conflicts(self, host: int, place: int, start_at: Instant, end_at: Instant) -> list[int]:
        most = len(self)
        keys = self._room(most + 1)
        count = _checked(self._c.calendar_conflicts(self._handle, host, place, start_at, end_at, keys, most))
        return list(keys[:count])

    def earliest(
        self, fit: Fit, from_at: Instant, latest_at: Instant = FOREVER, first_at: Sequence[Instant] | None = None
    ) -> Place | None:
        self._set_fit(fit)
        if first_at is not None:
            _check_count(first_at, self._host_count)
            return self._earliest_after(from_at, latest_at, (c_int64 * len(first_at))(*first_at))
        if self._c.calendar_earliest(self._handle, self._fit_ref, from_at, latest_at, self._out_ref):
            return None
        return _told(self._out)

    def _earliest_after(self, from_at: Instant, latest_at: Instant, first_at: "ctypes.Array[c_int64]") -> Place | None:
        """Return the earliest place for the fit that was set; each host has a first start."""
        self._fit.first = ctypes.addressof(first_at)
        outcome = self._c.calendar_earliest(self._handle, self._fit_ref, from_at, latest_at, self._out_ref)
        self._fit.first = None
        return None if outcome else _told(self._out)

    def pieces(self, host: int, place: int, start: Instant, fit: Fit) -> list[tuple[Instant, Instant]]:
        self._set_fit(fit)
        starts, ends = self._piece_starts, self._piece_ends
        count = self._c.calendar_walk(self._handle, host, place, start, self._fit_ref, starts, ends)
        return list(zip(starts[:count], ends[:count], strict=True))

    def latest(self, fit: Fit, from_at: Instant, latest_at: Instant) -> Place | None:
        self._set_fit(fit)
        if self._c.calendar_latest(self._handle, self._fit_ref, from_at, latest_at, self._out_ref):
            return None
        return _told(self._out)

    def book_all(self, key: int, asks: Sequence[tuple[int, int]], from_at: Instant) -> list[Instant]:
        n = len(asks)
        sizes = (c_int32 * n)(*[size for size, _ in asks])
        wholes = (c_int64 * n)(*[whole_s for _, whole_s in asks])
        starts = (c_int64 * n)()
        placed = _checked(self._c.calendar_book_all(self._handle, key, sizes, wholes, n, from_at, starts))
        return list(starts[:placed])

    # ---- the plan that keeps every promise

    def compact(self, keys: Sequence[int]) -> list[int]:
        self._keys, moved = _filled(self._keys, keys), self._room(len(keys))
        count = _checked(self._c.calendar_compact(self._handle, self._keys, len(keys), moved))
        return list(moved[:count])

    def relax(self, keys: Sequence[int]) -> list[int]:
        self._keys, moved = _filled(self._keys, keys), self._room(len(keys))
        count = _checked(self._c.calendar_relax(self._handle, self._keys, len(keys), moved))
        return list(moved[:count])

    def rebook(self, keys: Sequence[int], most_gpu_s: int) -> int | None:
        self._keys = _filled(self._keys, keys)
        found = _checked(self._c.calendar_rebook(self._handle, self._keys, len(keys), most_gpu_s, self._due_ref))
        return self._due.value if found else None

    def start_now(
        self, key: int, *, widest: int, most: int = MOST_DISPLACED, rooms: Rooms | None = None
    ) -> list[int] | None:
        moved = self._moved
        count = _checked(self._c.calendar_start_now(self._handle, key, widest, most, *self._rooms_of(rooms), moved))
        return list(moved[:count]) if count else None

    def start_first(
        self, keys: Sequence[int], widest: Sequence[int], rooms: Rooms | None = None
    ) -> tuple[int, list[int]] | None:
        moved, which = self._moved, self._which
        self._keys, self._numbers = _filled(self._keys, keys), _filled(self._numbers, widest)
        count = _checked(
            self._c.calendar_start_first(
                self._handle,
                self._keys,
                self._numbers,
                len(keys),
                MOST_DISPLACED,
                *self._rooms_of(rooms),
                moved,
                self._which_ref,
            )
        )
        return (which.value, list(moved[:count])) if count else None

    def _rooms_of(self, rooms: Rooms | None) -> "tuple[ctypes.Array[c_int64] | None, int]":
        if rooms is None:
            return None, 0
        if self._rooms is None or self._rooms[0] is not rooms.until_at:
            _check_count(rooms.until_at, self._host_count)
            self._rooms = rooms.until_at, (c_int64 * len(rooms.until_at))(*rooms.until_at)
        return self._rooms[1], rooms.kept_s

    # ---- values there and back

    def _room(self, keys: int) -> "ctypes.Array[c_int32]":
        if len(self._moved) < keys:
            self._moved = (c_int32 * (2 * keys))()
        return self._moved

    def _set_place(self, place: Place) -> None:
        mine = self._place
        mine.start, mine.end, mine.host, mine.set = place

    def _set_fit(self, fit: Fit) -> None:
        mine = self._fit
        mine.size, mine.whole, mine.shortest, mine.shape, mine.label, mine.silent, mine.kind = fit[:7]
        mine.lead, mine.end_by = fit[7:]


def _check_count(instants: Sequence[Instant], hosts: int) -> None:
    if len(instants) != hosts:
        raise BrokenInvariant(f"{len(instants)} instants were told for {hosts} hosts")


def _filled(room: "ctypes.Array[c_int32]", numbers: Sequence[int]) -> "ctypes.Array[c_int32]":
    """Write numbers to the beginning of an array, or of a longer one; return it."""
    n = len(numbers)
    if len(room) < n:
        room = (c_int32 * (2 * n))()
    room[:n] = [*numbers]
    return room


def _told(place: _Place) -> Place:
    return Place(place.start, place.end, place.host, place.set)


def _checked(outcome: int) -> int:
    if outcome == _NO_PLACE:
        raise KeyError("a booking that is not there")
    if outcome < 0:
        raise MemoryError(f"the calendar could not go on: {outcome}")
    return outcome


def _checked_handle(handle: int | None) -> int:
    if handle is None:
        raise MemoryError("no memory for a calendar")
    return handle
