"""Leases: one holder at a time, by token, until an instant of machine time."""

import threading

import pytest

from scheduler.store.store import Store
from tests.databases import OpenStore, TestDatabase


def test_a_lease_has_one_holder_until_it_expires(store: Store) -> None:
    assert store.acquire_lease("host.a", "one", now_machine_s=0, ttl_s=15)
    assert not store.acquire_lease("host.a", "two", now_machine_s=14.9, ttl_s=15)
    assert store.holds_lease("host.a", "one", 14.9)
    assert not store.holds_lease("host.a", "two", 14.9)
    assert not store.holds_lease("host.a", "one", 15)

    assert store.acquire_lease("host.a", "two", now_machine_s=15, ttl_s=15)
    assert store.holds_lease("host.a", "two", 15)
    assert not store.acquire_lease("host.a", "one", now_machine_s=16, ttl_s=15)


def test_the_holder_renews_before_and_after_it_expires(store: Store) -> None:
    assert store.acquire_lease("host.a", "one", now_machine_s=0, ttl_s=15)
    assert store.acquire_lease("host.a", "one", now_machine_s=5, ttl_s=15)
    assert store.holds_lease("host.a", "one", 19)
    assert store.acquire_lease("host.a", "one", now_machine_s=100, ttl_s=15)
    assert store.holds_lease("host.a", "one", 114)


def test_only_the_holder_can_give_a_lease_up(store: Store) -> None:
    store.acquire_lease("host.a", "one", now_machine_s=0, ttl_s=15)
    store.release_lease("host.a", "two")
    assert store.holds_lease("host.a", "one", 1)
    store.release_lease("host.a", "one")
    store.release_lease("host.a", "one")
    assert store.acquire_lease("host.a", "two", now_machine_s=1, ttl_s=15)


def test_leases_of_different_hosts_do_not_meet(store: Store) -> None:
    assert store.acquire_lease("host.a", "one", now_machine_s=0, ttl_s=15)
    assert store.acquire_lease("host.b", "two", now_machine_s=0, ttl_s=15)


def test_the_leases_of_one_who_is_dead_are_given_up_together_and_those_of_others_are_kept(store: Store) -> None:
    for number, token in enumerate(("w1/a", "w1/b", "w10/a", "W1/a", "w_/a")):
        assert store.acquire_lease(f"host.{number}", token, now_machine_s=0, ttl_s=15)
    assert store.release_leases_of("w1/") == 2
    assert [store.holds_lease(f"host.{n}", t, 1) for n, t in enumerate(("w1/a", "w1/b", "w10/a", "W1/a", "w_/a"))] == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert store.release_leases_of("w1/") == 0
    assert store.acquire_lease("host.0", "w2/a", now_machine_s=1, ttl_s=15)


def test_a_prefix_is_taken_letter_by_letter(store: Store) -> None:
    store.acquire_lease("host.a", "w1/a", now_machine_s=0, ttl_s=15)
    assert [store.release_leases_of(prefix) for prefix in ("w_", "%", "W1/", "w1/ab", "1/")] == [0, 0, 0, 0, 0]
    with pytest.raises(ValueError, match="empty prefix"):
        store.release_leases_of("")
    assert store.holds_lease("host.a", "w1/a", 1)


def test_of_many_takers_at_once_exactly_one_gets_the_lease(open_store: OpenStore, database: TestDatabase) -> None:
    shared = open_store()
    stores = [open_store() if database.is_shared else shared for _ in range(4)]
    start = threading.Barrier(4)
    got: list[str] = []

    def take(store: Store, token: str) -> None:
        start.wait(30)
        if store.acquire_lease("host.a", token, now_machine_s=0, ttl_s=15):
            got.append(token)

    takers = [threading.Thread(target=take, args=(each, f"t{n}")) for n, each in enumerate(stores)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join(60)
    assert len(got) == 1
    assert shared.holds_lease("host.a", got[0], 1)
