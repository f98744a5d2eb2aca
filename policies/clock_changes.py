"""When the clock on the wall of a zone is changed: the days that have 23, 25 or another number of hours."""

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from policies.occurrences import local_of
from scheduler.core.spans import DAY_S, Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockChange:
    """The clock shows `from_local` at one instant, and `to_local` instead."""

    at: Instant
    from_local: datetime
    to_local: datetime

    @property
    def shift_s(self) -> int:
        """By how much the clock is set forward; negative: back."""
        return int((self.to_local - self.from_local).total_seconds())


def clock_changes(zone: ZoneInfo, *, from_at: Instant, until_at: Instant) -> tuple[ClockChange, ...]:
    """Return the changes in `[from_at, until_at)`, by time. Two within one day that undo each other are not seen."""
    changes = []
    for start_at in range(from_at, until_at, DAY_S):
        low, high = start_at - 1, min(start_at + DAY_S, until_at) - 1
        before = _offset_s(low, zone)
        if _offset_s(high, zone) == before:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _offset_s(middle, zone) == before else (low, middle)
        shown = local_of(high, zone)
        was = datetime.fromtimestamp(high + before, UTC).replace(tzinfo=None)
        changes.append(ClockChange(at=high, from_local=was, to_local=shown))
    return tuple(changes)


def _offset_s(instant: Instant, zone: ZoneInfo) -> int:
    offset = datetime.fromtimestamp(instant, zone).utcoffset()
    assert offset is not None
    return int(offset.total_seconds())
