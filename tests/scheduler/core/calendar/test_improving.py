"""A search for a better plan: no promise is broken, it is never worse, and the same each time."""

import random

import pytest

from scheduler.core.calendar import compiled
from scheduler.core.calendar.bookings import FIXED, Booking, Fit, Place
from scheduler.core.calendar.improving import improve
from scheduler.core.calendar.kinds import aligned_kind
from scheduler.core.calendar.making import Calendar, make_calendar
from scheduler.core.calendar.witness import Witness
from scheduler.core.spans import HOUR_S

HOST = aligned_kind(8)
FEW = 1_500
"""Placements that are tried here."""


def full(seed: int, *, slack_s: int = 0, may_be_compiled: bool = True) -> tuple[Calendar, list[int]]:
    """Return a calendar of two hosts with some that run and some that wait, and who waits."""
    draw = random.Random(seed)
    calendar = make_calendar(0, may_be_compiled=may_be_compiled)
    for _ in range(2):
        calendar.add_host(HOST)
    waiting = []
    for key in range(20):
        run_s = draw.choice((1, 2, 4, 8)) * HOUR_S
        fit = Fit(draw.choice((1, 1, 2, 4, 8)), run_s, run_s)
        place = calendar.earliest(fit, 0)
        assert place is not None
        runs = key < 5 and place.start_at == 0
        calendar.book(key, place, fit, FIXED if runs else place.start_at + slack_s)
        if not runs:
            waiting.append(key)
    return calendar, waiting


def bookings(calendar: Calendar) -> dict[int, Booking]:
    return {key: calendar.booking(key) for key in range(len(calendar))}


def waits(plan: dict[int, Booking]) -> int:
    return sum(one.fit.size * one.place.start_at for one in plan.values())


def overlap(one: Place, other: Place) -> bool:
    shares = HOST.masks[one.set] & HOST.masks[other.set] and one.host == other.host
    return bool(shares) and one.start_at < other.end_at and other.start_at < one.end_at


@pytest.mark.parametrize("slack_s", [0, 6 * HOUR_S])
@pytest.mark.parametrize("seed", range(8))
def test_every_promise_is_kept_and_they_wait_less_or_nothing_moves(seed: int, slack_s: int) -> None:
    calendar, waiting = full(seed, slack_s=slack_s)
    before = bookings(calendar)
    moved = improve(calendar, waiting, most_placed=FEW)
    after = bookings(calendar)
    assert [key for key in before if before[key].place != after[key].place] == sorted(moved)
    assert set(moved) <= set(waiting)
    assert waits(after) < waits(before) if moved else after == before
    for key in waiting:
        assert after[key].place.start_at <= after[key].due_at == before[key].due_at
        assert after[key].place.end_at - after[key].place.start_at == after[key].fit.whole_s
    places = [one.place for one in after.values()]
    assert not any(overlap(one, other) for n, one in enumerate(places) for other in places[:n])


def test_with_slack_short_ones_go_first() -> None:
    calendar = make_calendar(0)
    calendar.add_host(HOST)
    long, short = Fit(8, 10 * HOUR_S, 10 * HOUR_S), Fit(8, HOUR_S, HOUR_S)
    calendar.book(0, Place(0, 10 * HOUR_S, 0, 0), long, HOUR_S)
    calendar.book(1, Place(10 * HOUR_S, 11 * HOUR_S, 0, 0), short, 10 * HOUR_S)
    assert sorted(improve(calendar, (0, 1), most_placed=FEW)) == [0, 1]
    assert [calendar.booking(key).place.start_at for key in (0, 1)] == [HOUR_S, 0]


def test_without_slack_nobody_is_put_off() -> None:
    calendar = make_calendar(0)
    calendar.add_host(HOST)
    long, short = Fit(8, 10 * HOUR_S, 10 * HOUR_S), Fit(8, HOUR_S, HOUR_S)
    calendar.book(0, Place(0, 10 * HOUR_S, 0, 0), long, 0)
    calendar.book(1, Place(10 * HOUR_S, 11 * HOUR_S, 0, 0), short, 10 * HOUR_S)
    assert improve(calendar, (0, 1), most_placed=FEW) == []


@pytest.mark.parametrize("seed", range(3))
def test_the_same_plan_gives_the_same_answer_from_both_calendars(seed: int) -> None:
    if not compiled.is_available():
        pytest.skip("there is no C compiler")
    found = []
    for may_be_compiled in (True, True, False):
        calendar, waiting = full(seed, slack_s=3 * HOUR_S, may_be_compiled=may_be_compiled)
        improve(calendar, waiting, most_placed=FEW)
        found.append(bookings(calendar))
    assert found[0] == found[1] == found[2]


def test_what_is_beyond_the_first_stays() -> None:
    calendar, waiting = full(1, slack_s=6 * HOUR_S)
    before = bookings(calendar)
    first = sorted(waiting, key=lambda key: (before[key].place.start_at, before[key].due_at, key))[:4]
    assert set(improve(calendar, waiting, most_placed=FEW, most_bookings=4)) <= set(first)


@pytest.mark.parametrize("keys", [(), (0,)])
def test_few_or_none_that_wait_are_no_trouble(keys: tuple[int, ...]) -> None:
    calendar = make_calendar(0)
    calendar.add_host(HOST)
    for key in keys:
        calendar.book(key, Place(HOUR_S, 2 * HOUR_S, 0, 0), Fit(8, HOUR_S, HOUR_S), 3 * HOUR_S)
    assert improve(calendar, keys) == list(keys)
    assert all(calendar.booking(key).place.start_at == 0 for key in keys)


def test_the_witness_starts_them_where_the_search_has_put_them() -> None:
    calendar = make_calendar(0)
    calendar.add_host(HOST)
    witness = Witness(calendar)
    for key, (gpus, hours) in enumerate(((4, 1), (4, 4), (8, 1), (4, 1), (4, 3))):
        assert witness.submit(key, Fit(gpus, hours * HOUR_S, hours * HOUR_S), 0) is not None
    told = {key: one.due_at for key, one in witness.waiting.items()}
    witness.improve(0, most_placed=FEW)
    started: dict[int, int] = {}
    while witness.waiting:
        now = witness.next_start_at()
        started |= dict.fromkeys(witness.start_due(now), now)
    assert all(started[key] <= told[key] for key in told)
