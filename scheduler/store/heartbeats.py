"""Heartbeats: when each part of Nightshift last said that it works, in machine time.

For people and for the supervisor to look at. Nothing is decided by them: who may act on a host is told by its lease.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, or_, select

from scheduler.store.engine import Database
from scheduler.store.statements import upsert
from scheduler.store.tables import HEARTBEAT

BEAT_EVERY_S = 5.0
"""The shortest machine time between two writes of one heartbeat."""
_FORGOTTEN_AFTER_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """One part's last sign of life."""

    kind: str
    """`api`, `ticker`, `worker`, `plan` (a run of the plan task), `host` (a converge of it), `watch` (of policy files)
    or `windows` (a comparison of planned ones with the data that is installed)."""
    name: str
    machine_s: float
    detail: str = ""


def write(
    database: Database, connection: Connection, kind: str, name: str, *, now_machine_s: float, detail: str
) -> None:
    """Write a heartbeat over the last one, and forget those that stopped a day ago, or come from a clock put back."""
    now_ms = int(now_machine_s * 1000)
    columns = {"kind": kind, "name": name, "machine_ms": now_ms, "detail": detail}
    # Forgetting comes first: two that hold their own row and then want the other's would wait for each other.
    connection.execute(
        delete(HEARTBEAT).where(
            or_(
                HEARTBEAT.c.machine_ms < now_ms - _FORGOTTEN_AFTER_MS,
                HEARTBEAT.c.machine_ms > now_ms + _FORGOTTEN_AFTER_MS,
            )
        )
    )
    connection.execute(upsert(database.dialect, HEARTBEAT), columns)


def read(connection: Connection) -> tuple[Heartbeat, ...]:
    """Return all heartbeats, by kind and name."""
    rows = connection.execute(select(HEARTBEAT).order_by(HEARTBEAT.c.kind, HEARTBEAT.c.name))
    return tuple(
        Heartbeat(kind=row.kind, name=row.name, machine_s=row.machine_ms / 1000, detail=row.detail) for row in rows
    )
