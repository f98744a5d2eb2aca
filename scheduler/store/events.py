"""The append-only record: audit, event stream and outbox of notices in one table."""

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, func, select, true

from scheduler.core.plan import Event
from scheduler.core.requests import ReservationId
from scheduler.store.engine import Database
from scheduler.store.rows import event_of, event_row
from scheduler.store.statements import insert_unless_keyed
from scheduler.store.tables import EVENT


def append(database: Database, connection: Connection, events: Sequence[Event]) -> None:
    """Append events, but those whose key is taken. Call it last in a transaction: it fixes their order."""
    if not events:
        return
    database.in_commit_order(connection)
    connection.execute(insert_unless_keyed(database.dialect, EVENT), [event_row(event) for event in events])


def read(
    connection: Connection,
    *,
    after_seq: int,
    limit: int,
    kinds: Iterable[str] | None,
    reservation: ReservationId | None,
    only_notices: bool,
) -> tuple[tuple[int, Event], ...]:
    """Return events with their numbers, oldest first."""
    query = select(EVENT).where(EVENT.c.seq > after_seq).order_by(EVENT.c.seq).limit(limit)
    if kinds is not None:
        query = query.where(EVENT.c.kind.in_(sorted(kinds)))
    if reservation is not None:
        query = query.where(EVENT.c.reservation == reservation)
    if only_notices:
        query = query.where(EVENT.c.is_notice == true())
    return tuple((row.seq, event_of(row)) for row in connection.execute(query))


def last_seq(connection: Connection) -> int:
    """Return the number of the newest event; 0 when there is none."""
    return connection.execute(select(func.max(EVENT.c.seq))).scalar() or 0
