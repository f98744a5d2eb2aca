"""Where a guest finds its devices: PCIe ports in the order of the host, on a root for each NUMA node.

Holds the one place that decides this. Pure. Must not hold XML (`definition`).

Every device is alone behind a root port of its own, as the driver of a GPU expects it. A guest on one NUMA node has its
ports on the machine's own root. A guest on several has a root for each (QEMU's `pxb-pcie`), with the ports of that
node's devices on it, so that it can tell which GPU is near which memory. All addresses are given, none is left to
libvirt: a guest finds its devices in the host's order at every start, on whatever block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scheduler.core.topology import Gpu, Hca, HostProfile, NvSwitch
from workers.drivers.libvirt.guest_cells import Cell, DefinitionError
from workers.ports import DomainSpec

ROOT = 0
"""The index of the machine's own PCIe root."""
FIRST_SLOT_ON_ROOT = 0x10
"""Slots below are left to libvirt, which puts disks, network and the like there."""
FUNCTIONS_PER_SLOT = 8
MAX_PORTS_PER_ROOT = 56
"""7 slots of 8; each port takes a bus number, and a root has at least 63 of them to give."""
BUS_NUMBERS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class PciAddress:
    """A PCI address, of the host or of the guest; in the guest `bus` is the index of the controller it is on."""

    domain: int = 0
    bus: int
    slot: int
    function: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A PCIe root of its own for one cell of the guest: its devices' bus numbers begin after `bus_number`."""

    index: int
    cell: int
    bus_number: int
    at: PciAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A root port and the device of the host that is behind it; `is_first` of several in one slot."""

    index: int
    at: PciAddress
    is_first: bool
    device: PciAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """All PCIe controllers of a guest that carry devices of the host."""

    roots: tuple[Root, ...]
    ports: tuple[Port, ...]


def guest_hierarchy(spec: DomainSpec, profile: HostProfile, cells: tuple[Cell, ...]) -> Hierarchy:
    """Return the ports of exactly `spec.devices`. Raises DefinitionError for a device that the profile does not know,
    that is listed twice, or that is on a NUMA node where the VM is not."""
    devices_by_node = _devices_by_node(spec, profile, cells)
    if len(cells) == 1:
        (devices,) = devices_by_node.values()
        return Hierarchy(roots=(), ports=_ports(spec, devices, bus=ROOT, first_slot=FIRST_SLOT_ON_ROOT, first_index=1))
    # The machine's own root and each cell's have an equal part of the bus numbers: 64 for two cells.
    numbers_each = BUS_NUMBERS >> len(cells).bit_length()
    roots = tuple(
        Root(
            index=1 + cell.id,
            cell=cell.id,
            bus_number=numbers_each * (1 + cell.id),
            at=PciAddress(bus=ROOT, slot=FIRST_SLOT_ON_ROOT + cell.id, function=0),
        )
        for cell in cells
    )
    ports: list[Port] = []
    for root, cell in zip(roots, cells, strict=True):
        first_index = 1 + len(roots) + len(ports)
        ports += _ports(spec, devices_by_node[cell.host_node], bus=root.index, first_slot=0, first_index=first_index)
    return Hierarchy(roots=roots, ports=tuple(ports))


def parsed(address: str) -> PciAddress:
    """Return the parts of an address like `0000:34:00.0`. Raises DefinitionError if it is none."""
    try:
        domain, bus, rest = address.split(":")
        slot, function = rest.split(".")
        return PciAddress(domain=int(domain, 16), bus=int(bus, 16), slot=int(slot, 16), function=int(function, 16))
    except ValueError as error:
        message = f"{address!r} is no PCI address; write it as 0000:34:00.0"
        raise DefinitionError(message, address=address) from error


def _ports(
    spec: DomainSpec, devices: Sequence[str], *, bus: int, first_slot: int, first_index: int
) -> tuple[Port, ...]:
    if len(devices) > MAX_PORTS_PER_ROOT:
        raise DefinitionError(
            f"{spec.name}: {len(devices)} devices on one PCIe root; at most {MAX_PORTS_PER_ROOT} fit",
            domain=spec.name,
            devices=len(devices),
        )
    return tuple(
        Port(
            index=first_index + place,
            at=PciAddress(
                bus=bus,
                slot=first_slot + place // FUNCTIONS_PER_SLOT,
                function=place % FUNCTIONS_PER_SLOT,
            ),
            is_first=place % FUNCTIONS_PER_SLOT == 0,
            device=parsed(device),
        )
        for place, device in enumerate(devices)
    )


def _devices_by_node(spec: DomainSpec, profile: HostProfile, cells: tuple[Cell, ...]) -> dict[int, list[str]]:
    """Return the devices on each of the VM's NUMA nodes, in the guest's order."""
    left = list(spec.devices)
    devices_by_node: dict[int, list[str]] = {cell.host_node: [] for cell in cells}
    for device in _in_order(profile):
        if device.address in left:
            left.remove(device.address)
            if device.numa_node not in devices_by_node:
                where = f"on NUMA node {device.numa_node}, where partition {spec.partition.id} has no memory"
                raise DefinitionError(f"{spec.name}: {device.address} is {where}", domain=spec.name)
            devices_by_node[device.numa_node].append(device.address)
    if left:
        message = f"{spec.name}: {', '.join(left)}: listed twice, or not a device of profile {profile.name}"
        raise DefinitionError(message, domain=spec.name)
    return devices_by_node


def _in_order(profile: HostProfile) -> Iterator[Gpu | Hca | NvSwitch]:
    """Yield the host's devices: GPUs by index, each HCA after the last of its GPUs, then NVSwitches by index."""
    hcas_by_gpu: dict[int, list[Hca]] = {}
    for hca in profile.hcas:
        hcas_by_gpu.setdefault(max(hca.gpus, default=-1), []).append(hca)
    for gpu in sorted(profile.gpus, key=lambda gpu: gpu.index):
        yield gpu
        yield from hcas_by_gpu.pop(gpu.index, ())
    # An adapter that is near no GPU.
    for hcas in hcas_by_gpu.values():
        yield from hcas
    yield from sorted(profile.nvswitches, key=lambda switch: switch.index)
