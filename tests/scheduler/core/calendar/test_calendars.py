"""Both calendars, held to a slow one that is obviously right, on random histories."""

import random
from collections.abc import Callable, Iterator
from itertools import product

import pytest

from scheduler.core.calendar import compiled
from scheduler.core.calendar import gaps as gaps_of_size
from scheduler.core.calendar.bookings import FIXED, ONE_PIECE, Fit, Place, Rooms
from scheduler.core.calendar.kinds import Kind, aligned_kind
from scheduler.core.calendar.pure import PureCalendar
from scheduler.core.errors import BrokenInvariant
from scheduler.core.spans import FOREVER, Instant
from tests.scheduler.core.calendar.naive import NaiveCalendar

CROSSING = Kind("crossing", [0b1111, 0b0011, 0b1100, 0b0110, 0b1001, 0b0001, 0b1000])
"""Pairs that cross: 0-1, 2-3, 1-2 and 0-3."""

Make = Callable[[Instant], PureCalendar]


@pytest.fixture(params=["pure", "compiled"])
def make(request: pytest.FixtureRequest) -> Make:
    if request.param == "pure":
        return PureCalendar
    if not compiled.is_available():
        pytest.skip("there is no C compiler")
    return compiled.CompiledCalendar  # type: ignore[return-value]


class History:
    """A random history on a calendar and on the slow one beside it."""

    def __init__(self, make: Make, seed: int) -> None:
        self.random = random.Random(seed)
        self.kinds = [aligned_kind(8), CROSSING, aligned_kind(4), CROSSING][: self.random.randint(1, 4)]
        self.labels = [self.random.randint(0, 1) for _ in self.kinds]
        self.slow = NaiveCalendar(self.kinds, self.labels)
        self.fast = make(0)
        for kind, label in zip(self.kinds, self.labels, strict=True):
            self.fast.add_host(kind, label)
        for _ in range(2):
            shape = self.fast.add_shape()
            stretches = {host: list(self._stretches()) for host in range(len(self.kinds)) if self.random.random() < 0.8}
            self.slow.shapes.append(stretches)
            for host, mine in stretches.items():
                self.fast.set_stretches(shape, [host], mine)
        self.next_key = 0

    def _stretches(self) -> Iterator[tuple[Instant, Instant, bool]]:
        cursor = 0
        while cursor < 400:
            start = cursor + self.random.randint(1, 20)
            cursor = start + self.random.randint(5, 60)
            yield start, cursor, self.random.random() < 0.5

    def fit(self) -> Fit:
        whole = self.random.randint(1, 40)
        shape = self.random.choice((-1, -1, 0, 1))
        shortest = self.random.randint(1, whole) if shape >= 0 and self.random.random() < 0.5 else whole
        label = self.random.choice((-1, -1, 0, 1))
        kind = self.random.choice((-1, -1, -1, 0, 1))
        fit = Fit(self.random.choice((1, 2, 4, 8)), whole, shortest, shape, label, self.random.random() < 0.3, kind)
        if shape < 0 or self.random.random() < 0.4:
            return fit
        lead = self.random.randint(0, 3)
        whole, shortest = whole + self.random.choice((0, 60)), lead + self.random.randint(1, 6)
        end_by = self.slow.now + self.random.randint(60, 400) if self.random.random() < 0.7 else FOREVER
        return fit._replace(whole_s=max(whole, shortest), shortest_s=shortest, lead_s=lead, end_by_at=end_by)

    def step(self) -> None:
        kind = self.random.random()
        if kind < 0.55:
            self.submit()
        elif kind < 0.75 and self.slow.places:
            self.free()
        elif kind < 0.85 and self.slow.places:
            self.change_end()
        elif kind < 0.92:
            self.advance()
        else:
            self.change_host()
        self.compare()

    def submit(self) -> None:
        fit = self.fit()
        from_at = self.slow.now + self.random.randint(0, 60)
        place = self.fast.earliest(fit, from_at)
        assert (None if place is None else place.start_at) == self.slow.earliest(fit, from_at)
        now = self.slow.now
        free = {size for size in self.fast.sizes if self.slow.earliest(Fit(size, 1, 1), now) == now}
        assert self.fast.free_sizes(self.fast.sizes) == free
        for size in (1, 2, 4, 8):
            assert self.fast.free_hosts(size) == [host for host in range(len(self.kinds)) if self._is_free(host, size)]
        if place is None:
            return
        assert self.slow.fits(fit, place.host, place.set, place.start_at) == place.end_at
        self.book(place, fit)
        late = self.fast.latest(fit, from_at, from_at + 150)
        assert (None if late is None else late.start_at) == self.slow.latest(fit, from_at, from_at + 150)
        if late is not None:
            assert self.slow.fits(fit, late.host, late.set, late.start_at) == late.end_at

    def book(self, place: Place, fit: Fit) -> None:
        due_at = place.start_at + self.random.randint(0, 60) if self.random.random() < 0.8 else FIXED
        if fit.lead_s == ONE_PIECE and place.end_at - place.start_at != fit.whole_s:
            due_at = FIXED
        if fit.lead_s != ONE_PIECE and self.random.random() < 0.3:
            pieces = self.slow.cut(fit, place.host, place.start_at)
            self.fast.book_pieces(self.next_key, place.host, place.set, pieces, fit, due_at)
        else:
            self.fast.book(self.next_key, place, fit, due_at)
        self.follow(self.next_key)
        assert self.slow.places[self.next_key] == place
        self.next_key += 1

    def follow(self, key: int) -> None:
        """Take a booking over as it is, after a look whether its pieces are as they should be."""
        place, fit, _, pieces = self.fast.booking(key)
        self.slow.places[key] = place
        self.slow.pieces[key] = pieces
        if fit.lead_s != ONE_PIECE:
            cut = self.slow.cut(fit, place.host, place.start_at)
            assert list(pieces or [(place.start_at, place.end_at)]) == cut

    def free(self) -> None:
        key = self.random.choice(sorted(self.slow.places))
        freed = self.fast.free(key)
        assert freed.place == self.slow.places.pop(key)
        assert freed.pieces == self.slow.pieces.pop(key)

    def change_end(self) -> None:
        key = self.random.choice(sorted(self.slow.places))
        place = self.slow.places[key]
        if self.slow.pieces[key]:
            with pytest.raises(KeyError):
                self.fast.end_at(key, place.end_at + 1)
            return
        end_at = place.end_at + self.random.randint(-20, 20)
        if end_at <= place.start_at:
            return
        if end_at > place.end_at and not self.slow.is_free(place.host, place.set, place.end_at, end_at):
            with pytest.raises(BrokenInvariant):
                self.fast.end_at(key, end_at)
            return
        self.fast.end_at(key, end_at)
        self.slow.places[key] = place._replace(end_at=end_at)

    def advance(self) -> None:
        self.slow.now += self.random.randint(0, 30)
        for key, place in list(self.slow.places.items()):
            if place.end_at <= self.slow.now:
                self.fast.free(key)
                del self.slow.places[key], self.slow.pieces[key]
        self.fast.advance(self.slow.now)

    def change_host(self) -> None:
        host = self.random.randrange(len(self.kinds))
        if self.random.random() < 0.3:
            is_silent = host not in self.slow.silent
            self.fast.set_silent(host, is_silent=is_silent)
            self.slow.silent ^= {host}
            return
        chosen = self.random.randrange(len(self.kinds[host].masks))
        at = self.random.choice((0, self.slow.now + 20, FOREVER))
        self.fast.set_begin(host, chosen, at)
        self.slow.begin[host, chosen] = at

    def _is_free(self, host: int, size: int) -> bool:
        now = self.slow.now
        if host in self.slow.silent:
            return False
        chosen = [number for number, mask in enumerate(self.kinds[host].masks) if mask.bit_count() == size]
        free = [number for number in chosen if self.slow.is_free(host, number, now, now + 1)]
        return any(self.slow.begin.get((host, number), 0) <= now for number in free)

    def rooms(self) -> Rooms | None:
        """Return where there is room, hosts with one label sharing it; most often everywhere."""
        if self.random.random() < 0.5:
            return None
        by_label = [self.slow.now + self.random.choice((0, 20, 60, 100, FOREVER)) for _ in range(2)]
        return Rooms(tuple(by_label[label] for label in self.labels), self.random.choice((0, 30)))

    def has_room(self, rooms: Rooms, old: Place, new: Place, whole_s: int) -> bool:
        """Whether there is room where a booking was moved to: until it is over, or its own."""
        until_at = rooms.until_at[new.host]
        if until_at >= new.start_at + whole_s + rooms.kept_s:
            return True
        is_own_until = old.start_at if new.start_at == self.slow.now else self.slow.now
        return self.labels[new.host] == self.labels[old.host] and until_at >= is_own_until

    def compare(self) -> None:
        assert len(self.fast) == len(self.slow.places)
        for host, kind in enumerate(self.kinds):
            for chosen in range(len(kind.masks)):
                start = self.slow.now + self.random.randint(0, 80)
                end = start + self.random.randint(1, 40)
                assert self.fast.is_free(host, chosen, start, end) == self.slow.is_free(host, chosen, start, end)
                now, gaps = self.slow.now, self.fast.gaps(host, chosen, start, end)
                assert [(max(begin, now), to) for begin, to in gaps] == self.slow.gaps(host, chosen, start, end)

    def move(self) -> None:
        """Compact, relax and start early; whatever moved has to lie well, and by its due."""
        movable = [key for key in sorted(self.slow.places) if self.fast.booking(key).due_at != FIXED]
        movable = [key for key in movable if self.slow.places[key].start_at > self.slow.now]
        self.random.shuffle(movable)
        way = self.random.random()
        before = dict(self.slow.places)
        if way < 0.3:
            moved = self.fast.compact(movable)
        elif way < 0.6:
            moved = self.fast.relax(movable)
        elif movable:
            chosen = movable[: self.random.randint(1, 4)]
            widest, rooms = [self.random.choice((1, 2, 8)) for _ in chosen], self.rooms()
            number, started = self.fast.start_first(chosen, widest, rooms) or (len(chosen), [])
            moved = started
            if started:
                assert started[0] == chosen[number]
                assert self.fast.booking(started[0]).place.start_at == self.slow.now
            else:
                for key, most in zip(chosen, widest, strict=True):
                    assert self.fast.start_now(key, widest=most, rooms=rooms) is None
            if rooms is not None:
                for key in started:
                    place, fit, _, _ = self.fast.booking(key)
                    assert self.has_room(rooms, before[key], place, fit.whole_s)
        else:
            return
        for key in moved:
            del self.slow.places[key], self.slow.pieces[key]
        for key in moved:
            booking = self.fast.booking(key)
            place = booking.place
            assert self.slow.fits(booking.fit, place.host, place.set, place.start_at) == place.end_at
            assert place.start_at <= booking.due_at
            if way < 0.3:
                assert place.start_at < before[key].start_at
            elif way < 0.6:
                assert place.start_at > before[key].start_at
            self.follow(key)
        for key, place in self.slow.places.items():
            assert self.fast.booking(key).place == place
            assert self.fast.booking(key).pieces == self.slow.pieces[key]


@pytest.mark.parametrize("seed", range(40))
def test_a_random_history_agrees_with_a_slow_calendar(make: Make, seed: int) -> None:
    history = History(make, seed)
    for _ in range(60):
        history.step()
        if history.random.random() < 0.3:
            history.move()
            history.compare()


@pytest.mark.parametrize("seed", range(20))
def test_both_calendars_give_the_same_answers(seed: int) -> None:
    if not compiled.is_available():
        pytest.skip("there is no C compiler")
    plain, fast = History(PureCalendar, seed), History(compiled.CompiledCalendar, seed)  # type: ignore[arg-type]
    for _ in range(80):
        for history in (plain, fast):
            history.step()
            history.move()
        assert plain.slow.places == fast.slow.places


@pytest.mark.parametrize("seed", range(6))
def test_chunks_and_blocks_of_chunks_that_are_small_change_no_answer(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = History(PureCalendar, seed)
    for _ in range(120):
        usual.step()
        usual.move()
    monkeypatch.setattr(gaps_of_size, "MOST_IN_CHUNK", 3)
    monkeypatch.setattr(gaps_of_size, "IN_BLOCK", 2)
    small = History(PureCalendar, seed)
    for _ in range(120):
        small.step()
        small.move()
    assert small.slow.places == usual.slow.places
    for gaps in small.fast._by_size.values():
        assert all(len(chunk) <= 3 for chunk in gaps.chunks)
        assert len(gaps.block_longest) == len(gaps.block_latest) == -(-len(gaps.chunks) // 2)
        for number, chunk in enumerate(gaps.chunks):
            assert gaps.latest[number] >= max(gap[3] for gap in chunk)
            assert gaps.block_longest[number // 2] >= gaps.longest[number]
            assert gaps.block_latest[number // 2] >= gaps.latest[number]


def test_bookings_are_placed_anew_in_an_order_all_or_none(make: Make) -> None:
    calendar = make(0)
    calendar.add_host(aligned_kind(4))
    for key, start in enumerate((0, 10, 20)):
        calendar.book(key, Place(start, start + 10, 0, 0), Fit(4, 10, 10), 10 * key + 10)
    before = [calendar.booking(key) for key in range(3)]
    assert calendar.rebook([2, 1, 0], 1000) is None, "0 would be later than its promise"
    assert calendar.rebook([1, 0, 2], 119) is None, "their waits would be more in sum"
    assert [calendar.booking(key) for key in range(3)] == before
    assert calendar.rebook([1, 0, 2], 120) == 120
    assert [calendar.booking(key).place.start_at for key in range(3)] == [10, 0, 20]
    assert calendar.rebook([2], 40) is None
    assert calendar.rebook([], 0) == 0


def test_of_several_the_first_that_can_start_does_and_no_other(make: Make) -> None:
    calendar = make(0)
    calendar.add_host(aligned_kind(4))
    fit = Fit(2, 10, 10)
    calendar.book(0, Place(0, 100, 0, 5), fit._replace(whole_s=100, shortest_s=100))
    long, short, other = fit._replace(whole_s=60, shortest_s=60), fit, fit
    calendar.book(1, Place(50, 60, 0, 4), fit)
    for key, wanted, start in ((2, long, 60), (3, short, 120), (4, other, 140)):
        calendar.book(key, Place(start, start + wanted.whole_s, 0, 4), wanted, 200)
    assert calendar.start_first([2], [8]) is None, "what is fixed there does not give way"
    assert calendar.start_first([2, 3, 4], [8, 8, 8]) == (1, [3])
    assert [calendar.booking(key).place.start_at for key in (2, 3, 4)] == [60, 0, 140]
    assert calendar.start_first([], []) is None


def test_who_starts_and_who_gives_way_go_where_there_is_room(make: Make) -> None:
    calendar = make(0)
    for label in range(3):
        calendar.add_host(aligned_kind(2), label)
    fit = Fit(2, 10, 10)
    calendar.book(0, Place(100, 110, 0, 2), fit, 200)
    # Host 0 is free for 0, host 1 only if 1 gives way, host 2 is free.
    calendar.book(1, Place(5, 15, 1, 2), fit, 50)
    assert calendar.start_first([0], [8], Rooms((50, 50, 50), 45)) is None, "nowhere long enough"
    assert calendar.start_first([0], [8], Rooms((50, 105, 50), 50)) == (0, [0, 1])
    assert calendar.booking(0).place[:3] == (0, 10, 1)
    assert calendar.booking(1).place[:3] == (50, 60, 1), "on any other host it would have no room so late"
    calendar.free(0)
    calendar.book(0, Place(100, 110, 0, 2), fit, 200)
    assert calendar.start_first([0], [8], Rooms((100, 0, 0), 500)) == (0, [0]), "from 100 on its room is its own"
    assert calendar.booking(0).place[:3] == (0, 10, 0)


def test_taking_out_what_was_booked_leaves_no_trace(make: Make) -> None:
    history = History(make, 7)
    for _ in range(30):
        history.step()
    probes = [(history.fit(), history.slow.now + n) for n in range(0, 100, 7)]
    before = [history.fast.earliest(fit, at) for fit, at in probes]
    for number, (fit, at) in enumerate(probes):
        place = history.fast.earliest(fit, at)
        if place is not None:
            history.fast.book(10_000 + number, place, fit)
            history.fast.free(10_000 + number)
    assert [history.fast.earliest(fit, at) for fit, at in probes] == before


def test_what_is_booked_cannot_be_booked_again(make: Make) -> None:
    calendar = make(0)
    calendar.add_host(aligned_kind(4))
    fit = Fit(2, 10, 10)
    calendar.book(1, Place(5, 15, 0, 1), fit)
    for place in (Place(0, 6, 0, 0), Place(14, 20, 0, 1), Place(5, 15, 0, 3)):
        with pytest.raises(BrokenInvariant, match="already booked"):
            calendar.book(2, place, fit)
    with pytest.raises(BrokenInvariant, match="booked already"):
        calendar.book(1, Place(50, 60, 0, 1), fit)
    calendar.book(2, Place(15, 20, 0, 1), fit)
    with pytest.raises(BrokenInvariant, match="cannot go on"):
        calendar.end_at(1, 16)


def test_what_is_not_booked_cannot_be_moved(make: Make) -> None:
    calendar = make(0)
    calendar.add_host(aligned_kind(4))
    for move in (
        lambda: calendar.start_now(7, widest=8),
        lambda: calendar.compact([7]),
        lambda: calendar.relax([77_777]),
        lambda: calendar.free(7),
        lambda: calendar.drop(7),
    ):
        with pytest.raises(KeyError):
            move()


@pytest.mark.parametrize(("size", "hosts"), list(product((1, 2, 4, 8, 16), (1, 3))))
def test_an_empty_fleet_takes_what_fills_it_at_once(make: Make, size: int, hosts: int) -> None:
    calendar = make(0)
    for _ in range(hosts):
        calendar.add_host(aligned_kind())
    fit = Fit(size, 100, 100)
    for key in range(16 // size * hosts):
        place = calendar.earliest(fit, 0)
        assert place is not None
        assert place.start_at == 0
        calendar.book(key, place, fit)
    full = calendar.earliest(fit, 0)
    assert full is not None
    assert full.start_at == 100


def test_arrays_that_are_lent_grow_with_what_is_given(make: Make) -> None:
    calendar, many = make(0), 700
    calendar.add_host(aligned_kind())
    shape = calendar.add_shape()
    calendar.set_stretches(shape, [0], [(100 * number, 100 * number + 50, False) for number in range(many)])
    for key in range(many):
        calendar.book(key, Place(100 * key, 100 * key + 50, 0, 0), Fit(1, 50, 50, shape), FIXED)
    assert calendar.relax(range(many)) == []
    assert calendar.start_first(range(1, many), [1] * (many - 1)) is None
    assert calendar.earliest(Fit(1, 50, 50, shape), 100 * (many - 1) + 1) is None


def test_what_starts_on_a_used_host_breaks_up_least(make: Make) -> None:
    calendar = make(0)
    for _ in range(2):
        calendar.add_host(aligned_kind())
    kind = aligned_kind()
    calendar.book(0, Place(0, 100, 1, kind.masks.index(1)), Fit(1, 100, 100))
    place = calendar.earliest(Fit(1, 10, 10), 0)
    assert place is not None
    assert place.host == 1
    assert kind.masks[place.set] == 2
