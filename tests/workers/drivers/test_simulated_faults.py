"""Each kind of fault does to a rack what it says, once, at its call or its instant, and says so in the log."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scheduler.core.facts import CheckResult, DomainState, OffReason
from scheduler.core.requests import DiskId
from scheduler.profiles.loading import load_profile
from tests.contract.hypervisor_contract import LONG_S
from tests.contract.simulated_bench import IMAGE, SimulatedBench
from workers.drivers.simulated.faults import Fault, FaultKind, RackVerb
from workers.ports import AgentSilent, DeviceMissing, DomainSpec, DriverError, HostUnreachable, VerbTimeout

PROFILE = load_profile("dgx-2")


@pytest.fixture
def bench() -> Iterator[SimulatedBench]:
    bench = SimulatedBench(PROFILE)
    yield bench
    bench.rack.close()


def running(bench: SimulatedBench, size: int = 2, place: int = 0, reservation: str = "r-1") -> DomainSpec:
    spec = bench.define(bench.spec(bench.partition(size, place), reservation=reservation))
    bench.start(spec)
    bench.wait_until(lambda: bench.domain(spec.uuid).is_guest_up is True, 300)
    return spec


def told(bench: SimulatedBench) -> list[str]:
    return [line.what for line in bench.rack.log() if line.what.startswith("fault.") and line.what != "fault.injected"]


# ---- faults of a call


VERBS: dict[RackVerb, Callable[[SimulatedBench, DomainSpec], None]] = {
    RackVerb.DEFINE: lambda b, s: b.drivers.hypervisor.define(b.spec(b.partition(1, 15), reservation="r-9")),
    RackVerb.START: lambda b, s: b.drivers.hypervisor.start(s.uuid, timeout_s=LONG_S),
    RackVerb.ASK_SHUTDOWN: lambda b, s: b.drivers.hypervisor.ask_shutdown(s.uuid),
    RackVerb.DESTROY: lambda b, s: b.drivers.hypervisor.destroy(s.uuid, timeout_s=LONG_S),
    RackVerb.UNDEFINE: lambda b, s: b.drivers.hypervisor.undefine(s.uuid),
    RackVerb.BIND: lambda b, s: b.drivers.pci.bind(s.devices),
    RackVerb.ASK_RESET: lambda b, s: b.drivers.pci.ask_reset(s.devices),
    RackVerb.REBIND: lambda b, s: b.drivers.pci.rebind(s.devices),
    RackVerb.ACTIVATE: lambda b, s: b.drivers.fabric.activate(s.partition),
    RackVerb.DEACTIVATE: lambda b, s: b.drivers.fabric.deactivate(s.partition),
    RackVerb.CREATE_DISK: lambda b, s: b.drivers.images.create_disk(
        DiskId("d-9"), image=IMAGE, size_gib=50, timeout_s=LONG_S
    ),
    RackVerb.DELETE_DISK: lambda b, s: b.drivers.images.delete_disk(s.disk, timeout_s=LONG_S),
    RackVerb.WARN: lambda b, s: b.drivers.guest.warn(s.uuid, "soon"),
}
NEEDS_RUNNING = {RackVerb.ASK_SHUTDOWN, RackVerb.DESTROY, RackVerb.WARN}


def ready_for(bench: SimulatedBench, verb: RackVerb) -> DomainSpec:
    """Bring the host to where the verb would do something."""
    if verb in NEEDS_RUNNING:
        return running(bench)
    spec = running(bench)
    bench.destroy(spec)
    if verb is RackVerb.ACTIVATE:
        bench.drivers.fabric.deactivate(spec.partition)
    return spec


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_that_fails_raises_does_nothing_and_then_works(bench: SimulatedBench, verb: RackVerb) -> None:
    spec = ready_for(bench, verb)
    bench.rack.inject(Fault(kind=FaultKind.FAIL, verb=verb, message="internal error: as told"))
    before = bench.drivers.hypervisor.look()
    with pytest.raises(DriverError, match="as told"):
        bench.run(lambda: VERBS[verb](bench, spec))
    assert bench.drivers.hypervisor.look() == before
    assert [line.what for line in bench.rack.log()[-2:]] == ["fault.fail", "verb.refused"]
    bench.run(lambda: VERBS[verb](bench, spec))
    assert told(bench) == ["fault.fail"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_that_lies_returns_at_once_and_does_nothing(bench: SimulatedBench, verb: RackVerb) -> None:
    spec = ready_for(bench, verb)
    bench.rack.inject(Fault(kind=FaultKind.LIE, verb=verb))
    before = bench.drivers.hypervisor.look()
    assert bench.run(lambda: VERBS[verb](bench, spec)) == 0
    bench.pass_time(1000)
    assert bench.drivers.hypervisor.look() == before
    assert told(bench) == ["fault.lie"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_that_acts_half_raises_and_can_be_brought_to_its_end(bench: SimulatedBench, verb: RackVerb) -> None:
    if verb is RackVerb.BIND:
        bench.rack.close()
        bench.rack = SimulatedBench(PROFILE, boot_driver="").rack
        bench.drivers = bench.rack.drivers()
        spec = bench.spec(bench.partition(2))
    else:
        spec = ready_for(bench, verb)
    bench.rack.inject(Fault(kind=FaultKind.ACT_HALF, verb=verb))
    lines = len(bench.rack.log())
    with pytest.raises(DriverError):
        bench.run(lambda: VERBS[verb](bench, spec))
    # Something was done besides refusing.
    assert {line.what for line in bench.rack.log()[lines:]} - {"fault.act_half", "verb.refused"}
    if verb is RackVerb.START:
        bench.destroy(spec)
    bench.run(lambda: VERBS[verb](bench, spec))
    assert told(bench) == ["fault.act_half"]


def test_a_half_start_holds_half_of_the_devices_until_it_is_destroyed(bench: SimulatedBench) -> None:
    spec = bench.define(bench.spec(bench.partition(4)))
    bench.rack.inject(Fault(kind=FaultKind.ACT_HALF, verb=RackVerb.START, subject="r-1"))
    with pytest.raises(DriverError, match="unexpectedly closed the monitor"):
        bench.start(spec)
    seen = bench.domain(spec.uuid)
    assert (seen.state, seen.is_busy) == (DomainState.PAUSED, False)
    assert bench.held_by(spec.uuid) == frozenset(spec.devices[:5])
    bench.destroy(spec)
    assert bench.held_by(spec.uuid) == frozenset()
    assert bench.domain(spec.uuid).off_reason is OffReason.DESTROYED


def test_a_half_destroy_leaves_some_devices_held(bench: SimulatedBench) -> None:
    spec = running(bench, 4)
    bench.rack.inject(Fault(kind=FaultKind.ACT_HALF, verb=RackVerb.DESTROY))
    with pytest.raises(DriverError, match="Failed to terminate process"):
        bench.destroy(spec)
    assert 0 < len(bench.held_by(spec.uuid)) < len(spec.devices)
    bench.destroy(spec)
    assert bench.held_by(spec.uuid) == frozenset()


def test_half_a_copy_leaves_a_disk_that_is_not_ready_and_is_begun_anew(bench: SimulatedBench) -> None:
    disk = DiskId("d-9")
    bench.rack.inject(Fault(kind=FaultKind.ACT_HALF, verb=RackVerb.CREATE_DISK, subject=disk))
    with pytest.raises(DriverError):
        bench.make_disk(disk)
    partial = bench.disk(disk)
    assert partial is not None
    assert (partial.is_ready, partial.is_busy) == (False, False)
    assert bench.make_disk(disk) > 0
    made = bench.disk(disk)
    assert made is not None
    assert made.is_ready


@pytest.mark.parametrize("verb", [RackVerb.START, RackVerb.DESTROY, RackVerb.CREATE_DISK, RackVerb.DELETE_DISK])
def test_a_blocking_verb_that_hangs_times_out_and_ends_when_it_is_told_to(
    bench: SimulatedBench, verb: RackVerb
) -> None:
    spec = ready_for(bench, verb)
    until_at = bench.now() + LONG_S + 600
    bench.rack.inject(Fault(kind=FaultKind.HANG, verb=verb, until_at=until_at))
    with pytest.raises(VerbTimeout):
        bench.run(lambda: VERBS[verb](bench, spec))
    looked = bench.drivers.hypervisor.look()
    assert any(domain.is_busy for domain in looked.domains) or any(disk.is_busy for disk in looked.disks)
    assert bench.rack.next_due_at() == until_at
    bench.clock.move_to(until_at)
    looked = bench.drivers.hypervisor.look()
    assert not any(domain.is_busy for domain in looked.domains)
    assert not any(disk.is_busy for disk in looked.disks)


def test_a_start_that_hangs_for_good_goes_away_when_it_is_destroyed(bench: SimulatedBench) -> None:
    spec = bench.define(bench.spec(bench.partition(2)))
    bench.rack.inject(Fault(kind=FaultKind.HANG, verb=RackVerb.START))
    with pytest.raises(VerbTimeout):
        bench.start(spec)
    bench.pass_time(100_000)
    assert bench.domain(spec.uuid).is_busy
    bench.destroy(spec)
    assert bench.domain(spec.uuid).state is DomainState.OFF
    assert bench.held_by(spec.uuid) == frozenset()


@pytest.mark.parametrize("verb", [RackVerb.ASK_SHUTDOWN, RackVerb.ASK_RESET, RackVerb.WARN])
def test_an_asking_verb_that_hangs_returns_and_nothing_comes_of_it(bench: SimulatedBench, verb: RackVerb) -> None:
    spec = ready_for(bench, verb)
    bench.rack.inject(Fault(kind=FaultKind.HANG, verb=verb))
    before = bench.drivers.hypervisor.look()
    assert bench.run(lambda: VERBS[verb](bench, spec)) == 0
    bench.pass_time(1000)
    assert bench.drivers.hypervisor.look() == before


def test_any_other_verb_that_hangs_loses_the_connection(bench: SimulatedBench) -> None:
    bench.rack.inject(Fault(kind=FaultKind.HANG, verb=RackVerb.DEFINE))
    with pytest.raises(HostUnreachable, match="keepalive"):
        bench.drivers.hypervisor.define(bench.spec(bench.partition(1)))
    assert bench.drivers.hypervisor.look().domains == ()


def test_a_look_that_fails_is_a_host_that_cannot_be_reached_and_only_then(bench: SimulatedBench) -> None:
    bench.drivers.hypervisor.look()
    bench.rack.inject(Fault(kind=FaultKind.FAIL, verb=RackVerb.LOOK, nth=2, times=2))
    bench.drivers.hypervisor.look()
    for _ in range(2):
        with pytest.raises(HostUnreachable):
            bench.drivers.hypervisor.look()
    bench.drivers.hypervisor.look()


def test_a_guest_that_ignores_its_shutdown_still_obeys_its_agent(bench: SimulatedBench) -> None:
    spec = running(bench)
    bench.rack.inject(Fault(kind=FaultKind.IGNORE_SHUTDOWN, verb=RackVerb.ASK_SHUTDOWN, subject=str(spec.uuid)))
    for _ in range(3):
        bench.drivers.hypervisor.ask_shutdown(spec.uuid)
        bench.pass_time(300)
        assert bench.domain(spec.uuid).state is DomainState.RUNNING
    bench.drivers.hypervisor.ask_shutdown(spec.uuid, through_agent=True)
    assert bench.wait_until_off(spec.uuid) is OffReason.SHUTDOWN
    bench.start(spec)
    bench.drivers.hypervisor.ask_shutdown(spec.uuid)
    assert bench.wait_until_off(spec.uuid) is OffReason.SHUTDOWN


def test_a_fault_waits_for_its_subject_and_its_turn(bench: SimulatedBench) -> None:
    bench.rack.inject(Fault(kind=FaultKind.FAIL, verb=RackVerb.CREATE_DISK, subject="d-1", nth=2, times=2))
    bench.make_disk(DiskId("d-other"))
    bench.make_disk(DiskId("d-1"))
    for _ in range(2):
        with pytest.raises(DriverError):
            bench.make_disk(DiskId("d-1"))
        bench.make_disk(DiskId("d-other"))
    bench.make_disk(DiskId("d-1"))


def test_the_script_outlives_the_process_that_wrote_it(tmp_path: Path) -> None:
    first = SimulatedBench(PROFILE, directory=tmp_path)
    first.rack.inject(Fault(kind=FaultKind.FAIL, verb=RackVerb.CREATE_DISK))
    first.rack.inject(Fault(kind=FaultKind.GPU_DIES, at=first.now() + 50, gpus=(3,)))
    first.rack.close()
    second = SimulatedBench(PROFILE, directory=tmp_path)
    with pytest.raises(DriverError):
        second.make_disk(DiskId("d-1"))
    second.pass_time(50)
    assert second.device(PROFILE.gpu(3).address).result_of("config_readable") is CheckResult.FAILED
    second.rack.close()


# ---- happenings


def test_a_vanished_domain_is_gone_with_its_definition(bench: SimulatedBench) -> None:
    spec = running(bench)
    other = running(bench, place=1, reservation="r-2")
    bench.rack.inject(Fault(kind=FaultKind.VANISH, at=bench.now() + 5, subject="r-1"))
    bench.pass_time(5)
    assert [domain.uuid for domain in bench.drivers.hypervisor.look().domains] == [other.uuid]
    assert bench.held_by(spec.uuid) == frozenset()
    kept = bench.disk(spec.disk)
    assert kept is not None
    assert (kept.is_ready, kept.held_by) == (True, None)


def test_a_reboot_at_an_instant_is_over_at_another(bench: SimulatedBench) -> None:
    spec = running(bench)
    boot_id = bench.drivers.hypervisor.look().boot_id
    bench.rack.inject(Fault(kind=FaultKind.REBOOT, at=bench.now() + 10, until_at=bench.now() + 100))
    bench.pass_time(10)
    with pytest.raises(HostUnreachable):
        bench.drivers.hypervisor.look()
    bench.pass_time(90)
    assert bench.drivers.hypervisor.look().boot_id != boot_id
    assert bench.domain(spec.uuid).off_reason is OffReason.UNKNOWN


def test_what_runs_on_an_unreachable_host_goes_on(bench: SimulatedBench) -> None:
    spec = running(bench)
    bench.drivers.hypervisor.ask_shutdown(spec.uuid)
    bench.rack.inject(Fault(kind=FaultKind.UNREACHABLE, at=bench.now(), until_at=bench.now() + 300))
    with pytest.raises(HostUnreachable, match="No route to host"):
        bench.drivers.hypervisor.look()
    bench.pass_time(300)
    assert bench.domain(spec.uuid).off_reason is OffReason.SHUTDOWN
    assert "host.reachable" in [line.what for line in bench.rack.log()]


def test_a_reboot_during_a_blocking_verb_cuts_its_connection(bench: SimulatedBench) -> None:
    spec = bench.define(bench.spec(bench.partition(16)))
    bench.rack.inject(Fault(kind=FaultKind.REBOOT, verb=RackVerb.START, after_s=5))
    with pytest.raises(HostUnreachable, match="Connection reset"):
        bench.start(spec)
    bench.pass_time(1000)
    assert bench.domain(spec.uuid).off_reason is OffReason.UNKNOWN


def test_a_dead_gpu_crashes_its_domain_and_cannot_be_used_until_mended(bench: SimulatedBench) -> None:
    spec = running(bench)
    gpu = PROFILE.gpu(min(spec.partition.gpus))
    bench.rack.inject(Fault(kind=FaultKind.GPU_DIES, at=bench.now(), subject=gpu.address))
    assert bench.domain(spec.uuid).off_reason is OffReason.CRASHED
    assert bench.device(gpu.address).result_of("config_readable") is CheckResult.FAILED
    for call in (lambda: bench.start(spec), lambda: bench.drivers.pci.ask_reset((gpu.address,))):
        with pytest.raises(DeviceMissing, match="Unknown PCI header type '127'"):
            call()
    bench.rack.mend_device(gpu.address)
    bench.drivers.pci.ask_reset((gpu.address,))
    bench.pass_time(PROFILE.bounds.reset_s)
    assert bench.device(gpu.address).failed == ()


def test_a_gpu_may_come_back_by_itself(bench: SimulatedBench) -> None:
    bench.rack.inject(Fault(kind=FaultKind.GPU_DIES, at=bench.now(), gpus=(5,), until_at=bench.now() + 60))
    address = PROFILE.gpu(5).address
    assert bench.device(address).result_of("config_readable") is CheckResult.FAILED
    bench.pass_time(60)
    assert [check.name for check in bench.device(address).failed] == ["reset_done"]


def test_of_a_silent_agent_nothing_is_known(bench: SimulatedBench) -> None:
    spec = running(bench)
    bench.rack.inject(Fault(kind=FaultKind.AGENT_SILENT, at=bench.now(), until_at=bench.now() + 60))
    assert bench.domain(spec.uuid).is_guest_up is None
    with pytest.raises(AgentSilent):
        bench.drivers.guest.warn(spec.uuid, "soon")
    with pytest.raises(AgentSilent):
        bench.drivers.hypervisor.ask_shutdown(spec.uuid, through_agent=True)
    bench.pass_time(60)
    assert bench.domain(spec.uuid).is_guest_up is True


@pytest.mark.parametrize(
    ("kind", "reason"), [(FaultKind.GUEST_CRASH, OffReason.CRASHED), (FaultKind.GUEST_SHUTDOWN, OffReason.SHUTDOWN)]
)
def test_a_guest_ends_by_itself(bench: SimulatedBench, kind: FaultKind, reason: OffReason) -> None:
    spec = running(bench)
    other = running(bench, place=1, reservation="r-2")
    bench.rack.inject(Fault(kind=kind, at=bench.now() + 5, subject="r-1"))
    bench.pass_time(4)
    assert bench.domain(spec.uuid).state is DomainState.RUNNING
    bench.pass_time(10)
    assert bench.domain(spec.uuid).off_reason is reason
    assert bench.domain(other.uuid).state is DomainState.RUNNING


def test_a_guest_can_be_told_to_crash_after_each_of_its_starts(bench: SimulatedBench) -> None:
    bench.rack.inject(Fault(kind=FaultKind.GUEST_CRASH, verb=RackVerb.START, subject="r-1", after_s=200, times=2))
    spec = bench.define(bench.spec(bench.partition(1)))
    for _ in range(2):
        bench.start(spec)
        bench.pass_time(200)
        assert bench.domain(spec.uuid).off_reason is OffReason.CRASHED
    bench.start(spec)
    bench.pass_time(1000)
    assert bench.domain(spec.uuid).state is DomainState.RUNNING


def test_somebody_makes_a_domain_by_hand_and_takes_it_away(bench: SimulatedBench) -> None:
    fault = Fault(
        kind=FaultKind.FOREIGN, at=bench.now() + 5, gpus=(4, 5), subject="lab-test", until_at=bench.now() + 500
    )
    bench.rack.inject(fault)
    bench.pass_time(5)
    (foreign,) = bench.drivers.hypervisor.look().domains
    assert (foreign.name, foreign.reservation, foreign.state) == ("lab-test", None, DomainState.RUNNING)
    assert bench.held_by(foreign.uuid) == {PROFILE.gpu(4).address, PROFILE.gpu(5).address}
    bench.pass_time(495)
    looked = bench.drivers.hypervisor.look()
    assert looked.domains == ()
    dirty = {device.address for device in looked.devices if device.failed}
    assert dirty == {PROFILE.gpu(4).address, PROFILE.gpu(5).address}


def test_a_foreign_domain_does_not_take_gpus_that_are_held(bench: SimulatedBench) -> None:
    spec = running(bench)
    bench.rack.inject(Fault(kind=FaultKind.FOREIGN, at=bench.now(), gpus=tuple(sorted(spec.partition.gpus))))
    assert [domain.uuid for domain in bench.drivers.hypervisor.look().domains] == [spec.uuid]
    assert bench.rack.log()[-1].what == "verb.refused"


def test_a_foreign_volume_is_shown_and_kept(bench: SimulatedBench) -> None:
    uuid = bench.rack.make_foreign_domain("by-hand", (0,), disk="thesis.qcow2", disk_gib=300)
    bench.rack.remove_domain(uuid)
    kept = bench.disk(DiskId("thesis.qcow2"))
    assert kept is not None
    assert (kept.size_gib, kept.is_ready, kept.held_by) == (300, True, None)


def test_a_happening_with_nobody_to_befall_is_missed_and_says_so(bench: SimulatedBench) -> None:
    bench.rack.inject(Fault(kind=FaultKind.GUEST_CRASH, at=bench.now(), subject="r-none"))
    bench.drivers.hypervisor.look()
    assert told(bench) == ["fault.missed"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"kind": FaultKind.FAIL}, "give it a verb"),
        ({"kind": FaultKind.FAIL, "verb": RackVerb.START, "at": 5}, "neither `at`"),
        ({"kind": FaultKind.REBOOT}, "happens at an instant"),
        ({"kind": FaultKind.REBOOT, "verb": RackVerb.START}, "after_s"),
        ({"kind": FaultKind.LIE, "verb": RackVerb.LOOK}, "a look can only fail"),
        ({"kind": FaultKind.IGNORE_SHUTDOWN, "verb": RackVerb.START}, "ask_shutdown"),
        ({"kind": FaultKind.FOREIGN, "at": 5}, "needs the GPUs"),
        ({"kind": FaultKind.FAIL, "verb": RackVerb.START, "nth": 0}, "count from 1"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused_when_it_is_written(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Fault(**wrong)  # type: ignore[arg-type]
