"""Single times, exceptions and holidays: on which days an entry begins."""

from collections.abc import Callable
from datetime import date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.format import LoadedPolicy
from policies.holiday_days import DateRange, HolidayDays, YearlyDays, countries
from policies.loading import load_policy
from policies.windows import window_times
from scheduler.core.spans import DAY_S, Instant

MakePolicy = Callable[..., LoadedPolicy]
MakeText = Callable[..., str]

NIGHT = '{name: night, layout: night, for: 12h, opens: "0 20 * * *"}'
MONDAY: Instant = 1_772_409_600
"""2026-03-02 00:00 UTC."""


def starts(policy: LoadedPolicy, from_text: str, days: int) -> list[str]:
    from_at = int(datetime.fromisoformat(f"{from_text}T00:00+00:00").timestamp())
    times = window_times(policy, from_at=from_at, until_at=from_at + days * DAY_S)
    return [f"{time.local_start:%m-%d %H:%M}" for time in times]


def only_problem(text: str) -> str:
    found = load_policy(text, source="p.yaml")
    assert isinstance(found, tuple)
    (problem,) = found
    return str(problem)


def test_except_takes_dates_and_ranges_away_by_the_day_of_the_start(make_policy: MakePolicy) -> None:
    entry = NIGHT.replace("}", ", except: [2026-12-24, 2026-12-26..2026-12-28]}")
    assert starts(make_policy(windows=entry), "2026-12-23", 7) == ["12-23 20:00", "12-25 20:00", "12-29 20:00"]


def test_at_gives_single_times_whatever_exceptions_say(make_policy: MakePolicy) -> None:
    entry = NIGHT.replace("}", ', except: [2026-12-24], at: ["2026-12-24 14:00", 2026-12-24T14:00]}')
    assert starts(make_policy(windows=entry), "2026-12-23", 3) == ["12-23 20:00", "12-24 14:00", "12-25 20:00"]
    alone = '{name: once, layout: night, for: 12h, at: ["2026-12-26 10:00", "2026-12-24 14:00"]}'
    assert starts(make_policy(windows=alone), "2026-12-01", 60) == ["12-24 14:00", "12-26 10:00"]


def test_holidays_of_a_country_and_its_region_are_skipped_or_meant(make_policy: MakePolicy) -> None:
    # 6 January is a holiday in Bavaria and not in Berlin; the 1st in both.
    found = {
        (region, what): starts(
            make_policy(
                more=f"holidays: {{country: DE, region: {region}}}\n",
                windows=NIGHT.replace("}", f", holidays: {what}}}"),
            ),
            "2027-01-01",
            7,
        )
        for region in ("BY", "BE")
        for what in ("skip", "only")
    }
    assert found["BY", "only"] == ["01-01 20:00", "01-06 20:00"]
    assert found["BE", "only"] == ["01-01 20:00"]
    assert len(found["BY", "skip"]) == 5
    assert len(found["BE", "skip"]) == 6


def test_own_days_are_added_and_taken_away(make_policy: MakePolicy) -> None:
    holidays = "holidays: {country: DE, also: [2026-12-24, 2026-12-31], except: [2026-12-26]}\n"
    policy = make_policy(more=holidays, windows=NIGHT.replace("}", ", holidays: only}"))
    assert starts(policy, "2026-12-20", 14) == ["12-24 20:00", "12-25 20:00", "12-31 20:00", "01-01 20:00"]


def test_a_reservation_has_exceptions_too(make_policy: MakePolicy) -> None:
    entry = '{name: c, cron: "0 10 * * tue", for: 2h, gpus: 2, queue: interactive, owner: o, except: [2026-03-10]}'
    (reserve,) = make_policy(reserve=entry).reserve
    found = reserve.starts.local_times(datetime.fromisoformat("2026-03-01"), datetime.fromisoformat("2026-03-20"))
    assert [f"{local:%m-%d}" for local in found] == ["03-03", "03-17"]


def test_every_country_of_the_library_can_be_asked() -> None:
    assert {"DE", "US", "IN", "AU"} <= set(countries())
    for country in ("DE", "US", "IN", "AU", "JP", "SA"):
        assert any(day in HolidayDays(country=country) for day in map(date.fromordinal, range(739_600, 739_966)))
    # Years of which the library knows nothing have no holidays, rather than an error.
    assert date(1800, 1, 1) not in HolidayDays(country="DE")
    assert date(9000, 1, 1) not in HolidayDays(country="DE")


def test_yearly_days_last_over_the_end_of_a_year() -> None:
    christmas = YearlyDays(first=DateRange(first=date(2025, 12, 24), last=date(2026, 1, 6)), last_year=2027)
    assert date(2026, 1, 6) in christmas
    assert date(2026, 1, 7) not in christmas
    assert date(2028, 1, 6) in christmas
    assert date(2028, 12, 24) not in christmas
    assert date(2024, 12, 24) not in christmas


def test_a_day_that_comes_every_29_february_comes_in_leap_years() -> None:
    leap = YearlyDays(first=DateRange(first=date(2024, 2, 29), last=date(2024, 2, 29)))
    assert date(2028, 2, 29) in leap
    assert date(2026, 2, 28) not in leap
    assert date(2026, 3, 1) not in leap


@given(day=st.dates(min_value=date(2000, 1, 1), max_value=date(2100, 12, 31)))
def test_skipped_and_meant_days_are_all_days(day: date) -> None:
    holidays = HolidayDays(country="DE", listed=(DateRange(first=date(2026, 8, 1), last=date(2026, 8, 20)),))
    assert (day in holidays) != (day not in holidays)


@pytest.mark.parametrize(
    ("windows", "more", "expected"),
    [
        (', except: ["24.12.2026"]', "", "is not a date such as 2026-12-24 or 2026-12-24..2027-01-01: '24.12.2026'"),
        (", except: [2026-02-30]", "", "'2026-02-30'; use a day that exists, from 2000 to 2100"),
        (", except: [2027-01-01..2026-12-24]", "", "ends before it begins"),
        (', at: ["2026-12-24"]', "", "at is not a time such as \"2026-12-24 18:00\": '2026-12-24'"),
        (', at: ["2026-12-24 25:00"]', "", "at is not a time"),
        (', at: "2026-12-24 18:00"', "", "at must be a list, not text: '2026-12-24 18:00'; write [2026-12-24 18:00]"),
        (", holidays: skip", "", "asks for holidays, and the policy names none"),
        (", holidays: omit", "holidays: {country: DE}\n", "unknown choice: 'omit'; use one of skip, only"),
        ("", "holidays: {country: Germany}\n", "country is not a country of the holidays library: 'Germany'"),
        ("", "holidays: {country: DE, region: Bayern}\n", "region is not a region of DE: 'Bayern'"),
        ("", "holidays: {region: BY}\n", "has a region and no country"),
        ("", "holidays: {calendars: [x.ics]}\n", "names a calendar that is not beside the policy: 'x.ics'"),
        ("", "holidays: {calender: [x.ics]}\n", "did you mean calendars?"),
    ],
)  # fmt: skip
def test_each_mistake_gets_one_clear_line(make_text: MakeText, windows: str, more: str, expected: str) -> None:
    text = make_text(windows=NIGHT.replace("}", windows + "}"), more=more)
    said = [line for line in str(load_and_join(text)).splitlines() if expected in line]
    assert said, load_and_join(text)


def load_and_join(text: str) -> str:
    found = load_policy(text, source="p.yaml")
    assert isinstance(found, tuple)
    return "\n".join(map(str, found))


def test_an_entry_without_any_time_is_told_what_to_add(make_text: MakeText) -> None:
    assert "has no opens; add opens:" in only_problem(make_text(windows="{name: n, layout: night, for: 12h}"))
