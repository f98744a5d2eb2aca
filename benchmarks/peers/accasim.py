"""AccaSim, a simulator of schedulers in Python: EASY backfilling with best fit, on nodes of 16 cores without blocks.

It is measured in an interpreter of its own, which holds numpy and matplotlib and nothing of ours.
"""

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from benchmarks.peers import accasim_child, child, venv
from benchmarks.peers.peer import GPUS, NotHere, PeerPlan
from benchmarks.workload import Batch

PACKAGE = "accasim==1.1.3"


class Request(Protocol):
    """What of a trace's request is simulated."""

    @property
    def submit_at(self) -> int: ...

    @property
    def gpus(self) -> int: ...

    @property
    def run_s(self) -> int: ...

    @property
    def asked_s(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Simulated:
    seconds: float
    cpu_s: float
    starts: tuple[int, ...]


def run_trace(requests: Sequence[Request], hosts: int) -> tuple[float, tuple[int, ...]]:
    """Return the seconds that the simulation took, and the wait of each request in seconds of the trace."""
    jobs = [(one.submit_at, one.gpus, one.run_s, one.asked_s) for one in requests]
    if not jobs:
        return 0.0, ()
    found = _simulate(jobs, hosts)
    return found.seconds, tuple(start - job[0] for start, job in zip(found.starts, jobs, strict=True))


def plan(batch: Batch) -> PeerPlan:
    """Simulate a batch to its end: EASY keeps no plan, so what is told is when each would have started."""
    if batch.reservations:
        raise NotHere("AccaSim knows no advance reservations: run it with --reservations 0, or take --peer slurm")
    running = [(0, GPUS, until_s, until_s) for _, until_s in batch.occupied]
    found = _simulate([*running, *((0, gpus, run_s, run_s) for gpus, run_s in batch.requests)], batch.hosts)
    return PeerPlan(
        seconds=found.seconds,
        cpu_s=found.cpu_s,
        planned=len(batch.requests),
        starts=found.starts[len(running) :],
    )


def interpreter() -> Path:
    """Return an interpreter that has AccaSim: this one, or that of the venv which `install` makes."""
    if _is_beside_us():
        return Path(sys.executable)
    own = venv.find("accasim")
    if own is None:
        raise NotHere(f"AccaSim is not here: pip install {PACKAGE}, or add --install, which gives it a venv of its own")
    return own


def install() -> None:
    """Make a venv with AccaSim, unless it is here. May be called twice."""
    if not _is_beside_us():
        venv.make("accasim", (PACKAGE,))


def _is_beside_us() -> bool:
    return importlib.util.find_spec("accasim") is not None


def _simulate(jobs: Sequence[tuple[int, int, int, int]], hosts: int) -> _Simulated:
    too_large = next((gpus for _, gpus, _, _ in jobs if gpus > GPUS), None)
    if too_large is not None:
        raise NotHere(f"a request for {too_large} GPUs fits on no host of {GPUS}: leave it out")
    answer = child.ask("AccaSim", interpreter(), accasim_child.__file__, {"hosts": hosts, "jobs": jobs})
    return _Simulated(
        seconds=cast("float", answer["seconds"]),
        cpu_s=cast("float", answer["cpu_s"]),
        starts=tuple(cast("list[int]", answer["starts"])),
    )
