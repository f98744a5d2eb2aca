"""The clock on the wall of a policy's zone: its days, its weeks, and hours of the day.

The core knows no zones. What it is told are *shifts*: from when on the clock is how many seconds ahead of UTC. Where
the clock jumps, the rule of policies holds: the hour that does not exist begins at its first existing instant, the hour
that comes twice at the first. Days are counted from 1970-01-01.
"""

from bisect import bisect_right
from functools import lru_cache

from scheduler.core.rules import ClockHours
from scheduler.core.spans import DAY_S, FOREVER, MINUTE_S, Instant, Span

Shifts = tuple[tuple[Instant, int], ...]
"""From when on, and how many seconds ahead of UTC, in order. The first holds before, too; empty is UTC."""

WEEK_DAYS = 7
_FIRST_WEEKDAY = 3
"""1970-01-01 was a Thursday; Monday is 0."""
_WIDEST_JUMP_S = 26 * 3600


def day_of(shifts: Shifts, at: Instant) -> int:
    """Return the number of the day that the clock shows at an instant."""
    number = max(0, bisect_right(shifts, (at, FOREVER)) - 1)
    return (at + (shifts[number][1] if shifts else 0)) // DAY_S


def weekday_of(day: int) -> int:
    """Return the weekday of a day; Monday is 0."""
    return (day + _FIRST_WEEKDAY) % WEEK_DAYS


def day_at(shifts: Shifts, day: int, minute: int = 0) -> Instant:
    """Return when a minute of a day begins."""
    local_s = day * DAY_S + minute * MINUTE_S
    number = max(0, bisect_right(shifts, (local_s - _WIDEST_JUMP_S, FOREVER)) - 1)
    for shift in range(number, len(shifts)):
        from_at, ahead_s = shifts[shift]
        until_at = shifts[shift + 1][0] if shift + 1 < len(shifts) else FOREVER
        at = local_s - ahead_s if shift == 0 else max(local_s - ahead_s, from_at)
        if at < until_at:
            return at
    return local_s


def next_day_at(shifts: Shifts, at: Instant) -> Instant:
    """Return when the day after the one of an instant begins."""
    return day_at(shifts, day_of(shifts, at) + 1)


def week_of(shifts: Shifts, at: Instant) -> Span:
    """Return the week, Monday to Sunday, in which an instant lies."""
    day = day_of(shifts, at)
    monday = day - weekday_of(day)
    return Span(start_at=day_at(shifts, monday), end_at=day_at(shifts, monday + WEEK_DAYS))


@lru_cache(maxsize=512)
def stretches_of(shifts: Shifts, hours: ClockHours, first_day: int, last_day: int) -> tuple[Span, ...]:
    """Return when hours of the day hold that begin on these days, in order."""
    found = []
    for day in range(first_day, last_day + 1):
        if weekday_of(day) not in hours.weekdays:
            continue
        last = day if hours.until_minute > hours.from_minute else day + 1
        start_at, end_at = day_at(shifts, day, hours.from_minute), day_at(shifts, last, hours.until_minute)
        # Of hours that the clock jumps over whole, nothing is left.
        if start_at < end_at:
            found.append(Span(start_at=start_at, end_at=end_at))
    return tuple(found)
