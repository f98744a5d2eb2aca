"""How far our plan is from the best there is, where that can be found: one host, few VMs, all submitted at once.

Each case is a host of 16 GPUs, idle or with three VMs on it, and 28 requests that come together and run as long as they
ask for. What waits least, GPUs times hours in sum, is found by OR-Tools' CP-SAT: once with every start by the promise
that our planner gave, which is the ratio that counts, and once free of promises. Ours is the plan that keeps every
promise, with one search for a better one before the first start, as at a quiet moment; beside it stands what it is
without that search. Where CP-SAT could not prove the least in its time, it is the least that it found.

What is not shown is requests that come later: who knows them all can plan well. Nor is it a plan of many hosts, where
nobody can find the best; a plan that is far from it in a small case is no better in a large one.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, cast

from rich.console import Console
from rich.table import Table

from benchmarks.peers import cp_sat
from benchmarks.peers.cp_sat import Optimum, Problem
from benchmarks.peers.peer import GPUS, NOT_HERE, NotHere
from benchmarks.trace_checker import Event, Left, Placed, Told, check
from benchmarks.traces import TraceRequest
from benchmarks.workload import HOUR_S, LIMITS_S, SIZES, WEIGHTS
from scheduler.core.calendar.bookings import Fit
from scheduler.core.calendar.improving import MOST_PLACED
from scheduler.core.calendar.kinds import aligned_kind
from scheduler.core.calendar.making import make_calendar
from scheduler.core.calendar.witness import Witness
from scheduler.core.spans import FOREVER

STEP_S = HOUR_S // 2
"""All limits are whole steps of this, so the best starts are too."""
HOST = aligned_kind(GPUS)
MIXES: Mapping[str, tuple[int, ...]] = {"plan's": WEIGHTS, "small": (75, 10, 10, 5, 0), "wide": (20, 15, 20, 30, 15)}
BUSY = ((8, 6 * HOUR_S), (4, 3 * HOUR_S), (2, HOUR_S))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A host and what is asked of it, in seconds."""

    mix: str
    busy: tuple[tuple[int, int], ...]
    requests: tuple[tuple[int, int], ...]
    """`(gpus, run_s)`, in the order of submission."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """What we came to."""

    start_at: tuple[int, ...]
    start_by: tuple[int, ...]
    seconds: float
    cpu_s: float

    def weight_h(self, case: Case) -> float:
        """Return GPU-hours of waiting, in sum."""
        return sum(gpus * at for (gpus, _), at in zip(case.requests, self.start_at, strict=True)) / HOUR_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A case, what we came to, and the best there is."""

    case: Case
    ours: Ours
    plain: Ours
    """Without the search."""
    best: Optimum
    """With every start by our promise."""
    free: Optimum

    def ratio(self, ours: Ours) -> float:
        return over(ours.weight_h(self.case), _hours(self.best))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vms", type=_count(1, 60), default=28, help="requests of a case (%(default)s)")
    parser.add_argument("--seeds", type=_count(1, 1000), default=3, help="cases of each kind (%(default)s)")
    parser.add_argument("--first-seed", type=_count(0, 10**9), default=1, help="of the cases (%(default)s)")
    parser.add_argument(
        "--budget", type=_count(0, 10**9), default=MOST_PLACED, help="placements of our search (%(default)s)"
    )
    parser.add_argument("--seconds", type=_count(1, 3600), default=10, help="for CP-SAT, for each plan (%(default)s)")
    parser.add_argument("--workers", type=_count(1, 64), default=2, help="threads of CP-SAT (%(default)s)")
    parser.add_argument("--install", action="store_true", help="install OR-Tools first, by pip, in a venv of its own")


def _count(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r}: write a whole number from {least} to {most}")
        return int(text)

    return read


def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure, print the table and return the figures."""
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    cases = make_cases(seeds=seeds, vms=arguments.vms)
    try:
        if arguments.install:
            cp_sat.install()
        cp_sat.interpreter()
        ours = [plan_ours(case, most_placed=arguments.budget) for case in cases]
        plain = [plan_ours(case, most_placed=0) for case in cases]
        told = [problem(case, one.start_by) for case, one in zip(cases, ours, strict=True)]
        best = cp_sat.solve(told, **_limits(arguments))
        freed = [problem(case, None, least.starts) for case, least in zip(cases, best, strict=True)]
        free = cp_sat.solve(freed, **_limits(arguments))
    except NotHere as missing:
        print(missing, file=sys.stderr)
        raise SystemExit(NOT_HERE) from missing
    rows = [
        Row(case=case, ours=mine, plain=unsearched, best=least, free=min(unbound, least, key=_weight))
        for case, mine, unsearched, least, unbound in zip(cases, ours, plain, best, free, strict=True)
    ]
    figures = make_figures(rows)
    _show(figures)
    return figures


class _Limits(TypedDict):
    seconds: float
    workers: int


def _limits(arguments: argparse.Namespace) -> _Limits:
    return {"seconds": arguments.seconds, "workers": arguments.workers}


def make_figures(rows: Sequence[Row]) -> dict[str, object]:
    """Return what is written down. `ratio` is of the sums over all cases, and `mean_ratio` that of the cases' own."""
    ratios = [row.ratio(row.ours) for row in rows]
    best_h = sum(_hours(row.best) for row in rows)
    return {
        "vms": len(rows[0].case.requests),
        "ratio": round(over(sum(row.ours.weight_h(row.case) for row in rows), best_h), 4),
        "mean_ratio": round(statistics.fmean(ratios), 4),
        "worst_ratio": round(max(ratios), 4),
        "plain_ratio": round(over(sum(row.plain.weight_h(row.case) for row in rows), best_h), 4),
        "worst_plain_ratio": round(max(row.ratio(row.plain) for row in rows), 4),
        "free_ratio": round(over(sum(_hours(row.free) for row in rows), best_h), 4),
        "most_seconds": round(max(row.ours.seconds for row in rows), 3),
        "most_cpu_s": round(max(row.ours.cpu_s for row in rows), 3),
        "proved": sum(row.best.is_proved for row in rows),
        "cases": [
            {
                "mix": row.case.mix,
                "busy_vms": len(row.case.busy),
                "told_h": round(_told_h(row), 1),
                "plain_h": round(row.plain.weight_h(row.case), 1),
                "ours_h": round(row.ours.weight_h(row.case), 1),
                "best_h": round(_hours(row.best), 1),
                "is_proved": row.best.is_proved,
                "free_h": round(_hours(row.free), 1),
                "free_is_proved": row.free.is_proved,
                "ratio": round(row.ratio(row.ours), 4),
                "plain_ratio": round(row.ratio(row.plain), 4),
                "seconds": round(row.ours.seconds, 3),
                "cpu_s": round(row.ours.cpu_s, 3),
            }
            for row in rows
        ],
    }


def over(ours: float, best: float) -> float:
    """Return one sum of waits over another; 1 where nobody waits in either."""
    return ours / best if best else 1.0 if not ours else float("inf")


def _weight(optimum: Optimum) -> int:
    return optimum.weight


def _hours(optimum: Optimum) -> float:
    return optimum.weight * STEP_S / HOUR_S


def _told_h(row: Row) -> float:
    told = zip(row.case.requests, row.ours.start_by, strict=True)
    return sum(gpus * start_by for (gpus, _), start_by in told) / HOUR_S


def make_cases(*, seeds: Sequence[int], vms: int) -> list[Case]:
    """Return the cases of so many seeds: each mix, on a host that is idle and on one that is busy."""
    return [_make_case(mix, busy, seed, vms) for mix in MIXES for busy in ((), BUSY) for seed in seeds]


def _make_case(mix: str, busy: tuple[tuple[int, int], ...], seed: int, vms: int) -> Case:
    draw = random.Random(f"optimum/{mix}/{len(busy)}/{seed}")
    requests = tuple((draw.choices(SIZES, MIXES[mix])[0], draw.choice(LIMITS_S)) for _ in range(vms))
    return Case(mix=mix, busy=busy, requests=requests)


def plan_ours(case: Case, *, most_placed: int, may_be_compiled: bool = True) -> Ours:
    """Run a case to its end, without a search where none may be placed; what knows no planner checks the promises."""
    asked = (*case.busy, *case.requests)
    events: list[Event] = []
    start_at: dict[int, int] = {}
    began, cpu_began = time.perf_counter(), time.process_time()
    calendar = make_calendar(0, may_be_compiled=may_be_compiled)
    calendar.add_host(HOST)
    witness = Witness(calendar)
    start_by = []
    for key, (gpus, run_s) in enumerate(asked):
        waiting = witness.submit(key, Fit(gpus, run_s, run_s), 0)
        assert waiting is not None, "everything fits on a host at some time"
        start_by.append(waiting.due_at)
        events.append(Told(job=key, at=0, start_by_at=waiting.due_at))
    ends: dict[int, int] = {}
    now = 0
    while True:
        for key in sorted(key for key, at in ends.items() if at <= now):
            del ends[key]
            witness.end(key, now)
            events.append(Left(job=key, at=now))
        if now == 0 and most_placed:
            witness.improve(now, most_placed=most_placed)
        started = witness.start_due(now) + witness.start_early(now)
        for key in started:
            start_at[key] = now
            ends[key] = now + asked[key][1]
            place = witness.running[key].place
            events.append(Placed(job=key, at=now, host=place.host, mask=HOST.masks[place.set]))
        now = min([witness.next_start_at(), *ends.values()])
        if now == FOREVER:
            break
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    _check(asked, events)
    skipped = len(case.busy)
    return Ours(
        start_at=tuple(start_at[key] for key in range(skipped, len(asked))),
        start_by=tuple(start_by[skipped:]),
        seconds=seconds,
        cpu_s=cpu_s,
    )


def _check(asked: Sequence[tuple[int, int]], events: Sequence[Event]) -> None:
    requests = [
        TraceRequest(number=number, submit_at=0, gpus=gpus, run_s=run_s, asked_s=run_s)
        for number, (gpus, run_s) in enumerate(asked)
    ]
    found = check(requests, events, hosts=1)
    assert found.kept == len(requests), found


def problem(case: Case, start_by: Sequence[int] | None, starts: Sequence[int] = ()) -> Problem:
    """Return the case in steps, with the promises if there are any, and with the steps of a plan to begin with."""
    return Problem(
        gpus=GPUS,
        busy=tuple((gpus, until_s // STEP_S) for gpus, until_s in case.busy),
        requests=tuple(
            (gpus, run_s // STEP_S, None if start_by is None else start_by[number] // STEP_S)
            for number, (gpus, run_s) in enumerate(case.requests)
        ),
        starts=tuple(starts),
    )


def _show(figures: Mapping[str, object]) -> None:
    table = Table("mix", "busy", "told, GPU-h", "plain", "ours", "best by promises", "ratio", "free best", "CPU, s")
    for row in cast("Sequence[Mapping[str, object]]", figures["cases"]):
        proofs = ["" if row[name] else " (not proved)" for name in ("is_proved", "free_is_proved")]
        table.add_row(
            str(row["mix"]),
            str(row["busy_vms"] or ""),
            *(str(row[name]) for name in ("told_h", "plain_h", "ours_h")),
            f"{row['best_h']}{proofs[0]}",
            f"{row['ratio']:.3f}",
            f"{row['free_h']}{proofs[1]}",
            str(row["cpu_s"]),
        )
    out = Console()
    out.print(table)
    out.print(
        f"over the best that keeps our promises: {figures['ratio']} in sum, {figures['mean_ratio']} on average, "
        f"{figures['worst_ratio']} at worst; without the search {figures['plain_ratio']} and "
        f"{figures['worst_plain_ratio']}; the best without promises: {figures['free_ratio']}"
    )
