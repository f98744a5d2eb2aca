"""Plan commits: one transaction, guarded by the version that the change was made from.

Must not decide anything: a commit writes what the change says, or nothing. Spans that leave their place are deleted
before any is inserted, so moves within one commit never meet each other; spans that stay are not touched.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from scheduler.core.errors import BrokenInvariant, StalePlan
from scheduler.core.plan import BookedSpan, PlanChange, Reservation
from scheduler.core.requests import HostId, ReservationId
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile
from scheduler.core.windows import WindowId, WindowState
from scheduler.store import events, intents
from scheduler.store.codec import to_json
from scheduler.store.engine import Database
from scheduler.store.rows import (
    Columns,
    booked_disk_row,
    host_row,
    in_batches,
    policy_row,
    reservation_row,
    span_row,
    window_row,
)
from scheduler.store.statements import upsert
from scheduler.store.tables import BOOKED_DISK, HOST, PLAN, POLICY, RESERVATION, SPAN, SPAN_GPU, WINDOW

_CLAIM = (
    update(PLAN)
    .where(PLAN.c.id == 1, PLAN.c.version == bindparam("base_version"))
    .values(version=bindparam("following"))
)
_SPANS_OF = select(SPAN).where(SPAN.c.reservation.in_(bindparam("reservations", expanding=True)))
_DROP_SPAN = delete(SPAN).where(SPAN.c.reservation == bindparam("of"), SPAN.c.number == bindparam("of_number"))
_PIN_SPAN = (
    update(SPAN)
    .where(SPAN.c.reservation == bindparam("of"), SPAN.c.number == bindparam("of_number"))
    .values(generation=bindparam("pinned_to"))
)
_INSERT_SPAN = insert(SPAN)
_INSERT_SPAN_GPU = insert(SPAN_GPU)
_FREE_GPUS = delete(SPAN_GPU).where(SPAN_GPU.c.reservation == bindparam("of"))


def commit(
    database: Database,
    connection: Connection,
    base_version: int,
    change: PlanChange,
    *,
    at: Instant,
    author: str,
    profile_by_host: Mapping[HostId, HostProfile],
) -> int:
    """Write a change and return the new version; `StalePlan` when the plan is not at `base_version` any more."""
    following = _claim(connection, base_version, change)
    if change.rules is not None:
        connection.execute(insert(POLICY), policy_row(change.rules, change, at=at, author=author))
    _write_windows(database, connection, change)
    if change.hosts:
        connection.execute(upsert(database.dialect, HOST), [host_row(host) for host in change.hosts])
    if change.reservations:
        rows = [reservation_row(reservation) for reservation in change.reservations]
        connection.execute(upsert(database.dialect, RESERVATION), rows)
        _write_spans(connection, change.reservations, profile_by_host)
    _write_disks(database, connection, change)
    intents.decide(connection, change.decided, version=following, at=at)
    events.append(database, connection, change.events)
    return following


def _claim(connection: Connection, base_version: int, change: PlanChange) -> int:
    """Take the next version. First of all: on PostgreSQL it also makes other commits wait until this one ends."""
    claim = _CLAIM
    if change.rules is not None:
        claim = claim.values(rules=to_json(change.rules))
    if change.horizon_at is not None:
        claim = claim.values(horizon_at=change.horizon_at)
    following = base_version + 1
    if connection.execute(claim, {"base_version": base_version, "following": following}).rowcount != 1:
        message = f"the plan moved on from version {base_version}; load it again and decide again"
        raise StalePlan(message, base_version=base_version)
    return following


def _write_windows(database: Database, connection: Connection, change: PlanChange) -> None:
    written = {window.id for window in change.windows}
    for batch in in_batches([key for key in change.dropped_windows if key not in written]):
        _drop_planned(connection, batch)
    if change.windows:
        connection.execute(upsert(database.dialect, WINDOW), [window_row(window) for window in change.windows])


def _drop_planned(connection: Connection, ids: Sequence[WindowId]) -> None:
    connection.execute(delete(WINDOW).where(WINDOW.c.id.in_(ids), WINDOW.c.state == WindowState.PLANNED.value))
    decided = connection.execute(select(WINDOW.c.id).where(WINDOW.c.id.in_(ids))).scalars().first()
    if decided is not None:
        message = f"window {decided} is decided and cannot be dropped; nothing was written"
        raise BrokenInvariant(message, constraint="window_decided_is_kept", window=decided)


def _write_disks(database: Database, connection: Connection, change: PlanChange) -> None:
    written = {disk.id for disk in change.disks}
    for batch in in_batches([key for key in change.dropped_disks if key not in written]):
        connection.execute(delete(BOOKED_DISK).where(BOOKED_DISK.c.id.in_(batch)))
    if change.disks:
        connection.execute(upsert(database.dialect, BOOKED_DISK), [booked_disk_row(disk) for disk in change.disks])


@dataclass(frozen=True, slots=True)
class _SpanWrites:
    """What turns the stored spans of the changed reservations into the new ones."""

    drops: list[Columns] = field(default_factory=list)
    pins: list[Columns] = field(default_factory=list)
    inserts: list[Columns] = field(default_factory=list)
    gpus: list[Columns] = field(default_factory=list)
    closed: list[Columns] = field(default_factory=list)
    """Nothing of these is on any host: they hold no GPU any more, and their spans are history."""


def _write_spans(
    connection: Connection, reservations: Iterable[Reservation], profile_by_host: Mapping[HostId, HostProfile]
) -> None:
    reservations = tuple(reservations)
    stored: dict[tuple[ReservationId, int], Row[Any]] = {}
    for batch in in_batches([reservation.id for reservation in reservations]):
        for row in connection.execute(_SPANS_OF, {"reservations": batch}):
            stored[row.reservation, row.number] = row
    writes = _span_writes(reservations, stored, profile_by_host)
    for statement, rows in (
        (_DROP_SPAN, writes.drops),
        (_FREE_GPUS, writes.closed),
        (_PIN_SPAN, writes.pins),
        (_INSERT_SPAN, writes.inserts),
        (_INSERT_SPAN_GPU, writes.gpus),
    ):
        if rows:
            connection.execute(statement, rows)


def _span_writes(
    reservations: Iterable[Reservation],
    stored: dict[tuple[ReservationId, int], Row[Any]],
    profile_by_host: Mapping[HostId, HostProfile],
) -> _SpanWrites:
    writes = _SpanWrites()
    for reservation in reservations:
        if reservation.is_closed:
            writes.closed.append({"of": reservation.id})
        for number, span in enumerate(reservation.spans):
            row = stored.pop((reservation.id, number), None)
            if row is not None and _is_in_place(row, span):
                if row.generation != span.generation:
                    writes.pins.append({"of": reservation.id, "of_number": number, "pinned_to": span.generation})
                continue
            if row is not None:
                writes.drops.append({"of": reservation.id, "of_number": number})
            writes.inserts.append(span_row(reservation.id, number, span))
            if not reservation.is_closed:
                writes.gpus.extend(_gpu_rows(reservation.id, number, span, profile_by_host))
    writes.drops.extend({"of": reservation, "of_number": number} for reservation, number in stored)
    return writes


def _is_in_place(row: Row[Any], span: BookedSpan) -> bool:
    return (row.start_at, row.end_at, row.host, row.partition) == (
        span.start_at,
        span.end_at,
        span.host,
        span.partition,
    )


def _gpu_rows(
    reservation: ReservationId, number: int, span: BookedSpan, profile_by_host: Mapping[HostId, HostProfile]
) -> Iterable[Columns]:
    profile = profile_by_host.get(span.host)
    if profile is None:
        message = f"{reservation} is booked on host {span.host!r}, which is not in the plan; nothing was written"
        raise BrokenInvariant(message, constraint="fk_booked_span_host", host=span.host)
    for gpu in sorted(profile.partition(span.partition).gpus):
        yield {
            "reservation": reservation,
            "number": number,
            "gpu": gpu,
            "host": span.host,
            "start_at": span.start_at,
            "end_at": span.end_at,
        }
