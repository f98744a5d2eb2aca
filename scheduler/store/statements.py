"""Statements that both databases need alike, built once for each: insert or overwrite by key, insert unless there."""

from functools import lru_cache
from typing import Any

from sqlalchemy import Table, bindparam, or_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import Insert, ReturningInsert

from scheduler.store.tables import HOST_FACT, LEASE


@lru_cache(maxsize=64)
def upsert(dialect: str, table: Table) -> Insert:
    """Return the statement that writes whole rows, over those with the same primary key."""
    insert = _insert(dialect, table)
    keys = [column.name for column in table.primary_key]
    rest = {column.name: insert.excluded[column.name] for column in table.columns if column.name not in keys}
    return insert.on_conflict_do_update(index_elements=keys, set_=rest)


@lru_cache(maxsize=2)
def upsert_host_fact(dialect: str) -> ReturningInsert[Any]:
    """Return the statement that writes a host's own facts, counts the revision up and returns it."""
    insert = _insert(dialect, HOST_FACT)
    rest = {c.name: insert.excluded[c.name] for c in HOST_FACT.columns if c.name not in ("host", "revision")}
    insert = insert.values({**{c.name: bindparam(c.name) for c in HOST_FACT.columns}, "revision": 1})
    insert = insert.on_conflict_do_update(index_elements=["host"], set_={**rest, "revision": HOST_FACT.c.revision + 1})
    return insert.returning(HOST_FACT.c.revision)


@lru_cache(maxsize=64)
def insert_unless_keyed(dialect: str, table: Table) -> Insert:
    """Return the statement that writes rows, but skips those whose `key` is taken."""
    return _insert(dialect, table).on_conflict_do_nothing(index_elements=["key"])


def _insert(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


@lru_cache(maxsize=2)
def insert_or_take_over(dialect: str) -> ReturningInsert[tuple[str]]:
    """Return the statement that takes a lease: it returns one row, or none when another holds it at `now_ms`."""
    insert = _insert(dialect, LEASE)
    insert = insert.values({column.name: bindparam(column.name) for column in LEASE.columns})
    return insert.on_conflict_do_update(
        index_elements=["name"],
        set_={"token": insert.excluded.token, "expires_machine_ms": insert.excluded.expires_machine_ms},
        where=or_(LEASE.c.token == insert.excluded.token, LEASE.c.expires_machine_ms <= bindparam("now_ms")),
    ).returning(LEASE.c.name)
