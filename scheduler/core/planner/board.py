"""The board: the calendar of one plan, in the plan's own names.

Hosts, partitions and storages are numbers to the calendar; here they have names. A span is known by where and when it
starts: no two lie there. Knows nothing of requests, windows or promises, but for the stretches that it is given.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from scheduler.core.calendar.bookings import FIXED, ONE_PIECE, Booking, Fit, Place, Rooms
from scheduler.core.calendar.kinds import Kind, kind_of
from scheduler.core.calendar.making import Calendar, make_calendar
from scheduler.core.errors import BrokenInvariant
from scheduler.core.plan import BookedSpan, Host, Reservation
from scheduler.core.requests import HostId, ReservationId, by_number
from scheduler.core.spans import DAY_S, Instant
from scheduler.core.topology import HostProfile, PartitionId
from scheduler.core.windows import Stretch

SpanKey = tuple[HostId, PartitionId, Instant]

MOST_NUMBERS = 50_000
"""A board is made anew when reservations have come whose numbers are so much higher than its first."""

LOOKS_AHEAD_S = 4 * DAY_S
"""Stretches are worked out for so long at first, and for longer when nothing fits."""


@dataclass(slots=True)
class _KindOfHost:
    """Hosts that are cut alike: all with one profile."""

    number: int
    profile: HostProfile
    kind: Kind
    sets: dict[PartitionId, int]
    """The numbers of its partitions."""


@dataclass(slots=True)
class Movable:
    """A booking of one partition, in one piece or several, that the calendar may move, as far as its promise allows."""

    reservation: Reservation
    """As it is in the plan."""
    spans: tuple[BookedSpan, ...]
    whole_s: int
    """How long it would be in one piece."""
    key: int
    shape: Hashable
    """Of the times at which it may run."""


@dataclass(frozen=True, slots=True)
class RunTimes:
    """When one sort of request may run."""

    shape: Hashable
    """What tells it apart from other sorts."""
    stretches: Callable[[HostId], Iterable[Stretch]]
    may_park: Callable[[Stretch], bool]
    """Whether it may be parked at the end of a stretch."""
    horizon_at: Instant


@dataclass(slots=True)
class _Shape:
    """The stretches of one sort of request, as far as they were worked out."""

    number: int
    known_until_at: Instant


class Board:
    """The bookings of a plan. Mutable: it lives inside one planning step, or is kept for the plan that it is of."""

    def __init__(
        self, hosts: Iterable[Host], now: Instant, *, first_number: int = 0, may_be_compiled: bool = True
    ) -> None:
        """`first_number`: no reservation that is ever booked on it has a lower one."""
        self.calendar: Calendar = make_calendar(now, may_be_compiled=may_be_compiled)
        self._first_number = first_number
        self._last_number = first_number
        self.movable: dict[ReservationId, Movable] = {}
        self.movable_by_shape: dict[Hashable, dict[ReservationId, Movable]] = {}
        """The same by when they may run; of some shapes there may be none."""
        self.resting: set[ReservationId] = set()
        """Those that may not be moved, need no look before they begin or may start, and were not changed since."""
        self.unsure: set[ReservationId] = set()
        """Those of whom it may not be known as what they may be moved, if at all: too many perhaps, never too few."""
        self._movable_by: tuple[object, ...] = ()
        self._starts: list[tuple[Instant, ReservationId]] = []
        """A heap of when movable bookings start, with some that have moved since."""
        self._numbers: dict[HostId, int] = {}
        self._hosts: list[HostId] = []
        self.is_in_order = True
        """Whether hosts are numbered in the order of their ids."""
        self._kind_by_host: list[_KindOfHost] = []
        self._kinds: dict[HostProfile, _KindOfHost] = {}
        self.profiles_by_kind: dict[int, HostProfile] = {}
        """The kinds of hosts by their numbers."""
        self._labels: dict[str, int] = {}
        self._begins: dict[tuple[HostId, int], Instant] = {}
        self._keys: dict[SpanKey, int] = {}
        self._owners: dict[int, tuple[ReservationId, tuple[SpanKey, ...]]] = {}
        self._unused: list[int] = []
        self._keys_given = 0
        self._ends: list[tuple[Instant, int]] = []
        """A heap of when spans end, with some that have gone since."""
        self._silent: set[HostId] = set()
        self._begins_by: dict[HostId, Hashable] = {}
        self._shapes: dict[Hashable, _Shape] = {}
        for host in hosts:
            self.add_host(host)

    # ---- hosts

    def add_host(self, host: Host) -> None:
        profile = host.profile
        if profile not in self._kinds:
            self.profiles_by_kind[len(self._kinds)] = profile
            self._kinds[profile] = _KindOfHost(
                len(self._kinds),
                profile,
                kind_of(profile),
                {p.id: number for number, p in enumerate(profile.partitions)},
            )
        label = self._labels.setdefault(host.storage, len(self._labels))
        self.is_in_order = self.is_in_order and (not self._hosts or self._hosts[-1] < host.id)
        kind = self._kinds[profile]
        self._numbers[host.id] = self.calendar.add_host(kind.kind, label)
        self._hosts.append(host.id)
        self._kind_by_host.append(kind)
        self.forget_stretches()

    @property
    def hosts(self) -> list[HostId]:
        """The hosts in the order of their numbers."""
        return self._hosts

    @property
    def hosts_with_begins(self) -> set[HostId]:
        """The hosts of which `set_begins` has said that something may be booked from later on only."""
        return {host for host, by in self._begins_by.items() if by is not None}

    def kind_of(self, host: HostId) -> int:
        """Return the number of the kind that a host is of."""
        return self._kind_by_host[self._numbers[host]].number

    def kinds_of(self, gpus: int) -> int:
        """Return how many kinds of hosts have partitions of a size."""
        return sum(gpus in profile.sizes for profile in self._kinds)

    def set_silent_hosts(self, hosts: frozenset[HostId]) -> None:
        """Say which hosts do not answer."""
        for host in self._silent ^ hosts:
            self.calendar.set_silent(self._numbers[host], is_silent=host in hosts)
        self._silent = set(hosts)

    def set_begins(self, host: HostId, by: Hashable, begins: Callable[[], Callable[[int], Instant]]) -> None:
        """Say from when on each set of a host may be booked, by its mask: 0, an instant, or FOREVER.

        `by`: all that it depends on; while that stays nothing is done.
        """
        if self._begins_by.get(host) == by:
            return
        self._begins_by[host] = by
        number, begin_at = self._numbers[host], begins()
        for chosen, partition in enumerate(self._kind_by_host[number].profile.partitions):
            at = begin_at(partition.mask)
            if self._begins.get((host, chosen), 0) != at:
                self._begins[host, chosen] = at
                self.calendar.set_begin(number, chosen, at)

    def label_of(self, storage: str) -> int:
        """Return the number of a storage that some host reaches, or one that none has."""
        return self._labels.get(storage, len(self._labels))

    def forget_stretches(self) -> None:
        """Windows changed: what was worked out from them is stale."""
        self.begin_moving(())
        for shape in self._shapes.values():
            shape.known_until_at = 0

    # ---- booking

    def book(self, reservation: ReservationId, span: BookedSpan) -> None:
        """Book a span; what is over, or of no length, takes no room. Raises BrokenInvariant when any GPU is booked."""
        if span.end_at <= max(span.start_at, self.calendar.now):
            return
        place = self._place(span)
        key = self._unused.pop() if self._unused else self._new_key()
        size = self._kind_by_host[place.host].kind.sizes[place.set]
        length_s = span.end_at - span.start_at
        try:
            self.calendar.book(key, place, Fit(size, length_s, length_s), FIXED)
        except BrokenInvariant as error:
            self._unused.append(key)
            raise BrokenInvariant(
                f"{span.partition} of {span.host} is already booked in [{span.start_at}, {span.end_at})",
                host=span.host,
                partition=span.partition,
            ) from error
        self._last_number = max(self._last_number, by_number(reservation)[0])
        name = (span.host, span.partition, span.start_at)
        self._keys[name] = key
        self._owners[key] = reservation, (name,)
        heappush(self._ends, (span.end_at, key))

    def advance(self, now: Instant) -> None:
        """Move on to an instant, and forget what is over."""
        while self._ends and self._ends[0][0] <= now:
            _, key = heappop(self._ends)
            # Its number may have another span by now.
            if key in self._owners and self.calendar.booking(key).place.end_at <= now:
                self._drop(key)
        while self._starts and self._starts[0][0] <= now:
            _, reservation = heappop(self._starts)
            known = self.movable.get(reservation)
            if known is not None and known.spans[0].start_at <= now:
                self.fix(reservation)
            elif reservation in self.resting:
                self.doubt(reservation)
        self.calendar.advance(now)

    def begin_moving(self, by: tuple[object, ...]) -> None:
        """Say what it depends on how bookings may be moved; if that has changed, all are fixed."""
        if by != self._movable_by:
            self._movable_by = by
            for known in self.movable.values():
                self.calendar.set_due(known.key, FIXED)
            self.unsure |= self.movable.keys() | self.resting
            self.resting.clear()
            self.movable.clear()
            self.movable_by_shape.clear()
            self._starts.clear()

    def set_movable(self, reservation: Reservation, fit: Fit, shape: Hashable, due_at: Instant) -> None:
        """Say of the spans of a reservation, all on one partition, what they are and the latest start it was promised.

        It is fixed again by `fix`, when it begins, or when it is taken out. The stretches of its shape are known.
        """
        spans = reservation.spans
        names = _names(spans)
        # By the number of the reservation, whatever was on the board before: it is what ties are broken by.
        key = 2 * (by_number(reservation.id)[0] - self._first_number) + 1
        fit = fit._replace(shape=self._shapes[shape].number)
        place = self._place(spans[0])
        pieces = [(span.start_at, span.end_at) for span in spans]
        if self._owners.get(key, (None, ()))[1] == names and self.calendar.booking(key).fit == fit:
            self.calendar.set_due(key, due_at)
        else:
            for old in {self._keys[name]: None for name in names}:
                self._drop(old)
            self.calendar.book_pieces(key, place.host, place.set, pieces, fit, due_at)
            for name in names:
                self._keys[name] = key
            self._owners[key] = reservation.id, names
            heappush(self._ends, (spans[-1].end_at, key))
        self._forget(reservation.id)
        known = self.movable[reservation.id] = Movable(reservation, spans, fit.whole_s, key, shape)
        self.movable_by_shape.setdefault(shape, {})[reservation.id] = known
        heappush(self._starts, (place.start_at, reservation.id))

    def _new_key(self) -> int:
        self._keys_given += 1
        return 2 * (self._keys_given - 1)

    def _drop(self, key: int) -> None:
        """Take a booking out."""
        self.calendar.drop(key)
        reservation, names = self._owners.pop(key)
        for name in names:
            if self._keys.get(name) == key:
                del self._keys[name]
        known = self.movable.get(reservation)
        if known is not None and known.key == key:
            self._forget(reservation)
            self.doubt(reservation)
        if key % 2 == 0:
            self._unused.append(key)

    @property
    def is_worn(self) -> bool:
        """Whether reservations have come with so high numbers, or so much was moved, that a new board is smaller."""
        worn = max(self._last_number - self._first_number, len(self._ends), len(self._starts))
        return worn > MOST_NUMBERS + 4 * len(self._owners)

    def fix(self, reservation: ReservationId) -> None:
        """Let a booking stay where it is from now on."""
        known = self._forget(reservation)
        if known is not None:
            self.calendar.set_due(known.key, FIXED)
            self.doubt(reservation)

    def doubt(self, reservation: ReservationId) -> None:
        """Say that a reservation was changed, or that its time has come: it may not be known how it may be moved."""
        self.unsure.add(reservation)
        self.resting.discard(reservation)

    def rest(self, reservation: ReservationId, until_at: Instant) -> None:
        """Say that one may not be moved, and needs no look before an instant, as long as it is not changed."""
        self.unsure.discard(reservation)
        self.resting.add(reservation)
        heappush(self._starts, (until_at, reservation))

    def _forget(self, reservation: ReservationId) -> Movable | None:
        """Forget how a booking may be moved; return what was known of it."""
        known = self.movable.pop(reservation, None)
        if known is not None:
            del self.movable_by_shape[known.shape][reservation]
        return known

    def start_first(
        self, reservations: Sequence[ReservationId], widest: Sequence[int], rooms: Rooms | None = None
    ) -> tuple[int, dict[ReservationId, tuple[BookedSpan, ...]]] | None:
        """Move the first of some movable bookings that can start now to now, others out of its way.

        `widest`: bookings of more GPUs do not give way to it. `rooms`: where there is room for its disk; None:
        everywhere. Returns which one it was, by its place among them, and the new spans of all that moved; or None:
        nothing moved.
        """
        known = self.movable
        started = self.calendar.start_first([known[one].key for one in reservations], widest, rooms)
        if started is None:
            return None
        number, moved = started
        return number, {self._owners[other][0]: self._renamed(other) for other in moved}

    def put_late(self, reservation: ReservationId) -> tuple[BookedSpan, ...] | None:
        """Move a movable booking to the latest place that its promise allows; return its spans, or None: it stays."""
        key = self.movable[reservation].key
        return self._renamed(key) if self.calendar.relax([key]) else None

    def move_back(self, before: Mapping[ReservationId, tuple[BookedSpan, ...]]) -> None:
        """Undo moves: each a reservation, and where its spans were."""
        taken = []
        for reservation, spans in before.items():
            key = self.movable[reservation].key
            for name in self._owners[key][1]:
                del self._keys[name]
            taken.append((key, self.calendar.free(key), spans))
        for key, booking, spans in taken:
            place = self._place(spans[0])
            pieces = [(span.start_at, span.end_at) for span in spans]
            self.calendar.book_pieces(key, place.host, place.set, pieces, booking.fit, booking.due_at)
            self._renamed(key)

    def _renamed(self, key: int) -> tuple[BookedSpan, ...]:
        """Return where a booking is now, known by that from now on."""
        spans = self._spans_of(self.calendar.booking(key))
        reservation, old = self._owners[key]
        for name in old:
            if self._keys.get(name) == key:
                del self._keys[name]
        names = _names(spans)
        for name in names:
            self._keys[name] = key
        self._owners[key] = reservation, names
        self.movable[reservation].spans = spans
        heappush(self._ends, (spans[-1].end_at, key))
        heappush(self._starts, (spans[0].start_at, reservation))
        return spans

    def unbook(self, *spans: BookedSpan) -> None:
        """Take spans out again; what else there is of a booking of several pieces stays where it is."""
        left = dict(zip(_names(spans), spans, strict=True))
        for name in list(left):
            span = left.pop(name, None)
            if span is None or span.end_at <= max(span.start_at, self.calendar.now):
                continue
            key = self._keys.get(name)
            if key is None:
                raise BrokenInvariant(
                    f"{span.partition} of {span.host} has no booking [{span.start_at}, {span.end_at})"
                )
            reservation, names = self._owners[key]
            was = self._spans_of(self.calendar.booking(key)) if len(names) > 1 else ()
            self._drop(key)
            for kept in was:
                known = kept.host, kept.partition, kept.start_at
                if known != name and left.pop(known, None) is None:
                    self.book(reservation, kept)

    def _spans_of(self, booking: Booking) -> tuple[BookedSpan, ...]:
        return self._spans_in(booking.place, booking.pieces or ((booking.place.start_at, booking.place.end_at),))

    def _spans_in(self, place: Place, pieces: Iterable[tuple[Instant, Instant]]) -> tuple[BookedSpan, ...]:
        host, partition = self._hosts[place.host], self._kind_by_host[place.host].profile.partitions[place.set].id
        return tuple([BookedSpan(start_at=at, end_at=end, host=host, partition=partition) for at, end in pieces])

    def _place(self, span: BookedSpan) -> Place:
        number = self._numbers[span.host]
        return Place(span.start_at, span.end_at, number, self._set_of(number, span.partition))

    def _set_of(self, host: int, partition: PartitionId) -> int:
        return self._kind_by_host[host].sets[partition]

    # ---- asking

    def is_free(self, host: HostId, partition: PartitionId, start_at: Instant, end_at: Instant) -> bool:
        number = self._numbers[host]
        return self.calendar.is_free(number, self._set_of(number, partition), start_at, end_at)

    def free_until(self, host: HostId, partition: PartitionId, from_at: Instant) -> Instant:
        """Return when a partition is next booked at or after an instant; FOREVER when it never is."""
        number = self._numbers[host]
        return self.calendar.free_until(number, self._set_of(number, partition), from_at)

    def gaps(
        self, host: HostId, partition: PartitionId, start_at: Instant, end_at: Instant
    ) -> list[tuple[Instant, Instant]]:
        """Return the whole gaps of a partition that have any time in common with a span."""
        number = self._numbers[host]
        return self.calendar.gaps(number, self._set_of(number, partition), start_at, end_at)

    def begins_at(self, host: HostId, partition: PartitionId) -> Instant:
        """Return from when on a partition may be booked."""
        number = self._numbers[host]
        return self._begins.get((host, self._set_of(number, partition)), 0)

    def in_the_way(
        self, host: HostId, partition: PartitionId, start_at: Instant, end_at: Instant
    ) -> list[ReservationId]:
        """Return whose bookings are on any GPU of a partition in a span; some may be named more than once."""
        number = self._numbers[host]
        keys = self.calendar.conflicts(number, self._set_of(number, partition), start_at, end_at)
        return [self._owners[key][0] for key in keys]

    def earliest(
        self,
        fit: Fit,
        from_at: Instant,
        latest_at: Instant,
        times: RunTimes,
        first_at: Sequence[Instant] | None = None,
    ) -> tuple[BookedSpan, ...] | None:
        """Return the earliest place that starts in `[from_at, latest_at]`: its first piece, or all if it may be cut.

        `first_at`: when it may start at the earliest on each host, in their order here.
        """
        is_cut = fit.lead_s != ONE_PIECE
        ahead_s = LOOKS_AHEAD_S + 4 * fit.whole_s if is_cut else LOOKS_AHEAD_S
        until_at = min(max(from_at, self.calendar.now) + ahead_s, times.horizon_at)
        while True:
            fit = fit._replace(shape=self.know_shape(times, until_at))
            place = self.calendar.earliest(fit, from_at, min(latest_at, until_at), first_at)
            if place is not None:
                pieces = [(place.start_at, place.end_at)]
                if is_cut:
                    pieces = self.calendar.pieces(place.host, place.set, place.start_at, fit)
                return self._spans_in(place, pieces)
            # One that is cut may start by then, and go on long after it.
            if until_at >= (times.horizon_at if is_cut else min(latest_at, times.horizon_at)):
                return None
            until_at = min(until_at + 4 * (until_at - from_at), times.horizon_at)

    def latest(self, fit: Fit, from_at: Instant, latest_at: Instant, times: RunTimes) -> BookedSpan | None:
        """Return the latest place for one piece within its stretches that starts in `[from_at, latest_at]`."""
        number = self.know_shape(times, latest_at + fit.whole_s)
        place = self.calendar.latest(fit._replace(shape=number), from_at, latest_at)
        return None if place is None else self.span_of(place)

    def know_shape(self, times: RunTimes, until_at: Instant) -> int:
        """Work out stretches up to an instant, whole ones however long; return their number."""
        until_at = min(until_at, times.horizon_at)
        known = self._shapes.get(times.shape)
        if known is not None and known.known_until_at >= until_at:
            return known.number
        if known is None:
            known = self._shapes[times.shape] = _Shape(self.calendar.add_shape(), 0)
        # A day more, so that it is not worked out at each step anew.
        until_at += DAY_S
        known.known_until_at = until_at
        # Many hosts have the very same ones.
        alike: dict[int, tuple[Iterable[Stretch], list[int]]] = {}
        for host, number in self._numbers.items():
            stretches = times.stretches(host)
            alike.setdefault(id(stretches), (stretches, []))[1].append(number)
        for stretches, numbers in alike.values():
            ahead = []
            for stretch in stretches:
                if stretch.start_at > until_at:
                    break
                ahead.append((stretch.start_at, stretch.end_at, times.may_park(stretch)))
            self.calendar.set_stretches(known.number, numbers, ahead)
        return known.number

    def span_of(self, place: Place) -> BookedSpan:
        partition = self._kind_by_host[place.host].profile.partitions[place.set].id
        return BookedSpan(
            start_at=place.start_at, end_at=place.end_at, host=self._hosts[place.host], partition=partition
        )


def _names(spans: Iterable[BookedSpan]) -> tuple[SpanKey, ...]:
    return tuple([(span.host, span.partition, span.start_at) for span in spans])
