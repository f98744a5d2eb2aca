"""When the wall-clock times of a policy are, in UTC. The one place in the product that turns one into the other.

    the hour that does not exist   its first existing instant
    the hour that comes twice      once, at the first

Both the starts and the ends of windows follow it: a window of 12 h that opens at 20:00 closes at 08:00 in the morning,
also in the two nights a year that have 11 or 13 hours. One entry occurs at most once at one instant: of several
wall-clock times that fall together where the clock jumps, the latest names the occurrence.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S, Instant

_WIDEST_JUMP = timedelta(hours=26)
"""The clock was never set forward by more than a day (Samoa, 2011)."""
_EPOCH_DAY = datetime(1970, 1, 1, tzinfo=UTC).toordinal()
_LAST_DAY = datetime(9999, 12, 30, tzinfo=UTC).toordinal()
_LAST_INSTANT = int(datetime(9998, 1, 1, tzinfo=UTC).timestamp())
"""The calendar of Python ends soon after."""


class Occurrence(NamedTuple):
    """One time that a cron expression names: `local` is wall-clock and names it, `at` is when that is."""

    local: datetime
    at: Instant

    @property
    def local_text(self) -> str:
        """`2026-03-02T20:00`: the part of keys that is the same for every ticker."""
        return self.local.strftime("%Y-%m-%dT%H:%M")


def instant_of(local: datetime, zone: ZoneInfo) -> Instant:
    """Map a wall-clock time to UTC by the rule above."""
    day = local.toordinal()
    offset_s = _steady_offset_s(day, zone)
    if offset_s is not None:
        in_day_s = local.hour * HOUR_S + local.minute * MINUTE_S + local.second
        return (day - _EPOCH_DAY) * DAY_S + in_day_s - offset_s
    at = int(local.replace(tzinfo=zone, fold=0).timestamp())
    # Python reads a time in a gap with the offset from before the jump, fold 1 with the one after it.
    earliest = int(local.replace(tzinfo=zone, fold=1).timestamp())
    if earliest >= at:
        return at
    # In a gap: the jump is the first instant in [earliest, at] at which the wall clock shows `local` or later.
    low, high = earliest, at
    while low < high:
        middle = (low + high) // 2
        if local_of(middle, zone) >= local:
            high = middle
        else:
            low = middle + 1
    return low


@lru_cache(maxsize=8192)
def _steady_offset_s(day: int, zone: ZoneInfo) -> int | None:
    """Return the zone's offset on a day; None if it may change on it or on the day before or after.

    Nearly all days have one, and then no time of theirs is missing or comes twice.
    """
    offsets: set[timedelta | None] = set()
    for number in range(day - 1, day + 2):
        if not 1 <= number <= _LAST_DAY:
            return None
        midnight = datetime.fromordinal(number).replace(tzinfo=zone)
        offsets.update((midnight + timedelta(hours=hour)).utcoffset() for hour in range(24))
    (offset, *others) = offsets
    return None if others or offset is None else int(offset.total_seconds())


def local_of(instant: Instant, zone: ZoneInfo) -> datetime:
    """Return what the wall clock shows at an instant."""
    return datetime.fromtimestamp(instant, zone).replace(tzinfo=None, fold=0)


class LocalTimes(Protocol):
    """Wall-clock times: a cron expression, or what an entry of a policy makes of one."""

    def local_times(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Yield the wall-clock times after a wall-clock time and before another one, in order."""


def occurrences(times: LocalTimes, zone: ZoneInfo, *, from_at: Instant, until_at: Instant) -> Iterator[Occurrence]:
    """Yield what a cron expression names in `[from_at, until_at)`, in order."""
    waiting: Occurrence | None = None
    after = local_of(from_at, zone) - _WIDEST_JUMP
    until = local_of(min(until_at, _LAST_INSTANT), zone) + _WIDEST_JUMP
    for local in times.local_times(after, until):
        at = instant_of(local, zone)
        if at < from_at:
            continue
        if waiting is not None and at > waiting.at:
            yield waiting
        if at >= until_at:
            return
        waiting = Occurrence(local=local, at=at)
    if waiting is not None:
        yield waiting
