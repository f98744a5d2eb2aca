"""Plan commits: what is written is what is loaded, the version guards, and two can never both win."""

import threading
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from scheduler.core.errors import BrokenInvariant, StalePlan
from scheduler.core.intents import Drain
from scheduler.core.plan import Decided, Plan, PlanChange, apply, event, pinned
from scheduler.core.requests import DiskId, Promise, ReservationId, Role
from scheduler.core.spans import DAY_S
from scheduler.core.topology import PartitionId
from scheduler.core.windows import WindowId, WindowState
from scheduler.store.store import Store
from tests.databases import OpenStore, TestDatabase
from tests.scheduler.store.values import (
    HOST_A,
    booked_disk,
    changes,
    host,
    refused,
    request,
    reservation,
    span,
    window,
)

# Every example commits on top of those before it, so there is nothing to shrink towards.
on_one_store = settings(
    max_examples=20,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def loaded(store: Store) -> Plan:
    return store.load_plan(0, past_at=-1)


def commit(store: Store, change: PlanChange) -> Plan:
    store.commit_plan(store.plan_version(), change, at=50)
    return loaded(store)


@given(data=st.data())
@on_one_store
def test_the_plan_that_is_loaded_is_the_plan_that_was_committed(store: Store, data: st.DataObject) -> None:
    base = loaded(store)
    change = data.draw(changes(base.version))

    version = store.commit_plan(base.version, change, at=1)

    assert version == base.version + 1
    assert loaded(store) == apply(base, change)
    for each in change.reservations:
        assert store.reservation(each.id) == each
    written = store.events(after_seq=store.last_event_seq() - len(change.events))
    assert tuple(each for _, each in written) == change.events


@given(data=st.data())
@on_one_store
def test_rewriting_every_row_leaves_no_trace_of_the_old_one(store: Store, data: st.DataObject) -> None:
    first = data.draw(changes(loaded(store).version))
    commit(store, first)
    base = loaded(store)
    rewritten = tuple(replace(each, spans=each.spans[1:], reasons=(), restart_after=100) for each in first.reservations)
    assert commit(store, PlanChange(reservations=rewritten)) == apply(base, PlanChange(reservations=rewritten))


def test_a_fresh_database_holds_version_zero_and_nothing_else(store: Store) -> None:
    assert store.plan_version() == 0
    assert loaded(store) == Plan()


def test_a_commit_made_from_an_older_version_writes_nothing(store: Store) -> None:
    store.commit_plan(0, PlanChange(hosts=(host(),)), at=1)
    before = loaded(store)

    with pytest.raises(StalePlan) as caught:
        store.commit_plan(0, PlanChange(reservations=(reservation(),), events=(event("x", 1),)), at=1)

    assert caught.value.facts == {"base_version": 0}
    assert loaded(store) == before
    assert store.events() == ()


def test_a_commit_from_a_version_that_does_not_exist_yet_writes_nothing(store: Store) -> None:
    with pytest.raises(StalePlan):
        store.commit_plan(7, PlanChange(hosts=(host(),)), at=1)
    assert loaded(store) == Plan()


def test_of_many_committers_at_once_exactly_one_wins_each_version(
    open_store: OpenStore, database: TestDatabase
) -> None:
    threads = 4
    shared = open_store()
    stores = [open_store() if database.is_shared else shared for _ in range(threads)]
    start, wins, stale = threading.Barrier(threads), [], []

    def compete(store: Store, name: str) -> None:
        for round_ in range(5):
            start.wait(30)
            try:
                store.commit_plan(round_, PlanChange(events=(event(name, 1),)), at=1)
            except StalePlan:
                stale.append(round_)
            else:
                wins.append(round_)
            start.wait(30)

    workers = [threading.Thread(target=compete, args=(each, f"t{n}")) for n, each in enumerate(stores)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)

    assert wins == [0, 1, 2, 3, 4]
    assert len(stale) == 5 * (threads - 1)
    assert shared.plan_version() == 5
    assert len(shared.events()) == 5


def test_two_bookings_may_swap_places_in_one_commit(store: Store) -> None:
    early, late = span(0, 100), span(100, 200)
    commit(store, PlanChange(hosts=(host(),), reservations=(reservation("r-1", early), reservation("r-2", late))))

    plan = commit(store, PlanChange(reservations=(reservation("r-1", late), reservation("r-2", early))))

    assert plan.reservations[ReservationId("r-1")].spans == (late,)
    assert plan.reservations[ReservationId("r-2")].spans == (early,)


def test_bookings_that_follow_each_other_without_a_gap_are_no_double_booking(store: Store) -> None:
    plan = commit(
        store,
        PlanChange(
            hosts=(host(),), reservations=(reservation("r-1", span(0, 100)), reservation("r-2", span(100, 200)))
        ),
    )
    assert len(plan.reservations) == 2


@pytest.mark.parametrize("other", ["4g0-3", "1g3", "2g2-3", "8g0-7", "16g0-15"])
def test_overlapping_partitions_at_one_instant_are_refused_whole(store: Store, other: str) -> None:
    before = commit(store, PlanChange(hosts=(host(),), reservations=(reservation("r-1", span(0, 100)),)))

    with pytest.raises(BrokenInvariant) as caught:
        commit(store, PlanChange(reservations=(reservation("r-2", span(99, 200, PartitionId(other))),)))

    assert caught.value.facts["constraint"] == "span_gpu_no_double_booking"
    assert loaded(store) == before


def test_a_closed_reservation_leaves_the_plan_and_gives_its_gpus_back_but_stays_on_record(store: Store) -> None:
    commit(store, PlanChange(hosts=(host(),), reservations=(reservation("r-1", span(0, 100)),)))
    closed = reservation("r-1", span(0, 100), is_closed=True)

    plan = commit(store, PlanChange(reservations=(closed, reservation("r-2", span(50, 100)))))

    assert set(plan.reservations) == {ReservationId("r-2")}
    assert store.reservation(ReservationId("r-1")) == closed


def test_pinning_writes_the_generation_and_moves_nothing(store: Store) -> None:
    booked = reservation("r-1", span(0, 100), span(200, 300))
    commit(store, PlanChange(hosts=(host(),), reservations=(booked,)))

    plan = commit(store, PlanChange(reservations=(pinned(booked, 250),)))

    assert [each.generation for each in plan.reservations[booked.id].spans] == [None, 1]
    assert plan.reservations[booked.id].generation == 1


def test_a_booking_on_a_host_outside_of_the_plan_is_refused(store: Store) -> None:
    with pytest.raises(BrokenInvariant, match="not in the plan"):
        commit(store, PlanChange(reservations=(reservation("r-1", span(0, 100)),)))
    assert store.plan_version() == 0


def test_another_store_learns_the_hosts_that_a_first_one_added(open_store: OpenStore, database: TestDatabase) -> None:
    first = open_store()
    second = open_store() if database.is_shared else first
    second.load_plan(0)
    commit(first, PlanChange(hosts=(host(),)))

    plan = commit(second, PlanChange(reservations=(reservation("r-1", span(0, 100)),)))

    assert plan.reservations[ReservationId("r-1")].spans == (span(0, 100),)


def test_windows_that_ended_more_than_a_day_ago_are_not_loaded(store: Store) -> None:
    commit(store, PlanChange(windows=(window(),)))
    assert set(store.load_plan(20_000 + DAY_S - 1).windows) == {WindowId("night@1")}
    assert set(store.load_plan(20_000 + DAY_S).windows) == set()
    assert set(store.load_plan(0, past_at=19_999).windows) == {WindowId("night@1")}


def test_a_planned_window_can_be_dropped_and_a_decided_one_cannot(store: Store) -> None:
    decided = window("w-2", WindowState.OPEN)
    before = commit(store, PlanChange(windows=(window("w-1"), decided)))

    with pytest.raises(BrokenInvariant) as caught:
        commit(store, PlanChange(dropped_windows=(WindowId("w-1"), WindowId("w-2"))))
    assert caught.value.facts["constraint"] == "window_decided_is_kept"
    assert loaded(store) == before

    assert set(commit(store, PlanChange(dropped_windows=(WindowId("w-1"),))).windows) == {WindowId("w-2")}


def test_dropping_what_the_same_change_writes_keeps_it(store: Store) -> None:
    change = PlanChange(
        reservations=(reservation(),),
        windows=(window(),),
        disks=(booked_disk(),),
        dropped_windows=(WindowId("night@1"), WindowId("never was")),
        dropped_disks=(DiskId("d-1"), DiskId("never was")),
    )
    base = commit(store, change)
    assert commit(store, change) == apply(base, change)


def test_a_disk_that_never_came_to_be_gives_its_room_back(store: Store) -> None:
    commit(store, PlanChange(reservations=(reservation(),), disks=(booked_disk(),)))
    assert commit(store, PlanChange(dropped_disks=(DiskId("d-1"),))).disks == {}


def test_a_commit_decides_intents_and_says_in_which_version(store: Store) -> None:
    accepted, _ = store.file_intent(Drain(host=HOST_A), at=10, author="root", role=Role.ADMIN)
    denied, _ = store.file_intent(Drain(host=HOST_A), at=11, author="root", role=Role.ADMIN)
    decisions = (Decided(seq=accepted.seq, reservation=ReservationId("r-1")), refused(denied.seq))

    store.commit_plan(0, PlanChange(decided=decisions), at=50)

    assert store.open_intents() == ()
    assert store.intent(accepted.seq) == (accepted, decisions[0])
    assert store.intent(denied.seq) == (denied, decisions[1])
    record = store.intents([accepted.seq])[accepted.seq]
    assert (record.decided_version, record.decided_at) == (1, 50)


def test_an_intent_is_decided_once(store: Store) -> None:
    filed, _ = store.file_intent(Drain(host=HOST_A), at=10, author="root", role=Role.ADMIN)
    commit(store, PlanChange(decided=(Decided(seq=filed.seq),)))

    with pytest.raises(BrokenInvariant) as caught:
        commit(store, PlanChange(decided=(refused(filed.seq),)))

    assert caught.value.facts["constraint"] == "intent_decided_is_final"
    assert store.intent(filed.seq) == (filed, Decided(seq=filed.seq))


def test_deciding_an_intent_that_was_never_filed_writes_nothing(store: Store) -> None:
    with pytest.raises(BrokenInvariant, match="no intent 99"):
        commit(store, PlanChange(hosts=(host(),), decided=(Decided(seq=99),)))
    assert loaded(store) == Plan()


def test_an_owner_may_extend_and_the_promised_end_moves_with_it(store: Store) -> None:
    commit(store, PlanChange(reservations=(reservation(),)))
    extended = replace(reservation(), request=request(run_s=7200), promise=Promise(start_by_at=1000, end_by_at=9000))
    assert commit(store, PlanChange(reservations=(extended,))).reservations[extended.id] == extended


def test_a_fault_may_raise_a_promise_when_it_gives_notice(store: Store) -> None:
    commit(store, PlanChange(reservations=(reservation(),)))
    raised = reservation(promise=Promise(start_by_at=2000, end_by_at=9000), promise_notice=1)
    assert commit(store, PlanChange(reservations=(raised,))).reservations[raised.id] == raised


def test_an_event_whose_key_is_taken_is_skipped_and_the_rest_is_written(store: Store) -> None:
    once = replace(event("warned", 1), key="w-1")
    commit(store, PlanChange(events=(once,)))
    commit(store, PlanChange(events=(once, event("other", 2), replace(once, at=3))))
    assert [each for _, each in store.events()] == [once, event("other", 2)]


def test_reservations_are_listed_newest_first_with_their_spans(store: Store) -> None:
    booked = tuple(
        replace(
            reservation(f"r-{n}", span(n * 100, n * 100 + 50), is_closed=n == 2),
            request=replace(request(f"r-{n}"), submitted_at=n, owner="bob" if n == 3 else "ada"),
        )
        for n in (1, 2, 3)
    )
    commit(store, PlanChange(hosts=(host(),), reservations=booked))
    assert store.reservations() == booked[::-1]
    assert store.reservations(owner="ada", limit=1) == (booked[1],)
    assert store.reservation(ReservationId("r-9")) is None
