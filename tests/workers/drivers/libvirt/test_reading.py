"""What libvirt's documents say: domains of ours and of others, devices, hosts, volumes."""

from uuid import UUID

import pytest

from workers.drivers.libvirt.reading import read_capabilities, read_device, read_domain, read_volume

NAME = "<uuid>6f14a8d0-8c4b-4d1c-ae8e-9cd7d37ed9e2</uuid><name>by-hand</name>"
PCI = "domain='0x0000' bus='0x34' slot='0x00' function='0x0'"


def domain(devices: str = "", metadata: str = "") -> str:
    return f"<domain>{NAME}<metadata>{metadata}</metadata><devices>{devices}</devices></domain>"


def start(**attributes: str) -> str:
    said = " ".join(f"{name}='{value}'" for name, value in attributes.items())
    return f"<n:start xmlns:n='urn:nightshift:domain:1' {said}/>"


def test_a_domain_of_ours_says_which_start_it_is() -> None:
    seen = read_domain(domain(metadata=start(reservation="r-17", generation="3", partition="8g0-7")))
    assert (seen.reservation, seen.generation, seen.partition) == ("r-17", 3, "8g0-7")


def test_a_domain_of_others_has_a_name_and_nothing_of_ours() -> None:
    seen = read_domain(f"<domain>{NAME}</domain>")
    assert (seen.uuid, seen.name) == (UUID("6f14a8d0-8c4b-4d1c-ae8e-9cd7d37ed9e2"), "by-hand")
    assert (seen.reservation, seen.generation, seen.partition) == (None, None, None)
    assert (seen.devices, seen.disks, seen.files, seen.volumes) == (frozenset(),) * 4
    assert not seen.is_agent_connected


@pytest.mark.parametrize("generation", ["", "-1", "two", "٣", "1.5", "9" * 5000])
def test_a_start_without_a_number_is_none_of_ours(generation: str) -> None:
    seen = read_domain(domain(metadata=start(reservation="r-17", generation=generation)))
    assert (seen.reservation, seen.generation) == (None, None)


def test_a_start_without_a_reservation_is_none_of_ours() -> None:
    seen = read_domain(domain(metadata=start(generation="3")))
    assert (seen.reservation, seen.generation) == (None, None)


def test_metadata_of_somebody_else_is_not_ours() -> None:
    theirs = start(reservation="r-17", generation="3").replace("urn:nightshift:domain:1", "urn:other")
    assert read_domain(domain(metadata=theirs)).reservation is None


@pytest.mark.parametrize(
    "device",
    [
        f"<hostdev mode='subsystem' type='pci' managed='yes'><source><address {PCI}/></source></hostdev>",
        f"<interface type='hostdev' managed='yes'><source><address type='pci' {PCI}/></source></interface>",
        f"<disk type='nvme' device='disk'><source type='pci' namespace='1'><address {PCI}/></source></disk>",
    ],
)
def test_a_pci_device_is_held_however_it_is_passed_through(device: str) -> None:
    assert read_domain(domain(device)).devices == {"0000:34:00.0"}


@pytest.mark.parametrize(
    "device",
    [
        "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/><product id='0x2'/></source></hostdev>",
        "<hostdev mode='subsystem' type='usb'><source><address bus='14' device='6'/></source></hostdev>",
        "<hostdev mode='subsystem' type='pci'><source/></hostdev>",
        "<hostdev mode='subsystem' type='mdev'><source><address uuid='c2177883-f1bb-47f0-914d-32a22e3a8804'/></source>"
        "</hostdev>",
        f"<hostdev mode='subsystem' type='pci'><source/><address type='pci' {PCI}/></hostdev>",
        f"<interface type='network'><source network='x'/><address type='pci' {PCI}/></interface>",
    ],
)
def test_what_is_no_pci_device_of_the_host_is_none(device: str) -> None:
    assert read_domain(domain(device)).devices == frozenset()


def test_a_disk_is_open_under_whatever_is_written_on_top_of_it() -> None:
    seen = read_domain(
        domain(
            "<disk type='file' device='disk'><source file='/pool/../pool/d-1.snap'/><backingStore type='file'>"
            "<source file='/pool/d-1.qcow2'/><backingStore/></backingStore></disk>"
            "<disk type='block' device='lun'><source dev='/dev/sda'/></disk>"
        )
    )
    assert seen.disks == {"/pool/d-1.snap", "/pool/d-1.qcow2", "/dev/sda"}


def test_what_is_only_read_is_open_and_not_written() -> None:
    seen = read_domain(domain("<disk type='file' device='cdrom'><source file='/pool/d-1.qcow2'/><readonly/></disk>"))
    assert seen.disks == frozenset()
    assert seen.files == {"/pool/d-1.qcow2"}


def test_a_disk_may_be_named_by_pool_and_volume() -> None:
    seen = read_domain(domain("<disk type='volume'><source pool='nightshift' volume='d-1.qcow2'/></disk>"))
    assert seen.files == frozenset()
    assert seen.volumes == {("nightshift", "d-1.qcow2")}


@pytest.mark.parametrize(("state", "is_connected"), [("connected", True), ("disconnected", False)])
def test_an_agent_is_there_when_its_own_channel_is_open(state: str, is_connected: bool) -> None:
    other = "<channel><target type='virtio' name='com.redhat.spice.0' state='connected'/></channel>"
    agent = f"<channel><target type='virtio' name='org.qemu.guest_agent.0' state='{state}'/></channel>"
    assert read_domain(domain(other + agent)).is_agent_connected is is_connected
    assert not read_domain(domain(other)).is_agent_connected


def test_a_device_says_its_driver_its_ids_its_node_and_its_group() -> None:
    seen = read_device(
        f"<device><name>x</name><driver><name>vfio-pci</name></driver><capability type='pci'><domain>0</domain>"
        f"<bus>52</bus><slot>0</slot><function>0</function><product id='0x1db8'/><vendor id='0x10de'/>"
        f"<iommuGroup number='7'><address {PCI}/><address domain='0x0000' bus='0x34' slot='0x00' function='0x1'/>"
        f"</iommuGroup><numa node='1'/></capability></device>"
    )
    assert seen is not None
    assert (seen.address, seen.driver, seen.pci_id, seen.numa_node) == ("0000:34:00.0", "vfio-pci", "10de:1db8", 1)
    assert seen.group == {"0000:34:00.0", "0000:34:00.1"}


def test_a_device_without_driver_node_or_iommu_has_none() -> None:
    seen = read_device("<device><capability type='pci'><bus>1</bus></capability></device>")
    assert seen is not None
    assert (seen.address, seen.driver, seen.numa_node, seen.group) == ("0000:01:00.0", "", None, frozenset())


def test_what_is_not_on_the_pci_bus_is_no_device() -> None:
    assert read_device("<device><name>computer</name><capability type='system'/></device>") is None


@pytest.mark.parametrize(
    ("element", "has_iommu"), [("<iommu support='yes'/>", True), ("<iommu support='no'/>", False), ("", False)]
)
def test_a_host_has_an_iommu_when_it_says_so(element: str, has_iommu: bool) -> None:
    assert read_capabilities(f"<capabilities><host>{element}</host></capabilities>").has_iommu is has_iommu


def test_pages_are_counted_by_node_and_size() -> None:
    seen = read_capabilities(
        "<capabilities><host><topology><cells><cell id='0'><pages unit='KiB' size='4'>100</pages>"
        "<pages unit='KiB' size='1048576'>8</pages></cell>"
        "<cell id='1'><pages unit='KiB' size='1048576'>0</pages></cell>"
        "</cells></topology></host></capabilities>"
    )
    assert seen.cells == (0, 1)
    assert seen.pages_by_cell == ((0, 4, 100), (0, 1048576, 8), (1, 1048576, 0))


def test_a_volume_says_what_it_is_and_what_it_stands_on() -> None:
    seen = read_volume(
        "<volume><target><path>/p/d-1.qcow2</path><format type='qcow2'/></target>"
        "<backingStore><path>/i/ubuntu.img</path></backingStore></volume>"
    )
    assert (seen.path, seen.format, seen.backing) == ("/p/d-1.qcow2", "qcow2", "/i/ubuntu.img")
    bare = read_volume("<volume><name>x</name></volume>")
    assert (bare.path, bare.format, bare.backing) == ("", "", "")
