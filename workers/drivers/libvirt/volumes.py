"""The volumes of the pool that VM disks live in: which there are, which are whole.

A disk is a qcow2 file on top of its image, made in one step: either its header is there and names the image, or it is
no disk yet. Names: disk `d-1` is volume `d-1.qcow2`, and its seed for cloud-init `d-1.seed.iso`.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import libvirt

from scheduler.core.facts import ObservedDisk
from workers.drivers.libvirt.reading import read_volume
from workers.drivers.libvirt.refusals import is_code

DISK_SUFFIX = ".qcow2"
SEED_SUFFIX = ".seed.iso"
GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A volume that was read."""

    name: str
    path: str
    size_gib: int
    is_whole: bool


class Volumes:
    """Reads volumes; those that are whole are read once. Safe to use from several threads."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self._lock = threading.Lock()
        self._known: dict[str, Volume] = {}
        self._busy: set[str] = set()

    def observe(self, conn: Any, held_by: Mapping[str, UUID]) -> tuple[ObservedDisk, ...]:
        """Return the disks in the pool; nothing where there is none. `held_by`: domains that are on, by path."""
        try:
            found = conn.storagePoolLookupByName(self.pool).listAllVolumes(0)
        except libvirt.libvirtError as error:
            if is_code(error, libvirt.VIR_ERR_NO_STORAGE_POOL) or is_code(error, libvirt.VIR_ERR_OPERATION_INVALID):
                return ()
            raise
        seen = [self._read(volume) for volume in found if not volume.name().endswith(SEED_SUFFIX)]
        names = {volume.name for volume in seen if volume is not None}
        with self._lock:
            for name in self._known.keys() - names:
                del self._known[name]
            busy = frozenset(self._busy)
        return tuple(
            ObservedDisk(
                id=volume.name.removesuffix(DISK_SUFFIX),
                size_gib=volume.size_gib,
                is_ready=volume.is_whole and volume.name not in busy,
                is_busy=volume.name in busy,
                held_by=held_by.get(volume.path),
            )
            for volume in sorted((volume for volume in seen if volume is not None), key=lambda volume: volume.name)
        )

    def read(self, handle: Any) -> Volume | None:
        """Return a volume as it is right now; None when it is gone."""
        self.forget(handle.name())
        return self._read(handle)

    def forget(self, name: str) -> None:
        """Read a volume anew at the next look."""
        with self._lock:
            self._known.pop(name, None)

    def begin_work(self, name: str) -> None:
        """Show a volume as busy until `end_work`."""
        with self._lock:
            self._busy.add(name)
            self._known.pop(name, None)

    def end_work(self, name: str) -> None:
        with self._lock:
            self._busy.discard(name)
            self._known.pop(name, None)

    def is_busy(self, name: str) -> bool:
        with self._lock:
            return name in self._busy

    def _read(self, handle: Any) -> Volume | None:
        name = handle.name()
        with self._lock:
            known = self._known.get(name)
        if known is not None:
            return known
        try:
            described, (_, capacity, _) = read_volume(handle.XMLDesc(0)), handle.info()
        except libvirt.libvirtError as error:
            if is_code(error, libvirt.VIR_ERR_NO_STORAGE_VOL):
                return None
            raise
        is_whole = bool(described.backing) if name.endswith(DISK_SUFFIX) else True
        volume = Volume(name=name, path=described.path, size_gib=-(-capacity // GIB), is_whole=is_whole)
        if volume.is_whole:
            with self._lock:
                if name not in self._busy:
                    self._known[name] = volume
        return volume
