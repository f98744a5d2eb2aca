"""What is wrong with a host before anybody is told so by a failed start: IOMMU, devices, hugepages, pools, network.

Inspected when the connection is made, and then every so often: these change only when somebody changes them. Each
trouble says what to do. What cannot be checked from where the worker runs is among them, as unverified.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import Any
from xml.etree import ElementTree

import libvirt

from scheduler.core.facts import HostTrouble, TroubleKind
from scheduler.core.topology import HostProfile, Share
from scheduler.core.topology_checks import heaviest_mix
from workers.drivers.libvirt.node_devices import NodeDevices
from workers.drivers.libvirt.reading import DescribedDevice, DescribedHost, read_capabilities
from workers.drivers.libvirt.refusals import is_about_the_connection, is_code
from workers.drivers.libvirt.resets import NOT_ALLOWED, NOT_SEEN
from workers.drivers.libvirt.sysfs import Sysfs
from workers.drivers.libvirt.volumes import GIB, refresh
from workers.ports import DriverError

INSPECT_EVERY_S = 30.0
KIB_IN_GIB = 1 << 20
IOMMU_MEND = (
    "switch it on: VT-d or AMD-Vi in the firmware, intel_iommu=on or amd_iommu=on for the kernel; then boot the host"
    " anew"
)


class Inspector:
    """Inspects a host. Safe to use from several threads."""

    def __init__(
        self,
        profile: HostProfile,
        devices: NodeDevices,
        sysfs: Sysfs | None,
        *,
        generation: Callable[[], int],
        missing_images: Callable[[Any], tuple[str, ...]],
    ) -> None:
        self._profile = profile
        self._needed_gib_by_node = _needed_gib_by_node(profile)
        self._devices = devices
        self._sysfs = sysfs
        self._generation = generation
        self._missing_images = missing_images
        self._lock = threading.Lock()
        self._kept: tuple[HostTrouble, ...] = ()
        self._of: tuple[int, float] | None = None

    def troubles(self, conn: Any) -> tuple[HostTrouble, ...]:
        """Return what is wrong and what cannot be checked, in order of code."""
        generation = self._generation()
        with self._lock:
            if self._of is not None and self._of[0] == generation and monotonic() - self._of[1] < INSPECT_EVERY_S:
                return self._kept
        found = tuple(sorted(self._inspect(conn), key=lambda trouble: (trouble.code, trouble.problem)))
        with self._lock:
            self._kept, self._of = found, (generation, monotonic())
        return found

    def forget(self) -> None:
        """Inspect anew at the next look."""
        with self._lock:
            self._of = None

    def _inspect(self, conn: Any) -> Iterator[HostTrouble]:
        for part, inspect in (
            ("capabilities", self._capabilities),
            ("devices", self._found_devices),
            ("pools", self._pools),
            ("images", self._images),
            ("network", self._network),
        ):
            yield from _or_unverified(part, inspect, conn)
        yield from self._unverified()

    def _capabilities(self, conn: Any) -> Iterator[HostTrouble]:
        described = read_capabilities(conn.getCapabilities())
        if not described.has_iommu:
            yield _wrong("host.no_iommu", "the host has no IOMMU, so no VM can be given a device", IOMMU_MEND)
        yield from self._hugepages(described)

    def _found_devices(self, conn: Any) -> Iterator[HostTrouble]:
        found = self._devices.read(conn)
        if not found and self._devices.expected:
            yield _wrong(
                "host.no_node_devices",
                f"libvirt shows none of the {len(self._devices.expected)} devices of profile {self._profile.name}",
                "install libvirt's node device driver there (libvirt-daemon-driver-nodedev), and compare the profile's"
                " addresses with `lspci -D`",
            )
            return
        missing = sorted(address for address in self._devices.expected if address not in found)
        if missing:
            yield _wrong(
                "host.device_missing",
                f"{_count(len(missing), 'device')} of profile {self._profile.name} not on the bus: {_some(missing)}",
                "compare the profile's addresses with `lspci -D` there; reseat or replace what is really missing",
            )
        yield from self._wrong_devices(found)

    def _wrong_devices(self, found: Mapping[str, DescribedDevice]) -> Iterator[HostTrouble]:
        """Yield a trouble for each kind of device and each id that the profile does not say of it."""
        profile, ids = self._profile, self._profile.pci_ids
        for kind, wanted, parts in (
            ("gpus", ids.gpus, profile.gpus),
            ("nvswitches", ids.nvswitches, profile.nvswitches),
            ("hcas", ids.hcas, profile.hcas),
        ):
            addresses_by_id: dict[str, list[str]] = {}
            for address in sorted(part.address for part in parts):
                if address in found and self._devices.id_problem(found[address]):
                    addresses_by_id.setdefault(found[address].pci_id, []).append(address)
            for pci_id, addresses in sorted(addresses_by_id.items()):
                also = ", ".join(f'"{id_}"' for id_ in (*wanted, pci_id))
                yield _wrong(
                    "host.wrong_device",
                    f"{_some(addresses)}: found {pci_id}, profile {profile.name} says {' or '.join(wanted)}",
                    f"if {pci_id} is right, write {kind} = [{also}] under [pci_ids] of the profile; else correct the"
                    " addresses; then start Nightshift again",
                )

    def _hugepages(self, described: DescribedHost) -> Iterator[HostTrouble]:
        page_kib = self._profile.vm.hugepage_kib
        if not page_kib:
            return
        for node, needed_gib in self._needed_gib_by_node:
            pages = sum(count for cell, size, count in described.pages_by_cell if (cell, size) == (node, page_kib))
            if pages * page_kib < needed_gib * KIB_IN_GIB:
                wanted = -(-needed_gib * KIB_IN_GIB // page_kib)
                yield _wrong(
                    "host.few_hugepages",
                    f"NUMA node {node} has {pages} hugepages of {page_kib} KiB, its VMs need up to {wanted}",
                    f"reserve at least {wanted} there at boot: hugepagesz and hugepages=<node>:<count> for the kernel;"
                    " or set vm.hugepage_kib to 0 in the profile",
                )

    def _pools(self, conn: Any) -> Iterator[HostTrouble]:
        settings = self._profile.vm
        for name in sorted({settings.pool, settings.image_pool}):
            try:
                pool = conn.storagePoolLookupByName(name)
            except libvirt.libvirtError as error:
                if not is_code(error, libvirt.VIR_ERR_NO_STORAGE_POOL):
                    raise
                yield _wrong(
                    "host.no_pool",
                    f"there is no storage pool {name!r}",
                    f"virsh pool-define-as {name} dir --target DIRECTORY; virsh pool-build {name};"
                    f" virsh pool-start {name}; virsh pool-autostart {name}",
                )
                continue
            if not pool.isActive():
                yield _wrong(
                    "host.no_pool",
                    f"storage pool {name!r} is not active",
                    f"virsh pool-start {name}; virsh pool-autostart {name}",
                )
            elif name == settings.pool:
                yield from self._room(pool)

    def _room(self, pool: Any) -> Iterator[HostTrouble]:
        if self._sysfs is None:
            # libvirt tells the room of the last time that it looked at the folder, and that may be of weeks ago.
            refresh(pool)
        _, capacity, _, available = pool.info()
        if capacity < self._profile.pool_gib * GIB:
            yield _wrong(
                "host.small_pool",
                f"pool {pool.name()} has {capacity // GIB} GiB, the profile plans with {self._profile.pool_gib}",
                "correct pool_gib in the profile, or give the pool more room",
            )
        if self._sysfs is not None:
            # Guests write, and this machine knows at once.
            available = _free_bytes(pool, available)
        if available < capacity // 50:
            yield _wrong(
                "host.pool_full",
                f"pool {pool.name()} has less than 2 % of its {capacity // GIB} GiB left",
                "make room: remove what Nightshift did not put there; disks are kept until their retention ends",
            )

    def _images(self, conn: Any) -> Iterator[HostTrouble]:
        for image in self._missing_images(conn):
            yield _wrong(
                "host.no_image",
                f"image {image!r} of the policy is not in pool {self._profile.vm.image_pool}",
                f"virsh vol-create-as {self._profile.vm.image_pool} {image} SIZE; virsh vol-upload {image} FILE"
                f" --pool {self._profile.vm.image_pool}; or take it out of the policy",
            )

    def _network(self, conn: Any) -> Iterator[HostTrouble]:
        settings = self._profile.vm
        if not settings.network:
            return
        mend = f"virsh net-start {settings.network}; virsh net-autostart {settings.network}"
        try:
            if not conn.networkLookupByName(settings.network).isActive():
                yield _wrong("host.no_network", f"network {settings.network!r} is not active", mend)
        except libvirt.libvirtError as error:
            if not is_code(error, libvirt.VIR_ERR_NO_NETWORK):
                raise
            yield _wrong(
                "host.no_network", f"there is no network {settings.network!r}", f"virsh net-define FILE; {mend}"
            )
        if not settings.network_filter:
            return
        try:
            conn.nwfilterLookupByName(settings.network_filter)
        except libvirt.libvirtError as error:
            if not is_code(error, libvirt.VIR_ERR_NO_NWFILTER):
                raise
            yield _wrong(
                "host.no_network_filter",
                f"there is no network filter {settings.network_filter!r}: guests could send as somebody else",
                "install libvirt-daemon-config-nwfilter there",
            )

    def _unverified(self) -> Iterator[HostTrouble]:
        if self._sysfs is None:
            yield _unverified("check.reset_done", NOT_SEEN, "run a worker on the host itself, with qemu:///system")
            yield _unverified(
                "check.config_readable",
                "whether a device answers on the bus is not read by libvirt",
                "run a worker on the host itself, with qemu:///system",
            )
        elif any(not self._sysfs.can_reset(address) for address in self._devices.expected):
            yield _unverified("check.reset_done", NOT_ALLOWED, "run the worker as root, or write a udev rule")
        if self._profile.nvswitches and len(self._profile.sizes) > 1:
            yield _unverified(
                "check.nvlinks_blocked",
                "NVLinks that leave a partition are not blocked by stock libvirt; a VM has only its own switches",
                "nothing to do where tenants trust each other's drivers; else use only whole boards",
            )


def _or_unverified(part: str, inspect: Callable[[Any], Iterator[HostTrouble]], conn: Any) -> tuple[HostTrouble, ...]:
    """Return what an inspection found; one that the host does not allow hides neither the others nor the host."""
    found: list[HostTrouble] = []
    try:
        found.extend(inspect(conn))
        return tuple(found)
    except libvirt.libvirtError as error:
        if is_about_the_connection(error):
            raise
        words = error.get_error_message()
    except DriverError as error:
        words = error.message
    return (
        *found,
        _unverified(
            f"check.{part}",
            f"the {part} cannot be inspected: {words}",
            "install what libvirt lacks there, and restart it",
        ),
    )


def _free_bytes(pool: Any, otherwise: int) -> int:
    """Return what is free where a pool of this very machine is."""
    folder = ElementTree.fromstring(pool.XMLDesc(0)).findtext("./target/path", "")
    try:
        found = os.statvfs(folder)
    except OSError:
        return otherwise
    return found.f_bavail * found.f_frsize


def _needed_gib_by_node(profile: HostProfile) -> tuple[tuple[int, int], ...]:
    """Return how much memory of each NUMA node VMs that may run at once take at most."""
    nodes = {node for partition in profile.partitions for node, _ in partition.share.memory_gib_by_node}

    def on(node: int) -> Callable[[Share], int]:
        return lambda share: sum(gib for share_node, gib in share.memory_gib_by_node if share_node == node)

    return tuple((node, heaviest_mix(profile.partitions, on(node))[0]) for node in sorted(nodes))


def _wrong(code: str, problem: str, mend: str) -> HostTrouble:
    return HostTrouble(code=code, kind=TroubleKind.WRONG, problem=problem, mend=mend)


def _unverified(code: str, problem: str, mend: str) -> HostTrouble:
    return HostTrouble(code=code, kind=TroubleKind.UNVERIFIED, problem=problem, mend=mend)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _some(addresses: list[str]) -> str:
    shown = ", ".join(addresses[:4])
    return shown if len(addresses) <= 4 else f"{shown} and {len(addresses) - 4} more"
