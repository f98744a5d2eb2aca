"""Tests of the ticker as it runs: many at once, a database that fails, a policy that cannot be read, its two jobs."""

import logging
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from policies.loading import load_policy
from policies.ticker import Ticker, apply_intent
from policies.ticking import STALLED_AFTER_S, Ticking
from scheduler.core.errors import StoreBusy
from scheduler.core.intents import AddHost
from scheduler.core.plan import Plan, PlanChange, Rules
from scheduler.core.requests import HostId, Role
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant
from scheduler.service.clock import ScaledClock
from scheduler.service.facts_cache import FactsCache
from scheduler.service.plan import PlanTask
from scheduler.service.plan_cache import PlanCache
from scheduler.service.submit import Desk
from scheduler.store.store import Store
from tests.databases import find_profile_by_name
from tests.running import ROOT, KeptClock, wait_for

HOST = HostId("dgx2-a")
MONDAY_10_UTC = 1_772_445_600


class StoppedClock:
    """Both times, where a test puts them; product time does not pass by itself."""

    speed = 1.0

    def __init__(self) -> None:
        self.product = MONDAY_10_UTC
        self.machine = 1_700_000_000.0

    def now(self) -> Instant:
        return self.product

    def machine_s(self) -> float:
        return self.machine

    def machine_s_at(self, instant: Instant) -> float | None:
        return None

    def sleep_until(self, instant: Instant) -> None:
        raise AssertionError("a ticker does not sleep")


@dataclass
class Woken:
    """Counts who was woken."""

    times: Counter[str] = field(default_factory=Counter)

    def plan(self) -> None:
        self.times["plan"] += 1

    def host(self, host: HostId) -> None:
        self.times[host] += 1


def ticking_on(store: Store, clock: Any, wake: Woken, name: str = "ticker-1", **more: Any) -> Ticking:
    """Return a ticker as another process has it: with caches of its own."""
    return Ticking(
        store=store,
        clock=clock,
        wake=wake,
        plans=PlanCache(store, clock),
        known_facts=FactsCache(store),
        name=name,
        **{"settings": Settings(), **more},
    )


@dataclass
class Site:
    store: Store
    clock: Any
    plan_task: PlanTask

    def ticking(self, wake: Woken, name: str = "ticker-1", **more: Any) -> Ticking:
        return ticking_on(self.store, self.clock, wake, name, **more)

    def decide(self) -> Plan:
        self.plan_task.run()
        return self.plan_task.plans.current()


def make_site(store: Store, clock: Any) -> Site:
    """Return a site with one host and the university's policy applied."""
    plans, wake = PlanCache(store, clock), Woken()
    plan_task = PlanTask(
        store=store,
        clock=clock,
        wake=wake,
        plans=plans,
        known_facts=FactsCache(store),
        settings=Settings(),
        profiles=find_profile_by_name,
    )
    site = Site(store, clock, plan_task)
    desk = Desk(store=store, clock=clock, wake=wake)
    desk.file(AddHost(host=HOST, profile="dgx-2", storage="local"), author="admin", role=Role.ADMIN)
    text = (ROOT / "policies" / "examples" / "university.yaml").read_text(encoding="utf-8")
    policy = load_policy(text, source="university.yaml")
    assert not isinstance(policy, tuple)
    intent = apply_intent(policy, [HOST], now=clock.now(), version=1, settings=Settings())
    desk.file(intent, author="admin", role=Role.ADMIN)
    assert site.decide().rules is not None
    return site


def open_store(path: Path) -> Store:
    store = Store.open(f"sqlite:///{path}", durability="off", profiles=find_profile_by_name)
    store.migrate()
    return store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path / "plan.sqlite3")
    yield store
    store.close()


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
def site(store: Store, clock: StoppedClock) -> Site:
    return make_site(store, clock)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="policies.ticking")
    return caplog


def test_a_tick_files_what_the_policy_wants_and_wakes_everybody(site: Site, log: pytest.LogCaptureFixture) -> None:
    woken = Woken()
    site.ticking(woken).tick()
    assert woken.times == {"plan": 1, HOST: 1}
    keys = {intent.key for intent in site.store.open_intents()}
    assert "climate-nightly@2026-03-02T20:00#1" in keys
    assert sum(message.startswith("policy.filed ") for message in log.messages) == len(keys)
    beats = [(beat.kind, beat.name) for beat in site.store.heartbeats()]
    assert beats == [("ticker", "ticker-1"), ("windows", "planned")]


def test_two_tickers_on_one_database_file_everything_once(site: Site, tmp_path: Path, clock: StoppedClock) -> None:
    stores = [open_store(tmp_path / "plan.sqlite3") for _ in range(2)]
    tickers = [ticking_on(store, clock, Woken(), f"ticker-{number}") for number, store in enumerate(stores)]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            for one in [pool.submit(ticker.tick) for ticker in tickers]:
                one.result()
            site.decide()
            clock.product += 86_400
            clock.machine += 86_400
    filed = [record.filed for record in site.store.intents(range(1, 1000)).values()]
    keys = [intent.key for intent in filed if intent.key is not None]
    assert len(keys) > 20
    assert len(keys) == len(set(keys))
    assert {beat.name for beat in site.store.heartbeats()} == {"ticker-0", "ticker-1"}
    for store in stores:
        store.close()


def test_a_reservation_that_was_missed_is_caught_up_and_said(
    site: Site, clock: StoppedClock, log: pytest.LogCaptureFixture
) -> None:
    # Two hours into the night: nobody ticked since the morning.
    clock.product += 11 * 3600
    site.ticking(Woken()).tick()
    (caught_up,) = [message for message in log.messages if message.startswith("policy.caught_up ")]
    assert "climate-nightly@2026-03-02T20:00#1" in caught_up


def test_a_database_that_fails_is_told_once_and_the_next_tick_goes_on(
    site: Site, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken = Woken()
    ticking = site.ticking(woken)

    def busy() -> int:
        raise StoreBusy("the database was busy; try again")

    monkeypatch.setattr(site.store, "plan_version", busy)
    for _ in range(10):
        ticking.tick()
    assert not woken.times
    monkeypatch.undo()
    ticking.tick()
    assert woken.times["plan"] == 1
    told = [message for message in log.messages if message.startswith("ticker.tick")]
    assert told == [
        "ticker.tick.failed code=store.busy problem='the database was busy; try again'",
        "ticker.tick.recovered failures=10",
    ]


def test_filing_that_fails_is_told_once_and_everybody_is_woken_all_the_same(
    site: Site, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken = Woken()
    ticking = site.ticking(woken)

    def fail(*_: object, **__: object) -> None:
        raise ValueError("a defect that one policy brings out")

    monkeypatch.setattr(Ticker, "tick", fail)
    for _ in range(3):
        ticking.tick()
    assert woken.times["plan"] == 3
    assert sum(message.startswith("ticker.file.failed") for message in log.messages) == 1
    assert [beat.kind for beat in site.store.heartbeats()] == ["ticker"]


def test_a_stored_policy_that_cannot_be_read_is_told_once_and_the_waking_goes_on(
    site: Site, log: pytest.LogCaptureFixture
) -> None:
    plan = site.decide()
    assert plan.rules is not None
    rules = Rules(**{name: getattr(plan.rules, name) for name in Rules.__dataclass_fields__} | {"version": 2})
    site.store.commit_plan(plan.version, PlanChange(rules=rules, policy_text="version: ["), at=MONDAY_10_UTC)
    woken = Woken()
    ticking = site.ticking(woken)
    for _ in range(5):
        ticking.tick()
    assert woken.times == {"plan": 5, HOST: 5}
    (told,) = [message for message in log.messages if message.startswith("ticker.policy")]
    assert "code=policy.unreadable" in told
    assert "university.yaml:1" in told
    assert not site.store.open_intents()


def test_the_next_due_instant_is_computed_anew_only_when_something_changed(
    site: Site, clock: StoppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticking = site.ticking(Woken())
    ticking.tick()
    site.decide()
    computed = 0
    first_due_at = ticking._first_due_at

    def counted(*arguments: Any) -> Instant | None:
        nonlocal computed
        computed += 1
        return first_due_at(*arguments)

    monkeypatch.setattr(ticking, "_first_due_at", counted)
    for _ in range(5):
        ticking.tick()
    assert computed == 1
    plan = site.decide()
    due_at = ticking.next_due_at(plan)
    assert due_at is not None
    assert due_at > clock.now()
    clock.product = due_at
    later = ticking.next_due_at(plan)
    assert later is not None
    assert later > due_at
    assert computed == 2


@pytest.fixture
def scaled_site(tmp_path: Path) -> Iterator[tuple[Site, KeptClock]]:
    path = tmp_path / "clock.json"
    kept = KeptClock(path, speed=1, now=MONDAY_10_UTC)
    store = open_store(tmp_path / "plan.sqlite3")
    yield make_site(store, ScaledClock(path)), kept
    store.close()
    kept.close()


def test_it_ticks_each_second_until_it_is_stopped(scaled_site: tuple[Site, KeptClock]) -> None:
    woken = Woken()
    ticking = scaled_site[0].ticking(woken)
    ticking.start()
    wait_for("three ticks", lambda: woken.times["plan"] >= 3, within_s=8)
    ticking.stop()
    ticks = woken.times["plan"]
    ticking.stop()
    assert woken.times["plan"] == ticks


def test_what_is_due_before_the_next_tick_wakes_at_its_instant(
    scaled_site: tuple[Site, KeptClock], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, _ = scaled_site
    now = site.clock.now
    due_at = now() + 3
    woken_at: list[Instant] = []

    class Seen(Woken):
        def plan(self) -> None:
            woken_at.append(now())

    # One tick at the start, and the next one in an hour.
    ticking = site.ticking(Seen(), settings=Settings(tick_machine_s=3600))
    monkeypatch.setattr(ticking, "_first_due_at", lambda *_: due_at if now() < due_at else None)
    ticking.start()
    wait_for("the instant that is due", lambda: len(woken_at) == 2, within_s=10)
    ticking.stop()
    assert woken_at[0] < due_at
    assert woken_at[1] == due_at


def test_a_tick_that_takes_long_is_not_run_beside_itself(
    scaled_site: tuple[Site, KeptClock], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, _ = scaled_site
    go_on, at_once = Event(), Counter[str]()

    class Slow(Woken):
        def plan(self) -> None:
            at_once["now"] += 1
            at_once["most"] = max(at_once["most"], at_once["now"])
            self.times["plan"] += 1
            go_on.wait(3)
            at_once["now"] -= 1

    slow = Slow()
    ticking = site.ticking(slow)
    ticking.start()
    wait_for("a tick that began", lambda: slow.times["plan"] == 1, within_s=5)
    assert not go_on.wait(2.2)
    go_on.set()
    wait_for("the next tick", lambda: slow.times["plan"] >= 2, within_s=5)
    ticking.stop()
    assert at_once["most"] == 1


def test_the_tick_goes_on_after_the_machines_clock_was_set_back(
    scaled_site: tuple[Site, KeptClock], log: pytest.LogCaptureFixture
) -> None:
    passed_s = 0.0
    woken = Woken()
    ticking = scaled_site[0].ticking(woken, seconds=lambda: passed_s)
    ticking.start()
    wait_for("a first tick", lambda: woken.times["plan"] >= 1, within_s=5)
    # As after a clock that was set back: the job's next run is an hour away, and no tick comes.
    ticking._scheduler.pause_job("tick")
    before = woken.times["plan"]
    passed_s += STALLED_AFTER_S + 1
    ticking.tend()
    wait_for("ticks", lambda: woken.times["plan"] > before + 1, within_s=5)
    ticking.stop()
    assert any(message.startswith("ticker.tick.failed code=ticker.stalled") for message in log.messages)


def test_before_a_policy_is_applied_it_files_nothing_and_wakes_all_the_same(store: Store, clock: StoppedClock) -> None:
    woken = Woken()
    ticking_on(store, clock, woken).tick()
    assert woken.times == {"plan": 1}
    assert store.open_intents() == ()
