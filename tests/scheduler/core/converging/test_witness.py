"""What one look changes in what is remembered of a host."""

from dataclasses import replace

import pytest

from scheduler.core.converging.actions import InFlight
from scheduler.core.facts import (
    UNREACHABLE,
    CheckResult,
    DomainState,
    GpuFact,
    GpuState,
    HostFacts,
    HostTrouble,
    ObservedDisk,
    ObservedDomain,
    ObservedHost,
    OffReason,
    TroubleKind,
    Unreachable,
    Verb,
    VmEnd,
    domain_uuid,
)
from scheduler.core.plan import Outcome
from scheduler.core.topology import PartitionId
from tests.scheduler.core.converging.acting_values import (
    HOST,
    PROFILE,
    R1,
    R2,
    T,
    asked,
    domain,
    facts,
    foreign,
    look,
    mistaken,
    neighbour_held,
    off,
    plan,
    reservation,
    see,
    span,
    vm,
)

PLAN = plan(reservation(R1, span(generation=1)))
UUID1 = domain_uuid(R1, 1)
STARTING = facts(vm(is_running=False), asked=(asked(Verb.START, UUID1, until_s=180, detail=""),))
CUT_OFF_COPY = (ObservedDisk(id="d-r-1", size_gib=100, is_ready=False, is_busy=True, held_by=None),)


NO_IOMMU = HostTrouble(code="host.no_iommu", kind=TroubleKind.WRONG, problem="it has no IOMMU", mend="switch it on")
NO_POOL = HostTrouble(code="host.no_pool", kind=TroubleKind.WRONG, problem="no pool 'a'", mend="make it")
UNSEEN = HostTrouble(code="check.x", kind=TroubleKind.UNVERIFIED, problem="x is not seen", mend="run it there")


def kinds(witnessed: object) -> list[str]:
    return [event.kind for event in witnessed.events]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("before", "shown"),
    [
        (facts(vm()), look(domain())),
        (facts(), look()),
        (facts(), look(foreign(3))),
        (STARTING, look(domain(state=DomainState.PAUSED, is_busy=True, is_guest_up=None))),
        (facts(vm()), look(off(OffReason.CRASHED))),
        (facts(vm()), look(off(OffReason.UNKNOWN), boot_id="boot-2")),
        (facts(vm()), look()),
        (facts(), look(unreadable=[2], missing=[5], reset=CheckResult.FAILED)),
        (facts(), "no route to host"),
        (facts(), Unreachable(problem="no route; switch it on", mend="switch it on")),
        (facts(), replace(look(), troubles=(UNSEEN, NO_IOMMU, NO_POOL, NO_POOL))),
    ],
)
def test_the_same_look_twice_changes_nothing_the_second_time(
    before: HostFacts, shown: ObservedHost | Unreachable | str
) -> None:
    once = see(before, shown, PLAN, 200)
    twice = see(once.facts, shown, PLAN, 260)
    assert twice.facts is once.facts
    assert (twice.events, twice.measurements) == ((), ())


def test_a_host_that_does_not_answer_changes_nothing_else() -> None:
    away = see(facts(vm()), "no route to host", PLAN, 100)
    assert away.facts == replace(facts(vm()), unreachable_since_at=T + 100, problem="no route to host")
    assert kinds(away) == ["host.unreachable"]
    back = see(away.facts, look(domain()), PLAN, 200)
    assert back.facts.unreachable_since_at is None
    assert kinds(back)[0] == "host.back"


def test_what_is_wrong_with_a_host_is_told_when_it_comes_and_goes_and_what_is_unverified_once() -> None:
    once = see(facts(), replace(look(), troubles=(UNSEEN, NO_POOL, NO_IOMMU)), PLAN, 100)
    assert once.facts.troubles == (UNSEEN, NO_IOMMU, NO_POOL)
    assert [(event.kind, event.is_notice, dict(event.facts)["code"]) for event in once.events] == [
        ("host.unverified", False, "check.x"),
        ("host.trouble", True, "host.no_iommu"),
        ("host.trouble", True, "host.no_pool"),
    ]
    assert dict(once.events[1].facts) == {
        "code": "host.no_iommu",
        "problem": "it has no IOMMU",
        "mend": "switch it on",
    }
    mended = see(once.facts, replace(look(), troubles=(NO_POOL,)), PLAN, 200)
    assert mended.facts.troubles == (NO_POOL,)
    assert [(event.kind, dict(event.facts)["code"]) for event in mended.events] == [
        ("host.trouble_over", "host.no_iommu")
    ]
    worse = see(mended.facts, replace(look(), troubles=(replace(NO_POOL, problem="no pool 'b'"),)), PLAN, 300)
    assert kinds(worse) == ["host.trouble", "host.trouble_over"]


def test_what_could_not_be_checked_and_is_wrong_is_told_as_wrong() -> None:
    before = see(facts(), replace(look(), troubles=(UNSEEN,)), PLAN, 100).facts
    wrong = replace(UNSEEN, kind=TroubleKind.WRONG)
    assert kinds(see(before, replace(look(), troubles=(wrong,)), PLAN, 200)) == ["host.trouble"]


def test_while_a_host_does_not_answer_its_troubles_are_kept_and_what_to_do_is_one_of_them() -> None:
    before = see(facts(), replace(look(), troubles=(NO_IOMMU,)), PLAN, 100).facts
    away = see(before, Unreachable(problem="refused (pid 7); start libvirtd", mend="start libvirtd"), PLAN, 200)
    assert kinds(away) == ["host.unreachable"]
    assert away.facts.problem == "refused (pid 7); start libvirtd"
    assert away.facts.troubles == (
        NO_IOMMU,
        HostTrouble(code=UNREACHABLE, kind=TroubleKind.WRONG, problem="refused (pid 7)", mend="start libvirtd"),
    )
    # In other words the same; then another failure, of the same time without an answer.
    reworded = see(away.facts, Unreachable(problem="refused (pid 8); start libvirtd", mend="start libvirtd"), PLAN, 210)
    assert reworded.facts is away.facts
    other = see(away.facts, Unreachable(problem="no login; add the key", mend="add the key"), PLAN, 220)
    assert (other.facts.problem, other.events) == ("no login; add the key", ())
    assert other.facts.unreachable_since_at == T + 200
    assert [trouble.mend for trouble in other.facts.troubles] == ["switch it on", "add the key"]
    back = see(other.facts, replace(look(), troubles=(NO_IOMMU,)), PLAN, 300)
    assert (kinds(back), back.facts.troubles) == (["host.back"], (NO_IOMMU,))


def test_a_start_is_up_then_running_and_its_time_is_measured() -> None:
    up = see(STARTING, look(domain(is_guest_up=False)), PLAN, 40)
    assert (up.facts.vms[0].up_at, up.facts.vms[0].running_at) == (T + 40, None)
    running = see(up.facts, look(domain()), PLAN, 90)
    assert running.facts.vms[0].running_at == T + 90
    assert [(m.what, m.gpus, m.took_s) for m in running.measurements] == [("start", 2, 90)]
    assert running.facts.asked == ()
    assert kinds(running) == ["vm.running"]


def test_a_start_over_its_bound_is_told_once() -> None:
    up = see(STARTING, look(domain(is_guest_up=False)), PLAN, 40).facts
    late = see(up, look(domain(is_guest_up=False)), PLAN, 200)
    assert kinds(late) == ["bound.exceeded"]
    assert kinds(see(late.facts, look(domain(is_guest_up=False)), PLAN, 300)) == []


def test_a_silent_agent_counts_as_running_once_the_guest_had_its_time_to_boot() -> None:
    up = see(STARTING, look(domain(is_guest_up=None)), PLAN, 40).facts
    assert see(up, look(domain(is_guest_up=None)), PLAN, 179).facts.vms[0].running_at is None
    silent = see(up, look(domain(is_guest_up=None)), PLAN, 180)
    assert (silent.facts.vms[0].running_at, silent.facts.vms[0].is_agent_silent) == (T + 40, True)
    assert "vm.agent_silent" in kinds(silent)


STOPPING = (asked(Verb.SHUTDOWN, UUID1, until_s=300),)
DESTROYING = (*STOPPING, asked(Verb.DESTROY, UUID1, at_s=300, until_s=360))


@pytest.mark.parametrize(
    ("before", "shown", "end"),
    [
        (facts(vm(stop_asked_at=T), asked=STOPPING), look(off(OffReason.SHUTDOWN)), VmEnd.STOPPED),
        (facts(vm()), look(off(OffReason.SHUTDOWN)), VmEnd.SELF_SHUTDOWN),
        (facts(vm(stop_asked_at=T), asked=DESTROYING), look(off(OffReason.DESTROYED)), VmEnd.DESTROYED),
        (facts(vm()), look(off(OffReason.DESTROYED)), VmEnd.UNKNOWN),
        (facts(vm()), look(off(OffReason.CRASHED)), VmEnd.CRASHED),
        (facts(vm()), look(off(OffReason.FAILED)), VmEnd.START_FAILED),
        (facts(vm()), look(off(OffReason.UNKNOWN)), VmEnd.UNKNOWN),
        (facts(vm()), look(off(OffReason.UNKNOWN), boot_id="boot-2"), VmEnd.HOST_REBOOT),
        (facts(vm()), look(), VmEnd.VANISHED),
        (facts(vm()), look(boot_id="boot-2"), VmEnd.HOST_REBOOT),
        # Starts that never came up.
        (STARTING, look(), VmEnd.VANISHED),
        (STARTING, look(off(OffReason.UNKNOWN)), VmEnd.VANISHED),
        (STARTING, look(boot_id="boot-2"), VmEnd.HOST_REBOOT),
        (
            replace(STARTING, asked=(asked(Verb.START, UUID1, until_s=180, detail="no memory"),)),
            look(),
            VmEnd.START_FAILED,
        ),
        (
            replace(STARTING, asked=(asked(Verb.START, UUID1, until_s=180),)),
            look(off(OffReason.UNKNOWN)),
            VmEnd.START_FAILED,
        ),
        (STARTING, look(off(OffReason.SHUTDOWN)), VmEnd.SELF_SHUTDOWN),
    ],
)
def test_an_end_is_named_by_what_is_shown_and_what_was_asked(
    before: HostFacts, shown: ObservedHost, end: VmEnd
) -> None:
    ended = see(before, shown, PLAN, 100)
    assert (ended.facts.vms[0].end, ended.facts.vms[0].off_at) == (end, T + 100)
    assert ended.facts.asked == ()
    assert len([kind for kind in kinds(ended) if kind in ("vm.off", "vm.vanished")]) == 1


@pytest.mark.parametrize(
    ("shown", "in_flight"),
    [
        (look(), InFlight(vms=frozenset({UUID1}))),
        (look(off(OffReason.UNKNOWN)), InFlight(vms=frozenset({UUID1}))),
        (look(domain(state=DomainState.OFF, off_reason=OffReason.UNKNOWN, is_busy=True)), InFlight()),
        (look(domain(state=DomainState.PAUSED, is_busy=True)), InFlight()),
        (look(domain(state=DomainState.UNKNOWN)), InFlight()),
        (look(disks=CUT_OFF_COPY), InFlight()),
    ],
)
def test_a_start_that_somebody_may_still_be_at_is_not_judged(shown: ObservedHost, in_flight: InFlight) -> None:
    assert see(STARTING, shown, PLAN, 100, in_flight).facts.vms == STARTING.vms


def test_a_copy_that_outlasts_the_bound_of_its_start_is_not_waited_for() -> None:
    assert see(STARTING, look(disks=CUT_OFF_COPY), PLAN, 181).facts.vms[0].end is VmEnd.VANISHED


def test_a_stop_over_its_bound_is_a_fault_and_told() -> None:
    stopping = facts(vm(stop_asked_at=T), asked=STOPPING)
    in_time = see(stopping, look(off(OffReason.SHUTDOWN)), PLAN, 360)
    assert [m.took_s for m in in_time.measurements] == [360]
    assert "bound.exceeded" not in kinds(in_time)
    assert "bound.exceeded" in kinds(see(stopping, look(off(OffReason.SHUTDOWN)), PLAN, 361))


def test_a_stop_that_the_guest_ignored_is_forgotten_once_the_plan_wants_the_vm_again() -> None:
    stopping = facts(vm(stop_asked_at=T), asked=STOPPING)
    assert see(stopping, look(domain()), PLAN, 299).facts.asked == STOPPING
    again = see(stopping, look(domain()), PLAN, 300).facts
    assert (again.asked, again.vms[0].stop_asked_at) == ((), None)


def test_an_ended_start_that_runs_after_all_is_taken_back() -> None:
    ended = facts(vm(end=VmEnd.VANISHED, off_at=T + 10, is_gone=True))
    back = see(ended, look(domain()), PLAN, 100)
    assert (back.facts.vms[0].end, back.facts.vms[0].is_gone) == (None, False)
    # Not while the start that followed it counts as holding the GPUs.
    both = facts(*ended.vms, vm(generation=2, is_running=False))
    known = plan(reservation(R1, span(generation=2)))
    in_flight = InFlight(vms=frozenset({domain_uuid(R1, 2)}))
    assert see(both, look(domain()), known, 100, in_flight).facts.vms == both.vms


def test_a_vm_is_gone_once_it_was_removed_and_is_not_shown() -> None:
    ended = facts(vm(end=VmEnd.STOPPED, off_at=T + 10))
    assert see(ended, look(), PLAN, 20).facts.vms[0].is_gone is False
    removed = replace(ended, asked=(asked(Verb.REMOVE, UUID1, until_s=40),))
    assert see(removed, look(off(OffReason.SHUTDOWN)), PLAN, 20).facts.vms[0].is_gone is False
    gone = see(removed, look(), PLAN, 20)
    assert (gone.facts.vms[0].is_gone, gone.facts.asked) == (True, ())


def test_starts_that_the_facts_lost_and_the_plan_knows_are_adopted() -> None:
    known = plan(reservation(R1, span(generation=2)))
    shown = look(domain(generation=2), off(OffReason.SHUTDOWN))
    adopted = see(facts(), shown, known, 50)
    assert [(v.generation, v.up_at, v.end) for v in adopted.facts.vms] == [(1, None, VmEnd.UNKNOWN), (2, T + 50, None)]
    assert kinds(adopted).count("vm.adopted") == 2
    assert adopted.measurements == ()


@pytest.mark.parametrize(
    "stranger",
    [
        foreign(0, 1),
        domain(R2),
        domain(R1, 5),
        replace(domain(), uuid=domain_uuid(R2, 1)),
        replace(domain(), devices=frozenset({PROFILE.gpu(0).address, PROFILE.gpu(5).address})),
    ],
)
def test_what_nightshift_did_not_make_or_does_not_know_is_foreign_and_its_gpus_leave_the_plan(
    stranger: ObservedDomain,
) -> None:
    seen = see(facts(), look(stranger), PLAN, 10)
    assert seen.facts.vms == ()
    assert [d.uuid for d in seen.facts.foreign] == [stranger.uuid]
    held = {gpu.index for gpu in PROFILE.gpus if gpu.address in stranger.devices}
    assert seen.facts.gpus_out_of_plan == held
    left = see(seen.facts, look(reset=CheckResult.FAILED), PLAN, 20)
    assert left.facts.foreign == ()
    assert {f.gpu for f in left.facts.gpus if f.state is GpuState.DIRTY} >= held


def gpu(state: GpuState, *, since_s: int = 0) -> tuple[GpuFact, ...]:
    return (GpuFact(gpu=0, state=state, since_at=T + since_s, problem="x"),)


RESET = asked(Verb.RESET, PROFILE.gpu(0).address, at_s=5, until_s=125)


@pytest.mark.parametrize(
    ("before", "shown", "at_s", "state"),
    [
        (facts(), look(reset=CheckResult.FAILED), 10, GpuState.DIRTY),
        (facts(gpus=gpu(GpuState.DIRTY)), look(), 10, GpuState.DIRTY),
        (facts(gpus=gpu(GpuState.DIRTY), asked=(RESET,)), look(), 10, GpuState.CLEAN),
        (facts(gpus=gpu(GpuState.DIRTY), asked=(RESET,)), look(reset=CheckResult.FAILED), 10, GpuState.DIRTY),
        (facts(gpus=gpu(GpuState.DIRTY, since_s=6), asked=(RESET,)), look(), 10, GpuState.DIRTY),
        (facts(gpus=gpu(GpuState.DIRTY), asked=(RESET,)), look(reset=CheckResult.UNVERIFIED), 124, GpuState.DIRTY),
        (facts(gpus=gpu(GpuState.DIRTY), asked=(RESET,)), look(reset=CheckResult.UNVERIFIED), 125, GpuState.CLEAN),
        (facts(gpus=gpu(GpuState.CLEAN)), look(unreadable=[0]), 10, GpuState.QUARANTINED),
        (facts(gpus=gpu(GpuState.CLEAN)), look(missing=[0]), 10, GpuState.QUARANTINED),
        (facts(gpus=gpu(GpuState.QUARANTINED)), look(), 10, GpuState.QUARANTINED),
        (facts(gpus=gpu(GpuState.CLEAN)), look(foreign(0)), 10, GpuState.FOREIGN),
        (facts(gpus=gpu(GpuState.FOREIGN)), look(), 10, GpuState.DIRTY),
        (facts(vm(partition="1g0"), gpus=gpu(GpuState.CLEAN)), look(domain(partition="1g0")), 10, GpuState.DIRTY),
    ],
)
def test_the_state_of_a_gpu_follows_from_what_it_was_and_what_is_shown(
    before: HostFacts, shown: ObservedHost, at_s: int, state: GpuState
) -> None:
    after = see(before, shown, PLAN, at_s).facts
    assert {f.gpu: f.state for f in after.gpus}[0] is state


def test_an_unverified_reset_is_shown_and_told_as_such_and_never_as_passed() -> None:
    before = facts(gpus=gpu(GpuState.DIRTY), asked=(RESET,))
    seen = see(before, look(reset=CheckResult.UNVERIFIED), PLAN, 125)
    assert "cannot be told" in seen.facts.gpus[0].problem
    assert kinds(seen) == ["gpu.reset_unverified"]
    assert seen.measurements == ()


def test_that_an_agent_falls_silent_is_told_its_owner_once() -> None:
    silent = see(facts(vm()), look(domain(is_guest_up=None)), PLAN, 100)
    assert ("vm.agent_silent", R1, True) in [(e.kind, e.reservation, e.is_notice) for e in silent.events]
    assert see(silent.facts, look(domain(is_guest_up=None)), PLAN, 200).events == ()


def test_a_mended_gpu_is_checked_before_it_is_taken_back_and_only_once_for_each_mending() -> None:
    host = replace(PLAN.hosts[HOST], mended=((0, T + 50),))
    known = replace(PLAN, hosts={HOST: host})
    before = facts(gpus=gpu(GpuState.QUARANTINED))
    assert see(before, look(), known, 60).facts.gpus[0].state is GpuState.DIRTY
    still_broken = see(before, look(unreadable=[0]), known, 60).facts
    assert still_broken.gpus[0].state is GpuState.QUARANTINED
    again = facts(gpus=gpu(GpuState.QUARANTINED, since_s=60))
    assert see(again, look(), known, 70).facts.gpus[0].state is GpuState.QUARANTINED


SWITCH = PROFILE.nvswitches[0].address
"""Of 2g0-1, 4g0-3, 8g0-7 and 16g0-15."""
HCA = PROFILE.hcas[2].address
"""Of 2g4-5 and the blocks around it."""


def usable(known: HostFacts, size: int) -> set[str]:
    return {p.id for p in PROFILE.partitions_of_size(size) if not p.gpus & known.gpus_out_of_plan}


@pytest.mark.parametrize("dead", [{"dead": [SWITCH]}, {"gone": [SWITCH]}])
def test_a_dead_switch_takes_every_partition_that_needs_it_out_of_the_plan_and_few_others(
    dead: dict[str, list[str]],
) -> None:
    # Nothing was quarantined for it: the plan kept booking 2g0-1, and no start there could ever begin.
    seen = see(facts(), look(**dead), PLAN, 10)  # type: ignore[arg-type]
    assert usable(seen.facts, 2) == {p.id for p in PROFILE.partitions_of_size(2)} - {"2g0-1"}
    assert usable(seen.facts, 4) == {"4g4-7", "4g8-11", "4g12-15"}
    assert usable(seen.facts, 8) == {"8g8-15"}
    assert usable(seen.facts, 16) == set()
    assert len(usable(seen.facts, 1)) == 15
    (told,) = [event for event in seen.events if event.kind == "gpu.quarantined"]
    assert told.is_notice
    assert f"NVSwitch {SWITCH}" in str(dict(told.facts)["problem"])


def test_a_dead_adapter_takes_the_partitions_that_need_it_out_of_the_plan() -> None:
    seen = see(facts(), look(dead=[HCA]), PLAN, 10)
    assert "2g4-5" not in usable(seen.facts, 2)
    assert len(usable(seen.facts, 2)) == 7
    assert f"adapter {HCA} cannot be read" in seen.facts.gpus[0].problem


def test_a_guest_that_does_without_the_dead_switch_keeps_its_gpu_if_another_one_can_stand_in() -> None:
    known = facts(vm(partition="1g0"))
    seen = see(known, look(domain(partition="1g0"), dead=[SWITCH]), PLAN, 10)
    assert seen.facts.gpus_out_of_plan == {1}
    # It stays the one, also when the guest has gone.
    gone = see(replace(seen.facts, vms=()), look(dead=[SWITCH]), PLAN, 20)
    assert gone.facts.gpus_out_of_plan == {1}


def test_devices_that_die_one_after_the_other_are_all_named_and_share_a_gpu_that_stands_in() -> None:
    first = see(facts(), look(dead=[SWITCH]), PLAN, 10).facts
    both = see(first, look(dead=[SWITCH], gone=[PROFILE.hcas[0].address]), PLAN, 20)
    assert both.facts.gpus_out_of_plan == first.gpus_out_of_plan
    (fact,) = [f for f in both.facts.gpus if f.gpu in both.facts.gpus_out_of_plan]
    assert SWITCH in fact.problem
    assert PROFILE.hcas[0].address in fact.problem
    assert kinds(both) == ["gpu.quarantined"]
    again = see(both.facts, look(dead=[SWITCH], gone=[PROFILE.hcas[0].address]), PLAN, 30)
    assert again.facts is both.facts


def test_gpus_that_are_another_device_than_the_profile_says_leave_the_plan_and_come_back_by_themselves() -> None:
    # They were quarantined, each until an admin said `mended`.
    wrong = mistaken(look(), *(gpu.address for gpu in PROFILE.gpus))
    seen = see(facts(), wrong, PLAN, 10)
    assert {fact.state for fact in seen.facts.gpus} == {GpuState.UNCLEAR}
    assert seen.facts.gpus_out_of_plan == {gpu.index for gpu in PROFILE.gpus}
    said = "is not what profile dgx-2 says: it is 10de:20b0, the profile says 10de:1db8"
    assert seen.facts.gpus[3].problem == f"{PROFILE.gpu(3).address} {said}"
    assert see(seen.facts, wrong, PLAN, 20).facts == seen.facts
    right = see(seen.facts, look(), PLAN, 30)
    assert {fact.state for fact in right.facts.gpus} == {GpuState.DIRTY}


def test_a_switch_that_is_another_device_takes_its_partitions_out_of_the_plan_until_it_is_the_right_one() -> None:
    switch = PROFILE.nvswitches[0].address
    wrong = mistaken(look(), switch)
    seen = see(facts(), wrong, PLAN, 10)
    out = seen.facts.gpus_out_of_plan
    assert {fact.state for fact in seen.facts.gpus if fact.gpu in out} == {GpuState.UNCLEAR}
    assert all(p.gpus & out for p in PROFILE.partitions if switch in p.share.nvswitches)
    assert see(seen.facts, wrong, PLAN, 20).facts == seen.facts
    assert see(seen.facts, look(), PLAN, 30).facts.gpus_out_of_plan == frozenset()


def test_all_switches_that_are_another_device_are_stood_in_for_by_few_gpus_and_the_same_ones_at_each_look() -> None:
    wrong = mistaken(look(), *(switch.address for switch in PROFILE.nvswitches))
    seen = see(facts(), wrong, PLAN, 10)
    assert 0 < len(seen.facts.gpus_out_of_plan) < len(PROFILE.gpus)
    assert see(seen.facts, wrong, PLAN, 20).facts == seen.facts


def test_a_gpu_whose_neighbour_a_stranger_has_is_in_foreign_hands_until_he_lets_go() -> None:
    stranger = foreign()
    shown = neighbour_held(look(stranger), PROFILE.gpu(5).address, stranger.uuid)
    seen = see(facts(), shown, PLAN, 10)
    assert {fact.gpu: (fact.state, fact.problem) for fact in seen.facts.gpus} == {
        5: (GpuState.FOREIGN, "held by bench")
    }
    left = see(seen.facts, look(), PLAN, 20)
    assert {fact.gpu: fact.state for fact in left.facts.gpus} == {5: GpuState.DIRTY}


def test_a_gpu_whose_neighbour_one_of_our_own_has_stays_in_the_plan() -> None:
    shown = neighbour_held(look(domain(partition="2g0-1")), PROFILE.gpu(5).address, domain_uuid(R1, 1))
    assert see(facts(vm()), shown, PLAN, 70).facts.gpus_out_of_plan == frozenset()


def test_a_mended_switch_comes_back_when_an_admin_says_so_and_it_can_be_read() -> None:
    before = see(facts(), look(dead=[SWITCH]), PLAN, 10).facts
    (out,) = before.gpus_out_of_plan
    known = replace(PLAN, hosts={HOST: replace(PLAN.hosts[HOST], mended=((out, T + 50),))})
    assert see(before, look(), PLAN, 60).facts.gpus_out_of_plan == {out}
    assert see(before, look(dead=[SWITCH]), known, 60).facts is before
    assert see(before, look(), known, 60).facts.gpus[0].state is GpuState.DIRTY


def test_a_switch_that_is_never_clean_leaves_the_plan_after_its_resets_and_mended_resets_it_anew() -> None:
    def after(attempt: int, at_s: int) -> HostFacts:
        ask = asked(Verb.RESET, SWITCH, until_s=120, attempt=attempt)
        return see(facts(asked=(ask,)), look(unclean=[SWITCH]), PLAN, at_s).facts

    assert after(3, 120).gpus_out_of_plan == frozenset()
    assert after(4, 119).gpus_out_of_plan == frozenset()
    given_up = after(4, 120)
    (out,) = given_up.gpus_out_of_plan
    assert "was not clean after 4 resets" in given_up.gpus[0].problem
    assert see(given_up, look(unclean=[SWITCH]), PLAN, 500).facts is given_up
    known = replace(PLAN, hosts={HOST: replace(PLAN.hosts[HOST], mended=((out, T + 600),))})
    mended = see(given_up, look(unclean=[SWITCH]), known, 600).facts
    assert (mended.asked, mended.gpus[0].state) == ((), GpuState.DIRTY)


def test_a_guest_that_goes_down_with_a_device_that_is_off_the_bus_did_not_crash_by_itself() -> None:
    lost = see(facts(vm()), look(off(OffReason.CRASHED), gone=[SWITCH]), PLAN, 10)
    assert lost.facts.vms[0].end is VmEnd.GPU_LOST


def test_gpus_of_a_start_whose_state_is_not_understood_leave_the_plan_until_it_is_known_again() -> None:
    unknown = look(domain(state=DomainState.UNKNOWN))
    seen = see(facts(vm()), unknown, PLAN, 10)
    assert seen.facts.gpus_out_of_plan == {0, 1}
    assert {f.state for f in seen.facts.gpus} == {GpuState.UNCLEAR}
    assert see(seen.facts, unknown, PLAN, 20).facts is seen.facts
    back = see(seen.facts, look(domain()), PLAN, 30)
    assert back.facts.gpus_out_of_plan == frozenset()
    assert back.facts.vms[0].end is None


def test_a_look_without_any_devices_quarantines_nothing_and_says_so() -> None:
    blind = see(facts(), replace(look(), devices=()), PLAN, 10)
    assert blind.facts.gpus == ()
    assert kinds(blind) == ["host.devices_unreadable"]


def test_a_copy_that_was_cut_off_is_remembered_so_that_its_room_is_not_given_away_before_it_is_deleted() -> None:
    # Forgotten, it left the plan at the end of its retention and stayed on the host for ever.
    half = ObservedDisk(id="d-r-1", size_gib=100, is_ready=False, is_busy=False, held_by=None)
    left = see(facts(), look(disks=(half,)), PLAN, 10)
    assert ([d.disk for d in left.facts.disks], kinds(left)) == (["d-r-1"], ["disk.half_made"])
    assert kinds(see(left.facts, look(disks=(half,)), PLAN, 20)) == []
    # The same of a copy that hangs, and whose reservation has ended meanwhile.
    hanging = (replace(half, is_busy=True),)
    over = plan(reservation(R1, span(generation=1), outcome=Outcome.FAILED))
    assert see(facts(), look(disks=hanging), PLAN, 10).facts.disks == ()
    assert [d.disk for d in see(facts(), look(disks=hanging), over, 10).facts.disks] == ["d-r-1"]


def test_a_guest_that_goes_down_with_its_gpu_did_not_crash_by_itself() -> None:
    lost = see(facts(vm()), look(off(OffReason.CRASHED), unreadable=[1]), PLAN, 10)
    assert lost.facts.vms[0].end is VmEnd.GPU_LOST
    assert "cannot be read" in lost.facts.vms[0].problem
    elsewhere = see(facts(vm()), look(off(OffReason.CRASHED), unreadable=[2]), PLAN, 10)
    assert elsewhere.facts.vms[0].end is VmEnd.CRASHED


def test_disks_are_remembered_when_they_are_ready_and_when_they_are_gone() -> None:
    ready = ObservedDisk(id="d-r-1", size_gib=100, is_ready=True, is_busy=False, held_by=None)
    half = replace(ready, is_ready=False, is_busy=True)
    other = replace(ready, id="somebodys")
    assert see(facts(), look(disks=(half, other)), PLAN, 10).facts.disks == ()
    made = see(facts(), look(disks=(ready, other)), PLAN, 10)
    assert [(d.disk, d.made_at, d.deleted_at) for d in made.facts.disks] == [("d-r-1", T + 10, None)]
    lost = see(made.facts, look(), PLAN, 20)
    assert (lost.facts.disks[0].deleted_at, kinds(lost)) == (T + 20, ["disk.vanished"])
    deleting = replace(made.facts, asked=(asked(Verb.DELETE_DISK, "d-r-1", until_s=99),))
    deleted = see(deleting, look(), PLAN, 20)
    assert (kinds(deleted), deleted.facts.asked) == (["disk.deleted"], ())


def test_a_pool_that_could_not_be_read_has_lost_no_disk() -> None:
    ready = ObservedDisk(id="d-r-1", size_gib=100, is_ready=True, is_busy=False, held_by=None)
    made = see(facts(), look(disks=(ready,)), PLAN, 10)
    unread = see(made.facts, replace(look(), are_disks_known=False), PLAN, 20)
    assert (unread.facts.disks, kinds(unread)) == (made.facts.disks, [])


def test_a_start_of_an_ended_reservation_is_still_watched_to_its_end() -> None:
    over = plan(reservation(R1, span(generation=1), outcome=Outcome.STOPPED))
    stopping = facts(vm(stop_asked_at=T), asked=STOPPING)
    assert see(stopping, look(off(OffReason.SHUTDOWN)), over, 100).facts.vms[0].end is VmEnd.STOPPED
    assert PROFILE.partition(PartitionId("2g0-1")).size == 2
