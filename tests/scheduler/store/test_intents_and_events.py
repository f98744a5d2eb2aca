"""Intents and events: every kind survives storing, keys are filed once, numbers are seen in order."""

import threading
from dataclasses import replace
from typing import get_args

import pytest
from sqlalchemy import text

from scheduler.core.intents import (
    AddHost,
    ApplyPolicy,
    Cancel,
    ConnectHost,
    Drain,
    Extend,
    FiledIntent,
    Intent,
    Materialise,
    Mend,
    Restart,
    Stop,
    Submit,
    Undrain,
)
from scheduler.core.plan import Decided, Event, Limits, PlanChange, Queue, Rules, event
from scheduler.core.requests import Ask, AtBoundary, HostId, ReservationId, Role
from scheduler.core.windows import Layout
from scheduler.store.codec import intent_from_json
from scheduler.store.failures import Unstorable
from scheduler.store.store import Store
from tests.databases import OpenStore, TestDatabase
from tests.scheduler.store.values import HOST_A, window

RULES = Rules(
    version=3,
    zone="Europe/Berlin",
    outside=Layout(name="day", sizes=frozenset({1, 2, 4}), queues=frozenset({"interactive"})),
    queues=(Queue(name="hpc", at_boundary=AtBoundary.FINISH, is_scratch=True),),
    images=("ubuntu",),
    default_disk_gib=100,
    retention_s=60,
    grace_s=300,
    min_useful_s=1800,
    warnings_s=(900,),
    limits=Limits(gpus_at_once=4),
    source="policy.yaml:3",
)

INTENTS: tuple[Intent, ...] = (
    Submit(
        ask=Ask(owner="ada \0 ∅", queue="hpc", gpus=16, run_s=-5, at_boundary=AtBoundary.KEEP, memory_gib=0, vcpus=3)
    ),
    Cancel(reservation=ReservationId("r-1")),
    Stop(reservation=ReservationId("r-1")),
    Extend(reservation=ReservationId("r-1"), by_s=60),
    Restart(reservation=ReservationId("r-1")),
    AddHost(host=HOST_A, profile="dgx-2", storage="local", connect="qemu:///system"),
    ConnectHost(host=HOST_A, connect="qemu+tls://dgx2-a/system"),
    Drain(host=HOST_A),
    Undrain(host=HOST_A),
    Mend(host=HOST_A, gpu=3),
    ApplyPolicy(rules=RULES, windows=(window(),), hosts=frozenset({HOST_A}), horizon_at=99, text="# night\n"),
    Materialise(policy_version=3, windows=(window("w-1"), window("w-2")), hosts=frozenset({HOST_A}), horizon_at=100),
)


def filed_all(store: Store) -> tuple[FiledIntent, ...]:
    return tuple(store.file_intent(each, at=n, author="ada", role=Role.STUDENT)[0] for n, each in enumerate(INTENTS))


def test_every_kind_of_intent_is_in_the_list_below() -> None:
    assert {type(each) for each in INTENTS} == set(get_args(Intent))


def test_every_kind_of_intent_is_read_as_it_was_filed_and_in_order(store: Store) -> None:
    filed = filed_all(store)
    assert store.open_intents() == filed
    assert [each.intent for each in filed] == list(INTENTS)
    assert [each.seq for each in filed] == sorted({each.seq for each in filed})
    assert store.intent(filed[0].seq) == (filed[0], None)
    assert store.intent(filed[-1].seq + 1) is None


def test_an_intent_of_before_there_were_real_hosts_is_read_as_it_was_meant() -> None:
    added = '{"host":"dgx2-a","kind":"add_host","profile":"dgx-2","storage":"local"}'
    assert intent_from_json(added) == AddHost(host=HOST_A, profile="dgx-2", storage="local", connect="")
    asked = '{"ask":{"gpus":1,"owner":"ada","queue":"hpc","run_s":60},"kind":"submit"}'
    assert intent_from_json(asked) == Submit(ask=Ask(owner="ada", queue="hpc", gpus=1, run_s=60))


def test_an_intent_that_could_never_be_read_again_is_not_filed(store: Store) -> None:
    half = Submit(ask=Ask(owner="ada \ud800", queue="hpc", gpus=1, run_s=60))
    with pytest.raises(Unstorable, match="ud800"):
        store.file_intent(half, at=1, author="ada", role=Role.STUDENT)
    assert store.open_intents() == ()


def test_a_key_is_filed_once_and_the_second_filer_gets_the_first_ones(store: Store) -> None:
    first, is_new = store.file_intent(Drain(host=HOST_A), at=1, author="a", role=Role.POLICY, key="k")
    again, is_new_again = store.file_intent(Undrain(host=HOST_A), at=2, author="b", role=Role.ADMIN, key="k")
    assert (is_new, is_new_again) == (True, False)
    assert again == first
    assert store.open_intents() == (first,)


def test_a_key_stays_taken_after_its_intent_was_decided(store: Store) -> None:
    first, _ = store.file_intent(Drain(host=HOST_A), at=1, author="a", role=Role.POLICY, key="k")
    store.commit_plan(0, PlanChange(decided=(Decided(seq=first.seq),)), at=1)
    assert store.file_intent(Drain(host=HOST_A), at=9, author="a", role=Role.POLICY, key="k") == (first, False)
    assert store.open_intents() == ()


def test_many_filers_of_one_key_at_once_file_one_intent(open_store: OpenStore, database: TestDatabase) -> None:
    shared = open_store()
    stores = [open_store() if database.is_shared else shared for _ in range(4)]
    start = threading.Barrier(4)
    answers: list[tuple[FiledIntent, bool]] = []

    def file(store: Store) -> None:
        for n in range(5):
            start.wait(30)
            answers.append(store.file_intent(Drain(host=HOST_A), at=1, author="t", role=Role.POLICY, key=f"k{n}"))

    filers = [threading.Thread(target=file, args=(each,)) for each in stores]
    for filer in filers:
        filer.start()
    for filer in filers:
        filer.join(60)
    assert len(answers) == 20
    assert sum(is_new for _, is_new in answers) == 5
    assert {filed for filed, _ in answers} == set(shared.open_intents())
    assert len(shared.open_intents()) == 5


def test_equal_intents_are_stored_as_equal_bytes(store: Store) -> None:
    one = replace(RULES.outside, sizes=frozenset([8, 1, 4]), queues=frozenset(["b", "a"]))
    other = replace(RULES.outside, sizes=frozenset([4, 8, 1]), queues=frozenset(["a", "b"]))
    for outside in (one, other):
        rules = replace(RULES, outside=outside)
        store.file_intent(
            ApplyPolicy(rules=rules, windows=(), hosts=frozenset(), horizon_at=1, text=""),
            at=1,
            author="a",
            role=Role.ADMIN,
        )
    with store._database.reading() as connection:
        payloads = connection.execute(text("SELECT payload FROM intent")).scalars().all()
    assert len(payloads) == 2
    assert payloads[0] == payloads[1]


def test_a_policy_is_kept_as_it_was_applied(store: Store) -> None:
    store.commit_plan(0, PlanChange(rules=RULES, policy_text="# a: b\n", horizon_at=9), at=77, author="root")
    kept = store.policy(3)
    assert kept is not None
    assert (kept.version, kept.text, kept.rules, kept.applied_at, kept.author) == (3, "# a: b\n", RULES, 77, "root")
    assert store.policy(4) is None


def test_events_are_read_by_number_kind_reservation_and_notice(store: Store) -> None:
    events = (
        event("vm.started", 1, reservation=ReservationId("r-1"), host=HostId("a"), actor="converge", gpus=4, why=None),
        event("promise.raised", 2, reservation=ReservationId("r-2"), is_notice=True),
        event("vm.started", 3, reservation=ReservationId("r-2")),
    )
    store.append_events(events)
    numbered = store.events()
    assert tuple(each for _, each in numbered) == events
    assert store.events(after_seq=numbered[0][0], limit=1) == (numbered[1],)
    assert store.events(kinds=["vm.started"]) == (numbered[0], numbered[2])
    assert store.events(reservation=ReservationId("r-2")) == (numbered[1], numbered[2])
    assert store.events(only_notices=True) == (numbered[1],)
    assert store.last_event_seq() == numbered[2][0]


def test_an_event_key_is_written_once(store: Store) -> None:
    once = replace(event("warned", 1), key="w")
    store.append_events([once, event("a", 1)])
    store.append_events([replace(once, at=2), event("b", 1), event("c", 1)])
    assert [each.kind for _, each in store.events()] == ["warned", "a", "b", "c"]


def test_a_reader_that_follows_the_numbers_never_passes_over_an_event(
    open_store: OpenStore, database: TestDatabase
) -> None:
    shared = open_store()
    stores = [open_store() if database.is_shared else shared for _ in range(3)]
    each_writes = 20
    start, written = threading.Barrier(3), threading.Semaphore(0)

    def write(store: Store, name: str) -> None:
        start.wait(30)
        for n in range(each_writes):
            store.append_events([event(f"{name} {n}", 1)])
            written.release()

    writers = [threading.Thread(target=write, args=(each, f"t{i}")) for i, each in enumerate(stores)]
    for writer in writers:
        writer.start()
    seen: list[tuple[int, Event]] = []
    for _ in range(3 * each_writes):
        # One look after each commit, while the other writers are somewhere inside of theirs.
        assert written.acquire(timeout=30)
        seen.extend(shared.events(after_seq=seen[-1][0] if seen else 0))
    for writer in writers:
        writer.join(60)
    assert len(seen) == 3 * each_writes


@pytest.mark.parametrize("kind", ["event", "intent"])
def test_a_later_number_is_not_committed_before_an_earlier_one(
    open_store: OpenStore, database: TestDatabase, kind: str
) -> None:
    later_ended_first: list[bool] = []

    def append(store: Store, name: str) -> None:
        if kind == "event":
            store.append_events([event(name, 1)])
        else:
            store.file_intent(Drain(host=HOST_A), at=1, author=name, role=Role.ADMIN)

    def while_the_first_has_its_number(point: str) -> None:
        if point == f"{kind}:before" and not later.ident:
            later.start()
            later.join(0.2)
            later_ended_first.append(not later.is_alive())

    first = open_store(on_commit=while_the_first_has_its_number)
    second = open_store() if database.is_shared else first
    later = threading.Thread(target=append, args=(second, "second"))
    append(first, "first")
    later.join(60)

    assert later_ended_first == [False]
    names = [each.kind for _, each in first.events()] or [each.author for each in first.open_intents()]
    assert names == ["first", "second"]


@pytest.mark.parametrize("count", [0, 1])
def test_appending_nothing_is_nothing(store: Store, count: int) -> None:
    store.append_events([event("x", 1)] * count)
    assert len(store.events()) == count
