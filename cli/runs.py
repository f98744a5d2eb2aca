"""What ran on a host, by its rack's log alone: who held which GPUs when, and when a guest was up.

Shared by whoever judges, counts or draws a log. Holds no judgement: what is wrong with a log is for `auditor`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from uuid import UUID

from scheduler.core.requests import ReservationId
from scheduler.core.spans import Instant, Span
from workers.drivers.simulated.log import LogLine

BEGINS = frozenset({"vm.starting", "vm.foreign"})
"""Lines from which on a domain holds its GPUs."""
ENDS = frozenset({"vm.off", "vm.vanished", "vm.undefined"})
"""Lines from which on it holds none; one that is off already may still be undefined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One stretch in which a domain held GPUs."""

    domain: UUID
    reservation: ReservationId | None
    """None for a domain that Nightshift did not make."""
    generation: int | None
    partition: str
    gpus: tuple[int, ...]
    disk: str | None
    held_at: Instant
    up_at: Instant | None = None
    """The guest was up."""
    down_at: Instant | None = None
    """The guest was up no more."""
    stop_asked_at: Instant | None = None
    free_at: Instant | None = None
    """The GPUs were let go; None: at the end of the log they are still held."""
    how: str = ""
    """Why it went off, as the host has it."""

    @property
    def changing(self) -> Iterator[Span]:
        """The stretches in which it was being started or stopped."""
        for start_at, end_at in ((self.held_at, self.up_at), (self.stop_asked_at or self.down_at, self.free_at)):
            if start_at is not None and end_at is not None and end_at > start_at:
                yield Span(start_at=start_at, end_at=end_at)

    def up_s(self, from_at: Instant, until_at: Instant) -> int:
        """Return how long the guest was up in `[from_at, until_at)`."""
        if self.up_at is None:
            return 0
        down_at = until_at if self.down_at is None else min(self.down_at, until_at)
        return max(0, down_at - max(self.up_at, from_at))


def read_runs(log: Iterable[LogLine]) -> tuple[Run, ...]:
    """Read a log into runs, by when they began."""
    open_by_domain: dict[UUID, Run] = {}
    done: list[Run] = []
    for line in log:
        if line.domain is None:
            continue
        run = open_by_domain.get(line.domain)
        if line.what in BEGINS or (line.what == "vm.stuck" and run is None):
            if run is not None:
                # The log has it start a second time without an end: both are kept, and judged elsewhere.
                done.append(run)
            open_by_domain[line.domain] = _begun(line)
        elif run is None:
            continue
        elif line.what in ENDS:
            del open_by_domain[line.domain]
            how = str(line.fact("reason") or line.what)
            down_at = line.at if run.up_at is not None and run.down_at is None else run.down_at
            done.append(replace(run, down_at=down_at, free_at=line.at, how=how))
        else:
            open_by_domain[line.domain] = _moved_on(run, line)
    return tuple(sorted((*done, *open_by_domain.values()), key=lambda run: (run.held_at, str(run.domain))))


def _begun(line: LogLine) -> Run:
    assert line.domain is not None
    disk = line.fact("disk")
    return Run(
        domain=line.domain,
        reservation=line.reservation,
        generation=line.generation,
        partition=str(line.partition or ""),
        gpus=line.gpus,
        disk=None if disk is None else str(disk),
        held_at=line.at,
    )


def _moved_on(run: Run, line: LogLine) -> Run:
    match line.what:
        case "guest.up":
            return replace(run, up_at=line.at)
        case "guest.down":
            return replace(run, down_at=line.at)
        case "vm.shutdown_asked" | "vm.destroy_asked" if run.stop_asked_at is None:
            return replace(run, stop_asked_at=line.at)
        case _:
            return run
