"""Limits, with many who file and plan at the same moment on real databases: no two pass one together."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from scheduler.core.plan import Plan
from scheduler.core.reasons import ReasonCode
from scheduler.core.requests import ReservationId
from scheduler.store.store import Store
from tests.databases import OpenStore, TestDatabase
from tests.property.limit_checks import limit_of
from tests.scheduler.service.desktops import (
    CASES,
    MONDAY_AT,
    PEOPLE,
    ROUNDS,
    Desktop,
    given_at_once,
    given_for_later_days,
    given_open,
    given_this_week,
)

LIMIT_S = 120


@pytest.fixture
def desktops(database: TestDatabase, open_store: OpenStore) -> list[Desktop]:
    """Give everybody a plan task and caches of his own, and a store where the database is one that can be shared."""
    one = open_store()
    return [Desktop(open_store() if database.is_shared else one) for _ in PEOPLE]


def refusals(store: Store) -> set[ReasonCode]:
    asked = [store.reservation(ReservationId(f"r-{seq}")) for seq in range(1, 200)]
    reasons = [why for r in asked if r is not None and r.outcome is not None for why in r.reasons]
    return {why.code for why in reasons if why.code is not ReasonCode.INSTEAD}


@pytest.mark.parametrize("case", CASES)
def test_threads_that_ask_at_the_same_moment_do_not_pass_a_limit_together(desktops: list[Desktop], case: str) -> None:
    chosen = CASES[case]
    desktops[0].set_up(chosen.limits)
    start = Barrier(len(PEOPLE))

    def ask(desktop: Desktop, name: str) -> int:
        start.wait(LIMIT_S)
        return desktop.ask_often(chosen, name)

    with ThreadPoolExecutor(max_workers=len(PEOPLE)) as pool:
        seen = list(pool.map(ask, desktops, PEOPLE))
    plan = desktops[0].loaded()
    assert chosen.given(plan) == max(seen) == chosen.most
    # Who need not start at one time has all that he asked for, one after the other.
    is_put_off = case == "at_once_or_later"
    assert refusals(desktops[0].store) == (set() if is_put_off else {ReasonCode.LIMIT})
    assert not is_put_off or given_open(plan) == ROUNDS * len(PEOPLE)


@pytest.mark.parametrize("database", ["sqlite-file", "postgresql"], indirect=True)
@pytest.mark.parametrize("case", ["open", "at_once", "week", "far_ahead"])
def test_processes_that_ask_at_the_same_moment_do_not_pass_a_limit_together(
    database: TestDatabase, open_store: OpenStore, case: str
) -> None:
    chosen, desktop = CASES[case], Desktop(open_store())
    desktop.set_up(chosen.limits)
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.scheduler.service.desktops", database.url, case, name],
            cwd=Path(__file__).parents[3],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in PEOPLE[:3]
    ]
    try:
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        seen = [int(process.communicate(timeout=LIMIT_S)[0]) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert chosen.given(desktop.loaded()) == max(seen) == chosen.most
    assert refusals(desktop.store) == {ReasonCode.LIMIT}


def test_who_asks_cancels_and_extends_at_the_same_moment_passes_no_limit_either(desktops: list[Desktop]) -> None:
    desktops[0].set_up("gpus_at_once: 8, gpu_hours_per_week: 60, far_ahead_gpu_hours: 40, open_reservations: 12")
    start = Barrier(len(PEOPLE))

    def be_fickle(desktop: Desktop, name: str) -> None:
        start.wait(LIMIT_S)
        desktop.be_fickle(name, seed=PEOPLE.index(name))

    with ThreadPoolExecutor(max_workers=len(PEOPLE)) as pool:
        list(pool.map(be_fickle, desktops, PEOPLE))
    plan = desktops[0].loaded()
    assert 0 < given_open(plan) <= _limit(plan, "open_reservations")
    assert 0 < given_at_once(plan) <= _limit(plan, "gpus_at_once")
    assert 0 < given_this_week(plan) <= _limit(plan, "gpu_h_per_week")
    assert 0 < given_for_later_days(plan) <= _limit(plan, "far_ahead_gpu_h")


def _limit(plan: Plan, key: str) -> int:
    assert plan.rules is not None
    found = limit_of(plan.rules, "group lab", key, MONDAY_AT)
    assert isinstance(found, int)
    return found
