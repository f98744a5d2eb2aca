"""Promises never slip: every operation on the plan, in any order, on any family of sets; and stories of single ones."""

import random
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from scheduler.core.calendar import compiled
from scheduler.core.calendar.bookings import Fit
from scheduler.core.calendar.kinds import Kind, aligned_kind
from scheduler.core.calendar.making import make_calendar
from scheduler.core.calendar.orders import ORDERS
from scheduler.core.calendar.pure import PureCalendar
from scheduler.core.calendar.witness import Witness
from scheduler.core.rules import Slack
from scheduler.core.spans import FOREVER, HOUR_S

CROSSING = Kind("crossing", [0b1111, 0b0011, 0b1100, 0b0110, 0b1001, 0b0001, 0b1000])


def fleet(*kinds: Kind, may_be_compiled: bool = True, **how: object) -> Witness:
    calendar = make_calendar(0, may_be_compiled=may_be_compiled)
    for kind in kinds:
        calendar.add_host(kind)
    return Witness(calendar, **how)  # type: ignore[arg-type]


def fit(gpus: int, length_s: int) -> Fit:
    return Fit(gpus, length_s, length_s)


class Checker:
    """What was told and what is booked, judged without the planner."""

    def __init__(self, kinds: list[Kind]) -> None:
        self.kinds = kinds
        self.told: dict[int, int] = {}

    def check(self, witness: Witness, now: int) -> None:
        booked = []
        for key, waiting in witness.waiting.items():
            place = witness.calendar.booking(key).place
            assert place.start_at <= self.told[key], f"{key} was told {self.told[key]}"
            assert place.start_at >= now
            assert place.end_at - place.start_at == waiting.fit.whole_s
            assert self.kinds[place.host].sizes[place.set] == waiting.fit.size
            booked.append(place)
        for key, booking in witness.running.items():
            place = witness.calendar.booking(key).place
            assert place == booking.place
            assert place.end_at > now or place.start_at == place.end_at
            booked.append(place)
        for number, one in enumerate(booked):
            for other in booked[number + 1 :]:
                masks = self.kinds[one.host].masks
                if one.host == other.host and masks[one.set] & masks[other.set]:
                    assert one.end_at <= other.start_at or other.end_at <= one.start_at, (one, other)


class Operations(RuleBasedStateMachine):
    """Whatever users, guests, faults and the clock may do."""

    waiting_or_running = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        self.kinds = [aligned_kind(8), CROSSING, aligned_kind(4)]
        self.witness = fleet(*self.kinds)
        self.checker = Checker(self.kinds)
        self.now = 0
        self.next_key = 0
        self.runs_until: dict[int, int] = {}
        self.out: set[tuple[int, int]] = set()

    def _began(self, keys: list[int]) -> None:
        for key in keys:
            assert self.now <= self.checker.told[key]
            place = self.witness.running[key].place
            assert place.start_at == self.now
            self.runs_until[key] = place.end_at

    @rule(
        target=waiting_or_running,
        gpus=st.sampled_from((1, 2, 4, 8)),
        length_s=st.integers(1, 50),
        order=st.sampled_from(sorted(ORDERS)),
    )
    def submit(self, gpus: int, length_s: int, order: str) -> object:
        self.witness.order = ORDERS[order]
        key = self.next_key
        self.next_key += 1
        waiting = self.witness.submit(key, fit(gpus, length_s), self.now)
        if waiting is None:
            assert self.out, "everything fits on an empty host at some time"
            return multiple()
        self.checker.told[key] = waiting.due_at
        self._began(self.witness.start_due(self.now))
        self._began(self.witness.start_early(self.now))
        return key

    @rule(key=consumes(waiting_or_running))
    def cancel_or_end(self, key: int) -> None:
        if key in self.witness.waiting:
            self.witness.cancel(key, self.now)
        elif key in self.witness.running:
            self.witness.end(key, self.now)
            del self.runs_until[key]
        self._began(self.witness.start_early(self.now))

    @rule(key=waiting_or_running, by_s=st.integers(1, 30))
    def extend(self, key: int, by_s: int) -> None:
        if key not in self.witness.running:
            return
        before = {other: self.witness.calendar.booking(other).place for other in self.witness.waiting}
        if self.witness.extend(key, by_s, self.now):
            self.runs_until[key] += by_s
        else:
            assert before == {other: self.witness.calendar.booking(other).place for other in self.witness.waiting}

    @rule(by_s=st.integers(0, 40))
    def pass_time(self, by_s: int) -> None:
        until = self.now + by_s
        while True:
            ends = [at for at in self.runs_until.values() if at <= until]
            at = min([*ends, self.witness.next_start_at(), until])
            self.now = at
            for key in [key for key, end in self.runs_until.items() if end <= at]:
                self.witness.end(key, at)
                del self.runs_until[key]
            self._began(self.witness.start_due(at))
            self._began(self.witness.start_early(at))
            if at == until and not any(end <= at for end in self.runs_until.values()):
                return

    @rule()
    def boundary(self) -> None:
        places = {key: booking.place for key, booking in self.witness.running.items()}
        if not self.witness.place_anew(self.now):
            assert places == {key: booking.place for key, booking in self.witness.running.items()}
        assert {key: booking.place.end_at for key, booking in self.witness.running.items()} == self.runs_until

    @rule(host=st.integers(0, 2), number=st.integers(0, 6))
    def quarantine(self, host: int, number: int) -> None:
        """Nothing new may be placed on a set any more: what is booked stays, for somebody else to move."""
        self.witness.calendar.set_begin(host, number, FOREVER)
        self.out.add((host, number))

    @rule()
    @precondition(lambda self: self.out)
    def mend(self) -> None:
        for host, number in self.out:
            self.witness.calendar.set_begin(host, number, 0)
        self.out.clear()

    @invariant()
    def every_promise_holds(self) -> None:
        self.checker.check(self.witness, self.now)


TestOperations = Operations.TestCase
TestOperations.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def live_through(witness: Witness, requests: list[tuple[int, int, int, int]]) -> tuple[list[int], list[int]]:
    """Run (submitted at, GPUs, asked, ran); return starts and what was told."""
    started, told = [0] * len(requests), [0] * len(requests)
    ends: dict[int, int] = {}
    number, now = 0, 0
    while number < len(requests) or witness.waiting or ends:
        coming = [requests[number][0]] if number < len(requests) else []
        now = min([*coming, *ends.values(), witness.next_start_at()])
        began: list[int] = []
        for key in [key for key, at in sorted(ends.items()) if at <= now]:
            witness.end(key, now)
            del ends[key]
        began += witness.start_due(now) + witness.start_early(now)
        while number < len(requests) and requests[number][0] <= now:
            _, gpus, asked_s, _ = requests[number]
            waiting = witness.submit(number, fit(gpus, asked_s), now)
            assert waiting is not None
            told[number] = waiting.due_at
            began += witness.start_due(now) + witness.start_early(now)
            number += 1
        for key in began:
            started[key] = now
            ends[key] = now + requests[key][3]
    return started, told


def drawn(seed: int, count: int = 120) -> list[tuple[int, int, int, int]]:
    draw, at, found = random.Random(seed), 0, []
    for _ in range(count):
        at += draw.randrange(0, 900)
        run_s = draw.randrange(60, 6 * HOUR_S)
        asked_s = int(run_s * draw.uniform(1, 3))
        found.append((at, draw.choice((1, 1, 1, 2, 4, 8, 16)), asked_s, run_s))
    return found


@pytest.mark.parametrize("order", sorted(ORDERS))
@pytest.mark.parametrize("seed", range(4))
def test_every_start_is_by_its_promise_whatever_the_order(order: str, seed: int) -> None:
    witness = fleet(aligned_kind(), aligned_kind(), order=ORDERS[order])
    started, told = live_through(witness, drawn(seed))
    assert all(start <= by for start, by in zip(started, told, strict=True))


@pytest.mark.skipif(not compiled.is_available(), reason="there is no C compiler")
@pytest.mark.parametrize("seed", range(4))
def test_the_compiled_calendar_gives_the_same_plan(seed: int) -> None:
    ours = [
        live_through(fleet(aligned_kind(), aligned_kind(), may_be_compiled=is_compiled), drawn(seed))
        for is_compiled in (True, False)
    ]
    assert ours[0] == ours[1]


def test_a_stated_slack_is_the_most_that_a_promise_is_later_than_the_earliest_fit() -> None:
    witness = fleet(aligned_kind(4), slack=Slack(least_s=100, share=0.5))
    assert witness.submit(0, fit(4, 1000), 0) is not None
    witness.start_due(0)
    short = witness.submit(1, fit(4, 10), 0)
    assert short is not None
    assert short.due_at == 1500
    later = witness.submit(2, fit(4, 10), 950)
    assert later is not None
    assert later.due_at - 1000 <= 100


@pytest.mark.parametrize("make", [PureCalendar, make_calendar])
def test_fragmentation_after_an_adversary_is_undone_at_a_boundary(make: Callable[[int], PureCalendar]) -> None:
    """As Robson: small ones everywhere, every second one leaves, and no wide one finds a place until a boundary."""
    calendar = make(0)
    calendar.add_host(aligned_kind())
    witness = Witness(calendar)
    for key in range(16):
        assert witness.submit(key, fit(1, 10_000), 0) is not None
    assert sorted(witness.start_due(0)) == list(range(16))
    for booking in sorted(witness.running.items(), key=lambda item: item[1].place.set)[::2]:
        witness.end(booking[0], 10)
    wide = witness.submit(99, fit(8, 100), 10)
    assert wide is not None
    assert wide.due_at == 10_000, "half of the GPUs are free, and no two of them side by side"
    assert witness.start_early(10) == []
    assert witness.place_anew(20)
    assert witness.start_early(20) == [99]
    assert len(witness.running) == 9


def test_whoever_stays_on_their_host_comes_back_there() -> None:
    calendar = make_calendar(0)
    for label in range(2):
        calendar.add_host(aligned_kind(4), label=label)
    witness = Witness(calendar, keeps_host=True)
    for key in range(4):
        assert witness.submit(key, fit(2, 1000), 0) is not None
    witness.start_due(0)
    hosts = {key: booking.place.host for key, booking in witness.running.items()}
    assert witness.place_anew(10)
    assert {key: booking.place.host for key, booking in witness.running.items()} == hosts


def test_placing_anew_twice_changes_nothing_the_second_time() -> None:
    witness = fleet(aligned_kind(), aligned_kind())
    for key, (_, gpus, asked_s, _) in enumerate(drawn(3, 60)):
        assert witness.submit(key, fit(gpus, asked_s), 0) is not None
    witness.start_due(0)
    witness.start_early(0)
    witness.place_anew(60)
    once = {key: witness.calendar.booking(key).place for key in (*witness.running, *witness.waiting)}
    witness.place_anew(60)
    assert once == {key: witness.calendar.booking(key).place for key in (*witness.running, *witness.waiting)}
