"""Domain definitions: one golden file for each partition of a DGX-2, and what must hold of all of them.

After a wanted change write the golden files anew, then read the difference:

    NIGHTSHIFT_REWRITE_GOLDEN=1 pytest -n 0 tests/workers/drivers/libvirt/test_definition.py
"""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from uuid import UUID
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from scheduler.core.requests import DiskId, ReservationId
from scheduler.core.topology import Accelerator, Firmware, HostProfile, Partition, PartitionId
from scheduler.profiles.loading import load_profile
from tests.running import required_program
from workers.drivers.libvirt.definition import METADATA_NS, QEMU_NS, domain_xml
from workers.drivers.libvirt.guest_cells import DefinitionError
from workers.drivers.libvirt.reading import read_domain
from workers.ports import DomainSpec

GOLDEN = Path(__file__).parent / "golden"
SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
DGX2 = load_profile("dgx-2")
LAB = load_profile("dgx-2-lab")
SIXTEEN = PartitionId("16g0-15")
EIGHT = PartitionId("8g8-15")
# All of a DGX-2's; of the lab's, which differ in no other way, one of each size.
GOLDEN_PARTITIONS = [(DGX2, partition.id) for partition in DGX2.partitions] + [
    (LAB, PartitionId(name)) for name in ("1g0", "2g6-7", "4g8-11", "8g8-15", "16g0-15")
]
SOCKET_BY_THREAD = {thread.id: thread.socket for thread in DGX2.threads}
NODE_BY_ADDRESS = {
    **{gpu.address: gpu.numa_node for gpu in DGX2.gpus},
    **{hca.address: hca.numa_node for hca in DGX2.hcas},
    **{switch.address: switch.numa_node for switch in DGX2.nvswitches},
}
SIBLING_BY_THREAD = {thread.id: thread.sibling for thread in DGX2.threads}
each_partition = pytest.mark.parametrize("partition", DGX2.partitions, ids=lambda partition: partition.id)
each_golden = pytest.mark.parametrize(
    ("profile", "partition_id"), GOLDEN_PARTITIONS, ids=[f"{profile.name}-{id_}" for profile, id_ in GOLDEN_PARTITIONS]
)


def spec_of(
    profile: HostProfile, partition_id: PartitionId, *, memory_gib: int | None = None, vcpus: int | None = None
) -> DomainSpec:
    partition = profile.partition(partition_id)
    return DomainSpec(
        uuid=UUID(int=0x5EED << 64 | partition.mask),
        name=f"r-17-{partition_id}",
        reservation=ReservationId("r-17"),
        generation=2,
        partition=partition,
        devices=profile.devices(partition),
        disk=DiskId("d-r-17"),
        image="ubuntu-22.04",
        ssh_key=None,
        mac="52:54:00:12:34:56",
        host_name="r-17",
        memory_gib=memory_gib,
        vcpus=vcpus,
    )


def text_of(spec: DomainSpec, profile: HostProfile) -> str:
    return domain_xml(
        spec,
        profile,
        disk_path=f"/var/lib/nightshift/disks/{spec.disk}.qcow2",
        seed_path=f"/var/lib/nightshift/disks/{spec.name}-seed.iso",
        console_log=f"/var/log/libvirt/qemu/{spec.name}.console.log",
    )


def domain(
    partition_id: PartitionId,
    profile: HostProfile = DGX2,
    *,
    memory_gib: int | None = None,
    vcpus: int | None = None,
) -> Element:
    spec = spec_of(profile, partition_id, memory_gib=memory_gib, vcpus=vcpus)
    return ElementTree.fromstring(text_of(spec, profile))


def the(root: Element, path: str) -> Element:
    found = root.findall(path)
    assert len(found) == 1, f"{path}: {len(found)} of them"
    return found[0]


def pins(root: Element) -> list[int]:
    """The host's thread of each vCPU, in order; every vCPU has one."""
    by_vcpu = {int(pin.get("vcpu", "")): int(pin.get("cpuset", "")) for pin in root.iterfind("./cputune/vcpupin")}
    assert list(by_vcpu) == list(range(int(root.findtext("./vcpu", ""))))
    return list(by_vcpu.values())


def threads_in(root: Element, path: str) -> set[int]:
    return {int(thread) for thread in the(root, path).get("cpuset", "").split(",")}


def source_of(hostdev: Element) -> str:
    address = the(hostdev, "./source/address")
    domain_, bus, slot, function = (int(address.get(part, ""), 16) for part in ("domain", "bus", "slot", "function"))
    return f"{domain_:04x}:{bus:02x}:{slot:02x}.{function:x}"


def guest_order(root: Element) -> list[str]:
    """The host's addresses of what is passed through, in the order in which the guest's bus numbers are given.

    A guest numbers buses root by root, and on each root port by port. Asserts that all is where it says it is.
    """
    controllers = {int(c.get("index", "")): c for c in root.iterfind("./devices/controller[@type='pci']")}
    assert list(controllers) == sorted(controllers)
    placed = []
    for hostdev in root.iterfind("./devices/hostdev"):
        at = the(hostdev, "./address")
        assert (at.get("slot"), at.get("function")) == ("0x00", "0x0")
        port = controllers[int(at.get("bus", ""), 16)]
        assert port.get("model") == "pcie-root-port"
        where = the(port, "./address")
        parent = int(where.get("bus", ""), 16)
        pxb = controllers[parent].find("./target[@busNr]")
        first_bus = 0 if pxb is None else int(pxb.get("busNr", ""))
        key = (first_bus, int(where.get("slot", ""), 16), int(where.get("function", ""), 16))
        placed.append((key, source_of(hostdev)))
    assert len({key for key, _ in placed}) == len(placed), "two devices at one place"
    return [source for _, source in sorted(placed)]


# --- the golden files


@each_golden
def test_a_definition_is_its_golden_file(profile: HostProfile, partition_id: PartitionId) -> None:
    golden = GOLDEN / profile.name / f"{partition_id}.xml"
    text = text_of(spec_of(profile, partition_id), profile)
    if os.environ.get("NIGHTSHIFT_REWRITE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8"), "see the top of this file"


def test_there_are_no_other_golden_files() -> None:
    wanted = {GOLDEN / profile.name / f"{id_}.xml" for profile, id_ in GOLDEN_PARTITIONS}
    assert {path for path in GOLDEN.rglob("*") if path.is_file()} == wanted


def test_every_golden_file_is_valid_by_libvirts_own_schema() -> None:
    if not SCHEMA.is_file():
        missing = f"{SCHEMA} is not installed (apt install libvirt0)"
        if "libvirt" in os.environ.get("NIGHTSHIFT_TEST_REQUIRE", ""):
            pytest.fail(missing)
        pytest.skip(missing)
    schema = etree.RelaxNG(etree.parse(str(SCHEMA)))
    problems = [
        f"{path.relative_to(GOLDEN)}: {schema.error_log}"
        for path in sorted(GOLDEN.rglob("*.xml"))
        if not schema.validate(etree.parse(str(path)))
    ]
    assert problems == []


def test_libvirt_takes_every_golden_file() -> None:
    virsh = required_program("virsh", "libvirt", "libvirt-clients")
    files = sorted(GOLDEN.rglob("*.xml"))
    # The names of a DGX-2's domains and the lab's are the same, so each kind of host has a libvirt of its own.
    for folder in sorted({path.parent for path in files}):
        defines = "; ".join(f"define --validate {path}" for path in files if path.parent == folder)
        command = [virsh, "--quiet", "--connect", "test:///default", defines]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (run.returncode, run.stderr) == (0, "")


@each_golden
def test_what_the_driver_reads_of_a_domain_is_what_was_defined(profile: HostProfile, partition_id: PartitionId) -> None:
    spec = spec_of(profile, partition_id)
    seen = read_domain(text_of(spec, profile))
    assert (seen.uuid, seen.name) == (spec.uuid, spec.name)
    assert (seen.reservation, seen.generation, seen.partition) == (spec.reservation, spec.generation, partition_id)
    assert seen.devices == frozenset(spec.devices)
    assert seen.disks == {"/var/lib/nightshift/disks/d-r-17.qcow2"}


def test_the_same_values_give_the_same_text() -> None:
    assert text_of(spec_of(DGX2, SIXTEEN), DGX2) == text_of(spec_of(load_profile("dgx-2"), SIXTEEN), DGX2)


# --- devices


@each_partition
def test_a_vm_has_exactly_its_partitions_devices(partition: Partition) -> None:
    root = domain(partition.id)
    hostdevs = root.findall("./devices/hostdev")
    assert sorted(source_of(hostdev) for hostdev in hostdevs) == sorted(DGX2.devices(partition))
    for hostdev in hostdevs:
        assert (hostdev.get("mode"), hostdev.get("type"), hostdev.get("managed")) == ("subsystem", "pci", "no")
        assert the(hostdev, "./driver").get("name") == "vfio"
        assert the(hostdev, "./rom").get("enabled") == "no"


@each_partition
def test_the_guest_finds_gpus_adapters_and_switches_in_the_hosts_order(partition: Partition) -> None:
    order = guest_order(domain(partition.id))
    assert [NODE_BY_ADDRESS[address] for address in order] == sorted(NODE_BY_ADDRESS[address] for address in order)
    gpus = [gpu.address for gpu in DGX2.gpus if gpu.index in partition.gpus]
    assert [address for address in order if address in gpus] == gpus
    for hca in DGX2.hcas:
        if hca.address in order:
            # Right after the second of its two GPUs.
            last = order.index(DGX2.gpu(max(hca.gpus)).address)
            assert order[last + 1] == hca.address
    for node in {NODE_BY_ADDRESS[address] for address in order}:
        of_node = [address for address in order if NODE_BY_ADDRESS[address] == node]
        switches = [address for address in of_node if address in partition.share.nvswitches]
        assert of_node[len(of_node) - len(switches) :] == sorted(switches)


@each_partition
def test_a_guest_has_a_root_for_each_of_the_hosts_that_its_gpus_hang_under(partition: Partition) -> None:
    root = domain(partition.id)
    expanders = root.findall("./devices/controller[@model='pcie-expander-bus']")
    roots = {DGX2.gpu(gpu).root for gpu in partition.gpus}
    assert len(expanders) == (0 if len(roots) == 1 else len(roots))
    if not expanders:
        return
    controllers = {c.get("index"): c for c in root.iterfind("./devices/controller[@type='pci']")}
    root_by_address = {
        **{gpu.address: gpu.root for gpu in DGX2.gpus},
        **{hca.address: hca.root for hca in DGX2.hcas},
    }
    seen: dict[str, set[str]] = {}
    for hostdev in root.iterfind("./devices/hostdev"):
        port = controllers[str(int(the(hostdev, "./address").get("bus", ""), 16))]
        expander = controllers[str(int(the(port, "./address").get("bus", ""), 16))]
        if source_of(hostdev) in root_by_address:
            seen.setdefault(expander.get("index", ""), set()).add(root_by_address[source_of(hostdev)])
        if partition.size == 16:
            assert the(expander, "./target/node").text == str(NODE_BY_ADDRESS[source_of(hostdev)])
        else:
            assert expander.find("./target/node") is None
    assert sorted(found for founds in seen.values() for found in founds) == sorted(roots)
    assert all(len(founds) == 1 for founds in seen.values())


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_all_blocks_of_a_size_look_alike_to_a_guest(size: int) -> None:
    def places(partition: Partition) -> list[tuple[str | None, str | None]]:
        root = domain(partition.id)
        ports = root.findall("./devices/controller[@model='pcie-root-port']/address")
        expanders = root.findall("./devices/controller[@model='pcie-expander-bus']/target")
        return [(port.get("bus"), port.get("slot")) for port in ports] + [(e.get("busNr"), None) for e in expanders]

    first, *others = DGX2.partitions_of_size(size)
    assert all(places(other) == places(first) for other in others)


@each_partition
def test_the_first_port_of_a_slot_says_that_there_are_more(partition: Partition) -> None:
    for port in domain(partition.id).iterfind("./devices/controller[@model='pcie-root-port']"):
        at = the(port, "./address")
        assert at.get("multifunction") == ("on" if at.get("function") == "0x0" else None)
        assert the(port, "./target").get("hotplug") == "off"


def test_a_device_that_the_profile_does_not_know_is_refused() -> None:
    spec = replace(spec_of(DGX2, EIGHT), devices=("0000:99:00.0",))
    with pytest.raises(DefinitionError, match=r"0000:99:00\.0: listed twice, or not a device of profile dgx-2"):
        text_of(spec, DGX2)


def test_a_device_that_is_listed_twice_is_refused() -> None:
    spec = replace(spec_of(DGX2, PartitionId("1g0")), devices=("0000:34:00.0",) * 2)
    with pytest.raises(DefinitionError, match=r"0000:34:00\.0: listed twice"):
        text_of(spec, DGX2)


def test_a_device_of_a_node_where_the_vm_is_not_is_refused() -> None:
    spec = replace(spec_of(DGX2, PartitionId("1g0")), devices=("0000:b7:00.0",))
    with pytest.raises(DefinitionError, match=r"0000:b7:00\.0 is on NUMA node 1"):
        text_of(spec, DGX2)


def test_an_address_that_is_none_is_refused() -> None:
    gpus = (replace(DGX2.gpus[0], address="gpu0"), *DGX2.gpus[1:])
    profile = replace(DGX2, gpus=gpus)
    with pytest.raises(DefinitionError, match="'gpu0' is no PCI address"):
        text_of(spec_of(profile, PartitionId("1g0")), profile)


# --- threads


@each_partition
def test_every_vcpu_is_pinned_to_a_thread_on_the_gpus_sockets(partition: Partition) -> None:
    root = domain(partition.id)
    assert pins(root) == list(partition.share.vcpu_threads)
    nodes = {DGX2.gpu(index).numa_node for index in partition.gpus}
    assert {SOCKET_BY_THREAD[thread] for thread in pins(root)} == nodes
    assert threads_in(root, "./cputune/emulatorpin") == set(partition.share.emulator_threads)
    assert threads_in(root, "./cputune/iothreadpin") == set(partition.share.emulator_threads)


def test_vms_that_may_run_at_once_are_pinned_to_different_threads() -> None:
    threads_by_id = {}
    for partition in DGX2.partitions:
        root = domain(partition.id)
        threads_by_id[partition.id] = {*pins(root), *threads_in(root, "./cputune/emulatorpin")}
    for one, other in combinations(DGX2.partitions, 2):
        if not one.overlaps(other):
            assert threads_by_id[one.id].isdisjoint(threads_by_id[other.id]), (one.id, other.id)


@each_partition
def test_the_guest_sees_the_cores_that_it_runs_on(partition: Partition) -> None:
    root = domain(partition.id)
    topology = {name: int(value) for name, value in the(root, "./cpu/topology").attrib.items()}
    threads = pins(root)
    assert topology["sockets"] * topology["dies"] * topology["cores"] * topology["threads"] == len(threads)
    assert topology["sockets"] == (2 if partition.size == 16 else 1)
    assert topology["threads"] == (1 if partition.size == 1 else 2)
    if topology["threads"] == 2:
        for one, other in zip(threads[::2], threads[1::2], strict=True):
            assert SIBLING_BY_THREAD[one] == other


def test_fewer_vcpus_are_the_first_ones_and_even_over_the_nodes() -> None:
    eight, sixteen = DGX2.partition(EIGHT).share.vcpu_threads, DGX2.partition(SIXTEEN).share.vcpu_threads
    assert pins(domain(EIGHT, vcpus=6)) == list(eight[:6])
    assert pins(domain(SIXTEEN, vcpus=8)) == [*sixteen[:4], *sixteen[46:50]]
    cells = domain(SIXTEEN, vcpus=8).findall("./cpu/numa/cell")
    assert [cell.get("cpus") for cell in cells] == ["0-3", "4-7"]


@pytest.mark.parametrize(
    ("partition_id", "vcpus", "topology"),
    [
        (EIGHT, 6, (1, 3, 2)),
        (EIGHT, 5, (1, 5, 1)),
        (SIXTEEN, 8, (2, 2, 2)),
        (SIXTEEN, 6, (2, 3, 1)),
        (EIGHT, 1, (1, 1, 1)),
    ],
)
def test_cores_have_two_threads_only_if_no_pair_is_broken(
    partition_id: PartitionId, vcpus: int, topology: tuple[int, int, int]
) -> None:
    seen = the(domain(partition_id, vcpus=vcpus), "./cpu/topology")
    assert tuple(int(seen.get(name, "")) for name in ("sockets", "cores", "threads")) == topology


@pytest.mark.parametrize(("partition_id", "vcpus"), [(EIGHT, 0), (EIGHT, 47), (SIXTEEN, 93), (EIGHT, -1)])
def test_vcpus_beyond_the_share_are_refused(partition_id: PartitionId, vcpus: int) -> None:
    with pytest.raises(
        DefinitionError, match=rf"{vcpus} vCPUs asked for; partition .* has \d+: ask for 1 to"
    ) as caught:
        domain(partition_id, vcpus=vcpus)
    assert (caught.value.code, caught.value.retryable) == ("driver.bad_definition", False)


@pytest.mark.parametrize("vcpus", [1, 7, 91])
def test_vcpus_that_two_nodes_cannot_have_evenly_are_refused(vcpus: int) -> None:
    with pytest.raises(DefinitionError, match=f"{vcpus} vCPUs cannot be spread evenly over the 2 NUMA nodes"):
        domain(SIXTEEN, vcpus=vcpus)


# --- memory


@each_partition
def test_memory_is_the_shares_on_the_gpus_nodes_in_huge_pages(partition: Partition) -> None:
    root = domain(partition.id)
    nodes = [node for node, _ in partition.share.memory_gib_by_node]
    memory = the(root, "./memory")
    assert (memory.text, memory.get("unit")) == (str(partition.share.memory_gib), "GiB")
    strict = the(root, "./numatune/memory")
    assert (strict.get("mode"), strict.get("nodeset")) == ("strict", ",".join(str(node) for node in nodes))
    page = the(root, "./memoryBacking/hugepages/page")
    assert (page.get("size"), page.get("unit")) == ("1048576", "KiB")
    the(root, "./memoryBacking/nosharepages")
    the(root, "./memoryBacking/locked")


@each_partition
def test_exactly_the_16_gpu_vm_has_two_cells(partition: Partition) -> None:
    root = domain(partition.id)
    cells = root.findall("./cpu/numa/cell")
    if partition.size < 16:
        assert cells == root.findall("./numatune/memnode") == []
        return
    assert [(cell.get("cpus"), cell.get("memory"), cell.get("unit")) for cell in cells] == [
        ("0-45", "723", "GiB"),
        ("46-91", "723", "GiB"),
    ]
    assert [[to.get("value") for to in cell.iterfind("./distances/sibling")] for cell in cells] == [
        ["10", "21"],
        ["21", "10"],
    ]
    memnodes = [(node.get("cellid"), node.get("nodeset")) for node in root.iterfind("./numatune/memnode")]
    assert memnodes == [("0", "0"), ("1", "1")]
    for cell, node in zip(("0-45", "46-91"), (0, 1), strict=True):
        first, last = (int(vcpu) for vcpu in cell.split("-"))
        assert {SOCKET_BY_THREAD[thread] for thread in pins(root)[first : last + 1]} == {node}


@pytest.mark.parametrize(("memory_gib", "cells"), [(100, ["50", "50"]), (101, ["51", "50"]), (2, ["1", "1"])])
def test_less_memory_is_split_over_the_nodes(memory_gib: int, cells: Sequence[str]) -> None:
    root = domain(SIXTEEN, memory_gib=memory_gib)
    assert the(root, "./memory").text == str(memory_gib)
    assert [cell.get("memory") for cell in root.iterfind("./cpu/numa/cell")] == cells


@pytest.mark.parametrize(("partition_id", "memory_gib"), [(EIGHT, 0), (EIGHT, 724), (SIXTEEN, 1447)])
def test_memory_beyond_the_share_is_refused(partition_id: PartitionId, memory_gib: int) -> None:
    with pytest.raises(DefinitionError, match=f"{memory_gib} GiB of memory asked for; partition {partition_id} has"):
        domain(partition_id, memory_gib=memory_gib)


def test_memory_that_does_not_reach_every_node_is_refused() -> None:
    with pytest.raises(DefinitionError, match="1 GiB of memory do not reach all 2 NUMA nodes"):
        domain(SIXTEEN, memory_gib=1)


@given(
    st.sampled_from(DGX2.partitions),
    st.one_of(st.none(), st.integers(-1, 100)),
    st.one_of(st.none(), st.integers(-1, 1500)),
)
def test_whatever_is_asked_for_is_given_whole_or_refused(
    partition: Partition, vcpus: int | None, memory_gib: int | None
) -> None:
    try:
        root = domain(partition.id, vcpus=vcpus, memory_gib=memory_gib)
    except DefinitionError:
        assert vcpus is not None or memory_gib is not None
        return
    share = partition.share
    assert len(pins(root)) == (share.vcpus if vcpus is None else vcpus)
    assert the(root, "./memory").text == str(share.memory_gib if memory_gib is None else memory_gib)
    assert set(pins(root)) <= set(share.vcpu_threads)
    cells = root.findall("./cpu/numa/cell")
    if cells:
        assert sum(int(cell.get("memory", "")) for cell in cells) == int(the(root, "./memory").text or "")
        by_node = dict(share.memory_gib_by_node)
        assert all(int(cell.get("memory", "")) <= by_node[place] for place, cell in enumerate(cells))


# --- the rest of the machine


def test_disk_queues_follow_the_vcpus_up_to_a_limit() -> None:
    for partition_id, queues in (("1g3", "5"), ("2g0-1", "10"), ("4g0-3", "16"), ("16g0-15", "16")):
        driver = the(domain(PartitionId(partition_id)), "./devices/disk[serial='d-r-17']/driver")
        assert driver.attrib == {
            "name": "qemu",
            "type": "qcow2",
            "cache": "none",
            "io": "native",
            "discard": "unmap",
            "queues": queues,
            "iothread": "1",
        }


def test_a_disks_serial_number_is_as_long_as_a_guest_can_see() -> None:
    spec = replace(spec_of(DGX2, EIGHT), disk=DiskId("d-r-12345678901234567890"))
    assert ElementTree.fromstring(text_of(spec, DGX2)).findtext("./devices/disk/serial") == "d-r-1234567890123456"


def test_without_a_seed_there_is_one_disk() -> None:
    spec = spec_of(DGX2, EIGHT)
    text = domain_xml(spec, DGX2, disk_path="/d", seed_path=None, console_log="/c")
    assert [s.get("file") for s in ElementTree.fromstring(text).iterfind("./devices/disk/source")] == ["/d"]


def test_the_network_is_filtered_and_the_mac_is_the_reservations() -> None:
    interface = the(domain(EIGHT), "./devices/interface")
    assert the(interface, "./mac").get("address") == "52:54:00:12:34:56"
    assert the(interface, "./source").get("network") == "nightshift"
    assert the(interface, "./driver").attrib == {"name": "vhost", "queues": "8"}
    assert the(interface, "./filterref").get("filter") == "clean-traffic"
    assert the(interface, "./filterref/parameter").attrib == {"name": "CTRL_IP_LEARNING", "value": "dhcp"}


def test_no_network_and_no_filter_can_be_had() -> None:
    without_filter = replace(DGX2, vm=replace(DGX2.vm, network_filter=""))
    assert domain(EIGHT, without_filter).findall("./devices/interface/filterref") == []
    without_network = replace(DGX2, vm=replace(DGX2.vm, network=""))
    assert domain(EIGHT, without_network).findall("./devices/interface") == []


def test_the_guest_has_a_console_an_agent_and_randomness_and_nothing_to_look_at() -> None:
    devices = the(domain(EIGHT), "./devices")
    for path in ("./serial/log", "./console/log"):
        assert the(devices, path).attrib == {"file": f"/var/log/libvirt/qemu/r-17-{EIGHT}.console.log", "append": "on"}
    assert the(devices, "./channel/target").get("name") == "org.qemu.guest_agent.0"
    assert the(devices, "./rng/backend").text == "/dev/urandom"
    assert the(devices, "./memballoon").get("model") == "none"
    assert the(devices, "./video/model").get("type") == "none"
    assert the(devices, "./controller[@type='usb']").get("model") == "none"
    assert devices.findall("./graphics") == []


def test_a_guest_that_turns_itself_off_or_crashes_stays_off() -> None:
    root = domain(EIGHT)
    assert [root.findtext(f"./{what}") for what in ("on_poweroff", "on_reboot", "on_crash")] == [
        "destroy",
        "restart",
        "destroy",
    ]


@pytest.mark.parametrize(("partition_id", "mib"), [("1g0", 65536), ("8g0-7", 524288), ("16g0-15", 1048576)])
def test_uefi_is_told_to_keep_address_space_for_the_gpus(partition_id: str, mib: int) -> None:
    root = domain(PartitionId(partition_id))
    assert the(root, "./os").get("firmware") == "efi"
    assert the(root, "./os/firmware/feature").attrib == {"enabled": "no", "name": "secure-boot"}
    arguments = [argument.get("value") for argument in root.iterfind(f"./{{{QEMU_NS}}}commandline/{{{QEMU_NS}}}arg")]
    assert arguments == ["-fw_cfg", f"name=opt/ovmf/X-PciMmio64Mb,string={mib}"]


def test_a_profile_turns_firmware_pages_and_kvm_off() -> None:
    vm = replace(DGX2.vm, accelerator=Accelerator.EMULATED, firmware=Firmware.BIOS, hugepage_kib=0)
    root = domain(EIGHT, replace(DGX2, vm=vm))
    assert root.get("type") == "qemu"
    assert the(root, "./os").attrib == {}
    assert root.findall(f"./{{{QEMU_NS}}}commandline") == []
    assert root.findall("./memoryBacking/hugepages") == root.findall("./memoryBacking/locked") == []
    assert the(root, "./cpu").get("mode") == "maximum"
    assert "name" not in the(root, "./devices/interface/driver").attrib


@each_golden
def test_a_definition_says_which_tunings_are_in_it(profile: HostProfile, partition_id: PartitionId) -> None:
    root = domain(partition_id, profile)
    start = the(root, f"./metadata/{{{METADATA_NS}}}start")
    said = set(start.get("tuning", "").split())
    page = root.find("./memoryBacking/hugepages/page")
    seen = {
        "vcpu-pinning": root.find("./cputune/vcpupin") is not None,
        "smt-siblings": the(root, "./cpu/topology").get("threads") == "2",
        "emulator-pinning": root.find("./cputune/emulatorpin") is not None,
        "io-thread": root.find("./devices/disk/driver[@iothread]") is not None,
        "numa-strict": the(root, "./numatune/memory").get("mode") == "strict",
        "guest-numa": root.find("./cpu/numa") is not None,
        f"hugepages-{0 if page is None else page.get('size')}": page is not None,
        "locked-memory": root.find("./memoryBacking/locked") is not None,
        "host-cpu": the(root, "./cpu").get("mode") == "host-passthrough",
        "pcie-ports": root.find("./devices/controller[@model='pcie-root-port']") is not None,
        "pcie-roots": root.find("./devices/controller[@model='pcie-expander-bus']") is not None,
        "pcie-numa": root.find("./devices/controller[@model='pcie-expander-bus']/target/node") is not None,
        "direct-disk": root.find("./devices/disk/driver[@cache='none']") is not None,
        f"disk-queues-{the(root, './devices/disk/driver[@queues]').get('queues')}": True,
    }
    interface = root.find("./devices/interface/driver")
    if interface is not None:
        seen[f"network-queues-{interface.get('queues')}"] = True
    arguments = [
        argument.get("value", "") for argument in root.iterfind(f"./{{{QEMU_NS}}}commandline/{{{QEMU_NS}}}arg")
    ]
    for argument in arguments:
        if "X-PciMmio64Mb" in argument:
            seen[f"mmio64-{argument.rpartition('=')[2]}"] = True
    assert said == {word for word, is_seen in seen.items() if is_seen}


# --- names


def test_names_that_are_hostile_to_xml_stay_names() -> None:
    hostile = """r-1"><evil a='&amp;'/>]]>"""
    spec = replace(
        spec_of(DGX2, EIGHT), name=hostile, reservation=ReservationId(hostile), host_name=hostile, image=hostile
    )
    text = domain_xml(spec, DGX2, disk_path=f"/{hostile}", seed_path=f"/{hostile}.iso", console_log=f"/{hostile}.log")
    root = ElementTree.fromstring(text)
    assert list(root.iter("evil")) == []
    assert root.findtext("./name") == hostile
    assert read_domain(text).reservation == hostile
    assert the(root, "./devices/disk[1]/source").get("file") == f"/{hostile}"
    assert the(root, "./devices/serial/log").get("file") == f"/{hostile}.log"


@given(st.text(max_size=30))
def test_any_name_is_kept_or_refused(name: str) -> None:
    spec = replace(spec_of(DGX2, PartitionId("1g0")), name=name)
    try:
        text = text_of(spec, DGX2)
    except DefinitionError:
        with pytest.raises(etree.XMLSyntaxError):
            etree.fromstring(f"<name>{escape(name)}</name>".encode())
        return
    # XML reads a carriage return as a new line.
    assert (ElementTree.fromstring(text).findtext("./name") or "") == name.replace("\r\n", "\n").replace("\r", "\n")


def test_a_character_that_xml_cannot_carry_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"has the character '\\x00', which XML cannot carry"):
        text_of(replace(spec_of(DGX2, EIGHT), name="r\0"), DGX2)
