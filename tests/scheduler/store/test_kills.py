"""Killed just before a commit, nothing was written; killed just after, all of it was; and the store goes on working."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from scheduler.core.facts import HostFacts
from scheduler.core.intents import Drain
from scheduler.core.plan import PlanChange, event
from scheduler.core.requests import Role
from scheduler.store.accounts import User
from scheduler.store.store import Store
from tests.databases import OpenStore
from tests.scheduler.store.values import HOST_A, host

LEASE = f"host.{HOST_A}"
NOTHING = HostFacts(host=HOST_A)


class Killed(BaseException):
    """Not an Exception: nothing on the way may catch it, as nothing can catch a kill -9."""


class Killer:
    """Kills at one point, once."""

    def __init__(self) -> None:
        self.point = ""
        self.seen: list[str] = []

    def __call__(self, point: str) -> None:
        self.seen.append(point)
        if point == self.point:
            self.point = ""
            raise Killed(point)


def file(store: Store) -> None:
    store.file_intent(Drain(host=HOST_A), at=1, author="a", role=Role.ADMIN)


def commit(store: Store) -> None:
    change = PlanChange(hosts=(host(),), events=(event("x", 1),))
    store.commit_plan(store.plan_version(), change, at=1)


def record(store: Store) -> None:
    store.record_facts(HOST_A, "t", NOTHING, replace(NOTHING, seen_at=5), [event("x", 1)], now_machine_s=1)


def append(store: Store) -> None:
    store.append_events([event("x", 1)])


def take(store: Store) -> None:
    store.acquire_lease("host.b", "t", now_machine_s=0, ttl_s=5)


def beat(store: Store) -> None:
    store.beat("ticker", "one", 1)


def add(store: Store) -> None:
    store.accounts.add(User(name="ada", role=Role.ADMIN, created_at=1), by="set-up")


def snapshot(store: Store) -> object:
    return (
        store.load_plan(0),
        store.open_intents(),
        store.load_facts(HOST_A),
        store.events(),
        store.holds_lease("host.b", "t", 1),
        store.heartbeats(),
        store.accounts.all(),
    )


ACTIONS: dict[str, Callable[[Store], None]] = {
    "intent": file,
    "plan": commit,
    "facts": record,
    "event": append,
    "lease": take,
    "heartbeat": beat,
    "account": add,
}


@pytest.mark.parametrize("kind", ACTIONS)
def test_a_kill_before_the_commit_writes_nothing_and_doing_it_again_writes_all(
    open_store: OpenStore, kind: str
) -> None:
    killer = Killer()
    store = open_store(on_commit=killer)
    store.acquire_lease(LEASE, "t", now_machine_s=0, ttl_s=10)
    before = snapshot(store)

    killer.point = f"{kind}:before"
    with pytest.raises(Killed):
        ACTIONS[kind](store)
    assert snapshot(store) == before

    ACTIONS[kind](store)
    assert snapshot(store) != before


@pytest.mark.parametrize("kind", ACTIONS)
def test_a_kill_after_the_commit_loses_nothing(open_store: OpenStore, kind: str) -> None:
    killer = Killer()
    store = open_store(on_commit=killer)
    store.acquire_lease(LEASE, "t", now_machine_s=0, ttl_s=10)
    before = snapshot(store)

    killer.point = f"{kind}:after"
    with pytest.raises(Killed):
        ACTIONS[kind](store)

    assert snapshot(store) != before
    assert killer.seen[-2:] == [f"{kind}:before", f"{kind}:after"]


def test_a_plan_killed_after_its_commit_is_found_at_the_next_version(open_store: OpenStore) -> None:
    killer = Killer()
    store = open_store(on_commit=killer)
    killer.point = "plan:after"
    with pytest.raises(Killed):
        commit(store)
    assert store.plan_version() == 1
    commit(store)
    assert store.plan_version() == 2
