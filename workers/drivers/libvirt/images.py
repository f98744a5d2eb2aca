"""The verbs of `workers.ports.Images` on a real libvirt: disks as qcow2 files on top of an image, in a storage pool.

A disk holds only what differs from its image, so making one takes no time, and an image that disks stand on must not be
changed or removed. Which image that was is noted beside each disk (`bases`). What the sizes of all disks come to may
not be more than the pool has: a guest never meets a pool that is full.
"""

import posixpath
import threading
from collections.abc import Callable, Iterable
from typing import Any
from xml.etree import ElementTree

import libvirt

from scheduler.core.requests import DiskId
from scheduler.core.topology import VmSettings
from workers.drivers.libvirt.bases import base_of, forget_base, need_same_base, note_base
from workers.drivers.libvirt.connection import Connection
from workers.drivers.libvirt.domains import active_domains
from workers.drivers.libvirt.reading import DescribedVolume, read_volume
from workers.drivers.libvirt.refusals import is_code
from workers.drivers.libvirt.seed import seed_iso
from workers.drivers.libvirt.volumes import DISK_SUFFIX, GIB, SEED_SUFFIX, Volumes, refresh
from workers.ports import DiskInUse, DomainSpec, DriverError, NoSuchDisk, PoolFull

IMAGE_SUFFIXES = ("", ".qcow2", ".img", ".raw")
"""Image `ubuntu-22.04` may be a volume of that name, or with one of these behind it."""
_CHUNK = 1 << 16


class LibvirtImages:
    """`workers.ports.Images` on one host."""

    def __init__(self, connection: Connection, settings: VmSettings, volumes: Volumes) -> None:
        self._connection = connection
        self._settings = settings
        self._volumes = volumes
        self._making = threading.Lock()
        """One disk after the other: two must not be given the same room, and each takes no time."""

    def create_disk(self, disk: DiskId, *, image: str, size_gib: int, timeout_s: int, must_exist: bool = False) -> None:
        name = f"{disk}{DISK_SUFFIX}"

        def create(conn: Any) -> None:
            pool = self._pool(conn, self._settings.pool)
            with self._making:
                make(conn, pool)

        def make(conn: Any, pool: Any) -> None:
            handle = _volume(pool, name)
            if handle is None:
                # Another host that shares the pool may have made it: libvirt does not see that by itself.
                refresh(pool)
                handle = _volume(pool, name)
            if handle is not None:
                found = self._volumes.read(handle)
                if found is not None and found.is_whole:
                    need_same_base(conn, pool, disk, found.backing)
                    return
                if found is not None and not found.is_empty:
                    raise DriverError(
                        f"volume {name} is no qcow2 file, and not empty: it is left as it is; look whose it is, and"
                        " move it out of the pool",
                        disk=disk,
                    )
            if must_exist:
                raise NoSuchDisk(
                    f"disk {disk} has been used and is not in pool {self._settings.pool} now; none is made in its"
                    " place: is the pool's file system mounted? bring the disk back, or cancel the reservation",
                    disk=disk,
                )
            base, needs_gib = self._image(conn, image, disk)
            if size_gib < needs_gib:
                raise DriverError(
                    f"image {image} is {needs_gib} GiB large and does not fit on disk {disk} of {size_gib} GiB; ask"
                    f" for a disk of at least {needs_gib} GiB",
                    disk=disk,
                    image=image,
                )
            _need_room(pool, disk, size_gib)
            with self._volumes.work_on(name):
                if handle is not None:
                    # What an earlier attempt left that was cut off.
                    _unless_gone(lambda: handle.delete(0))
                # Before the disk: one without a note is taken for one of before there were notes.
                note_base(pool, disk, base_of(conn, base.path))
                pool.createXML(_disk_xml(name, size_gib, base), 0)

        self._connection.block(create, what="create_disk", subject=disk, limit_s=timeout_s)

    def delete_disk(self, disk: DiskId, *, timeout_s: int) -> None:
        name = f"{disk}{DISK_SUFFIX}"

        def delete(conn: Any) -> None:
            pool = self._pool(conn, self._settings.pool)
            handle = _volume(pool, name)
            if handle is not None:
                path = posixpath.normpath(handle.path())
                with self._volumes.work_on(name):
                    for domain in active_domains(conn):
                        if path in domain.files or (pool.name(), name) in domain.volumes:
                            raise DiskInUse(
                                f'Failed to get "write" lock: domain {domain.name} has disk {disk} open', disk=disk
                            )
                    _unless_gone(lambda: handle.wipe(0))
                    _unless_gone(lambda: handle.delete(0))
            seed = _volume(pool, f"{disk}{SEED_SUFFIX}")
            if seed is not None:
                _unless_gone(lambda: seed.delete(0))
            forget_base(pool, disk)

        self._connection.block_apart(delete, what="delete_disk", subject=disk, limit_s=timeout_s)

    def paths_of(self, spec: DomainSpec) -> tuple[str, str]:
        """Return where a domain's disk and its seed for cloud-init are; the seed is written anew."""
        content = seed_iso(reservation=spec.reservation, host_name=spec.host_name, ssh_key=spec.ssh_key)

        def find(conn: Any) -> tuple[str, str]:
            pool = self._pool(conn, self._settings.pool)
            # A disk that is not there yet is the start's trouble, not the definition's.
            folder = ElementTree.fromstring(pool.XMLDesc(0)).findtext("./target/path", "")
            seed_path = _written(conn, pool, f"{spec.disk}{SEED_SUFFIX}", content)
            return f"{folder}/{spec.disk}{DISK_SUFFIX}", seed_path

        return self._connection.ask(find, what="define", subject=spec.disk)

    def missing(self, conn: Any, images: Iterable[str]) -> tuple[str, ...]:
        """Return those images that the host does not have."""
        try:
            pool = self._pool(conn, self._settings.image_pool)
        except NoSuchDisk:
            return tuple(images)
        return tuple(image for image in images if _image_volume(pool, image) is None)

    def _pool(self, conn: Any, name: str) -> Any:
        try:
            pool = conn.storagePoolLookupByName(name)
        except libvirt.libvirtError as error:
            if is_code(error, libvirt.VIR_ERR_NO_STORAGE_POOL):
                raise NoSuchDisk(
                    f"Storage pool not found: no storage pool with matching name '{name}'; make it, see operators.md",
                    pool=name,
                ) from error
            raise
        if not pool.isActive():
            raise NoSuchDisk(
                f"storage pool '{name}' is not active; virsh pool-start {name}; virsh pool-autostart {name}", pool=name
            )
        return pool

    def _image(self, conn: Any, image: str, disk: DiskId) -> tuple[DescribedVolume, int]:
        """Return an image, and how large a disk it needs."""
        name = self._settings.image_pool
        pool = self._pool(conn, name)
        handle = _image_volume(pool, image)
        if handle is None:
            # Somebody may have put it there just now, beside libvirt.
            refresh(pool)
            handle = _image_volume(pool, image)
        if handle is None:
            raise NoSuchDisk(
                f"Storage volume not found: no storage vol with matching name '{image}' in pool {name}; put the image"
                " there, or take it out of the policy",
                image=image,
                disk=disk,
            )
        return read_volume(handle.XMLDesc(0)), -(-handle.info()[1] // GIB)


def _image_volume(pool: Any, image: str) -> Any:
    return next((found for suffix in IMAGE_SUFFIXES if (found := _volume(pool, f"{image}{suffix}")) is not None), None)


def _volume(pool: Any, name: str) -> Any:
    """Return libvirt's volume, or None."""
    try:
        return pool.storageVolLookupByName(name)
    except libvirt.libvirtError as error:
        if is_code(error, libvirt.VIR_ERR_NO_STORAGE_VOL):
            return None
        raise


def _need_room(pool: Any, disk: DiskId, size_gib: int) -> None:
    """Raise PoolFull when the sizes of all disks would come to more than the pool has."""
    refresh(pool)
    _, capacity, _, available = pool.info()
    own = f"{disk}{DISK_SUFFIX}"
    sizes = [_sizes(volume) for volume in pool.listAllVolumes(0) if volume.name() != own]
    not_given = capacity - sum(size for size, _ in sizes)
    # What is there now, less what disks may come to take of it.
    not_needed = available - sum(max(0, size - taken) for size, taken in sizes)
    free = min(not_given, not_needed)
    if size_gib * GIB > free:
        raise PoolFull(
            f"cannot allocate {size_gib * GIB} bytes for disk {disk} in pool {pool.name()}: {max(0, free) // GIB} of"
            f" {capacity // GIB} GiB are not given to disks yet: No space left on device; make room in the pool",
            disk=disk,
            size_gib=size_gib,
            free_gib=max(0, free) // GIB,
        )


def _sizes(volume: Any) -> tuple[int, int]:
    """Return how large a volume may become, and how large it is."""
    try:
        _, capacity, allocated = volume.info()
    except libvirt.libvirtError as error:
        # Another worker is just making it, or it is gone.
        if is_code(error, libvirt.VIR_ERR_NO_STORAGE_VOL):
            return 0, 0
        raise
    return int(capacity), int(allocated)


def _unless_gone(call: Callable[[], object]) -> None:
    """Do something to a volume; one that is gone needs nothing more."""
    try:
        call()
    except libvirt.libvirtError as error:
        if not is_code(error, libvirt.VIR_ERR_NO_STORAGE_VOL):
            raise


def _disk_xml(name: str, size_gib: int, base: DescribedVolume) -> str:
    root = ElementTree.Element("volume")
    ElementTree.SubElement(root, "name").text = name
    ElementTree.SubElement(root, "capacity", unit="GiB").text = str(size_gib)
    target = ElementTree.SubElement(root, "target")
    ElementTree.SubElement(target, "format", type="qcow2")
    backing = ElementTree.SubElement(root, "backingStore")
    ElementTree.SubElement(backing, "path").text = base.path
    ElementTree.SubElement(backing, "format", type=base.format or "raw")
    return ElementTree.tostring(root, encoding="unicode")


def _written(conn: Any, pool: Any, name: str, content: bytes) -> str:
    """Write a small volume whole and return its path."""
    handle = _volume(pool, name)
    if handle is None:
        refresh(pool)
        handle = _volume(pool, name)
    if handle is not None and _sizes(handle)[0] != len(content):
        _unless_gone(lambda: handle.delete(0))
        handle = None
    if handle is None:
        root = ElementTree.Element("volume")
        ElementTree.SubElement(root, "name").text = name
        ElementTree.SubElement(root, "capacity", unit="bytes").text = str(len(content))
        target = ElementTree.SubElement(root, "target")
        ElementTree.SubElement(target, "format", type="raw")
        handle = pool.createXML(ElementTree.tostring(root, encoding="unicode"), 0)
    stream = conn.newStream(0)
    handle.upload(stream, 0, len(content), 0)
    for begin in range(0, len(content), _CHUNK):
        _send_all(stream, content[begin : begin + _CHUNK])
    stream.finish()
    return str(handle.path())


def _send_all(stream: Any, data: bytes) -> None:
    while data:
        data = data[stream.send(data) :]
