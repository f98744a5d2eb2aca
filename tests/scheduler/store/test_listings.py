"""What people list: reservations by owner, id and state; starts of closed ones; applied policies."""

from dataclasses import replace

import pytest

from scheduler.core.facts import HostFacts, VmEnd, VmFact
from scheduler.core.plan import PlanChange, Reservation, Rules
from scheduler.core.requests import ReservationId
from scheduler.core.windows import Layout
from scheduler.store.listings import AppliedPolicy
from scheduler.store.store import Store
from tests.scheduler.store.values import FIRST_FOUR, HOST_A, host, reservation, span

RULES = Rules(
    version=1,
    zone="UTC",
    outside=Layout(name="day", sizes=frozenset({1, 2}), queues=frozenset({"interactive"})),
    queues=(),
    images=("ubuntu",),
    default_disk_gib=100,
    retention_s=1,
    grace_s=1,
    min_useful_s=1,
    warnings_s=(),
)


def submitted(name: str, at: int, *, owner: str = "ada", ended_at: int | None = None) -> Reservation:
    made = reservation(name, span(at * 1000, at * 1000 + 500), is_closed=ended_at is not None)
    return replace(made, request=replace(made.request, owner=owner, submitted_at=at), ended_at=ended_at)


@pytest.fixture
def listed(store: Store) -> Store:
    """Give a store with three reservations of ada's and one of bob's; two of them are closed."""
    reservations = (
        submitted("r-1", 1, ended_at=100),
        submitted("r-2", 2, ended_at=200),
        submitted("r-3", 3),
        submitted("r-4", 4, owner="bob"),
    )
    store.commit_plan(0, PlanChange(hosts=(host(),), reservations=reservations), at=1)
    return store


def test_reservations_are_listed_by_what_is_given_newest_first(listed: Store) -> None:
    def ids(**given: object) -> list[str]:
        return [each.id for each in listed.reservations(**given)]  # type: ignore[arg-type]

    assert ids() == ["r-4", "r-3", "r-2", "r-1"]
    assert ids(limit=2) == ["r-4", "r-3"]
    assert ids(owner="ada") == ["r-3", "r-2", "r-1"]
    assert ids(owner="ada", limit=1) == ["r-3"]
    assert ids(owner="eve") == []
    assert ids(is_closed=True) == ["r-2", "r-1"]
    assert ids(is_closed=False) == ["r-4", "r-3"]
    assert ids(ended_since_at=200) == ["r-4", "r-3", "r-2"]
    assert ids(ended_since_at=201, owner="ada") == ["r-3"]
    assert ids(ended_since_at=200, is_closed=True) == ["r-2"]
    assert ids(ended_since_at=100, is_closed=True, limit=1) == ["r-2"]
    assert ids(ended_since_at=200, is_closed=False, owner="ada") == ["r-3"]
    assert ids(ids=["r-1", "r-4", "r-9"]) == ["r-4", "r-1"]
    assert ids(ids=["r-1", "r-4"], owner="bob") == ["r-4"]
    assert ids(ids=[]) == []


def test_what_is_listed_has_its_spans(listed: Store) -> None:
    found = listed.reservations(owner="ada", limit=2)
    assert [each.spans for each in found] == [(span(3000, 3500),), (span(2000, 2500),)]
    assert found[0] == listed.reservation(ReservationId("r-3"))


def test_the_starts_of_a_closed_reservation_are_still_told_when_facts_have_let_go_of_them(listed: Store) -> None:
    def vm(name: str, generation: int, off_at: int | None) -> VmFact:
        end = None if off_at is None else VmEnd.STOPPED
        return VmFact(
            reservation=ReservationId(name),
            generation=generation,
            partition=FIRST_FOUR,
            asked_at=10 * generation,
            running_at=10 * generation + 5,
            off_at=off_at,
            end=end,
            is_gone=off_at is not None,
        )

    ended, running = (vm("r-1", 2, 30), vm("r-1", 1, 19)), vm("r-3", 1, None)
    listed.acquire_lease(f"host.{HOST_A}", "t", now_machine_s=0, ttl_s=10)
    nothing = HostFacts(host=HOST_A)
    listed.record_facts(HOST_A, "t", nothing, replace(nothing, vms=(*ended, running)), now_machine_s=1)
    assert listed.load_facts(HOST_A).vms == (running,)

    found = listed.reservation_vms([ReservationId(name) for name in ("r-1", "r-2", "r-3")])

    assert found == {
        "r-1": [(HOST_A, ended[1]), (HOST_A, ended[0])],
        "r-2": [],
        "r-3": [(HOST_A, running)],
    }
    assert listed.reservation_vms([]) == {}


def test_applied_policies_are_listed_newest_first(store: Store) -> None:
    assert store.policies() == ()
    for version, author in ((1, "set-up"), (2, "root")):
        change = PlanChange(rules=replace(RULES, version=version), policy_text=f"version: {version}")
        store.commit_plan(version - 1, change, at=100 * version, author=author)
    assert store.policies() == (
        AppliedPolicy(version=2, applied_at=200, author="root"),
        AppliedPolicy(version=1, applied_at=100, author="set-up"),
    )
