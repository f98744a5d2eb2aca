"""Tests of a worker's hold on a lease."""

from collections.abc import Iterator
from itertools import count
from threading import Event

import pytest

from scheduler.core.settings import Settings
from scheduler.store.store import Store
from tests.databases import find_profile_by_name
from workers.lease import Lease


class SetClock:
    """Machine time where a test puts it; product time does not matter here."""

    def __init__(self) -> None:
        self.machine = 1_700_000_000.0

    def now(self) -> int:
        return 0

    def machine_s(self) -> float:
        return self.machine

    def sleep_until(self, instant: int) -> None:
        raise AssertionError("nobody sleeps here")


@pytest.fixture
def kept() -> Iterator[Store]:
    made = Store.open("sqlite://", durability="off", profiles=find_profile_by_name)
    made.migrate()
    yield made
    made.close()


def lease_of(store: Store, clock: SetClock, name: str, settings: Settings = Settings()) -> Lease:
    tokens = (f"{name}/{number}" for number in count())
    return Lease("host:dgx2-a", store, clock, settings, lambda: next(tokens))


def test_a_lease_is_kept_renewed_in_time_and_taken_by_another_after_its_end(kept: Store) -> None:
    clock = SetClock()
    one, other = lease_of(kept, clock, "one"), lease_of(kept, clock, "other")
    assert one.hold() is True
    clock.machine += 10
    assert (one.hold(), other.hold()) == (False, None)
    clock.machine += 14
    assert (one.is_held(), other.hold()) == (True, None)
    clock.machine += 2
    assert other.hold() is True
    assert one.hold() is None


def test_a_clock_that_is_put_back_leaves_no_lease_that_nobody_can_take_for_an_hour(kept: Store) -> None:
    clock = SetClock()
    one, other = lease_of(kept, clock, "one"), lease_of(kept, clock, "other")
    assert one.hold() is True
    clock.machine -= 3600
    assert one.hold() is False
    clock.machine += Settings().lease_machine_s + 1
    assert other.hold() is True


ONCE_IT_IS_KEPT_S = 60.0
"""For what happens at once, on a machine that is asleep as well."""


def test_a_lease_that_is_kept_outlasts_calls_that_hang(kept: Store) -> None:
    clock = SetClock()
    one = lease_of(kept, clock, "one", Settings(lease_renew_machine_s=0.001))
    other = lease_of(kept, clock, "other")
    assert one.hold() is True
    renewed = Event()
    take = kept.acquire_lease

    def taken(name: str, token: str, *, now_machine_s: float, ttl_s: float) -> bool:
        is_taken = take(name, token, now_machine_s=now_machine_s, ttl_s=ttl_s)
        if token == one.token and now_machine_s == clock.machine:
            renewed.set()
        return is_taken

    kept.acquire_lease = taken  # type: ignore[method-assign]
    with one.kept():
        for _ in range(4):
            # Each call takes most of a lease.
            clock.machine += 10
            renewed.clear()
            assert renewed.wait(ONCE_IT_IS_KEPT_S)
            assert other.hold() is None
    assert one.is_held()


def test_a_lease_that_was_lost_is_not_taken_anew_beside_the_calls(kept: Store) -> None:
    clock = SetClock()
    one, other = lease_of(kept, clock, "one", Settings(lease_renew_machine_s=0.001)), lease_of(kept, clock, "other")
    assert one.hold() is True
    clock.machine += 16
    assert other.hold() is True
    other.release()
    looked = Event()
    holds = kept.holds_lease

    def held(name: str, token: str, now_machine_s: float) -> bool:
        is_held = holds(name, token, now_machine_s)
        looked.set()
        return is_held

    kept.holds_lease = held  # type: ignore[method-assign]
    with one.kept():
        assert looked.wait(ONCE_IT_IS_KEPT_S)
    # Nobody has it now, and a token is not used again after a break.
    assert not one.is_held()
    assert lease_of(kept, clock, "third").hold() is True
