"""What the students of the demonstration will ask for: recorded demand, and what the recording lacks, by seed."""

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from cli.recorded import Arrival, arrivals, busiest, read_trace, wide_arrivals
from scheduler.core.spans import DAY_S, HOUR_S, Instant

STRETCH_S = 2 * DAY_S
CAP_S = 10 * HOUR_S
WIDE_SIZES = (8, 8, 8, 16, 16)
"""What the trace lacks: half a machine for tenants, and batch work for the night."""
LARGEST = 8
TRACE = "Microsoft Philly trace (virtual cluster 103959)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Two days of asking."""

    first_at: Instant
    until_at: Instant
    arrivals: tuple[Arrival, ...]
    recorded: int
    """So many are from the trace."""
    capped: int
    """So many of those ran longer than the cap."""
    wide: int
    """So many were added by seed."""


def two_days(*, seed: int, zone: ZoneInfo) -> Demand:
    """Return the busiest two days of the trace that ships, from a Monday at ten in the morning."""
    first_at = int(datetime(2026, 3, 2, 10, tzinfo=zone).timestamp())
    jobs = busiest(read_trace(), STRETCH_S)
    recorded = arrivals(jobs, start_at=first_at, length_s=STRETCH_S, cap_s=CAP_S, largest=LARGEST, seed=seed)
    wide = wide_arrivals(start_at=first_at, length_s=STRETCH_S, sizes=WIDE_SIZES, seed=seed)
    return Demand(
        first_at=first_at,
        until_at=first_at + STRETCH_S,
        arrivals=tuple(sorted((*recorded, *wide), key=lambda a: (a.at, a.gpus, a.owner))),
        recorded=len(recorded),
        capped=sum(1 for job in jobs if job.duration_s > CAP_S),
        wide=len(wide),
    )
