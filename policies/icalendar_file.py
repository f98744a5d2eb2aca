"""Reads an iCalendar file of closed days: all-day events, single or every year. Every problem has its event's line.

Anything else that iCalendar can say (other repetitions, events with a time) is refused with its line, rather than
understood by half. Never raises.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from policies.holiday_days import DateRange, YearlyDays
from policies.problems import Place, Problem, shown

MOST_BYTES = 256 * 1024
MOST_EVENTS = 1000
_LONGEST_DAYS = 366
_BEGIN_EVENT = "BEGIN:VEVENT"
_NOT_UNDERSTOOD = ("RDATE", "EXDATE", "EXRULE", "RECURRENCE-ID")
_RULE_PARTS = {"FREQ", "INTERVAL", "UNTIL", "COUNT", "WKST"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarDays:
    """The days of a calendar file."""

    listed: tuple[DateRange, ...]
    yearly: tuple[YearlyDays, ...]


def read_calendar(text: str, *, source: str) -> CalendarDays | tuple[Problem, ...]:
    """Return the days that a calendar lists, or all that is wrong with it."""
    start = Place(file=source, line=1, column=1)
    begins = _lines_of_events(text) if len(text) <= MOST_BYTES else []
    if len(text.encode(errors="replace")) > MOST_BYTES or len(begins) > MOST_EVENTS:
        what = f"the calendar has more than {MOST_BYTES // 1024} KiB or {MOST_EVENTS} events"
        return (Problem(place=start, what=what, instead="keep only the days on which the house is closed"),)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        what = "the calendar holds a NUL character"
        return (Problem(place=Place(file=source, line=line, column=1), what=what, instead="take it out"),)
    try:
        events = _events(text)
    except Exception as error:  # The library raises many kinds of errors on malformed files.
        what = "this is not an iCalendar file"
        return (Problem(place=start, what=what, value=str(error)[:60] or None, instead="export it anew"),)
    problems: list[Problem] = []
    listed: list[DateRange] = []
    yearly: list[YearlyDays] = []
    for number, event in enumerate(events):
        place = Place(file=source, line=begins[number] if number < len(begins) else 1, column=1)
        try:
            days = _days_of(event)
        except _NotUnderstood as error:
            problems.append(Problem(place=place, what=error.what, value=error.value, instead=error.instead))
            continue
        except Exception as error:  # As above: values are only read when they are asked for.
            what = f"an event that cannot be read ({type(error).__name__})"
            problems.append(Problem(place=place, what=what, instead="write it anew, or remove it"))
            continue
        match days:
            case DateRange():
                listed.append(days)
            case YearlyDays():
                yearly.append(days)
            case None:
                pass
    return tuple(problems) if problems else CalendarDays(listed=tuple(listed), yearly=tuple(yearly))


class _NotUnderstood(Exception):
    def __init__(self, what: str, value: str | None, instead: str) -> None:
        super().__init__(what)
        self.what, self.value, self.instead = what, value, instead


def _lines_of_events(text: str) -> list[int]:
    lines = text.splitlines()
    return [number for number, line in enumerate(lines, start=1) if line.strip().upper() == _BEGIN_EVENT]


def _events(text: str) -> list[Any]:
    import icalendar

    calendar = icalendar.Calendar.from_ical(text)
    if calendar.name != "VCALENDAR":
        raise ValueError("no BEGIN:VCALENDAR")
    return list(calendar.walk("VEVENT"))


def _days_of(event: Any) -> DateRange | YearlyDays | None:
    """Return the days of an event; None if it was called off."""
    if str(event.get("STATUS", "")).upper() == "CANCELLED":
        return None
    named = f"event {shown(str(event.get('SUMMARY', '')))}"
    for key in _NOT_UNDERSTOOD:
        if key in event:
            raise _NotUnderstood(
                f"{named} has a repetition that is not understood", key, "write its days out one by one"
            )
    first = _day(event, "DTSTART", named)
    if first is None:
        raise _NotUnderstood(f"{named} has no first day", None, "add DTSTART;VALUE=DATE:20261224")
    end = _day(event, "DTEND", named)
    if end is None:
        length = event.decoded("DURATION", timedelta(days=1))
        end = first + length
    days = (end - first).days
    if not 1 <= days <= _LONGEST_DAYS:
        raise _NotUnderstood(
            f"{named} lasts {days} days", None, f"use 1 to {_LONGEST_DAYS}; DTEND is the day after the last"
        )
    dates = DateRange(first=first, last=end - timedelta(days=1))
    return dates if "RRULE" not in event else _yearly(event["RRULE"], dates, named)


def _day(event: Any, key: str, named: str) -> date | None:
    if key not in event:
        return None
    value = event.decoded(key)
    if isinstance(value, datetime) or not isinstance(value, date):
        raise _NotUnderstood(f"{named} is not about whole days", str(value), f"write {key};VALUE=DATE:20261224")
    return value


def _yearly(rule: Any, dates: DateRange, named: str) -> YearlyDays:
    parts = {} if isinstance(rule, list) else {str(key).upper(): list(values) for key, values in rule.items()}
    if parts.get("FREQ") != ["YEARLY"] or not set(parts) <= _RULE_PARTS:
        value = str(rule.to_ical(), "utf-8") if hasattr(rule, "to_ical") else None
        raise _NotUnderstood(
            f"{named} has a repetition that is not understood", value, "use FREQ=YEARLY, or write its days out"
        )
    every = int(parts.get("INTERVAL", [1])[0])
    last_year: int | None = None
    if "COUNT" in parts:
        last_year = dates.first.year + every * (int(parts["COUNT"][0]) - 1)
    elif "UNTIL" in parts:
        until = parts["UNTIL"][0]
        last_day = until.date() if isinstance(until, datetime) else until
        last_year = last_day.year - ((last_day.month, last_day.day) < (dates.first.month, dates.first.day))
    if every < 1:
        raise _NotUnderstood(f"{named} comes every {every} years", None, "use INTERVAL=1 or more")
    return YearlyDays(first=dates, every_years=every, last_year=last_year)
