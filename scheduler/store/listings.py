"""What people list: reservations by owner, id or state, the starts behind them, the policies that were applied.

Reads history too, which the plan and the facts in memory have let go of. Must not write.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, false, or_, select, true

from scheduler.core.facts import VmFact
from scheduler.core.plan import Reservation
from scheduler.core.requests import HostId, ReservationId
from scheduler.core.spans import Instant
from scheduler.store.fact_kinds import VMS
from scheduler.store.plans import read_reservations
from scheduler.store.rows import in_batches
from scheduler.store.tables import POLICY, RESERVATION, VM_FACT


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedPolicy:
    """One applied policy version, without its text."""

    version: int
    applied_at: Instant
    author: str


def policies(connection: Connection) -> tuple[AppliedPolicy, ...]:
    """Return all applied policy versions, newest first."""
    query = select(POLICY.c.version, POLICY.c.applied_at, POLICY.c.author).order_by(POLICY.c.version.desc())
    return tuple(
        AppliedPolicy(version=row.version, applied_at=row.applied_at, author=row.author)
        for row in connection.execute(query)
    )


def reservations(
    connection: Connection,
    *,
    owner: str | None,
    ids: Collection[ReservationId] | None,
    is_closed: bool | None,
    ended_since_at: Instant | None,
    limit: int,
) -> Iterator[Reservation]:
    """Yield reservations that meet all conditions that are given, newest first."""
    where = []
    if owner is not None:
        where.append(RESERVATION.c.owner == owner)
    if ids is not None:
        where.append(RESERVATION.c.id.in_(sorted(ids)))
    if is_closed and ended_since_at is not None:
        # Said so that only the index of ends serves: without statistics SQLite would walk through all that is closed.
        where += [RESERVATION.c.is_closed != false(), RESERVATION.c.ended_at >= ended_since_at]
    elif is_closed is not None:
        where.append(RESERVATION.c.is_closed == (true() if is_closed else false()))
    elif ended_since_at is not None:
        where.append(or_(RESERVATION.c.is_closed == false(), RESERVATION.c.ended_at >= ended_since_at))
    return read_reservations(connection, *where, limit=limit)


def reservation_vms(
    connection: Connection, ids: Collection[ReservationId]
) -> Mapping[ReservationId, list[tuple[HostId, VmFact]]]:
    """Return the remembered starts of reservations with their hosts, by generation, closed ones too."""
    found: dict[ReservationId, list[tuple[HostId, VmFact]]] = {reservation: [] for reservation in ids}
    for batch in in_batches(sorted(found)):
        query = select(VM_FACT).where(VM_FACT.c.reservation.in_(batch)).order_by(VM_FACT.c.generation)
        for row in connection.execute(query):
            found[ReservationId(row.reservation)].append((HostId(row.host), VMS.read(row)))
    return found
