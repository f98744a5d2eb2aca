"""Devices as a host shows them, and the checks of their hand-over."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

libvirt = pytest.importorskip(
    "libvirt", reason="libvirt-python is not installed: it is built where libvirt's headers are"
)

from scheduler.core.facts import CheckResult, ObservedDevice
from scheduler.core.topology import HostProfile, PciIds
from tests.contract.plain_host import plain_host
from workers.drivers.libvirt import node_devices as module
from workers.drivers.libvirt.node_devices import NodeDevices
from workers.drivers.libvirt.resets import Resets
from workers.drivers.libvirt.sysfs import Sysfs

GPU, NEXT, BRIDGE = "0000:f0:00.0", "0000:f0:01.0", "0000:f0:1f.0"
HOLDER = UUID("6f14a8d0-8c4b-4d1c-ae8e-9cd7d37ed9e2")


def two_gpus(**pci_ids: tuple[str, ...]) -> HostProfile:
    profile = plain_host()
    return replace(profile, gpus=profile.gpus[:2], pci_ids=PciIds(**pci_ids))


def refusal(code: int, words: str) -> Any:
    error = libvirt.libvirtError(words)
    error.err = (code, libvirt.VIR_FROM_NODEDEV, words, 2, words, None, None, -1, -1)
    return error


class FakeBus:
    """Node devices as a libvirt shows them; its own test driver knows no driver of a device."""

    def __init__(self) -> None:
        self.xml_by_name: dict[str, str] = {}
        self.error: Any = None
        self.asked = 0

    def put(
        self, address: str, *, driver: str = "vfio-pci", product: str = "1db8", group: Iterable[str] | None = None
    ) -> None:
        members = [address] if group is None else group
        parts = [(member[:4], member[5:7], member[8:10], member[11]) for member in (address, *members)]
        (domain, bus, slot, function), *others = [tuple(f"0x{part}" for part in (d, b, s, f)) for d, b, s, f in parts]
        addresses = "".join(f"<address domain='{d}' bus='{b}' slot='{s}' function='{f}'/>" for d, b, s, f in others)
        self.xml_by_name["pci_" + address.replace(":", "_").replace(".", "_")] = (
            f"<device>{f'<driver><name>{driver}</name></driver>' if driver else ''}<capability type='pci'>"
            f"<domain>{domain}</domain><bus>{bus}</bus><slot>{slot}</slot><function>{function}</function>"
            f"<product id='0x{product}'/><vendor id='0x10de'/>"
            f"{f'<iommuGroup>{addresses}</iommuGroup>' if others else ''}</capability></device>"
        )

    def nodeDeviceLookupByName(self, name: str) -> Any:  # noqa: N802
        return FakeDevice(self, name)


class FakeDevice:
    def __init__(self, bus: FakeBus, name: str) -> None:
        self._bus = bus
        self._name = name

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802
        self._bus.asked += 1
        if self._bus.error is not None:
            raise self._bus.error
        if self._name not in self._bus.xml_by_name:
            raise refusal(libvirt.VIR_ERR_NO_NODE_DEVICE, "Node device not found")
        return self._bus.xml_by_name[self._name]


@pytest.fixture
def bus() -> FakeBus:
    bus = FakeBus()
    bus.put(GPU)
    bus.put(NEXT)
    return bus


def devices(profile: HostProfile | None = None, sysfs: Sysfs | None = None) -> NodeDevices:
    return NodeDevices(profile or two_gpus(), Resets(sysfs), sysfs)


def seen(
    bus: FakeBus,
    *,
    profile: HostProfile | None = None,
    held_by: dict[str, UUID] | None = None,
    sysfs: Sysfs | None = None,
) -> ObservedDevice:
    return next(d for d in devices(profile, sysfs).observe(bus, held_by or {}) if d.address == GPU)


def detail(device: ObservedDevice, name: str) -> str:
    return next(check.detail for check in device.checks if check.name == name)


def test_a_device_that_is_bound_and_alone_in_its_group_is_fit(bus: FakeBus) -> None:
    device = seen(bus)
    assert (device.held_by, device.failed) == (None, ())
    assert device.result_of("bound") is device.result_of("group_free") is CheckResult.PASSED


@pytest.mark.parametrize(("driver", "said"), [("nvidia", "driver: nvidia"), ("", "driver: none")])
def test_a_device_with_another_driver_or_none_is_not_bound(bus: FakeBus, driver: str, said: str) -> None:
    bus.put(GPU, driver=driver)
    assert detail(seen(bus), "bound") == said
    assert seen(bus).result_of("bound") is CheckResult.FAILED


def test_a_device_of_a_running_domain_is_held_and_dirty(bus: FakeBus) -> None:
    device = seen(bus, held_by={GPU: HOLDER})
    assert device.held_by == HOLDER
    assert detail(device, "group_free") == f"held by domain {HOLDER}"
    assert device.result_of("reset_done") is CheckResult.FAILED


def test_a_neighbour_in_its_group_that_another_driver_has_is_in_the_way(bus: FakeBus) -> None:
    bus.put(GPU, group=(GPU, "0000:f0:00.1"))
    bus.put("0000:f0:00.1", driver="snd_hda_intel")
    assert detail(seen(bus), "group_free") == "0000:f0:00.1 of its IOMMU group is bound to snd_hda_intel"


def test_a_neighbour_in_its_group_that_a_domain_has_is_in_the_way(bus: FakeBus) -> None:
    bus.put(GPU, group=(GPU, NEXT))
    assert detail(seen(bus, held_by={NEXT: HOLDER}), "group_free") == (
        f"{NEXT} of its IOMMU group is held by domain {HOLDER}"
    )


@pytest.mark.parametrize("driver", ["pcieport", "pci-stub", "vfio-pci", ""])
def test_bridges_and_unused_neighbours_are_not_in_the_way(bus: FakeBus, driver: str) -> None:
    bus.put(GPU, group=(GPU, BRIDGE))
    bus.put(BRIDGE, driver=driver)
    assert seen(bus).result_of("group_free") is CheckResult.PASSED


def test_without_an_iommu_no_device_is_free(bus: FakeBus) -> None:
    bus.put(GPU, group=())
    assert "is the IOMMU switched on" in detail(seen(bus), "group_free")


def test_a_device_with_another_id_is_not_the_one_meant(bus: FakeBus) -> None:
    device = seen(bus, profile=two_gpus(gpus=("10de:2330", "10de:2331")))
    assert device.result_of("ids_match") is CheckResult.FAILED
    assert device.mistaken_for == "it is 10de:1db8, the profile says 10de:2330 or 10de:2331"
    # It was told as a device that cannot be read, which is a fault of the device's own.
    assert device.result_of("config_readable") is CheckResult.UNVERIFIED


def test_a_device_with_the_right_id_passes_and_without_ids_nothing_is_compared(bus: FakeBus) -> None:
    assert seen(bus, profile=two_gpus(gpus=("10de:1db8",))).result_of("ids_match") is CheckResult.PASSED
    assert "ids_match" not in {check.name for check in seen(bus, profile=two_gpus()).checks}


def test_that_a_domain_has_a_neighbour_is_told_by_its_uuid_unless_something_else_is_in_the_way_too(
    bus: FakeBus,
) -> None:
    third = "0000:f0:00.2"
    bus.put(GPU, group=(GPU, NEXT, third))
    bus.put(third, driver="vfio-pci")
    assert seen(bus, held_by={NEXT: HOLDER}).group_held_by == HOLDER
    assert seen(bus, held_by={GPU: HOLDER}).group_held_by is None
    bus.put(third, driver="snd_hda_intel")
    device = seen(bus, held_by={NEXT: HOLDER})
    assert (device.result_of("group_free"), device.group_held_by) == (CheckResult.FAILED, None)


def test_from_afar_it_is_not_known_whether_a_device_answers(bus: FakeBus) -> None:
    device = seen(bus, profile=two_gpus(gpus=("10de:1db8",)))
    assert device.result_of("config_readable") is CheckResult.UNVERIFIED
    assert device.result_of("reset_done") is CheckResult.UNVERIFIED


@pytest.mark.parametrize(("first", "result"), [(b"\xde", CheckResult.PASSED), (b"\xff", CheckResult.FAILED)])
def test_on_the_host_itself_a_device_is_read(bus: FakeBus, tmp_path: Path, first: bytes, result: CheckResult) -> None:
    folder = tmp_path / "bus" / "pci" / "devices" / GPU
    folder.mkdir(parents=True)
    (folder / "config").write_bytes(first * 64)
    assert seen(bus, sysfs=Sysfs(tmp_path)).result_of("config_readable") is result


def test_a_device_that_is_not_on_the_bus_is_not_shown(bus: FakeBus) -> None:
    del bus.xml_by_name["pci_0000_f0_01_0"]
    assert [device.address for device in devices().observe(bus, {})] == [GPU]


def test_a_host_that_shows_no_devices_at_all_is_looked_at_all_the_same(bus: FakeBus) -> None:
    bus.error = refusal(libvirt.VIR_ERR_NO_SUPPORT, "this function is not supported by the connection driver")
    assert devices().observe(bus, {}) == ()


def test_a_host_that_is_lost_meanwhile_is_no_host_without_devices(bus: FakeBus) -> None:
    bus.error = refusal(libvirt.VIR_ERR_INTERNAL_ERROR, "client socket is closed")
    with pytest.raises(libvirt.libvirtError):
        devices().observe(bus, {})


def test_devices_are_read_again_once_something_was_changed(bus: FakeBus) -> None:
    reader = devices()
    reader.read(bus)
    bus.put(GPU, driver="nvidia")
    assert reader.read(bus)[GPU].driver == "vfio-pci"
    assert reader.read_one(bus, GPU).driver == "nvidia"  # type: ignore[union-attr]
    reader.forget()
    assert reader.read(bus)[GPU].driver == "nvidia"


def test_devices_are_read_again_after_a_while(bus: FakeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: now_s[0])
    reader = devices()
    reader.read(bus)
    asked = bus.asked
    now_s[0] += module.GOOD_FOR_S - 1
    reader.read(bus)
    assert bus.asked == asked
    now_s[0] += 1
    reader.read(bus)
    assert bus.asked > asked


def test_what_changed_while_devices_were_read_is_not_kept(bus: FakeBus) -> None:
    reader = devices()
    real = bus.nodeDeviceLookupByName

    def changed_meanwhile(name: str) -> Any:
        reader.forget()
        return real(name)

    bus.nodeDeviceLookupByName = changed_meanwhile  # type: ignore[method-assign]
    reader.read(bus)
    bus.put(GPU, driver="nvidia")
    assert reader.read(bus)[GPU].driver == "nvidia"


def test_a_new_connection_is_asked_for_its_own_devices(bus: FakeBus) -> None:
    reader = devices()
    reader.read(bus)
    reader.forget()
    other = FakeBus()
    other.put(GPU, driver="nvidia")
    assert reader.read(other)[GPU].driver == "nvidia"


def test_devices_that_a_start_is_about_to_have_are_used_also_if_nobody_looked(bus: FakeBus, tmp_path: Path) -> None:
    folder = tmp_path / "bus" / "pci" / "devices" / GPU
    folder.mkdir(parents=True)
    (folder / "config").write_bytes(bytes(64))
    (folder / "reset").touch()
    reader = devices(sysfs=Sysfs(tmp_path))
    reader.are_used([GPU])
    device = next(device for device in reader.observe(bus, {}) if device.address == GPU)
    assert detail(device, "reset_done") == "used since its last reset"
