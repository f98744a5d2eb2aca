"""Converging a real store's plan on a simulated host: what happens on the host, and what is remembered of it."""

from dataclasses import replace
from typing import Any, cast
from uuid import UUID

import pytest

from scheduler.core.facts import (
    UNREACHABLE,
    DomainState,
    GpuState,
    HostTrouble,
    ObservedHost,
    TroubleKind,
    VmEnd,
)
from scheduler.core.plan import Outcome, PlanChange
from scheduler.core.reasons import ReasonCode
from scheduler.core.settings import Settings
from scheduler.core.spans import HOUR_S, MINUTE_S
from tests.workers.converge_bench import BEGAN_AT, HOST, PROFILE, Worker, World
from workers.converge import ASKS_WITHIN_MACHINE_S, MOST_PASSES
from workers.drivers.simulated.faults import Fault, FaultKind, RackVerb
from workers.ports import AgentSilent, HostUnreachable


def test_a_booked_vm_is_pinned_started_warned_stopped_and_cleared_away() -> None:
    world = World()
    booked = world.book("r-1", "4g0-3", end_s=HOUR_S)
    world.run(2 * HOUR_S)
    kinds = [event.kind for event in world.events() if event.reservation == booked]
    assert kinds == [
        "span.pinned",
        "vm.start_asked",
        "vm.up",
        "vm.running",
        "vm.warned",
        "vm.stop_asked",
        "vm.off",
        "vm.removed",
    ]
    vm = world.vm(booked)
    assert vm.end is VmEnd.STOPPED
    assert vm.is_gone
    assert world.reservation(booked).spans[0].generation == 1
    assert world.facts.asked == ()
    assert {fact.state for fact in world.facts.gpus} == {GpuState.CLEAN}


def test_converging_again_writes_nothing_and_asks_nothing() -> None:
    world = World()
    world.book("r-1", "4g0-3")
    world.run(10 * MINUTE_S)
    before = world.facts, world.store.last_event_seq(), world.store.plan_version(), world.rack_log()
    for _ in range(5):
        report = world.worker.converge.converge()
        assert report.actions == ()
    assert (world.facts, world.store.last_event_seq(), world.store.plan_version(), world.rack_log()) == before


def test_a_shutdown_that_outlasts_many_ticks_is_asked_once() -> None:
    world = World()
    booked = world.book("r-1", "1g0", end_s=HOUR_S)
    world.rack.inject(Fault(kind=FaultKind.HANG, verb=RackVerb.ASK_SHUTDOWN))
    world.run(HOUR_S)
    for tick in range(100):
        world.run(HOUR_S + tick)
    assert world.rack_log("vm.shutdown_asked") == []
    assert [event.kind for event in world.events("vm.stop_asked")] == ["vm.stop_asked"]
    assert world.vm(booked).end is None


def test_a_guest_that_ignores_the_button_is_asked_through_its_agent_half_way() -> None:
    world = World()
    booked = world.book("r-1", "1g0", end_s=HOUR_S)
    world.rack.inject(Fault(kind=FaultKind.IGNORE_SHUTDOWN, verb=RackVerb.ASK_SHUTDOWN))
    world.run(2 * HOUR_S)
    asked = [(event.at - BEGAN_AT, dict(event.facts)["through"]) for event in world.events("vm.stop_asked")]
    assert asked == [(HOUR_S, "acpi"), (HOUR_S + 150, "agent")]
    assert world.vm(booked).end is VmEnd.STOPPED


def test_a_guest_that_ignores_everything_is_destroyed_after_its_grace_and_its_disk_is_kept() -> None:
    world = World()
    booked = world.book("r-1", "1g0", end_s=HOUR_S)
    world.rack.inject(Fault(kind=FaultKind.HANG, verb=RackVerb.ASK_SHUTDOWN, times=9))
    world.run(2 * HOUR_S)
    (destroyed,) = world.events("vm.destroy_asked")
    assert destroyed.at == BEGAN_AT + HOUR_S + 300
    assert destroyed.is_notice
    assert world.vm(booked).end is VmEnd.DESTROYED
    assert [fact.deleted_at for fact in world.facts.disks] == [None]


def test_a_vm_that_cannot_be_destroyed_has_its_gpus_quarantined_and_is_reported() -> None:
    world = World()
    booked = world.book("r-1", "2g0-1", end_s=HOUR_S)
    world.rack.inject(Fault(kind=FaultKind.HANG, verb=RackVerb.ASK_SHUTDOWN, times=9))
    world.rack.inject(Fault(kind=FaultKind.FAIL, verb=RackVerb.DESTROY, times=9))
    world.run(2 * HOUR_S)
    assert len(world.events("vm.destroy_asked")) == world.settings.destroy_attempts
    assert world.facts.gpus_out_of_plan == {0, 1}
    assert world.vm(booked).end is None
    assert [f.why.code for f in world.worker.reports[-1].findings] == [ReasonCode.DRIVER_REFUSED]


def test_a_vm_that_could_not_be_destroyed_is_destroyed_anew_once_an_admin_says_its_gpus_are_mended() -> None:
    world = World()
    booked = world.book("r-1", "2g0-1", end_s=HOUR_S)
    world.rack.inject(Fault(kind=FaultKind.HANG, verb=RackVerb.ASK_SHUTDOWN, times=9))
    world.rack.inject(Fault(kind=FaultKind.FAIL, verb=RackVerb.DESTROY, times=3))
    world.run(2 * HOUR_S)
    assert world.facts.gpus_out_of_plan == {0, 1}
    now = world.clock.now()
    host = replace(world.store.load_plan(now).hosts[HOST], mended=((0, now), (1, now)))
    world.commit(PlanChange(hosts=(host,)))
    world.run(3 * HOUR_S)
    assert world.vm(booked).end is VmEnd.DESTROYED
    assert world.facts.gpus_out_of_plan == frozenset()


def test_a_reset_that_is_never_done_is_asked_again_then_after_a_rebind_then_the_gpu_is_quarantined() -> None:
    world = World()
    world.book("r-1", "1g0", end_s=HOUR_S)
    world.rack.inject(Fault(kind=FaultKind.HANG, verb=RackVerb.ASK_RESET, times=99))
    world.run(3 * HOUR_S)
    assert world.facts.gpus_out_of_plan == {0}
    assert "4 resets" in world.facts.gpus[0].problem
    assert world.rack_log("device.unbound") == ["device.unbound"] * 2


def test_starts_wait_for_the_hand_over_and_say_so() -> None:
    world = World()
    world.book("r-1", "4g4-7", end_s=HOUR_S)
    night = world.book("r-2", "16g0-15", start_s=HOUR_S, end_s=4 * HOUR_S)
    world.rack.inject(Fault(kind=FaultKind.IGNORE_SHUTDOWN, verb=RackVerb.ASK_SHUTDOWN))
    world.run(HOUR_S + 60)
    waits = [f for f in world.worker.reports[-1].findings if f.reservation == night]
    assert [f.why.code for f in waits] == [ReasonCode.WAITS_FOR_HAND_OVER]
    assert waits[0].why.fact("holder") == "r-1-4g4-7"
    world.run(2 * HOUR_S)
    assert world.vm(night).running_at is not None


def test_chains_of_disjoint_partitions_run_at_once() -> None:
    world = World()
    ids = [world.book(f"r-{n}", f"4g{4 * n}-{4 * n + 3}") for n in range(4)]
    world.run(10 * MINUTE_S)
    starts = [world.vm(id_) for id_ in ids]
    assert all(vm.running_at is not None and vm.running_at < BEGAN_AT + 240 for vm in starts)


@pytest.mark.parametrize("verb", [RackVerb.CREATE_DISK, RackVerb.BIND, RackVerb.DEFINE, RackVerb.START])
@pytest.mark.parametrize("kind", [FaultKind.FAIL, FaultKind.ACT_HALF, FaultKind.LIE, FaultKind.HANG])
def test_a_start_that_goes_wrong_once_is_tried_again_as_a_new_generation(verb: RackVerb, kind: FaultKind) -> None:
    world = World()
    booked = world.book("r-1", "4g0-3")
    if kind is FaultKind.HANG and verb is RackVerb.CREATE_DISK:
        world.rack.inject(Fault(kind=kind, verb=verb, until_at=BEGAN_AT + 600))
    else:
        world.rack.inject(Fault(kind=kind, verb=verb))
    world.run(HOUR_S)
    assert world.vm(booked).running_at is not None
    if (kind, verb) != (FaultKind.LIE, RackVerb.BIND):
        # Devices that are bound already are no worse for a bind that did nothing.
        first = world.vms(booked)[0]
        assert first.end in (VmEnd.START_FAILED, VmEnd.VANISHED) or verb is RackVerb.BIND
    assert len([vm for vm in world.vms(booked) if vm.end is None]) == 1


def test_a_start_that_keeps_failing_is_left_to_the_plan_and_says_so() -> None:
    world = World()
    booked = world.book("r-1", "4g0-3")
    world.rack.inject(Fault(kind=FaultKind.FAIL, verb=RackVerb.DEFINE, times=99, message="no machine type"))
    world.run(HOUR_S)
    assert [vm.end for vm in world.vms(booked)] == [VmEnd.START_FAILED] * 3
    (why,) = [f.why for f in world.worker.reports[-1].findings]
    assert why.code is ReasonCode.START_FAILED
    assert "no machine type" in str(why.fact("problem"))


def test_a_crashed_guest_is_started_again_three_times_and_then_not_any_more() -> None:
    world = World()
    booked = world.book("r-1", "1g0", end_s=8 * HOUR_S)
    for crash in range(1, 6):
        world.rack.inject(Fault(kind=FaultKind.GUEST_CRASH, at=BEGAN_AT + crash * HOUR_S))
    world.run(6 * HOUR_S)
    assert [vm.end for vm in world.vms(booked)] == [VmEnd.CRASHED] * 4
    assert [f.why.code for f in world.worker.reports[-1].findings] == [ReasonCode.CRASHED_TOO_OFTEN]


def test_a_guest_that_shut_itself_down_is_started_again_only_when_its_owner_asks() -> None:
    world = World()
    booked = world.book("r-1", "1g0")
    world.rack.inject(Fault(kind=FaultKind.GUEST_SHUTDOWN, at=BEGAN_AT + HOUR_S))
    world.run(HOUR_S + 300)
    assert [vm.end for vm in world.vms(booked)] == [VmEnd.SELF_SHUTDOWN]
    assert [f.why.code for f in world.worker.reports[-1].findings] == [ReasonCode.WAITS_FOR_OWNER]
    world.change(booked, restart_after=1)
    world.run(2 * HOUR_S)
    assert [vm.end for vm in world.vms(booked)] == [VmEnd.SELF_SHUTDOWN, None]


def test_after_a_host_reboot_a_wanted_vm_runs_as_a_new_generation() -> None:
    world = World()
    booked = world.book("r-1", "4g0-3")
    world.rack.inject(Fault(kind=FaultKind.REBOOT, at=BEGAN_AT + HOUR_S, until_at=BEGAN_AT + HOUR_S + 600))
    world.run(3 * HOUR_S)
    assert [vm.end for vm in world.vms(booked)] == [VmEnd.HOST_REBOOT, None]
    assert world.vm(booked).running_at is not None
    kinds = [event.kind for event in world.events("host.unreachable", "host.back", "host.rebooted")]
    assert kinds == ["host.unreachable", "host.back", "host.rebooted"]


def test_a_vm_that_vanished_runs_as_a_new_generation() -> None:
    world = World()
    booked = world.book("r-1", "4g0-3")
    world.rack.inject(Fault(kind=FaultKind.VANISH, at=BEGAN_AT + HOUR_S))
    world.run(2 * HOUR_S)
    assert [vm.end for vm in world.vms(booked)] == [VmEnd.VANISHED, None]


def test_a_vm_somebody_destroyed_by_hand_is_left_and_its_booking_says_why() -> None:
    world = World()
    booked = world.book("r-1", "4g0-3", end_s=2 * HOUR_S)
    world.run(HOUR_S)
    drivers = world.rack.drivers()
    with world.clock.branch():
        drivers.hypervisor.destroy(world.vm(booked).uuid, timeout_s=60)
    world.run(HOUR_S + 600)
    assert [vm.end for vm in world.vms(booked)] == [VmEnd.UNKNOWN]
    assert [f.why.code for f in world.worker.reports[-1].findings] == [ReasonCode.UNKNOWN_STATE]
    # Once its time is over by the plan, it is cleared away like any other.
    world.run(3 * HOUR_S)
    assert world.vm(booked).is_gone


def test_while_the_host_does_not_answer_nothing_is_judged() -> None:
    world = World()
    booked = world.book("r-1", "4g0-3", end_s=HOUR_S)
    world.rack.inject(Fault(kind=FaultKind.UNREACHABLE, at=BEGAN_AT + HOUR_S - 60, until_at=BEGAN_AT + 2 * HOUR_S))
    world.run(HOUR_S + 1800)
    assert world.vm(booked).end is None
    assert world.facts.unreachable_since_at is not None
    assert [f.why.code for f in world.worker.reports[-1].findings] == [ReasonCode.HOST_UNREACHABLE]
    world.run(3 * HOUR_S)
    assert world.vm(booked).end is VmEnd.STOPPED


def test_what_a_driver_knows_to_do_about_a_silent_host_is_remembered_and_its_troubles_are_kept() -> None:
    world = World()
    trouble = HostTrouble(code="host.no_pool", kind=TroubleKind.WRONG, problem="no pool 'a'", mend="make it")
    real = world.rack.drivers()
    shown = real.hypervisor.look()

    class Hypervisor:
        answer: ObservedHost | HostUnreachable = replace(shown, troubles=(trouble,))

        def look(self) -> ObservedHost:
            if isinstance(self.answer, HostUnreachable):
                raise self.answer
            return self.answer

    hypervisor = Hypervisor()
    worker = Worker(world, "worker-2", replace(real, hypervisor=cast(Any, hypervisor)))
    worker.look_once()
    assert world.facts.troubles == (trouble,)
    hypervisor.answer = HostUnreachable("qemu:///system: refused; start libvirtd", mend="start libvirtd")
    worker.look_once()
    assert world.facts.problem == "qemu:///system: refused; start libvirtd"
    assert [(t.code, t.problem, t.mend) for t in world.facts.troubles] == [
        ("host.no_pool", "no pool 'a'", "make it"),
        (UNREACHABLE, "qemu:///system: refused", "start libvirtd"),
    ]
    hypervisor.answer = shown
    worker.look_once()
    assert list(world.facts.troubles) == []
    kinds = [e.kind for e in world.events("host.trouble", "host.unreachable", "host.back", "host.trouble_over")]
    assert kinds == ["host.trouble", "host.unreachable", "host.back", "host.trouble_over"]


def test_a_foreign_domain_is_reported_never_touched_and_its_gpus_leave_the_plan_until_it_goes() -> None:
    world = World()
    booked = world.book("r-1", "4g0-3")
    stranger = world.rack.make_foreign_domain("bench", (2,))
    world.run(HOUR_S)
    assert world.vms(booked) == []
    assert world.facts.gpus_out_of_plan == {2}
    assert ReasonCode.GPU_HELD_BY_FOREIGN in {f.why.code for f in world.worker.reports[-1].findings}
    world.rack.remove_domain(stranger)
    world.run(2 * HOUR_S)
    assert world.vm(booked).running_at is not None
    assert len(world.events("domain.foreign", "domain.foreign_gone")) == 2


def test_a_vm_whose_reservation_the_plan_does_not_know_is_left_running() -> None:
    world, other = World(), World()
    booked = world.book("r-1", "4g0-3")
    world.run(HOUR_S)
    world.worker.kill()
    # Another database that never heard of the reservation, on the same host.
    other.rack, other.clock, other.agenda = world.rack, world.clock, world.agenda
    worker = Worker(other, "worker-2")
    other.run(5 * HOUR_S, worker=worker)
    assert world.rack_log("vm.shutdown_asked", "vm.destroy_asked") == []
    assert [domain.name for domain in other.facts.foreign] == ["r-1-4g0-3"]
    assert other.facts.gpus_out_of_plan == {0, 1, 2, 3}
    assert world.vm(booked).end is None


def test_running_vms_are_adopted_when_the_facts_are_lost() -> None:
    world = World()
    booked = world.book("r-1", "4g0-3", end_s=2 * HOUR_S)
    world.run(HOUR_S)
    world.worker.converge.release()
    kept = world.facts
    assert world.store.acquire_lease("host.dgx2-a", "eraser", now_machine_s=world.clock.machine_s(), ttl_s=60)
    empty = replace(kept, vms=(), gpus=(), disks=(), asked=(), boot_id=None, seen_at=None)
    world.store.record_facts(kept.host, "eraser", kept, empty, now_machine_s=world.clock.machine_s())
    world.store.release_lease("host.dgx2-a", "eraser")
    world.run(HOUR_S + 60)
    assert [event.kind for event in world.events("vm.adopted")] == ["vm.adopted"]
    assert [(vm.generation, vm.end) for vm in world.vms(booked)] == [(1, None)]
    world.run(3 * HOUR_S)
    assert world.vm(booked).end is VmEnd.STOPPED
    assert world.rack_log("vm.running") == ["vm.running"]


def test_a_gpu_that_dies_is_quarantined_and_comes_back_when_an_admin_says_it_is_mended() -> None:
    world = World()
    booked = world.book("r-1", "4g0-3", end_s=4 * HOUR_S)
    world.rack.inject(Fault(kind=FaultKind.GPU_DIES, at=BEGAN_AT + HOUR_S, gpus=(1,), subject="0000:36:00.0"))
    world.run(2 * HOUR_S)
    assert world.facts.gpus_out_of_plan == {1}
    assert world.vm(booked).end is VmEnd.GPU_LOST
    assert ReasonCode.GPU_QUARANTINED in {f.why.code for f in world.worker.reports[-1].findings}
    world.rack.mend_device("0000:36:00.0")
    host = replace(world.store.load_plan(world.clock.now()).hosts[world.facts.host], mended=((1, world.clock.now()),))
    world.commit(PlanChange(hosts=(host,)))
    world.run(3 * HOUR_S)
    assert world.facts.gpus_out_of_plan == frozenset()
    assert world.vm(booked).running_at is not None


def test_a_stop_ends_a_vm_at_once_and_keeps_its_disk() -> None:
    world = World()
    booked = world.book("r-1", "4g0-3")
    world.run(HOUR_S)
    world.end_now(booked)
    world.run(HOUR_S + 600)
    assert world.vm(booked).end is VmEnd.STOPPED
    assert [fact.deleted_at for fact in world.facts.disks] == [None]


def test_a_vm_whose_span_goes_on_on_the_same_partition_runs_on() -> None:
    world = World()
    booked = world.book("r-1", "4g0-3", end_s=HOUR_S)
    span = world.reservation(booked).spans[0]
    world.run(600)
    first = replace(span, generation=1)
    rest = replace(span, start_at=span.end_at, end_at=span.end_at + HOUR_S)
    world.change(booked, spans=(first, rest))
    world.run(2 * HOUR_S - 60)
    assert [(vm.generation, vm.end) for vm in world.vms(booked)] == [(1, None)]
    world.run(3 * HOUR_S)
    assert world.vm(booked).end is VmEnd.STOPPED


def test_no_start_is_begun_that_could_not_be_up_before_the_end_of_its_span() -> None:
    world = World()
    booked = world.book("r-1", "4g0-3", end_s=HOUR_S)
    world.rack.inject(Fault(kind=FaultKind.GUEST_CRASH, at=BEGAN_AT + HOUR_S - 200))
    world.run(HOUR_S + 60)
    assert [vm.end for vm in world.vms(booked)] == [VmEnd.CRASHED]


def test_a_disk_is_deleted_when_its_retention_is_over_and_not_before() -> None:
    world = World()
    booked = world.book("r-1", "4g0-3", end_s=HOUR_S, disk_until_s=3 * HOUR_S)
    world.run(HOUR_S + 600)
    world.change(booked, outcome=Outcome.COMPLETED, ended_at=world.clock.now())
    world.run(3 * HOUR_S - 1)
    assert [fact.deleted_at for fact in world.facts.disks] == [None]
    world.run(4 * HOUR_S)
    assert world.facts.disks[0].deleted_at is not None
    assert [event.kind for event in world.events("disk.deleted")] == ["disk.deleted"]


def test_a_disk_whose_retention_is_over_is_kept_while_its_reservation_lives() -> None:
    world = World()
    world.book("r-1", "4g0-3", end_s=8 * HOUR_S, disk_until_s=3 * HOUR_S)
    world.run(4 * HOUR_S)
    assert world.rack_log("disk.deleting") == []


def test_the_grace_and_the_warnings_are_those_of_the_window_that_makes_the_guest_leave() -> None:
    world = World()
    world.book("r-1", "4g0-3", end_s=2 * HOUR_S)
    world.open_window(2 * HOUR_S, 4 * HOUR_S, grace_s=120, warnings_s=(3600, 600))
    world.rack.inject(Fault(kind=FaultKind.HANG, verb=RackVerb.ASK_SHUTDOWN, times=9))
    world.run(3 * HOUR_S)
    assert [event.at - BEGAN_AT for event in world.events("vm.warned")] == [HOUR_S, 2 * HOUR_S - 600]
    assert [event.at - BEGAN_AT for event in world.events("vm.destroy_asked")] == [2 * HOUR_S + 120]


def test_an_agent_that_is_silent_is_said_and_the_vm_is_left() -> None:
    world = World()
    booked = world.book("r-1", "4g0-3")
    world.rack.inject(Fault(kind=FaultKind.AGENT_SILENT, at=BEGAN_AT + HOUR_S))
    world.run(2 * HOUR_S)
    assert world.vm(booked).is_agent_silent
    assert world.vm(booked).end is None
    assert [f.why.code for f in world.worker.reports[-1].findings] == [ReasonCode.AGENT_SILENT]


def test_a_guest_that_is_paused_at_the_end_of_its_time_is_destroyed_after_its_grace_and_its_disk_is_kept() -> None:
    # It was left as it was, and whoever was promised its GPUs waited behind it for ever.
    world = World()
    booked = world.book("r-1", "8g0-7", end_s=HOUR_S)
    following = world.book("r-2", "8g0-7", start_s=HOUR_S, end_s=4 * HOUR_S)
    world.run(HOUR_S // 2)
    world.set_domain_state(booked, DomainState.PAUSED)
    world.run(HOUR_S - 1)
    assert world.vm(booked).end is None
    assert world.rack_log("vm.shutdown_asked") == []
    world.run(2 * HOUR_S)
    assert world.vm(booked).end is VmEnd.DESTROYED
    (destroyed,) = world.events("vm.destroy_asked")
    assert (destroyed.at, destroyed.is_notice) == (BEGAN_AT + HOUR_S + 300, True)
    assert [fact.deleted_at for fact in world.facts.disks] == [None, None]
    assert world.vm(following).running_at is not None


def test_a_guest_whose_state_is_not_understood_is_left_and_its_gpus_leave_the_plan_until_it_is_known() -> None:
    world = World()
    booked = world.book("r-1", "8g0-7", end_s=HOUR_S)
    world.run(HOUR_S // 2)
    world.set_domain_state(booked, DomainState.UNKNOWN)
    world.run(3 * HOUR_S)
    world.worker.look_once()
    assert (world.vm(booked).end, world.rack_log("vm.shutdown_asked")) == (None, [])
    assert world.facts.gpus_out_of_plan == set(range(8))
    world.set_domain_state(booked, DomainState.RUNNING)
    world.run(4 * HOUR_S)
    assert world.vm(booked).end is VmEnd.STOPPED
    assert world.facts.gpus_out_of_plan == frozenset()


def test_what_is_left_alone_is_told_once_with_its_reservation_and_at_most_once_more_by_the_next_worker() -> None:
    world = World()
    booked = world.book("r-1", "4g0-3", end_s=8 * HOUR_S)
    world.run(HOUR_S)
    world.set_domain_state(booked, DomainState.PAUSED)
    for tick in range(20):
        world.run(HOUR_S + tick)
    world.run(6 * HOUR_S)
    (told,) = world.events(ReasonCode.UNKNOWN_STATE)
    assert (told.reservation, told.is_notice) == (booked, True)
    assert dict(told.facts)["problem"] == "the domain is paused"
    world.worker.kill()
    world.worker.converge.release()
    following = Worker(world, "worker-2")
    for _ in range(5):
        following.look_once()
    assert len(world.events(ReasonCode.UNKNOWN_STATE)) == 2


def test_a_driver_that_refuses_is_told_when_it_begins_and_when_it_is_given_up_and_not_at_each_attempt() -> None:
    world = World()
    booked = world.book("r-1", "2g0-1", end_s=HOUR_S)
    world.rack.inject(Fault(kind=FaultKind.HANG, verb=RackVerb.ASK_SHUTDOWN, times=9))
    world.rack.inject(Fault(kind=FaultKind.FAIL, verb=RackVerb.DESTROY, times=99))
    world.run(2 * HOUR_S)
    for tick in range(20):
        world.run(2 * HOUR_S + tick)
    (refused,) = world.events("driver.refused")
    (given_up,) = world.events(ReasonCode.DRIVER_REFUSED)
    assert (refused.reservation, given_up.reservation, given_up.is_notice) == (booked, booked, True)


def test_whoever_waits_for_gpus_of_a_stranger_has_that_in_their_own_record() -> None:
    world = World()
    booked = world.book("r-1", "4g0-3", start_s=HOUR_S)
    world.rack.make_foreign_domain("bench", (2,))
    world.run(HOUR_S + 600)
    world.worker.look_once()
    assert [(e.reservation, e.is_notice) for e in world.events("domain.foreign")] == [(None, True)]
    (told,) = world.events(ReasonCode.GPU_HELD_BY_FOREIGN)
    assert (told.reservation, dict(told.facts)["domain"]) == (booked, "bench")


def test_a_dead_switch_takes_its_partitions_out_of_the_plan_until_it_is_mended() -> None:
    world = World()
    switch = PROFILE.nvswitches[0].address
    world.rack.inject(Fault(kind=FaultKind.GPU_DIES, at=BEGAN_AT + 60, subject=switch))
    world.run(HOUR_S)
    (out,) = world.facts.gpus_out_of_plan
    assert {p.id for p in PROFILE.partitions if switch in p.share.nvswitches} <= {
        p.id for p in PROFILE.partitions if out in p.gpus
    }
    assert len(world.events("gpu.quarantined")) == 1
    world.rack.mend_device(switch)
    host = replace(world.store.load_plan(world.clock.now()).hosts[HOST], mended=((out, world.clock.now()),))
    world.commit(PlanChange(hosts=(host,)))
    booked = world.book("r-1", "2g0-1", start_s=HOUR_S)
    world.run(2 * HOUR_S)
    assert world.facts.gpus_out_of_plan == frozenset()
    assert world.vm(booked).running_at is not None


def test_a_worker_that_lost_its_lease_begins_no_further_step_and_the_next_one_starts_anew() -> None:
    world = World(settings=Settings(lease_machine_s=30.0, lease_renew_machine_s=1.0))
    world.book("r-1", "4g0-3")
    world.rack.inject(Fault(kind=FaultKind.HANG, verb=RackVerb.CREATE_DISK, until_at=BEGAN_AT + 100))
    world.agenda.at(BEGAN_AT, world.worker.look_once)
    world.agenda.run_until(BEGAN_AT + 99)
    world.clock.pass_machine_time(31)
    second = Worker(world, "worker-2")
    assert second.converge.converge().is_mine
    world.agenda.run_until(BEGAN_AT + 110)
    # The first worker's copy came back after its lease was over: it defined and started nothing.
    assert world.rack_log("vm.defined") == []
    assert world.worker.converge.converge().is_mine is False


class HungGuests:
    """Guests whose agents do not answer: each warning takes its whole limit, in machine time."""

    def __init__(self, world: World, takes_s: float) -> None:
        self.world = world
        self.takes_s = takes_s
        self.warned: list[UUID] = []

    def warn(self, uuid: UUID, text: str) -> None:
        self.world.clock.pass_machine_time(self.takes_s)
        self.warned.append(uuid)
        raise AgentSilent("Guest agent is not responding", domain=str(uuid))


def test_agents_that_hang_are_all_asked_once_and_cost_neither_the_lease_nor_a_start() -> None:
    # They were asked one after the other, the lease ran out meanwhile, and none of the answers was written.
    world = World(settings=Settings(lease_machine_s=15.0, lease_renew_machine_s=5.0))
    booked = [world.book(f"r-{n}", f"1g{n}", end_s=HOUR_S) for n in range(15)]
    late = world.book("r-15", "1g15", start_s=HOUR_S - 900, end_s=3 * HOUR_S)
    guests = HungGuests(world, takes_s=2.0)
    world.worker = Worker(world, "worker-1", replace(world.rack.drivers(), guest=guests))
    world.run(HOUR_S - 600)
    assert [report.problem for report in world.worker.reports if report.problem] == []
    assert sorted(guests.warned) == sorted(world.vm(id_).uuid for id_ in booked)
    assert len(world.events("vm.warned")) == len(booked)
    assert world.vm(late).running_at is not None


def test_a_pass_calls_no_further_asking_verb_once_it_has_taken_long_and_begins_what_starts_all_the_same() -> None:
    world = World(settings=Settings(lease_machine_s=15.0, lease_renew_machine_s=5.0))
    for n in range(8):
        world.book(f"r-{n}", f"1g{n}", end_s=HOUR_S)
    world.run(HOUR_S - 901)
    guests = HungGuests(world, takes_s=ASKS_WITHIN_MACHINE_S)
    worker = Worker(world, "worker-2", replace(world.rack.drivers(), guest=guests))
    world.worker.converge.release()
    world.worker.kill()
    late = world.book("r-8", "1g8", start_s=HOUR_S - 900, end_s=3 * HOUR_S)
    world.agenda.run_until(BEGAN_AT + HOUR_S - 900)
    worker.look_once()
    assert len(guests.warned) == MOST_PASSES == 8
    assert world.vm(late).end is None
    worker.look_once()
    assert len(guests.warned) == 8


def test_a_killed_worker_is_followed_by_one_that_adopts_what_came_up_meanwhile() -> None:
    world = World(settings=Settings(lease_machine_s=15.0, lease_renew_machine_s=5.0))
    booked = world.book("r-1", "4g0-3")
    world.agenda.at(BEGAN_AT, world.worker.look_once)
    while "vm.starting" not in world.rack_log():
        world.agenda.run_until(world.clock.now() + 1)
        world.worker.converge.converge()
    world.worker.kill()
    world.clock.pass_machine_time(16)
    second = Worker(world, "worker-2")
    while world.clock.now() < BEGAN_AT + 600:
        second.converge.converge()
        world.agenda.run_until(world.clock.now() + 1)
    assert [(vm.generation, vm.end) for vm in world.vms(booked)] == [(1, None)]
    assert world.vm(booked).running_at is not None


def test_a_plan_that_moved_on_before_the_pin_is_loaded_again() -> None:
    worlds: list[World] = []
    commits: list[str] = []

    def somebody_else_commits(point: str) -> None:
        if point == "facts:after" and not commits:
            commits.append(point)
            worlds[0].book("r-2", "1g8")

    worlds.append(World(on_commit=somebody_else_commits))
    booked = worlds[0].book("r-1", "4g0-3")
    worlds[0].run(600)
    assert commits == ["facts:after"]
    assert worlds[0].vm(booked).running_at is not None
