"""Every minute of the days on which clocks change, and the edges of days, months and years, against a slow evaluator.

The slow evaluator shares nothing with the product: it watches the clock on the wall minute by minute, and writes down
when it shows a time for the first time, or jumps over it.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.clock_changes import clock_changes
from policies.cron import Cron, parse_cron
from policies.format import LoadedPolicy
from policies.occurrences import instant_of, occurrences
from policies.times import EntryTimes
from policies.windows import WindowTime, window_times
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S, Instant

MakePolicy = Callable[..., LoadedPolicy]

ZONES = {
    "Europe/Berlin": ("2026-03-29", "2026-10-25"),
    "America/New_York": ("2026-03-08", "2026-11-01"),
    "Australia/Lord_Howe": ("2026-04-05", "2026-10-04"),
    "Asia/Kolkata": ("2026-03-29", "2026-10-25"),
    "UTC": ("2026-03-29", "2026-10-25"),
}
"""Each with the two days on which its clock changes, if it does."""
DAYS = [(zone, day) for zone, days in ZONES.items() for day in days]
A_YEAR_S = 366 * DAY_S


def midnight(day: str) -> datetime:
    return datetime.fromisoformat(day)


def minutes_of(day: str) -> list[datetime]:
    return [midnight(day) + timedelta(minutes=number) for number in range(24 * 60)]


def watched(zone_name: str, day: str) -> dict[datetime, Instant]:
    """Return when each wall-clock minute of a day, and of the one after it, is shown for the first time or passed."""
    zone = ZoneInfo(zone_name)
    at = int(midnight(day).replace(tzinfo=UTC).timestamp()) - 2 * DAY_S
    shown_until = datetime.fromtimestamp(at, zone).replace(tzinfo=None)
    first: dict[datetime, Instant] = {}
    while shown_until < midnight(day) + timedelta(days=2):
        at += MINUTE_S
        shows = datetime.fromtimestamp(at, zone).replace(tzinfo=None)
        while shown_until < shows:
            shown_until += timedelta(minutes=1)
            first[shown_until] = at
    return first


def cron_of(text: str) -> Cron:
    cron = parse_cron(text)
    assert isinstance(cron, Cron), cron
    return cron


def around(day: str) -> tuple[Instant, Instant]:
    at = int(midnight(day).replace(tzinfo=UTC).timestamp())
    return at - DAY_S, at + 2 * DAY_S


@pytest.mark.parametrize(("zone", "day"), DAYS)
def test_every_minute_of_the_day_is_when_the_clock_first_shows_or_passes_it(zone: str, day: str) -> None:
    first = watched(zone, day)
    for local in minutes_of(day):
        assert instant_of(local, ZoneInfo(zone)) == first[local], local


@pytest.mark.parametrize(("zone", "day"), DAYS)
def test_an_entry_at_every_minute_begins_once_at_each_instant(zone: str, day: str) -> None:
    first = watched(zone, day)
    expected = sorted({first[local] for local in minutes_of(day)})
    from_at, until_at = around(day)
    single = EntryTimes(at=tuple(minutes_of(day)))
    found = [one.at for one in occurrences(single, ZoneInfo(zone), from_at=from_at, until_at=until_at)]
    assert found == expected
    by_cron = EntryTimes(cron=cron_of(f"* * {int(day[8:])} {int(day[5:7])} *"))
    found = [one.at for one in occurrences(by_cron, ZoneInfo(zone), from_at=from_at, until_at=until_at)]
    assert found == expected


@pytest.mark.parametrize(("zone", "day"), DAYS)
def test_a_window_from_every_minute_to_every_hour_is_as_watched(zone: str, day: str, make_policy: MakePolicy) -> None:
    first = watched(zone, day)
    from_at, until_at = around(day)
    for length_h in (1, 2, 12, 24):
        for minute in range(0, 60, 7 if length_h > 1 else 1):
            entry = (
                f'{{name: w, layout: night, opens: "{minute} * {int(day[8:])} {int(day[5:7])} *", for: {length_h}h}}'
            )
            policy = make_policy(zone=zone, windows=entry)
            for time in window_times(policy, from_at=from_at, until_at=until_at):
                assert time.start_at == first[time.local_start]
                end = time.local_start + timedelta(hours=length_h)
                assert (time.local_end, time.end_at) == (end, first[end])


@pytest.mark.parametrize(("zone", "day"), DAYS)
def test_the_changes_of_the_clock_are_named(zone: str, day: str) -> None:
    first = watched(zone, day)
    from_at, until_at = around(day)
    instants = [first[local] for local in sorted(first) if from_at <= first[local] < until_at]
    # Where the clock goes forward, minutes are passed at one instant; where it goes back, none is first for a while.
    jumps = {b for a, b in pairwise(instants) if b - a != MINUTE_S}
    changes = clock_changes(ZoneInfo(zone), from_at=from_at, until_at=until_at)
    assert bool(changes) == bool(jumps) == (zone not in ("UTC", "Asia/Kolkata"))
    for change in changes:
        assert f"{change.to_local:%Y-%m-%d}" == day
        assert abs(change.shift_s) == (HOUR_S // 2 if zone == "Australia/Lord_Howe" else HOUR_S)
        assert datetime.fromtimestamp(change.at, ZoneInfo(zone)).replace(tzinfo=None) == change.to_local


@pytest.mark.parametrize("zone", [*ZONES, "Africa/Casablanca", "America/Sao_Paulo", "Asia/Beirut", "Atlantic/Azores"])
@pytest.mark.parametrize("hour", [0, 2, 3, 20, 23])
def test_windows_of_a_day_touch_and_leave_no_instant_of_a_year(zone: str, hour: int, make_policy: MakePolicy) -> None:
    policy = make_policy(zone=zone, windows=f'{{name: w, layout: night, opens: "0 {hour} * * *", for: 24h}}')
    from_at = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    times = window_times(policy, from_at=from_at, until_at=from_at + A_YEAR_S)
    assert len(times) == 366
    assert all(one.end_at == following.start_at for one, following in pairwise(times))
    lengths = sorted({time.end_at - time.start_at for time in times})
    assert lengths[0] >= 22 * HOUR_S
    assert lengths[-1] <= 26 * HOUR_S


def locals_of(times: tuple[WindowTime, ...]) -> list[str]:
    return [f"{time.local_start:%y-%m-%d %H:%M}–{time.local_end:%y-%m-%d %H:%M}" for time in times]


@pytest.mark.parametrize(
    ("opens", "length", "first", "days", "expected"),
    [
        # Over midnight, and from midnight to midnight.
        ("30 23 * * *", "1h", "2026-05-01", 1, ["26-05-01 23:30–26-05-02 00:30"]),
        ("0 0 2 may *", "24h", "2026-05-01", 3, ["26-05-02 00:00–26-05-03 00:00"]),
        # Ends of months and of the year.
        ("0 20 L * *", "12h", "2026-01-15", 60, ["26-01-31 20:00–26-02-01 08:00", "26-02-28 20:00–26-03-01 08:00"]),
        ("0 20 31 * *", "12h", "2026-03-01", 70, ["26-03-31 20:00–26-04-01 08:00"]),
        ("0 20 31 dec *", "12h", "2026-12-01", 40, ["26-12-31 20:00–27-01-01 08:00"]),
        ("59 23 31 dec *", "1m", "2026-12-01", 40, ["26-12-31 23:59–27-01-01 00:00"]),
        # 29 February, of leap years only.
        ("0 20 29 feb *", "12h", "2026-02-01", 60, []),
        ("0 20 29 feb *", "12h", "2028-02-01", 60, ["28-02-29 20:00–28-03-01 08:00"]),
        ("0 20 28 feb *", "48h", "2028-02-01", 60, ["28-02-28 20:00–28-03-01 20:00"]),
        ("0 20 L feb *", "12h", "2028-02-01", 60, ["28-02-29 20:00–28-03-01 08:00"]),
        # The last Friday, the first Monday.
        ("0 20 * * mon#1", "12h", "2026-06-01", 31, ["26-06-01 20:00–26-06-02 08:00"]),
    ],
)
def test_edges_of_days_months_and_years(
    opens: str, length: str, first: str, days: int, expected: list[str], make_policy: MakePolicy
) -> None:
    for zone in ZONES:
        policy = make_policy(zone=zone, windows=f'{{name: w, layout: night, opens: "{opens}", for: {length}}}')
        from_at = instant_of(midnight(first), ZoneInfo(zone))
        assert locals_of(window_times(policy, from_at=from_at, until_at=from_at + days * DAY_S)) == expected


@given(
    zone=st.sampled_from(sorted(ZONES)),
    day=st.dates(min_value=date(2026, 1, 1), max_value=date(2030, 12, 31)),
    minute=st.integers(0, 24 * 60 - 1),
)
def test_any_minute_of_any_day_is_as_watched(zone: str, day: date, minute: int) -> None:
    local = datetime.combine(day, datetime.min.time()) + timedelta(minutes=minute)
    # Of the two instants that could show it, the first that does; none, and the clock has just passed it.
    at = instant_of(local, ZoneInfo(zone))
    shown = datetime.fromtimestamp(at, ZoneInfo(zone)).replace(tzinfo=None)
    before = datetime.fromtimestamp(at - 1, ZoneInfo(zone)).replace(tzinfo=None)
    assert shown >= local > before
