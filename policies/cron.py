"""Cron expressions of policies: five fields, weekdays by name only, and the wall-clock times they name.

Weekday numbers are refused because 0, 1 and 7 are different days in different tools. Zones and instants are not this
module's matter: `occurrences` maps wall-clock times to UTC.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from cronsim import CronSim, CronSimError

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELD_NAMES = ("minute", "hour", "day of the month", "month")
_FIELD_RANGES = ("0-59", "0-23", "1-31", "1-12 or jan-dec")
_LONGEST = 200
# Any instant does: only the fields are read. A leap year, so that 29 feb is a day.
_ANY_TIME = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """A checked cron expression."""

    text: str
    """As written."""
    canonical: str
    """With the days of the week listed one by one, which the evaluator needs for ranges such as `sat-sun`."""

    @property
    def joins_days(self) -> bool:
        """Whether both the day of the month and the weekday are restricted: cron then takes either."""
        _, _, day, _, weekday = self.canonical.split()
        return not day.startswith("*") and not weekday.startswith("*")

    def local_times(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Yield the wall-clock times after a wall-clock time and before another one."""
        fields = CronSim(self.canonical, _ANY_TIME)
        # Its own search walks hour by hour; asking it day by day is thirty times as fast.
        clock_times = [time(hour, minute) for hour in sorted(fields.hours) for minute in sorted(fields.minutes)]
        first, last = after.toordinal(), until.toordinal()
        for number in range(first, last + 1):
            day = date.fromordinal(number)
            if day.month not in fields.months or not fields.match_day(day):
                continue
            is_inside = first < number < last
            for clock_time in clock_times:
                local = datetime.combine(day, clock_time)
                if is_inside or after < local < until:
                    yield local


@dataclass(frozen=True, slots=True, kw_only=True)
class BadCron:
    """Why a text is not a cron expression that a policy may have."""

    what: str
    instead: str


def parse_cron(text: str) -> Cron | BadCron:
    """Check a cron expression; what is wrong with it otherwise."""
    fields = text.lower().split()
    if len(text) > _LONGEST:
        return BadCron(what=f"a cron expression of more than {_LONGEST} characters", instead="split the entry")
    if len(fields) != 5:
        return BadCron(
            what=f"a cron expression has 5 fields, this has {len(fields)}",
            instead='write "minute hour day-of-month month weekday", for instance "0 20 * * mon-fri"',
        )
    for position, (name, allowed) in enumerate(zip(_FIELD_NAMES, _FIELD_RANGES, strict=True)):
        if not _is_field(position, fields[position]):
            return BadCron(
                what=f"the {name} of a cron expression is wrong", instead=f"use {allowed}, lists, ranges, steps"
            )
    weekday = _weekdays(fields[4])
    if isinstance(weekday, BadCron):
        return weekday
    canonical = " ".join((*fields[:4], weekday))
    try:
        CronSim(canonical, _ANY_TIME)
    except CronSimError:
        return BadCron(what="no month of this cron expression has such a day", instead="choose a day that exists")
    return Cron(text=text, canonical=canonical)


def parse_weekdays(text: str) -> frozenset[int] | BadCron:
    """Return the weekdays of `mon-fri` or `sat,sun`, Monday being 0; what is wrong with it otherwise."""
    found = _weekdays("".join(text.lower().split())) if len(text) <= _LONGEST else _weekdays("")
    if isinstance(found, BadCron):
        return found
    if found == "*":
        return frozenset(range(7))
    if "#" in found:
        return BadCron(
            what="weekdays of a month cannot be given here", instead="use mon, tue, … sun, ranges as mon-fri"
        )
    return frozenset((_DAYS.index(day) - 1) % 7 for day in found.split(","))


def _is_field(position: int, field: str) -> bool:
    alone = ["*"] * 5
    alone[position] = field
    try:
        CronSim(" ".join(alone), _ANY_TIME)
    except CronSimError:
        return False
    return True


def _weekdays(field: str) -> str | BadCron:
    """Return the weekday field with ranges written out; they may run over the end of the week, as `sat-mon`."""
    if field == "*":
        return field
    days: list[str] = []
    for term in field.split(","):
        if any(character.isdigit() for character in term.partition("#")[0]):
            return BadCron(what="weekday numbers mean different days in different tools", instead=_named(field))
        first, dash, last = term.partition("-")
        day, hash_, nth = term.partition("#")
        if dash and first in _DAYS and last in _DAYS:
            start = _DAYS.index(first)
            length = (_DAYS.index(last) - start) % 7 + 1
            days.extend(_DAYS[(start + step) % 7] for step in range(length))
        elif term in _DAYS or (hash_ and day in _DAYS and nth in ("1", "2", "3", "4", "5")):
            days.append(term)
        else:
            guess = f"; did you mean {term[:3]}?" if term[:3] in _DAYS else ""
            return BadCron(
                what=f"the weekday {term[:20]!r} is unknown",
                instead=f"use names: mon, tue, … sun, ranges as mon-fri, the first one in a month as mon#1{guess}",
            )
    return ",".join(dict.fromkeys(days))


def _named(field: str) -> str:
    """Say which names to write, by crontab's own numbering."""
    names = list(field)
    for place, character in enumerate(names):
        is_alone = not "".join(field[max(0, place - 1) : place] + field[place + 1 : place + 2]).isdigit()
        if is_alone and character in "01234567" and field[max(0, place - 1) : place] not in ("#", "/"):
            names[place] = _DAYS[int(character) % 7]
    named = "".join(names)
    if named == field or isinstance(_weekdays(named), BadCron):
        return "write names: mon, tue, wed, thu, fri, sat, sun"
    return f"write {named} (if you mean crontab's days, where 0 and 7 are sun)"
