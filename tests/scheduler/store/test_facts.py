"""Facts: exactly what was recorded is loaded, only the difference is written, and only by the holder of the lease."""

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import event as sql_event

from scheduler.core.errors import BrokenInvariant, LeaseLost
from scheduler.core.facts import (
    Asked,
    DiskFact,
    ForeignDomain,
    GpuFact,
    GpuState,
    HostFacts,
    HostTrouble,
    Measurement,
    TroubleKind,
    Verb,
    VmEnd,
    VmFact,
)
from scheduler.core.plan import PlanChange, event
from scheduler.core.requests import DiskId, HostId, ReservationId
from scheduler.core.spans import FOREVER
from scheduler.core.topology import PartitionId
from scheduler.store.store import Store
from tests.scheduler.store.values import ALL, FIRST_FOUR, HOST_A, booked_disk, host, reservation, texts

F = TypeVar("F")
NOTHING = HostFacts(host=HOST_A)
instants = st.integers(0, FOREVER)
maybe = st.none() | instants


def vm(
    name: str = "r-1", generation: int = 1, partition: PartitionId = FIRST_FOUR, off_at: int | None = None
) -> VmFact:
    return VmFact(
        reservation=ReservationId(name), generation=generation, partition=partition, asked_at=5, off_at=off_at
    )


@pytest.fixture
def leased(store: Store) -> Store:
    """Give a store that knows host dgx2-a and three reservations, with the host's lease taken by `t` until 100."""
    reservations = tuple(reservation(f"r-{n}") for n in (1, 2, 3))
    store.commit_plan(0, PlanChange(hosts=(host(),), reservations=reservations), at=1)
    assert store.acquire_lease(f"host.{HOST_A}", "t", now_machine_s=0, ttl_s=100)
    return store


def record(store: Store, old: HostFacts, new: HostFacts, token: str = "t", now_machine_s: float = 1) -> HostFacts:
    store.record_facts(HOST_A, token, old, new, now_machine_s=now_machine_s)
    return new


@st.composite
def host_facts(draw: st.DrawFn) -> HostFacts:
    """Draw facts in the order in which they are loaded; at most one VM holds its GPUs."""
    keys = sorted(draw(st.sets(st.tuples(st.sampled_from(["r-1", "r-2", "r-3"]), st.integers(1, 3)))))
    holder = draw(st.integers(0, 9))
    vms = tuple(
        VmFact(
            reservation=ReservationId(name),
            generation=generation,
            partition=draw(st.sampled_from([FIRST_FOUR, ALL])),
            asked_at=draw(instants),
            up_at=draw(maybe),
            running_at=draw(maybe),
            is_agent_silent=draw(st.booleans()),
            stop_asked_at=draw(maybe),
            off_at=None if number == holder else draw(instants),
            end=draw(st.none() | st.sampled_from(VmEnd)),
            problem=draw(texts),
            is_gone=draw(st.booleans()),
        )
        for number, (name, generation) in enumerate(keys)
    )
    disks = st.builds(DiskFact, disk=texts.map(DiskId), size_gib=st.integers(0, 1 << 40), made_at=instants)
    gpus = st.builds(GpuFact, gpu=st.integers(0, 15), state=st.sampled_from(GpuState), since_at=instants, problem=texts)
    asks = st.builds(
        Asked,
        verb=st.sampled_from(Verb),
        subject=texts,
        asked_at=instants,
        until_at=instants,
        attempt=st.integers(1, 9),
    )
    foreign = st.builds(ForeignDomain, uuid=st.uuids(), name=texts, gpus=st.frozensets(st.integers(0, 15), max_size=4))
    troubles = st.builds(HostTrouble, code=texts, kind=st.sampled_from(TroubleKind), problem=texts, mend=texts)
    return HostFacts(
        host=HOST_A,
        boot_id=draw(st.none() | texts),
        seen_at=draw(maybe),
        unreachable_since_at=draw(maybe),
        problem=draw(texts),
        vms=vms,
        gpus=tuple(sorted(draw(_few(gpus, lambda g: g.gpu)), key=lambda g: g.gpu)),
        disks=tuple(sorted(draw(_few(disks, lambda d: d.disk)), key=lambda d: d.disk)),
        asked=tuple(sorted(draw(_few(asks, lambda a: (a.verb, a.subject))), key=lambda a: (a.verb, a.subject))),
        foreign=tuple(sorted(draw(_few(foreign, lambda f: f.uuid)), key=lambda f: str(f.uuid))),
        troubles=tuple(sorted(draw(_few(troubles, lambda t: (t.code, t.problem))), key=lambda t: (t.code, t.problem))),
    )


def _few(values: st.SearchStrategy[F], key: Callable[[F], Hashable]) -> st.SearchStrategy[list[F]]:
    return st.lists(values, max_size=4, unique_by=key)


@given(data=st.data())
@settings(
    max_examples=25,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_the_facts_that_are_loaded_are_the_facts_that_were_recorded(leased: Store, data: st.DataObject) -> None:
    old = leased.load_facts(HOST_A)
    new = data.draw(host_facts())

    record(leased, old, new)

    assert leased.load_facts(HOST_A) == new
    assert leased.load_all_facts() == {HOST_A: new}


def test_a_host_that_was_never_looked_at_has_empty_facts(leased: Store) -> None:
    assert leased.load_facts(HostId("other")) == HostFacts(host=HostId("other"))
    assert leased.load_all_facts() == {HOST_A: NOTHING}


def test_only_what_changed_is_written(leased: Store) -> None:
    vms = tuple(vm(f"r-{n}", off_at=9) for n in (1, 2, 3))
    old = record(leased, NOTHING, replace(NOTHING, seen_at=1, vms=vms))
    written: list[str] = []
    engine = leased._database.engine
    sql_event.listen(engine, "before_cursor_execute", lambda *a: written.append(f"{a[2]} {a[3]}"))

    record(leased, old, replace(old, seen_at=2, vms=(vms[0], replace(vms[1], is_gone=True), vms[2])))

    changes = [line for line in written if line.startswith(("INSERT", "UPDATE", "DELETE"))]
    assert sum("INTO host_fact" in line for line in changes) == 1
    assert sum("INTO vm_fact" in line and "r-2" in line for line in changes) == 1
    assert not any("r-1" in line or "r-3" in line for line in changes)


@pytest.mark.parametrize(("token", "now_machine_s"), [("another", 1), ("t", 100), ("t", 1000)])
def test_without_the_lease_nothing_is_written(leased: Store, token: str, now_machine_s: float) -> None:
    with pytest.raises(LeaseLost):
        leased.record_facts(
            HOST_A,
            token,
            NOTHING,
            replace(NOTHING, seen_at=7, vms=(vm(),)),
            [event("vm.asked", 1)],
            [Measurement(host=HOST_A, what="start", gpus=4, took_s=3, at=1)],
            now_machine_s=now_machine_s,
        )
    assert leased.load_facts(HOST_A) == NOTHING
    assert leased.events() == ()
    assert leased.measurements("start") == ()


def test_the_old_holder_is_fenced_off_once_another_took_the_lease_over(leased: Store) -> None:
    assert leased.acquire_lease(f"host.{HOST_A}", "new", now_machine_s=100, ttl_s=15)
    with pytest.raises(LeaseLost):
        record(leased, NOTHING, replace(NOTHING, seen_at=7), token="t", now_machine_s=99)
    record(leased, NOTHING, replace(NOTHING, seen_at=8), token="new", now_machine_s=101)
    assert leased.load_facts(HOST_A).seen_at == 8


def test_a_second_vm_on_a_held_gpu_is_refused_until_the_first_was_seen_off(leased: Store) -> None:
    first = record(leased, NOTHING, replace(NOTHING, vms=(vm("r-1"),)))

    both = replace(first, vms=(vm("r-1"), vm("r-2", partition=ALL)))
    with pytest.raises(BrokenInvariant) as caught:
        record(leased, first, both)
    assert caught.value.facts["constraint"] == "pk_gpu_hold"
    assert leased.load_facts(HOST_A) == first

    handed_over = replace(first, vms=(vm("r-1", off_at=9), vm("r-2", partition=ALL)))
    record(leased, first, handed_over)
    assert leased.load_facts(HOST_A) == handed_over


def test_a_vm_that_is_forgotten_holds_nothing(leased: Store) -> None:
    first = record(leased, NOTHING, replace(NOTHING, vms=(vm("r-1"),)))
    record(leased, first, replace(first, vms=(vm("r-2"),)))
    assert leased.load_facts(HOST_A).vms == (vm("r-2"),)


def test_vms_of_closed_reservations_are_history_unless_they_are_still_on(leased: Store) -> None:
    on, off = vm("r-1"), vm("r-2", off_at=9)
    record(leased, NOTHING, replace(NOTHING, vms=(on, off)))
    closed = tuple(reservation(name, is_closed=True) for name in ("r-1", "r-2"))
    leased.commit_plan(1, PlanChange(reservations=closed), at=1)
    assert leased.load_facts(HOST_A).vms == (on,)


def test_facts_of_one_host_are_not_loaded_for_another(leased: Store) -> None:
    other = HostId("dgx2-b")
    leased.commit_plan(1, PlanChange(hosts=(host(other),)), at=1)
    leased.acquire_lease(f"host.{other}", "u", now_machine_s=0, ttl_s=100)
    here = record(leased, NOTHING, replace(NOTHING, vms=(vm("r-1"),)))
    there = HostFacts(host=other, vms=(vm("r-2"), vm("r-3", off_at=9)))
    leased.record_facts(other, "u", HostFacts(host=other), there, now_machine_s=1)
    assert leased.load_facts(HOST_A) == here
    assert leased.load_facts(other) == there
    assert leased.load_all_facts() == {HOST_A: here, other: there}


def test_a_deleted_disk_is_loaded_until_its_room_is_given_back(leased: Store) -> None:
    disk = DiskFact(disk=DiskId("d-1"), size_gib=100, made_at=1)
    leased.commit_plan(1, PlanChange(disks=(booked_disk("d-1", until_at=2000),)), at=1)
    made = record(leased, NOTHING, replace(NOTHING, disks=(disk,)))
    deleted = record(leased, made, replace(made, disks=(replace(disk, deleted_at=2000),)))
    assert leased.load_facts(HOST_A) == deleted

    leased.commit_plan(2, PlanChange(dropped_disks=(DiskId("d-1"),)), at=1)

    assert leased.load_facts(HOST_A).disks == ()


def test_events_and_measurements_are_written_with_the_facts(leased: Store) -> None:
    took = [
        Measurement(host=HOST_A, what="start", gpus=gpus, took_s=s, at=1) for gpus, s in ((4, 10), (16, 171), (4, 12))
    ]
    leased.record_facts(HOST_A, "t", NOTHING, NOTHING, [event("vm.started", 3)], took, now_machine_s=1)
    assert [each for _, each in leased.events()] == [event("vm.started", 3)]
    assert leased.measurements("start") == (12, 171, 10)
    assert leased.measurements("start", gpus=4, limit=1) == (12,)
    assert leased.measurements("stop") == ()


def test_facts_of_one_host_cannot_be_recorded_under_the_lease_of_another(leased: Store) -> None:
    with pytest.raises(ValueError, match="cannot be recorded"):
        leased.record_facts(HostId("b"), "t", NOTHING, NOTHING, now_machine_s=1)


def test_a_foreign_domain_comes_and_goes(leased: Store) -> None:
    foreign = ForeignDomain(uuid=UUID(int=7), name="theirs", gpus=frozenset({3, 1}))
    seen = record(leased, NOTHING, replace(NOTHING, foreign=(foreign,)))
    assert leased.load_facts(HOST_A) == seen
    record(leased, seen, NOTHING)
    assert leased.load_facts(HOST_A) == NOTHING
