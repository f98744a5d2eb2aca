"""One look at a real host: domains, devices and disks as libvirt shows them now."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import libvirt

from scheduler.core.facts import DomainState, HostTrouble, ObservedDomain, ObservedHost, OffReason
from scheduler.core.requests import HostId
from workers.drivers.libvirt.connection import LOOK_WITHIN_S, Connection
from workers.drivers.libvirt.guest_sight import GuestSight, Running
from workers.drivers.libvirt.node_devices import NodeDevices
from workers.drivers.libvirt.operations import Operations
from workers.drivers.libvirt.reading import DescribedDomain, read_domain
from workers.drivers.libvirt.refusals import is_code
from workers.drivers.libvirt.volumes import Volumes

_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: DomainState.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: DomainState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: DomainState.SHUTTING_DOWN,
    libvirt.VIR_DOMAIN_SHUTOFF: DomainState.OFF,
    libvirt.VIR_DOMAIN_CRASHED: DomainState.OFF,
}
_OFF_REASONS = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: OffReason.SHUTDOWN,
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: OffReason.DESTROYED,
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: OffReason.CRASHED,
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: OffReason.FAILED,
}


class Looker:
    """Looks at a host. Safe to use from several threads."""

    def __init__(
        self,
        host: HostId,
        connection: Connection,
        devices: NodeDevices,
        volumes: Volumes,
        operations: Operations,
        sight: GuestSight,
        *,
        boot_id: Callable[[Any], str],
        troubles: Callable[[Any], tuple[HostTrouble, ...]],
    ) -> None:
        self._host = host
        self._connection = connection
        self._devices = devices
        self._volumes = volumes
        self._operations = operations
        self._sight = sight
        self._boot_id = boot_id
        self._troubles = troubles

    def look(self) -> ObservedHost:
        """Return what the host shows now. Raises HostUnreachable."""
        return self._connection.ask(self._look, what="look", subject=self._host, limit_s=LOOK_WITHIN_S)

    def _look(self, conn: Any) -> ObservedHost:
        busy = self._operations.busy()
        domains: list[ObservedDomain] = []
        device_holders: dict[str, UUID] = {}
        running: list[Running] = []
        disk_holders: dict[str, UUID] = {}
        """By path, or by name in the pool."""
        pool_name = self._volumes.pool
        for handle, stats in conn.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, 0):
            try:
                described, number = read_domain(handle.XMLDesc(0)), handle.ID()
            except libvirt.libvirtError as error:
                if is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
                    # Undefined between the two calls.
                    continue
                raise
            is_active = number != -1
            seen = _observed(described, stats, is_active=is_active, is_busy=described.uuid in busy)
            domains.append(seen)
            if is_active and described.reservation is not None:
                running.append(
                    Running(
                        uuid=described.uuid,
                        name=described.name,
                        boot=number,
                        does_answer=seen.is_guest_up is True,
                        devices=described.devices,
                    )
                )
            if is_active:
                device_holders.update(dict.fromkeys(described.devices, described.uuid))
                disk_holders.update(dict.fromkeys(described.disks, described.uuid))
                disk_holders.update({volume: described.uuid for pool, volume in described.volumes if pool == pool_name})
        disks = self._volumes.observe(conn, disk_holders)
        ids = {address: device.pci_id for address, device in self._devices.read(conn).items()}
        return ObservedHost(
            host=self._host,
            boot_id=self._boot_id(conn),
            domains=tuple(sorted(domains, key=lambda domain: str(domain.uuid))),
            devices=self._devices.observe(conn, device_holders, self._sight.look(running, ids)),
            disks=disks,
            are_disks_known=self._volumes.is_read,
            troubles=self._troubles(conn),
        )


def _observed(described: DescribedDomain, stats: dict[str, int], *, is_active: bool, is_busy: bool) -> ObservedDomain:
    code, why = stats.get("state.state", libvirt.VIR_DOMAIN_NOSTATE), stats.get("state.reason", 0)
    state = _STATES.get(code, DomainState.UNKNOWN)
    if state is DomainState.PAUSED and why == libvirt.VIR_DOMAIN_PAUSED_STARTING_UP:
        is_busy = True
    if code == libvirt.VIR_DOMAIN_CRASHED and is_active:
        # Kept as it is for whoever wants to know why: it has its devices until somebody ends it.
        state = DomainState.PAUSED
    if state is DomainState.OFF and is_active:
        # It has a number and no state yet: it is just being started, or just being cleared away.
        state, is_busy = DomainState.PAUSED, True
    off_reason: OffReason | None = None
    if state is DomainState.OFF:
        crashed = code == libvirt.VIR_DOMAIN_CRASHED
        off_reason = OffReason.CRASHED if crashed else _OFF_REASONS.get(why, OffReason.UNKNOWN)
    return ObservedDomain(
        uuid=described.uuid,
        name=described.name,
        state=state,
        off_reason=off_reason,
        is_busy=is_busy,
        reservation=described.reservation,
        generation=described.generation,
        devices=described.devices,
        # A channel that nobody has opened may be a guest that boots, or one without an agent: it cannot be told.
        is_guest_up=_is_guest_up(state, described),
    )


def _is_guest_up(state: DomainState, described: DescribedDomain) -> bool | None:
    if state is DomainState.OFF:
        return False
    if state is DomainState.RUNNING and described.is_agent_connected:
        return True
    return None if state is DomainState.RUNNING else False
