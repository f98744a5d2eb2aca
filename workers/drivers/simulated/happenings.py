"""What befalls a simulated host: reboots, outages, dying devices, guests that crash or stop, domains that vanish.

Holds the effects of the fault script's happenings. When they happen is in `clockwork`; faults of a call are in `calls`
and the verbs.
"""

from collections.abc import Callable

from scheduler.core.facts import DomainState, OffReason
from scheduler.core.spans import FOREVER, Instant
from workers.drivers.simulated import words
from workers.drivers.simulated.faults import DEFAULT_OUTAGE_S, FaultKind, Pending
from workers.drivers.simulated.foreign import make_foreign
from workers.drivers.simulated.state import DeviceRow, DiskState, DomainRow, Due, RackState
from workers.ports import DriverError

_SURVIVES_REBOOT = (Due.FAULT, Due.DEVICE_BACK, Due.LEAVES)


def befalls(state: RackState, fault: Pending) -> bool:
    kind = FaultKind(fault.kind)
    match kind:
        case FaultKind.REBOOT | FaultKind.UNREACHABLE:
            until_at = fault.until_at or state.now + DEFAULT_OUTAGE_S
            state.log(f"fault.{kind}", fault=fault.id, until_at=until_at)
            if kind is FaultKind.REBOOT:
                reboot(state, until_at)
            else:
                cut_off(state, until_at)
                state.log("host.unreachable", until_at=until_at)
            return True
        case FaultKind.GPU_DIES:
            dying = _devices_for(state, fault)
            for device in dying:
                _dies(state, fault, device)
            return bool(dying)
        case FaultKind.FOREIGN:
            gpus = tuple(int(gpu) for gpu in fault.gpus.split(","))
            state.log(f"fault.{kind}", fault=fault.id, gpus=fault.gpus)
            try:
                make_foreign(state, fault.subject or f"foreign-{fault.id}", gpus, leaves_at=fault.until_at)
            except DriverError as error:
                state.log("verb.refused", verb="foreign", code=error.code, message=error.message)
            return True
        case FaultKind.VANISH | FaultKind.AGENT_SILENT | FaultKind.GUEST_CRASH | FaultKind.GUEST_SHUTDOWN:
            befallen = _domains_for(state, fault, is_running_only=kind is not FaultKind.VANISH)
            for domain in befallen:
                state.log_domain(f"fault.{kind}", domain, fault=fault.id)
                _GUEST_HAPPENS[kind](state, domain, fault)
            return bool(befallen)
        case FaultKind.FAIL | FaultKind.HANG | FaultKind.ACT_HALF | FaultKind.LIE | FaultKind.IGNORE_SHUTDOWN:
            raise RuntimeError(f"rack {state.host}: fault {fault.id} ({kind}) cannot have an instant")


def _domains_for(state: RackState, fault: Pending, *, is_running_only: bool) -> tuple[DomainRow, ...]:
    matching = (d for d in state.domains() if fault.subject is None or fault.subject in d.subjects)
    return tuple(d for d in matching if not (is_running_only and d.is_off))[: fault.times_left]


def _devices_for(state: RackState, fault: Pending) -> tuple[DeviceRow, ...]:
    if fault.gpus:
        addresses = tuple(state.profile.gpu(int(gpu)).address for gpu in fault.gpus.split(","))
    elif fault.subject is not None:
        domain = state.domain(fault.subject)
        addresses = (fault.subject,) if domain is None else domain.addresses[:1]
    else:
        addresses = tuple(gpu.address for gpu in state.profile.gpus[: fault.times_left])
    return tuple(device for device in map(state.device, addresses) if device is not None and device.is_alive)


def _dies(state: RackState, fault: Pending, device: DeviceRow) -> None:
    state.cancel(device.address, Due.RESET)
    state.connection.execute(
        "UPDATE devices SET is_alive = 0, is_clean = 0, is_resetting = 0 WHERE address = ?", (device.address,)
    )
    state.log_device(f"fault.{fault.kind}", device, fault=fault.id)
    state.log_device("gpu.died", device)
    if fault.until_at is not None:
        state.due(fault.until_at, Due.DEVICE_BACK, device.address)
    domain = None if device.held_by is None else state.domain(device.held_by)
    if domain is not None:
        state.power_off(domain, OffReason.CRASHED)


def _vanishes(state: RackState, domain: DomainRow, _: Pending) -> None:
    vanish(state, domain, "vm.vanished")


def _falls_silent(state: RackState, domain: DomainRow, fault: Pending) -> None:
    state.connection.execute("UPDATE domains SET is_silent = 1 WHERE uuid = ?", (domain.uuid,))
    state.due(fault.until_at or FOREVER, Due.AGENT_BACK, domain.uuid)


def _crashes(state: RackState, domain: DomainRow, _: Pending) -> None:
    state.power_off(domain, OffReason.CRASHED)


def _shuts_itself_down(state: RackState, domain: DomainRow, _: Pending) -> None:
    if domain.state == DomainState.RUNNING and domain.operation is None:
        state.cancel(domain.uuid, Due.CLOSING)
        state.due(state.now, Due.CLOSING, domain.uuid)


def vanish(state: RackState, domain: DomainRow, what: str) -> None:
    """Remove a domain from the host, running or not."""
    if not domain.is_off:
        state.power_off(domain, OffReason.UNKNOWN)
    state.cancel(domain.uuid, *Due)
    state.connection.execute("DELETE FROM domains WHERE uuid = ?", (domain.uuid,))
    state.log_domain(what, domain)


def mend(state: RackState, address: str) -> None:
    """Let a dead device answer again; it needs a reset before it is clean."""
    device = state.device(address)
    if device is None:
        raise words.no_device(address)
    if not device.is_alive:
        state.cancel(address, Due.DEVICE_BACK)
        state.connection.execute("UPDATE devices SET is_alive = 1 WHERE address = ?", (address,))
        state.log_device("gpu.mended", device)


def cut_off(state: RackState, until_at: Instant) -> None:
    """Let the host not answer until an instant; a longer outage under way stays as long as it is."""
    until_at = max(until_at, state.unreachable_until())
    state.cancel("", Due.REACHABLE)
    state.connection.execute("UPDATE host SET unreachable_until = ?", (until_at,))
    state.due(until_at, Due.REACHABLE, "")


def reboot(state: RackState, until_at: Instant) -> None:
    """Reboot the host: all that ran is off, what was half done stays half done, definitions and disks stay."""
    for domain in state.domains():
        if not domain.is_off:
            state.power_off(domain, OffReason.UNKNOWN)
    kept = ", ".join(f"'{what.value}'" for what in _SURVIVES_REBOOT)
    state.connection.execute(f"DELETE FROM due WHERE what NOT IN ({kept})")
    for (disk,) in state.connection.execute("SELECT id FROM disks WHERE state IN ('copying', 'deleting')").fetchall():
        state.connection.execute("UPDATE disks SET state = ? WHERE id = ?", (DiskState.PARTIAL, disk))
        state.log("disk.cut_off", disk=disk)
    state.connection.execute(
        "UPDATE devices SET held_by = NULL, is_clean = 0, is_resetting = 0, driver = (SELECT boot_driver FROM host)"
    )
    state.connection.execute("DELETE FROM fabric")
    state.connection.execute("UPDATE host SET boots = boots + 1")
    state.log("host.rebooted", until_at=until_at)
    cut_off(state, until_at)


_GUEST_HAPPENS: dict[FaultKind, Callable[[RackState, DomainRow, Pending], None]] = {
    FaultKind.VANISH: _vanishes,
    FaultKind.AGENT_SILENT: _falls_silent,
    FaultKind.GUEST_CRASH: _crashes,
    FaultKind.GUEST_SHUTDOWN: _shuts_itself_down,
}
