"""Who lives and does not work: told by heartbeats that do not move, and by nothing else."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from cli.children import Child
from cli.family import TICKER, WORKER, Family
from cli.installation import Installation
from cli.signs_of_life import SignsOfLife
from cli.stall import STALLED_AFTER_S, StallWatch
from scheduler.store.store import Store
from tests.databases import find_profile_by_name
from tests.running import RedisServer

EVERY_S = 5.0


def looks(watch: StallWatch, until_s: float, beat: Callable[[float], float]) -> list[float]:
    """Look every few seconds and return when it was said that `it`, alive since 0, stalled."""
    times = [n * EVERY_S for n in range(int(until_s / EVERY_S) + 1)]
    return [now_s for now_s in times if watch.stalled({"it": beat(now_s)}, {"it": 0.0}, now_s)]


def test_who_beats_is_never_stalled() -> None:
    assert looks(StallWatch(), 1000, lambda now_s: now_s // 60) == []


def test_who_stops_beating_is_stalled_once_the_limit_is_passed() -> None:
    assert min(looks(StallWatch(), 400, lambda now_s: min(now_s, 200.0))) == 200 + STALLED_AFTER_S + EVERY_S


def test_who_never_beats_is_counted_from_its_start() -> None:
    assert min(looks(StallWatch(), 400, lambda _: 0.0)) == STALLED_AFTER_S + EVERY_S


def test_a_heartbeat_of_the_past_or_the_future_is_no_sign_by_itself() -> None:
    # The machine's clock was set: what counts is that the heartbeat moves, not what it says.
    assert looks(StallWatch(), 400, lambda now_s: -1e9 + now_s) == []
    assert looks(StallWatch(), 400, lambda now_s: 1e9 - now_s) == []


def test_after_a_sleep_of_the_machine_everybody_gets_time_anew() -> None:
    watch = StallWatch()
    watch.stalled({"it": 1.0}, {"it": 0.0}, 5.0)
    assert watch.stalled({"it": 1.0}, {"it": 0.0}, 3600.0) == ()
    later = [3600.0 + n * EVERY_S for n in range(1, 30)]
    assert next(now_s for now_s in later if watch.stalled({"it": 1.0}, {"it": 0.0}, now_s)) > 3600 + STALLED_AFTER_S


def test_a_new_life_is_not_blamed_for_the_last_one() -> None:
    watch = StallWatch()
    for now_s in range(0, 100, 5):
        watch.stalled({}, {"it-1": 0.0}, now_s)
    assert watch.stalled({}, {"it-2": 99.0}, 100.0) == ()


def test_who_is_excused_is_counted_anew() -> None:
    watch = StallWatch()
    for now_s in range(0, 200, 5):
        assert watch.stalled({}, {"it": 0.0}, now_s, excused=frozenset({"it"})) == ()
    assert next(t for t in range(200, 400, 5) if watch.stalled({}, {"it": 0.0}, t)) == 195 + STALLED_AFTER_S + EVERY_S


class AtOnce(Executor):
    """Runs what it is given before it returns."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    """A worker and a ticker that live and do nothing."""
    installation = Installation(data=tmp_path, database_url="sqlite://", redis_url="redis://127.0.0.1:1")
    installation.logs.mkdir()
    found = Family(installation, print)
    for name in (WORKER, TICKER):
        found.add(name, (sys.executable, "-c", "import time; time.sleep(300)"), environment={})
    yield found
    found.kill((WORKER, TICKER))
    found.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store.open(f"sqlite:///{tmp_path / 'it.sqlite3'}", durability="off", profiles=find_profile_by_name)
    found.migrate()
    yield found
    found.close()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


def child(family: Family, name: str) -> Child:
    found = family.get(name)
    assert found is not None
    return found


def watch(family: Family, signs: SignsOfLife, for_s: float, beat: Callable[[float], object]) -> dict[str, float]:
    """Let time pass and return when each child was first said to have stalled, after its start."""
    begun_s = child(family, WORKER).started_at_s
    found: dict[str, float] = {}
    for step in range(int(for_s / EVERY_S)):
        now_s = begun_s + step * EVERY_S
        beat(step * EVERY_S)
        # One look asks, the next one reads.
        for stalled in (*signs.stalled(now_s), *signs.stalled(now_s)):
            found.setdefault(stalled.spec.name, step * EVERY_S)
    return found


def test_a_worker_that_does_not_plan_is_stalled_while_the_ticker_calls(
    family: Family, store: Store, redis: RedisServer
) -> None:
    worker, ticker = child(family, WORKER).instance, child(family, TICKER).instance
    signs = SignsOfLife(family, store, redis.url, AtOnce())

    def beat(after_s: float) -> None:
        store.beat("ticker", ticker, 1000 + after_s)
        store.beat("worker", worker, 1000 + after_s)

    found = watch(family, signs, 200, beat)
    assert list(found) == [WORKER]
    assert found[WORKER] > STALLED_AFTER_S


def test_a_worker_is_not_blamed_while_redis_is_away(family: Family, store: Store) -> None:
    ticker = child(family, TICKER).instance
    signs = SignsOfLife(family, store, "redis+socket:///nonexistent/redis.sock", AtOnce())
    assert watch(family, signs, 200, lambda after_s: store.beat("ticker", ticker, 1000 + after_s)) == {}


def test_a_ticker_that_does_not_tick_is_stalled(family: Family, store: Store, redis: RedisServer) -> None:
    worker = child(family, WORKER).instance
    signs = SignsOfLife(family, store, redis.url, AtOnce())
    found = watch(family, signs, 200, lambda after_s: store.beat("plan", worker, 1000 + after_s))
    assert list(found) == [TICKER]


def test_nobody_is_judged_by_a_database_that_does_not_answer(family: Family, store: Store, redis: RedisServer) -> None:
    signs = SignsOfLife(family, store, redis.url, AtOnce())
    missing = Store.open("sqlite://", durability="off", profiles=find_profile_by_name)
    signs = SignsOfLife(family, missing, redis.url, AtOnce())
    assert watch(family, signs, 200, lambda _: None) == {}
    missing.close()
