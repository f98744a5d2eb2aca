"""`python -m benchmarks steps`: what the hot paths cost in one process, beside a limit measured in the same run.

The limit is one bare transaction that is on the disk when it returns: whatever is decided has to be committed so. A
ratio under 1 says that deciding costs less than remembering. No peer is measured here. What is not shown is how the
figures look on other machines and disks, so read the ratios.
"""

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cli.in_process import HostSetup, InProcess
from cli.simulation import load_checked_policy
from scheduler.core.intents import FiledIntent, Submit
from scheduler.core.planner.memory import Memory
from scheduler.core.planner.step import step
from scheduler.core.requests import Ask, HostId, Role
from scheduler.core.spans import HOUR_S

MONDAY_AT = 1_772_434_800
HOST = HostId("dgx2-a")
SIZES = (1, 2, 1, 4, 1, 8, 2, 1, 4, 1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--live", type=int, nargs="+", default=[10, 60, 200], help="live reservations on one host")


def run(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Measure, print the table and return its rows."""
    with tempfile.TemporaryDirectory() as directory:
        limit_us = _bare_commit_us(Path(directory))
    rows: list[dict[str, object]] = [
        {"what": "bare durable transaction (the limit)", "live": 0, "us": limit_us, "ratio": 1}
    ]
    for live in arguments.live:
        rows += _measure(live, limit_us)
    rows.sort(key=lambda row: str(row["what"]))
    table = Table("what", "live reservations", "µs (median)", "times the limit")
    for row in rows:
        table.add_row(str(row["what"]), str(row["live"] or ""), f"{row['us']:.0f}", f"{row['ratio']:.2f}")
    Console().print(table)
    return rows


def _median_us(call: Callable[[], object], times: int = 60) -> float:
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        call()
        took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1e6


def _bare_commit_us(directory: Path) -> float:
    connection = sqlite3.connect(directory / "limit.sqlite3", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE plan (version INTEGER)")
    connection.execute("INSERT INTO plan VALUES (0)")

    def commit() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE plan SET version = version + 1")
        connection.execute("COMMIT")

    return _median_us(commit, times=200)


def _measure(live: int, limit_us: float) -> list[dict[str, object]]:
    home = InProcess(now=MONDAY_AT, hosts=(HostSetup(host=HOST, profile="dgx-2", storage=HOST),))
    home.apply_policy(load_checked_policy(None))
    for number in range(live):
        home.do(Submit(ask=_ask(number)), author=f"student-{number}")
    home.agenda.run_until(MONDAY_AT + HOUR_S // 2)
    plan, facts, now = home.plans.current(), home.facts, home.clock.now()
    filed = FiledIntent(seq=10**6, at=now, author="new", role=Role.STUDENT, intent=Submit(ask=_ask(4, owner="new")))

    kept = Memory()

    def plan_step(*intents: FiledIntent) -> object:
        return step(plan, intents, facts, now, settings=home.settings, profiles=home.profile, kept=kept)

    worker = home.workers[HOST]
    found = {
        "planning step with nothing to do": _median_us(plan_step),
        "planning step with one submit": _median_us(lambda: plan_step(filed)),
        "plan task without news": _median_us(home.plan_task.run),
        "converge with nothing to do": _median_us(worker.converge),
        "load the plan": _median_us(lambda: home.store.load_plan(now=now), times=20),
    }
    home.close()
    return [{"what": what, "live": live, "us": us, "ratio": us / limit_us} for what, us in found.items()]


def _ask(number: int, owner: str | None = None) -> Ask:
    return Ask(
        owner=owner or f"student-{number}",
        queue="interactive",
        gpus=SIZES[number % len(SIZES)],
        run_s=(1 + number % 9) * HOUR_S,
        disk_gib=20,
    )
