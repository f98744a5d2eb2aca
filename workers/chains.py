"""The chains of blocking steps: start, destroy, delete; and what a worker remembers of each while it runs.

Before every step the lease is checked again: a worker that lost its lease begins nothing more. A chain never writes to
the database; its outcome is handed to converge, which does. Holds no rules about when a chain is run.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from uuid import UUID

from scheduler.core.converging.actions import DeleteDisk, DestroyVm, InFlight, StartVm
from scheduler.core.converging.witness_shared import problem_of, stand_ins, what_profile_says
from scheduler.core.errors import LeaseLost
from scheduler.core.facts import CheckResult, ObservedDevice, Verb, VmFact
from scheduler.core.requests import DiskId, ReservationId
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile, mask_of
from scheduler.service.ports import Clock
from workers.ports import DomainSpec, DriverError, Drivers, NoSuchDomain

CHECKS = ("bound", "group_free", "config_readable", "reset_done")
"""What must have been checked, and not have failed, when a VM is handed its devices; `ids_match` only not failed."""
CHECKS_OF_THE_DEVICE = ("bound", "group_free", "config_readable")
"""Failures that another attempt will not mend, unless somebody's hold is all that they tell: the GPU is quarantined."""

Steps = tuple[Callable[[], None], ...]


class HandOverFailed(DriverError):
    """A device is not fit to be handed to a VM."""

    code = "driver.hand_over_failed"


@dataclass(slots=True, kw_only=True, eq=False)
class Ticket:
    """One chain in flight: what it works on, and what it found out on its way."""

    verb: Verb
    subject: str
    token: str
    """Of the lease under which it was begun."""
    reservation: ReservationId | None = None
    gpus: frozenset[int] = frozenset()
    disk: DiskId | None = None
    vm: UUID | None = None
    unfit_gpus: dict[int, str] = field(default_factory=dict)
    """GPUs to be quarantined, for a fault of their own or in place of a switch or an adapter, and why."""
    unverified: list[str] = field(default_factory=list)
    """Checks of the hand-over that could not be made from here."""

    @property
    def key(self) -> str:
        """The line it stands in: chains on the same GPUs, or the same disk, run one after the other."""
        return f"gpus:{mask_of(self.gpus):x}" if self.gpus else f"disk:{self.disk}"


def in_flight(tickets: tuple[Ticket, ...]) -> InFlight:
    """Return what these chains are working on."""
    return InFlight(
        gpus=frozenset(gpu for ticket in tickets for gpu in ticket.gpus),
        disks=frozenset(ticket.disk for ticket in tickets if ticket.disk is not None),
        vms=frozenset(ticket.vm for ticket in tickets if ticket.vm is not None),
    )


def under_lease(steps: Steps, holds_lease: Callable[[], bool]) -> Steps:
    """Return the steps, each of which begins only while the lease is held; raises LeaseLost otherwise."""

    def guarded(step: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            if not holds_lease():
                raise LeaseLost("the lease was lost; the rest of the chain is left to who holds it now")
            step()

        return run

    return tuple(guarded(step) for step in steps)


def mac_of(reservation: ReservationId) -> str:
    """Return a reservation's MAC address, the same over all its generations, in KVM's range."""
    digest = blake2b(reservation.encode(), digest_size=3).hexdigest()
    return f"52:54:00:{digest[0:2]}:{digest[2:4]}:{digest[4:6]}"


def spec_of(action: StartVm, start: VmFact, profile: HostProfile) -> DomainSpec:
    """Return what a driver needs to define a start."""
    wanted, request = action.vm, action.vm.reservation.request
    assert wanted.disk is not None, "a VM without a disk is not started"
    return DomainSpec(
        uuid=start.uuid,
        name=f"{wanted.id}-{wanted.partition.id}",
        reservation=wanted.id,
        generation=start.generation,
        partition=wanted.partition,
        devices=profile.devices(wanted.partition),
        disk=wanted.disk.id,
        image=request.image,
        ssh_key=request.ssh_key,
        mac=mac_of(wanted.id),
        host_name=wanted.id,
        memory_gib=request.memory_gib,
        vcpus=request.vcpus,
    )


def start_steps(
    action: StartVm,
    spec: DomainSpec,
    drivers: Drivers,
    clock: Clock,
    ticket: Ticket,
    profile: HostProfile,
    until_at: Instant,
) -> Steps:
    """Return the steps that start a VM; all of them together may take until `until_at`."""
    disk = action.vm.disk
    assert disk is not None

    def left_s() -> int:
        return max(1, until_at - clock.now())

    def create_disk() -> None:
        drivers.images.create_disk(
            disk.id,
            image=spec.image,
            size_gib=disk.size_gib,
            timeout_s=left_s(),
            must_exist=action.is_disk_used,
        )

    return (
        # Devices first: a host that can give none is left without a disk on it.
        lambda: drivers.pci.bind(spec.devices),
        create_disk,
        lambda: check_hand_over(drivers, spec, ticket, profile),
        lambda: drivers.fabric.activate(spec.partition),
        lambda: drivers.hypervisor.define(spec),
        lambda: drivers.hypervisor.start(spec.uuid, timeout_s=left_s()),
    )


def check_hand_over(drivers: Drivers, spec: DomainSpec, ticket: Ticket, profile: HostProfile) -> None:
    """Look at the devices once more, and raise HandOverFailed if one must not be handed to the VM."""
    device_by_address = {device.address: device for device in drivers.hypervisor.look().devices}
    gpu_by_address = {gpu.address: gpu.index for gpu in profile.gpus}
    problems: list[str] = []
    for address in spec.devices:
        device = device_by_address.get(address)
        if device is None:
            problems.append(f"{address} is not on the bus")
            continue
        if device.mistaken_for:
            # Of the profile, not of the device: nothing is quarantined for it.
            problems.append(f"{address} {what_profile_says(profile, device)}")
        for name in CHECKS:
            match device.result_of(name):
                case CheckResult.PASSED:
                    pass
                case CheckResult.UNVERIFIED:
                    ticket.unverified.append(f"{address} {name}")
                case CheckResult.FAILED:
                    problem = f"{address} {name}: {_detail(device, name)}"
                    problems.append(problem)
                    if name not in CHECKS_OF_THE_DEVICE or _is_held(device, name):
                        continue
                    if address in gpu_by_address:
                        ticket.unfit_gpus[gpu_by_address[address]] = problem
                        continue
                    for gpu in stand_ins(profile, address, lambda gpu: (gpu not in spec.partition.gpus,)):
                        ticket.unfit_gpus.setdefault(gpu, problem_of(profile, address, f"is not fit ({problem})"))
    if problems:
        raise HandOverFailed(f"the hand-over check failed: {'; '.join(problems)}", devices=len(problems))


def _is_held(device: ObservedDevice, name: str) -> bool:
    """Whether a check failed because somebody has the device, or another of its group: no fault, and it passes."""
    return device.held_by is not None or (name == "group_free" and device.group_held_by is not None)


def _detail(device: ObservedDevice, name: str) -> str:
    return next((f"{check.detail} ({check.source})" for check in device.checks if check.name == name), "not checked")


def destroy_steps(action: DestroyVm, drivers: Drivers, *, timeout_s: int) -> Steps:
    """Return the step that cuts a VM's power; one that is not there has none."""

    def destroy() -> None:
        try:
            drivers.hypervisor.destroy(action.uuid, timeout_s=timeout_s)
        except NoSuchDomain:
            return

    return (destroy,)


def delete_steps(action: DeleteDisk, drivers: Drivers, *, timeout_s: int) -> Steps:
    """Return the step that wipes and deletes a disk."""
    return (lambda: drivers.images.delete_disk(action.disk.id, timeout_s=timeout_s),)
