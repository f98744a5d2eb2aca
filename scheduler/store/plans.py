"""Reads of the plan's rows: all of it as one snapshot, or reservations and policies by themselves, ended ones too.

Must not write; that is `commits`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, false, select

from scheduler.core.plan import BookedSpan, Plan, PolicyNote, Reservation, Rules
from scheduler.core.requests import HostId
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile
from scheduler.store.codec import from_json
from scheduler.store.rows import booked_disk_of, host_of, policy_note_of, reservation_of, span_of, window_of
from scheduler.store.tables import BOOKED_DISK, HOST, PLAN, POLICY, RESERVATION, SPAN, WINDOW

_VERSION = select(PLAN.c.version).where(PLAN.c.id == 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRecord:
    """A policy version as it was applied."""

    version: int
    text: str
    rules: Rules
    applied_at: Instant
    author: str
    note: PolicyNote


def version(connection: Connection) -> int:
    """Return the plan's version."""
    return int(connection.execute(_VERSION).scalar_one())


def profile_names(connection: Connection) -> Mapping[HostId, str]:
    """Return the name of every host's profile."""
    return {HostId(row.id): row.profile for row in connection.execute(select(HOST.c.id, HOST.c.profile))}


def load(connection: Connection, profiles: Callable[[str], HostProfile], *, windows_past_at: Instant) -> Plan:
    """Return the plan; windows that ended at `windows_past_at` or before are left out, like closed reservations."""
    row = connection.execute(select(PLAN)).one()
    hosts = [host_of(host, profiles(host.profile)) for host in connection.execute(select(HOST).order_by(HOST.c.id))]
    windows = connection.execute(
        select(WINDOW).where(WINDOW.c.end_at > windows_past_at).order_by(WINDOW.c.start_at, WINDOW.c.id)
    )
    disks = connection.execute(select(BOOKED_DISK).order_by(BOOKED_DISK.c.id))
    return Plan(
        version=row.version,
        rules=None if row.rules is None else from_json(Rules, row.rules),
        horizon_at=row.horizon_at,
        hosts={host.id: host for host in hosts},
        windows={window.id: window for window in map(window_of, windows)},
        reservations={r.id: r for r in read_reservations(connection, RESERVATION.c.is_closed == false())},
        disks={disk.id: disk for disk in map(booked_disk_of, disks)},
    )


def read_reservations(connection: Connection, *where: Any, limit: int | None = None) -> Iterator[Reservation]:
    """Yield reservations with their spans in the order in which they were submitted; with a limit the newest first."""
    order = (RESERVATION.c.submitted_at, RESERVATION.c.id)
    if limit is None:
        rows = connection.execute(select(RESERVATION).where(*where).order_by(*order)).all()
        spans = connection.execute(
            select(SPAN).join_from(RESERVATION, SPAN).where(*where).order_by(SPAN.c.reservation, SPAN.c.number)
        )
    else:
        newest = select(RESERVATION).where(*where).order_by(*(column.desc() for column in order)).limit(limit)
        rows = connection.execute(newest).all()
        spans = connection.execute(
            select(SPAN)
            .where(SPAN.c.reservation.in_(select(newest.subquery().c.id)))
            .order_by(SPAN.c.reservation, SPAN.c.number)
        )
    spans_by_reservation: dict[str, list[BookedSpan]] = {}
    for span in spans:
        spans_by_reservation.setdefault(span.reservation, []).append(span_of(span))
    for row in rows:
        yield reservation_of(row, spans_by_reservation.get(row.id, ()))


def read_policy(connection: Connection, policy_version: int) -> PolicyRecord | None:
    """Return one applied policy version."""
    row = connection.execute(select(POLICY).where(POLICY.c.version == policy_version)).first()
    if row is None:
        return None
    return PolicyRecord(
        version=row.version,
        text=row.text,
        rules=from_json(Rules, row.rules),
        applied_at=row.applied_at,
        author=row.author,
        note=policy_note_of(row),
    )
