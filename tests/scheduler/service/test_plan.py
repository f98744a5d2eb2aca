"""The plan task on real databases: intents in order, one winner at a time, limits that two at once cannot pass."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from policies.loading import load_policy
from policies.ticker import apply_intent
from scheduler.core.errors import StoreBusy
from scheduler.core.intents import (
    AddHost,
    ApplyPolicy,
    Cancel,
    ConnectHost,
    Drain,
    Extend,
    Intent,
    Materialise,
    Mend,
    Restart,
    Stop,
    Submit,
    reservation_id,
)
from scheduler.core.plan import Decided, Event, Limits, PlanChange
from scheduler.core.planner.explaining import QUOTED, why
from scheduler.core.reasons import ReasonCode, sentence
from scheduler.core.replay import VirtualClock
from scheduler.core.requests import Ask, AtBoundary, HostId, ReservationId, Role
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, HOUR_S
from scheduler.core.topology import HostProfile
from scheduler.core.windows import WindowState
from scheduler.profiles.loading import load_profile
from scheduler.service.facts_cache import FactsCache
from scheduler.service.plan import PlanTask
from scheduler.service.plan_cache import PlanCache
from scheduler.service.quote import quote_ask
from scheduler.service.submit import Desk
from scheduler.store.failures import Unstorable
from scheduler.store.store import Store

MONDAY_AT = 1_772_434_800  # 2026-03-02 08:00 in Berlin
HOST = HostId("dgx2-a")
SETTINGS = Settings()
PROFILE = load_profile("dgx-2")
POLICY = """
version: 1
zone: Europe/Berlin
layouts:
  day: {sizes: [1, 2, 4, 8], queues: [interactive]}
  night: {sizes: [16], queues: [hpc]}
outside: day
queues:
  interactive: {at_boundary: park}
  hpc: {at_boundary: finish, scratch: true}
images: [ubuntu]
limits: {open_reservations: 3}
windows:
  - {name: night, layout: night, opens: "0 20 * * *", for: 12h, only_if_queued: true}
"""


class Nobody:
    """Wakes nobody: these tests say themselves who looks."""

    def plan(self) -> None:
        pass

    def host(self, host: HostId) -> None:
        pass


class Office:
    """A desk and as many plan tasks as a test wants, on one database."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.clock = VirtualClock(MONDAY_AT)
        self.desk = Desk(store=store, clock=self.clock, wake=Nobody())
        policy = load_policy(POLICY, source="policy.yaml")
        assert not isinstance(policy, tuple), policy
        self.task = self.new_task()
        host = AddHost(host=HOST, profile="dgx-2", storage=HOST)
        apply = apply_intent(policy, [HOST], now=MONDAY_AT, version=1, settings=SETTINGS)
        self.desk.file(host, author="root", role=Role.ADMIN)
        self.desk.file(apply, author="root", role=Role.ADMIN)
        self.task.run()

    def new_task(self) -> PlanTask:
        return PlanTask(
            store=self.store,
            clock=self.clock,
            wake=Nobody(),
            plans=PlanCache(self.store, self.clock),
            known_facts=FactsCache(self.store),
            settings=SETTINGS,
            profiles=lambda _: PROFILE,
        )

    def submit(self, author: str, gpus: int = 1, **wish: object) -> int:
        ask = replace(Ask(owner=author, queue="interactive", gpus=gpus, run_s=HOUR_S), **wish)  # type: ignore[arg-type]
        role = Role.STUDENT if ask.owner == author else Role.ADMIN
        return self.desk.file(Submit(ask=ask), author=author, role=role).seq

    def decided(self, seq: int) -> Decided:
        found = self.desk.decision(seq)
        assert found is not None
        return found


@pytest.fixture
def office(store: Store) -> Office:
    return Office(store)


def test_intents_are_decided_in_the_order_in_which_they_came(office: Office) -> None:
    seqs = [office.submit(f"student-{number}", gpus=8) for number in range(3)]
    office.task.run()
    plan = office.store.load_plan(now=MONDAY_AT)
    starts = [plan.reservations[reservation_id(seq)].spans[0].start_at for seq in seqs]
    assert starts[0] == starts[1] == MONDAY_AT
    assert starts[2] > MONDAY_AT


def test_a_policy_is_kept_under_the_name_of_whoever_applied_it(office: Office) -> None:
    assert [(policy.version, policy.author) for policy in office.store.policies()] == [(1, "root")]


def test_a_run_without_news_changes_nothing(office: Office) -> None:
    office.submit("ada")
    first = office.task.run()
    assert first.is_changed
    assert office.task.run() == replace(first, is_changed=False)


def test_a_plan_task_that_lost_its_commit_decides_anew_on_the_newer_plan(office: Office) -> None:
    slow, fast = office.new_task(), office.new_task()
    slow.run()
    slow.plans.current()
    office.submit("ada", gpus=8)
    fast.run()
    second = office.submit("bela", gpus=8)
    assert slow.run().is_changed
    plan = office.store.load_plan(now=MONDAY_AT)
    assert plan.reservations[reservation_id(second)].spans[0].start_at == MONDAY_AT
    assert len({r.spans[0].partition for r in plan.reservations.values()}) == 2


def test_requests_at_once_cannot_pass_a_limit_together(office: Office) -> None:
    tasks = [office.new_task() for _ in range(4)]

    def ask_and_plan(task: PlanTask) -> int:
        seq = office.submit("ada")
        task.run()
        return seq

    with ThreadPoolExecutor(max_workers=4) as pool:
        seqs = [seq for round_ in range(2) for seq in pool.map(ask_and_plan, tasks)]
    office.task.run()
    outcomes = [office.decided(seq) for seq in seqs]
    assert sum(decided.is_accepted for decided in outcomes) == 3
    refused = [decided for decided in outcomes if not decided.is_accepted]
    assert {r.code for decided in refused for r in decided.reasons} == {ReasonCode.LIMIT}


def test_an_intent_is_decided_once_however_many_tasks_run(office: Office) -> None:
    seq = office.submit("ada")
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda task: task.run(), [office.new_task() for _ in range(4)]))
    told = [e for _, e in office.store.events(limit=1000) if e.kind == "reservation.promised"]
    assert [e.reservation for e in told] == [reservation_id(seq)]


def test_a_quote_books_nothing_and_says_what_a_submit_would_be_told(office: Office) -> None:
    ask = Ask(owner="ada", queue="interactive", gpus=4, run_s=15 * HOUR_S)
    plans = PlanCache(office.store, office.clock)
    quote = quote_ask(ask, store=office.store, plans=plans, clock=office.clock, settings=SETTINGS)
    version = office.store.plan_version()
    assert quote.plan_version == version
    assert QUOTED not in office.store.load_plan(now=MONDAY_AT).reservations
    seq = office.submit("ada", gpus=4, run_s=15 * HOUR_S)
    office.task.run()
    booked = office.store.load_plan(now=MONDAY_AT).reservations[reservation_id(seq)]
    assert (quote.promise, quote.spans) == (booked.promise, booked.spans)
    assert len(quote.spans) == 2
    assert quote.promise is not None
    assert quote.likely_start_at is not None
    assert quote.likely_start_at < quote.promise.start_by_at


def test_a_quote_that_is_a_no_has_reasons(office: Office) -> None:
    ask = Ask(owner="ada", queue="interactive", gpus=3, run_s=HOUR_S)
    plans = PlanCache(office.store, office.clock)
    quote = quote_ask(ask, store=office.store, plans=plans, clock=office.clock, settings=SETTINGS)
    assert quote.promise is None
    assert [r.code for r in quote.reasons] == [ReasonCode.UNKNOWN_SIZE]


def test_whoever_waits_is_told_why(office: Office) -> None:
    for owner in ("ada", "bela", "chen"):
        office.submit(owner, gpus=8)
    office.task.run()
    plans = PlanCache(office.store, office.clock)
    waiting = next(r for r in plans.current().reservations.values() if r.spans[0].start_at > MONDAY_AT)
    reasons = why(plans.current(), office.store.load_all_facts(), waiting, office.clock.now(), SETTINGS)
    assert {ReasonCode.WAITS_FOR_TIME, ReasonCode.HELD_BY} <= {r.code for r in reasons}


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ({"gpus": 0}, ReasonCode.UNKNOWN_SIZE),
        ({"gpus": -4}, ReasonCode.UNKNOWN_SIZE),
        ({"gpus": 3}, ReasonCode.UNKNOWN_SIZE),
        ({"gpus": 17}, ReasonCode.UNKNOWN_SIZE),
        ({"gpus": 16}, ReasonCode.UNKNOWN_SIZE),
        ({"run_s": 0}, ReasonCode.BAD_DURATION),
        ({"run_s": -60}, ReasonCode.BAD_DURATION),
        ({"run_s": 10**12}, ReasonCode.BAD_DURATION),
        ({"not_before_at": MONDAY_AT - 1}, ReasonCode.IN_THE_PAST),
        ({"not_before_at": -(10**30), "start_by_at": MONDAY_AT + 7200}, ReasonCode.IN_THE_PAST),
        ({"not_before_at": -(10**17), "start_by_at": MONDAY_AT + 7200}, ReasonCode.IN_THE_PAST),
        ({"start_by_at": MONDAY_AT - 1, "not_before_at": MONDAY_AT - 1}, ReasonCode.IN_THE_PAST),
        ({"not_before_at": MONDAY_AT + 400 * 24 * HOUR_S}, ReasonCode.BEYOND_HORIZON),
        (
            {"not_before_at": MONDAY_AT + 2 * HOUR_S, "start_by_at": MONDAY_AT + HOUR_S},
            ReasonCode.END_BEFORE_START,
        ),
        ({"queue": "fast"}, ReasonCode.UNKNOWN_QUEUE),
        ({"image": "windows-95"}, ReasonCode.UNKNOWN_IMAGE),
        ({"disk_gib": 10**9}, ReasonCode.BAD_DISK),
        ({"disk_gib": -1}, ReasonCode.BAD_DISK),
        ({"memory_gib": 10**30}, ReasonCode.BAD_SHARE),
        ({"vcpus": -1}, ReasonCode.BAD_SHARE),
        ({"ssh_key": "not a key"}, ReasonCode.BAD_TEXT),
        ({"ssh_key": "ssh-ed25519 AAAA\x00 me"}, ReasonCode.BAD_TEXT),
        ({"owner": "a\x00b"}, ReasonCode.BAD_TEXT),
        ({"owner": ""}, ReasonCode.BAD_TEXT),
        ({"queue": "a\x00b"}, ReasonCode.UNKNOWN_QUEUE),
        ({"image": "\x00"}, ReasonCode.UNKNOWN_IMAGE),
        ({"gpus": 10**30}, ReasonCode.UNKNOWN_SIZE),
        ({"run_s": 10**30}, ReasonCode.BAD_DURATION),
        ({"not_before_at": 10**30}, ReasonCode.BEYOND_HORIZON),
        ({"ssh_key": ""}, ReasonCode.BAD_TEXT),
        ({"continues": ReservationId("r-999")}, ReasonCode.DISK_NOT_KEPT),
        ({"at_boundary": AtBoundary.KEEP}, ReasonCode.BOUNDARY_NOT_ALLOWED),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason_and_books_nothing(
    office: Office, wish: dict[str, object], code: ReasonCode
) -> None:
    seq = office.submit("ada", **wish)  # type: ignore[arg-type]
    office.task.run()
    decided = office.decided(seq)
    assert code in {r.code for r in decided.reasons}
    plan = office.store.load_plan(now=MONDAY_AT)
    assert not plan.reservations
    assert not plan.disks
    kept = office.store.reservation(reservation_id(seq))
    assert kept is not None
    assert kept.reasons == decided.reasons


def soundness() -> tuple[ApplyPolicy, Materialise]:
    """Two intents that would be taken on if nothing in them were spoilt."""
    policy = load_policy(POLICY, source="policy.yaml")
    assert not isinstance(policy, tuple)
    apply = apply_intent(policy, [HOST], now=MONDAY_AT, version=2, settings=SETTINGS)
    horizon_at = apply.horizon_at + DAY_S
    return apply, Materialise(
        policy_version=1, windows=apply.windows[-1:], hosts=frozenset({HOST}), horizon_at=horizon_at
    )


APPLY, MATERIALISE = soundness()
NIGHT = APPLY.windows[0]
SPOILT_WINDOWS = (
    replace(NIGHT, end_at=NIGHT.start_at - 1),
    replace(NIGHT, end_at=NIGHT.start_at),
    replace(NIGHT, decide_at=NIGHT.start_at + 1),
    replace(NIGHT, end_at=10**30),
    replace(NIGHT, state=WindowState.OPEN),
    replace(NIGHT, state=WindowState.RELEASED, released_from_at=NIGHT.start_at),
    replace(NIGHT, grace_s=-1),
    replace(NIGHT, grace_s=10**30),
    replace(NIGHT, warnings_s=(0,)),
    replace(NIGHT, name="a\x00b"),
)
POISON: tuple[Intent, ...] = (
    AddHost(host=HostId("dgx2-b"), profile="nope", storage="b", policy_version=1, horizon_at=APPLY.horizon_at),
    AddHost(host=HostId("dgx2-b"), profile="/etc/passwd", storage="b", policy_version=1, horizon_at=APPLY.horizon_at),
    AddHost(host=HostId(""), profile="dgx-2", storage="b", policy_version=1, horizon_at=APPLY.horizon_at),
    AddHost(host=HostId("b\x00"), profile="dgx-2", storage="b", policy_version=1, horizon_at=APPLY.horizon_at),
    AddHost(host=HostId("b"), profile="dgx-2", storage="", policy_version=1, horizon_at=APPLY.horizon_at),
    AddHost(host=HostId("b"), profile="dgx-2", storage="b"),
    AddHost(host=HOST, profile="dgx-2", storage="b", policy_version=1, horizon_at=APPLY.horizon_at),
    AddHost(
        host=HostId("b"),
        profile="dgx-2",
        storage="b",
        connect="qemu+tcp://dgx2-b/system",
        policy_version=1,
        horizon_at=APPLY.horizon_at,
    ),
    ConnectHost(host=HOST, connect=""),
    ConnectHost(host=HOST, connect="\x00"),
    ConnectHost(host=HostId("nope"), connect="qemu:///system"),
    Drain(host=HostId("nope")),
    Drain(host=HostId("\x00")),
    Mend(host=HOST, gpu=16),
    Mend(host=HOST, gpu=-1),
    Cancel(reservation=ReservationId("\x00")),
    Cancel(reservation=ReservationId("r-999")),
    Stop(reservation=ReservationId("")),
    Restart(reservation=ReservationId("r-999")),
    Extend(reservation=ReservationId("r-999"), by_s=10**30),
    *(replace(APPLY, windows=(window,)) for window in SPOILT_WINDOWS),
    *(replace(MATERIALISE, windows=(window,)) for window in SPOILT_WINDOWS),
    replace(APPLY, rules=replace(APPLY.rules, version=1)),
    replace(APPLY, rules=replace(APPLY.rules, version=10**30)),
    replace(APPLY, rules=replace(APPLY.rules, retention_s=-1)),
    replace(APPLY, rules=replace(APPLY.rules, retention_s=10**30)),
    replace(APPLY, rules=replace(APPLY.rules, grace_s=-1)),
    replace(APPLY, rules=replace(APPLY.rules, grace_s=10**30)),
    replace(APPLY, rules=replace(APPLY.rules, queues=())),
    replace(APPLY, rules=replace(APPLY.rules, images=())),
    replace(APPLY, rules=replace(APPLY.rules, default_disk_gib=0)),
    replace(APPLY, rules=replace(APPLY.rules, limits=Limits(gpus_at_once=-5))),
    replace(APPLY, rules=replace(APPLY.rules, limits=Limits(open_reservations=0))),
    replace(APPLY, horizon_at=MONDAY_AT - 1),
    replace(APPLY, horizon_at=10**30),
    replace(APPLY, text="\x00"),
    replace(APPLY, hosts=frozenset()),
    replace(MATERIALISE, hosts=frozenset()),
    replace(MATERIALISE, policy_version=7),
    replace(MATERIALISE, horizon_at=10**30),
)


@pytest.mark.parametrize("intent", POISON, ids=lambda intent: intent.kind)
def test_no_intent_is_poison_it_is_refused_whole_and_the_next_one_is_decided(office: Office, intent: Intent) -> None:
    before = office.store.load_plan(now=MONDAY_AT)
    filed = office.desk.file(intent, author="root", role=Role.ADMIN)
    seq = office.submit("ada")
    office.task.run()
    reasons = office.decided(filed.seq).reasons
    assert reasons
    assert all(r.code is not ReasonCode.DEFECT and sentence(r) for r in reasons)
    assert office.decided(seq).is_accepted
    after = office.store.load_plan(now=MONDAY_AT)
    assert (after.rules, after.windows, after.hosts) == (before.rules, before.windows, before.hosts)


@pytest.mark.parametrize("run_s", [1.5, float("nan"), None, "3600"])
def test_a_value_of_the_wrong_type_is_not_even_filed(office: Office, run_s: object) -> None:
    with pytest.raises(Unstorable, match="cannot be filed"):
        office.submit("ada", run_s=run_s)
    assert office.store.open_intents() == ()


def test_a_defect_in_deciding_one_intent_refuses_it_and_keeps_nobody_else_waiting(office: Office) -> None:
    def broken(name: str) -> HostProfile:
        raise RuntimeError(f"nobody foresaw {name}")

    office.task.profiles = broken
    first = office.submit("ada")
    host = AddHost(host=HostId("b"), profile="dgx-2", storage="b", policy_version=1, horizon_at=APPLY.horizon_at)
    culprit = office.desk.file(host, author="root", role=Role.ADMIN)
    last = office.submit("bela")
    office.task.run()
    assert office.decided(first).is_accepted
    assert office.decided(last).is_accepted
    assert [r.code for r in office.decided(culprit.seq).reasons] == [ReasonCode.DEFECT]
    assert [e.is_notice for _, e in office.store.events(limit=1000) if e.kind == "intent.defect"] == [True]


def test_a_defect_that_no_intent_caused_is_told_once_a_day_and_raised_each_time(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0

    def broken(*_: object, **__: object) -> PlanChange:
        nonlocal steps
        steps += 1
        raise RuntimeError(f"nobody foresaw these facts at step {steps}")

    def run_all() -> None:
        for task in (office.task, office.task, office.new_task()):
            task._settled_version = None
            with pytest.raises(RuntimeError, match="nobody foresaw"):
                task.run()

    def told() -> list[Event]:
        return [e for _, e in office.store.events(limit=1000) if e.kind == "plan.defect"]

    monkeypatch.setattr("scheduler.service.plan.step", broken)
    run_all()
    assert [(e.is_notice, "facts at step 1" in str(dict(e.facts)["problem"])) for e in told()] == [(True, True)]
    office.submit("ada")
    run_all()
    assert len(told()) == 1, "nor is it the fault of who asks meanwhile"
    office.clock.move_to(office.clock.now() + DAY_S)
    run_all()
    assert len(told()) == 2


def test_trouble_of_the_database_is_no_defect(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object, **__: object) -> PlanChange:
        raise StoreBusy("the database was busy for too long")

    monkeypatch.setattr("scheduler.service.plan.step", busy)
    office.task._settled_version = None
    with pytest.raises(StoreBusy):
        office.task.run()
    assert [e for _, e in office.store.events(limit=1000) if e.kind == "plan.defect"] == []


def test_a_defect_that_cannot_be_told_is_raised_all_the_same(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> PlanChange:
        raise RuntimeError("nobody foresaw these facts")

    def busy(_: object) -> None:
        raise StoreBusy("the database was busy for too long")

    monkeypatch.setattr("scheduler.service.plan.step", broken)
    monkeypatch.setattr(office.store, "append_events", busy)
    office.task._settled_version = None
    with pytest.raises(RuntimeError, match="nobody foresaw") as raised:
        office.task.run()
    assert raised.value.__notes__ == ["and that could not be told: the database was busy for too long"]


def test_windows_made_before_a_host_was_there_are_made_anew(office: Office) -> None:
    other = AddHost(
        host=HostId("dgx2-b"),
        profile="dgx-2",
        storage="b",
        windows=tuple(replace(w, hosts=frozenset({HostId("dgx2-b")})) for w in APPLY.windows),
        policy_version=1,
        horizon_at=APPLY.horizon_at,
    )
    added = office.desk.file(other, author="root", role=Role.ADMIN)
    stale = office.desk.file(APPLY, author="root", role=Role.ADMIN)
    office.task.run()
    assert office.decided(added.seq).is_accepted
    assert [r.code for r in office.decided(stale.seq).reasons] == [ReasonCode.POLICY_MISSES_HOSTS]
    plan = office.store.load_plan(now=MONDAY_AT)
    assert sum(HostId("dgx2-b") in w.hosts for w in plan.windows.values()) == len(APPLY.windows)


def test_a_policys_refused_reservation_is_told(office: Office) -> None:
    ask = Ask(owner="course", queue="interactive", gpus=3, run_s=HOUR_S)
    office.desk.file(Submit(ask=ask), author="policy", role=Role.POLICY, key="course@2026-03-03T10:00#1")
    office.task.run()
    told = [e for _, e in office.store.events(limit=1000) if e.kind == "reservation.refused"]
    assert [e.is_notice for e in told] == [True]


def test_another_persons_reservation_is_not_touched(office: Office) -> None:
    seq = office.submit("ada")
    office.task.run()
    mine = reservation_id(seq)
    for intent in (Cancel(reservation=mine), Extend(reservation=mine, by_s=HOUR_S)):
        filed = office.desk.file(intent, author="bela", role=Role.STUDENT)
        office.task.run()
        assert [r.code for r in office.decided(filed.seq).reasons] == [ReasonCode.NOT_YOURS]
    assert office.store.load_plan(now=MONDAY_AT).reservations[mine].outcome is None


def test_students_do_not_administer(office: Office) -> None:
    filed = office.desk.file(
        AddHost(host=HostId("mine"), profile="dgx-2", storage="mine"), author="ada", role=Role.STUDENT
    )
    office.task.run()
    assert [r.code for r in office.decided(filed.seq).reasons] == [ReasonCode.ADMIN_ONLY]
    assert set(office.store.load_plan(now=MONDAY_AT).hosts) == {HOST}
