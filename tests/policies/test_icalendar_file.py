"""An institution's own closed days, from the file that its calendar program exports."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.holiday_days import DateRange, HolidayDays
from policies.icalendar_file import MOST_EVENTS, CalendarDays, read_calendar


def calendar(*events: str) -> str:
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:x"]
    for number, event in enumerate(events):
        lines += ["BEGIN:VEVENT", f"UID:{number}", *event.split("|"), "END:VEVENT"]
    return "\r\n".join([*lines, "END:VCALENDAR", ""])


def days_of(text: str) -> HolidayDays:
    found = read_calendar(text, source="c.ics")
    assert isinstance(found, CalendarDays), found
    return HolidayDays(listed=found.listed, yearly=found.yearly)


def problems_of(text: str) -> list[str]:
    found = read_calendar(text, source="c.ics")
    assert isinstance(found, tuple)
    return [str(problem) for problem in found]


def test_an_all_day_event_lasts_to_the_day_before_its_end() -> None:
    days = days_of(calendar("DTSTART;VALUE=DATE:20260803|DTEND;VALUE=DATE:20260815|SUMMARY:Summer"))
    assert days.listed == (DateRange(first=date(2026, 8, 3), last=date(2026, 8, 14)),)


def test_one_without_an_end_is_one_day_and_a_duration_counts() -> None:
    days = days_of(calendar("DTSTART;VALUE=DATE:20260803", "DTSTART;VALUE=DATE:20260901|DURATION:P3D"))
    assert [str(one) for one in days.listed] == ["2026-08-03", "2026-09-01..2026-09-03"]


@pytest.mark.parametrize(
    ("rule", "years"),
    [
        ("FREQ=YEARLY", [2025, 2026, 2027, 2028, 2029]),
        ("FREQ=YEARLY;COUNT=2", [2025, 2026]),
        ("FREQ=YEARLY;INTERVAL=2", [2025, 2027, 2029]),
        ("FREQ=YEARLY;UNTIL=20271224", [2025, 2026, 2027]),
        ("FREQ=YEARLY;UNTIL=20271223T000000Z", [2025, 2026]),
    ],
)
def test_yearly_repetitions_are_understood(rule: str, years: list[int]) -> None:
    days = days_of(calendar(f"DTSTART;VALUE=DATE:20251224|RRULE:{rule}"))
    assert [year for year in range(2020, 2030) if date(year, 12, 24) in days] == years


def test_what_was_called_off_is_no_holiday() -> None:
    assert days_of(calendar("DTSTART;VALUE=DATE:20260803|STATUS:CANCELLED")).listed == ()


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("SUMMARY:nothing", "event 'nothing' has no first day; add DTSTART;VALUE=DATE:20261224"),
        ("DTSTART:20260803T100000Z|SUMMARY:a talk", "event 'a talk' is not about whole days"),
        ("DTSTART;VALUE=DATE:20260803|RRULE:FREQ=WEEKLY", "has a repetition that is not understood: 'FREQ=WEEKLY'"),
        ("DTSTART;VALUE=DATE:20260803|RRULE:FREQ=YEARLY;BYMONTH=2", "has a repetition that is not understood"),
        ("DTSTART;VALUE=DATE:20260803|EXDATE;VALUE=DATE:20270803", "not understood: 'EXDATE'; write its days out"),
        ("DTSTART;VALUE=DATE:20260803|DTEND;VALUE=DATE:20260801", "lasts -2 days; use 1 to 366"),
        ("DTSTART;VALUE=DATE:20260803|DTEND;VALUE=DATE:20290801", "use 1 to 366"),
    ],
)
def test_what_is_not_understood_is_told_with_the_line_of_its_event(event: str, expected: str) -> None:
    (said,) = problems_of(calendar("DTSTART;VALUE=DATE:20260101", event))
    assert said.startswith("c.ics:8:1: ")
    assert expected in said


def test_all_mistakes_are_told_at_once() -> None:
    assert len(problems_of(calendar("SUMMARY:a", "SUMMARY:b", "SUMMARY:c"))) == 3


@pytest.mark.parametrize("text", ["", "no calendar", "BEGIN:VCALENDAR\r\n", "BEGIN:VEVENT\r\nEND:VCALENDAR\r\n"])
def test_what_is_no_calendar_is_told_so(text: str) -> None:
    assert any("iCalendar" in said for said in problems_of(text))


def test_a_calendar_of_everything_is_too_much() -> None:
    (said,) = problems_of(calendar(*["DTSTART;VALUE=DATE:20260101"] * (MOST_EVENTS + 1)))
    assert "keep only the days on which the house is closed" in said
    assert problems_of("x" * 300_000)


@given(st.lists(st.sampled_from(calendar("DTSTART;VALUE=DATE:20251224|RRULE:FREQ=YEARLY").split("\r\n")), max_size=12))
def test_lines_in_any_order_are_survived(lines: list[str]) -> None:
    assert read_calendar("\r\n".join(lines), source="c.ics") is not None


@given(st.text(max_size=60), st.sampled_from(("DTSTART", "DTEND", "RRULE", "DURATION", "STATUS", "SUMMARY")))
def test_any_value_is_survived(value: str, key: str) -> None:
    assert read_calendar(calendar(f"DTSTART;VALUE=DATE:20251224|{key}:{value}"), source="c.ics") is not None


def test_a_nul_character_is_refused_with_its_line() -> None:
    text = calendar("DTSTART;VALUE=DATE:20251224|SUMMARY:a\0b")
    found = read_calendar(text, source="c.ics")
    assert isinstance(found, tuple)
    line = text[: text.index("\0")].count("\n") + 1
    assert str(found[0]) == f"c.ics:{line}:1: the calendar holds a NUL character; take it out"
