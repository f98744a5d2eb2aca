"""What a schedule of a trace came to: waits, told and real, and how full the hosts were. Values only."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.traces import HOST_GPUS, HOUR_S, SIZES, Schedule, TraceRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """From submission to start, in hours; all 0 or more."""

    gpu_weighted_wait_h: float
    """Each GPU that is asked for waits once."""
    mean_wait_h: float
    wait_h_by_size: dict[str, float]
    """Means, of the sizes that were asked for."""
    p99_h: float
    """The shortest wait that at least 99 in 100 do not exceed."""
    max_h: float
    told_h: float | None
    """The mean of what was told at submission; None where nothing is."""

    def figures(self) -> dict[str, object]:
        """Return what is written down of a schedule."""
        return {
            "gpu_weighted_wait_h": rounded(self.gpu_weighted_wait_h),
            "told_h": rounded(self.told_h),
            "p99_h": rounded(self.p99_h),
            "max_h": rounded(self.max_h),
            "wait_h_by_size": {size: rounded(wait_h) for size, wait_h in self.wait_h_by_size.items()},
        }


def waits(requests: Sequence[TraceRequest], schedule: Schedule) -> Waits:
    """Measure a schedule; both are in wall time."""
    wait_s = [schedule.start_at[request.number] - request.submit_at for request in requests]
    by_size = {
        str(size): [s for s, request in zip(wait_s, requests, strict=True) if request.gpus == size] for size in SIZES
    }
    asked_gpus = sum(request.gpus for request in requests)
    weighted_s = sum(request.gpus * s for s, request in zip(wait_s, requests, strict=True))
    told_at = schedule.told_at
    return Waits(
        gpu_weighted_wait_h=weighted_s / asked_gpus / HOUR_S,
        mean_wait_h=statistics.fmean(wait_s) / HOUR_S,
        wait_h_by_size={size: statistics.fmean(those) / HOUR_S for size, those in by_size.items() if those},
        p99_h=sorted(wait_s)[math.ceil(0.99 * len(wait_s)) - 1] / HOUR_S,
        max_h=max(wait_s) / HOUR_S,
        told_h=None
        if told_at is None
        else statistics.fmean(told_at[request.number] - request.submit_at for request in requests) / HOUR_S,
    )


def error_h(requests: Sequence[TraceRequest], start_at: Sequence[int], said_at: Sequence[int]) -> float:
    """Return the mean distance between the start that was said and the real one, of those who waited at all."""
    errors_s = [
        abs(said_at[request.number] - start_at[request.number])
        for request in requests
        if start_at[request.number] > request.submit_at
    ]
    return statistics.fmean(errors_s) / HOUR_S if errors_s else 0.0


def utilisation(requests: Sequence[TraceRequest], start_at: Sequence[int], hosts: int) -> float | None:
    """Return what part of all GPUs ran something, from the first submission to the last end; all in open time.

    None if that is no time at all.
    """
    until_at = max(start_at[request.number] + request.run_s for request in requests)
    return _part(requests, hosts, until_at - min(request.submit_at for request in requests))


def load(requests: Sequence[TraceRequest], hosts: int) -> float | None:
    """Return what is run over what all GPUs could run between the first submission and the last; in open time.

    None if all are submitted at one instant.
    """
    submits_at = [request.submit_at for request in requests]
    return _part(requests, hosts, max(submits_at) - min(submits_at))


def _part(requests: Sequence[TraceRequest], hosts: int, span_s: int) -> float | None:
    busy_s = sum(request.gpus * request.run_s for request in requests)
    return busy_s / (hosts * HOST_GPUS * span_s) if span_s else None


def over(ours: float | None, theirs: float | None) -> float | None:
    """Return a ratio, or None where there is none."""
    return ours / theirs if ours is not None and theirs else None


def rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)
