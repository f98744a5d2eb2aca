"""How long people wait if a trace goes through the planner, and if reference schedulers had the same requests.

A trace is a CSV file, gzipped or not: `submit_s,gpus,duration_s,user`. Simulated time, hosts of 16 GPUs; what asks for
more is dropped. The references have the same requests, early ends and closings, and never move what runs: fungible
GPUs (conservative backfilling in three forms, EASY) and aligned blocks (FCFS, EASY, conservative). `ratio` is our
GPU-weighted wait over that of fungible conservative, whose bookings move up at an early end in order, never back.
Waits are wall time, over closings too; load and utilisation are of the open time. What is not shown is a network,
hosts that fail, VMs that take time to start, and people who cancel, extend or learn to ask for less.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import trace_product, trace_run
from benchmarks.references import REFERENCES
from benchmarks.trace_report import OurRun, make_report, show
from benchmarks.traces import (
    DAY_S,
    HOUR_S,
    SIZES,
    Asks,
    BadTrace,
    OpenClock,
    TraceRequest,
    asks,
    in_open_time,
)
from benchmarks.traces import load as load_trace

BAD_INPUT = 2
"""The exit status where the trace is not one, as for arguments that are none."""
MOST_HOSTS = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trace", type=Path, required=True, help="the CSV file, gzipped or not")
    parser.add_argument("--hosts", type=_hosts, required=True, help="hosts of 16 GPUs")
    parser.add_argument(
        "--asks",
        type=Asks,
        choices=tuple(Asks),
        default=Asks.EXACT,
        help="what people ask for: what they use, or 1 to 3 times that in quarters of an hour (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the factors that people ask too much by (%(default)s)")
    parser.add_argument(
        "--slack",
        choices=("none", "default"),
        default="none",
        help="of a promise over the earliest fit; default: 2 h or a quarter of the wait, the larger (%(default)s)",
    )
    parser.add_argument("--night", action="store_true", help="at 20:00 every VM may come back on another block")
    parser.add_argument(
        "--night-hours",
        type=_night_hours,
        default=0.0,
        metavar="N",
        help="from 20:00 on hosts are closed to tenants for so long; implies --night (%(default)s)",
    )
    parser.add_argument(
        "--storage",
        choices=("local", "shared"),
        default="shared",
        help="whether a VM may come back on another host (%(default)s)",
    )
    parser.add_argument("--no-references", action="store_true", help="run the planner alone")
    parser.add_argument(
        "--step",
        action="store_true",
        help="run the product's planning step, beside the scheme that is meant and faster; closings are windows, "
        "a night without one lasts a second",
    )


def _hosts(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_HOSTS:
        raise argparse.ArgumentTypeError(f"{text!r} hosts: write a whole number from 1 to {MOST_HOSTS}")
    return int(text)


def _night_hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = -1.0
    if not 0 <= hours * HOUR_S <= DAY_S - 1:
        raise argparse.ArgumentTypeError(f"{text!r} hours a day: write 0 or more, and less than 24")
    return hours


def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Run the trace, print the tables and return the figures."""
    try:
        asked = asks(load_trace(arguments.trace), kind=arguments.asks, seed=arguments.seed)
        if not asked.requests:
            raise BadTrace(
                f"{arguments.trace}: all {asked.dropped} requests are larger than a host of {SIZES[-1]} GPUs"
            )
    except BadTrace as error:
        print(error, file=sys.stderr)
        raise SystemExit(BAD_INPUT) from error
    if arguments.step:
        return trace_product.compare(asked.requests, arguments)
    clock = OpenClock(arguments.night_hours)
    requests = in_open_time(asked.requests, clock)
    ours = _plan(requests, arguments, clock)
    references = {} if arguments.no_references else REFERENCES
    schedules = {name: reference(requests, arguments.hosts) for name, reference in references.items()}
    report = make_report(asked, ours, schedules, hosts=arguments.hosts, clock=clock)
    show(report)
    return report.figures()


def _plan(requests: Sequence[TraceRequest], arguments: argparse.Namespace, clock: OpenClock) -> OurRun:
    return trace_run.run(
        requests,
        hosts=arguments.hosts,
        slack=arguments.slack == "default",
        night=arguments.night or arguments.night_hours > 0,
        storage=arguments.storage,
        clock=clock,
    )
