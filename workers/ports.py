"""The ports of a host: what converge needs of the world, as Protocols, and the failures they may raise.

Implementations are in `drivers/`; one contract suite (`tests/contract/`) holds every one of them to this page.

Two kinds of verbs. *Asking* verbs return at once; whether it happened is seen at a later look. *Blocking* verbs return
when the thing is done, or raise `VerbTimeout` after `timeout_s` of product time; they are called only from a chain,
never inside a transaction. Every verb may be called many times: asking for what already holds succeeds and changes
nothing. A verb that raises may still have acted, in full or in part; only the next look tells.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from scheduler.core.errors import NightshiftError
from scheduler.core.facts import ObservedHost
from scheduler.core.requests import DiskId, HostId, ReservationId
from scheduler.core.topology import Partition


class DriverError(NightshiftError):
    """A host refused or failed a verb; the message carries the host's own words."""

    code = "driver.failed"
    retryable = True


class HostUnreachable(DriverError):
    """The host did not answer: nothing is known about what it did."""

    code = "driver.host_unreachable"


class VerbTimeout(DriverError):
    """A blocking verb did not end within its limit; it may still end later."""

    code = "driver.timeout"


class NoSuchDomain(DriverError):
    """`Domain not found: no domain with matching uuid '…'`."""

    code = "driver.no_such_domain"
    retryable = False


class DomainBusy(DriverError):
    """Another operation on the domain has not ended, or it is running where it must be off (or the reverse)."""

    code = "driver.domain_busy"


class DeviceInUse(DriverError):
    """`Requested operation is not valid: PCI device … is in use by driver QEMU, domain …`."""

    code = "driver.device_in_use"


class DeviceMissing(DriverError):
    """A device is not on the bus, or does not answer there."""

    code = "driver.device_missing"
    retryable = False


class NotEnoughMemory(DriverError):
    """`internal error: … cannot set up guest memory …: Cannot allocate memory`."""

    code = "driver.not_enough_memory"


class DiskInUse(DriverError):
    """`Failed to get "write" lock`: another domain has the disk open."""

    code = "driver.disk_in_use"


class NoSuchDisk(DriverError):
    """The disk, or the image it is made from, is not there."""

    code = "driver.no_such_disk"
    retryable = False


class PoolFull(DriverError):
    """The pool has no room for the disk."""

    code = "driver.pool_full"


class AgentSilent(DriverError):
    """The guest agent does not answer."""

    code = "driver.agent_silent"


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainSpec:
    """All that a driver needs to define one start of a VM. Identity is the UUID; the rest follows the reservation."""

    uuid: UUID
    name: str
    """`r-17-8g0-7`: the reservation and the partition, for people at a `virsh` prompt."""
    reservation: ReservationId
    generation: int
    partition: Partition
    devices: tuple[str, ...]
    """PCI addresses of exactly the partition's GPUs, NVSwitches and HCAs."""
    disk: DiskId
    image: str
    ssh_key: str | None
    mac: str
    """The same over all generations of a reservation, as host name and cloud-init instance-id are."""
    host_name: str
    memory_gib: int | None = None
    """None: the partition's whole share."""
    vcpus: int | None = None
    """None: the partition's whole share."""


class Hypervisor(Protocol):
    """libvirt, or what stands for it."""

    def look(self) -> ObservedHost:
        """Return everything that this host shows now: one look. Raises HostUnreachable."""

    def define(self, spec: DomainSpec) -> None:
        """Make the domain known, off. The same UUID again replaces an off definition; DomainBusy if it runs."""

    def start(self, uuid: UUID, *, timeout_s: int) -> None:
        """Blocking: start a defined domain, VFIO attached; return when it runs (the guest boots after that).

        Raises NoSuchDomain, DeviceInUse, DeviceMissing, NotEnoughMemory, DiskInUse, NoSuchDisk, VerbTimeout. A domain
        that already runs is a success.
        """

    def ask_shutdown(self, uuid: UUID, *, through_agent: bool = False) -> None:
        """Asking: press the ACPI button, or ask the guest agent (AgentSilent). An off domain is a success."""

    def destroy(self, uuid: UUID, *, timeout_s: int) -> None:
        """Blocking: cut the domain's power; disks are kept. An off domain is a success. Raises NoSuchDomain."""

    def undefine(self, uuid: UUID) -> None:
        """Forget an off domain; its disks stay. An unknown UUID is a success. DomainBusy if it runs."""


class Pci(Protocol):
    """The host's passthrough devices."""

    def bind(self, addresses: tuple[str, ...]) -> None:
        """Bind devices to vfio-pci; bound ones are left alone. Raises DeviceMissing, DeviceInUse."""

    def ask_reset(self, addresses: tuple[str, ...]) -> None:
        """Asking: reset devices that no domain holds; seen as `reset_done` at a later look.

        Raises DeviceInUse, DeviceMissing.
        """

    def rebind(self, addresses: tuple[str, ...]) -> None:
        """Unbind devices from their driver and bind them to vfio-pci again. Raises DeviceMissing, DeviceInUse."""


class Fabric(Protocol):
    """NVSwitch routing for a partition. On DGX-2 passthrough: NVLinks that leave the partition are blocked."""

    def activate(self, partition: Partition) -> None:
        """Set the partition up; an active one is a success. Raises DeviceInUse when an active one overlaps it."""

    def deactivate(self, partition: Partition) -> None:
        """Take it down, only after its VM is off; an inactive one is a success."""


class Images(Protocol):
    """Guest images and the disks made from them."""

    def create_disk(self, disk: DiskId, *, image: str, size_gib: int, timeout_s: int, must_exist: bool = False) -> None:
        """Blocking: make a disk from an image. A ready disk of that id is a success, whatever its image.

        `must_exist`: somebody's data is on it, so that one which is not there is never made anew: NoSuchDisk.
        Raises NoSuchDisk (unknown image), PoolFull, VerbTimeout. A copy that was cut off is begun anew.
        """

    def delete_disk(self, disk: DiskId, *, timeout_s: int) -> None:
        """Blocking: wipe and delete a disk. A missing one is a success. Raises DiskInUse, VerbTimeout."""


class Guest(Protocol):
    """Inside of a VM, through its agent."""

    def warn(self, uuid: UUID, text: str) -> None:
        """Asking: show a message to who is logged in. Raises AgentSilent, NoSuchDomain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drivers:
    """The ports of one host, put together by a process's main."""

    host: HostId
    hypervisor: Hypervisor
    pci: Pci
    fabric: Fabric
    images: Images
    guest: Guest


class Runner(Protocol):
    """Runs chains of blocking steps: threads in a worker, an agenda of instants in virtual time."""

    def run(self, key: str, steps: tuple[Callable[[], None], ...], done: Callable[[Exception | None], None]) -> None:
        """Run the steps one after the other, off the caller's thread; then call `done` once.

        `done` gets None, or the failure of the step that ended the chain. A killed worker calls nothing.
        """
