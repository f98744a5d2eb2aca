"""The doctor: which part is broken, since when, what to do, and which one to begin with."""

from dataclasses import replace

import pytest

from scheduler.core.facts import UNREACHABLE, GpuFact, GpuState, HostFacts, HostTrouble, TroubleKind
from scheduler.core.intents import Drain
from scheduler.core.plan import Host, Plan, PlanChange, Rules
from scheduler.core.replay import VirtualClock
from scheduler.core.requests import HostId, Role
from scheduler.core.spans import DAY_S
from scheduler.core.windows import Layout
from scheduler.profiles.loading import load_profile
from scheduler.service.doctor import Check, Evidence, Remembered, diagnose, gather
from scheduler.service.facts_cache import FactsCache
from scheduler.service.plan_cache import PlanCache
from scheduler.store.heartbeats import Heartbeat
from scheduler.store.store import Store
from tests.databases import find_profile_by_name

NOW_AT = 1_772_434_800
MACHINE_S = 5000.0
HOST_A, HOST_B = HostId("dgx2-a"), HostId("dgx2-b")
PROFILE = load_profile("dgx-2")
RULES = Rules(
    version=3,
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
PLAN = Plan(
    version=12,
    rules=RULES,
    horizon_at=NOW_AT + 90 * DAY_S,
    hosts={name: Host(id=name, profile=PROFILE, storage="local") for name in (HOST_A, HOST_B)},
)
SEEN = {name: HostFacts(host=name, seen_at=NOW_AT) for name in (HOST_A, HOST_B)}


def beats(**age_s: float) -> tuple[Heartbeat, ...]:
    """Return heartbeats of everything, a second old; `ticker=74` makes one older, `dgx2_a=…` that of a host."""
    ages = {"api": 1.0, "plan": 1.0, "ticker": 1.0, "worker": 1.0, "dgx2_a": 1.0, "dgx2_b": 1.0, **age_s}
    return tuple(
        Heartbeat(
            kind="host" if kind.startswith("dgx2") else kind,
            name=kind.replace("_", "-") if kind.startswith("dgx2") else "one",
            machine_s=MACHINE_S - age,
        )
        for kind, age in ages.items()
    )


REMEMBERED = Remembered(ping_s=0.003, heartbeats=beats(), plan=PLAN, facts=SEEN, open_intents=0)
WELL = Evidence(now=NOW_AT, now_machine_s=MACHINE_S, speed=1, remembered=REMEMBERED, redis_problem=None)


def with_remembered(**changed: object) -> Evidence:
    return replace(WELL, remembered=replace(REMEMBERED, **changed))  # type: ignore[arg-type]


def without(kind: str, name: str = "one") -> Evidence:
    return with_remembered(heartbeats=tuple(b for b in beats() if (b.kind, b.name) != (kind, name)))


def by_name(evidence: Evidence) -> dict[str, Check]:
    return {check.name: check for check in diagnose(evidence)}


def broken(evidence: Evidence) -> list[str]:
    return [check.name for check in diagnose(evidence) if not check.is_ok]


def test_all_is_well_and_each_part_says_what_was_seen_and_no_remedy() -> None:
    checks = diagnose(WELL)
    assert [(check.name, check.detail) for check in checks] == [
        ("database", "answers in 3 ms"),
        ("redis", "answers"),
        ("ticker", "last tick 1 s ago"),
        ("worker", "last sign of life 1 s ago"),
        ("planning", "last run of the plan 1 s ago; plan version 12"),
        ("host:dgx2-a", "last converge 1 s ago"),
        ("host:dgx2-b", "last converge 1 s ago"),
        ("policy", "version 3, windows known up to 2026-05-31 07:00:00Z"),
        ("clock", "2026-03-02 07:00:00Z"),
    ]
    assert all(check.is_ok and not check.remedy for check in checks)


def test_a_dead_ticker_is_told_with_its_seconds_and_what_to_look_at() -> None:
    evidence = with_remembered(heartbeats=beats(ticker=74))
    assert broken(evidence) == ["ticker"]
    assert by_name(evidence)["ticker"] == Check(
        name="ticker",
        is_ok=False,
        detail="no tick for 74 s",
        remedy="is `nightshift ticker` running? logs/ticker.log",
    )


def test_a_dead_worker_is_the_one_to_begin_with_for_all_that_stood_still_with_it() -> None:
    evidence = with_remembered(heartbeats=beats(worker=74, plan=74, dgx2_a=74, dgx2_b=74))
    assert broken(evidence) == ["worker", "planning", "host:dgx2-a", "host:dgx2-b"]
    checks = by_name(evidence)
    assert checks["worker"].remedy == "is `nightshift worker` running? logs/worker.log"
    assert checks["host:dgx2-a"].detail == "no converge for 74 s"
    for name in ("planning", "host:dgx2-a", "host:dgx2-b"):
        assert checks[name].remedy.startswith("begin with worker; then: ")


def test_of_two_causes_the_first_is_named() -> None:
    evidence = replace(
        with_remembered(heartbeats=beats(worker=74, plan=74)), redis_problem="connection refused at redis.sock"
    )
    checks = by_name(evidence)
    assert checks["redis"].detail == "no answer: connection refused at redis.sock"
    assert "nothing is lost" in checks["redis"].remedy
    assert checks["planning"].remedy.startswith("begin with redis; ")


def test_workers_that_no_message_reaches_are_not_the_ones_to_begin_with() -> None:
    still = beats(worker=74, plan=74, dgx2_a=74, dgx2_b=74)
    for evidence, cause in (
        (replace(with_remembered(heartbeats=still), redis_problem="refused"), "redis"),
        (with_remembered(heartbeats=beats(ticker=75, worker=74, plan=74, dgx2_a=74, dgx2_b=74)), "ticker"),
    ):
        checks = by_name(evidence)
        assert broken(evidence)[0] == cause
        for name in ("worker", "planning", "host:dgx2-a", "host:dgx2-b"):
            assert checks[name].remedy.startswith(f"begin with {cause}; then: ")


def test_without_redis_what_still_works_is_not_called_broken() -> None:
    assert broken(replace(WELL, redis_problem="no answer in 1 s")) == ["redis"]


def test_a_host_that_no_worker_reaches_is_told_alone() -> None:
    evidence = with_remembered(heartbeats=beats(dgx2_b=3 * 60))
    assert broken(evidence) == ["host:dgx2-b"]
    check = by_name(evidence)["host:dgx2-b"]
    assert check.detail == "no converge for 3 min"
    assert "--host dgx2-b" in check.remedy


@pytest.mark.parametrize(
    ("kind", "name", "check"),
    [
        ("ticker", "one", "ticker"),
        ("worker", "one", "worker"),
        ("plan", "one", "planning"),
        ("host", "dgx2-a", "host:dgx2-a"),
    ],
)
def test_a_part_that_never_gave_a_sign_is_broken(kind: str, name: str, check: str) -> None:
    evidence = without(kind, name)
    assert broken(evidence) == [check]
    assert "in the last day" in by_name(evidence)[check].detail
    assert by_name(evidence)[check].remedy


def test_of_several_tickers_one_that_lives_is_enough() -> None:
    dead = Heartbeat(kind="ticker", name="other", machine_s=MACHINE_S - 1000)
    assert broken(with_remembered(heartbeats=(*beats(), dead))) == []


@pytest.mark.parametrize(("age_s", "is_ok"), [(0, True), (-5, True), (30, True), (30.1, False)])
def test_a_part_is_dead_after_half_a_minute_of_machine_time_at_any_speed(age_s: float, is_ok: bool) -> None:
    for speed in (1, 60, 3600):
        evidence = replace(with_remembered(heartbeats=beats(ticker=age_s)), speed=speed)
        assert by_name(evidence)["ticker"].is_ok is is_ok


def test_a_database_that_does_not_answer_leaves_nothing_known_but_redis_and_the_clock() -> None:
    evidence = replace(WELL, remembered="connection refused; check that it runs")
    checks = by_name(evidence)
    assert broken(evidence) == ["database", "ticker", "worker", "planning", "policy"]
    assert checks["database"].detail == "no answer: connection refused; check that it runs"
    assert checks["worker"].remedy.startswith("begin with database; ")
    assert checks["redis"].is_ok
    assert checks["clock"].is_ok


def test_a_slow_database_is_told() -> None:
    evidence = with_remembered(ping_s=1.2)
    assert broken(evidence) == ["database"]
    assert by_name(evidence)["database"].detail == "answers in 1200 ms"


def test_intents_that_wait_are_counted() -> None:
    assert by_name(with_remembered(open_intents=1))["planning"].detail.endswith("version 12, 1 intent not decided")
    assert by_name(with_remembered(open_intents=7))["planning"].detail.endswith("version 12, 7 intents not decided")


def test_a_host_that_does_not_answer_its_worker_is_told_with_its_own_words() -> None:
    silent = HostFacts(host=HOST_A, seen_at=NOW_AT - 900, unreachable_since_at=NOW_AT - 600, problem="no route")
    evidence = with_remembered(facts={**SEEN, HOST_A: silent})
    assert broken(evidence) == ["host:dgx2-a"]
    check = by_name(evidence)["host:dgx2-a"]
    assert check.detail == "last converge 1 s ago; does not answer for 10 min: no route"
    assert "libvirt" in check.remedy


def test_a_host_that_does_not_answer_has_the_remedy_that_its_driver_knows() -> None:
    silent = HostFacts(
        host=HOST_A,
        unreachable_since_at=NOW_AT - 600,
        problem="qemu:///system: no such file; start libvirtd",
        troubles=(trouble(UNREACHABLE, "qemu:///system: no such file", mend="start libvirtd"),),
    )
    evidence = with_remembered(facts={**SEEN, HOST_A: silent})
    assert broken(evidence) == ["host:dgx2-a"]
    assert by_name(evidence)["host:dgx2-a"] == Check(
        name="host:dgx2-a",
        is_ok=False,
        detail="last converge 1 s ago; does not answer for 10 min: qemu:///system: no such file",
        remedy="start libvirtd",
    )


def test_each_trouble_of_a_host_is_a_check_after_its_own_and_what_is_unverified_is_no_failure() -> None:
    troubles = (
        trouble("check.reset_done", "not seen from here", kind=TroubleKind.UNVERIFIED, mend="run it there"),
        trouble("host.no_image", "no image 'a'", mend="upload it"),
        trouble("host.no_iommu", "it has no IOMMU", mend="switch it on"),
    )
    evidence = with_remembered(facts={**SEEN, HOST_A: replace(SEEN[HOST_A], troubles=troubles)})
    assert broken(evidence) == ["host:dgx2-a:host.no_image", "host:dgx2-a:host.no_iommu"]
    checks = diagnose(evidence)
    first = [check.name for check in checks].index("host:dgx2-a")
    assert checks[first].is_ok
    assert checks[first + 1 : first + 4] == (
        Check(name="host:dgx2-a:check.reset_done", is_ok=True, detail="unverified: not seen from here (run it there)"),
        Check(name="host:dgx2-a:host.no_image", is_ok=False, detail="no image 'a'", remedy="upload it"),
        Check(name="host:dgx2-a:host.no_iommu", is_ok=False, detail="it has no IOMMU", remedy="switch it on"),
    )
    assert checks[first + 4].name == "host:dgx2-b"


def trouble(code: str, problem: str, *, mend: str, kind: TroubleKind = TroubleKind.WRONG) -> HostTrouble:
    return HostTrouble(code=code, kind=kind, problem=problem, mend=mend)


def test_a_host_that_was_never_seen_is_told() -> None:
    evidence = with_remembered(facts={HOST_B: SEEN[HOST_B]})
    assert broken(evidence) == ["host:dgx2-a"]
    assert by_name(evidence)["host:dgx2-a"].detail.endswith("not seen yet")


def test_gpus_out_of_the_plan_are_told_and_dirty_ones_are_not() -> None:
    gpus = (
        GpuFact(gpu=3, state=GpuState.DIRTY, since_at=1),
        GpuFact(gpu=5, state=GpuState.QUARANTINED, since_at=1, problem="reset failed twice"),
        GpuFact(gpu=9, state=GpuState.FOREIGN, since_at=1),
    )
    for known, said in (
        (gpus, "GPUs 5, 9 are out of the plan (quarantined: reset failed twice)"),
        (gpus[2:], "GPU 9 is out of the plan (foreign)"),
    ):
        evidence = with_remembered(facts={**SEEN, HOST_A: replace(SEEN[HOST_A], gpus=known)})
        assert broken(evidence) == ["host:dgx2-a"]
        assert by_name(evidence)["host:dgx2-a"].detail.endswith(said)
    assert broken(with_remembered(facts={**SEEN, HOST_A: replace(SEEN[HOST_A], gpus=gpus[:1])})) == []


def test_a_drained_host_is_well_and_said_to_be_drained() -> None:
    hosts = {**PLAN.hosts, HOST_A: replace(PLAN.hosts[HOST_A], is_drained=True)}
    check = by_name(with_remembered(plan=replace(PLAN, hosts=hosts)))["host:dgx2-a"]
    assert (check.is_ok, check.detail) == (True, "last converge 1 s ago; drained")


def test_without_a_policy_it_is_said_how_to_apply_one() -> None:
    evidence = with_remembered(plan=replace(PLAN, rules=None, horizon_at=0))
    assert broken(evidence) == ["policy"]
    assert "nightshift policy apply" in by_name(evidence)["policy"].remedy


def test_a_policy_that_nobody_carries_on_is_told_before_its_windows_end() -> None:
    assert broken(with_remembered(plan=replace(PLAN, horizon_at=NOW_AT + 7 * DAY_S))) == []
    assert broken(with_remembered(plan=replace(PLAN, horizon_at=NOW_AT + 7 * DAY_S - 1))) == ["policy"]


def test_the_clock_says_its_speed_and_when_it_stands_still() -> None:
    assert by_name(replace(WELL, speed=60))["clock"].detail == "2026-03-02 07:00:00Z, 60 times as fast as real time"
    evidence = replace(WELL, speed=0)
    assert broken(evidence) == ["clock"]
    assert by_name(evidence)["clock"].detail == "time stands still at 2026-03-02 07:00:00Z"


def test_a_machine_whose_clock_is_ahead_is_named() -> None:
    evidence = with_remembered(heartbeats=beats(dgx2_b=-90))
    assert broken(evidence) == ["clock"]
    assert by_name(evidence)["clock"].detail == "the machine of host dgx2-b is 90 s ahead of this one"


def test_a_heartbeat_of_before_the_clock_was_put_back_does_not_hide_that_the_living_one_stopped() -> None:
    of_before = Heartbeat(kind="ticker", name="before", machine_s=MACHINE_S + 6 * 3600)
    checks = by_name(with_remembered(heartbeats=(of_before, *beats(ticker=74))))
    assert checks["ticker"].detail == "no tick for 74 s"
    assert not checks["clock"].is_ok


class SteppingClock(VirtualClock):
    """A clock whose machine time moves on by a tenth of a second with each look."""

    def __init__(self) -> None:
        super().__init__(NOW_AT)
        self.stepped_s = MACHINE_S

    def machine_s(self) -> float:
        self.stepped_s += 0.1
        return self.stepped_s


def gathered(store: Store) -> Evidence:
    clock = SteppingClock()
    plans = PlanCache(store, clock)
    facts = FactsCache(store)
    return gather(store=store, clock=clock, plans=plans, known_facts=facts, speed=1, redis_problem="away")


def test_what_is_gathered_is_what_the_database_has(store: Store) -> None:
    store.commit_plan(0, PlanChange(hosts=(PLAN.hosts[HOST_A],)), at=1)
    store.file_intent(Drain(host=HOST_A), at=1, author="root", role=Role.ADMIN)
    store.acquire_lease(f"host.{HOST_A}", "t", now_machine_s=0, ttl_s=10)
    nothing = HostFacts(host=HOST_A)
    store.record_facts(HOST_A, "t", nothing, replace(nothing, seen_at=7), now_machine_s=1)
    store.beat("ticker", "one", 4999)

    evidence = gathered(store)

    assert isinstance(evidence.remembered, Remembered)
    assert evidence.remembered.ping_s == pytest.approx(0.1)
    assert evidence.remembered.plan == store.load_plan(NOW_AT)
    assert evidence.remembered.facts[HOST_A].seen_at == 7
    assert evidence.remembered.open_intents == 1
    assert evidence.remembered.heartbeats == (Heartbeat(kind="ticker", name="one", machine_s=4999),)
    assert (evidence.now, evidence.redis_problem) == (NOW_AT, "away")
    assert evidence.now_machine_s == pytest.approx(MACHINE_S + 0.3)


def test_a_database_without_tables_is_evidence_and_not_an_error() -> None:
    store = Store.open("sqlite://", profiles=find_profile_by_name, durability="off")
    evidence = gathered(store)
    store.close()
    assert isinstance(evidence.remembered, str)
    assert "migrate it first" in evidence.remembered
    assert broken(evidence)[0] == "database"
