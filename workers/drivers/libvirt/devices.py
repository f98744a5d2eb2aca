"""The verbs of PCI devices, and of NVSwitch routing, on a real libvirt."""

from collections.abc import Callable
from typing import Any

import libvirt

from scheduler.core.topology import HostProfile, Partition
from workers.drivers.libvirt.connection import CALL_WITHIN_S, Connection
from workers.drivers.libvirt.domains import active_domains
from workers.drivers.libvirt.node_devices import VFIO, NodeDevices
from workers.drivers.libvirt.reading import DescribedDevice
from workers.drivers.libvirt.refusals import is_code
from workers.drivers.libvirt.resets import Resets
from workers.ports import DeviceInUse, DeviceMissing, DriverError

DRIVER_LETS_GO_S = 10.0
"""A GPU's own driver may take seconds to let go of it."""


class LibvirtPci:
    """`workers.ports.Pci` on one host: binding by libvirt, resets by the kernel.

    Devices stay bound to vfio-pci between VMs. libvirt then resets nothing by itself; see `resets`.
    """

    def __init__(
        self, connection: Connection, devices: NodeDevices, resets: Resets, on_change: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._devices = devices
        self._resets = resets
        self._on_change = on_change

    def bind(self, addresses: tuple[str, ...]) -> None:
        def bind(conn: Any) -> None:
            devices = [self._there(conn, address) for address in addresses]
            unbound = [device for device in devices if device.driver != VFIO]
            if unbound:
                _need_free(conn, [device.address for device in unbound])
            for device in unbound:
                self._detach(conn, device)

        self._change("bind", addresses, bind)

    def rebind(self, addresses: tuple[str, ...]) -> None:
        def rebind(conn: Any) -> None:
            devices = [self._there(conn, address) for address in addresses]
            _need_free(conn, addresses)
            for device in devices:
                if device.driver:
                    self._devices.handle(conn, device.address).reAttach()
                self._detach(conn, device)

        self._change("rebind", addresses, rebind)

    def ask_reset(self, addresses: tuple[str, ...]) -> None:
        def need(conn: Any) -> None:
            for address in addresses:
                self._there(conn, address)
            _need_free(conn, addresses)

        if addresses:
            self._connection.ask(need, what="ask_reset", subject=addresses[0])
        for address in addresses:
            self._resets.begin(address, self._on_change)

    def _change(self, verb: str, addresses: tuple[str, ...], change: Callable[[Any], None]) -> None:
        if not addresses:
            return
        try:
            limit_s = CALL_WITHIN_S + DRIVER_LETS_GO_S * len(addresses)
            self._connection.block(change, what=verb, subject=addresses[0], limit_s=limit_s)
        finally:
            self._devices.forget()

    def _there(self, conn: Any, address: str) -> DescribedDevice:
        device = self._devices.read_one(conn, address)
        if device is None:
            raise DeviceMissing(f"Device {address} not found: it is not on the bus", device=address)
        problem = self._devices.id_problem(device)
        if problem:
            raise DeviceMissing(
                f"Device {address} is not what it should be: {problem}; correct the profile", device=address
            )
        return device

    def _detach(self, conn: Any, device: DescribedDevice) -> None:
        if not device.group:
            raise DriverError(
                f"{device.address} has no IOMMU group, so no VM can be given it; switch the IOMMU on: VT-d or AMD-Vi in"
                " the firmware, intel_iommu=on or amd_iommu=on for the kernel",
                device=device.address,
            )
        handle = self._devices.handle(conn, device.address)
        try:
            handle.detachFlags("vfio", 0)
        except libvirt.libvirtError as error:
            if is_code(error, libvirt.VIR_ERR_INTERNAL_ERROR):
                raise DeviceInUse(
                    f"Failed to bind PCI device '{device.address}' to {VFIO}: {error.get_error_message()}; is vfio-pci"
                    " loaded there, and nothing using the device?",
                    device=device.address,
                ) from error
            raise


class PassthroughFabric:
    """`workers.ports.Fabric` where NVSwitches are passed through with the GPUs: the VM's own driver routes them.

    Nothing is set on the host. A partition is refused where a running domain has devices of it and is not the one that
    it is for. That NVLinks which leave the partition are blocked is not done by stock libvirt, and not claimed.
    """

    def __init__(self, connection: Connection, profile: HostProfile) -> None:
        self._connection = connection
        self._profile = profile

    def activate(self, partition: Partition) -> None:
        def need(conn: Any) -> None:
            devices = frozenset(self._profile.devices(partition))
            for described in active_domains(conn):
                if described.devices & devices and described.partition != partition.id:
                    raise _in_use(min(described.devices & devices), described.name)

        self._connection.ask(need, what="activate", subject=partition.id)

    def deactivate(self, partition: Partition) -> None:
        def need(conn: Any) -> None:
            for described in active_domains(conn):
                if described.partition == partition.id:
                    raise _in_use(self._profile.devices(partition)[0], described.name)

        self._connection.ask(need, what="deactivate", subject=partition.id)


def _need_free(conn: Any, addresses: "tuple[str, ...] | list[str]") -> None:
    wanted = frozenset(addresses)
    for described in active_domains(conn):
        held = described.devices & wanted
        if held:
            raise _in_use(min(held), described.name)


def _in_use(address: str, domain: str) -> DeviceInUse:
    return DeviceInUse(
        f"Requested operation is not valid: PCI device {address} is in use by driver QEMU, domain {domain}",
        device=address,
        domain=domain,
    )
