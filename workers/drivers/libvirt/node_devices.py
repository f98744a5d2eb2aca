"""The host's PCI devices as libvirt's node devices show them, kept for a few seconds, and their checks."""

import threading
from collections.abc import Iterable, Mapping
from time import monotonic
from types import MappingProxyType
from typing import Any
from uuid import UUID

import libvirt

from scheduler.core.facts import CheckResult, DeviceCheck, ObservedDevice
from scheduler.core.topology import HostProfile
from workers.drivers.libvirt.addresses import device_name
from workers.drivers.libvirt.reading import DescribedDevice, read_device
from workers.drivers.libvirt.refusals import is_code
from workers.drivers.libvirt.resets import LOCAL, REMOTE, Resets
from workers.drivers.libvirt.sysfs import Sysfs

VFIO = "vfio-pci"
GOOD_FOR_S = 15.0
"""Devices change only when somebody changes them: our own verbs say so, others' changes are seen so much later."""


class NodeDevices:
    """Reads devices. Safe to use from several threads."""

    def __init__(self, profile: HostProfile, resets: Resets, sysfs: Sysfs | None) -> None:
        self._resets = resets
        self._sysfs = sysfs
        self.expected = expected_ids(profile)
        """Every address of the profile, and which vendor:product may be there; nothing: any."""
        self._lock = threading.Lock()
        self._kept: Mapping[str, DescribedDevice] = {}
        self._read_at_s: float | None = None
        self._stale = 0
        self._handles: tuple[Any, dict[str, Any]] = (None, {})

    def forget(self) -> None:
        """Read everything anew at the next look: something was just changed."""
        with self._lock:
            self._read_at_s = None
            self._stale += 1

    def are_used(self, addresses: Iterable[str]) -> None:
        """Note that a domain is about to be given devices: whatever reset came before is used up."""
        for address in addresses:
            self._resets.saw_held(address)

    def read(self, conn: Any) -> Mapping[str, DescribedDevice]:
        """Return the profile's devices that are on the bus, and the members of their IOMMU groups."""
        with self._lock:
            if self._read_at_s is not None and monotonic() - self._read_at_s < GOOD_FOR_S:
                return self._kept
            stale = self._stale
        found: dict[str, DescribedDevice] = {}
        for address in self.expected:
            self._add(conn, address, found)
        for address in sorted({member for device in found.values() for member in device.group} - {*found}):
            self._add(conn, address, found)
        with self._lock:
            self._kept = found
            # What was changed while we read is not known yet.
            self._read_at_s = monotonic() if stale == self._stale else None
        return found

    def read_one(self, conn: Any, address: str) -> DescribedDevice | None:
        """Return one device as it is right now; None when it is not on the bus."""
        found: dict[str, DescribedDevice] = {}
        self._add(conn, address, found)
        return found.get(address)

    def handle(self, conn: Any, address: str) -> Any:
        """Return libvirt's node device. Raises libvirtError."""
        with self._lock:
            of, handles = self._handles
            if of is not conn:
                handles = {}
                self._handles = (conn, handles)
            handle = handles.get(address)
        if handle is None:
            handle = conn.nodeDeviceLookupByName(device_name(address))
            with self._lock:
                handles[address] = handle
        return handle

    def _add(self, conn: Any, address: str, found: dict[str, DescribedDevice]) -> None:
        try:
            device = read_device(self.handle(conn, address).XMLDesc(0))
        except libvirt.libvirtError as error:
            # Not there; or nobody there knows devices, and a look without any judges none.
            if not any(is_code(error, code) for code in (libvirt.VIR_ERR_NO_NODE_DEVICE, libvirt.VIR_ERR_NO_SUPPORT)):
                raise
            return
        if device is not None:
            found[address] = device

    def observe(
        self, conn: Any, held_by: Mapping[str, UUID], seen: Mapping[str, DeviceCheck] = MappingProxyType({})
    ) -> tuple[ObservedDevice, ...]:
        """Return the profile's devices with their checks.

        `held_by`: which domain that is on has which address. `seen`: what the guest says of one that was given to it.
        """
        found = self.read(conn)
        self._resets.look()
        return tuple(
            ObservedDevice(
                address=address,
                held_by=held_by.get(address),
                checks=(
                    _bound(found[address]),
                    _group_free(found[address], found, held_by),
                    self._config_readable(found[address]),
                    self._resets.check(address, is_held=address in held_by),
                    *self._ids_match(found[address]),
                    *((seen[address],) if address in seen else ()),
                ),
            )
            for address in sorted(self.expected)
            if address in found
        )

    def id_problem(self, device: DescribedDevice) -> str:
        """Return what is wrong with what was found at an address; empty when it is what the profile says."""
        wanted = self.expected.get(device.address, ())
        if not wanted or device.pci_id in wanted:
            return ""
        return f"it is {device.pci_id}, the profile says {' or '.join(wanted)}"

    def _config_readable(self, device: DescribedDevice) -> DeviceCheck:
        if self._sysfs is None:
            return _check("config_readable", CheckResult.UNVERIFIED, REMOTE, "libvirt does not read it at a look")
        problem = self._sysfs.config_problem(device.address)
        return _check("config_readable", CheckResult.FAILED if problem else CheckResult.PASSED, LOCAL, problem or "")

    def _ids_match(self, device: DescribedDevice) -> tuple[DeviceCheck, ...]:
        """Compare what was found with what the profile says; nothing where it says nothing."""
        if not self.expected.get(device.address):
            return ()
        problem = self.id_problem(device)
        return (_check("ids_match", CheckResult.FAILED if problem else CheckResult.PASSED, REMOTE, problem),)


def expected_ids(profile: HostProfile) -> Mapping[str, tuple[str, ...]]:
    """Return every address of a profile that is passed through, and the vendor:product ids it may have."""
    ids = profile.pci_ids
    return {
        **{gpu.address: ids.gpus for gpu in profile.gpus},
        **{switch.address: ids.nvswitches for switch in profile.nvswitches},
        **{hca.address: ids.hcas for hca in profile.hcas},
    }


def _bound(device: DescribedDevice) -> DeviceCheck:
    is_bound = device.driver == VFIO
    result = CheckResult.PASSED if is_bound else CheckResult.FAILED
    return _check("bound", result, REMOTE, "" if is_bound else f"driver: {device.driver or 'none'}")


def _group_free(
    device: DescribedDevice, found: Mapping[str, DescribedDevice], held_by: Mapping[str, UUID]
) -> DeviceCheck:
    if device.address in held_by:
        return _check("group_free", CheckResult.FAILED, REMOTE, f"held by domain {held_by[device.address]}")
    if not device.group:
        return _check("group_free", CheckResult.FAILED, REMOTE, "it has no IOMMU group: is the IOMMU switched on?")
    others = sorted(device.group - {device.address})
    problems = list(_in_the_way(others, found, held_by))
    holders = [held_by[other] for other in others if other in held_by]
    return DeviceCheck(
        name="group_free",
        result=CheckResult.FAILED if problems else CheckResult.PASSED,
        source=REMOTE,
        detail="; ".join(problems),
        # Where a driver of the host has another one, that a domain lets go of its own frees nothing.
        held_by=holders[0] if holders and len(holders) == len(problems) else None,
    )


_HARMLESS = ("", VFIO, "pcieport", "pci-stub")
"""Drivers of group members that VFIO accepts beside a device of its own."""


def _in_the_way(
    others: Iterable[str], found: Mapping[str, DescribedDevice], held_by: Mapping[str, UUID]
) -> Iterable[str]:
    for other in sorted(others):
        if other in held_by:
            yield f"{other} of its IOMMU group is held by domain {held_by[other]}"
        elif other in found and found[other].driver not in _HARMLESS:
            yield f"{other} of its IOMMU group is bound to {found[other].driver}"


def _check(name: str, result: CheckResult, source: str, detail: str = "") -> DeviceCheck:
    return DeviceCheck(name=name, result=result, source=source, detail=detail)
