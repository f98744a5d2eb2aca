"""What is done about the difference between plan and host: every rung of the ladder, every rule of starting again."""

from dataclasses import replace
from typing import TypeVar

import pytest

from scheduler.core.converging.actions import (
    Action,
    AskShutdown,
    DeleteDisk,
    DestroyVm,
    Diff,
    InFlight,
    QuarantineGpu,
    RemoveVm,
    ResetGpu,
    StartVm,
    WarnGuest,
)
from scheduler.core.converging.asking import write_asks
from scheduler.core.converging.due import next_due_at
from scheduler.core.facts import (
    Asked,
    CheckResult,
    DomainState,
    GpuFact,
    GpuState,
    HostFacts,
    ObservedDisk,
    ObservedDomain,
    ObservedHost,
    OffReason,
    Verb,
    VmEnd,
    domain_uuid,
)
from scheduler.core.plan import Outcome, Plan
from scheduler.core.reasons import ReasonCode
from scheduler.core.requests import DiskId
from scheduler.core.spans import DAY_S, HOUR_S
from scheduler.core.topology import PartitionId
from tests.scheduler.core.converging.acting_values import (
    HOST,
    PROFILE,
    R1,
    R2,
    SETTINGS,
    T,
    asked,
    compare,
    domain,
    facts,
    look,
    mistaken,
    neighbour_held,
    off,
    plan,
    reservation,
    span,
    vm,
)

A = TypeVar("A")

WANTED = plan(reservation(R1, span(generation=1)))
OVER = plan(reservation(R1, span(-HOUR_S, 0, generation=1)))
UNKNOWN = plan(reservation(R2, span(partition="1g8", start_s=DAY_S, end_s=2 * DAY_S)))
UUID1 = domain_uuid(R1, 1)
GPU0 = PROFILE.gpu(0).address


def only(todo: Diff, kind: type[A]) -> list[A]:
    return [action for action in todo.actions if isinstance(action, kind)]


def codes(todo: Diff) -> list[ReasonCode]:
    return [finding.why.code for finding in todo.findings]


# The stop ladder.


def stopping(*asks: Asked) -> HostFacts:
    return facts(vm(stop_asked_at=T), asked=asks)


def shutdown(*, attempt: int = 1, detail: str = "ok", at_s: int = 0) -> Asked:
    return asked(Verb.SHUTDOWN, UUID1, at_s=at_s, until_s=300, attempt=attempt, detail=detail)


def destroy(*, attempt: int = 1, detail: str = "ok", at_s: int = 300) -> Asked:
    return asked(Verb.DESTROY, UUID1, at_s=at_s, until_s=at_s + 60, attempt=attempt, detail=detail)


ASK = AskShutdown(reservation=R1, uuid=UUID1, until_at=T + 300, attempt=1)
AGENT = replace(ASK, attempt=2)
AGAIN = replace(ASK, is_again=True)
DESTROY = DestroyVm(reservation=R1, uuid=UUID1, gpus=frozenset({0, 1}), attempt=1)


@pytest.mark.parametrize(
    ("known", "at_s", "expected"),
    [
        (facts(vm()), 0, [ASK]),
        (stopping(shutdown()), 0, []),
        (stopping(shutdown()), 149, []),
        (stopping(shutdown()), 150, [AGENT]),
        (stopping(shutdown(attempt=2, at_s=150)), 299, []),
        # The asker was killed before the driver answered: ask again, the grace runs on.
        (stopping(shutdown(detail="")), 10, [AGAIN]),
        # The driver refused: ask again after a while.
        (stopping(shutdown(detail="locked")), 29, []),
        (stopping(shutdown(detail="locked")), 30, [AGAIN]),
        (stopping(shutdown(attempt=2, detail="silent", at_s=150)), 299, []),
        (stopping(shutdown()), 300, [DESTROY]),
        (stopping(shutdown(), destroy()), 359, []),
        (stopping(shutdown(), destroy(detail="")), 310, [DESTROY]),
        (stopping(shutdown(), destroy(detail="failed")), 329, []),
        (stopping(shutdown(), destroy(detail="failed")), 330, [replace(DESTROY, attempt=2)]),
        (stopping(shutdown(), destroy()), 360, [replace(DESTROY, attempt=2)]),
        (stopping(shutdown(), destroy(detail="failed", attempt=3)), 330, ["quarantine 0", "quarantine 1"]),
    ],
)
def test_a_vm_whose_time_is_over_goes_down_the_ladder(known: HostFacts, at_s: int, expected: list[object]) -> None:
    todo = compare(known, look(domain()), OVER, at_s)
    shown = [f"quarantine {a.gpu}" if isinstance(a, QuarantineGpu) else a for a in todo.actions]
    assert shown == expected


def test_a_vm_that_cannot_be_destroyed_is_reported_as_long_as_it_is_there() -> None:
    stuck = stopping(shutdown(), destroy(detail="failed", attempt=3))
    quarantined = tuple(GpuFact(gpu=g, state=GpuState.QUARANTINED, since_at=T) for g in (0, 1))
    todo = compare(replace(stuck, gpus=quarantined), look(domain()), OVER, 9000)
    assert todo.actions == ()
    assert codes(todo) == [ReasonCode.DRIVER_REFUSED]


@pytest.mark.parametrize("state", [DomainState.PAUSED, DomainState.UNKNOWN])
def test_a_vm_in_its_span_that_is_paused_or_not_understood_is_left_alone_and_said(state: DomainState) -> None:
    wanted = compare(facts(vm()), look(domain(state=state)), WANTED)
    assert (wanted.actions, codes(wanted)) == ((), [ReasonCode.UNKNOWN_STATE])


def test_a_domain_that_is_shown_paused_while_it_starts_is_nothing_odd() -> None:
    starting = facts(vm(is_running=False), asked=(asked(Verb.START, UUID1, until_s=180),))
    assert compare(starting, look(domain(state=DomainState.PAUSED, is_busy=True)), WANTED, 10).findings == ()


@pytest.mark.parametrize(
    ("known", "at_s", "expected"),
    [
        (facts(vm()), 0, (replace(ASK, is_paused=True),)),
        # It cannot answer its agent either; it may be let go on until its grace is over.
        (stopping(shutdown()), 150, ()),
        (stopping(shutdown()), 299, ()),
        (stopping(shutdown()), 300, (DESTROY,)),
    ],
)
def test_a_guest_that_is_paused_when_its_time_is_over_goes_down_the_ladder_like_a_deaf_one(
    known: HostFacts, at_s: int, expected: tuple[Action, ...]
) -> None:
    # Left as it is, it held its GPUs for ever, and whoever was promised them waited behind it.
    assert compare(known, look(domain(state=DomainState.PAUSED)), OVER, at_s).actions == expected


@pytest.mark.parametrize("known", [facts(vm()), stopping(shutdown()), stopping(shutdown(), destroy(detail="failed"))])
def test_a_state_that_is_not_understood_is_left_whatever_was_asked_before_it_came(known: HostFacts) -> None:
    todo = compare(known, look(domain(state=DomainState.UNKNOWN)), OVER, 900)
    assert (todo.actions, codes(todo)) == ((), [ReasonCode.UNKNOWN_STATE])


def test_that_a_paused_guest_is_asked_is_told_with_what_comes_of_it() -> None:
    todo = compare(facts(vm()), look(domain(state=DomainState.PAUSED)), OVER)
    _, (told,) = write_asks(facts(vm()), todo.actions, T, profile=PROFILE, settings=SETTINGS)
    assert (told.kind, told.reservation, told.is_notice) == ("vm.stop_asked", R1, True)
    assert "its disk is kept" in str(dict(told.facts)["problem"])


def test_a_domain_with_an_operation_under_way_is_waited_for_and_not_for_ever() -> None:
    assert compare(facts(vm()), look(domain(is_busy=True)), OVER).actions == ()
    assert compare(stopping(shutdown()), look(domain(is_busy=True)), OVER, 359).actions == ()
    assert compare(stopping(shutdown()), look(domain(is_busy=True)), OVER, 360).actions == (DESTROY,)


def test_what_a_chain_of_ours_is_at_is_left_to_it() -> None:
    starting = facts(vm(is_running=False))
    assert compare(starting, look(domain()), OVER, 0, InFlight(vms=frozenset({UUID1}))).actions == ()
    assert compare(stopping(shutdown()), look(domain()), OVER, 300, InFlight(gpus=frozenset({1}))).actions == ()


@pytest.mark.parametrize(
    ("known", "shown"),
    [
        (facts(vm()), look(domain())),
        (facts(vm(end=VmEnd.STOPPED, off_at=T)), look(off(OffReason.SHUTDOWN))),
    ],
)
def test_a_start_that_the_plan_does_not_know_is_left_alone_and_said(known: HostFacts, shown: ObservedHost) -> None:
    todo = compare(known, shown, UNKNOWN)
    assert (todo.actions, codes(todo)) == ((), [ReasonCode.UNKNOWN_STATE])


def test_an_older_start_of_a_live_reservation_goes_down_the_ladder_too() -> None:
    known = plan(reservation(R1, span(generation=2)))
    todo = compare(facts(vm(), vm(generation=2)), look(domain(), domain(generation=2)), known)
    assert todo.actions == (ASK,)


def test_a_start_stuck_half_way_is_cleared_away_for_no_guest_ever_ran_in_it() -> None:
    stuck = domain(state=DomainState.PAUSED)
    failed = facts(vm(is_running=False), asked=(asked(Verb.START, UUID1, until_s=180, detail="monitor closed"),))
    assert compare(failed, look(stuck), WANTED, 10).actions == (DESTROY,)
    lost = facts(vm(is_running=False), asked=(asked(Verb.START, UUID1, until_s=180, detail=""),))
    assert compare(lost, look(stuck), WANTED, 179).actions == ()
    assert compare(lost, look(stuck), WANTED, 180).actions == (DESTROY,)
    assert compare(lost, look(stuck), UNKNOWN, 180).actions == ()


# After the end.


@pytest.mark.parametrize("end", [end for end in VmEnd if end is not VmEnd.UNKNOWN])
@pytest.mark.parametrize("shown", [look(), look(off(OffReason.SHUTDOWN))])
def test_what_an_ended_start_left_is_removed_even_if_no_domain_is_left(end: VmEnd, shown: ObservedHost) -> None:
    todo = compare(facts(vm(end=end, off_at=T)), shown, OVER)
    assert todo.actions == (RemoveVm(reservation=R1, uuid=UUID1, partition=vm().partition, attempt=1),)


def test_an_end_that_is_not_understood_keeps_everything_while_the_plan_wants_the_vm() -> None:
    unclear = facts(vm(end=VmEnd.UNKNOWN, off_at=T))
    left = compare(unclear, look(off(OffReason.UNKNOWN)), WANTED)
    assert (left.actions, codes(left)) == ((), [ReasonCode.UNKNOWN_STATE])
    assert len(only(compare(unclear, look(off(OffReason.UNKNOWN)), OVER), RemoveVm)) == 1


def test_routing_that_is_somebody_elses_by_now_is_not_taken_down() -> None:
    known = facts(vm(end=VmEnd.STOPPED, off_at=T), vm(R2, partition="4g0-3"))
    both = plan(reservation(R1, span(-HOUR_S, 0, generation=1)), reservation(R2, span(generation=1, partition="4g0-3")))
    (remove,) = only(compare(known, look(off(OffReason.SHUTDOWN), domain(R2, partition="4g0-3")), both), RemoveVm)
    assert remove.partition is None


def dirty(*gpus: int) -> tuple[GpuFact, ...]:
    return tuple(GpuFact(gpu=gpu, state=GpuState.DIRTY, since_at=T) for gpu in gpus)


def reset(*, attempt: int = 1, detail: str = "ok", at_s: int = 0) -> Asked:
    return asked(Verb.RESET, GPU0, at_s=at_s, until_s=at_s + 120, attempt=attempt, detail=detail)


@pytest.mark.parametrize(
    ("ask", "at_s", "expected"),
    [
        (None, 0, (1, False)),
        (reset(), 119, None),
        (reset(detail=""), 5, (1, False)),
        (reset(detail="in use"), 29, None),
        (reset(detail="in use"), 30, (2, False)),
        (reset(), 120, (2, False)),
        (reset(attempt=2), 120, (3, True)),
        (reset(attempt=3), 120, (4, True)),
        (reset(attempt=4), 120, "quarantine"),
        # Asked before it was last used: that reset says nothing.
        (reset(at_s=-10), 5, (1, False)),
    ],
)
def test_a_dirty_gpu_is_reset_again_rebound_and_in_the_end_quarantined(
    ask: Asked | None, at_s: int, expected: object
) -> None:
    known = facts(gpus=dirty(0), asked=() if ask is None else (ask,))
    (action,) = compare(known, look(reset=CheckResult.UNVERIFIED), OVER, at_s).actions or (None,)
    if isinstance(action, ResetGpu):
        assert (action.attempt, action.rebind) == expected
    elif isinstance(action, QuarantineGpu):
        assert expected == "quarantine"
    else:
        assert action is expected


@pytest.mark.parametrize(
    ("known", "shown", "in_flight"),
    [
        (facts(vm(), gpus=dirty(0)), look(domain()), InFlight()),
        (facts(vm(is_running=False), gpus=dirty(0)), look(), InFlight(vms=frozenset({UUID1}))),
        (facts(gpus=dirty(0)), look(domain(state=DomainState.OFF, is_busy=True)), InFlight()),
        (facts(gpus=dirty(0)), look(), InFlight(gpus=frozenset({0}))),
        (facts(vm(end=VmEnd.UNKNOWN, off_at=T), gpus=dirty(0)), look(off(OffReason.UNKNOWN)), InFlight()),
    ],
)
def test_a_gpu_that_is_not_free_for_certain_is_not_reset(
    known: HostFacts, shown: ObservedHost, in_flight: InFlight
) -> None:
    assert only(compare(known, shown, WANTED, 10, in_flight), ResetGpu) == []


def test_switches_and_adapters_that_a_vm_had_are_reset_with_its_gpus() -> None:
    todo = compare(facts(), look(reset=CheckResult.FAILED), OVER)
    assert {action.gpu for action in only(todo, ResetGpu)} == {None}
    assert len(only(todo, ResetGpu)) == len(PROFILE.nvswitches) + len(PROFILE.hcas)


def test_a_disk_that_a_guest_has_run_from_must_be_there_when_it_starts_again() -> None:
    (first,) = only(compare(facts(), look(), plan(reservation())), StartVm)
    assert not first.is_disk_used
    wanted = plan(reservation(R1, span(generation=1)))
    (again,) = only(compare(ended(VmEnd.STOPPED), look(), wanted, 60), StartVm)
    assert again.is_disk_used
    never_up = facts(replace(ended(VmEnd.START_FAILED).vms[0], up_at=None))
    (retried,) = only(compare(never_up, look(), wanted, 90), StartVm)
    assert not retried.is_disk_used


def test_a_switch_that_no_reset_helps_is_reported_and_not_reset_for_ever() -> None:
    spent = asked(Verb.RESET, PROFILE.nvswitches[0].address, until_s=120, attempt=4)
    addresses = [*(d.address for d in PROFILE.nvswitches[1:]), *(d.address for d in PROFILE.hcas)]
    others = [asked(Verb.RESET, address, until_s=9999) for address in addresses]
    todo = compare(facts(asked=(spent, *others)), look(reset=CheckResult.FAILED), OVER, 120)
    assert (todo.actions, codes(todo)) == ((), [ReasonCode.DRIVER_REFUSED])


# Starts.


def test_a_due_vm_is_started_when_all_its_gpus_are_clean_and_free() -> None:
    (start,) = compare(facts(), look(), plan(reservation())).actions
    assert isinstance(start, StartVm)
    assert (start.vm.id, start.vm.partition.id, start.vm.generation) == (R1, "2g0-1", None)


BUSY_DISK = ObservedDisk(id="d-r-1", size_gib=100, is_ready=False, is_busy=True, held_by=None)


@pytest.mark.parametrize(
    ("known", "shown", "at_s", "in_flight", "code"),
    [
        (facts(gpus=dirty(1)), look(), 0, InFlight(), ReasonCode.WAITS_FOR_GPUS),
        (
            facts(gpus=(GpuFact(gpu=1, state=GpuState.QUARANTINED, since_at=T),)),
            look(),
            0,
            InFlight(),
            ReasonCode.GPU_QUARANTINED,
        ),
        (
            facts(gpus=(GpuFact(gpu=1, state=GpuState.FOREIGN, since_at=T),)),
            look(),
            0,
            InFlight(),
            ReasonCode.GPU_HELD_BY_FOREIGN,
        ),
        (facts(), look(missing=[1]), 0, InFlight(), ReasonCode.WAITS_FOR_GPUS),
        (facts(), look(reset=CheckResult.FAILED), 0, InFlight(), ReasonCode.WAITS_FOR_GPUS),
        (facts(), look(), 0, InFlight(gpus=frozenset({1})), ReasonCode.WAITS_FOR_HAND_OVER),
        (facts(), look(), 0, InFlight(disks=frozenset({DiskId("d-r-1")})), ReasonCode.WAITS_FOR_GPUS),
        (facts(), look(disks=(BUSY_DISK,)), 0, InFlight(), ReasonCode.WAITS_FOR_GPUS),
        (
            facts(),
            look(disks=(replace(BUSY_DISK, is_busy=False, held_by=UUID1),)),
            0,
            InFlight(),
            ReasonCode.WAITS_FOR_HAND_OVER,
        ),
        (facts(), look(domain(R2)), 0, InFlight(), ReasonCode.WAITS_FOR_HAND_OVER),
        (facts(vm(R2, end=VmEnd.STOPPED, off_at=T)), look(), 0, InFlight(), ReasonCode.WAITS_FOR_HAND_OVER),
        # A start of 2 GPUs may take 180 s.
        (facts(), look(), 4 * HOUR_S - 179, InFlight(), ReasonCode.WAITS_FOR_GPUS),
    ],
)
def test_a_start_that_must_wait_says_why(
    known: HostFacts, shown: ObservedHost, at_s: int, in_flight: InFlight, code: ReasonCode
) -> None:
    both = plan(reservation(), reservation(R2, span(-HOUR_S, -60, generation=1)))
    todo = compare(known, shown, both, at_s, in_flight)
    assert only(todo, StartVm) == []
    assert code in [finding.why.code for finding in todo.findings if finding.reservation == R1]


def test_a_start_waits_for_who_has_a_device_of_the_same_iommu_group_and_names_them() -> None:
    other = domain(R2, partition="4g4-7")
    shown = neighbour_held(look(other), PROFILE.gpu(1).address, other.uuid)
    both = plan(reservation(), reservation(R2, span(partition="4g4-7", generation=1)))
    todo = compare(facts(vm(R2, partition="4g4-7")), shown, both)
    (waits,) = (finding.why for finding in todo.findings if finding.reservation == R1)
    assert waits.code is ReasonCode.WAITS_FOR_GROUP
    assert (waits.fact("holder"), waits.fact("device")) == ("r-2-4g4-7", PROFILE.gpu(1).address)
    free = compare(facts(vm(R2, partition="4g4-7")), look(other), both)
    assert [start.vm.id for start in only(free, StartVm)] == [R1]


def test_a_switch_that_is_another_device_than_the_profile_says_is_not_reset() -> None:
    addresses = [*(d.address for d in PROFILE.nvswitches), *(d.address for d in PROFILE.hcas)]
    todo = compare(facts(), mistaken(look(reset=CheckResult.FAILED), *addresses), OVER)
    assert only(todo, ResetGpu) == []


def test_a_start_waits_for_an_older_start_of_its_reservation_wherever_on_the_host_it_is() -> None:
    moved = plan(reservation(R1, span(-HOUR_S, 0, partition="4g4-7", generation=1), span(partition="2g0-1")))
    todo = compare(facts(vm(partition="4g4-7")), look(domain(partition="4g4-7")), moved)
    assert [type(action) for action in todo.actions] == [AskShutdown]
    assert codes(todo) == [ReasonCode.WAITS_FOR_HAND_OVER]


def ended(end: VmEnd, *, generation: int = 1, off_s: int = 60, asked_s: int = 0) -> HostFacts:
    last = vm(generation=generation, end=end, off_at=T + off_s, is_gone=True, asked_at=T + asked_s, problem="why")
    return facts(last)


CRASHED = [vm(generation=n, end=VmEnd.CRASHED, off_at=T, is_gone=True) for n in range(1, 5)]
FAILED = [vm(generation=n, end=VmEnd.START_FAILED, off_at=T, is_gone=True, is_running=False) for n in range(1, 4)]


@pytest.mark.parametrize(
    ("known", "generation", "restart_after", "at_s", "outcome"),
    [
        (ended(VmEnd.STOPPED), 1, 0, 60, "start"),
        (ended(VmEnd.DESTROYED), 1, 0, 60, "start"),
        (ended(VmEnd.HOST_REBOOT), 1, 0, 60, "start"),
        (ended(VmEnd.VANISHED), 1, 0, 60, "start"),
        (ended(VmEnd.SELF_SHUTDOWN), 1, 0, 60, ReasonCode.WAITS_FOR_OWNER),
        (ended(VmEnd.SELF_SHUTDOWN), 1, 1, 60, "start"),
        (ended(VmEnd.SELF_SHUTDOWN, generation=2), 2, 1, 60, ReasonCode.WAITS_FOR_OWNER),
        (facts(*CRASHED[:3]), 3, 0, 60, "start"),
        (facts(*CRASHED), 4, 0, 60, ReasonCode.CRASHED_TOO_OFTEN),
        (ended(VmEnd.START_FAILED), 1, 0, 89, ReasonCode.START_FAILED),
        (ended(VmEnd.START_FAILED), 1, 0, 90, "start"),
        (facts(*FAILED), 3, 0, 900, ReasonCode.START_FAILED),
        # Failures on another partition do not count here.
        (facts(*(replace(f, partition=PartitionId("2g2-3")) for f in FAILED[:2]), FAILED[2]), 3, 0, 900, "start"),
        (ended(VmEnd.UNKNOWN), 1, 0, 60, None),
    ],
)
def test_whether_a_vm_is_started_again_depends_on_how_it_ended(
    known: HostFacts, generation: int, restart_after: int, at_s: int, outcome: object
) -> None:
    wanted = plan(reservation(R1, span(generation=generation), restart_after=restart_after))
    todo = compare(known, look(), wanted, at_s)
    if outcome == "start":
        assert len(only(todo, StartVm)) == 1
    else:
        assert only(todo, StartVm) == []
        assert codes(todo) == ([] if outcome is None else [outcome])


def test_every_start_is_a_new_generation_and_is_written_down_before_it_is_asked() -> None:
    wanted = plan(reservation(R1, span(generation=3)))
    todo = compare(ended(VmEnd.VANISHED, generation=3), look(), wanted, 60)
    written, events = write_asks(facts(), todo.actions, T + 60, profile=PROFILE, settings=SETTINGS)
    assert [(v.generation, v.asked_at) for v in written.vms] == [(4, T + 60)]
    assert [(a.verb, a.subject, a.until_at) for a in written.asked] == [
        (Verb.START, str(domain_uuid(R1, 4)), T + 60 + 180)
    ]
    assert {f.gpu for f in written.gpus if f.state is GpuState.DIRTY} == {0, 1}
    assert [event.kind for event in events] == ["vm.start_asked"]


def test_ends_come_before_resets_and_those_before_starts_resumes_and_the_largest_first() -> None:
    r3, r4 = type(R1)("r-3"), type(R1)("r-4")
    everything = plan(
        reservation(R1, span(-HOUR_S, 0, generation=1)),
        reservation(R2, span(partition="4g4-7")),
        reservation(r3, span(partition="8g8-15")),
        reservation(r4, span(partition="1g2"), generation=2),
    )
    known = facts(vm(), gpus=(*dirty(0, 1), GpuFact(gpu=3, state=GpuState.DIRTY, since_at=T)))
    todo = compare(known, look(domain()), everything)
    shown = [a.vm.id if isinstance(a, StartVm) else type(a).__name__ for a in todo.actions]
    assert shown == ["AskShutdown", "ResetGpu", "r-4", "r-3", "r-2"]


# Warnings and disks.


@pytest.mark.parametrize(
    ("ask", "at_s", "is_warned"),
    [
        (None, 4 * HOUR_S - 1801, False),
        (None, 4 * HOUR_S - 1800, True),
        (asked(Verb.WARN, UUID1, at_s=4 * HOUR_S - 1800, until_s=4 * HOUR_S), 4 * HOUR_S - 601, False),
        (asked(Verb.WARN, UUID1, at_s=4 * HOUR_S - 1800, until_s=4 * HOUR_S), 4 * HOUR_S - 600, True),
        # Warned of an end that has moved since.
        (asked(Verb.WARN, UUID1, at_s=4 * HOUR_S - 1800, until_s=3 * HOUR_S), 4 * HOUR_S - 1700, True),
        (asked(Verb.WARN, UUID1, at_s=4 * HOUR_S - 1800, until_s=4 * HOUR_S, detail="silent"), 4 * HOUR_S - 700, False),
        (asked(Verb.WARN, UUID1, at_s=4 * HOUR_S - 1800, until_s=4 * HOUR_S, detail=""), 4 * HOUR_S - 700, True),
    ],
)
def test_a_guest_is_warned_once_for_each_warning_of_each_end(ask: Asked | None, at_s: int, is_warned: bool) -> None:
    known = facts(vm(), asked=() if ask is None else (ask,))
    assert bool(only(compare(known, look(domain()), WANTED, at_s), WarnGuest)) is is_warned


def test_warnings_that_were_missed_are_one() -> None:
    assert len(only(compare(facts(vm()), look(domain()), WANTED, 4 * HOUR_S - 5), WarnGuest)) == 1


EXPIRED = plan(reservation(R1, span(0, 100, generation=1), outcome=Outcome.COMPLETED))
DISK = ObservedDisk(id="d-r-1", size_gib=100, is_ready=True, is_busy=False, held_by=None)


@pytest.mark.parametrize(
    ("disk", "in_flight", "is_deleted"),
    [
        (DISK, InFlight(), True),
        (replace(DISK, is_ready=False), InFlight(), True),
        (replace(DISK, is_busy=True), InFlight(), False),
        (replace(DISK, held_by=UUID1), InFlight(), False),
        (replace(DISK, id="somebodys"), InFlight(), False),
        (DISK, InFlight(disks=frozenset({DiskId("d-r-1")})), False),
    ],
)
def test_only_a_disk_of_ours_that_nobody_holds_is_deleted(
    disk: ObservedDisk, in_flight: InFlight, is_deleted: bool
) -> None:
    todo = compare(facts(), look(disks=(disk,)), EXPIRED, DAY_S, in_flight)
    assert bool(only(todo, DeleteDisk)) is is_deleted


def test_a_disk_that_cannot_be_deleted_is_reported_as_long_as_that_is_so() -> None:
    refused = asked(Verb.DELETE_DISK, "d-r-1", at_s=DAY_S, until_s=2 * DAY_S, detail="busy")
    for after_s in (0, 29, 30):
        assert codes(compare(facts(asked=(refused,)), look(disks=(DISK,)), EXPIRED, DAY_S + after_s)) == [
            ReasonCode.DRIVER_REFUSED
        ]


def test_a_disk_that_cannot_be_deleted_is_tried_again_ever_more_seldom() -> None:
    def tried_at(attempt: int, after_s: int) -> bool:
        ask = asked(Verb.DELETE_DISK, "d-r-1", at_s=DAY_S, until_s=2 * DAY_S, attempt=attempt, detail="busy")
        return bool(compare(facts(asked=(ask,)), look(disks=(DISK,)), EXPIRED, DAY_S + after_s).actions)

    assert (tried_at(1, 29), tried_at(1, 30)) == (False, True)
    assert (tried_at(3, 119), tried_at(3, 120)) == (False, True)
    assert (tried_at(50, 30 * 128 - 1), tried_at(50, 30 * 128)) == (False, True)


# When to look again.


@pytest.mark.parametrize(
    ("known", "of", "at_s", "due_s"),
    [
        (facts(), plan(reservation(R1, span(100, 4000))), 0, 100),
        (facts(vm()), WANTED, 0, 4 * HOUR_S - 1800),
        (facts(vm()), WANTED, 4 * HOUR_S - 600, 4 * HOUR_S),
        (stopping(shutdown()), OVER, 0, 150),
        (stopping(shutdown()), OVER, 150, 300),
        (ended(VmEnd.START_FAILED), WANTED, 60, 90),
        (facts(vm(is_running=False)), WANTED, 10, 180),
        (facts(), EXPIRED, 5000, DAY_S),
        (facts(), plan(), 0, None),
    ],
)
def test_the_next_look_is_due_when_the_plan_or_an_ask_says_so(
    known: HostFacts, of: Plan, at_s: int, due_s: int | None
) -> None:
    due_at = next_due_at(of, HOST, known, T + at_s, profile=PROFILE, settings=SETTINGS)
    assert due_at == (None if due_s is None else T + due_s)


def test_an_action_once_written_is_not_wanted_again_at_the_same_instant() -> None:
    """What makes converging a fixed point: every action leaves a mark that this very diff reads."""
    stories: list[tuple[HostFacts, tuple[ObservedDomain, ...], Plan, int]] = [
        (facts(vm()), (domain(),), OVER, 0),
        (stopping(shutdown()), (domain(),), OVER, 150),
        (stopping(shutdown()), (domain(),), OVER, 300),
        (facts(vm(end=VmEnd.STOPPED, off_at=T)), (), OVER, 0),
        (facts(gpus=dirty(0, 5)), (), OVER, 0),
        (facts(vm()), (domain(),), WANTED, 4 * HOUR_S - 600),
        (facts(), (), plan(reservation()), 0),
    ]
    for known, domains, of, at_s in stories:
        first = compare(known, look(*domains), of, at_s)
        assert first.actions
        written, _ = write_asks(known, first.actions, T + at_s, profile=PROFILE, settings=SETTINGS)
        answered = replace(written, asked=tuple(replace(a, detail="ok") for a in written.asked))
        then = of
        if any(isinstance(a, StartVm) for a in first.actions):
            then = plan(reservation(R1, span(generation=1)))
        again: tuple[Action, ...] = compare(answered, look(*domains), then, at_s).actions
        assert again == ()
