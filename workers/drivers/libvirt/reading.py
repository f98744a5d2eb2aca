"""What libvirt's XML says, as values: domains, node devices, capabilities, volumes. Pure.

Reads only what is used. A document that lacks something gives None or nothing, never an error: what Nightshift did not
make may look like anything.
"""

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID
from xml.etree import ElementTree

from scheduler.core.requests import ReservationId
from workers.drivers.libvirt.addresses import address_of
from workers.drivers.libvirt.definition import METADATA_NS

AGENT_CHANNEL = "org.qemu.guest_agent.0"
_WITH_PCI_DEVICES = (
    "./devices/hostdev[@type='pci']/source/address",
    "./devices/interface[@type='hostdev']/source/address[@type='pci']",
    "./devices/disk[@type='nvme']/source/address",
)
"""Where a domain names PCI devices of the host."""
_MOST_DIGITS = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedDomain:
    """What a domain's own description says."""

    uuid: UUID
    name: str
    reservation: ReservationId | None
    generation: int | None
    partition: str | None
    devices: frozenset[str]
    """PCI addresses on the host of what is passed through."""
    disks: frozenset[str]
    """Files and devices that its disks are on, with all that those stand on; what it only reads is not among them."""
    files: frozenset[str]
    """The same, with what it only reads."""
    volumes: frozenset[tuple[str, str]]
    """The same as `files`, where the domain names a pool and a volume in it."""
    is_agent_connected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedDevice:
    """A PCI device as the host's node devices show it."""

    address: str
    driver: str
    """The kernel driver that it is bound to; empty for none."""
    pci_id: str
    """`10de:1db8`: vendor and product."""
    numa_node: int | None
    group: frozenset[str]
    """Addresses of its IOMMU group, itself included; nothing without an IOMMU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedHost:
    """What matters of a host's capabilities."""

    has_iommu: bool
    cells: tuple[int, ...]
    pages_by_cell: tuple[tuple[int, int, int], ...]
    """(cell, size in KiB, how many are reserved)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedVolume:
    path: str
    format: str
    backing: str


def read_domain(xml: str) -> DescribedDomain:
    """Read a domain."""
    root = ElementTree.fromstring(xml)
    ours = root.find(f"./metadata/{{{METADATA_NS}}}start")
    generation = None if ours is None else _number(ours.get("generation"))
    reservation = None if ours is None else ours.get("reservation")
    disks = root.findall("./devices/disk")
    sources = [source for disk in disks for source in disk.iterfind(".//source")]
    channel = root.find(f"./devices/channel/target[@name='{AGENT_CHANNEL}']")
    return DescribedDomain(
        uuid=UUID(root.findtext("uuid", "")),
        name=root.findtext("name", ""),
        reservation=ReservationId(reservation) if reservation and generation is not None else None,
        generation=generation if reservation else None,
        partition=None if ours is None else ours.get("partition"),
        devices=frozenset(
            _address(address)
            for path in _WITH_PCI_DEVICES
            for address in root.iterfind(path)
            if address.get("bus") is not None
        ),
        disks=_paths(
            source for disk in disks if disk.find("readonly") is None for source in disk.iterfind(".//source")
        ),
        files=_paths(sources),
        volumes=frozenset(
            (source.get("pool", ""), volume) for source in sources if (volume := source.get("volume")) is not None
        ),
        is_agent_connected=channel is not None and channel.get("state") == "connected",
    )


def read_device(xml: str) -> DescribedDevice | None:
    """Read a node device; None for one that is not on the PCI bus."""
    root = ElementTree.fromstring(xml)
    capability = root.find("./capability[@type='pci']")
    if capability is None:
        return None
    numa = capability.find("numa")
    vendor, product = capability.find("vendor"), capability.find("product")
    return DescribedDevice(
        address=address_of(*(int(capability.findtext(part, "0"), 0) for part in ("domain", "bus", "slot", "function"))),
        driver=root.findtext("./driver/name", ""),
        pci_id=f"{_hex(vendor)}:{_hex(product)}",
        numa_node=None if numa is None else _number(numa.get("node")),
        group=frozenset(_address(address) for address in capability.iterfind("./iommuGroup/address")),
    )


def read_capabilities(xml: str) -> DescribedHost:
    """Read a host's capabilities."""
    root = ElementTree.fromstring(xml)
    iommu = root.find("./host/iommu")
    cells = root.findall("./host/topology/cells/cell")
    return DescribedHost(
        has_iommu=iommu is not None and iommu.get("support") == "yes",
        cells=tuple(int(cell.get("id", "0")) for cell in cells),
        pages_by_cell=tuple(
            (int(cell.get("id", "0")), int(pages.get("size", "0")), int(pages.text or "0"))
            for cell in cells
            for pages in cell.iterfind("pages")
            if pages.get("unit", "KiB") == "KiB"
        ),
    )


def read_volume(xml: str) -> DescribedVolume:
    """Read a storage volume."""
    root = ElementTree.fromstring(xml)
    form = root.find("./target/format")
    return DescribedVolume(
        path=root.findtext("./target/path", ""),
        format="" if form is None else form.get("type", ""),
        backing=root.findtext("./backingStore/path", ""),
    )


def _paths(sources: Iterable[ElementTree.Element]) -> frozenset[str]:
    """Return files and devices, each spelled in one way."""
    return frozenset(
        posixpath.normpath(path) for source in sources if (path := source.get("file") or source.get("dev"))
    )


def _address(element: ElementTree.Element) -> str:
    return address_of(*(int(element.get(part, "0"), 0) for part in ("domain", "bus", "slot", "function")))


def _hex(element: ElementTree.Element | None) -> str:
    return "" if element is None else element.get("id", "").removeprefix("0x")


def _number(text: str | None) -> int | None:
    is_number = text is not None and text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    return int(text) if text is not None and is_number else None
