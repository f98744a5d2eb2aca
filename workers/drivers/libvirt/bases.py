"""Which image a disk was made on, noted beside it, so that it is not started on another one of the same name.

A disk holds only what differs from its image: on an image that was replaced in place its data is garbage, and a guest
that writes makes it so for good. The note is an empty volume in the disk's pool, and all that it says is in its name:
`d-1.base.SIZE-TIME`, size in bytes and time of the last change of the image. It outlives workers and definitions, and
whoever shares the pool sees it. Both are told by libvirt wherever the worker runs, without reading the image.
"""

from typing import Any
from xml.etree import ElementTree

import libvirt

from scheduler.core.requests import DiskId
from workers.drivers.libvirt.refusals import is_about_the_connection, is_code
from workers.drivers.libvirt.volumes import refresh
from workers.ports import NoSuchDisk

BASE_MARK = ".base."


def base_of(conn: Any, path: str) -> str:
    """Return size and time of an image; empty when they cannot be told."""
    try:
        root = ElementTree.fromstring(conn.storageVolLookupByPath(path).XMLDesc(0))
    except libvirt.libvirtError as error:
        if is_about_the_connection(error):
            raise
        return ""
    changed = root.findtext("./target/timestamps/mtime", "")
    return f"{root.findtext('physical', '')}-{changed}" if changed else ""


def note_base(pool: Any, disk: DiskId, base: str) -> None:
    """Note which image a disk is made on, in place of what was noted before. May be called again."""
    name = f"{disk}{BASE_MARK}{base}"
    notes = _notes(pool, disk)
    if base and name not in {note.name() for note in notes}:
        root = ElementTree.Element("volume")
        ElementTree.SubElement(root, "name").text = name
        ElementTree.SubElement(root, "capacity", unit="bytes").text = "0"
        target = ElementTree.SubElement(root, "target")
        ElementTree.SubElement(target, "format", type="raw")
        pool.createXML(ElementTree.tostring(root, encoding="unicode"), 0)
    for note in notes:
        if note.name() != name:
            _remove(note)


def forget_base(pool: Any, disk: DiskId) -> None:
    """Remove what was noted of a disk. May be called again."""
    for note in _notes(pool, disk):
        _remove(note)


def need_same_base(conn: Any, pool: Any, disk: DiskId, path: str) -> None:
    """Raise NoSuchDisk when another file is where the image of a disk was; of a disk without a note, note it now."""
    base = base_of(conn, path) if path else ""
    if not base:
        # It stands alone; or nobody can say, and QEMU opens it or does not.
        return
    notes = _notes(pool, disk)
    if not notes:
        # Another host that shares the pool may have written it.
        refresh(pool)
        notes = _notes(pool, disk)
    name = f"{disk}{BASE_MARK}{base}"
    if not notes:
        note_base(pool, disk, base)
    elif name not in {note.name() for note in notes}:
        raise NoSuchDisk(
            f"image {path} was replaced since disk {disk} was made on it, and on another image its data is garbage: it"
            " is not started; put the old image back with its time (cp --preserve), or cancel the reservation. If"
            f" only the time differs: virsh vol-delete --pool {pool.name()} {notes[0].name()}",
            disk=disk,
            image=path,
        )


def _notes(pool: Any, disk: DiskId) -> list[Any]:
    return [volume for volume in pool.listAllVolumes(0) if volume.name().startswith(f"{disk}{BASE_MARK}")]


def _remove(note: Any) -> None:
    try:
        note.delete(0)
    except libvirt.libvirtError as error:
        if not is_code(error, libvirt.VIR_ERR_NO_STORAGE_VOL):
            raise
