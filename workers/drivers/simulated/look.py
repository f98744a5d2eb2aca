"""One look at a simulated host: its rows as the values that converge compares with the plan.

A look is the commonest call by far, so it is kept until the file changes or something comes due, and the values of rows
that stayed the same are shared.
"""

from dataclasses import dataclass
from functools import lru_cache
from uuid import NAMESPACE_URL, UUID, uuid5

from scheduler.core.facts import (
    CheckResult,
    DeviceCheck,
    DomainState,
    ObservedDevice,
    ObservedDisk,
    ObservedDomain,
    ObservedHost,
    OffReason,
)
from scheduler.core.requests import ReservationId
from scheduler.core.spans import FOREVER, Instant
from workers.drivers.simulated import faults, words
from workers.drivers.simulated.calls import Calls
from workers.drivers.simulated.clockwork import next_due_at
from workers.drivers.simulated.faults import RackVerb
from workers.drivers.simulated.state import (
    DEVICE_COLUMNS,
    DISK_COLUMNS,
    DOMAIN_COLUMNS,
    VFIO,
    DeviceRow,
    DiskRow,
    DiskState,
    DomainRow,
    RackState,
    words_of,
)

SOURCE = "simulated"


@dataclass(frozen=True, slots=True)
class _Kept:
    host: ObservedHost
    version: tuple[int, int]
    until_at: Instant
    """Something comes due then."""


class Looker:
    """Looks at a rack. One for each process; threads may share it."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._kept: _Kept | None = None

    def look(self) -> ObservedHost:
        """Return what the host shows now. Raises HostUnreachable."""
        kept, now = self._kept, self._calls.clock.now()
        # A clock behind the last look means another's branch of virtual time; the rack does not go back.
        if kept is not None and now < kept.until_at and kept.version == self._calls.file.version():
            return kept.host
        self._calls.let_pass()
        version = self._calls.file.version()
        with self._calls.file.reading() as connection:
            state = self._calls.state(connection)
            until_at = state.unreachable_until()
            if until_at:
                raise words.unreachable(self._calls.host, until_at)
            is_at_risk = faults.has_any_for(connection, RackVerb.LOOK)
            seen = _observe(state)
            due_at = next_due_at(state)
        if is_at_risk:
            self._calls.ask(RackVerb.LOOK, (self._calls.host,), lambda call: None)
        else:
            self._kept = _Kept(seen, version, FOREVER if due_at is None else due_at)
        return seen


def boot_id(host: str, seed: int, boots: int) -> str:
    return str(uuid5(NAMESPACE_URL, f"nightshift:boot:{seed}/{host}/{boots}"))


def _observe(state: RackState) -> ObservedHost:
    connection = state.connection
    (boots,) = connection.execute("SELECT boots FROM host").fetchone()
    return ObservedHost(
        host=state.host,
        boot_id=boot_id(state.host, state.seed, boots),
        domains=tuple(map(_domain, connection.execute(f"SELECT {DOMAIN_COLUMNS} FROM domains ORDER BY uuid"))),
        devices=tuple(map(_device, connection.execute(f"SELECT {DEVICE_COLUMNS} FROM devices ORDER BY address"))),
        disks=tuple(map(_disk, connection.execute(f"SELECT {DISK_COLUMNS} FROM disks ORDER BY id"))),
    )


@lru_cache(maxsize=8192)
def _domain(row: tuple[object, ...]) -> ObservedDomain:
    domain = DomainRow._make(row)
    state = DomainState(domain.state)
    is_guest_up: bool | None = state is DomainState.RUNNING and bool(domain.is_up)
    if domain.is_silent and state is not DomainState.OFF:
        is_guest_up = None
    return ObservedDomain(
        uuid=UUID(domain.uuid),
        name=domain.name,
        state=state,
        off_reason=None if domain.off_reason is None else OffReason(domain.off_reason),
        is_busy=domain.operation is not None,
        reservation=None if domain.reservation is None else ReservationId(domain.reservation),
        generation=domain.generation,
        devices=frozenset(words_of(domain.devices)),
        is_guest_up=is_guest_up,
    )


@lru_cache(maxsize=8192)
def _device(row: tuple[object, ...]) -> ObservedDevice:
    device = DeviceRow._make(row)
    if device.is_resetting:
        dirty = "a reset is under way"
    elif device.held_by is not None:
        dirty = "in use since its last reset"
    else:
        dirty = "used since its last reset"
    return ObservedDevice(
        address=device.address,
        held_by=None if device.held_by is None else UUID(device.held_by),
        checks=(
            _check("bound", device.driver == VFIO, f"driver: {device.driver or 'none'}"),
            _check("group_free", device.held_by is None, f"held by domain {device.held_by}"),
            _check("config_readable", bool(device.is_alive), "config space reads all ones"),
            _check("reset_done", bool(device.is_clean), dirty),
        ),
    )


def _check(name: str, is_passed: bool, detail: str) -> DeviceCheck:  # noqa: FBT001
    return DeviceCheck(
        name=name,
        result=CheckResult.PASSED if is_passed else CheckResult.FAILED,
        source=SOURCE,
        detail="" if is_passed else detail,
    )


@lru_cache(maxsize=8192)
def _disk(row: tuple[object, ...]) -> ObservedDisk:
    disk = DiskRow._make(row)
    return ObservedDisk(
        id=disk.id,
        size_gib=disk.size_gib,
        is_ready=disk.state == DiskState.READY,
        is_busy=disk.state in (DiskState.COPYING, DiskState.DELETING),
        held_by=None if disk.held_by is None else UUID(disk.held_by),
    )
