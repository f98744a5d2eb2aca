"""Heartbeats: the last of each part is kept, written seldom, and forgotten when a part is gone for a day."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from scheduler.store.heartbeats import BEAT_EVERY_S, Heartbeat
from scheduler.store.store import Store
from tests.databases import OpenStore, TestDatabase


def test_the_last_heartbeat_of_each_part_is_kept(store: Store) -> None:
    assert store.heartbeats() == ()
    store.beat("worker", "w1", 100.0)
    store.beat("ticker", "w1", 101.5, "every second")
    store.beat("worker", "w1", 105.25, "dgx2-a")
    assert store.heartbeats() == (
        Heartbeat(kind="ticker", name="w1", machine_s=101.5, detail="every second"),
        Heartbeat(kind="worker", name="w1", machine_s=105.25, detail="dgx2-a"),
    )


def test_however_often_a_part_says_it_each_is_written_every_five_seconds(open_store: OpenStore) -> None:
    commits: list[str] = []
    store = open_store(on_commit=commits.append)
    commits.clear()
    written = [
        (tenth, name) for tenth in range(200) for name in ("a", "b") if store.beat("host", name, 100 + tenth / 10)
    ]
    assert written == [(tenth, name) for tenth in (0, 50, 100, 150) for name in ("a", "b")]
    assert commits == ["heartbeat:before", "heartbeat:after"] * 8
    assert BEAT_EVERY_S == 5


def test_a_machine_clock_that_was_put_back_does_not_silence_a_part(store: Store) -> None:
    store.beat("worker", "w1", 1e9)
    assert store.beat("worker", "w1", 50.0)
    assert store.heartbeats() == (Heartbeat(kind="worker", name="w1", machine_s=50.0),)


def test_two_processes_of_one_name_write_over_each_other(open_store: OpenStore, database: TestDatabase) -> None:
    first = open_store()
    second = open_store() if database.is_shared else first
    first.beat("plan", "p", 10)
    second.beat("plan", "p", 16)
    assert first.heartbeats() == (Heartbeat(kind="plan", name="p", machine_s=16),)


def test_what_was_written_before_a_machine_clock_was_put_back_by_days_is_forgotten(store: Store) -> None:
    store.beat("ticker", "of next year", 100 + 365 * 86_400)
    store.beat("worker", "ahead by hours", 100 + 5 * 3600)
    store.beat("worker", "w1", 100)
    assert [beat.name for beat in store.heartbeats()] == ["ahead by hours", "w1"]


def test_parts_that_begin_again_together_after_days_do_not_wait_for_each_other(
    open_store: OpenStore, database: TestDatabase
) -> None:
    shared = open_store()
    stores = [open_store() if database.is_shared else shared for _ in range(6)]
    for day in range(1, 16):
        together = Barrier(len(stores))

        def beat(number: int, now_s: float = day * 2 * 86_400.0, together: Barrier = together) -> bool:
            together.wait(10)
            return stores[number].beat("host", f"host-{number}", now_s)

        with ThreadPoolExecutor(len(stores)) as pool:
            assert all(pool.map(beat, range(len(stores))))


def test_parts_that_stopped_a_day_ago_are_forgotten(store: Store) -> None:
    store.beat("worker", "of yesterday", 100)
    store.beat("worker", "w1", 100 + 86_400)
    assert len(store.heartbeats()) == 2
    store.beat("worker", "w1", 100 + 86_400 + 5)
    assert [beat.name for beat in store.heartbeats()] == ["w1"]
