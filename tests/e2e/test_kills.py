"""Killed, paused, emptied, blocked or doubled in the middle of a swap: it finishes by itself, and no promise is lost.

With NIGHTSHIFT_E2E=all (`make e2e`) every scenario lives through a whole swap to night and back; otherwise one does, in
which everything is killed at once.
"""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import httpx
import pytest

from cli.data_directory import read_children
from cli.family import API, REDIS, TICKER, WORKER
from tests.e2e.evening import Evening, make_evening
from tests.e2e.kill_stack import HOST, Site
from tests.e2e.night import ROW, SCENARIO, Night, Scenario, Stage
from workers.broker import open_redis
from workers.drivers.simulated.schema import rack_path

SPEED = 20.0
"""A swap to night takes some ten seconds of machine time, a start of `up` as long as a minute of product time."""
QUICK_SPEED = 30.0
PAUSE_S = 60.0
BUSY_S = 8.0
BEATS_WITHIN_S = 10.0
"""Whoever works writes a heartbeat every five seconds."""
EVERYTHING = (WORKER, TICKER, API, REDIS)
EVERY_STAGE = frozenset(Stage)
TO_NIGHT = frozenset({Stage.PARKING, Stage.NIGHT_STARTS})
BACK = frozenset({Stage.RESUMING})


def kill(*names: str) -> Callable[[Site], None]:
    return lambda site: site.kill_children(*names)


def kill_up(site: Site) -> None:
    """Kill the supervisor, and start it again at once."""
    site.kill_up()
    site.start()


def kill_in_turn(site: Site) -> None:
    """Kill one after another, the next as soon as the last one runs again, and the supervisor at the end."""
    for name in EVERYTHING:
        before = site.pid_of(name)
        os.kill(before, signal.SIGKILL)
        site.wait_for(f"{name} runs again", partial(is_another, site, name, before), within_s=20)
    kill_up(site)


def is_another(site: Site, name: str, before: int) -> bool:
    return site.pid_of(name) != before


def kill_everything(site: Site) -> None:
    """Kill all five at one moment, as a power cut does, and start again."""
    pids = [site.pid_of(name) for name in EVERYTHING]
    site.kill_up()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    site.start()


def empty_redis(site: Site) -> None:
    redis = open_redis(site.installation.redis_url)
    try:
        redis.flushall()
    finally:
        redis.close()


def hold_the_database(site: Site) -> None:
    """Let another process write to the database for seconds on end, and ask for something meanwhile."""
    holding = (
        "import sqlite3, sys, threading\n"
        "database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)\n"
        "database.execute('BEGIN IMMEDIATE')\n"
        "print('held', flush=True)\n"
        "threading.Event().wait(float(sys.argv[2]))\n"
        "database.execute('ROLLBACK')\n"
    )
    database = site.data / "nightshift.sqlite3"
    holder = subprocess.Popen(
        [sys.executable, "-c", holding, str(database), str(BUSY_S)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        began_s = time.monotonic()
        answer = httpx.post(
            f"{site.client.address.url}/api/v1/reservations",
            headers={"Authorization": f"Bearer {site.client.address.token}"},
            json={"owner": "ada", "gpus": 1, "run_s": 1800, "not_before_at": "2026-03-03T09:00:00Z"},
            timeout=BUSY_S + 10,
        )
        assert answer.status_code in (201, 202, 503), answer.text
        if answer.status_code == 503:
            assert answer.json()["code"] == "store.busy", answer.text
            assert int(answer.headers["Retry-After"]) > 0
        else:
            assert time.monotonic() - began_s > BUSY_S - 1, "the database was not held"
        assert holder.wait(BUSY_S + 5) == 0
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def pause_the_worker(site: Site) -> None:
    """Stop the one that has the host's lease for a minute, as a machine that swaps or sleeps does, and let it go on."""
    pid = who_has_the_lease(site)
    stop_between_transactions(site, pid)
    began_s = time.monotonic()
    try:
        site.wait_for("the pause is over", lambda: time.monotonic() - began_s >= PAUSE_S, within_s=PAUSE_S + 5)
    finally:
        os.kill(pid, signal.SIGCONT)


def stop_between_transactions(site: Site, pid: int) -> None:
    """Stop a process where it holds no lock of a file: who waits for one of those waits as with a busy database."""
    files = (site.data / "nightshift.sqlite3", rack_path(site.data, HOST))

    def is_stopped_well() -> bool:
        os.kill(pid, signal.SIGSTOP)
        if not any(is_locked(file) for file in files):
            return True
        os.kill(pid, signal.SIGCONT)
        return False

    site.wait_for("the worker is stopped, holding no file", is_stopped_well, within_s=10)


def is_locked(file: Path) -> bool:
    """Whether nobody can write to a database for a while; whoever runs lets go of it sooner."""
    with closing(sqlite3.connect(file, isolation_level=None, timeout=1.0)) as database:
        try:
            database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        database.execute("ROLLBACK")
    return False


def who_has_the_lease(site: Site) -> int:
    """Return the process of the worker that converges the host."""
    pid_by_instance = {child.instance: child.pid for child in read_children(site.installation)}
    pid_by_instance |= {extra.instance: extra.pid for extra in site.extras}
    found: list[int] = []

    def look() -> bool:
        with closing(sqlite3.connect(f"file:{site.data / 'nightshift.sqlite3'}?mode=ro", uri=True)) as database:
            tokens = [str(token) for (token,) in database.execute("SELECT token FROM lease")]
        found[:] = [
            pid for instance, pid in pid_by_instance.items() if any(token.startswith(instance) for token in tokens)
        ]
        return bool(found)

    site.wait_for("somebody has the lease of the host", look, within_s=10)
    return found[0]


def both_work(kind: str) -> Callable[[Site], None]:
    """Disturb nothing, and see that there are two of a kind at it."""

    def look(site: Site) -> None:
        since_s = time.time() - BEATS_WITHIN_S

        def are_two() -> bool:
            with closing(sqlite3.connect(f"file:{site.data / 'nightshift.sqlite3'}?mode=ro", uri=True)) as database:
                (found,) = database.execute(
                    "SELECT count(*) FROM heartbeat WHERE kind = ? AND machine_ms > ?", (kind, since_s * 1000)
                ).fetchone()
            return bool(found == 2)

        site.wait_for(f"two {kind} at work", are_two, within_s=BEATS_WITHIN_S)

    return look


SCENARIOS = (
    # The longest first: these run side by side.
    Scenario(
        name="worker paused for a minute", disturb=pause_the_worker, stages=frozenset({Stage.PARKING}), may_be_late=True
    ),
    Scenario(
        name="worker paused for a minute, another at work",
        disturb=pause_the_worker,
        stages=frozenset({Stage.PARKING}),
        beside=(("worker",),),
    ),
    Scenario(name="worker killed", disturb=kill(WORKER), stages=EVERY_STAGE),
    Scenario(name="ticker killed", disturb=kill(TICKER), stages=EVERY_STAGE),
    Scenario(name="API killed", disturb=kill(API), stages=EVERY_STAGE),
    Scenario(name="Redis killed", disturb=kill(REDIS), stages=EVERY_STAGE),
    Scenario(name="up killed, started again", disturb=kill_up, stages=EVERY_STAGE),
    Scenario(name="all four parts killed at once", disturb=kill(*EVERYTHING), stages=EVERY_STAGE),
    Scenario(name="everything killed at once, up too", disturb=kill_everything, stages=EVERY_STAGE),
    Scenario(name="each killed, one after another", disturb=kill_in_turn, stages=EVERY_STAGE),
    Scenario(name="Redis emptied", disturb=empty_redis, stages=EVERY_STAGE),
    Scenario(name="database busy for 8 s", disturb=hold_the_database, stages=TO_NIGHT),
    Scenario(name="two tickers", disturb=both_work("ticker"), stages=BACK, beside=(("ticker",),)),
    Scenario(
        name="two plan tasks",
        disturb=both_work("plan"),
        stages=BACK,
        # Of a host that is not in the plan, so that it plans and nothing else.
        beside=(("worker", "--plan", "--host", "dgx2-z"),),
    ),
)
QUICK = Scenario(name="everything killed at once, up too", disturb=kill_everything, stages=frozenset({Stage.PARKING}))


IS_ALL = os.environ.get("NIGHTSHIFT_E2E") == "all"


@pytest.fixture(scope="module")
def evening(tmp_path_factory: pytest.TempPathFactory) -> Evening:
    return make_evening(tmp_path_factory.mktemp("evening") / "data")


@pytest.mark.parametrize("scenario", SCENARIOS if IS_ALL else (QUICK,), ids=lambda scenario: scenario.name)
def test_a_swap_finishes_by_itself_and_no_promise_is_lost(
    scenario: Scenario, evening: Evening, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property(SCENARIO, scenario.name)
    site = evening.copy(tmp_path / "data", speed=SPEED if IS_ALL else QUICK_SPEED)
    outcome = Night(site, evening, scenario).live()
    record_property(ROW, outcome.as_row())
