"""What one step of the plan costs on a small fleet and on a large one, with as much to do on each host.

A day and a night in simulated time on each fleet: people ask for as much on each host, use a part of it and leave
early. At 20:00 there is a window on every host, and a whole-host job for every fourth: there tenants are parked and go
on in the morning; the others give their night away. The step is the product's own, on values: what is not shown is what
loading and committing cost, and what hosts do.

`ratio` is the mean over that of the first fleet. *Longest* is one step, and *decided* how many windows were in it.
"""

import argparse
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from scheduler.core.intents import FiledIntent
from scheduler.core.layered import different
from scheduler.core.plan import Host, Plan, Queue, Rules
from scheduler.core.planner.deciding import windows_for_each_host
from scheduler.core.rehearsal import Demand, Rehearsal, Story
from scheduler.core.requests import Ask, AtBoundary, HostId
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S, Instant
from scheduler.core.windows import Layout, Window, WindowId
from scheduler.profiles.loading import load_profile

REQUESTS_PER_HOST = 24
SIZES, WEIGHTS = (1, 2, 4, 8), (8, 4, 2, 1)
HPC_HOSTS = 4
"""Of so many hosts one has a whole-host job at night."""
NIGHT_AT_S, NIGHT_S = 20 * HOUR_S, 12 * HOUR_S
MOST_HOSTS = 10_000
DAY = Layout(name="day", sizes=frozenset(SIZES), queues=frozenset({"interactive"}))
NIGHT = Layout(name="night", sizes=frozenset({16}), queues=frozenset({"hpc"}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the steps of one fleet took."""

    hosts: int
    requests: int
    promises_kept: int
    steps: int
    mean_us: float
    p50_us: float
    p99_us: float
    longest_ms: float
    decided: int
    """Windows that were decided or given back in the longest step."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hosts", type=_fleets, default=(10, 100, 1000), help="fleets to compare, with commas (10,100,1000)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of what is asked for (%(default)s)")


def _fleets(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdecimal() and 1 <= int(part) <= MOST_HOSTS for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: write numbers of hosts from 1 to {MOST_HOSTS}, as 10,100,1000")
    return tuple(map(int, parts))


def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure each fleet, print the table and return the figures."""
    found = [measure(hosts, seed=arguments.seed) for hosts in arguments.hosts]
    table = Table("hosts", "requests", "kept", "steps", "mean, us", "ratio", "p50", "p99", "longest, ms", "decided")
    for cost in found:
        table.add_row(
            f"{cost.hosts:,}",
            f"{cost.requests:,}",
            f"{cost.promises_kept:,}",
            f"{cost.steps:,}",
            f"{cost.mean_us:.0f}",
            f"{cost.mean_us / found[0].mean_us:.2f}",
            f"{cost.p50_us:.0f}",
            f"{cost.p99_us:.0f}",
            f"{cost.longest_ms:.0f}",
            f"{cost.decided:,}",
        )
    Console().print(table)
    return {"fleets": [{**asdict(cost), "ratio": cost.mean_us / found[0].mean_us} for cost in found]}


class _Timed(Rehearsal):
    """Takes the time of each step, with how many windows it decided or gave back."""

    def __init__(self, plan: Plan, demand: Sequence[Demand]) -> None:
        profile = load_profile("dgx-2")
        super().__init__(plan, demand, at=0, settings=Settings(), profiles=lambda _: profile)
        self.took: list[tuple[float, int]] = []

    def _step(self, filed: Sequence[FiledIntent], told: Sequence[Story | None]) -> None:
        windows, began = self.plan.windows, time.perf_counter()
        super()._step(filed, told)
        took_s = time.perf_counter() - began
        after = self.plan.windows
        changed = () if after is windows else different(windows, after)
        self.took.append((took_s, sum(key in after and after[key].is_decided for key in changed)))


def measure(hosts: int, *, seed: int) -> Cost:
    """Live one day on a fleet."""
    demand = _demand(hosts, random.Random(seed))
    rehearsal = _Timed(_plan(hosts), demand)
    rehearsal.run(DAY_S + 12 * HOUR_S)
    took_us = sorted(took_s * 1e6 for took_s, _ in rehearsal.took)
    longest_s, decided = max(rehearsal.took)
    return Cost(
        hosts=hosts,
        requests=len(demand),
        promises_kept=sum(_is_kept(story, rehearsal.now) for story in rehearsal.stories),
        steps=rehearsal.steps,
        mean_us=statistics.fmean(took_us),
        p50_us=statistics.median(took_us),
        p99_us=took_us[int(0.99 * (len(took_us) - 1))],
        longest_ms=longest_s * 1e3,
        decided=decided,
    )


def _is_kept(story: Story, now: Instant) -> bool:
    """Whether one was promised a start and started by it, or still has time to."""
    if story.promise is None:
        return False
    return (now if story.started_at is None else story.started_at) <= story.promise.start_by_at


def _demand(hosts: int, draw: random.Random) -> list[Demand]:
    """Return what is asked for from 08:00 to 20:00, in order of time."""
    jobs = [
        Demand(
            at=8 * HOUR_S + number,
            ask=Ask(owner=f"group-{number}", queue="hpc", gpus=16, run_s=8 * HOUR_S, disk_gib=10),
            used_s=6 * HOUR_S,
        )
        for number in range(-(-hosts // HPC_HOSTS))
    ]
    asked = []
    for number in range(REQUESTS_PER_HOST * hosts):
        run_s = draw.choice((1, 2, 4, 8, 12)) * HOUR_S
        asked.append(
            Demand(
                at=draw.randrange(8 * HOUR_S, NIGHT_AT_S),
                ask=Ask(
                    owner=f"student-{number % (8 * hosts)}",
                    queue="interactive",
                    gpus=draw.choices(SIZES, WEIGHTS)[0],
                    run_s=run_s,
                    disk_gib=10,
                ),
                used_s=round(run_s * draw.uniform(0.3, 1.0)),
            )
        )
    return sorted((*jobs, *asked), key=lambda one: one.at)


def _plan(hosts: int) -> Plan:
    profile = load_profile("dgx-2")
    names = [HostId(f"host-{number:05}") for number in range(hosts)]
    nights = tuple(
        Window(
            id=WindowId(f"night@{start_at}"),
            name="night",
            layout=NIGHT,
            hosts=frozenset(names),
            start_at=start_at,
            end_at=start_at + NIGHT_S,
            decide_at=start_at - 75 * MINUTE_S,
            only_if_queued=True,
            at_boundary=frozenset({AtBoundary.PARK}),
            warnings_s=(),
            grace_s=480,
            policy_version=1,
        )
        for start_at in (day * DAY_S + NIGHT_AT_S for day in range(14))
    )
    return Plan(
        version=1,
        rules=Rules(
            version=1,
            zone="UTC",
            outside=DAY,
            queues=(Queue(name="interactive"), Queue(name="hpc", at_boundary=AtBoundary.FINISH, is_scratch=True)),
            images=("any",),
            default_disk_gib=10,
            retention_s=3 * DAY_S,
            grace_s=480,
            min_useful_s=15 * MINUTE_S,
            warnings_s=(),
        ),
        horizon_at=14 * DAY_S,
        hosts={name: Host(id=name, profile=profile, storage=name) for name in names},
        windows={window.id: window for window in windows_for_each_host(nights)},
    )
