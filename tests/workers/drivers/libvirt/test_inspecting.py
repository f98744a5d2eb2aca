"""What is wrong with a host is said with what to do; what cannot be inspected is said too, and hides nothing."""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

libvirt = pytest.importorskip(
    "libvirt", reason="libvirt-python is not installed: it is built where libvirt's headers are"
)

from scheduler.core.facts import HostTrouble, TroubleKind
from scheduler.core.topology import HostProfile, PciIds
from tests.contract.plain_host import plain_host
from workers.drivers.libvirt import inspecting as module
from workers.drivers.libvirt.inspecting import Inspector
from workers.drivers.libvirt.node_devices import NodeDevices
from workers.drivers.libvirt.reading import DescribedDevice
from workers.drivers.libvirt.resets import NOT_ALLOWED, NOT_SEEN, Resets
from workers.drivers.libvirt.sysfs import Sysfs
from workers.drivers.libvirt.volumes import GIB
from workers.ports import NoSuchDisk

FIRST, SECOND = "0000:f0:00.0", "0000:f0:01.0"


def refusal(code: int, words: str = "refused", *, domain: int = libvirt.VIR_FROM_STORAGE) -> Any:
    error = libvirt.libvirtError(words)
    error.err = (code, domain, words, 2, words, None, None, -1, -1)
    return error


class FakePool:
    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder
        self.is_on, self.capacity_gib, self.available_gib = True, 100, 50
        self.told_gib = self.available_gib
        """What libvirt saw when it looked at the folder last."""

    def name(self) -> str:
        return self._name

    def isActive(self) -> bool:  # noqa: N802
        return self.is_on

    def info(self) -> list[int]:
        return [2, self.capacity_gib * GIB, 0, self.told_gib * GIB]

    def refresh(self, _flags: int) -> None:
        self.told_gib = self.available_gib

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802
        return f"<pool><target><path>{self._folder}</path></target></pool>"


class FakeNetwork:
    def __init__(self) -> None:
        self.is_on = True

    def isActive(self) -> bool:  # noqa: N802
        return self.is_on


class FakeHost:
    """A host on which everything is well, until a test says otherwise."""

    def __init__(self, folder: Path) -> None:
        self.iommu, self.pages = "yes", 0
        self.pools = {name: FakePool(name, folder) for name in ("nightshift", "nightshift-images")}
        self.networks = {"nightshift": FakeNetwork()}
        self.filters = {"clean-traffic"}
        self.refusal_by_verb: dict[str, Any] = {}
        self.inspected = 0

    def _say(self, verb: str) -> None:
        if verb in self.refusal_by_verb:
            raise self.refusal_by_verb[verb]

    def getCapabilities(self) -> str:  # noqa: N802
        self.inspected += 1
        self._say("capabilities")
        return (
            f"<capabilities><host><iommu support='{self.iommu}'/><topology><cells><cell id='0'>"
            f"<pages unit='KiB' size='1048576'>{self.pages}</pages></cell></cells></topology></host></capabilities>"
        )

    def storagePoolLookupByName(self, name: str) -> FakePool:  # noqa: N802
        self._say("pool")
        if name not in self.pools:
            raise refusal(libvirt.VIR_ERR_NO_STORAGE_POOL)
        return self.pools[name]

    def networkLookupByName(self, name: str) -> FakeNetwork:  # noqa: N802
        self._say("network")
        if name not in self.networks:
            raise refusal(libvirt.VIR_ERR_NO_NETWORK)
        return self.networks[name]

    def nwfilterLookupByName(self, name: str) -> None:  # noqa: N802
        self._say("filter")
        if name not in self.filters:
            raise refusal(libvirt.VIR_ERR_NO_NWFILTER)


class FakeDevices(NodeDevices):
    """Devices that were found, without a libvirt to ask."""

    def __init__(self, profile: HostProfile, found: dict[str, str]) -> None:
        super().__init__(profile, Resets(None), None)
        self.found = found

    def read(self, conn: Any) -> dict[str, DescribedDevice]:
        return {
            address: DescribedDevice(
                address=address, driver="vfio-pci", pci_id=pci_id, numa_node=0, group=frozenset({address})
            )
            for address, pci_id in self.found.items()
        }


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def profile(**vm: Any) -> HostProfile:
    plain = plain_host()
    settings = replace(plain.vm, network="nightshift", network_filter="clean-traffic", **vm)
    return replace(plain, gpus=plain.gpus[:2], vm=settings, pci_ids=PciIds(gpus=("10de:1db8",)))


def inspector(
    *,
    found: dict[str, str] | None = None,
    sysfs: Sysfs | None = None,
    images: Iterable[str] = (),
    kind: HostProfile | None = None,
    generation: Callable[[], int] = lambda: 1,
    missing: Callable[[Any], tuple[str, ...]] | None = None,
) -> Inspector:
    kind = kind or profile()
    on_bus = {FIRST: "10de:1db8", SECOND: "10de:1db8"} if found is None else found
    return Inspector(
        kind,
        FakeDevices(kind, on_bus),
        sysfs,
        generation=generation,
        missing_images=missing or (lambda _conn: tuple(images)),
    )


def wrong(found: Iterable[HostTrouble]) -> dict[str, HostTrouble]:
    return {trouble.code: trouble for trouble in found if trouble.kind is TroubleKind.WRONG}


def unverified(found: Iterable[HostTrouble]) -> dict[str, HostTrouble]:
    return {trouble.code: trouble for trouble in found if trouble.kind is TroubleKind.UNVERIFIED}


def test_a_host_that_is_well_has_only_what_cannot_be_seen_from_afar(host: FakeHost) -> None:
    found = inspector().troubles(host)
    assert wrong(found) == {}
    assert {*unverified(found)} == {"check.reset_done", "check.config_readable"}
    assert unverified(found)["check.reset_done"].problem == NOT_SEEN


def test_a_host_without_an_iommu_is_told_how_to_switch_it_on(host: FakeHost) -> None:
    host.iommu = "no"
    assert "intel_iommu=on" in wrong(inspector().troubles(host))["host.no_iommu"].mend


def test_devices_that_are_not_on_the_bus_are_named(host: FakeHost) -> None:
    found = wrong(inspector(found={FIRST: "10de:1db8"}).troubles(host))
    assert found["host.device_missing"].problem == f"1 device of profile plain not on the bus: {SECOND}"


def test_a_libvirt_that_shows_no_devices_is_not_a_host_that_lost_them(host: FakeHost) -> None:
    found = wrong(inspector(found={}).troubles(host))
    assert "libvirt-daemon-driver-nodedev" in found["host.no_node_devices"].mend
    assert "host.device_missing" not in found


def test_another_device_at_an_address_is_said_with_both_ids(host: FakeHost) -> None:
    found = wrong(inspector(found={FIRST: "10de:1db8", SECOND: "144d:a824"}).troubles(host))
    said = found["host.wrong_device"]
    assert said.problem == f"{SECOND}: found 144d:a824, profile {profile().name} says 10de:1db8"
    assert 'write gpus = ["10de:1db8", "144d:a824"] under [pci_ids] of the profile' in said.mend


def test_a_wrong_id_in_a_profile_is_one_trouble_however_many_devices_have_it(host: FakeHost) -> None:
    found = inspector(found={FIRST: "10de:20b0", SECOND: "10de:20b0"}).troubles(host)
    (said,) = (trouble for trouble in found if trouble.code == "host.wrong_device")
    assert said.problem.startswith(f"{FIRST}, {SECOND}: found 10de:20b0")


@pytest.mark.parametrize(("pages", "is_wrong"), [(0, True), (15, True), (16, False)])
def test_hugepages_are_needed_for_all_vms_that_may_run_at_once_and_not_only_for_the_largest(
    host: FakeHost, pages: int, is_wrong: bool
) -> None:
    host.pages = pages
    found = wrong(inspector(kind=profile(hugepage_kib=1 << 20)).troubles(host))
    assert ("host.few_hugepages" in found) is is_wrong


def test_a_pool_that_is_not_there_or_not_active_is_said(host: FakeHost) -> None:
    del host.pools["nightshift-images"]
    host.pools["nightshift"].is_on = False
    problems = {trouble.problem for trouble in inspector().troubles(host) if trouble.code == "host.no_pool"}
    assert problems == {
        "storage pool 'nightshift' is not active",
        "there is no storage pool 'nightshift-images'",
    }


def test_a_pool_smaller_than_planned_with_and_one_that_is_full_are_said(host: FakeHost) -> None:
    host.pools["nightshift"].capacity_gib, host.pools["nightshift"].available_gib = 3, 0
    assert {"host.small_pool", "host.pool_full"} <= {*wrong(inspector().troubles(host))}


def test_a_pool_that_has_become_full_from_elsewhere_is_said(host: FakeHost) -> None:
    seen = inspector()
    assert "host.pool_full" not in wrong(seen.troubles(host))
    host.pools["nightshift"].available_gib = 0
    seen.forget()
    assert "host.pool_full" in wrong(seen.troubles(host))


def test_on_the_host_itself_the_room_is_what_there_is_now(
    host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        f_bavail, f_frsize = 1, 4096

    asked: list[str] = []

    def statvfs(folder: str) -> Full:
        asked.append(folder)
        return Full()

    monkeypatch.setattr(os, "statvfs", statvfs)
    assert "host.pool_full" in wrong(inspector(sysfs=Sysfs(tmp_path)).troubles(host))
    assert asked == [str(tmp_path)]
    assert "host.pool_full" not in wrong(inspector().troubles(host)), "the room of this machine is not the host's"


def test_images_of_the_policy_that_are_not_there_are_said(host: FakeHost) -> None:
    found = wrong(inspector(images=["ubuntu-22.04"]).troubles(host))
    assert "'ubuntu-22.04' of the policy is not in pool nightshift-images" in found["host.no_image"].problem


def test_a_network_and_a_filter_that_are_not_there_are_said(host: FakeHost) -> None:
    host.networks.clear()
    host.filters.clear()
    assert {*wrong(inspector().troubles(host))} == {"host.no_network", "host.no_network_filter"}


def test_a_network_that_is_not_active_is_said(host: FakeHost) -> None:
    host.networks["nightshift"].is_on = False
    assert "virsh net-start nightshift" in wrong(inspector().troubles(host))["host.no_network"].mend


@pytest.mark.parametrize(
    ("verb", "code"),
    [
        ("capabilities", "check.capabilities"),
        ("pool", "check.pools"),
        ("network", "check.network"),
        ("filter", "check.network"),
    ],
)
def test_what_cannot_be_inspected_hides_neither_the_rest_nor_the_host(host: FakeHost, verb: str, code: str) -> None:
    host.refusal_by_verb[verb] = refusal(libvirt.VIR_ERR_NO_SUPPORT, "this function is not supported")
    found = inspector(images=["ubuntu-22.04"]).troubles(host)
    assert "this function is not supported" in unverified(found)[code].problem
    assert "host.no_image" in wrong(found)


def test_a_pool_that_goes_while_its_images_are_looked_for_hides_no_host(host: FakeHost) -> None:
    def gone(_conn: Any) -> tuple[str, ...]:
        raise NoSuchDisk("storage pool 'nightshift-images' is not active")

    found = inspector(missing=gone).troubles(host)
    assert "is not active" in unverified(found)["check.images"].problem


def test_a_host_that_is_lost_meanwhile_is_not_a_host_with_troubles(host: FakeHost) -> None:
    host.refusal_by_verb["network"] = refusal(
        libvirt.VIR_ERR_SYSTEM_ERROR, "Cannot recv data: Connection reset by peer", domain=libvirt.VIR_FROM_RPC
    )
    with pytest.raises(libvirt.libvirtError):
        inspector().troubles(host)


def test_a_worker_that_may_not_reset_devices_says_what_to_do(host: FakeHost, tmp_path: Path) -> None:
    found = unverified(inspector(sysfs=Sysfs(tmp_path)).troubles(host))
    assert found["check.reset_done"].problem == NOT_ALLOWED
    assert "check.config_readable" not in found


def test_a_host_is_inspected_now_and_then_and_with_every_connection(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s, generation = [100.0], [1]
    monkeypatch.setattr(module, "monotonic", lambda: now_s[0])
    inspects = inspector(generation=lambda: generation[0])

    def count() -> int:
        inspects.troubles(host)
        return host.inspected

    assert (count(), count()) == (1, 1)
    now_s[0] += module.INSPECT_EVERY_S
    assert count() == 2
    generation[0] += 1
    assert count() == 3
    inspects.forget()
    assert count() == 4
