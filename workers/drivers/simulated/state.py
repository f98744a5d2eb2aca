"""The rows of a rack within one transaction: domains, devices, disks, what is due, and the drawing of durations.

Holds what the rows mean and the few changes that several verbs share. Must not hold: when something happens
(`clockwork`), or whether a verb may act (the verbs).
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from scheduler.core.errors import FactValue
from scheduler.core.facts import DomainState, OffReason
from scheduler.core.requests import HostId
from scheduler.core.spans import FOREVER, Instant
from scheduler.core.topology import HostProfile
from workers.drivers.simulated import log
from workers.drivers.simulated.durations import Draw


class Due(StrEnum):
    """What comes due by itself; the subject is a domain, a device, a disk or a fault's number."""

    STARTED = "started"
    GUEST_UP = "guest_up"
    CLOSING = "closing"
    """The guest has powered off; its process still ends."""
    OFF = "off"
    DESTROYED = "destroyed"
    AGENT_BACK = "agent_back"
    LEAVES = "leaves"
    RESET = "reset"
    DEVICE_BACK = "device_back"
    COPIED = "copied"
    DELETED = "deleted"
    REACHABLE = "reachable"
    FAULT = "fault"


class Operation(StrEnum):
    """What libvirt is doing to a domain."""

    START = "start"
    DESTROY = "destroy"


class DiskState(StrEnum):
    COPYING = "copying"
    READY = "ready"
    PARTIAL = "partial"
    DELETING = "deleting"


class DomainRow(NamedTuple):
    uuid: str
    name: str
    reservation: str | None
    generation: int | None
    partition: str | None
    gpus: str
    """`0,1,2`; empty for none."""
    devices: str
    """Addresses, separated by spaces."""
    memory: str
    """`0:361 1:0`: NUMA node and GiB."""
    disk: str | None
    spec: str
    """The rest of its definition, as JSON."""
    state: str
    off_reason: str | None
    operation: str | None
    is_up: int
    is_silent: int
    ignores_acpi: int

    @property
    def is_off(self) -> bool:
        return self.state == DomainState.OFF

    @property
    def addresses(self) -> tuple[str, ...]:
        return words_of(self.devices)

    @property
    def subjects(self) -> tuple[str, ...]:
        """All names that a fault may know it by."""
        return (self.uuid, self.name) if self.reservation is None else (self.uuid, self.name, self.reservation)


class DeviceRow(NamedTuple):
    address: str
    gpu: int | None
    driver: str
    is_alive: int
    is_clean: int
    is_resetting: int
    held_by: str | None


class DiskRow(NamedTuple):
    id: str
    size_gib: int
    state: str
    held_by: str | None


DOMAIN_COLUMNS = ", ".join(DomainRow._fields)
DEVICE_COLUMNS = ", ".join(DeviceRow._fields)
DISK_COLUMNS = ", ".join(DiskRow._fields)

VFIO = "vfio-pci"


@lru_cache(maxsize=4096)
def words_of(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def gpus_text(gpus: Iterable[int]) -> str:
    return ",".join(str(gpu) for gpu in sorted(gpus))


@lru_cache(maxsize=4096)
def memory_of(text: str) -> tuple[tuple[int, int], ...]:
    """Read `0:361 1:0` as (NUMA node, GiB)."""
    pairs = (pair.split(":") for pair in text.split())
    return tuple((int(node), int(gib)) for node, gib in pairs)


def memory_text(memory_gib_by_node: Iterable[tuple[int, int]]) -> str:
    return " ".join(f"{node}:{gib}" for node, gib in memory_gib_by_node)


@dataclass(slots=True)
class RackState:
    """One transaction on a rack, at one instant."""

    connection: sqlite3.Connection
    now: Instant
    host: HostId
    seed: int
    profile: HostProfile

    # ---- the log

    def log(self, what: str, **detail: FactValue) -> None:
        log.append(self.connection, self.now, what, detail=detail)

    def log_domain(self, what: str, domain: DomainRow, *, gpus: str | None = None, **detail: FactValue) -> None:
        log.append(
            self.connection,
            self.now,
            what,
            domain=(domain.uuid, domain.name, domain.reservation, domain.generation, domain.partition),
            gpus=domain.gpus if gpus is None else gpus,
            detail=detail,
        )

    def log_device(self, what: str, device: DeviceRow, **detail: FactValue) -> None:
        gpus = "" if device.gpu is None else str(device.gpu)
        log.append(self.connection, self.now, what, gpus=gpus, detail={"device": device.address, **detail})

    # ---- rows

    def domain(self, uuid: str) -> DomainRow | None:
        row = self.connection.execute(f"SELECT {DOMAIN_COLUMNS} FROM domains WHERE uuid = ?", (uuid,)).fetchone()
        return None if row is None else DomainRow._make(row)

    def domains(self) -> tuple[DomainRow, ...]:
        """Return all domains in order of name."""
        rows = self.connection.execute(f"SELECT {DOMAIN_COLUMNS} FROM domains ORDER BY name")
        return tuple(map(DomainRow._make, rows))

    def device(self, address: str) -> DeviceRow | None:
        row = self.connection.execute(f"SELECT {DEVICE_COLUMNS} FROM devices WHERE address = ?", (address,)).fetchone()
        return None if row is None else DeviceRow._make(row)

    def devices_held_by(self, uuid: str) -> tuple[DeviceRow, ...]:
        rows = self.connection.execute(
            f"SELECT {DEVICE_COLUMNS} FROM devices WHERE held_by = ? ORDER BY address", (uuid,)
        )
        return tuple(map(DeviceRow._make, rows))

    def disk(self, disk: str) -> DiskRow | None:
        row = self.connection.execute(f"SELECT {DISK_COLUMNS} FROM disks WHERE id = ?", (disk,)).fetchone()
        return None if row is None else DiskRow._make(row)

    def unreachable_until(self) -> Instant:
        """Return when the host answers again; 0 while it does."""
        (until_at,) = self.connection.execute("SELECT unreachable_until FROM host").fetchone()
        return int(until_at)

    # ---- what is due

    def due(self, at: Instant, what: Due, subject: str) -> None:
        """Let something happen at an instant; FOREVER means it never does."""
        if at < FOREVER:
            self.connection.execute("INSERT INTO due (at, what, subject) VALUES (?, ?, ?)", (at, what.value, subject))

    def due_at(self, what: Due, subject: str) -> Instant:
        """Return when something will happen; FOREVER if it will not."""
        row = self.connection.execute(
            "SELECT min(at) FROM due WHERE what = ? AND subject = ?", (what.value, subject)
        ).fetchone()
        return FOREVER if row[0] is None else int(row[0])

    def is_due(self, what: Due, subject: str) -> bool:
        """Whether something will happen, at whatever instant."""
        return self.due_at(what, subject) < FOREVER

    def cancel(self, subject: str, *whats: Due) -> None:
        self.connection.executemany(
            "DELETE FROM due WHERE subject = ? AND what = ?", [(subject, what.value) for what in whats]
        )

    def draw(self, verb: str, subject: str) -> Draw:
        """Count an attempt and return what its duration is drawn from."""
        (attempt,) = self.connection.execute(
            "INSERT INTO attempts (verb, subject, n) VALUES (?, ?, 1)"
            " ON CONFLICT (verb, subject) DO UPDATE SET n = n + 1 RETURNING n",
            (verb, subject),
        ).fetchone()
        return Draw(seed=self.seed, verb=verb, subject=subject, attempt=attempt)

    # ---- changes that several verbs and happenings share

    def set_domain(
        self,
        uuid: str,
        state: DomainState,
        *,
        off_reason: OffReason | None = None,
        operation: Operation | None = None,
        is_up: int = 0,
    ) -> None:
        self.connection.execute(
            "UPDATE domains SET state = ?, off_reason = ?, operation = ?, is_up = ? WHERE uuid = ?",
            (state.value, off_reason, operation, is_up, uuid),
        )

    def hold(self, uuid: str, addresses: Iterable[str]) -> None:
        """Give devices to a domain; from now on they are dirty."""
        self.connection.executemany(
            "UPDATE devices SET held_by = ?, is_clean = 0 WHERE address = ?",
            [(uuid, address) for address in addresses],
        )

    def release(self, uuid: str) -> None:
        """Take all devices and the disk from a domain."""
        self.connection.execute("UPDATE devices SET held_by = NULL WHERE held_by = ?", (uuid,))
        self.connection.execute("UPDATE disks SET held_by = NULL WHERE held_by = ?", (uuid,))

    def stop_what_runs(self, uuid: str) -> None:
        """Forget everything that was to happen to a domain while it ran."""
        self.cancel(uuid, Due.STARTED, Due.GUEST_UP, Due.CLOSING, Due.OFF, Due.DESTROYED, Due.AGENT_BACK)

    def power_off(self, domain: DomainRow, reason: OffReason) -> None:
        """Let a domain be off: it holds nothing any more, and its devices stay dirty."""
        self.stop_what_runs(domain.uuid)
        self.release(domain.uuid)
        self.connection.execute("UPDATE domains SET is_silent = 0, ignores_acpi = 0 WHERE uuid = ?", (domain.uuid,))
        self.set_domain(domain.uuid, DomainState.OFF, off_reason=reason)
        self.log_domain("vm.off", domain, reason=reason.value)
