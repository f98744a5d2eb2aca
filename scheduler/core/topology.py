"""What a host is made of and how it may be divided: devices, threads, partitions and their shares, as values.

Holds the values and their lookups. Must not hold: a host's numbers (they are data, in `scheduler.profiles`), the checks
of a profile (`topology_checks`), what is in use now, or anything that reads a host.

PCI addresses are written `domain:bus:device.function`, as `0000:34:00.0`; memory is GiB; a GPU's index is its place in
the order of PCI addresses, and bit i of a mask is GPU i.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

from scheduler.core.errors import NightshiftError

PartitionId = NewType("PartitionId", str)
"""Named as NVIDIA's `nvidia-vm` names VMs: size, `g`, first GPU, and the last if there are several: `1g3`, `4g4-7`.

A set out of Fabric Manager's table need not be a row of GPUs: size, `g`, and its number there, as `8g-fm3`.
"""


class UnknownPartition(NightshiftError):
    """No partition has this id on this kind of host."""

    code = "partition.unknown"


class UnknownGpu(NightshiftError):
    """No GPU has this index on this kind of host."""

    code = "gpu.unknown"


class UnknownSize(NightshiftError):
    """No VM of this many GPUs is foreseen on this kind of host."""

    code = "size.unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU: `root` is the PCI root it hangs under, `numa_node` the socket that root belongs to.

    `module` is the number that Fabric Manager knows it by (its physical id, `Module ID` in `nvidia-smi -q`), from 1 on.
    It does not follow the order of PCI addresses. None where no Fabric Manager is asked.
    """

    index: int
    address: str
    numa_node: int
    root: str
    module: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NvSwitch:
    """One NVSwitch that is passed through to a VM."""

    index: int
    address: str
    numa_node: int
    root: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hca:
    """One InfiniBand adapter and the GPUs behind the same PCIe switch; only a VM with all of them may have it."""

    index: int
    address: str
    numa_node: int
    root: str
    gpus: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nvme:
    """One NVMe drive; `use` says what for: `data` (the pool that VM disks live in) or `os` (the host's own)."""

    name: str
    address: str
    numa_node: int
    root: str
    use: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Thread:
    """One hardware thread, by the number Linux gives it.

    `sibling` is the other thread of its core, or its own id where cores have one thread. `socket` is compared with the
    devices' `numa_node`: where firmware makes several NUMA nodes of one package, each node counts as a socket.
    """

    id: int
    core: int
    socket: int
    sibling: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreShare:
    """A core that runs a tenant's vCPUs on some threads and, on the others, the host or the VM's own emulator."""

    core: int
    tenant_threads: tuple[int, ...]
    reserved_threads: tuple[int, ...]
    reserved_for: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a VM on a partition gets besides its GPUs.

    `vcpu_threads` in the order of vCPUs, the siblings of a core next to each other; `memory_gib_by_node` as
    (NUMA node, GiB); `hcas` and `nvswitches` as PCI addresses. `emulator_threads` are where QEMU's own threads and
    I/O threads are pinned; they may be the host's threads too. `shared_cores` admits which cores a tenant does not
    have for itself.
    """

    vcpus: int
    memory_gib: int
    memory_gib_by_node: tuple[tuple[int, int], ...]
    hcas: tuple[str, ...]
    nvswitches: tuple[str, ...]
    nvlinks_per_gpu: int
    vcpu_threads: tuple[int, ...]
    emulator_threads: tuple[int, ...]
    shared_cores: tuple[CoreShare, ...]


def mask_of(gpus: Iterable[int]) -> int:
    """Return the bit mask of GPU indices: bit i is GPU i."""
    mask = 0
    for gpu in gpus:
        mask |= 1 << gpu
    return mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A set of GPUs that may be given to one VM, and its share of the host. The unit of allocation.

    `fabric_id` is its number in Fabric Manager's list of partitions; None where no Fabric Manager is asked.
    """

    id: PartitionId
    gpus: frozenset[int]
    mask: int
    share: Share
    fabric_id: int | None = None

    def __hash__(self) -> int:
        # Equal partitions have equal ids, and a planner hashes partitions far too often to walk their shares.
        return hash(self.id)

    @property
    def size(self) -> int:
        return len(self.gpus)

    def overlaps(self, other: "Partition") -> bool:
        """Whether the two have a GPU in common, so that they can never run at one instant."""
        return self.mask & other.mask != 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverBounds:
    """At most how long each step of a hand-over takes, in seconds: what promises are made with.

    `start_s_by_size` as (GPUs of the VM, seconds until its guest answers): VFIO pins all of a VM's memory before the
    firmware even starts, so the bound grows with the size.
    """

    destroy_s: int
    reset_s: int
    start_s_by_size: tuple[tuple[int, int], ...]

    def start_s(self, size: int) -> int:
        """Return the bound for starting a VM of `size` GPUs."""
        for known_size, bound_s in self.start_s_by_size:
            if known_size == size:
                return bound_s
        known = ", ".join(str(known_size) for known_size, _ in self.start_s_by_size)
        raise UnknownSize(
            f"no start bound for a VM of {size} GPUs; this host's sizes are {known}: ask for one of them",
            size=size,
            known=known,
        )


class Fabric(StrEnum):
    """Who has the NVSwitches; never both on one host."""

    PASSTHROUGH = "passthrough"
    """The VMs: each is given the switches of its partition. Also what a host without NVSwitches has."""
    SHARED = "shared"
    """A Fabric Manager beside the VMs, which makes one of its partitions active before the VM on it starts."""


class Accelerator(StrEnum):
    """What runs a guest's instructions; the values are libvirt's domain types."""

    KVM = "kvm"
    EMULATED = "qemu"
    """QEMU alone: works anywhere, hundreds of times slower; for trying things out."""


class Firmware(StrEnum):
    """What a guest boots through."""

    BIOS = "bios"
    UEFI = "uefi"


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSettings:
    """How VMs are made on this kind of host, as far as a share does not say it.

    `hugepage_kib` is the size of the pages that back a guest's memory, 0 for ordinary ones. `pool` and `image_pool` are
    libvirt storage pools: of VM disks, and of the images they are made from. `network` and `network_filter` are a
    libvirt network and an nwfilter; empty means none.
    """

    accelerator: Accelerator = Accelerator.KVM
    firmware: Firmware = Firmware.BIOS
    hugepage_kib: int = 0
    pool: str = "nightshift"
    image_pool: str = "nightshift-images"
    network: str = "nightshift"
    network_filter: str = "clean-traffic"


@dataclass(frozen=True, slots=True, kw_only=True)
class PciIds:
    """What must be at the profile's addresses, as `vendor:product` (`10de:1db8`); an empty list is not checked."""

    gpus: tuple[str, ...] = ()
    nvswitches: tuple[str, ...] = ()
    hcas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostProfile:
    """The description of one kind of host.

    `host_threads` are the host's whatever VMs run: those that every mix of partitions leaves out. (On a DGX-2 48 and
    72, the second threads of each socket's first core. The first threads of those cores, 0 and 24, are the host's too
    except while a VM of one GPU is on GPU 0 or GPU 8: it has 5 of its 6 threads and runs on them.)

    `memory_gib` is what is installed. `pool_gib` is the pool for VM disks, of which `scratch_gib` is set aside for the
    HPC queue; `os_disk_gib` is a VM's system disk. `shares_threads`: the host has too few threads to give each VM its
    own, so VMs and emulators may be pinned to the same ones. `fabric` says who has the NVSwitches; where that is a
    Fabric Manager the profile lists none. Built with any values: `topology_checks.check_profile` says what is wrong
    with them.
    """

    name: str
    gpus: tuple[Gpu, ...]
    nvswitches: tuple[NvSwitch, ...]
    hcas: tuple[Hca, ...]
    nvmes: tuple[Nvme, ...]
    threads: tuple[Thread, ...]
    partitions: tuple[Partition, ...]
    host_threads: tuple[int, ...]
    memory_gib: int
    bounds: HandoverBounds
    pool_gib: int
    scratch_gib: int
    os_disk_gib: int
    vm: VmSettings = VmSettings()
    pci_ids: PciIds = PciIds()
    shares_threads: bool = False
    fabric: Fabric = Fabric.PASSTHROUGH
    _gpu_by_index: dict[int, Gpu] = field(init=False, repr=False, compare=False)
    _partition_by_id: dict[str, Partition] = field(init=False, repr=False, compare=False)
    _partition_by_gpus: dict[frozenset[int], Partition] = field(init=False, repr=False, compare=False)
    _partitions_by_size: dict[int, tuple[Partition, ...]] = field(init=False, repr=False, compare=False)
    _sizes: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_size: dict[int, tuple[Partition, ...]] = {}
        for partition in self.partitions:
            by_size[partition.size] = (*by_size.get(partition.size, ()), partition)
        object.__setattr__(self, "_gpu_by_index", {gpu.index: gpu for gpu in self.gpus})
        object.__setattr__(self, "_partition_by_id", {partition.id: partition for partition in self.partitions})
        object.__setattr__(self, "_partition_by_gpus", {partition.gpus: partition for partition in self.partitions})
        object.__setattr__(self, "_partitions_by_size", by_size)
        object.__setattr__(self, "_sizes", tuple(sorted(by_size)))

    def __hash__(self) -> int:
        # Equal profiles have equal names; walking hundreds of rows for a dictionary's sake would be waste.
        return hash(self.name)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of GPUs that a VM may have here, ascending."""
        return self._sizes

    def gpu(self, index: int) -> Gpu:
        """Return the GPU with this index."""
        try:
            return self._gpu_by_index[index]
        except KeyError:
            known = ", ".join(str(known_index) for known_index in self._gpu_by_index)
            message = f"profile {self.name} has no GPU {index}; its GPUs are {known}"
            raise UnknownGpu(message, profile=self.name, gpu=index, known=known) from None

    def partition(self, partition_id: PartitionId) -> Partition:
        """Return the partition with this id."""
        try:
            return self._partition_by_id[partition_id]
        except KeyError:
            known = ", ".join(self._partition_by_id)
            message = f"profile {self.name} has no partition {partition_id!r}; name one of {known}"
            raise UnknownPartition(message, profile=self.name, partition=partition_id, known=known) from None

    def partitions_of_size(self, size: int) -> tuple[Partition, ...]:
        """Return the partitions of `size` GPUs in the profile's order; none if VMs of that size do not exist here."""
        return self._partitions_by_size.get(size, ())

    def partition_of(self, gpus: Iterable[int]) -> Partition | None:
        """Return the partition of exactly these GPUs, if there is one."""
        return self._partition_by_gpus.get(frozenset(gpus))

    def devices(self, partition: Partition) -> tuple[str, ...]:
        """Return the PCI addresses that a VM on this partition is given: GPUs, then NVSwitches, then HCAs."""
        gpus = tuple(self.gpu(index).address for index in sorted(partition.gpus))
        return gpus + partition.share.nvswitches + partition.share.hcas

    def disk_share_gib(self, size: int) -> int:
        """Return the most that a VM of `size` GPUs may ask for as its data disk: its GPUs' part of the tenants' pool.

        The HPC queue's scratch is taken off first; otherwise the largest share could never be had.
        """
        return (self.pool_gib - self.scratch_gib) * size // len(self.gpus)
