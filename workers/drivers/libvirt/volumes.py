"""The volumes of the pool that VM disks live in: which there are, which are whole.

A disk is a qcow2 file on top of its image, made in one step: its header names the image, or it is no disk yet. One that
was made to stand alone later, by hand, names none and is large. Names: disk `d-1` is volume `d-1.qcow2`, its seed for
cloud-init `d-1.seed.iso`, and the empty `d-1.base.SIZE-TIME` says which image it was made on; whatever else is in the
pool is nobody's disk.
"""

import logging
import posixpath
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import libvirt

from scheduler.core.facts import ObservedDisk
from workers.drivers.libvirt.reading import read_volume
from workers.drivers.libvirt.refusals import is_about_the_connection, is_code
from workers.ports import DiskInUse

_log = logging.getLogger(__name__)

DISK_SUFFIX = ".qcow2"
SEED_SUFFIX = ".seed.iso"
GIB = 1 << 30
MIB = 1 << 20
QCOW2 = "qcow2"
_EMPTY_BYTES = 4 * MIB
"""Headers and tables of a qcow2 file into which nobody has written come to less, up to terabytes."""
_NO_POOL = (libvirt.VIR_ERR_NO_STORAGE_POOL, libvirt.VIR_ERR_OPERATION_INVALID)


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A volume that was read."""

    name: str
    path: str
    size_gib: int
    is_whole: bool
    is_empty: bool
    """Nothing but headers is in it: nobody's data is lost with it."""
    backing: str
    """Path of the image that it stands on; empty for one that stands alone."""


class Volumes:
    """Reads volumes; those that are whole are read once. Safe to use from several threads."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self._lock = threading.Lock()
        self._known: dict[str, Volume] = {}
        self._busy: set[str] = set()
        self._shown: tuple[Volume, ...] = ()
        self._is_read = True

    @property
    def is_read(self) -> bool:
        """Whether the pool could be read at the last look."""
        return self._is_read

    def observe(self, conn: Any, held_by: Mapping[str, UUID]) -> tuple[ObservedDisk, ...]:
        """Return the disks in the pool. `held_by`: domains that are on, by the path of a disk or its name in the pool.

        A pool that cannot be read has not lost its disks: those that were shown last are, as not ready.
        """
        try:
            found = conn.storagePoolLookupByName(self.pool).listAllVolumes(0)
        except libvirt.libvirtError as error:
            if not any(is_code(error, code) for code in _NO_POOL):
                raise
            with self._lock:
                self._is_read = False
                shown = tuple(replace(volume, is_whole=False) for volume in self._shown)
        else:
            read = (self._read(volume) for volume in found if volume.name().endswith(DISK_SUFFIX))
            shown = tuple(sorted((volume for volume in read if volume is not None), key=lambda volume: volume.name))
            names = {volume.name for volume in shown}
            with self._lock:
                self._is_read = True
                self._shown = shown
                for name in self._known.keys() - names:
                    del self._known[name]
        with self._lock:
            busy = frozenset(self._busy)
        return tuple(
            ObservedDisk(
                id=volume.name.removesuffix(DISK_SUFFIX),
                size_gib=volume.size_gib,
                is_ready=volume.is_whole and volume.name not in busy,
                is_busy=volume.name in busy,
                held_by=held_by.get(volume.path) or held_by.get(volume.name),
            )
            for volume in shown
        )

    def read(self, handle: Any) -> Volume | None:
        """Return a volume as it is right now; None when it is gone."""
        self.forget(handle.name())
        return self._read(handle)

    def forget(self, name: str) -> None:
        """Read a volume anew at the next look."""
        with self._lock:
            self._known.pop(name, None)

    @contextmanager
    def work_on(self, name: str) -> Iterator[None]:
        """Show a volume as busy; entered by the thread that does the work, so it lasts as long as the work does.

        Raises DiskInUse while another thread works on it.
        """
        with self._lock:
            if name in self._busy:
                raise DiskInUse(
                    f"volume {name} is being worked on: what was asked of it before has not ended", volume=name
                )
            self._busy.add(name)
            self._known.pop(name, None)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(name)
                self._known.pop(name, None)

    def _read(self, handle: Any) -> Volume | None:
        name = handle.name()
        with self._lock:
            known = self._known.get(name)
        if known is not None:
            return known
        try:
            described, (_, capacity, allocated) = read_volume(handle.XMLDesc(0)), handle.info()
        except libvirt.libvirtError as error:
            if is_about_the_connection(error):
                raise
            if not is_code(error, libvirt.VIR_ERR_NO_STORAGE_VOL):
                # One that cannot be read must not hide the host; a disk of ours is told of when it is needed.
                _log.debug("volume.unreadable volume=%s error=%s", name, error)
            return None
        is_empty = allocated <= _EMPTY_BYTES
        volume = Volume(
            name=name,
            path=posixpath.normpath(described.path),
            size_gib=-(-capacity // GIB),
            is_whole=described.format == QCOW2 and (bool(described.backing) or not is_empty),
            is_empty=is_empty,
            backing=described.backing,
        )
        if volume.is_whole:
            with self._lock:
                if name not in self._busy:
                    self._known[name] = volume
        return volume


def refresh(pool: Any) -> None:
    """Have libvirt look at the pool's folder; where somebody is making a volume in it, it sees that one anyhow."""
    try:
        pool.refresh(0)
    except libvirt.libvirtError as error:
        if is_about_the_connection(error) or not pool.isActive():
            raise
        _log.debug("pool.not_refreshed pool=%s error=%s", pool.name(), error)
