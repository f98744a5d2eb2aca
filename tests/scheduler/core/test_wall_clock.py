"""The clock on the wall without a zone database: as Python's zones show it, and by the rule where the clock jumps."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.occurrences import instant_of
from policies.zone_shifts import shifts_of
from scheduler.core.rules import ClockHours
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S, Instant
from scheduler.core.wall_clock import day_at, day_of, next_day_at, stretches_of, week_of, weekday_of

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Africa/Casablanca", "Australia/Lord_Howe")
EPOCH = date(1970, 1, 1)
FIRST_AT, LAST_AT = 1_577_836_800, 3_900_000_000
"""2020 and 2093."""
MONDAY: Instant = 1_772_409_600
"""2026-03-02 00:00Z."""


@given(zone=st.sampled_from(ZONES), at=st.integers(FIRST_AT, LAST_AT))
def test_days_and_weeks_are_those_of_the_zone(zone: str, at: Instant) -> None:
    shifts, local = shifts_of(zone), datetime.fromtimestamp(at, ZoneInfo(zone))
    day = day_of(shifts, at)
    assert EPOCH + timedelta(days=day) == local.date()
    assert weekday_of(day) == local.weekday()
    week = week_of(shifts, at)
    assert week.covers(at)
    assert datetime.fromtimestamp(week.start_at, ZoneInfo(zone)).weekday() == 0
    assert at < next_day_at(shifts, at) <= at + 26 * HOUR_S


@given(zone=st.sampled_from(ZONES), day=st.integers(18_300, 45_000), minute=st.integers(0, 24 * 60 - 1))
def test_a_minute_of_a_day_begins_when_policies_say_that_it_does(zone: str, day: int, minute: int) -> None:
    local = datetime(1970, 1, 1) + timedelta(days=day, minutes=minute)  # noqa: DTZ001
    assert day_at(shifts_of(zone), day, minute) == instant_of(local, ZoneInfo(zone))


def test_without_shifts_it_is_utc() -> None:
    assert (day_of((), MONDAY), weekday_of(day_of((), MONDAY))) == (MONDAY // DAY_S, 0)
    assert week_of((), MONDAY + 1).start_at == MONDAY


def test_before_the_first_shift_the_clock_is_as_after_it() -> None:
    shifts = ((MONDAY, HOUR_S),)
    assert day_of(shifts, MONDAY - DAY_S - HOUR_S) == day_of(shifts, MONDAY) - 1
    assert day_at(shifts, 0) == -HOUR_S


@pytest.mark.parametrize(
    ("hours", "first", "expected"),
    [
        # The night to summer time has 23 hours, that to winter time 25.
        ((20 * 60, 8 * 60), date(2026, 3, 28), 11 * HOUR_S),
        ((20 * 60, 8 * 60), date(2026, 10, 24), 13 * HOUR_S),
        ((0, 24 * 60), date(2026, 3, 29), 23 * HOUR_S),
        # The hour that does not exist begins at its first existing instant; of one that is left out nothing is left.
        ((150, 240), date(2026, 3, 29), HOUR_S),
        ((130, 170), date(2026, 3, 29), None),
        # The hour that comes twice begins at the first.
        ((150, 240), date(2026, 10, 25), HOUR_S * 5 // 2),
    ],
)
def test_hours_are_those_on_the_wall(hours: tuple[int, int], first: date, expected: int | None) -> None:
    day = (first - EPOCH).days
    of_day = ClockHours(weekdays=frozenset(range(7)), from_minute=hours[0], until_minute=hours[1])
    assert [span.length_s for span in stretches_of(shifts_of("Europe/Berlin"), of_day, day, day)] == [
        length_s for length_s in [expected] if length_s is not None
    ]


def test_hours_over_midnight_belong_to_the_weekday_on_which_they_begin() -> None:
    friday_night = ClockHours(weekdays=frozenset({4}), from_minute=22 * 60, until_minute=6 * 60)
    day = day_of((), MONDAY)
    (only,) = stretches_of((), friday_night, day, day + 6)
    assert (only.start_at, only.length_s) == (MONDAY + 4 * DAY_S + 22 * HOUR_S, 8 * HOUR_S)


@pytest.mark.parametrize("zone", ZONES)
def test_shifts_are_each_instant_at_which_the_clock_jumps(zone: str) -> None:
    shifts = shifts_of(zone)
    for (_, before_s), (at, after_s) in pairwise(shifts):
        assert before_s != after_s
        known = [datetime.fromtimestamp(instant, UTC).astimezone(ZoneInfo(zone)) for instant in (at - 1, at)]
        assert [int(one.utcoffset().total_seconds()) for one in known] == [before_s, after_s]  # type: ignore[union-attr]
    assert len(shifts) == 1 or len(shifts) > 100
    assert all(at % MINUTE_S == 0 for at, _ in shifts)
