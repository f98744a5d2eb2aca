"""When the wall-clock times of a policy are, in UTC. The one place in the product that turns one into the other.

    the hour that does not exist   its first existing instant
    the hour that comes twice      once, at the first

Both the starts and the ends of windows follow it: a window of 12 h that opens at 20:00 closes at 08:00 in the morning,
also in the two nights a year that have 11 or 13 hours. One entry occurs at most once at one instant: of several
wall-clock times that fall together where the clock jumps, the latest names the occurrence.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from policies.cron import Cron
from scheduler.core.spans import Instant

_WIDEST_JUMP = timedelta(hours=26)
"""The clock was never set forward by more than a day (Samoa, 2011)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence:
    """One time that a cron expression names: `local` is wall-clock and names it, `at` is when that is."""

    local: datetime
    at: Instant

    @property
    def local_text(self) -> str:
        """`2026-03-02T20:00`: the part of keys that is the same for every ticker."""
        return self.local.strftime("%Y-%m-%dT%H:%M")


def instant_of(local: datetime, zone: ZoneInfo) -> Instant:
    """Map a wall-clock time to UTC by the rule above."""
    before = local.replace(tzinfo=zone, fold=0)
    at = _instant(before)
    # Python reads a time in a gap with the offset from before the jump, fold 1 with the one after it.
    earliest = _instant(local.replace(tzinfo=zone, fold=1))
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


def local_of(instant: Instant, zone: ZoneInfo) -> datetime:
    """Return what the wall clock shows at an instant."""
    return datetime.fromtimestamp(instant, zone).replace(tzinfo=None, fold=0)


def occurrences(cron: Cron, zone: ZoneInfo, *, from_at: Instant, until_at: Instant) -> Iterator[Occurrence]:
    """Yield what a cron expression names in `[from_at, until_at)`, in order."""
    waiting: Occurrence | None = None
    for local in cron.local_times(local_of(from_at, zone) - _WIDEST_JUMP):
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


def _instant(aware: datetime) -> Instant:
    return int(aware.astimezone(UTC).timestamp())
