"""A real libvirt for the contract suite: in real time, emptied before each test.

Two of them: a private one on this machine, whose VMs get no devices, and the one inside of the virtual DGX-2.
"""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4
from xml.etree import ElementTree

import libvirt

from scheduler.core.requests import HostId
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile, Partition
from tests.contract.hypervisor_contract import HostBench
from tests.lab.guest.build import FLAG_DEAF, FLAGS_OFFSET
from tests.lab.machine import HUGEPAGES_GIB_PER_NODE, NUMA_NODES, VirtualDgx2
from workers.drivers.libvirt.host import LibvirtHost
from workers.ports import DomainSpec

HOST = HostId("lab-a")
IMAGE, SILENT_IMAGE, DEAF_IMAGE = "guest", "silent", "deaf"
POLL_S = 0.05
URI = "NIGHTSHIFT_TEST_LIBVIRT"
"""Names the libvirt that may be emptied; set by who started one for this."""


class LibvirtBench(HostBench):
    """One libvirt. What is on it from an earlier test is removed first."""

    a_while_s = 1
    blink_s = 5
    sees_resets = False
    disk_gib = 1
    beyond_the_pool_gib = 1 << 20

    def __init__(self, profile: HostProfile, uri: str, guest_image: Path) -> None:
        self.profile = profile
        self.image, self.silent_image, self.deaf_image = IMAGE, SILENT_IMAGE, DEAF_IMAGE
        self.changes = 0
        self.host = LibvirtHost(HOST, profile, uri, on_change=self._changed)
        self.drivers = self.host.drivers()
        # A hand beside the driver, with a connection of its own.
        self.hand = libvirt.open(uri)
        _empty(self.hand, profile.vm.pool)
        content = guest_image.read_bytes()
        deaf = bytearray(content)
        deaf[FLAGS_OFFSET] |= FLAG_DEAF
        for name, image in ((IMAGE, content), (DEAF_IMAGE, bytes(deaf)), (SILENT_IMAGE, bytes(len(content)))):
            _put(self.hand, profile.vm.image_pool, name, image)

    def _changed(self) -> None:
        self.changes += 1

    def close(self) -> None:
        _empty(self.hand, self.profile.vm.pool)
        self.host.close()
        self.hand.close()

    def now(self) -> Instant:
        return int(time.time())

    def pass_time(self, seconds: int) -> None:
        time.sleep(seconds)

    def run(self, call: Callable[[], None]) -> int:
        began_s = time.monotonic()
        call()
        return int(time.monotonic() - began_s)

    def wait_until(self, is_so: Callable[[], bool], within_s: int) -> int:
        began_s = time.monotonic()
        while not is_so():
            if time.monotonic() - began_s > within_s:
                raise AssertionError(f"not so within {within_s} s")
            time.sleep(POLL_S)
        return int(time.monotonic() - began_s)

    def let_end(self, within_s: int) -> None:
        self.wait_until(lambda: not any(domain.is_busy for domain in self.drivers.hypervisor.look().domains), within_s)

    def make_foreign_domain(
        self, name: str, gpus: tuple[int, ...], memory_gib_by_node: tuple[tuple[int, int], ...]
    ) -> UUID:
        addresses = [self.profile.gpu(gpu).address for gpu in gpus]
        for address in addresses:
            node = self.hand.nodeDeviceLookupByName("pci_" + address.replace(":", "_").replace(".", "_"))
            node.detachFlags("vfio", 0)
        domain = self.hand.createXML(foreign_xml(name, self.profile.vm.accelerator.value, addresses), 0)
        return UUID(domain.UUIDString())

    def take_memory(self, node: int) -> None:
        raise AssertionError("this host has no memory that can be taken away")


class PrivateBench(LibvirtBench):
    """The libvirt of `tools/private_libvirtd.sh`: everything but devices, which this machine cannot pass through."""

    def __init__(self, profile: HostProfile, uri: str, guest_image: Path, directory: Path) -> None:
        conn = libvirt.open(uri)
        for name in (profile.vm.pool, profile.vm.image_pool):
            make_pool(conn, name, directory / name)
        conn.close()
        super().__init__(profile, uri, guest_image)

    def spec(
        self,
        partition: Partition,
        *,
        reservation: str = "r-1",
        generation: int = 1,
        disk: str = "",
        image: str = "",
    ) -> DomainSpec:
        spec = super().spec(partition, reservation=reservation, generation=generation, disk=disk, image=image)
        return replace(spec, devices=())


class LabBench(LibvirtBench):
    """The libvirt of the virtual DGX-2, with devices."""

    def __init__(self, profile: HostProfile, machine: VirtualDgx2, guest_image: Path) -> None:
        self.machine = machine
        self._give_memory_back()
        super().__init__(profile, machine.uri, guest_image)
        self.drivers.pci.bind(tuple(device for gpu in profile.partitions[-1:] for device in profile.devices(gpu)))

    def take_memory(self, node: int) -> None:
        self.machine.run(f"echo 0 > {_HUGEPAGES.format(node=node)}")

    def close(self) -> None:
        super().close()
        self._give_memory_back()

    def _give_memory_back(self) -> None:
        for node in range(NUMA_NODES):
            pages = HUGEPAGES_GIB_PER_NODE * 512
            self.machine.run(
                f"[ $(cat {_HUGEPAGES.format(node=node)}) = {pages} ] || echo {pages} > {_HUGEPAGES.format(node=node)}"
            )


_HUGEPAGES = "/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages"


def named_uri() -> str | None:
    """Return the libvirt that may be used and emptied; None when nobody started one."""
    return os.environ.get(URI) or None


def make_pool(conn: Any, name: str, folder: Path) -> None:
    """Have a storage pool of this name in a folder; one that is there already is left."""
    with suppress(libvirt.libvirtError):
        conn.storagePoolLookupByName(name)
        return
    folder.mkdir(parents=True, exist_ok=True)
    root = ElementTree.Element("pool", type="dir")
    ElementTree.SubElement(root, "name").text = name
    ElementTree.SubElement(ElementTree.SubElement(root, "target"), "path").text = str(folder)
    conn.storagePoolDefineXML(ElementTree.tostring(root, encoding="unicode"), 0).create(0)


def put_image(conn: Any, pool_name: str, name: str, file: Path) -> None:
    """Upload a guest image, if it is not there."""
    _put(conn, pool_name, name, file.read_bytes())


def _put(conn: Any, pool_name: str, name: str, content: bytes) -> None:
    pool = conn.storagePoolLookupByName(pool_name)
    if f"{name}.raw" in pool.listVolumes():
        return
    root = ElementTree.Element("volume")
    ElementTree.SubElement(root, "name").text = f"{name}.raw"
    ElementTree.SubElement(root, "capacity", unit="bytes").text = str(len(content))
    ElementTree.SubElement(ElementTree.SubElement(root, "target"), "format", type="raw")
    volume = pool.createXML(ElementTree.tostring(root, encoding="unicode"), 0)
    stream = conn.newStream(0)
    volume.upload(stream, 0, len(content), 0)
    for chunk in _chunks(content):
        while chunk:
            chunk = chunk[stream.send(chunk) :]
    stream.finish()


def _chunks(content: bytes, size: int = 1 << 16) -> Iterable[bytes]:
    return (content[begin : begin + size] for begin in range(0, len(content), size))


def _empty(conn: Any, pool_name: str) -> None:
    """Remove every domain, and every disk in the pool."""
    for domain in conn.listAllDomains(0):
        with suppress(libvirt.libvirtError):
            domain.destroy()
        with suppress(libvirt.libvirtError):
            domain.undefine()
    with suppress(libvirt.libvirtError):
        for volume in conn.storagePoolLookupByName(pool_name).listAllVolumes(0):
            volume.delete(0)


def foreign_xml(name: str, kind: str, addresses: Iterable[str]) -> str:
    root = ElementTree.Element("domain", type=kind)
    ElementTree.SubElement(root, "name").text = name
    ElementTree.SubElement(root, "uuid").text = str(uuid4())
    ElementTree.SubElement(root, "memory", unit="MiB").text = "64"
    ElementTree.SubElement(root, "vcpu").text = "1"
    ElementTree.SubElement(ElementTree.SubElement(root, "os"), "type", arch="x86_64", machine="q35").text = "hvm"
    devices = ElementTree.SubElement(root, "devices")
    ElementTree.SubElement(devices, "memballoon", model="none")
    for address in addresses:
        hostdev = ElementTree.SubElement(devices, "hostdev", mode="subsystem", type="pci", managed="no")
        domain, bus, rest = address.split(":")
        slot, function = rest.split(".")
        place = {"domain": domain, "bus": bus, "slot": slot, "function": function}
        source = ElementTree.SubElement(hostdev, "source")
        ElementTree.SubElement(source, "address", {key: f"0x{value}" for key, value in place.items()})
    return ElementTree.tostring(root, encoding="unicode")
