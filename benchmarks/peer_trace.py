"""A whole trace through a peer's simulator, and through our planner in the same run.

*accasim* is EASY backfilling with best fit on nodes of 16 cores: no blocks, no promises, nobody is told when. Ours is
the run of `trace`: exact asks, no slack, no nights, no references. `ratio` is the peer's seconds over ours. Requests
for more than 16 GPUs are dropped for both. What is not shown is what either costs with a real clock and a disk.
"""

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

from rich.console import Console
from rich.table import Table

from benchmarks.peers import accasim
from benchmarks.peers.peer import NOT_HERE, NotHere
from benchmarks.plan import calibration_s
from benchmarks.trace_figures import Waits, waits
from benchmarks.traces import BadTrace, OpenClock, Schedule, TraceRequest, asks, load

BAD_INPUT = 2
_OURS = "benchmarks.trace_run"
_NONE = "–"


class _Run(Protocol):
    @property
    def schedule(self) -> Schedule: ...

    @property
    def seconds(self) -> float: ...


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trace", type=Path, required=True, help="the CSV file, gzipped or not")
    parser.add_argument("--hosts", type=int, required=True, help="hosts of 16 GPUs")
    parser.add_argument("--peer", choices=("accasim",), default="accasim", help="whose simulator (%(default)s)")
    parser.add_argument("--times", type=int, default=3, help="so many runs of either, in turn (%(default)s)")
    parser.add_argument("--install", action="store_true", help="install the peer first, by pip into a venv of its own")


def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure both in turn, print the table and return the figures."""
    if arguments.hosts < 1 or arguments.times < 1:
        print("--hosts and --times are whole numbers, 1 or more", file=sys.stderr)
        raise SystemExit(BAD_INPUT)
    try:
        asked = asks(load(arguments.trace))
        if arguments.install:
            accasim.install()
        return _run(asked.requests, asked.dropped, arguments)
    except BadTrace as bad:
        print(bad, file=sys.stderr)
        raise SystemExit(BAD_INPUT) from bad
    except NotHere as missing:
        print(missing, file=sys.stderr)
        raise SystemExit(NOT_HERE) from missing


def _run(requests: Sequence[TraceRequest], dropped: int, arguments: argparse.Namespace) -> dict[str, object]:
    if not requests:
        raise BadTrace(f"{arguments.trace}: all {dropped} requests are larger than a host")
    ours_s: list[float] = []
    theirs_s: list[float] = []
    fixed_s: list[float] = []
    waited: dict[str, Waits] = {}
    for _ in range(arguments.times):
        fixed_s.append(calibration_s())
        seconds, wait_s = accasim.run_trace(requests, arguments.hosts)
        theirs_s.append(seconds)
        started_at = [request.submit_at + wait for request, wait in zip(requests, wait_s, strict=True)]
        waited[arguments.peer] = waits(requests, Schedule(start_at=started_at, told_at=None))
        mine = _ours(requests, arguments.hosts)
        if mine is not None:
            ours_s.append(mine.seconds)
            waited["ours"] = waits(requests, mine.schedule)
    if not ours_s:
        print(f"our own side is not here: no module {_OURS} in this checkout; there is no ratio", file=sys.stderr)
    figures: dict[str, object] = {
        "requests": len(requests),
        "dropped": dropped,
        "hosts": arguments.hosts,
        "calibration_s": min(fixed_s),
        **(_side(ours_s, waited["ours"], requests) if ours_s else {"seconds": None, "requests_per_s": None}),
        "peers": {
            arguments.peer: {
                **_side(theirs_s, waited[arguments.peer], requests),
                "ratio": round(min(theirs_s) / min(ours_s), 2) if ours_s else None,
            }
        },
    }
    _show(figures)
    return figures


def _side(took_s: Sequence[float], waited: Waits, requests: Sequence[TraceRequest]) -> dict[str, object]:
    seconds = min(took_s)
    return {"seconds": seconds, "requests_per_s": round(len(requests) / seconds, 1), **waited.figures()}


def _show(figures: Mapping[str, object]) -> None:
    table = Table("who", "seconds", "requests/s", "ratio", "GPU-weighted wait, h", "longest wait, h")
    peers = cast("Mapping[str, Mapping[str, object]]", figures["peers"])
    for name, side in {"Nightshift": figures, **peers}.items():
        cells = (side.get(key) for key in ("seconds", "requests_per_s", "ratio", "gpu_weighted_wait_h", "max_h"))
        table.add_row(name, *(_NONE if cell is None else f"{cell:.2f}" for cell in cells))
    out = Console()
    out.print(table)
    out.print(f"the fixed loop took {figures['calibration_s']:.4f} s")


def _ours(requests: Sequence[TraceRequest], hosts: int) -> _Run | None:
    """Run the planner, if this checkout has it: the peer can be measured without."""
    try:
        module = importlib.import_module(_OURS)
    except ModuleNotFoundError as missing:
        if missing.name != _OURS:
            raise
        return None
    found = module.run(requests, hosts=hosts, slack=False, night=False, storage="shared", clock=OpenClock())
    return cast("_Run", found)
