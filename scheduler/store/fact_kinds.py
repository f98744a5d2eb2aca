"""The kinds of facts of a host, each with its table, its key and the two ways between value and row.

Must not run statements; which facts are loaded and written is in `facts`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import Row, Table

from scheduler.core.facts import (
    Asked,
    DiskFact,
    ForeignDomain,
    GpuFact,
    GpuState,
    HostFacts,
    HostTrouble,
    Measurement,
    Verb,
    VmEnd,
    VmFact,
)
from scheduler.core.requests import DiskId, HostId, ReservationId
from scheduler.core.topology import PartitionId
from scheduler.store.codec import from_json_shared, to_json
from scheduler.store.rows import Columns
from scheduler.store.tables import ASKED, DISK_FACT, FOREIGN_DOMAIN, GPU_FACT, VM_FACT

F = TypeVar("F")


@dataclass(frozen=True, slots=True, kw_only=True)
class FactKind(Generic[F]):
    """One kind of fact. `keys` are its table's key columns but the host, and name what the values call alike."""

    table: Table
    keys: tuple[str, ...]
    of: Callable[[HostFacts], tuple[F, ...]]
    row: Callable[[F], Columns]
    read: Callable[[Row[Any]], F]


def host_row(facts: HostFacts) -> Columns:
    """Return what is remembered of the host itself."""
    return {
        "host": facts.host,
        "boot_id": facts.boot_id,
        "seen_at": facts.seen_at,
        "unreachable_since_at": facts.unreachable_since_at,
        "problem": facts.problem,
        "troubles": to_json(facts.troubles),
    }


def _vm_row(fact: VmFact) -> Columns:
    return {
        "reservation": fact.reservation,
        "generation": fact.generation,
        "partition": fact.partition,
        "asked_at": fact.asked_at,
        "up_at": fact.up_at,
        "running_at": fact.running_at,
        "is_agent_silent": fact.is_agent_silent,
        "stop_asked_at": fact.stop_asked_at,
        "off_at": fact.off_at,
        "end": None if fact.end is None else fact.end.value,
        "problem": fact.problem,
        "is_gone": fact.is_gone,
    }


def _vm_of(row: Row[Any]) -> VmFact:
    return VmFact(
        reservation=ReservationId(row.reservation),
        generation=row.generation,
        partition=PartitionId(row.partition),
        asked_at=row.asked_at,
        up_at=row.up_at,
        running_at=row.running_at,
        is_agent_silent=row.is_agent_silent,
        stop_asked_at=row.stop_asked_at,
        off_at=row.off_at,
        end=None if row.end is None else VmEnd(row.end),
        problem=row.problem,
        is_gone=row.is_gone,
    )


def _gpu_row(fact: GpuFact) -> Columns:
    return {"gpu": fact.gpu, "state": fact.state.value, "since_at": fact.since_at, "problem": fact.problem}


def _gpu_of(row: Row[Any]) -> GpuFact:
    return GpuFact(gpu=row.gpu, state=GpuState(row.state), since_at=row.since_at, problem=row.problem)


def _disk_row(fact: DiskFact) -> Columns:
    return {
        "disk": fact.disk,
        "size_gib": fact.size_gib,
        "made_at": fact.made_at,
        "deleted_at": fact.deleted_at,
    }


def _disk_of(row: Row[Any]) -> DiskFact:
    return DiskFact(disk=DiskId(row.disk), size_gib=row.size_gib, made_at=row.made_at, deleted_at=row.deleted_at)


def _asked_row(asked: Asked) -> Columns:
    return {
        "verb": asked.verb.value,
        "subject": asked.subject,
        "asked_at": asked.asked_at,
        "until_at": asked.until_at,
        "attempt": asked.attempt,
        "detail": asked.detail,
    }


def _asked_of(row: Row[Any]) -> Asked:
    return Asked(
        verb=Verb(row.verb),
        subject=row.subject,
        asked_at=row.asked_at,
        until_at=row.until_at,
        attempt=row.attempt,
        detail=row.detail,
    )


def _foreign_row(domain: ForeignDomain) -> Columns:
    return {"uuid": str(domain.uuid), "name": domain.name, "gpus": to_json(domain.gpus)}


def _foreign_of(row: Row[Any]) -> ForeignDomain:
    return ForeignDomain(uuid=UUID(row.uuid), name=row.name, gpus=from_json_shared(frozenset[int], row.gpus))


VMS = FactKind(table=VM_FACT, keys=("reservation", "generation"), of=lambda f: f.vms, row=_vm_row, read=_vm_of)
GPUS = FactKind(table=GPU_FACT, keys=("gpu",), of=lambda f: f.gpus, row=_gpu_row, read=_gpu_of)
DISKS = FactKind(table=DISK_FACT, keys=("disk",), of=lambda f: f.disks, row=_disk_row, read=_disk_of)
ASKS = FactKind(table=ASKED, keys=("verb", "subject"), of=lambda f: f.asked, row=_asked_row, read=_asked_of)
FOREIGN = FactKind(table=FOREIGN_DOMAIN, keys=("uuid",), of=lambda f: f.foreign, row=_foreign_row, read=_foreign_of)


def measurement_row(measured: Measurement) -> Columns:
    """Return a measurement's row; it has no way back, since only its seconds are read."""
    return {
        "host": measured.host,
        "what": measured.what,
        "gpus": measured.gpus,
        "took_s": measured.took_s,
        "at": measured.at,
        "extra": to_json(measured.extra),
    }


def is_holding(fact: VmFact) -> bool:
    """Tell whether a start holds its GPUs: from the asking until it was seen off, or gone."""
    return fact.off_at is None and not fact.is_gone


def host_of(row: Row[Any] | None, host: HostId) -> HostFacts:
    """Return the facts of the host itself, without those about what is on it."""
    if row is None:
        return HostFacts(host=host)
    return HostFacts(
        host=host,
        boot_id=row.boot_id,
        seen_at=row.seen_at,
        unreachable_since_at=row.unreachable_since_at,
        problem=row.problem,
        troubles=from_json_shared(tuple[HostTrouble, ...], row.troubles),
    )
