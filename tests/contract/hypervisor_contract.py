"""What every driver of a host must do, whatever is behind it. One class of tests, given a driver by a `HostBench`.

A driver's test module derives from `HostContract` and has a fixture `bench`. Nothing here knows which driver it is, and
nothing waits by itself: time passes by `bench.pass_time`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from uuid import UUID

import pytest

from scheduler.core.facts import (
    CheckResult,
    DomainState,
    ObservedDevice,
    ObservedDisk,
    ObservedDomain,
    OffReason,
    domain_uuid,
)
from scheduler.core.requests import DiskId, ReservationId
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile, Partition
from workers.ports import (
    AgentSilent,
    DeviceInUse,
    DeviceMissing,
    DiskInUse,
    DomainBusy,
    DomainSpec,
    Drivers,
    NoSuchDisk,
    NoSuchDomain,
    NotEnoughMemory,
    PoolFull,
    VerbTimeout,
)

LONG_S = 3600
"""A limit that no verb meets."""
NO_MEMORY = r"(?i)cannot allocate memory|map backing store|insufficient free|not enough"
"""What QEMU says, by version and by kind of memory."""


class HostBench(ABC):
    """A host with nothing on it, its driver, and a hand that works beside the driver."""

    drivers: Drivers
    profile: HostProfile
    image: str
    """An image that the host knows."""
    silent_image: str
    """One whose guest answers nothing for as long as a test lasts; at least, no sooner than time passes."""
    deaf_image: str
    """One whose guest obeys its agent alone; at least, no button sooner than time passes."""
    disk_gib: int = 50
    """A size of disk that the host has room for a few times."""
    beyond_the_pool_gib: int
    """A size of disk that the host has no room for."""
    sees_resets: bool = True
    """Whether the driver can tell that a reset was done; one that cannot says `unverified`."""
    a_while_s: int = 3600
    """How long the tests can afford to wait for nothing to happen."""
    blink_s: int = 0
    """At most so much time goes by while a verb asks."""

    @abstractmethod
    def now(self) -> Instant:
        """Return the host's product time."""

    @abstractmethod
    def pass_time(self, seconds: int) -> None:
        """Let product time pass."""

    @abstractmethod
    def run(self, call: Callable[[], None]) -> int:
        """Call a blocking verb, let the time pass that it takes, and return how long that was, also if it raised."""

    @abstractmethod
    def make_foreign_domain(
        self, name: str, gpus: tuple[int, ...], memory_gib_by_node: tuple[tuple[int, int], ...]
    ) -> UUID:
        """Make a running domain by other means than the driver."""

    @abstractmethod
    def take_memory(self, node: int) -> None:
        """Leave too little of a NUMA node's memory for a VM of eight GPUs."""

    def let_end(self, within_s: int) -> None:
        """Let whatever is under way on the host end."""
        self.pass_time(within_s)

    # ---- what the tests say shortly

    def partition(self, size: int, place: int = 0) -> Partition:
        return self.profile.partitions_of_size(size)[place]

    def spec(
        self,
        partition: Partition,
        *,
        reservation: str = "r-1",
        generation: int = 1,
        disk: str = "",
        image: str = "",
    ) -> DomainSpec:
        return DomainSpec(
            uuid=domain_uuid(ReservationId(reservation), generation),
            name=f"{reservation}-{partition.id}",
            reservation=ReservationId(reservation),
            generation=generation,
            partition=partition,
            devices=self.profile.devices(partition),
            disk=DiskId(disk or f"d-{reservation}"),
            image=image or self.image,
            ssh_key="ssh-ed25519 AAAA test",
            mac="52:54:00:12:34:56",
            host_name=reservation,
        )

    def make_disk(self, disk: DiskId, size_gib: int | None = None, image: str = "") -> int:
        wanted_gib, image = size_gib or self.disk_gib, image or self.image
        return self.run(
            lambda: self.drivers.images.create_disk(disk, image=image, size_gib=wanted_gib, timeout_s=LONG_S)
        )

    def define(self, spec: DomainSpec) -> DomainSpec:
        """Make a VM ready to start: its disk, its devices, its fabric, its definition."""
        self.make_disk(spec.disk, image=spec.image)
        self.drivers.pci.bind(spec.devices)
        self.drivers.fabric.activate(spec.partition)
        self.drivers.hypervisor.define(spec)
        return spec

    def start(self, spec: DomainSpec) -> int:
        return self.run(lambda: self.drivers.hypervisor.start(spec.uuid, timeout_s=LONG_S))

    def start_up(self, spec: DomainSpec) -> None:
        """Start a domain and wait for its guest: from then on it changes nothing by itself."""
        self.start(spec)
        self.wait_until(lambda: self.domain(spec.uuid).is_guest_up is True, 300)

    def start_past_its_limit(self, spec: DomainSpec) -> None:
        """Start a domain with a limit that no start of its size meets, and come back when the start is under way."""
        with pytest.raises(VerbTimeout):
            self.run(lambda: self.drivers.hypervisor.start(spec.uuid, timeout_s=1))
        # On a slow host the call may have come back before its domain had anything.
        held, bound_s = frozenset(spec.devices), self.profile.bounds.start_s(len(spec.partition.gpus))
        self.wait_until(lambda: self.domain(spec.uuid).is_busy and self.held_by(spec.uuid) == held, bound_s)

    def destroy(self, spec: DomainSpec) -> int:
        return self.run(lambda: self.drivers.hypervisor.destroy(spec.uuid, timeout_s=LONG_S))

    def domain(self, uuid: UUID) -> ObservedDomain:
        return next(domain for domain in self.drivers.hypervisor.look().domains if domain.uuid == uuid)

    def disk(self, disk: DiskId) -> ObservedDisk | None:
        return next((seen for seen in self.drivers.hypervisor.look().disks if seen.id == disk), None)

    def device(self, address: str) -> ObservedDevice:
        return next(seen for seen in self.drivers.hypervisor.look().devices if seen.address == address)

    def held_by(self, uuid: UUID) -> frozenset[str]:
        return frozenset(seen.address for seen in self.drivers.hypervisor.look().devices if seen.held_by == uuid)

    def wait_until(self, is_so: Callable[[], bool], within_s: int) -> int:
        """Let time pass until something is so, and return how long it took."""
        for waited_s in range(within_s + 1):
            if is_so():
                return waited_s
            self.pass_time(1)
        raise AssertionError(f"not so within {within_s} s")

    def wait_until_off(self, uuid: UUID, within_s: int = 300) -> OffReason | None:
        self.wait_until(lambda: self.domain(uuid).state is DomainState.OFF, within_s)
        return self.domain(uuid).off_reason


class DomainContract:
    """What needs no passed-through devices: any libvirt can show it. Derived classes give a fixture `bench`."""

    # ---- defining

    def test_a_defined_domain_is_shown_off_with_its_metadata_and_devices(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(2), reservation="r-17", generation=3))
        seen = bench.domain(spec.uuid)
        assert (seen.name, seen.state, seen.is_busy) == (spec.name, DomainState.OFF, False)
        assert (seen.reservation, seen.generation) == ("r-17", 3)
        assert seen.devices == frozenset(spec.devices)
        assert seen.off_reason is OffReason.UNKNOWN
        assert bench.held_by(spec.uuid) == frozenset()

    def test_defining_twice_is_defining_once(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(1)))
        before = bench.drivers.hypervisor.look()
        bench.drivers.hypervisor.define(spec)
        assert bench.drivers.hypervisor.look() == before

    def test_an_off_definition_is_replaced_by_one_of_the_same_uuid(self, bench: HostBench) -> None:
        bench.define(bench.spec(bench.partition(1, 0)))
        other = bench.define(bench.spec(bench.partition(1, 1)))
        seen = bench.domain(other.uuid)
        assert (seen.name, seen.devices) == (other.name, frozenset(other.devices))
        assert len(bench.drivers.hypervisor.look().domains) == 1

    def test_a_running_domain_is_not_defined_anew(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(1)))
        bench.start(spec)
        with pytest.raises(DomainBusy, match="already running"):
            bench.drivers.hypervisor.define(spec)
        assert bench.domain(spec.uuid).state is DomainState.RUNNING

    # ---- starting

    @pytest.mark.parametrize("size", [1, 2, 4, 8, 16])
    def test_a_guest_answers_within_the_bound_of_its_size(self, bench: HostBench, size: int) -> None:
        began_at = bench.now()
        spec = bench.define(bench.spec(bench.partition(size)))
        bench.start(spec)
        bound_s = bench.profile.bounds.start_s(size)
        bench.wait_until(lambda: bench.domain(spec.uuid).is_guest_up is True, bound_s)
        assert bench.now() - began_at <= bound_s

    def test_a_guest_is_not_up_as_soon_as_its_domain_runs(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(1), image=bench.silent_image))
        bench.start(spec)
        assert bench.domain(spec.uuid).is_guest_up is not True

    def test_starting_what_runs_is_a_success_and_takes_no_time(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(1)))
        bench.start_up(spec)
        before = bench.drivers.hypervisor.look()
        assert bench.start(spec) <= bench.blink_s
        assert bench.drivers.hypervisor.look() == before

    def test_an_unknown_domain_is_not_started(self, bench: HostBench) -> None:
        spec = bench.spec(bench.partition(1))
        with pytest.raises(NoSuchDomain, match=f"no domain with matching uuid '{spec.uuid}'"):
            bench.start(spec)

    def test_a_start_without_its_disk_is_refused(self, bench: HostBench) -> None:
        spec = bench.spec(bench.partition(1))
        bench.drivers.hypervisor.define(spec)
        with pytest.raises(NoSuchDisk):
            bench.start(spec)
        assert bench.held_by(spec.uuid) == frozenset()

    def test_two_domains_never_write_to_one_disk(self, bench: HostBench) -> None:
        first = bench.define(bench.spec(bench.partition(1, 0), reservation="r-1", disk="d-shared"))
        bench.start(first)
        second = bench.define(bench.spec(bench.partition(1, 1), reservation="r-2", disk="d-shared"))
        with pytest.raises(DiskInUse, match='Failed to get "write" lock'):
            bench.start(second)
        assert bench.held_by(second.uuid) == frozenset()

    # ---- stopping

    def test_a_shutdown_is_asked_and_happens_later(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(1), image=bench.deaf_image))
        bench.start_up(spec)
        asked_at = bench.now()
        bench.drivers.hypervisor.ask_shutdown(spec.uuid)
        assert bench.now() - asked_at <= bench.blink_s
        assert bench.domain(spec.uuid).state is not DomainState.OFF
        assert bench.held_by(spec.uuid) == frozenset(spec.devices)
        bench.drivers.hypervisor.ask_shutdown(spec.uuid, through_agent=True)
        assert bench.wait_until_off(spec.uuid) is OffReason.SHUTDOWN
        assert bench.held_by(spec.uuid) == frozenset()

    def test_a_shutdown_asked_again_and_again_is_one_shutdown(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(1)))
        bench.start(spec)

        def is_off() -> bool:
            bench.drivers.hypervisor.ask_shutdown(spec.uuid)
            return bench.domain(spec.uuid).state is DomainState.OFF

        bench.wait_until(is_off, 300)
        bench.drivers.hypervisor.ask_shutdown(spec.uuid)
        assert bench.domain(spec.uuid).off_reason is OffReason.SHUTDOWN

    def test_a_shutdown_through_the_agent_needs_a_guest_that_answers(self, bench: HostBench) -> None:
        silent = bench.define(bench.spec(bench.partition(1, 0), reservation="r-1", image=bench.silent_image))
        bench.start(silent)
        with pytest.raises(AgentSilent):
            bench.drivers.hypervisor.ask_shutdown(silent.uuid, through_agent=True)
        spec = bench.define(bench.spec(bench.partition(1, 1), reservation="r-2"))
        bench.start_up(spec)
        bench.drivers.hypervisor.ask_shutdown(spec.uuid, through_agent=True)
        assert bench.wait_until_off(spec.uuid) is OffReason.SHUTDOWN

    def test_no_unknown_domain_is_asked_or_destroyed(self, bench: HostBench) -> None:
        spec = bench.spec(bench.partition(1))
        with pytest.raises(NoSuchDomain):
            bench.drivers.hypervisor.ask_shutdown(spec.uuid)
        with pytest.raises(NoSuchDomain):
            bench.destroy(spec)

    def test_a_destroyed_domain_is_off_holds_nothing_and_keeps_its_disk(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(4)))
        bench.start(spec)
        assert bench.destroy(spec) <= bench.profile.bounds.destroy_s
        seen = bench.domain(spec.uuid)
        assert (seen.state, seen.off_reason) == (DomainState.OFF, OffReason.DESTROYED)
        assert bench.held_by(spec.uuid) == frozenset()
        kept = bench.disk(spec.disk)
        assert kept is not None
        assert (kept.is_ready, kept.held_by) == (True, None)

    def test_destroying_what_is_off_is_a_success_and_changes_nothing(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(1)))
        bench.start_up(spec)
        bench.drivers.hypervisor.ask_shutdown(spec.uuid)
        bench.wait_until_off(spec.uuid)
        before = bench.drivers.hypervisor.look()
        assert bench.destroy(spec) <= bench.blink_s
        assert bench.drivers.hypervisor.look() == before

    def test_a_domain_can_be_started_again_after_it_was_off(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(1)))
        bench.start(spec)
        bench.destroy(spec)
        bench.start(spec)
        assert bench.domain(spec.uuid).state is DomainState.RUNNING

    # ---- undefining

    def test_an_undefined_domain_is_gone_and_its_disk_stays(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(1)))
        bench.start(spec)
        bench.destroy(spec)
        bench.drivers.hypervisor.undefine(spec.uuid)
        bench.drivers.hypervisor.undefine(spec.uuid)
        assert bench.drivers.hypervisor.look().domains == ()
        kept = bench.disk(spec.disk)
        assert kept is not None
        assert kept.is_ready

    def test_a_running_domain_is_not_undefined(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(1)))
        bench.start(spec)
        with pytest.raises(DomainBusy):
            bench.drivers.hypervisor.undefine(spec.uuid)
        assert bench.domain(spec.uuid).state is DomainState.RUNNING

    def test_undefining_an_unknown_domain_is_a_success(self, bench: HostBench) -> None:
        bench.drivers.hypervisor.undefine(bench.spec(bench.partition(1)).uuid)
        assert bench.drivers.hypervisor.look().domains == ()

    # ---- looking

    def test_a_look_agrees_with_itself(self, bench: HostBench) -> None:
        specs = [bench.define(bench.spec(bench.partition(2, place), reservation=f"r-{place}")) for place in range(3)]
        for spec in specs[:2]:
            bench.start(spec)
        seen = bench.drivers.hypervisor.look()
        by_uuid = {domain.uuid: domain for domain in seen.domains}
        for device in seen.devices:
            if device.held_by is not None:
                assert device.address in by_uuid[device.held_by].devices
                assert by_uuid[device.held_by].state is not DomainState.OFF
        for domain in seen.domains:
            assert (domain.off_reason is not None) == (domain.state is DomainState.OFF)
        assert {disk.id: disk.held_by for disk in seen.disks} == {
            specs[0].disk: specs[0].uuid,
            specs[1].disk: specs[1].uuid,
            specs[2].disk: None,
        }

    def test_looking_changes_nothing(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(1)))
        bench.start_up(spec)
        assert bench.drivers.hypervisor.look() == bench.drivers.hypervisor.look()

    def test_the_boot_id_stays_while_the_host_stays_up(self, bench: HostBench) -> None:
        before = bench.drivers.hypervisor.look().boot_id
        bench.start(bench.define(bench.spec(bench.partition(1))))
        bench.pass_time(bench.a_while_s)
        assert bench.drivers.hypervisor.look().boot_id == before

    # ---- fabric

    def test_a_partition_is_set_up_and_taken_down_as_often_as_asked(self, bench: HostBench) -> None:
        partition = bench.partition(4)
        bench.drivers.fabric.deactivate(partition)
        for verb in (bench.drivers.fabric.activate, bench.drivers.fabric.deactivate) * 2:
            verb(partition)
            verb(partition)

    # ---- disks

    def test_a_disk_is_made_once(self, bench: HostBench) -> None:
        disk = DiskId("d-1")
        bench.make_disk(disk)
        made = bench.disk(disk)
        assert made is not None
        assert (made.size_gib, made.is_ready, made.is_busy, made.held_by) == (bench.disk_gib, True, False, None)
        assert bench.make_disk(disk) <= bench.blink_s
        assert bench.disk(disk) == made

    def test_a_disk_is_not_made_from_an_unknown_image(self, bench: HostBench) -> None:
        with pytest.raises(NoSuchDisk):
            bench.run(
                lambda: bench.drivers.images.create_disk(DiskId("d-1"), image="none", size_gib=1, timeout_s=LONG_S)
            )
        assert bench.disk(DiskId("d-1")) is None

    def test_a_disk_that_must_be_there_is_never_made_anew(self, bench: HostBench) -> None:
        disk = DiskId("d-1")

        def need() -> None:
            bench.drivers.images.create_disk(
                disk, image=bench.image, size_gib=bench.disk_gib, timeout_s=LONG_S, must_exist=True
            )

        with pytest.raises(NoSuchDisk):
            bench.run(need)
        assert bench.disk(disk) is None
        bench.make_disk(disk)
        assert bench.run(need) <= bench.blink_s

    def test_a_disk_larger_than_the_pool_is_refused(self, bench: HostBench) -> None:
        with pytest.raises(PoolFull):
            bench.make_disk(DiskId("d-1"), bench.beyond_the_pool_gib)
        assert bench.disk(DiskId("d-1")) is None

    def test_a_deleted_disk_is_gone_and_a_missing_one_is_a_success(self, bench: HostBench) -> None:
        disk = DiskId("d-1")
        bench.make_disk(disk)
        for _ in range(2):
            bench.run(lambda: bench.drivers.images.delete_disk(disk, timeout_s=LONG_S))
            assert bench.disk(disk) is None

    def test_the_disk_of_a_running_domain_is_not_deleted(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(1)))
        bench.start(spec)
        with pytest.raises(DiskInUse):
            bench.run(lambda: bench.drivers.images.delete_disk(spec.disk, timeout_s=LONG_S))
        kept = bench.disk(spec.disk)
        assert kept is not None
        assert (kept.is_ready, kept.held_by) == (True, spec.uuid)

    # ---- guests

    def test_only_a_guest_that_answers_is_warned(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(1)))
        with pytest.raises(NoSuchDomain):
            bench.drivers.guest.warn(bench.spec(bench.partition(1), reservation="r-none").uuid, "you stop at 20:00")
        silent = bench.define(bench.spec(bench.partition(1, 1), reservation="r-2", image=bench.silent_image))
        bench.start(silent)
        with pytest.raises(AgentSilent):
            bench.drivers.guest.warn(silent.uuid, "you stop at 20:00")
        bench.start_up(spec)
        bench.drivers.guest.warn(spec.uuid, "you stop at 20:00")


class DeviceContract:
    """What is about devices that are passed through, and about starts that take their time because of them."""

    # ---- starting

    @pytest.mark.parametrize("size", [1, 2, 4, 8, 16])
    def test_a_running_domain_holds_exactly_the_devices_of_its_partition(self, bench: HostBench, size: int) -> None:
        spec = bench.define(bench.spec(bench.partition(size)))
        bench.start(spec)
        assert bench.domain(spec.uuid).state is DomainState.RUNNING
        assert bench.domain(spec.uuid).off_reason is None
        assert bench.held_by(spec.uuid) == frozenset(bench.profile.devices(spec.partition))
        gpus = {gpu.index for gpu in bench.profile.gpus if gpu.address in bench.held_by(spec.uuid)}
        assert gpus == spec.partition.gpus

    def test_a_second_domain_on_a_held_gpu_is_refused_and_takes_nothing(self, bench: HostBench) -> None:
        first = bench.define(bench.spec(bench.partition(2), reservation="r-1"))
        bench.start(first)
        second = bench.spec(bench.partition(4), reservation="r-2")
        bench.make_disk(second.disk)
        bench.drivers.hypervisor.define(second)
        with pytest.raises(DeviceInUse, match=f"is in use by driver QEMU, domain {first.name}"):
            bench.start(second)
        assert bench.held_by(second.uuid) == frozenset()
        assert bench.domain(second.uuid).state is DomainState.OFF
        assert bench.domain(first.uuid).state is DomainState.RUNNING
        made = bench.disk(second.disk)
        assert made is not None
        assert made.held_by is None

    def test_a_start_without_memory_is_refused_and_takes_nothing(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(8)))
        (node, _), *_ = spec.partition.share.memory_gib_by_node
        bench.take_memory(node)
        with pytest.raises(NotEnoughMemory, match=NO_MEMORY):
            bench.start(spec)
        assert bench.held_by(spec.uuid) == frozenset()
        assert bench.domain(spec.uuid).state is DomainState.OFF

    def test_a_start_past_its_limit_times_out_and_goes_on(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(16)))
        bench.start_past_its_limit(spec)

        def is_started() -> bool:
            # Its guest runs a while before the start that made it run lets go of it.
            seen = bench.domain(spec.uuid)
            return seen.state is DomainState.RUNNING and not seen.is_busy

        bench.wait_until(is_started, bench.profile.bounds.start_s(16))

    def test_a_domain_that_is_being_started_is_busy_for_everyone_else(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(16)))
        bench.start_past_its_limit(spec)
        with pytest.raises(DomainBusy):
            bench.start(spec)
        with pytest.raises(DomainBusy):
            bench.drivers.hypervisor.undefine(spec.uuid)
        with pytest.raises(DomainBusy):
            bench.drivers.hypervisor.define(spec)

    # ---- stopping

    def test_a_start_that_does_not_end_can_be_destroyed(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(16)))
        bench.start_past_its_limit(spec)
        bench.destroy(spec)
        assert bench.domain(spec.uuid).state is DomainState.OFF
        bench.let_end(bench.profile.bounds.start_s(16))
        assert bench.domain(spec.uuid).state is DomainState.OFF
        assert bench.held_by(spec.uuid) == frozenset()

    # ---- looking

    def test_a_look_shows_every_device_of_the_profile_once_with_sourced_checks(self, bench: HostBench) -> None:
        profile = bench.profile
        seen = bench.drivers.hypervisor.look().devices
        addresses = [gpu.address for gpu in profile.gpus]
        addresses += [switch.address for switch in profile.nvswitches]
        addresses += [hca.address for hca in profile.hcas]
        assert sorted(device.address for device in seen) == sorted(addresses)
        for device in seen:
            checks = {check.name for check in device.checks} - {"ids_match"}
            assert checks == {"bound", "group_free", "config_readable", "reset_done"}
            assert all(check.source for check in device.checks)
            assert device.failed == ()

    def test_a_foreign_domain_is_shown_without_a_reservation_and_its_gpus_are_held(self, bench: HostBench) -> None:
        gpus = tuple(sorted(bench.partition(2).gpus))
        uuid = bench.make_foreign_domain("by-hand", gpus, ())
        seen = bench.domain(uuid)
        assert (seen.reservation, seen.generation, seen.name) == (None, None, "by-hand")
        assert seen.state is DomainState.RUNNING
        assert bench.held_by(uuid) == {bench.profile.gpu(gpu).address for gpu in gpus}
        spec = bench.spec(bench.partition(4))
        bench.make_disk(spec.disk)
        bench.drivers.hypervisor.define(spec)
        with pytest.raises(DeviceInUse, match="domain by-hand"):
            bench.start(spec)

    # ---- devices

    def test_a_device_is_dirty_from_the_start_of_a_domain_to_its_reset(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(2)))

        is_clean = CheckResult.PASSED if bench.sees_resets else CheckResult.UNVERIFIED

        def is_reset() -> bool:
            return all(bench.device(a).result_of("reset_done") is is_clean for a in spec.devices)

        assert is_reset()
        bench.start(spec)
        assert not any(bench.device(a).result_of("reset_done") is CheckResult.PASSED for a in spec.devices)
        assert all(bench.device(a).result_of("reset_done") is CheckResult.FAILED for a in spec.devices)
        bench.destroy(spec)
        assert not any(bench.device(a).result_of("reset_done") is CheckResult.PASSED for a in spec.devices)
        assert all(bench.device(a).result_of("group_free") is CheckResult.PASSED for a in spec.devices)
        asked_at = bench.now()
        bench.drivers.pci.ask_reset(spec.devices)
        bench.drivers.pci.ask_reset(spec.devices)
        assert bench.now() - asked_at <= bench.blink_s
        bench.wait_until(is_reset, bench.profile.bounds.reset_s)

    def test_a_held_device_is_neither_reset_nor_rebound(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(1)))
        bench.start(spec)
        with pytest.raises(DeviceInUse):
            bench.drivers.pci.ask_reset(spec.devices)
        with pytest.raises(DeviceInUse):
            bench.drivers.pci.rebind(spec.devices)
        assert bench.held_by(spec.uuid) == frozenset(spec.devices)

    def test_a_device_that_is_not_there_is_missing(self, bench: HostBench) -> None:
        for verb in (bench.drivers.pci.bind, bench.drivers.pci.ask_reset, bench.drivers.pci.rebind):
            with pytest.raises(DeviceMissing):
                verb(("0000:ff:1f.0",))

    def test_binding_and_rebinding_leave_devices_bound(self, bench: HostBench) -> None:
        devices = bench.profile.devices(bench.partition(4))
        for verb in (
            bench.drivers.pci.bind,
            bench.drivers.pci.bind,
            bench.drivers.pci.rebind,
            bench.drivers.pci.rebind,
        ):
            verb(devices)
            assert all(bench.device(address).result_of("bound") is CheckResult.PASSED for address in devices)

    def test_binding_leaves_a_running_domain_alone(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(1)))
        bench.start(spec)
        bench.drivers.pci.bind(spec.devices)
        assert bench.held_by(spec.uuid) == frozenset(spec.devices)

    # ---- fabric

    def test_no_partition_is_set_up_across_a_running_domain(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(2)))
        bench.start(spec)
        with pytest.raises(DeviceInUse):
            bench.drivers.fabric.activate(bench.partition(4))
        bench.drivers.fabric.activate(spec.partition)
        bench.destroy(spec)
        bench.drivers.fabric.deactivate(spec.partition)
        bench.drivers.fabric.activate(bench.partition(4))

    def test_partitions_beside_each_other_are_set_up_together(self, bench: HostBench) -> None:
        first = bench.define(bench.spec(bench.partition(4, 0), reservation="r-1"))
        bench.start(first)
        second = bench.define(bench.spec(bench.partition(4, 1), reservation="r-2"))
        bench.start(second)
        assert bench.held_by(first.uuid).isdisjoint(bench.held_by(second.uuid))


class HostContract(DomainContract, DeviceContract):
    """The whole contract of a host. Derived classes are named `Test…` and give a fixture `bench` of a fresh host."""


class CopyContract:
    """For drivers that copy an image into each disk, which takes its time."""

    def test_a_copy_past_its_limit_times_out_and_goes_on(self, bench: HostBench) -> None:
        disk = DiskId("d-1")
        with pytest.raises(VerbTimeout):
            bench.run(lambda: bench.drivers.images.create_disk(disk, image=bench.image, size_gib=500, timeout_s=1))
        copying = bench.disk(disk)
        assert copying is not None
        assert (copying.is_ready, copying.is_busy) == (False, True)
        assert bench.make_disk(disk, 500) > 0
        made = bench.disk(disk)
        assert made is not None
        assert (made.is_ready, made.is_busy) == (True, False)
