"""Wall-clock times become instants by one rule, held against an evaluator that looks at every single minute."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.cron import BadCron, Cron, parse_cron
from policies.occurrences import instant_of, local_of, occurrences
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S, Instant

# Days around changes of the clock: Berlin, New York, and Lord Howe, whose summer time is half an hour.
CHANGES = {
    "Europe/Berlin": ((2026, 3, 29), (2026, 10, 25)),
    "America/New_York": ((2026, 3, 8), (2026, 11, 1)),
    "Australia/Lord_Howe": ((2026, 4, 5), (2026, 10, 4)),
    "Asia/Kolkata": ((2026, 3, 29), (2026, 10, 25)),
    "UTC": ((2026, 3, 29), (2026, 10, 25)),
}
NAMES = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


def cron_of(text: str) -> Cron:
    cron = parse_cron(text)
    assert isinstance(cron, Cron), cron
    return cron


def at_utc(text: str) -> Instant:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def found(cron: str, zone: str, from_text: str, days: int) -> list[tuple[str, str]]:
    """Return (wall clock, UTC) of what a cron expression names from a UTC time on."""
    from_at = at_utc(from_text)
    times = occurrences(cron_of(cron), ZoneInfo(zone), from_at=from_at, until_at=from_at + days * DAY_S)
    return [(time.local_text, f"{datetime.fromtimestamp(time.at, UTC):%Y-%m-%dT%H:%M}") for time in times]


# The slow evaluator. It shares nothing with the product: it parses fields itself and watches the clock on the wall
# minute by minute, as a person would who writes down when it shows a time for the first time.


def field_matches(field: str, value: int, names: tuple[str, ...] = ()) -> bool:
    def number(text: str) -> int:
        return names.index(text) if text in names else int(text)

    for term in field.split(","):
        body, _, step = term.partition("/")
        if body == "*":
            first, last = 0, 10**6
        elif "-" in body:
            first, last = map(number, body.split("-"))
        else:
            first = last = number(body)
        if first > last:
            if value >= first or value <= last:
                return True
        elif first <= value <= last and (not step or (value - (first if body != "*" else 0)) % int(step) == 0):
            return True
    return False


def matches(cron: str, local: datetime) -> bool:
    minute, hour, day, month, weekday = cron.split()
    on_day = field_matches(day, local.day)
    on_weekday = field_matches(weekday, local.isoweekday() % 7, NAMES)
    is_day = (on_day and on_weekday) if "*" in (day, weekday) else (on_day or on_weekday)
    return (
        field_matches(minute, local.minute)
        and field_matches(hour, local.hour)
        and field_matches(month, local.month)
        and is_day
    )


def slow_occurrences(cron: str, zone: ZoneInfo, from_at: Instant, until_at: Instant) -> list[Instant]:
    seen_until = datetime.fromtimestamp(from_at - MINUTE_S, zone).replace(tzinfo=None)
    instants = []
    for at in range(from_at, until_at, MINUTE_S):
        shows = datetime.fromtimestamp(at, zone).replace(tzinfo=None)
        # Everything the clock passes over in this minute, which it shows for the first time or jumps over.
        passed = []
        minute = seen_until + timedelta(minutes=1)
        while minute <= shows:
            passed.append(minute)
            minute += timedelta(minutes=1)
        if any(matches(cron, local) for local in passed):
            instants.append(at)
        seen_until = max(seen_until, shows)
    return instants


@st.composite
def crons(draw: st.DrawFn) -> str:
    """Write cron expressions that like the hours in which clocks change."""
    minute = draw(st.sampled_from(("0", "30", "15,45", "*/20", "59", "1-3", "*/7")))
    hour = draw(st.sampled_from(("*", "2", "1", "3", "1-3", "20", "*/2", "0", "2,3", "23")))
    day = draw(st.sampled_from(("*", "*", "*", "1-15", "25", "29", "8")))
    month = draw(st.sampled_from(("*", "*", "3,4", "10-11")))
    weekday = draw(st.sampled_from(("*", "*", "sun", "mon-fri", "sat-mon", "fri-sun,tue")))
    return f"{minute} {hour} {day} {month} {weekday}"


@pytest.mark.parametrize("zone_name", CHANGES)
@settings(max_examples=40, deadline=None)
@given(cron=crons(), season=st.sampled_from((0, 1)), offset_min=st.integers(0, 36 * 60))
def test_it_agrees_with_an_evaluator_that_looks_at_every_minute(
    zone_name: str, cron: str, season: int, offset_min: int
) -> None:
    zone = ZoneInfo(zone_name)
    day = datetime(*CHANGES[zone_name][season], tzinfo=UTC)
    from_at = int(day.timestamp()) - DAY_S - DAY_S // 2 + offset_min * MINUTE_S
    # Begin before the change, or the slow evaluator would not know what the clock has shown already.
    from_at = min(from_at, int(day.timestamp()) - 15 * HOUR_S)
    until_at = int(day.timestamp()) + 2 * DAY_S
    fast = [time.at for time in occurrences(cron_of(cron), zone, from_at=from_at, until_at=until_at)]
    assert fast == slow_occurrences(cron, zone, from_at, until_at)


@pytest.mark.parametrize("zone_name", CHANGES)
@settings(max_examples=60, deadline=None)
@given(cron=crons(), season=st.sampled_from((0, 1)), cut_min=st.integers(-48 * 60, 48 * 60))
def test_a_stretch_cut_in_two_gives_the_same_occurrences(zone_name: str, cron: str, season: int, cut_min: int) -> None:
    zone = ZoneInfo(zone_name)
    middle_at = int(datetime(*CHANGES[zone_name][season], tzinfo=UTC).timestamp())
    from_at, until_at, cut_at = middle_at - 2 * DAY_S, middle_at + 2 * DAY_S, middle_at + cut_min * MINUTE_S
    parsed = cron_of(cron)
    whole = list(occurrences(parsed, zone, from_at=from_at, until_at=until_at))
    parts = [
        *occurrences(parsed, zone, from_at=from_at, until_at=cut_at),
        *occurrences(parsed, zone, from_at=cut_at, until_at=until_at),
    ]
    assert parts == whole


@given(
    zone_name=st.sampled_from([*CHANGES, "Pacific/Apia", "Africa/Casablanca", "America/Sao_Paulo"]),
    minutes=st.lists(st.integers(0, 40 * 365 * 24 * 60), min_size=2, max_size=2).map(sorted),
)
def test_a_later_wall_clock_time_is_never_an_earlier_instant(zone_name: str, minutes: list[int]) -> None:
    zone = ZoneInfo(zone_name)
    start = datetime(1995, 1, 1, tzinfo=UTC).replace(tzinfo=None)
    first, second = (instant_of(start + timedelta(minutes=minute), zone) for minute in minutes)
    assert first <= second


@given(zone_name=st.sampled_from(list(CHANGES)), at=st.integers(800_000_000, 2_000_000_000))
def test_what_the_clock_shows_maps_to_the_first_instant_at_which_it_shows_it(zone_name: str, at: Instant) -> None:
    zone = ZoneInfo(zone_name)
    mapped = instant_of(local_of(at, zone), zone)
    assert mapped <= at
    assert local_of(mapped, zone) == local_of(at, zone)


def test_the_hour_that_does_not_exist_is_its_first_existing_instant() -> None:
    assert found("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", 1) == [("2026-03-29T02:30", "2026-03-29T01:00")]
    assert found("30 2 * * *", "America/New_York", "2026-03-08T00:00", 1) == [("2026-03-08T02:30", "2026-03-08T07:00")]
    # Lord Howe jumps from 02:00 to 02:30 at 15:30 UTC of the day before.
    assert found("10 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00", 1) == [
        ("2026-10-04T02:10", "2026-10-03T15:30")
    ]


def test_a_day_that_does_not_exist_is_its_first_existing_instant() -> None:
    assert found("0 20 30 * *", "Pacific/Apia", "2011-12-29T12:00", 2) == [("2011-12-30T20:00", "2011-12-30T10:00")]


def test_the_hour_that_comes_twice_counts_once_at_the_first() -> None:
    assert found("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", 1) == [("2026-10-25T02:30", "2026-10-25T00:30")]
    assert found("30 1 * * *", "America/New_York", "2026-11-01T00:00", 1) == [("2026-11-01T01:30", "2026-11-01T05:30")]


def test_times_that_fall_together_at_a_jump_are_one_occurrence_named_by_the_latest() -> None:
    assert found("0 * * * *", "Europe/Berlin", "2026-03-29T00:00", 1)[:3] == [
        ("2026-03-29T01:00", "2026-03-29T00:00"),
        ("2026-03-29T03:00", "2026-03-29T01:00"),
        ("2026-03-29T04:00", "2026-03-29T02:00"),
    ]


def test_an_hourly_entry_rests_in_the_second_of_the_double_hours() -> None:
    assert [utc for _, utc in found("0 * * * *", "Europe/Berlin", "2026-10-25T00:00", 1)][:3] == [
        "2026-10-25T00:00",
        "2026-10-25T02:00",
        "2026-10-25T03:00",
    ]


def test_a_stretch_is_half_open() -> None:
    zone, cron = ZoneInfo("UTC"), cron_of("0 20 * * *")
    at = at_utc("2026-03-02T20:00")
    assert [o.at for o in occurrences(cron, zone, from_at=at, until_at=at + 1)] == [at]
    assert not list(occurrences(cron, zone, from_at=at - DAY_S + 1, until_at=at))


def test_weekday_ranges_may_run_over_the_end_of_the_week() -> None:
    days = [local[:10] for local, _ in found("0 9 * * sat-mon", "UTC", "2026-03-02T00:00", 7)]
    assert days == ["2026-03-02", "2026-03-07", "2026-03-08"]


def test_the_nth_weekday_of_a_month_and_the_last_day_can_be_named() -> None:
    assert [local[:10] for local, _ in found("0 9 * * mon#1", "UTC", "2026-03-01T00:00", 40)] == [
        "2026-03-02",
        "2026-04-06",
    ]
    assert [local[:10] for local, _ in found("0 9 L * *", "UTC", "2026-02-01T00:00", 60)] == [
        "2026-02-28",
        "2026-03-31",
    ]


@pytest.mark.parametrize("field", ["1", "0-6", "7", "mon-5", "1#2", "*/2", "1,3,5", "5L"])
def test_weekday_numbers_are_refused_in_every_form(field: str) -> None:
    refused = parse_cron(f"0 20 * * {field}")
    assert isinstance(refused, BadCron)
    assert "weekday numbers" in refused.what


@given(st.text(alphabet="0123456789*/,-# LWmonsunf", max_size=40))
def test_any_text_is_a_cron_expression_that_can_be_evaluated_or_is_refused(text: str) -> None:
    cron = parse_cron(text)
    if isinstance(cron, Cron):
        times = occurrences(cron, ZoneInfo("Europe/Berlin"), from_at=1_780_000_000, until_at=1_780_000_000 + DAY_S)
        assert all(1_780_000_000 <= time.at < 1_780_000_000 + DAY_S for time in times)
    else:
        assert cron.what
        assert cron.instead
