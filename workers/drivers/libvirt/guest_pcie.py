"""Where a guest finds its devices: PCIe ports in the order of the host, on a root for each of the host's roots.

Holds the one place that decides this. Pure. Must not hold XML (`definition`).

Every device is alone behind a root port of its own, as the driver of a GPU expects it. A guest whose GPUs hang under
one PCIe root of the host has its ports on the machine's own root. A guest with several has one for each (QEMU's
`pxb-pcie`), with the ports of that root's GPUs and adapters on it, on the NUMA node where it is on the host: so it can
tell which GPU is near which adapter and which memory. NVSwitches are near all GPUs of their board and come after the
last of them, so that all blocks of a size look alike. All addresses are given, none is left to libvirt: a guest finds
its devices in the host's order at every start, on whatever block.
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
"""7 slots of 8. Each port takes a bus number too, of which a root may have fewer to give."""
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
    """A PCIe root of the guest's: its devices' bus numbers begin after `bus_number`."""

    index: int
    cell: int | None
    """The NUMA cell that it is near; None in a guest that has none."""
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
    groups = _devices_by_root(spec, profile, cells)
    if len(groups) == 1:
        (devices,) = groups.values()
        ports = _ports(spec, devices, bus=ROOT, first_slot=FIRST_SLOT_ON_ROOT, first_index=1, most=MAX_PORTS_PER_ROOT)
        return Hierarchy(roots=(), ports=ports)
    # The machine's own root and each of these have an equal part of the bus numbers: 64 for two, 32 for four.
    numbers_each = BUS_NUMBERS >> len(groups).bit_length()
    cell_of_node = {cell.host_node: cell.id for cell in cells}
    roots = tuple(
        Root(
            index=1 + place,
            cell=None if len(cells) == 1 else cell_of_node[node],
            bus_number=numbers_each * (1 + place),
            at=PciAddress(bus=ROOT, slot=FIRST_SLOT_ON_ROOT + place, function=0),
        )
        for place, (node, _) in enumerate(groups)
    )
    ports_so_far: list[Port] = []
    for root, devices in zip(roots, groups.values(), strict=True):
        first_index = 1 + len(roots) + len(ports_so_far)
        most = min(MAX_PORTS_PER_ROOT, numbers_each - 1)
        ports_so_far += _ports(spec, devices, bus=root.index, first_slot=0, first_index=first_index, most=most)
    return Hierarchy(roots=roots, ports=tuple(ports_so_far))


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
    spec: DomainSpec, devices: Sequence[str], *, bus: int, first_slot: int, first_index: int, most: int
) -> tuple[Port, ...]:
    if len(devices) > most:
        raise DefinitionError(
            f"{spec.name}: {len(devices)} devices on one PCIe root; at most {most} fit",
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


def _devices_by_root(
    spec: DomainSpec, profile: HostProfile, cells: tuple[Cell, ...]
) -> dict[tuple[int, str], list[str]]:
    """Return the VM's devices by NUMA node and PCIe root of the host, all in the guest's order."""
    left = list(spec.devices)
    nodes = {cell.host_node for cell in cells}
    groups: dict[tuple[int, str], list[str]] = {}
    for device in _in_order(profile):
        if device.address not in left:
            continue
        left.remove(device.address)
        if device.numa_node not in nodes:
            where = f"on NUMA node {device.numa_node}, where partition {spec.partition.id} has no memory"
            raise DefinitionError(f"{spec.name}: {device.address} is {where}", domain=spec.name)
        key = (device.numa_node, device.root)
        if isinstance(device, NvSwitch):
            # After the last of its board's GPUs, whichever root the switches are on.
            key = next((found for found in reversed(groups) if found[0] == device.numa_node), key)
        groups.setdefault(key, []).append(device.address)
    if left:
        message = f"{spec.name}: {', '.join(left)}: listed twice, or not a device of profile {profile.name}"
        raise DefinitionError(message, domain=spec.name)
    # By node, so that a guest's buses are numbered cell by cell; roots of a node in the order of their first device.
    order = {cell.host_node: cell.id for cell in cells}
    return dict(sorted(groups.items(), key=lambda group: order[group[0][0]])) or {(cells[0].host_node, ""): []}


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
