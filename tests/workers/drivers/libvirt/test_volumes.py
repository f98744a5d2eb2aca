"""Disks in a pool: which there are, which are whole, what is never touched, and how much room there is."""

import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import pytest

libvirt = pytest.importorskip(
    "libvirt", reason="libvirt-python is not installed: it is built where libvirt's headers are"
)

from scheduler.core.facts import ObservedDisk
from scheduler.core.requests import DiskId, HostId
from scheduler.core.topology import VmSettings
from workers.drivers.libvirt.connection import Connection
from workers.drivers.libvirt.images import LibvirtImages
from workers.drivers.libvirt.volumes import GIB, Volumes
from workers.ports import DiskInUse, DriverError, NoSuchDisk, PoolFull

POOL, IMAGES = "nightshift", "nightshift-images"
BACKED = "/nightshift-images/ubuntu"
HOLDER = UUID("6f14a8d0-8c4b-4d1c-ae8e-9cd7d37ed9e2")
DISK = DiskId("d-1")


def refusal(code: int, words: str = "refused") -> Any:
    error = libvirt.libvirtError(words)
    error.err = (code, libvirt.VIR_FROM_STORAGE, words, 2, words, None, None, -1, -1)
    return error


class FakeVolume:
    """A volume as libvirt shows it. Its own test driver neither wipes, refreshes nor knows sparse files."""

    def __init__(
        self, pool: "FakePool", name: str, *, size_gib: float, taken: int, form: str = "qcow2", backing: str = ""
    ) -> None:
        self._pool, self._name, self.form, self.backing = pool, name, form, backing
        self.size, self.taken = int(size_gib * GIB), taken
        self.changed = ""
        """When it was written last; a libvirt may not say."""
        self.error: Any = None
        self.done: list[str] = []
        self.may_wipe = threading.Event()
        self.may_wipe.set()
        self.is_wiping = threading.Event()

    def name(self) -> str:
        return self._name

    def path(self) -> str:
        return f"/{self._pool.name()}/{self._name}"

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802
        if self.error is not None:
            raise self.error
        backing = f"<backingStore><path>{self.backing}</path></backingStore>" if self.backing else ""
        changed = f"<timestamps><mtime>{self.changed}</mtime></timestamps>" if self.changed else ""
        target = f"<path>{self.path()}</path><format type={quoteattr(self.form)}/>{changed}"
        return f"<volume><physical>{self.size}</physical><target>{target}</target>{backing}</volume>"

    def info(self) -> list[int]:
        if self.error is not None:
            raise self.error
        return [0, self.size, self.taken]

    def wipe(self, _flags: int) -> None:
        self.is_wiping.set()
        assert self.may_wipe.wait(10)
        self.done.append("wiped")

    def delete(self, _flags: int) -> None:
        self.done.append("deleted")
        self._pool.volumes.pop(self._name, None)


class FakePool:
    def __init__(self, name: str, *, capacity_gib: int = 100, available_gib: int = 100) -> None:
        self._name = name
        self.volumes: dict[str, FakeVolume] = {}
        self.unlisted: dict[str, FakeVolume] = {}
        self.capacity_gib, self.available_gib = capacity_gib, available_gib
        self.is_on = True
        self.refresh_error: Any = None
        self.made: list[str] = []

    def put(self, name: str, *, size_gib: float = 10, taken: int = 200 << 10, **more: Any) -> FakeVolume:
        self.volumes[name] = FakeVolume(self, name, size_gib=size_gib, taken=taken, **more)
        return self.volumes[name]

    def name(self) -> str:
        return self._name

    def isActive(self) -> bool:  # noqa: N802
        return self.is_on

    def refresh(self, _flags: int) -> None:
        if self.refresh_error is not None:
            raise self.refresh_error
        self.volumes.update(self.unlisted)

    def info(self) -> list[int]:
        return [2, self.capacity_gib * GIB, 0, self.available_gib * GIB]

    def listAllVolumes(self, _flags: int) -> list[FakeVolume]:  # noqa: N802
        if not self.is_on:
            raise refusal(libvirt.VIR_ERR_OPERATION_INVALID, "storage pool is not active")
        return list(self.volumes.values())

    def storageVolLookupByName(self, name: str) -> FakeVolume:  # noqa: N802
        if name not in self.volumes:
            raise refusal(libvirt.VIR_ERR_NO_STORAGE_VOL)
        return self.volumes[name]

    def createXML(self, xml: str, _flags: int) -> FakeVolume:  # noqa: N802
        name = ElementTree.fromstring(xml).findtext("name", "")
        if name != f"{DISK}.qcow2":
            return self.put(name, size_gib=0, taken=0, form="raw")
        self.made.append(xml)
        return self.put(name, backing=BACKED)


class FakeDomain:
    def __init__(self, source: str) -> None:
        self._source = source

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802
        if not self._source:
            raise refusal(libvirt.VIR_ERR_NO_DOMAIN)
        return (
            f"<domain><uuid>{HOLDER}</uuid><name>by-hand</name>"
            f"<devices><disk><source {self._source}/><readonly/></disk></devices></domain>"
        )


class FakeHost:
    def __init__(self) -> None:
        self.pools = {POOL: FakePool(POOL), IMAGES: FakePool(IMAGES)}
        self.pools[IMAGES].put("ubuntu", size_gib=2, form="raw")
        self.domains: list[FakeDomain] = []

    @property
    def pool(self) -> FakePool:
        return self.pools[POOL]

    def storagePoolLookupByName(self, name: str) -> FakePool:  # noqa: N802
        if name not in self.pools:
            raise refusal(libvirt.VIR_ERR_NO_STORAGE_POOL)
        return self.pools[name]

    def storageVolLookupByPath(self, path: str) -> FakeVolume:  # noqa: N802
        found = [v for pool in self.pools.values() for v in pool.volumes.values() if v.path() == path]
        if not found:
            raise refusal(libvirt.VIR_ERR_NO_STORAGE_VOL)
        return found[0]

    def listAllDomains(self, _flags: int) -> list[FakeDomain]:  # noqa: N802
        return self.domains


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def volumes() -> Volumes:
    return Volumes(POOL)


@pytest.fixture
def images(host: FakeHost, volumes: Volumes, monkeypatch: pytest.MonkeyPatch) -> Iterator[LibvirtImages]:
    connection = Connection(HostId("dgx2-a"), "test:///default")
    monkeypatch.setattr(connection, "_opened", lambda: host)
    monkeypatch.setattr(connection, "block_apart", connection.block)
    yield LibvirtImages(connection, VmSettings(pool=POOL, image_pool=IMAGES), volumes)
    connection.close()


def create(images: LibvirtImages, size_gib: int = 10) -> None:
    images.create_disk(DISK, image="ubuntu", size_gib=size_gib, timeout_s=10)


def ids(shown: tuple[ObservedDisk, ...]) -> list[tuple[str, bool]]:
    return [(disk.id, disk.is_ready) for disk in shown]


# ---- looking


def test_a_disk_on_its_image_is_ready(host: FakeHost, volumes: Volumes) -> None:
    host.pool.put("d-1.qcow2", size_gib=9.5, backing=BACKED)
    (disk,) = volumes.observe(host, {})
    assert disk == ObservedDisk(id="d-1", size_gib=10, is_ready=True, is_busy=False, held_by=None)


@pytest.mark.parametrize("where", ["/nightshift/d-1.qcow2", "d-1.qcow2"])
def test_a_disk_is_held_by_path_or_by_name_in_the_pool(host: FakeHost, volumes: Volumes, where: str) -> None:
    host.pool.put("d-1.qcow2", backing=BACKED)
    assert volumes.observe(host, {where: HOLDER})[0].held_by == HOLDER


def test_only_disks_are_shown_so_nothing_of_others_passes_for_one(host: FakeHost, volumes: Volumes) -> None:
    for name in ("d-1", "d-1.raw", "d-1.seed.iso", "d-2.qcow2.bak"):
        host.pool.put(name, form="raw", taken=GIB)
    assert volumes.observe(host, {}) == ()


def test_a_disk_without_its_image_and_without_content_is_half_made(host: FakeHost, volumes: Volumes) -> None:
    host.pool.put("d-1.qcow2")
    assert ids(volumes.observe(host, {})) == [("d-1", False)]


def test_a_disk_that_was_made_to_stand_alone_is_whole(host: FakeHost, volumes: Volumes) -> None:
    host.pool.put("d-1.qcow2", taken=3 * GIB)
    assert ids(volumes.observe(host, {})) == [("d-1", True)]


def test_a_volume_that_cannot_be_read_hides_no_other(host: FakeHost, volumes: Volumes) -> None:
    host.pool.put("a.qcow2").error = refusal(libvirt.VIR_ERR_SYSTEM_ERROR, "cannot open volume: Input/output error")
    host.pool.put("b.qcow2").error = refusal(libvirt.VIR_ERR_NO_STORAGE_VOL)
    host.pool.put("d-1.qcow2", backing=BACKED)
    assert ids(volumes.observe(host, {})) == [("d-1", True)]


def test_a_pool_that_is_not_active_has_not_lost_its_disks(host: FakeHost, volumes: Volumes) -> None:
    host.pool.put("d-1.qcow2", backing=BACKED)
    assert ids(volumes.observe(host, {})) == [("d-1", True)]
    host.pool.is_on = False
    assert ids(volumes.observe(host, {})) == [("d-1", False)]
    gone = host.pools.pop(POOL)
    assert ids(volumes.observe(host, {})) == [("d-1", False)]
    host.pools[POOL], gone.is_on = gone, True
    assert ids(volumes.observe(host, {})) == [("d-1", True)]
    del gone.volumes["d-1.qcow2"]
    assert volumes.observe(host, {}) == ()


def test_a_host_without_the_pool_has_no_disks(host: FakeHost) -> None:
    assert Volumes("none").observe(host, {}) == ()


# ---- making


def test_a_disk_is_made_on_its_image(host: FakeHost, images: LibvirtImages) -> None:
    create(images)
    assert f"<path>{BACKED}</path>" in host.pool.made[0]
    create(images)
    assert len(host.pool.made) == 1


def test_a_half_made_disk_is_begun_anew(host: FakeHost, images: LibvirtImages) -> None:
    left = host.pool.put("d-1.qcow2")
    create(images)
    assert (left.done, len(host.pool.made)) == (["deleted"], 1)


def test_a_disk_that_was_made_to_stand_alone_is_kept(host: FakeHost, images: LibvirtImages) -> None:
    alone = host.pool.put("d-1.qcow2", taken=3 * GIB)
    create(images)
    assert (alone.done, host.pool.made) == ([], [])


def test_a_file_with_content_that_is_no_disk_is_left_as_it_is(host: FakeHost, images: LibvirtImages) -> None:
    odd = host.pool.put("d-1.qcow2", form="raw", taken=3 * GIB)
    with pytest.raises(DriverError, match=r"d-1\.qcow2 is no qcow2 file, and not empty: it is left"):
        create(images)
    assert (odd.done, host.pool.made) == ([], [])


def test_a_disk_that_another_host_made_in_a_shared_pool_is_found(host: FakeHost, images: LibvirtImages) -> None:
    host.pool.unlisted["d-1.qcow2"] = FakeVolume(host.pool, "d-1.qcow2", size_gib=10, taken=GIB, backing=BACKED)
    create(images)
    assert host.pool.made == []


def test_a_pool_that_is_busy_for_others_is_used_as_it_is_known(host: FakeHost, images: LibvirtImages) -> None:
    host.pool.refresh_error = refusal(
        libvirt.VIR_ERR_INTERNAL_ERROR, "pool 'nightshift' has asynchronous jobs running."
    )
    create(images)
    assert len(host.pool.made) == 1


# ---- the image it stands on


@pytest.fixture
def image(host: FakeHost) -> FakeVolume:
    found = host.pools[IMAGES].volumes["ubuntu"]
    found.changed = "1764358660.123"
    return found


def notes(host: FakeHost) -> list[str]:
    return sorted(name for name in host.pool.volumes if ".base." in name)


def test_a_disk_whose_image_was_replaced_under_its_name_is_not_started_until_the_old_one_is_back(
    host: FakeHost, images: LibvirtImages, image: FakeVolume
) -> None:
    create(images)
    create(images)
    image.changed = "1764400000.5"
    with pytest.raises(NoSuchDisk, match=r"/ubuntu was replaced since disk d-1 was made on it"):
        create(images)
    image.changed, image.size = "1764358660.123", 3 * GIB
    with pytest.raises(NoSuchDisk, match=r"virsh vol-delete --pool nightshift d-1\.base\."):
        create(images)
    image.size = 2 * GIB
    create(images)
    assert len(host.pool.made) == 1


def test_a_disk_of_before_there_were_notes_is_held_to_the_image_it_is_first_seen_on(
    host: FakeHost, images: LibvirtImages, image: FakeVolume
) -> None:
    host.pool.put("d-1.qcow2", taken=GIB, backing=BACKED)
    create(images)
    assert notes(host) == [f"d-1.base.{2 * GIB}-1764358660.123"]
    image.changed = "1764400000.5"
    with pytest.raises(NoSuchDisk, match="was replaced"):
        create(images)


def test_a_note_that_another_host_wrote_in_a_shared_pool_is_found(
    host: FakeHost, images: LibvirtImages, image: FakeVolume
) -> None:
    host.pool.put("d-1.qcow2", taken=GIB, backing=BACKED)
    host.pool.unlisted["d-1.base.1-1"] = FakeVolume(host.pool, "d-1.base.1-1", size_gib=0, taken=0, form="raw")
    with pytest.raises(NoSuchDisk, match="was replaced"):
        create(images)


def test_a_disk_that_is_begun_anew_is_noted_anew(host: FakeHost, images: LibvirtImages, image: FakeVolume) -> None:
    host.pool.put("d-1.qcow2")
    host.pool.put("d-1.base.1-1", size_gib=0, taken=0, form="raw")
    host.pool.put("d-11.base.1-1", size_gib=0, taken=0, form="raw")
    create(images)
    assert notes(host) == [f"d-1.base.{2 * GIB}-1764358660.123", "d-11.base.1-1"]
    images.delete_disk(DISK, timeout_s=10)
    assert notes(host) == ["d-11.base.1-1"]


def test_an_image_of_which_nothing_can_be_told_keeps_no_disk_from_its_start(
    host: FakeHost, images: LibvirtImages, image: FakeVolume
) -> None:
    create(images)
    del host.pools[IMAGES].volumes["ubuntu"]
    create(images)
    alone = host.pool.volumes["d-1.qcow2"]
    alone.backing, alone.taken = "", 3 * GIB
    create(images)


def test_a_disk_smaller_than_its_image_is_refused(images: LibvirtImages) -> None:
    with pytest.raises(DriverError, match="ask for a disk of at least 2 GiB"):
        create(images, 1)


def test_a_disk_of_an_image_that_is_not_there_is_refused(images: LibvirtImages) -> None:
    with pytest.raises(NoSuchDisk, match=r"matching name '\.\./ubuntu' in pool nightshift-images"):
        images.create_disk(DISK, image="../ubuntu", size_gib=10, timeout_s=10)


def test_no_disk_is_made_in_a_pool_that_is_not_active(host: FakeHost, images: LibvirtImages) -> None:
    host.pool.is_on = False
    with pytest.raises(NoSuchDisk, match="virsh pool-start nightshift"):
        create(images)


# ---- room


def test_room_that_was_given_to_disks_is_not_given_twice(host: FakeHost, images: LibvirtImages) -> None:
    host.pool.put("d-2.qcow2", size_gib=95, backing=BACKED)
    with pytest.raises(PoolFull, match="5 of 100 GiB are not given to disks yet"):
        create(images, 6)
    create(images, 5)


def test_room_that_something_else_took_is_not_given_to_disks(host: FakeHost, images: LibvirtImages) -> None:
    host.pool.available_gib = 30
    host.pool.put("d-2.qcow2", size_gib=20, taken=5 * GIB, backing=BACKED)
    with pytest.raises(PoolFull):
        create(images, 16)
    create(images, 15)


# ---- deleting


def test_a_disk_is_wiped_before_it_is_deleted_and_its_seed_goes_too(host: FakeHost, images: LibvirtImages) -> None:
    disk, seed = host.pool.put("d-1.qcow2", backing=BACKED), host.pool.put("d-1.seed.iso")
    others = host.pool.put("d-1"), host.pool.put("d-11.qcow2", backing=BACKED)
    images.delete_disk(DISK, timeout_s=10)
    assert (disk.done, seed.done) == (["wiped", "deleted"], ["deleted"])
    assert [other.done for other in others] == [[], []]
    images.delete_disk(DISK, timeout_s=10)


@pytest.mark.parametrize(
    "source", ["file='/nightshift/d-1.qcow2'", "file='/nightshift/./d-1.qcow2'", "pool='nightshift' volume='d-1.qcow2'"]
)
def test_a_disk_that_a_domain_has_open_is_left_however_that_names_it(
    host: FakeHost, images: LibvirtImages, source: str
) -> None:
    disk = host.pool.put("d-1.qcow2", backing=BACKED)
    host.domains = [FakeDomain(""), FakeDomain(source)]
    with pytest.raises(DiskInUse, match="domain by-hand has disk d-1 open"):
        images.delete_disk(DISK, timeout_s=10)
    assert disk.done == []


def test_a_domain_that_goes_while_it_is_read_has_no_disk_open(host: FakeHost, images: LibvirtImages) -> None:
    disk = host.pool.put("d-1.qcow2", backing=BACKED)
    host.domains = [FakeDomain("")]
    images.delete_disk(DISK, timeout_s=10)
    assert disk.done == ["wiped", "deleted"]


def test_a_disk_that_is_being_wiped_is_busy_and_not_wiped_twice(
    host: FakeHost, images: LibvirtImages, volumes: Volumes
) -> None:
    disk = host.pool.put("d-1.qcow2", backing=BACKED)
    disk.may_wipe.clear()
    wiping = threading.Thread(target=images.delete_disk, args=(DISK,), kwargs={"timeout_s": 10})
    wiping.start()
    assert disk.is_wiping.wait(10)
    assert [(seen.is_ready, seen.is_busy) for seen in volumes.observe(host, {})] == [(False, True)]
    with pytest.raises(DiskInUse, match="is being worked on"):
        images.delete_disk(DISK, timeout_s=10)
    disk.may_wipe.set()
    wiping.join(10)
    assert disk.done == ["wiped", "deleted"]


def test_the_path_of_a_disk_is_one_spelling(host: FakeHost, volumes: Volumes) -> None:
    volume = host.pool.put("d-1.qcow2", backing=BACKED)
    volume.path = lambda: "/nightshift//d-1.qcow2"  # type: ignore[method-assign]
    assert volumes.observe(host, {"/nightshift/d-1.qcow2": HOLDER})[0].held_by == HOLDER
