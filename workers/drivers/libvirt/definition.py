"""The libvirt domain of one start of a VM, as XML.

Pure: the same values give the same text, to the byte. What a VM is given follows its partition's share
(`guest_cells`, `guest_pcie`); how it is made follows the profile's `vm`; what each part is for is in `docs/tuning.md`.
Must not hold anything that reads a host or speaks to libvirt.

Elements are those of libvirt's own schema, which the tests hold every definition to. Built as a tree, never pasted
from texts: a name with `<` or `&` stays a name.
"""

import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from scheduler.core.topology import Accelerator, Firmware, HostProfile
from workers.drivers.libvirt.guest_cells import Cell, CpuTopology, DefinitionError, cpu_topology, guest_cells
from workers.drivers.libvirt.guest_pcie import ROOT, Hierarchy, PciAddress, guest_hierarchy
from workers.ports import DomainSpec

METADATA_NS = "urn:nightshift:domain:1"
QEMU_NS = "http://libvirt.org/schemas/domain/qemu/1.0"

AGENT_CHANNEL = "org.qemu.guest_agent.0"
IO_THREAD = 1
MAX_DISK_QUEUES = 16
MAX_NETWORK_QUEUES = 8
"""More queues than this take interrupts and memory and serve no more than a virtual disk or network can."""
MAX_SERIAL = 20
"""Characters of a virtio disk's serial number that the guest gets to see."""
MMIO_MIB_PER_GPU = 64 * 1024
"""Twice a GPU's memory of 32 GiB, which it shows whole in the address space; the rest is for what else is there."""
LOCAL_DISTANCE, REMOTE_DISTANCE = 10, 21
"""How far memory is, as ACPI says it: on the same node, on another. What two-socket hosts show."""

_NOT_IN_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot carry, however they are written."""


def domain_xml(
    spec: DomainSpec, profile: HostProfile, *, disk_path: str, seed_path: str | None, console_log: str
) -> str:
    """Return the definition of a domain; all paths are the host's. Raises DefinitionError for values that make none."""
    cells = guest_cells(spec, profile)
    topology = cpu_topology(cells, profile)
    hierarchy = guest_hierarchy(spec, profile, cells)
    # Prefixes of a document are kept in one table per process; saying them again changes nothing.
    ElementTree.register_namespace("nightshift", METADATA_NS)
    ElementTree.register_namespace("qemu", QEMU_NS)

    domain = Element("domain", {"type": profile.vm.accelerator.value})
    _identity(domain, spec, tunings(spec, profile, cells, topology, hierarchy))
    _memory(domain, profile, cells)
    _cpu_placement(domain, spec, cells)
    _firmware(domain, profile)
    _cpu(domain, profile, cells, topology)
    _lifecycle(domain)
    devices = _add(domain, "devices")
    _controllers(devices, hierarchy)
    _disks(devices, spec, vcpus=_vcpus(cells), disk_path=disk_path, seed_path=seed_path)
    _network(devices, spec, profile, vcpus=_vcpus(cells))
    _console_and_agent(devices, console_log)
    _passed_through(devices, hierarchy)
    _mmio_window(domain, profile, gpus=spec.partition.size)

    ElementTree.indent(domain)
    text = ElementTree.tostring(domain, encoding="unicode") + "\n"
    unfit = _NOT_IN_XML.search(text)
    if unfit:
        raise DefinitionError(
            f"{spec.name!r}: a name or a path has the character {unfit.group()!r}, which XML cannot carry",
            domain=spec.name,
        )
    return text


def tunings(
    spec: DomainSpec, profile: HostProfile, cells: tuple[Cell, ...], topology: CpuTopology, hierarchy: Hierarchy
) -> tuple[str, ...]:
    """Return what is done for a VM, one word each; `docs/tuning.md` explains them, and benchmarks compare by them."""
    vcpus, is_spread = _vcpus(cells), len(cells) > 1
    said = {
        "vcpu-pinning": True,
        "smt-siblings": topology.threads > 1,
        "emulator-pinning": True,
        "io-thread": True,
        "numa-strict": True,
        "guest-numa": is_spread,
        f"hugepages-{profile.vm.hugepage_kib}": profile.vm.hugepage_kib > 0,
        "locked-memory": _has_kvm(profile),
        "host-cpu": _has_kvm(profile),
        "pcie-ports": True,
        "pcie-roots": bool(hierarchy.roots),
        "pcie-numa": is_spread,
        f"mmio64-{_mmio_mib(spec.partition.size)}": profile.vm.firmware is Firmware.UEFI,
        "direct-disk": True,
        f"disk-queues-{min(vcpus, MAX_DISK_QUEUES)}": True,
        f"network-queues-{min(vcpus, MAX_NETWORK_QUEUES)}": bool(profile.vm.network),
    }
    return tuple(word for word, is_done in said.items() if is_done)


def _add(parent: Element, tag: str, text: object = None, **attributes: object) -> Element:
    child = ElementTree.SubElement(parent, tag, {name: str(value) for name, value in attributes.items()})
    if text is not None:
        child.text = str(text)
    return child


def _has_kvm(profile: HostProfile) -> bool:
    return profile.vm.accelerator is Accelerator.KVM


def _vcpus(cells: tuple[Cell, ...]) -> int:
    return sum(len(cell.threads) for cell in cells)


def _range(first: int, count: int) -> str:
    return str(first) if count == 1 else f"{first}-{first + count - 1}"


def _identity(domain: Element, spec: DomainSpec, tuning: tuple[str, ...]) -> None:
    _add(domain, "name", spec.name)
    _add(domain, "uuid", spec.uuid)
    _add(domain, "title", f"reservation {spec.reservation}, start {spec.generation}")
    _add(
        _add(domain, "metadata"),
        f"{{{METADATA_NS}}}start",
        reservation=spec.reservation,
        generation=spec.generation,
        partition=spec.partition.id,
        tuning=" ".join(tuning),
    )


def _memory(domain: Element, profile: HostProfile, cells: tuple[Cell, ...]) -> None:
    _add(domain, "memory", sum(cell.memory_gib for cell in cells), unit="GiB")
    backing = _add(domain, "memoryBacking")
    if profile.vm.hugepage_kib:
        page = _add(_add(backing, "hugepages"), "page", size=profile.vm.hugepage_kib, unit="KiB")
        if len(cells) > 1:
            page.set("nodeset", _range(0, len(cells)))
    _add(backing, "nosharepages")
    if _has_kvm(profile):
        _add(backing, "locked")
    numa = _add(domain, "numatune")
    _add(numa, "memory", mode="strict", nodeset=",".join(str(cell.host_node) for cell in cells))
    if len(cells) > 1:
        for cell in cells:
            _add(numa, "memnode", cellid=cell.id, mode="strict", nodeset=cell.host_node)


def _cpu_placement(domain: Element, spec: DomainSpec, cells: tuple[Cell, ...]) -> None:
    _add(domain, "vcpu", _vcpus(cells), placement="static")
    _add(domain, "iothreads", IO_THREAD)
    tune = _add(domain, "cputune")
    for cell in cells:
        for vcpu, thread in enumerate(cell.threads, start=cell.first_vcpu):
            _add(tune, "vcpupin", vcpu=vcpu, cpuset=thread)
    emulator = ",".join(str(thread) for thread in spec.partition.share.emulator_threads)
    _add(tune, "emulatorpin", cpuset=emulator)
    _add(tune, "iothreadpin", iothread=IO_THREAD, cpuset=emulator)


def _firmware(domain: Element, profile: HostProfile) -> None:
    os = _add(domain, "os")
    _add(os, "type", "hvm", arch="x86_64", machine="q35")
    if profile.vm.firmware is Firmware.UEFI:
        os.set("firmware", "efi")
        # Drivers that are built on the guest are not signed.
        _add(_add(os, "firmware"), "feature", enabled="no", name="secure-boot")
    _add(os, "boot", dev="hd")
    features = _add(domain, "features")
    # The ACPI button is how a guest is asked to shut down.
    _add(features, "acpi")
    _add(features, "apic")


def _cpu(domain: Element, profile: HostProfile, cells: tuple[Cell, ...], topology: CpuTopology) -> None:
    if _has_kvm(profile):
        cpu = _add(domain, "cpu", mode="host-passthrough", check="none", migratable="off")
    else:
        cpu = _add(domain, "cpu", mode="maximum", check="none")
    _add(cpu, "topology", sockets=topology.sockets, dies=1, cores=topology.cores, threads=topology.threads)
    if _has_kvm(profile):
        # A TiB of memory and as much for the GPUs' need more than the 40 bits that a guest has otherwise.
        _add(cpu, "maxphysaddr", mode="passthrough")
    if len(cells) > 1:
        numa = _add(cpu, "numa")
        for cell in cells:
            vcpus = _range(cell.first_vcpu, len(cell.threads))
            element = _add(numa, "cell", id=cell.id, cpus=vcpus, memory=cell.memory_gib, unit="GiB")
            distances = _add(element, "distances")
            for other in cells:
                value = LOCAL_DISTANCE if other.id == cell.id else REMOTE_DISTANCE
                _add(distances, "sibling", id=other.id, value=value)
    clock = _add(domain, "clock", offset="utc")
    _add(clock, "timer", name="rtc", tickpolicy="catchup")
    _add(clock, "timer", name="pit", tickpolicy="delay")
    _add(clock, "timer", name="hpet", present="no")
    if _has_kvm(profile):
        _add(clock, "timer", name="kvmclock", present="yes")


def _lifecycle(domain: Element) -> None:
    _add(domain, "on_poweroff", "destroy")
    _add(domain, "on_reboot", "restart")
    _add(domain, "on_crash", "destroy")
    # A guest with passed-through devices does not come back from sleep.
    power = _add(domain, "pm")
    _add(power, "suspend-to-mem", enabled="no")
    _add(power, "suspend-to-disk", enabled="no")


def _controllers(devices: Element, hierarchy: Hierarchy) -> None:
    _add(devices, "controller", type="usb", model="none")
    _add(devices, "controller", type="virtio-serial", index=0)
    _add(devices, "controller", type="pci", index=ROOT, model="pcie-root")
    for root in hierarchy.roots:
        controller = _add(devices, "controller", type="pci", index=root.index, model="pcie-expander-bus")
        _add(controller, "model", name="pxb-pcie")
        target = _add(controller, "target", busNr=root.bus_number)
        if root.cell is not None:
            _add(target, "node", root.cell)
        _address(controller, root.at)
    for port in hierarchy.ports:
        controller = _add(devices, "controller", type="pci", index=port.index, model="pcie-root-port")
        _add(controller, "model", name="pcie-root-port")
        # Nothing comes or goes while a VM runs, so no port keeps address space for it and no guest can eject a device.
        number = port.at.slot << 3 | port.at.function
        _add(controller, "target", chassis=port.index, port=f"{number:#04x}", hotplug="off")
        _address(controller, port.at, is_multifunction=port.is_first)


def _disks(devices: Element, spec: DomainSpec, *, vcpus: int, disk_path: str, seed_path: str | None) -> None:
    disk = _add(devices, "disk", type="file", device="disk")
    _add(
        disk,
        "driver",
        name="qemu",
        type="qcow2",
        cache="none",
        io="native",
        discard="unmap",
        queues=min(vcpus, MAX_DISK_QUEUES),
        iothread=IO_THREAD,
    )
    _add(disk, "source", file=disk_path)
    _add(disk, "target", dev="vda", bus="virtio")
    _add(disk, "serial", spec.disk[:MAX_SERIAL])
    if seed_path is not None:
        # On virtio too, not on an emulated CD drive: kernels made for clouds have no driver for that.
        seed = _add(devices, "disk", type="file", device="disk")
        _add(seed, "driver", name="qemu", type="raw")
        _add(seed, "source", file=seed_path)
        _add(seed, "target", dev="vdb", bus="virtio")
        _add(seed, "readonly")


def _network(devices: Element, spec: DomainSpec, profile: HostProfile, *, vcpus: int) -> None:
    if not profile.vm.network:
        return
    interface = _add(devices, "interface", type="network")
    _add(interface, "mac", address=spec.mac)
    _add(interface, "source", network=profile.vm.network)
    _add(interface, "model", type="virtio")
    driver = _add(interface, "driver", queues=min(vcpus, MAX_NETWORK_QUEUES))
    if _has_kvm(profile):
        driver.set("name", "vhost")
    if profile.vm.network_filter:
        # The filter learns a guest's address from the network's own DHCP server, not from what the guest claims.
        rule = _add(interface, "filterref", filter=profile.vm.network_filter)
        _add(rule, "parameter", name="CTRL_IP_LEARNING", value="dhcp")


def _console_and_agent(devices: Element, console_log: str) -> None:
    serial = _add(devices, "serial", type="pty")
    _add(serial, "log", file=console_log, append="on")
    _add(serial, "target", type="isa-serial", port=0)
    console = _add(devices, "console", type="pty")
    _add(console, "log", file=console_log, append="on")
    _add(console, "target", type="serial", port=0)
    channel = _add(devices, "channel", type="unix")
    _add(channel, "target", type="virtio", name=AGENT_CHANNEL)
    _add(_add(devices, "video"), "model", type="none")
    # All of the memory is pinned for the devices: a balloon could give none of it back.
    _add(devices, "memballoon", model="none")
    rng = _add(devices, "rng", model="virtio")
    _add(rng, "backend", "/dev/urandom", model="random")


def _passed_through(devices: Element, hierarchy: Hierarchy) -> None:
    for port in hierarchy.ports:
        # Not managed: devices are bound to vfio-pci, reset and checked before, and stay bound.
        hostdev = _add(devices, "hostdev", mode="subsystem", type="pci", managed="no")
        _add(hostdev, "driver", name="vfio")
        device = port.device
        _add(
            _add(hostdev, "source"),
            "address",
            domain=f"{device.domain:#06x}",
            bus=f"{device.bus:#04x}",
            slot=f"{device.slot:#04x}",
            function=f"{device.function:#x}",
        )
        # No guest boots from a GPU; a device's own code is not run.
        _add(hostdev, "rom", enabled="no")
        _address(hostdev, PciAddress(bus=port.index, slot=0, function=0))


def _address(parent: Element, at: PciAddress, *, is_multifunction: bool = False) -> None:
    address = _add(
        parent,
        "address",
        type="pci",
        domain=f"{at.domain:#06x}",
        bus=f"{at.bus:#04x}",
        slot=f"{at.slot:#04x}",
        function=f"{at.function:#x}",
    )
    if is_multifunction:
        address.set("multifunction", "on")


def _mmio_mib(gpus: int) -> int:
    """Return the next power of two of what the GPUs need of the 64-bit address space."""
    return 1 << (MMIO_MIB_PER_GPU * gpus - 1).bit_length()


def _mmio_window(domain: Element, profile: HostProfile, *, gpus: int) -> None:
    """Tell the UEFI firmware how much address space to keep for the GPUs' memory; older ones guess too little."""
    if profile.vm.firmware is Firmware.UEFI:
        # libvirt's own element for this, sysinfo of type fwcfg, refuses names of the firmware's.
        command = _add(domain, f"{{{QEMU_NS}}}commandline")
        for value in ("-fw_cfg", f"name=opt/ovmf/X-PciMmio64Mb,string={_mmio_mib(gpus)}"):
            _add(command, f"{{{QEMU_NS}}}arg", value=value)
