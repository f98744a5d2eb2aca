"""When the clock of a zone is set forward or back: what limits that go by it need to know without a zone database."""

from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from scheduler.core.spans import DAY_S, Instant
from scheduler.core.wall_clock import Shifts

_FIRST_AT = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp())
_LAST_AT = int(datetime(2101, 1, 1, tzinfo=UTC).timestamp())
"""Policies know no later dates."""
_STEP_S = 7 * DAY_S
"""No zone has ever set its clock forward and back within a week."""


@lru_cache(maxsize=64)
def shifts_of(zone: str) -> Shifts:
    """Return from when on the clock of a zone is how many seconds ahead of UTC."""
    known = ZoneInfo(zone)
    shifts = [(_FIRST_AT, _ahead_s(known, _FIRST_AT))]
    for at in range(_FIRST_AT, _LAST_AT, _STEP_S):
        if _ahead_s(known, at + _STEP_S) != shifts[-1][1]:
            shifts.append(_shift_within(known, at, at + _STEP_S))
    return tuple(shifts)


def _shift_within(zone: ZoneInfo, low: Instant, high: Instant) -> tuple[Instant, int]:
    """Return the shift after `low` and up to `high`."""
    after_s = _ahead_s(zone, high)
    while high - low > 1:
        middle = (low + high) // 2
        if _ahead_s(zone, middle) == after_s:
            high = middle
        else:
            low = middle
    return high, after_s


def _ahead_s(zone: ZoneInfo, at: Instant) -> int:
    offset = datetime.fromtimestamp(at, zone).utcoffset()
    assert offset is not None
    return int(offset.total_seconds())
