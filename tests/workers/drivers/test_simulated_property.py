"""Whatever is called on a rack and whatever befalls it, it stays a host that could exist, and its log says so."""

from collections.abc import Callable
from contextlib import suppress
from random import Random
from uuid import UUID

import pytest

from scheduler.core.facts import DomainState, ObservedHost
from scheduler.profiles.loading import load_profile
from tests.contract.simulated_bench import IMAGE, SimulatedBench
from workers.drivers.simulated.faults import OF_A_CALL, Fault, FaultKind, RackVerb
from workers.drivers.simulated.log import LogLine
from workers.ports import DomainSpec, DriverError, HostUnreachable

PROFILE = load_profile("dgx-2")
STEPS = 300
SEEDS = range(12)


def a_fault(random: Random, bench: SimulatedBench) -> Fault:
    kind = random.choice(list(FaultKind))
    verb = random.choice([verb for verb in RackVerb if verb is not RackVerb.LOOK])
    if kind is FaultKind.IGNORE_SHUTDOWN:
        return Fault(kind=kind, verb=RackVerb.ASK_SHUTDOWN)
    if kind in OF_A_CALL:
        return Fault(kind=kind, verb=verb, until_at=random.choice([None, bench.now() + random.randint(1, 900)]))
    gpus = (random.randrange(16),) if kind in (FaultKind.FOREIGN, FaultKind.GPU_DIES) else ()
    until_at = bench.now() + random.randint(301, 600)
    if random.random() < 0.5:
        return Fault(kind=kind, at=bench.now() + random.randint(0, 300), gpus=gpus, until_at=until_at)
    return Fault(kind=kind, verb=verb, after_s=random.randint(1, 60), gpus=gpus, until_at=until_at)


def a_call(random: Random, bench: SimulatedBench, spec: DomainSpec) -> Callable[[], None]:
    hypervisor, images, pci, fabric = (
        bench.drivers.hypervisor,
        bench.drivers.images,
        bench.drivers.pci,
        bench.drivers.fabric,
    )
    return random.choice(
        [
            lambda: hypervisor.define(spec),
            lambda: hypervisor.start(spec.uuid, timeout_s=600),
            lambda: hypervisor.start(spec.uuid, timeout_s=600),
            lambda: hypervisor.ask_shutdown(spec.uuid, through_agent=random.random() < 0.3),
            lambda: hypervisor.destroy(spec.uuid, timeout_s=30),
            lambda: hypervisor.undefine(spec.uuid),
            lambda: pci.bind(spec.devices),
            lambda: pci.ask_reset(spec.devices),
            lambda: pci.rebind(spec.devices),
            lambda: fabric.activate(spec.partition),
            lambda: fabric.deactivate(spec.partition),
            lambda: images.create_disk(spec.disk, image=IMAGE, size_gib=300, timeout_s=100),
            lambda: images.create_disk(spec.disk, image=IMAGE, size_gib=300, timeout_s=100),
            lambda: images.delete_disk(spec.disk, timeout_s=9),
            lambda: bench.drivers.guest.warn(spec.uuid, "soon"),
            lambda: bench.rack.mend_device(PROFILE.gpus[random.randrange(16)].address),
        ]
    )


def live(seed: int, check: Callable[[ObservedHost], None]) -> tuple[LogLine, ...]:
    """Let a rack live through random calls and faults; check every look; return its log."""
    random = Random(seed)
    bench = SimulatedBench(PROFILE, seed=seed)
    specs = [
        bench.spec(partition, reservation=f"r-{number}-{generation}", generation=generation)
        for number, partition in enumerate(PROFILE.partitions)
        for generation in (1, 2)
    ]
    specs = random.sample(specs, 14)
    for _ in range(STEPS):
        if random.random() < 0.1:
            bench.rack.inject(a_fault(random, bench))
        call = a_call(random, bench, random.choice(specs))
        run = random.choice([bench.run, bench.begin])
        with suppress(DriverError):
            run(call)
        bench.pass_time(random.choice([0, 1, 5, 60, 200]))
        try:
            check(bench.drivers.hypervisor.look())
        except HostUnreachable:
            continue
    lines = bench.rack.log()
    bench.rack.close()
    return lines


def assert_it_could_exist(seen: ObservedHost) -> None:
    domain_by_uuid = {domain.uuid: domain for domain in seen.domains}
    for device in seen.devices:
        if device.held_by is not None:
            assert domain_by_uuid[device.held_by].state is not DomainState.OFF
            assert device.address in domain_by_uuid[device.held_by].devices
    for domain in seen.domains:
        held = {device.address for device in seen.devices if device.held_by == domain.uuid}
        if domain.state is DomainState.RUNNING and not domain.is_busy:
            assert held == domain.devices
        assert (domain.off_reason is not None) == (domain.state is DomainState.OFF)
        assert not (domain.is_busy and domain.state is DomainState.OFF)
    for disk in seen.disks:
        if disk.held_by is not None:
            assert disk.is_ready
            assert domain_by_uuid[disk.held_by].state is not DomainState.OFF


@pytest.mark.parametrize("seed", SEEDS)
def test_every_look_is_of_a_host_that_could_exist(seed: int) -> None:
    live(seed, assert_it_could_exist)


@pytest.mark.parametrize("seed", SEEDS)
def test_by_the_log_alone_no_gpu_is_ever_in_two_domains(seed: int) -> None:
    held_by: dict[int, UUID | None] = {}
    starts = 0
    at = 0
    for line in live(seed, lambda seen: None):
        assert line.at >= at
        at = line.at
        if line.what in ("vm.stuck", "vm.off"):
            held_by = {gpu: holder for gpu, holder in held_by.items() if holder != line.domain}
        if line.what in ("vm.starting", "vm.foreign", "vm.stuck"):
            assert held_by.keys().isdisjoint(line.gpus), line
            held_by |= dict.fromkeys(line.gpus, line.domain)
            starts += 1
    assert starts > 0


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_a_life_with_faults_is_the_same_again_from_its_seed(seed: int) -> None:
    assert live(seed, assert_it_could_exist) == live(seed, assert_it_could_exist)
