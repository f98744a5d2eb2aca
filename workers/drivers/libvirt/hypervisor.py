"""The verbs of `workers.ports.Hypervisor` on a real libvirt."""

import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

import libvirt

from scheduler.core.facts import ObservedHost
from scheduler.core.topology import HostProfile
from workers.drivers.libvirt.connection import Connection
from workers.drivers.libvirt.definition import domain_xml
from workers.drivers.libvirt.images import LibvirtImages
from workers.drivers.libvirt.node_devices import NodeDevices
from workers.drivers.libvirt.operations import Operations
from workers.drivers.libvirt.reading import read_domain
from workers.drivers.libvirt.refusals import is_code
from workers.ports import DomainBusy, DomainSpec, NoSuchDomain, VerbTimeout

_log = logging.getLogger(__name__)

CONSOLE_LOGS = "/var/log/libvirt/qemu"
"""On the host; libvirt has this folder wherever it runs. A guest's console is added to `<domain>.console.log` there."""
AGENT_TAKES_S = 1.0
"""A guest agent that does not refuse a shutdown within this has taken it: libvirt itself waits for the guest's end."""
_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


class LibvirtHypervisor:
    """`workers.ports.Hypervisor` on one host."""

    def __init__(
        self,
        connection: Connection,
        profile: HostProfile,
        images: LibvirtImages,
        devices: NodeDevices,
        operations: Operations,
        look: Callable[[], ObservedHost],
    ) -> None:
        self._connection = connection
        self._profile = profile
        self._images = images
        self._devices = devices
        self._operations = operations
        self._look = look

    def look(self) -> ObservedHost:
        return self._look()

    def define(self, spec: DomainSpec) -> None:
        self._operations.need_idle(spec.uuid)
        disk_path, seed_path = self._images.paths_of(spec)
        xml = domain_xml(
            spec,
            self._profile,
            disk_path=disk_path,
            seed_path=seed_path,
            console_log=f"{CONSOLE_LOGS}/{spec.name}.console.log",
        )

        def define(conn: Any) -> None:
            handle = _found(conn, spec.uuid)
            if handle is not None and handle.isActive():
                raise DomainBusy("Requested operation is not valid: domain is already running", domain=str(spec.uuid))
            if handle is not None and handle.name() != spec.name:
                # libvirt renames nothing by defining it again.
                handle.undefineFlags(_UNDEFINE)
            try:
                conn.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
            except libvirt.libvirtError as error:
                if not is_code(error, libvirt.VIR_ERR_XML_INVALID_SCHEMA):
                    raise
                # An older libvirt does not know every element; without being held to its schema it passes over them.
                _log.warning("vm.defined_unchecked domain=%s error=%s", spec.name, error)
                conn.defineXMLFlags(xml, 0)

        self._connection.ask(define, what="define", subject=spec.name)

    def start(self, uuid: UUID, *, timeout_s: int) -> None:
        self._operations.need_idle(uuid)

        def start(conn: Any) -> None:
            handle = _domain(conn, uuid)
            state, why = handle.state(0)
            if state in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED, libvirt.VIR_DOMAIN_SHUTDOWN):
                return
            if state == libvirt.VIR_DOMAIN_PAUSED and why == libvirt.VIR_DOMAIN_PAUSED_STARTING_UP:
                raise DomainBusy(
                    "Timed out during operation: cannot acquire state change lock (held by its start)", domain=str(uuid)
                )
            with self._operations.under_way(uuid, "start"):
                # Before it has them: one that is over again before anybody looks has had them too.
                self._devices.are_used(read_domain(handle.XMLDesc(0)).devices)
                try:
                    handle.create()
                finally:
                    self._devices.forget()

        self._connection.block_apart(start, what="start", subject=str(uuid), limit_s=timeout_s)

    def ask_shutdown(self, uuid: UUID, *, through_agent: bool = False) -> None:
        def press(conn: Any) -> None:
            handle = _domain(conn, uuid)
            try:
                handle.shutdownFlags(flag)
            except libvirt.libvirtError as error:
                # Asked before, and just going: neither its agent nor its button answers any more.
                if not is_code(error, libvirt.VIR_ERR_NO_DOMAIN) and _is_going(handle):
                    return
                raise

        flag = libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT if through_agent else libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
        if not through_agent:
            self._connection.ask(press, what="ask_shutdown", subject=str(uuid))
            return
        try:
            self._connection.block_apart(press, what="ask_shutdown", subject=str(uuid), limit_s=AGENT_TAKES_S)
        except VerbTimeout:
            _log.debug("vm.agent_took_shutdown domain=%s", uuid)

    def destroy(self, uuid: UUID, *, timeout_s: int) -> None:
        def destroy(conn: Any) -> None:
            handle = _domain(conn, uuid)
            if not handle.isActive():
                return
            with self._operations.under_way(uuid, "destroy"):
                try:
                    handle.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_DEFAULT)
                except libvirt.libvirtError:
                    # It may have gone by itself meanwhile; what is off is what was asked for.
                    if handle.isActive():
                        raise
                finally:
                    self._devices.forget()

        self._connection.block_apart(destroy, what="destroy", subject=str(uuid), limit_s=timeout_s)

    def undefine(self, uuid: UUID) -> None:
        self._operations.need_idle(uuid)

        def undefine(conn: Any) -> None:
            handle = _found(conn, uuid)
            if handle is None:
                return
            if handle.isActive():
                # libvirt would make it transient, and forget it when it goes off.
                raise DomainBusy("Requested operation is not valid: domain is already running", domain=str(uuid))
            try:
                handle.undefineFlags(_UNDEFINE)
            except libvirt.libvirtError as error:
                if not is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
                    raise

        self._connection.ask(undefine, what="undefine", subject=str(uuid))


def _found(conn: Any, uuid: UUID) -> Any:
    """Return libvirt's domain, or None."""
    try:
        return conn.lookupByUUIDString(str(uuid))
    except libvirt.libvirtError as error:
        if is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
            return None
        raise


def _domain(conn: Any, uuid: UUID) -> Any:
    handle = _found(conn, uuid)
    if handle is None:
        raise NoSuchDomain(f"Domain not found: no domain with matching uuid '{uuid}'", domain=str(uuid))
    return handle


def _is_going(handle: Any) -> bool:
    """Whether a guest is shutting down, or has."""
    state, _ = handle.state(0)
    return bool(state in (libvirt.VIR_DOMAIN_SHUTDOWN, libvirt.VIR_DOMAIN_SHUTOFF))
