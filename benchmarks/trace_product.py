"""A trace through the product's own planning step in simulated time: plan, intents and facts, as the plan task has.

Leads, the minimum useful length and disks are nothing here: the references know none. A closing is a window that lets
no tenant in; whoever runs is parked at its start and resumes after it, perhaps on another block. Without closings what
it decides is what `trace_run` decides, to the second, which is a test; `trace_run` is many times faster.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table

from benchmarks import trace_run
from benchmarks.references import CONSERVATIVE, EASY, REFERENCES
from benchmarks.trace_figures import Waits, over, waits
from benchmarks.trace_report import WIDE, text
from benchmarks.trace_run import DEFAULT_SLACK
from benchmarks.traces import DAY_S, HOUR_S, NIGHT_AT_S, OpenClock, Schedule, TraceRequest, in_open_time, in_wall_time
from scheduler.core.plan import Host, Plan, Queue, Rules
from scheduler.core.planner.deciding import windows_for_each_host
from scheduler.core.rehearsal import Demand, Pace, Rehearsal, Story
from scheduler.core.requests import Ask, AtBoundary, HostId
from scheduler.core.rules import NO_SLACK
from scheduler.core.settings import Settings
from scheduler.core.topology import HandoverBounds, HostProfile
from scheduler.core.windows import Layout, Window, WindowId
from scheduler.profiles.loading import load_profile

QUEUE = "trace"
HORIZON_S = 100 * 366 * DAY_S
TENANTS = Layout(name="tenants", sizes=frozenset({1, 2, 4, 8, 16}), queues=frozenset({QUEUE}))
CLOSED = Layout(name="closed", sizes=frozenset({16}), queues=frozenset())
ENDLESS_GIB = 1 << 40
BOUNDARY_H = 1 / HOUR_S
"""So long hosts are closed where all may come back on other blocks, and nobody is to be closed out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductRun:
    """What the product's planner made of a trace; instants are wall time, in seconds since the file's start."""

    stories: tuple[Story, ...]
    seconds: float
    steps: int

    @property
    def start_at(self) -> list[int]:
        return [story.ran[0].up_at for story in self.stories]

    @property
    def told_at(self) -> list[int]:
        return [story.promise.start_by_at for story in self.stories if story.promise is not None]


def run(
    requests: Sequence[TraceRequest],
    *,
    hosts: int,
    slack: bool = False,
    night_hours: float = 0,
    storage: str = "shared",
    may_be_compiled: bool = True,
) -> ProductRun:
    """Run the requests, which are in wall time."""
    profile = _instant_profile()
    names = [HostId(f"host-{number:04}") for number in range(hosts)]
    plan = Plan(
        version=1,
        rules=_rules(slack=slack),
        horizon_at=HORIZON_S,
        hosts={
            name: Host(id=name, profile=profile, storage=name if storage == "local" else "shared") for name in names
        },
        windows={window.id: window for window in _nights(requests, names, night_hours)},
    )
    demand = [
        Demand(
            at=request.submit_at,
            ask=Ask(owner="somebody", queue=QUEUE, gpus=request.gpus, run_s=request.asked_s, disk_gib=10),
            used_s=request.run_s,
        )
        for request in requests
    ]
    settings = replace(
        Settings(), horizon_s=HORIZON_S, longest_run_s=HORIZON_S, shortest_run_s=1, self_shutdown_ends_after_s=0
    )
    rehearsal = Rehearsal(
        plan,
        demand,
        at=0,
        settings=settings,
        profiles=lambda _: profile,
        pace=Pace(start_share=0, stop_s=0, reset_s=0),
        may_be_compiled=may_be_compiled,
    )
    began = time.perf_counter()
    rehearsal.run()
    seconds = time.perf_counter() - began
    return ProductRun(stories=tuple(rehearsal.stories), seconds=seconds, steps=rehearsal.steps)


def compare(requests: Sequence[TraceRequest], arguments: argparse.Namespace) -> dict[str, object]:
    """Run the step, the scheme, conservative and EASY backfilling; print a table and return the figures.

    Where only a boundary is asked for, hosts are closed for a second.
    """
    night_hours = arguments.night_hours or (BOUNDARY_H if arguments.night else 0)
    clock = OpenClock(night_hours)
    is_slack = arguments.slack == "default"
    ours = run(requests, hosts=arguments.hosts, slack=is_slack, night_hours=night_hours, storage=arguments.storage)
    opened = in_open_time(requests, clock)
    meant = trace_run.run(
        opened,
        hosts=arguments.hosts,
        slack=is_slack,
        night=night_hours > 0,
        storage=arguments.storage,
        clock=clock,
        is_judged=False,
    )
    scheme = in_wall_time(meant.schedule, clock)
    schedules = {"step": Schedule(start_at=ours.start_at, told_at=ours.told_at), "scheme": scheme}
    for name in () if arguments.no_references else (CONSERVATIVE, EASY):
        schedules[name] = in_wall_time(REFERENCES[name](opened, arguments.hosts), clock)
    measured = {name: waits(requests, schedule) for name, schedule in schedules.items()}
    seconds = {"step": ours.seconds, "scheme": meant.seconds}
    figures: dict[str, object] = {
        "requests": len(requests),
        "promises_kept": sum(start <= told for start, told in zip(ours.start_at, ours.told_at, strict=True)),
        "steps": ours.steps,
        "same_starts": sum(one == other for one, other in zip(ours.start_at, scheme.start_at, strict=True)),
        **{name: {**one.figures(), "seconds": seconds.get(name)} for name, one in measured.items()},
    }
    console = Console()
    _show(console, measured, seconds)
    console.print(
        f"{figures['promises_kept']} of {len(requests)} promises kept; "
        f"{figures['same_starts']} starts are those of the scheme; {ours.steps} steps"
    )
    return figures


def _show(console: Console, measured: Mapping[str, Waits], seconds: Mapping[str, float]) -> None:
    table = Table(
        "", "wait, h", "ratio", "told, h", "ratio", "p99", "longest", "8 GPUs", "seconds", title="waits, GPU-weighted"
    )
    reference, easy = measured.get(CONSERVATIVE), measured.get(EASY)
    for name, one in measured.items():
        table.add_row(
            name,
            text(one.gpu_weighted_wait_h),
            text(None if reference is None else over(one.gpu_weighted_wait_h, reference.gpu_weighted_wait_h), 3),
            text(one.told_h),
            text(None if reference is None else over(one.told_h, reference.told_h), 3),
            text(None if reference is None else over(one.p99_h, reference.p99_h), 3),
            text(None if reference is None else over(one.max_h, reference.max_h), 3),
            text(None if easy is None else over(one.wait_h_by_size.get(WIDE), easy.wait_h_by_size.get(WIDE)), 3),
            text(seconds.get(name)),
        )
    console.print(table)
    if reference is not None:
        console.print("Ratios are over conservative backfilling, of those with 8 GPUs over EASY.")


def _instant_profile() -> HostProfile:
    """Return a host of 16 GPUs on which nothing takes time, with disks without end."""
    profile = load_profile("dgx-2")
    starts = tuple((size, 0) for size, _ in profile.bounds.start_s_by_size)
    bounds = HandoverBounds(destroy_s=0, reset_s=0, start_s_by_size=starts)
    return replace(profile, bounds=bounds, pool_gib=ENDLESS_GIB, scratch_gib=0)


def _rules(*, slack: bool) -> Rules:
    return Rules(
        version=1,
        zone="UTC",
        outside=TENANTS,
        queues=(Queue(name=QUEUE, at_boundary=AtBoundary.PARK),),
        images=("any",),
        default_disk_gib=10,
        retention_s=0,
        grace_s=0,
        min_useful_s=1,
        warnings_s=(),
        slack=DEFAULT_SLACK if slack else NO_SLACK,
    )


def _nights(requests: Sequence[TraceRequest], hosts: Sequence[HostId], night_hours: float) -> tuple[Window, ...]:
    """Return the closings from that of the evening before the file until long after its last line."""
    if not night_hours:
        return ()
    length_s = round(night_hours * HOUR_S)
    last_at = requests[-1].submit_at + 120 * DAY_S
    nights = tuple(
        Window(
            id=WindowId(f"night@{start_at}"),
            name="night",
            layout=CLOSED,
            hosts=frozenset(hosts),
            start_at=start_at,
            end_at=start_at + length_s,
            decide_at=start_at,
            only_if_queued=False,
            at_boundary=frozenset({AtBoundary.PARK}),
            warnings_s=(),
            grace_s=0,
            policy_version=1,
        )
        for start_at in range(NIGHT_AT_S - DAY_S, last_at, DAY_S)
    )
    return windows_for_each_host(nights)
