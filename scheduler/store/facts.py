"""Facts: loaded whole for a host, written as the difference between what was and what is.

Loading after recording gives what was recorded, in the order of keys: a fact that the new facts do not have is deleted.
Two things are only left out of loading, and stay as history: VMs that are off and whose reservation is closed, and
deleted disks whose room is given back.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import Connection, Delete, Select, and_, bindparam, delete, exists, false, insert, or_, select, union

from scheduler.core.errors import BrokenInvariant
from scheduler.core.facts import HostFacts, Measurement, VmFact
from scheduler.core.requests import HostId
from scheduler.core.topology import HostProfile
from scheduler.store.engine import Database
from scheduler.store.fact_kinds import (
    ASKS,
    DISKS,
    FOREIGN,
    GPUS,
    VMS,
    FactKind,
    host_of,
    host_row,
    is_holding,
    measurement_row,
)
from scheduler.store.rows import Columns
from scheduler.store.statements import upsert, upsert_host_fact
from scheduler.store.tables import BOOKED_DISK, DISK_FACT, GPU_HOLD, HOST, HOST_FACT, MEASUREMENT, RESERVATION, VM_FACT

F = TypeVar("F")

_KINDS: tuple[FactKind[Any], ...] = (VMS, GPUS, DISKS, ASKS, FOREIGN)
_FREE_GPUS = delete(GPU_HOLD).where(
    GPU_HOLD.c.reservation == bindparam("of"), GPU_HOLD.c.generation == bindparam("of_generation")
)
_HOLD_GPUS = insert(GPU_HOLD)
_REVISIONS = select(HOST_FACT.c.host, HOST_FACT.c.revision)


def load(connection: Connection, host: HostId) -> HostFacts:
    """Return everything that is remembered of one host; empty facts for one that was never looked at."""
    row = connection.execute(select(HOST_FACT).where(HOST_FACT.c.host == host)).first()
    found = {kind.table.name: _read(connection, kind, host).get(host, ()) for kind in _KINDS}
    return _assembled(host_of(row, host), found)


def load_all(connection: Connection) -> Mapping[HostId, HostFacts]:
    """Return the facts of every host that is in the plan or was ever looked at."""
    host_rows = {row.host: row for row in connection.execute(select(HOST_FACT))}
    found = {kind.table.name: _read(connection, kind, None) for kind in _KINDS}
    hosts = {*host_rows, *connection.execute(select(HOST.c.id)).scalars()}.union(*found.values())
    return {
        host: _assembled(
            host_of(host_rows.get(host), host), {name: facts.get(host, ()) for name, facts in found.items()}
        )
        for host in sorted(hosts)
    }


def revisions(connection: Connection) -> Mapping[HostId, int]:
    """Return the revision of each host's facts."""
    return {HostId(host): revision for host, revision in connection.execute(_REVISIONS).all()}


def _assembled(facts: HostFacts, found: Mapping[str, tuple[Any, ...]]) -> HostFacts:
    return replace(
        facts,
        vms=found[VMS.table.name],
        gpus=found[GPUS.table.name],
        disks=found[DISKS.table.name],
        asked=found[ASKS.table.name],
        foreign=found[FOREIGN.table.name],
    )


def _read(connection: Connection, kind: FactKind[F], host: HostId | None) -> dict[HostId, tuple[F, ...]]:
    rows = connection.execute(_query(kind, one_host=host is not None), {} if host is None else {"of_host": host}).all()
    by_host: dict[HostId, list[F]] = {}
    for row in sorted(rows, key=lambda row: tuple(row._mapping[name] for name in kind.keys)):
        by_host.setdefault(HostId(row.host), []).append(kind.read(row))
    return {host: tuple(facts) for host, facts in by_host.items()}


@lru_cache(maxsize=16)
def _query(kind: FactKind[Any], *, one_host: bool) -> Any:
    table = kind.table
    here = table.c.host == bindparam("of_host") if one_host else None

    def where(query: Select[Any], *conditions: Any) -> Select[Any]:
        return query.where(*conditions) if here is None else query.where(here, *conditions)

    if kind is VMS:
        # Both halves go by an index, whatever history has gathered. The first is not narrowed to the host: that would
        # lead SQLite through all the host's history instead of the few open reservations.
        of_open = select(VM_FACT).join_from(RESERVATION, VM_FACT, VM_FACT.c.reservation == RESERVATION.c.id)
        still_on = (VM_FACT.c.off_at.is_(None), VM_FACT.c.is_gone == false())
        return union(of_open.where(RESERVATION.c.is_closed == false()), where(select(VM_FACT), *still_on))
    if kind is DISKS:
        has_room = exists().where(BOOKED_DISK.c.id == DISK_FACT.c.disk)
        return where(select(DISK_FACT), or_(DISK_FACT.c.deleted_at.is_(None), has_room))
    return where(select(table))


def record(
    database: Database,
    connection: Connection,
    old: HostFacts,
    new: HostFacts,
    measurements: Iterable[Measurement],
    profiles: Callable[[str], HostProfile],
) -> int | None:
    """Write what is different in `new`; the caller has made sure that the host's facts are ours to write.

    Returns the new revision; None when nothing changed that planning reads.
    """
    revision: int | None = None
    if replace(old, asked=()) != replace(new, asked=()):
        # Asks are the host's own business; all else is read by the plan, which goes by the revision.
        revision = int(connection.execute(upsert_host_fact(database.dialect), host_row(new)).scalar_one())
    for kind in _KINDS:
        _write_kind(database, connection, kind, old, new)
    vms_before = frozenset(old.vms)
    changed_vms = [vm for vm in new.vms if vm not in vms_before]
    if changed_vms:
        _write_holds(connection, new.host, changed_vms, profiles)
    measured = [measurement_row(measurement) for measurement in measurements]
    if measured:
        connection.execute(insert(MEASUREMENT), measured)
    return revision


def _write_kind(database: Database, connection: Connection, kind: FactKind[F], old: HostFacts, new: HostFacts) -> None:
    before, after = kind.of(old), kind.of(new)
    if before == after:
        return
    old_rows = {_key(kind, row): row for row in map(kind.row, before)}
    new_rows = {_key(kind, row): row for row in map(kind.row, after)}
    gone = [_bound_key(kind, old.host, row) for key, row in old_rows.items() if key not in new_rows]
    if gone:
        connection.execute(_forget(kind), gone)
    changed = [{"host": new.host, **row} for key, row in new_rows.items() if old_rows.get(key) != row]
    if changed:
        connection.execute(upsert(database.dialect, kind.table), changed)


def _key(kind: FactKind[Any], row: Columns) -> tuple[Any, ...]:
    return tuple(row[name] for name in kind.keys)


def _bound_key(kind: FactKind[Any], host: HostId, row: Columns) -> Columns:
    return {"of_host": host, **{f"of_{name}": row[name] for name in kind.keys}}


@lru_cache(maxsize=16)
def _forget(kind: FactKind[Any]) -> Delete:
    columns = kind.table.c
    return delete(kind.table).where(and_(*(columns[name] == bindparam(f"of_{name}") for name in ("host", *kind.keys))))


def _write_holds(
    connection: Connection, host: HostId, vms: Sequence[VmFact], profiles: Callable[[str], HostProfile]
) -> None:
    """Free the GPUs of VMs that are off, and hold those of the others; a second holder is refused by the key."""
    connection.execute(_FREE_GPUS, [{"of": vm.reservation, "of_generation": vm.generation} for vm in vms])
    holding = [vm for vm in vms if is_holding(vm)]
    if not holding:
        return
    profile_name = connection.execute(select(HOST.c.profile).where(HOST.c.id == host)).scalar()
    if profile_name is None:
        message = f"{holding[0].reservation} runs on host {host!r}, which is not in the plan; nothing was written"
        raise BrokenInvariant(message, constraint="vm_fact_host_is_known", host=host)
    profile = profiles(profile_name)
    connection.execute(
        _HOLD_GPUS,
        [
            {"host": host, "gpu": gpu, "reservation": vm.reservation, "generation": vm.generation}
            for vm in holding
            for gpu in sorted(profile.partition(vm.partition).gpus)
        ],
    )


def took_s(connection: Connection, what: str, *, gpus: int | None, limit: int) -> tuple[int, ...]:
    """Return how long the latest took, newest first."""
    query = select(MEASUREMENT.c.took_s).where(MEASUREMENT.c.what == what)
    if gpus is not None:
        query = query.where(MEASUREMENT.c.gpus == gpus)
    return tuple(connection.execute(query.order_by(MEASUREMENT.c.seq.desc()).limit(limit)).scalars())
