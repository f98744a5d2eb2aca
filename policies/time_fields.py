"""Reads dates, wall-clock times, hours of the day and weekdays of a policy file, as `fields` reads the rest."""

import re
from datetime import date, datetime, timedelta

from policies.cron import BadCron, parse_weekdays
from policies.fields import Fields
from policies.holiday_days import DateRange
from policies.problems import Place
from scheduler.core.rules import ClockHours

_FIRST_YEAR, _LAST_YEAR = 2000, 2100
_MOST_DAYS = 3660
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_LOCAL = re.compile(r"(\d{4}-\d{2}-\d{2})[ T]([0-2]\d:[0-5]\d)", re.ASCII)
_HOURS = re.compile(r"([01]\d|2[0-4]):([0-5]\d) ?- ?([01]\d|2[0-4]):([0-5]\d)", re.ASCII)
_DAY_MINUTES = 24 * 60
_A_DATE = "a date such as 2026-12-24 or 2026-12-24..2027-01-01"
_A_TIME = 'a time such as "2026-12-24 18:00"'


def read_dates(fields: Fields, key: str) -> tuple[DateRange, ...]:
    """Return a list of dates and ranges of dates."""
    found = []
    for place, text in fields.places_and_texts(key, _A_DATE):
        first_text, dots, last_text = text.partition("..")
        first = _date(first_text.strip())
        last = _date(last_text.strip()) if dots else first
        if first is None or last is None:
            fields.note(place, f"{key} is not {_A_DATE}", text, _real(first_text, last_text))
        elif not 0 <= (last - first).days <= _MOST_DAYS:
            fields.note(place, f"{key} ends before it begins, or lasts too long", text, "write the earlier day first")
        else:
            found.append(DateRange(first=first, last=last))
    return tuple(found)


def read_local_times(fields: Fields, key: str) -> tuple[datetime, ...]:
    """Return a list of wall-clock times, in order."""
    found = [read_local(fields, key, place, text) for place, text in fields.places_and_texts(key, _A_TIME)]
    return tuple(sorted({local for local in found if local is not None}))


def read_moment(fields: Fields, key: str, *, is_end: bool) -> datetime | None:
    """Return a wall-clock time, or the edge of a day: a date that ends something belongs to it."""
    given = fields.place_and_text(key, "a date or a time")
    if given is None:
        return None
    place, text = given
    if _DATE.fullmatch(text) and (day := _date(text)) is not None:
        return datetime.combine(day + timedelta(days=1) if is_end else day, datetime.min.time())
    return read_local(fields, key, place, text)


def read_local(fields: Fields, key: str, place: Place, text: str) -> datetime | None:
    match = _LOCAL.fullmatch(text)
    day = _date(match[1]) if match is not None else None
    if match is None or day is None or match[2] >= "24":
        fields.note(place, f"{key} is not {_A_TIME}", text, _real(text[:10], ""))
        return None
    return datetime.fromisoformat(f"{match[1]}T{match[2]}")


def read_hours(fields: Fields) -> ClockHours:
    """Return the `hours` and `days` of an entry."""
    from_minute, until_minute = 0, _DAY_MINUTES
    given = fields.place_and_text("hours", "hours such as 08:00-20:00")
    if given is not None:
        place, text = given
        match = _HOURS.fullmatch(text)
        minutes = (0, 0) if match is None else (_minutes(match[1], match[2]), _minutes(match[3], match[4]))
        if match is None or max(minutes) > _DAY_MINUTES:
            fields.note(place, "hours are not hours of the day", text, "write for instance 08:00-20:00 or 20:00-08:00")
        elif minutes[0] == minutes[1]:
            fields.note(place, "hours begin and end at the same time", text, "write 00:00-24:00 for the whole day")
        else:
            from_minute, until_minute = minutes
    weekdays: frozenset[int] = frozenset(range(7))
    given = fields.place_and_text("days", "weekdays such as mon-fri")
    if given is not None:
        place, text = given
        parsed = parse_weekdays(text)
        if isinstance(parsed, BadCron):
            fields.note(place, f"days: {parsed.what}", text, parsed.instead)
        else:
            weekdays = parsed
    return ClockHours(weekdays=weekdays, from_minute=from_minute, until_minute=until_minute)


def _minutes(hours: str, minutes: str) -> int:
    return int(hours) * 60 + int(minutes)


def _date(text: str) -> date | None:
    if not _DATE.fullmatch(text):
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if _FIRST_YEAR <= day.year <= _LAST_YEAR else None


def _real(*texts: str) -> str:
    if any(_DATE.fullmatch(text.strip()) for text in texts):
        return f"use a day that exists, from {_FIRST_YEAR} to {_LAST_YEAR}, and 00:00 to 23:59"
    return "write the year, the month and the day: 2026-12-24"
