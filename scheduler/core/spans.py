"""Instants and half-open spans of time.

An instant is an int: whole seconds since 1970-01-01 UTC. Whole seconds make spans compare, store and replay exactly.
Holds no clock and no zones: `now` is always an argument, zones belong to `policies` and to the edges.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

Instant: TypeAlias = int
"""Whole seconds since 1970-01-01 UTC."""

FOREVER: Instant = 1 << 52
"""Later than any instant that can be booked; still exact in a float and in JSON."""

MINUTE_S = 60
HOUR_S = 3600
DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Span:
    """A stretch of time `[start_at, end_at)` in UTC; never empty."""

    start_at: Instant
    end_at: Instant

    def __post_init__(self) -> None:
        if self.end_at <= self.start_at:
            raise ValueError(f"a span must end after it starts: [{self.start_at}, {self.end_at})")

    @property
    def length_s(self) -> int:
        return self.end_at - self.start_at

    def overlaps(self, other: "Span") -> bool:
        return self.start_at < other.end_at and other.start_at < self.end_at

    def covers(self, instant: Instant) -> bool:
        return self.start_at <= instant < self.end_at


def utc_text(instant: Instant) -> str:
    """Write an instant as `2026-03-02 20:00:00Z`; the one form used in logs and events.

    What no calendar has is written as its number: an explanation of a bad value must not fail on it.
    """
    if not 0 <= instant < 253_402_300_800:
        return f"{instant} s"
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
