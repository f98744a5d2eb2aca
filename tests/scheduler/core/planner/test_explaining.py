"""Why a reservation waits, and what a quote says: facts as data, never empty while something waits."""

from dataclasses import replace

from scheduler.core.facts import GpuFact, GpuState, HostFacts, VmEnd, VmFact
from scheduler.core.intents import AddHost, ApplyPolicy, Drain, FiledIntent, Intent, Submit
from scheduler.core.plan import Plan, Queue, Rules, apply
from scheduler.core.planner.explaining import quote, why
from scheduler.core.planner.step import step
from scheduler.core.reasons import Reason, ReasonCode, sentence
from scheduler.core.requests import Ask, AtBoundary, HostId, ReservationId, Role
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, HOUR_S, Instant
from scheduler.core.windows import Layout, Window, WindowId
from scheduler.profiles.loading import load_profile

BEGAN_AT: Instant = 1_772_434_800
HOST = HostId("dgx2-a")
SETTINGS = Settings()
PROFILE = load_profile("dgx-2")
NIGHT = Layout(name="night", sizes=frozenset({16}), queues=frozenset({"hpc"}))
RULES = Rules(
    version=1,
    zone="UTC",
    outside=Layout(name="day", sizes=frozenset({1, 2, 4, 8}), queues=frozenset({"interactive"})),
    queues=(
        Queue(name="interactive"),
        Queue(name="hpc", at_boundary=AtBoundary.FINISH, is_scratch=True, default_disk_gib=5000),
    ),
    images=("ubuntu",),
    default_disk_gib=100,
    retention_s=7 * DAY_S,
    grace_s=300,
    min_useful_s=1800,
    warnings_s=(900,),
)


def night(day: int) -> Window:
    start_at = BEGAN_AT + 12 * HOUR_S + day * DAY_S
    return Window(
        id=WindowId(f"night@{day}"),
        name="night",
        layout=NIGHT,
        hosts=frozenset({HOST}),
        start_at=start_at,
        end_at=start_at + 12 * HOUR_S,
        decide_at=start_at - 4500,
        only_if_queued=True,
        at_boundary=frozenset({AtBoundary.PARK, AtBoundary.FINISH}),
        warnings_s=(3600, 900),
        grace_s=300,
        policy_version=1,
    )


class Desk:
    """A plan that intents are taken into, one by one."""

    def __init__(self) -> None:
        self.plan = Plan()
        self.facts: dict[HostId, HostFacts] = {}
        self.seq = 0
        self.do(AddHost(host=HOST, profile="dgx-2", storage=HOST))
        windows = tuple(night(day) for day in range(30))
        self.do(
            ApplyPolicy(
                rules=RULES, windows=windows, hosts=frozenset({HOST}), horizon_at=BEGAN_AT + 30 * DAY_S, text=""
            )
        )

    def do(self, intent: Intent) -> ReservationId:
        self.seq += 1
        filed = FiledIntent(seq=self.seq, at=BEGAN_AT, author="root", role=Role.ADMIN, intent=intent)
        change = step(self.plan, [filed], self.facts, BEGAN_AT, settings=SETTINGS, profiles=lambda _: PROFILE)
        assert all(not decided.reasons for decided in change.decided), change.decided
        self.plan = apply(self.plan, change)
        return ReservationId(f"r-{self.seq}")

    def ask(self, gpus: int, hours: int = 2, queue: str = "interactive") -> ReservationId:
        return self.do(Submit(ask=Ask(owner="ada", queue=queue, gpus=gpus, run_s=hours * HOUR_S)))

    def why(self, reservation: ReservationId, now: Instant = BEGAN_AT) -> dict[ReasonCode, Reason]:
        found = why(self.plan, self.facts, self.plan.reservations[reservation], now, SETTINGS)
        for reason in found:
            assert "?" not in sentence(reason)
        return {reason.code: reason for reason in found}


def test_who_is_booked_before_is_named() -> None:
    desk = Desk()
    first, _, third = desk.ask(8), desk.ask(8), desk.ask(8)
    reasons = desk.why(third)
    assert ReasonCode.WAITS_FOR_TIME in reasons
    assert reasons[ReasonCode.HELD_BY].fact("holder") in (first, "r-4")


def test_batch_work_waits_for_its_window() -> None:
    desk = Desk()
    job = desk.ask(16, queue="hpc")
    assert desk.why(job)[ReasonCode.WAITS_FOR_WINDOW].fact("window") == "night"


def test_a_full_pool_is_named_as_what_a_start_waits_for() -> None:
    desk = Desk()
    first, second = desk.ask(16, queue="hpc"), desk.ask(16, queue="hpc")
    assert ReasonCode.WAITS_FOR_DISK not in desk.why(first)
    full = desk.why(second)[ReasonCode.WAITS_FOR_DISK]
    assert full.fact("storage") == HOST
    assert full.fact("until_at") == desk.plan.reservations[second].spans[0].start_at
    assert desk.plan.reservations[second].spans[0].start_at > BEGAN_AT + 7 * DAY_S


def test_whoever_is_still_stopping_on_its_gpus_is_named() -> None:
    desk = Desk()
    waiting = desk.ask(1)
    partition = desk.plan.reservations[waiting].spans[0].partition
    stopping = VmFact(reservation=ReservationId("r-old"), generation=1, partition=partition, asked_at=BEGAN_AT - 60)
    desk.facts = {HOST: HostFacts(host=HOST, vms=(stopping,))}
    assert desk.why(waiting)[ReasonCode.WAITS_FOR_HAND_OVER].fact("holder") == "r-old"


def test_an_unreachable_host_a_lost_gpu_and_a_failed_start_are_named() -> None:
    desk = Desk()
    waiting = desk.ask(1)
    span = desk.plan.reservations[waiting].spans[0]
    failed = VmFact(
        reservation=waiting,
        generation=1,
        partition=span.partition,
        asked_at=BEGAN_AT,
        off_at=BEGAN_AT + 9,
        end=VmEnd.START_FAILED,
        problem="Cannot allocate memory",
    )
    gpu = min(PROFILE.partition(span.partition).gpus)
    lost = GpuFact(gpu=gpu, state=GpuState.QUARANTINED, since_at=BEGAN_AT, problem="reads all ones")
    desk.facts = {
        HOST: HostFacts(
            host=HOST, vms=(failed,), gpus=(lost,), unreachable_since_at=BEGAN_AT, problem="no route to host"
        )
    }
    reasons = desk.why(waiting)
    assert reasons[ReasonCode.START_FAILED].fact("problem") == "Cannot allocate memory"
    assert reasons[ReasonCode.GPU_QUARANTINED].fact("gpu") == gpu
    assert reasons[ReasonCode.HOST_UNREACHABLE].fact("problem") == "no route to host"


def test_a_gpu_in_foreign_hands_is_named_before_its_time_comes() -> None:
    desk = Desk()
    job = desk.ask(16, queue="hpc")
    foreign = GpuFact(gpu=15, state=GpuState.FOREIGN, since_at=BEGAN_AT, problem="held by by-hand")
    desk.facts = {HOST: HostFacts(host=HOST, gpus=(foreign,))}
    reasons = desk.why(job)
    assert reasons[ReasonCode.WAITS_FOR_WINDOW].fact("window") == "night"
    assert reasons[ReasonCode.GPU_HELD_BY_FOREIGN].fact("gpu") == 15
    assert ReasonCode.GPU_HELD_BY_FOREIGN not in desk.why(desk.ask(1))


def test_a_reservation_without_any_place_left_is_told_of_drained_hosts_and_lost_gpus() -> None:
    desk = Desk()
    waiting = desk.ask(8)
    desk.do(Drain(host=HOST))
    placeless = replace(desk.plan.reservations[waiting], spans=())
    desk.plan = replace(desk.plan, reservations={waiting: placeless})
    assert ReasonCode.HOST_DRAINED in desk.why(waiting)


def test_a_guest_that_runs_waits_for_nothing() -> None:
    desk = Desk()
    running = desk.ask(1)
    partition = desk.plan.reservations[running].spans[0].partition
    up = VmFact(
        reservation=running,
        generation=1,
        partition=partition,
        asked_at=BEGAN_AT,
        up_at=BEGAN_AT + 30,
        running_at=BEGAN_AT + 60,
    )
    desk.facts = {HOST: HostFacts(host=HOST, vms=(up,))}
    assert desk.why(running, BEGAN_AT + 90) == {}


def test_a_no_because_of_a_fault_names_the_fault() -> None:
    desk = Desk()
    lost = GpuFact(gpu=3, state=GpuState.QUARANTINED, since_at=BEGAN_AT, problem="reads all ones")
    desk.facts = {HOST: HostFacts(host=HOST, gpus=(lost,))}
    ask = Ask(owner="ada", queue="hpc", gpus=16, run_s=2 * HOUR_S)
    told = quote(desk.plan, desk.facts, ask, BEGAN_AT, SETTINGS)
    assert told.promise is None
    assert [r.code for r in told.reasons] == [ReasonCode.NEVER_FITS, ReasonCode.GPU_QUARANTINED]
    assert told.reasons[1].fact("gpu") == 3


def test_a_quote_is_the_promise_that_a_submit_gets() -> None:
    desk = Desk()
    ask = Ask(owner="ada", queue="interactive", gpus=8, run_s=20 * HOUR_S)
    told = quote(desk.plan, desk.facts, ask, BEGAN_AT, SETTINGS)
    mine = desk.do(Submit(ask=ask))
    assert told.promise == desk.plan.reservations[mine].promise
    assert told.plan_version + 1 == desk.plan.version
