"""The reference schedulers of `trace`, by name: same requests, same early ends, same closings, never re-placed."""

from collections.abc import Callable, Mapping, Sequence

from benchmarks import aligned, aligned_conservative, fungible
from benchmarks.traces import Schedule, TraceRequest


def _conservative_exact(requests: Sequence[TraceRequest], hosts: int) -> Schedule:
    """Run the reference for people who ask for exactly what they need."""
    exact = [
        TraceRequest(
            number=request.number,
            submit_at=request.submit_at,
            gpus=request.gpus,
            run_s=request.run_s,
            asked_s=request.run_s,
        )
        for request in requests
    ]
    return fungible.conservative(exact, hosts)


CONSERVATIVE, EASY = "conservative", "easy"
REFERENCES: Mapping[str, Callable[[Sequence[TraceRequest], int], Schedule]] = {
    CONSERVATIVE: fungible.conservative,
    "conservative_replanned": fungible.conservative_replanned,
    "conservative_exact": _conservative_exact,
    EASY: fungible.easy,
    "aligned_fcfs": aligned.fcfs,
    "aligned_easy": aligned.easy,
    "aligned_conservative": aligned_conservative.conservative,
}
"""Each takes requests, sorted and numbered from 0, in open time, and a number of hosts of 16 GPUs."""
