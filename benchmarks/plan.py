"""How long a whole batch takes to plan, beside schedulers of others on the same batch in the same run.

Requests for 1 to 16 GPUs are planned in order, each at its earliest start that moves nobody, on hosts of 16 GPUs that
are all busy at the beginning; reservations ahead, if any, are booked first, in our time but not in a peer's. Peers:

*accasim* simulates EASY backfilling on nodes without blocks, to the end: it keeps no plan. *slurm* is one cycle of its
backfill by its own clock, which leaves its sleep out; it tests more for each job than we do. Hosts are nodes (layout
A), or with reservations GPUs are (B); in A the forecast holds whole nodes; what is beyond its window has no start.
*kamelot* of OAR 3 plans the same aligned blocks.

`ratio` is the peer's seconds over ours, best of so many runs each; `cpu_ratio` is that of processor time, which depends
less on what else the machine does. A fixed loop beside it tells machines apart. Starts are compared over the requests
that both gave one. What is not shown is what remembering a plan costs, on either side.
"""

import argparse
import importlib
import sys
import time
from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast

from rich.console import Console
from rich.table import Table

from benchmarks.peers import accasim, kamelot, slurm, slurm_site
from benchmarks.peers.peer import GPUS, NOT_HERE, NotHere, PeerPlan, best
from benchmarks.peers.slurm_site import Layout
from benchmarks.workload import HOUR_S, Batch, DoesNotFit, make_batch

BAD_INPUT = 2
MOST_HOSTS = 10_000
MOST_REQUESTS = 10_000_000
_OURS = "benchmarks.plan_ours"
_CALIBRATION_STEPS = 200_000


class PlanOurs(Protocol):
    """Our planner, for a batch: the starts of the requests in their order."""

    def __call__(
        self,
        hosts: int,
        occupied: Sequence[tuple[int, int]],
        requests: Sequence[tuple[int, int]],
        reservations: Sequence[tuple[int, int, int]],
    ) -> list[int]: ...


class BadPlan(Exception):
    """A plan that cannot be: it is not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Of the requests that both planned."""

    both: int
    mean_start_h: float
    last_end_h: float
    our_mean_start_h: float
    our_last_end_h: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mine:
    seconds: float
    cpu_s: float
    fixed_s: float
    """Of the calibration."""
    starts: Sequence[int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hosts", type=_count(1, MOST_HOSTS), default=64, help="hosts of 16 GPUs (%(default)s)")
    parser.add_argument("--requests", type=_count(1, MOST_REQUESTS), default=5000, help="in the queue (%(default)s)")
    parser.add_argument("--reservations", type=_count(0, MOST_REQUESTS), default=0, help="booked ahead (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the batch (%(default)s)")
    parser.add_argument("--times", type=_count(1, 100), default=3, help="so many runs of ours (%(default)s)")
    parser.add_argument("--peer", action="append", choices=tuple(_PEERS), help="measure it too; may be given again")
    parser.add_argument("--peer-times", type=_count(1, 100), default=3, help="so many runs of a peer (%(default)s)")
    parser.add_argument("--slurm-layout", type=Layout, choices=tuple(Layout), help="what is a node (see above)")
    parser.add_argument("--kamelot", type=Path, metavar="DIR", help=f"a checkout of OAR 3; else {kamelot.CHECKOUT}")
    parser.add_argument("--install", action="store_true", help="install the peers first, by pip and, as root, by apt")


def _count(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r}: write a whole number from {least} to {most}")
        return int(text)

    return read


def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure, print the table and return the figures."""
    names = tuple(dict.fromkeys(arguments.peer or ()))
    try:
        batch = make_batch(
            hosts=arguments.hosts,
            requests=arguments.requests,
            reservations=arguments.reservations,
            seed=arguments.seed,
        )
        ours = _ours()
        if arguments.install:
            for name in names:
                _INSTALL[name]()
        mine = _measure(ours, batch, arguments.times)
        plans = {name: _PEERS[name](batch, arguments) for name in names}
    except NotHere as missing:
        print(missing, file=sys.stderr)
        raise SystemExit(NOT_HERE) from missing
    except BadPlan as bad:
        print(f"our plan is wrong, and not measured: {bad}", file=sys.stderr)
        raise SystemExit(1) from bad
    except DoesNotFit as full:
        print(f"{full}: ask for fewer --reservations", file=sys.stderr)
        raise SystemExit(BAD_INPUT) from full
    figures: dict[str, object] = {
        "hosts": batch.hosts,
        "requests": len(batch.requests),
        "reservations": len(batch.reservations),
        "seed": arguments.seed,
        "seconds": mine.seconds,
        "requests_per_s": round(len(batch.requests) / mine.seconds, 1),
        "cpu_s": mine.cpu_s,
        "calibration_s": mine.fixed_s,
        "are_reservations_in_time": are_reservations_in_time(batch, mine.starts),
        "mean_start_h": round(sum(mine.starts) / len(mine.starts) / HOUR_S, 2),
        "peers": {name: _figures(batch, mine, plan) for name, plan in plans.items()},
    }
    _show(figures)
    return figures


def calibration_s() -> float:
    """Return the seconds of a fixed loop in pure Python: a sorted list that grows and is searched, and a table."""
    began_s = time.perf_counter()
    row: list[int] = []
    seen: dict[int, int] = {}
    value = 1
    for _ in range(_CALIBRATION_STEPS):
        value = value * 1_103_515_245 + 12_345 & 0x7FFF_FFFF
        seen[value & 0xFFFF] = value
        insort(row, value)
        if len(row) > 500:
            del row[::2]
    return time.perf_counter() - began_s


def check_plan(batch: Batch, starts: Sequence[int]) -> None:
    """Say where a plan has no start, or more GPUs at once than there are; blocks and reservations are not looked at."""
    if len(starts) != len(batch.requests):
        raise BadPlan(f"{len(starts)} starts for {len(batch.requests)} requests")
    early = next((start for start in starts if start < 0), None)
    if early is not None:
        raise BadPlan(f"a request starts at {early} s, before the batch")
    over = _first_over(batch, _taken(batch, starts))
    if over is not None:
        raise BadPlan(f"{over[1]} GPUs at {over[0]} s, and there are {batch.hosts * GPUS}")


def are_reservations_in_time(batch: Batch, starts: Sequence[int]) -> bool:
    """Say whether a plan has GPUs left for every reservation at its instant: if not, some begin later."""
    return _first_over(batch, _taken(batch, starts) + list(batch.reservations)) is None


def _taken(batch: Batch, starts: Sequence[int]) -> list[tuple[int, int, int]]:
    running = [(0, GPUS, until_s) for _, until_s in batch.occupied]
    return running + [(start, gpus, run_s) for start, (gpus, run_s) in zip(starts, batch.requests, strict=True)]


def _first_over(batch: Batch, taken: Sequence[tuple[int, int, int]]) -> tuple[int, int] | None:
    """Return the first instant with more GPUs taken than there are, and how many; `taken`: (start, GPUs, seconds)."""
    changes = [(start, gpus) for start, gpus, _ in taken] + [(start + run_s, -gpus) for start, gpus, run_s in taken]
    in_use = 0
    # Of one instant, what ends comes first.
    for at, change in sorted(changes):
        in_use += change
        if in_use > batch.hosts * GPUS:
            return at, in_use
    return None


def quality(batch: Batch, ours: Sequence[int], theirs: Sequence[int | None]) -> Quality | None:
    """Compare the starts and the last end over what the peer has planned too; nothing if it gave no start at all."""
    both = [
        (our, their, run_s)
        for our, their, (_, run_s) in zip(ours, theirs, batch.requests, strict=True)
        if their is not None
    ]
    if not both:
        return None

    def hours(value_s: float) -> float:
        return round(value_s / HOUR_S, 2)

    return Quality(
        both=len(both),
        mean_start_h=hours(sum(their for _, their, _ in both) / len(both)),
        last_end_h=hours(max(their + run_s for _, their, run_s in both)),
        our_mean_start_h=hours(sum(our for our, _, _ in both) / len(both)),
        our_last_end_h=hours(max(our + run_s for our, _, run_s in both)),
    )


def _ours() -> PlanOurs:
    try:
        # Imported late, as peers are: what is missing is said in one line.
        return cast("PlanOurs", importlib.import_module(_OURS).plan_ours)
    except ModuleNotFoundError as missing:
        if missing.name != _OURS:
            raise
        raise NotHere(f"our own side is not here: no module {_OURS} in this checkout") from missing


def _measure(ours: PlanOurs, batch: Batch, times: int) -> _Mine:
    """Return the best of so many runs, the best of the fixed loops between them, and the plan, checked."""
    runs: list[_Mine] = []
    for _ in range(times):
        fixed_s = calibration_s()
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        starts = ours(batch.hosts, batch.occupied, batch.requests, batch.reservations)
        took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        runs.append(_Mine(seconds=took_s, cpu_s=cpu_s, fixed_s=fixed_s, starts=starts))
    check_plan(batch, runs[-1].starts)
    return replace(min(runs, key=lambda one: one.seconds), fixed_s=min(one.fixed_s for one in runs))


def _accasim(batch: Batch, arguments: argparse.Namespace) -> PeerPlan:
    return best([accasim.plan(batch) for _ in range(arguments.peer_times)])


def _kamelot(batch: Batch, arguments: argparse.Namespace) -> PeerPlan:
    return best([kamelot.plan(batch, checkout=arguments.kamelot) for _ in range(arguments.peer_times)])


def _slurm(batch: Batch, arguments: argparse.Namespace) -> PeerPlan:
    return slurm.plan(batch, layout=arguments.slurm_layout, times=arguments.peer_times)


_PEERS: Mapping[str, Callable[[Batch, argparse.Namespace], PeerPlan]] = {
    "accasim": _accasim,
    "slurm": _slurm,
    "kamelot": _kamelot,
}
_INSTALL: Mapping[str, Callable[[], None]] = {
    "accasim": accasim.install,
    "slurm": slurm_site.install,
    "kamelot": kamelot.install,
}


def _figures(batch: Batch, mine: _Mine, plan: PeerPlan) -> dict[str, object]:
    found: dict[str, object] = {
        "seconds": plan.seconds,
        "requests_per_s": round(plan.planned / plan.seconds, 1),
        "ratio": round(plan.seconds / mine.seconds, 1),
        "cpu_s": plan.cpu_s,
        "cpu_ratio": round(plan.cpu_s / mine.cpu_s, 1),
        "planned": plan.planned,
    }
    compared = quality(batch, mine.starts, plan.starts)
    if compared is not None:
        found |= {
            "with_start": compared.both,
            "mean_start_h": compared.mean_start_h,
            "our_mean_start_h": compared.our_mean_start_h,
            "last_end_h": compared.last_end_h,
            "our_last_end_h": compared.our_last_end_h,
        }
    return found | dict(plan.facts)


def _show(figures: Mapping[str, object]) -> None:
    speed = Table("who", "seconds", "requests/s", "ratio", "CPU, s", "ratio of CPU", "looked at")
    starts = Table("who", "with a start", "mean start, h", "ours", "last end, h", "ours")
    peers = cast("Mapping[str, Mapping[str, object]]", figures["peers"])
    mine = {**figures, "ratio": 1, "cpu_ratio": 1, "planned": figures["requests"]}
    for name, side in {"Nightshift": mine, **peers}.items():
        speed.add_row(
            name,
            f"{side['seconds']:.4f}",
            f"{side['requests_per_s']:.0f}",
            str(side["ratio"]),
            f"{side['cpu_s']:.4f}",
            str(side["cpu_ratio"]),
            str(side["planned"]),
        )
    for name, peer in peers.items():
        cells = ("with_start", "mean_start_h", "our_mean_start_h", "last_end_h", "our_last_end_h")
        starts.add_row(name, *(str(peer.get(cell, "–")) for cell in cells))
    out = Console()
    out.print(speed)
    if peers:
        out.print(starts)
    if not figures["are_reservations_in_time"]:
        out.print("ours has moved some reservations to later: they had no block at their instant")
    out.print(f"the fixed loop took {figures['calibration_s']:.4f} s")
