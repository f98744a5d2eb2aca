"""Tests of a worker's hold on a lease."""

from collections.abc import Iterator
from itertools import count

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


def lease_of(store: Store, clock: SetClock, name: str) -> Lease:
    tokens = (f"{name}/{number}" for number in count())
    return Lease("host:dgx2-a", store, clock, Settings(), lambda: next(tokens))


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
