"""A real host: opens its libvirt, hands out its drivers, and says when something happened on it.

Holds the way in. The ports' verbs are in `hypervisor`, `devices`, `images` and `guest`.
"""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import libvirt

from scheduler.core.facts import HostTrouble, TroubleKind
from scheduler.core.requests import HostId
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile
from workers.drivers.libvirt.boot import read_boot_id
from workers.drivers.libvirt.connection import Connection
from workers.drivers.libvirt.devices import LibvirtPci, PassthroughFabric
from workers.drivers.libvirt.guest import LibvirtGuest
from workers.drivers.libvirt.guest_sight import GuestSight
from workers.drivers.libvirt.hypervisor import LibvirtHypervisor
from workers.drivers.libvirt.images import LibvirtImages
from workers.drivers.libvirt.inspecting import Inspector
from workers.drivers.libvirt.look import Looker
from workers.drivers.libvirt.node_devices import NodeDevices
from workers.drivers.libvirt.operations import Operations
from workers.drivers.libvirt.refusals import is_about_the_connection
from workers.drivers.libvirt.resets import Resets
from workers.drivers.libvirt.sysfs import Sysfs
from workers.drivers.libvirt.volumes import Volumes
from workers.ports import Drivers

BOOT_UNKNOWN = "unknown"
"""The boot id of a host that does not let it be read."""
_EVENTS = (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE)


class LibvirtHost:
    """One host behind a libvirt URI. Opening it asks nothing of the host; the first look connects."""

    def __init__(
        self,
        host: HostId,
        profile: HostProfile,
        uri: str,
        *,
        on_change: Callable[[], None],
        sysfs_root: Path = Path("/sys"),
    ) -> None:
        """`on_change` is called from a thread of libvirt's whenever a domain's life or a device may have changed."""
        self.host = host
        self.profile = profile
        self._on_change = on_change
        self._connection = Connection(host, uri)
        sysfs = Sysfs(sysfs_root) if self._connection.is_local else None
        self._sysfs = sysfs
        self._resets = Resets(sysfs)
        self._devices = NodeDevices(profile, self._resets, sysfs)
        self._volumes = Volumes(profile.vm.pool)
        self._operations = Operations()
        self._images = LibvirtImages(self._connection, profile.vm, self._volumes)
        self._wanted_images: tuple[str, ...] = ()
        self._inspector = Inspector(
            profile,
            self._devices,
            sysfs,
            generation=lambda: self._connection.generation,
            missing_images=lambda conn: self._images.missing(conn, self._wanted_images),
        )
        self._boot = _Boot(lambda: self._connection.generation)
        self._guest = LibvirtGuest(self._connection)
        self._sight = GuestSight(self._guest.devices_seen, on_change)
        self._looker = Looker(
            host,
            self._connection,
            self._devices,
            self._volumes,
            self._operations,
            self._sight,
            boot_id=self._boot_id,
            troubles=self._troubles,
        )
        self._connection.on_open(self._believe_nothing)
        for event in _EVENTS:
            self._connection.on_event(event, on_change)

    def drivers(self) -> Drivers:
        """Return the ports of this host."""
        return Drivers(
            host=self.host,
            hypervisor=LibvirtHypervisor(
                self._connection, self.profile, self._images, self._devices, self._operations, self._looker.look
            ),
            pci=LibvirtPci(self._connection, self._devices, self._resets, self._on_change),
            fabric=PassthroughFabric(self._connection, self.profile),
            images=self._images,
            guest=self._guest,
        )

    def need_images(self, images: Iterable[str]) -> None:
        """Say which images the policy names: those that the host lacks are a trouble. Asks nothing of the host."""
        wanted = tuple(sorted(images))
        if wanted != self._wanted_images:
            self._wanted_images = wanted
            self._inspector.forget()

    def next_due_at(self) -> Instant | None:
        """Return None: a real host's events say when something happens."""
        return None

    def close(self) -> None:
        """Close the connection; the host goes on."""
        self._connection.close()

    def _boot_id(self, conn: Any) -> str:
        if self._sysfs is not None:
            return self._sysfs.boot_id()
        return self._boot.of(conn)

    def _troubles(self, conn: Any) -> tuple[HostTrouble, ...]:
        found = _in_order((*self._inspector.troubles(conn), *self._sight.troubles()))
        if not self._boot.problem:
            return found
        unread = HostTrouble(
            code="check.boot_id",
            kind=TroubleKind.UNVERIFIED,
            problem=f"that the host was booted anew is not noticed: its boot id cannot be read ({self._boot.problem})",
            mend="let libvirt's storage driver make a pool on /proc/sys/kernel/random; or run a worker on the host",
        )
        return _in_order((*found, unread))

    def _believe_nothing(self, _conn: Any) -> None:
        # A connection that is new may be to a host that was booted anew: nothing that was kept is believed.
        self._devices.forget()
        self._resets.forget()
        self._inspector.forget()


def _in_order(troubles: Iterable[HostTrouble]) -> tuple[HostTrouble, ...]:
    return tuple(sorted(troubles, key=lambda trouble: (trouble.code, trouble.problem)))


class _Boot:
    """The boot id behind a connection: no connection outlives a boot."""

    def __init__(self, generation: Callable[[], int]) -> None:
        self._generation = generation
        self._lock = threading.Lock()
        self._known: tuple[int, str] | None = None
        self.problem = ""
        """Why it cannot be read; empty when it can."""

    def of(self, conn: Any) -> str:
        with self._lock:
            generation = self._generation()
            if self._known is None or self._known[0] != generation:
                self._known = (generation, self._read(conn))
            return self._known[1]

    def _read(self, conn: Any) -> str:
        try:
            found = read_boot_id(conn)
        except libvirt.libvirtError as error:
            if is_about_the_connection(error):
                raise
            # A host that does not let it be read must not be out of reach for that.
            self.problem = error.get_error_message()
            return BOOT_UNKNOWN
        self.problem = ""
        return found
