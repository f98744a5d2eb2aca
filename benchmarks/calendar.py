"""What one booking costs in a calendar that is full: asked for, booked, cancelled, made shorter and longer.

Reservations at about 70 % load lie over a horizon that is as long as their number needs; sizes and limits are those of
`plan`. One more is asked for at a random instant: the earliest start from there on is found and booked, and a random
one is cancelled, so that as many are live all along. Then random ones end earlier, and later where that is free.

Times are medians of single calls from Python, on the wall; query and commit also have their 99th percentile, of the one
of ten rounds that was disturbed least, and both in processor time, which other programs are hardly in, of all calls.
Each row is a process of its own; memory is what its resident set grew by while the calendar was filled, so that what C
allocates is in it. The calendar in Python stands beside the compiled one, which is used where a compiler has made it.
`CPU` is the mean processor time of query and commit, and `ratio` is that over what it is with the hosts given. What is
not shown is what remembering a plan costs, and stretches and labels, of which these bookings have none.
"""

import argparse
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.workload import LIMITS_S, SIZES, WEIGHTS
from scheduler.core.calendar import compiled
from scheduler.core.calendar.bookings import Fit
from scheduler.core.calendar.kinds import aligned_kind
from scheduler.core.calendar.making import Calendar, make_calendar

LOAD = 0.7
BESIDE_HOSTS = 1000
"""What the hosts given are compared with."""
BESIDE_LIVE = (1_000, 10_000)
ROUNDS = 10
SHORTENED_S = 900
"""Less than the shortest limit."""
_GPUS = 16
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What one row measures."""

    hosts: int
    live: int
    is_compiled: bool
    calls: int
    seed: int = 1

    @property
    def calendar(self) -> str:
        return "compiled" if self.is_compiled else "python"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a row came to; microseconds of one call."""

    live: int
    query_commit_p50_us: float
    query_commit_p99_us: float
    cpu_p50_us: float
    """Of query and commit, as the other two."""
    cpu_p99_us: float
    cpu_mean_us: float
    cancel_us: float
    shorten_us: float
    extend_us: float
    memory_mb: float
    load: float
    """Of all GPU time in the horizon."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hosts", type=_count(1, 10_000), default=64, help="hosts of 16 GPUs (%(default)s)")
    parser.add_argument("--live", type=_count(10, 10_000_000), default=100_000, help="live reservations (%(default)s)")
    parser.add_argument("--calls", type=_count(10, 10_000_000), default=5_000, help="of each kind (%(default)s)")
    parser.add_argument(
        "--times", type=_count(1, 100), default=1, help="so many runs of each, best counts (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the reservations (%(default)s)")


def _count(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r}: write a whole number from {least} to {most}")
        return int(text)

    return read


def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure, print the table and return the figures."""
    kinds = (True, False) if compiled.is_available() else (False,)
    cases = [
        Case(hosts=hosts, live=live, is_compiled=is_compiled, calls=arguments.calls, seed=arguments.seed)
        for hosts in dict.fromkeys((arguments.hosts, BESIDE_HOSTS))
        for live in sorted({*(few for few in BESIDE_LIVE if few < arguments.live), arguments.live})
        for is_compiled in kinds
    ]
    found: dict[Case, list[Cost]] = {case: [] for case in cases}
    # One after the other, over and over: what else the machine does meets all rows alike.
    for _ in range(arguments.times):
        for case in cases:
            found[case].append(apart(case))
    figures = make_figures(arguments.hosts, arguments.live, {case: best(costs) for case, costs in found.items()})
    _show(figures)
    return figures


def best(costs: Sequence[Cost]) -> Cost:
    """Return the run whose booking took least, with the most memory of all."""
    least = min(costs, key=lambda cost: cost.cpu_mean_us)
    return replace(least, memory_mb=max(cost.memory_mb for cost in costs))


def make_figures(hosts: int, live: int, found: Mapping[Case, Cost]) -> dict[str, object]:
    """Return what is written down: of the calendar that is used, with all rows beside it."""
    used = next(case for case in found if (case.hosts, case.live) == (hosts, live))
    cost = found[used]
    rows = [
        {
            "calendar": case.calendar,
            "hosts": case.hosts,
            **_costs(row),
            "over_given_hosts": round(row.cpu_mean_us / found[replace(case, hosts=hosts)].cpu_mean_us, 2),
        }
        for case, row in found.items()
    ]
    beside = found[replace(used, hosts=BESIDE_HOSTS)]
    return {
        "hosts": hosts,
        **_costs(cost),
        "calendar": used.calendar,
        f"cost_at_{BESIDE_HOSTS}_hosts": round(beside.cpu_mean_us / cost.cpu_mean_us, 2),
        "rows": rows,
    }


def _costs(cost: Cost) -> dict[str, object]:
    return {
        "live": cost.live,
        "load": cost.load,
        "query_commit_us": {"p50": cost.query_commit_p50_us, "p99": cost.query_commit_p99_us},
        "query_commit_cpu_us": {"p50": cost.cpu_p50_us, "p99": cost.cpu_p99_us, "mean": cost.cpu_mean_us},
        "query_commit_per_s": round(1e6 / cost.cpu_mean_us),
        "cancel_us": cost.cancel_us,
        "shorten_us": cost.shorten_us,
        "extend_us": cost.extend_us,
        "memory_mb": cost.memory_mb,
    }


def apart(case: Case) -> Cost:
    """Measure in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(theirs, case))
    child.start()
    theirs.close()
    try:
        cost = ours.recv()
    except EOFError:
        raise SystemExit(f"{case} ended without an answer") from None
    finally:
        child.join()
    assert isinstance(cost, Cost)
    return cost


def _answer(pipe: Connection, case: Case) -> None:
    pipe.send(measure(case))


def resident_mb() -> float:
    """Return the memory of this process that is not swapped out, as the kernel counts it; 0 where it does not say."""
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmRSS:"))


def measure(case: Case) -> Cost:
    """Fill a calendar and measure calls on it, in this process."""
    draw = random.Random(f"calendar/{case.seed}/{case.hosts}/{case.live}")
    kind = aligned_kind(_GPUS)
    before_mb = resident_mb()
    calendar = make_calendar(0, may_be_compiled=case.is_compiled)
    for _ in range(case.hosts):
        calendar.add_host(kind)
    horizon_s = _horizon_s(case)
    for key in range(case.live):
        _book(calendar, key, _draw(draw), draw.randrange(horizon_s))
    memory_mb = resident_mb() - before_mb
    live = list(range(case.live))
    booked_s = sum(_gpu_s(calendar, key, horizon_s) for key in live)
    committed: list[float] = []
    cpu: list[float] = []
    cancelled: list[float] = []
    for key in range(case.live, case.live + case.calls):
        fit, from_at = _draw(draw), draw.randrange(horizon_s)
        began, cpu_began = time.perf_counter(), time.thread_time()
        _book(calendar, key, fit, from_at)
        cpu.append(time.thread_time() - cpu_began)
        committed.append(time.perf_counter() - began)
        chosen = draw.randrange(len(live))
        gone, live[chosen] = live[chosen], key
        began = time.perf_counter()
        calendar.free(gone)
        cancelled.append(time.perf_counter() - began)
    assert len(calendar) == case.live, "what is live has changed"
    shortened = [_shorten(calendar, key) for key in draw.sample(live, min(case.calls, len(live)))]
    extended = list(_extend(calendar, draw.sample(live, len(live)), case.calls))
    calmest = min(_rounds(committed), key=_p99)
    return Cost(
        live=len(calendar),
        query_commit_p50_us=_us(statistics.median(calmest)),
        query_commit_p99_us=_us(_p99(calmest)),
        cpu_p50_us=_us(statistics.median(cpu)),
        cpu_p99_us=_us(_p99(cpu)),
        cpu_mean_us=_us(statistics.fmean(cpu)),
        cancel_us=_us(statistics.median(cancelled)),
        shorten_us=_us(statistics.median(shortened)),
        extend_us=_us(statistics.median(extended)),
        memory_mb=round(memory_mb, 1),
        load=round(booked_s / (case.hosts * _GPUS * horizon_s), 3),
    )


def _draw(draw: random.Random) -> Fit:
    run_s = draw.choice(LIMITS_S)
    return Fit(draw.choices(SIZES, WEIGHTS)[0], run_s, run_s)


def _horizon_s(case: Case) -> int:
    """Return how long the horizon is that so many reservations fill to the load."""
    gpus = sum(size * weight for size, weight in zip(SIZES, WEIGHTS, strict=True)) / sum(WEIGHTS)
    gpu_s = case.live * gpus * statistics.fmean(LIMITS_S)
    return max(1, int(gpu_s / (LOAD * case.hosts * _GPUS)))


def _book(calendar: Calendar, key: int, fit: Fit, from_at: int) -> None:
    place = calendar.earliest(fit, from_at)
    assert place is not None, "there is always room at the end"
    calendar.book(key, place, fit)


def _gpu_s(calendar: Calendar, key: int, horizon_s: int) -> int:
    booking = calendar.booking(key)
    return booking.fit.size * max(0, min(booking.place.end_at, horizon_s) - booking.place.start_at)


def _shorten(calendar: Calendar, key: int) -> float:
    end_at = calendar.booking(key).place.end_at - SHORTENED_S
    began = time.perf_counter()
    calendar.end_at(key, end_at)
    return time.perf_counter() - began


def _extend(calendar: Calendar, keys: Sequence[int], most: int) -> Iterator[float]:
    """Let bookings end later for which that is free."""
    done = 0
    for key in keys:
        place = calendar.booking(key).place
        end_at = place.end_at + SHORTENED_S
        if done == most or not calendar.is_free(place.host, place.set, place.end_at, end_at):
            continue
        done += 1
        began = time.perf_counter()
        calendar.end_at(key, end_at)
        yield time.perf_counter() - began


def _rounds(values: Sequence[float]) -> list[Sequence[float]]:
    """Return the values in rounds, one after the other; the last has what is left over."""
    each = len(values) // ROUNDS
    return [values[n * each : (n + 1) * each if n < ROUNDS - 1 else len(values)] for n in range(ROUNDS)]


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[len(values) * 99 // 100]


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 1)


def _show(figures: Mapping[str, object]) -> None:
    out = Console()
    table = Table("in", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), title="µs, of query and commit first")
    for column in ("hosts", "live", "p50", "p99", "CPU", "cancel", "shorten", "extend", "MB", "ratio"):
        table.add_column(column, justify="right")
    for row in cast("Sequence[Mapping[str, object]]", figures["rows"]):
        wall, cpu = (cast("Mapping[str, float]", row[name]) for name in ("query_commit_us", "query_commit_cpu_us"))
        table.add_row(
            "C" if row["calendar"] == "compiled" else "Python",
            f"{row['hosts']:,}",
            f"{row['live']:,}",
            *(f"{value:.0f}" for value in (wall["p50"], wall["p99"], cpu["mean"])),
            *(f"{row[name]:.0f}" for name in ("cancel_us", "shorten_us", "extend_us", "memory_mb")),
            f"{row['over_given_hosts']:.2f}",
        )
    out.print(table)
    out.print(
        f"the {figures['calendar']} calendar is used: {figures['query_commit_per_s']:,} a second, and at "
        f"{BESIDE_HOSTS:,} hosts {figures[f'cost_at_{BESIDE_HOSTS}_hosts']} times the cost at {figures['hosts']:,}"
    )
