"""What people list: reservations by owner, id or state, the starts behind them, the policies that were applied.

Reads history too, which the plan and the facts in memory have let go of. Must not write.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, false, or_, select, true

from scheduler.core.facts import VmFact
from scheduler.core.plan import Reservation
from scheduler.core.requests import HostId, ReservationId
from scheduler.core.spans import Instant, Span
from scheduler.core.use import EndedUse, held_gpu_s
from scheduler.store.fact_kinds import VMS
from scheduler.store.plans import read_reservations
from scheduler.store.rows import in_batches
from scheduler.store.tables import POLICY, RESERVATION, SPAN, VM_FACT


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


def asked_since(
    connection: Connection, since_at: Instant, *, after: ReservationId | None, limit: int
) -> Iterator[Reservation]:
    """Yield reservations submitted from an instant on, oldest first; `after`: only those that come after this one."""
    # The index of submissions begins with whether they are closed.
    where = [RESERVATION.c.is_closed.in_((True, False)), RESERVATION.c.submitted_at >= since_at]
    if after is not None:
        row = connection.execute(select(RESERVATION.c.submitted_at).where(RESERVATION.c.id == after)).first()
        if row is None:
            return
        at = row.submitted_at
        is_later = and_(RESERVATION.c.submitted_at == at, RESERVATION.c.id > after)
        where += [RESERVATION.c.submitted_at >= at, or_(RESERVATION.c.submitted_at > at, is_later)]
    order = (RESERVATION.c.submitted_at, RESERVATION.c.id)
    first = connection.execute(select(RESERVATION.c.id).where(*where).order_by(*order).limit(limit)).scalars()
    yield from read_reservations(connection, RESERVATION.c.id.in_(first.all()))


def ended_uses(connection: Connection, started_in: Span) -> Iterator[EndedUse]:
    """Yield what closed reservations held that first started in a stretch of time."""
    query = (
        select(
            RESERVATION.c.id,
            RESERVATION.c.owner,
            RESERVATION.c.gpus,
            RESERVATION.c.run_s,
            RESERVATION.c.not_before_at,
            SPAN.c.start_at,
            SPAN.c.end_at,
        )
        .join_from(RESERVATION, SPAN)
        # What started in it ended after its beginning. In no order, so that only the index of ends serves.
        .where(
            RESERVATION.c.is_closed != false(),
            RESERVATION.c.ended_at >= started_in.start_at,
            SPAN.c.generation.is_not(None),
        )
    )
    spans_by_id: dict[str, list[Any]] = {}
    for row in connection.execute(query):
        spans_by_id.setdefault(row.id, []).append(row)
    for reservation, spans in sorted(spans_by_id.items()):
        one = spans[0]
        if started_in.covers(max(min(row.start_at for row in spans), one.not_before_at or 0)):
            held_s = sum(row.end_at - row.start_at for row in spans)
            gpu_s = held_gpu_s(gpus=one.gpus, run_s=one.run_s, held_s=held_s)
            yield EndedUse(reservation=ReservationId(reservation), owner=one.owner, gpu_s=gpu_s)


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
