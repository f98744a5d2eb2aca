"""Our run of a trace beside the references: what is written down of it, and the table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.table import Table

from benchmarks.references import CONSERVATIVE, EASY
from benchmarks.trace_figures import Waits, error_h, load, over, rounded, utilisation, waits
from benchmarks.traces import SIZES, Asked, OpenClock, Schedule, in_open_time, in_wall_time

WIDE = "8"
"""GPUs of the requests that fragmentation hits first."""
_NONE = "–"


class OurRun(Protocol):
    """What a run of the planner came to; instants are open time."""

    @property
    def schedule(self) -> Schedule: ...
    @property
    def likely_at(self) -> list[int]: ...
    @property
    def promises_kept(self) -> int: ...
    @property
    def loose_promises(self) -> int: ...
    @property
    def seconds(self) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that was measured. A ratio is None without its reference, and where that one waits for nothing."""

    promises: int
    promises_kept: int
    loose_promises: int
    dropped: int
    load: float | None
    utilisation: float | None
    ours: Waits
    likely_error_h: float
    promise_error_h: float | None
    by_reference: Mapping[str, Waits]
    seconds: float

    @property
    def ratio(self) -> float | None:
        return self._over(CONSERVATIVE, lambda one: one.gpu_weighted_wait_h)

    @property
    def told_ratio(self) -> float | None:
        return self._over(CONSERVATIVE, lambda one: one.told_h)

    @property
    def wide_ratio(self) -> float | None:
        """The wait of 8-GPU requests over that in fungible EASY."""
        return self._over(EASY, lambda one: one.wait_h_by_size.get(WIDE))

    def _over(self, name: str, figure: "_Figure") -> float | None:
        reference = self.by_reference.get(name)
        return None if reference is None else over(figure(self.ours), figure(reference))

    def figures(self) -> dict[str, object]:
        """Return what is written to a file; hours and ratios to four digits."""
        return {
            "requests": self.promises + self.dropped,
            "dropped": self.dropped,
            "load": rounded(self.load),
            "promises": self.promises,
            "promises_kept": self.promises_kept,
            "loose_promises": self.loose_promises,
            **self.ours.figures(),
            "likely_error_h": rounded(self.likely_error_h),
            "promise_error_h": rounded(self.promise_error_h),
            "utilisation": rounded(self.utilisation),
            "reference": {name: one.figures() for name, one in self.by_reference.items()},
            "ratio": rounded(self.ratio),
            "told_ratio": rounded(self.told_ratio),
            "seconds": rounded(self.seconds),
        }


class _Figure(Protocol):
    def __call__(self, one: Waits, /) -> float | None: ...


def make_report(
    asked: Asked, ours: OurRun, references: Mapping[str, Schedule], *, hosts: int, clock: OpenClock
) -> Report:
    """Measure schedules, made in open time, for requests in wall time."""
    requests, open_requests = asked.requests, in_open_time(asked.requests, clock)
    schedule = in_wall_time(ours.schedule, clock)
    told_at = schedule.told_at
    likely_at = [clock.start_to_wall(at) for at in ours.likely_at]
    return Report(
        promises=len(requests),
        promises_kept=ours.promises_kept,
        loose_promises=ours.loose_promises,
        dropped=asked.dropped,
        load=load(open_requests, hosts),
        utilisation=utilisation(open_requests, ours.schedule.start_at, hosts),
        ours=waits(requests, schedule),
        likely_error_h=error_h(requests, schedule.start_at, likely_at),
        promise_error_h=None if told_at is None else error_h(requests, schedule.start_at, told_at),
        by_reference={name: waits(requests, in_wall_time(one, clock)) for name, one in references.items()},
        seconds=ours.seconds,
    )


def show(report: Report) -> None:
    """Print the tables."""
    out = Console()
    reference = report.by_reference.get(CONSERVATIVE)
    how_long = Table(
        "scheduler", "weighted", "ratio", "told", "ratio", "p99", "max", title="GPU-weighted wait and as told, h"
    )
    by_size = Table("scheduler", "mean", *(f"{size} GPU" for size in SIZES), title="Mean wait by size, h")
    for name, one in (("ours", report.ours), *report.by_reference.items()):
        ratio = None if reference is None else over(one.gpu_weighted_wait_h, reference.gpu_weighted_wait_h)
        told_ratio = None if reference is None else over(one.told_h, reference.told_h)
        shown = name.replace("_", " ")
        how_long.add_row(
            shown,
            text(one.gpu_weighted_wait_h),
            text(ratio, 3),
            text(one.told_h),
            text(told_ratio, 3),
            text(one.p99_h),
            text(one.max_h),
        )
        by_size.add_row(shown, text(one.mean_wait_h), *(text(one.wait_h_by_size.get(str(size))) for size in SIZES))
    out.print(how_long, by_size)
    facts = Table("what", "figure")
    facts.add_row("requests; dropped, larger than a host", f"{report.promises + report.dropped}; {report.dropped}")
    facts.add_row("promises kept", f"{report.promises_kept} of {report.promises}")
    facts.add_row("promises later than the earliest fit and the slack", str(report.loose_promises))
    facts.add_row("load; utilisation until the last end", f"{text(report.load, 3)}; {text(report.utilisation, 3)}")
    facts.add_row(
        "error of likely; of the promise, h (those who wait)",
        f"{text(report.likely_error_h)}; {text(report.promise_error_h)}",
    )
    facts.add_row("8-GPU wait over that in fungible EASY", text(report.wide_ratio, 3))
    facts.add_row("our run, s", text(report.seconds))
    out.print(facts)


def text(value: float | None, digits: int = 2) -> str:
    """Return a figure as tables show it."""
    return _NONE if value is None else f"{value:.{digits}f}"
