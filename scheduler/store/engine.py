"""The connection to SQLite or PostgreSQL: how transactions begin, wait, fail and end.

Every writing transaction on SQLite begins with BEGIN IMMEDIATE, so it never has to upgrade a lock that another holds.
Writers of one process queue on a lock of ours first: SQLite's own waiting is polling, and unfair. An in-memory database
is one connection, so there readers queue as well.
Holds no statement on our tables.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, TypeAlias

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from scheduler.core.errors import StoreBusy
from scheduler.store.failures import BadDatabaseUrl, translated

Durability: TypeAlias = Literal["full", "off"]

_BUSY_TIMEOUT_S = 5.0
_POSTGRESQL_REACH = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""Seconds, the last in milliseconds: a server that went away without a word must not hold a thread for hours."""
_ORDER_LOCK = 0x6E696768
"""Number of the PostgreSQL advisory lock under which intents and events get their numbers."""


def _unwatched(point: str) -> None:
    """Do nothing at a commit; tests put a kill here."""


class Database:
    """One database, and the three ways to talk to it: read a snapshot, peek at one row, write."""

    def __init__(
        self, engine: Engine, *, is_memory: bool, on_commit: Callable[[str], None] | None, busy_timeout_s: float
    ) -> None:
        self.engine = engine
        self.dialect = engine.dialect.name
        self._on_commit = on_commit or _unwatched
        self._busy_timeout_s = busy_timeout_s
        self._lock = threading.Lock()
        self._writers_queue = self.dialect == "sqlite"
        self._readers_queue = self.is_memory = is_memory
        self._writer: Engine
        self._reader: Engine
        self._peeker: Engine
        if self.dialect == "sqlite":
            self._writer = engine.execution_options(begins_with="BEGIN IMMEDIATE")
            self._reader = engine
            self._peeker = engine.execution_options(begins_with="")
        else:
            self._writer = engine
            self._reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            self._peeker = engine.execution_options(isolation_level="AUTOCOMMIT")

    @classmethod
    def open(
        cls,
        url: str,
        *,
        durability: Durability,
        on_commit: Callable[[str], None] | None = None,
        busy_timeout_s: float = _BUSY_TIMEOUT_S,
    ) -> "Database":
        """Open `sqlite:///path`, `sqlite://` (in memory) or `postgresql+psycopg://…`; nothing is connected yet."""
        parsed = _parsed(url)
        if parsed.get_backend_name() == "postgresql":
            # What the URL says itself comes first.
            reach = {key: value for key, value in _POSTGRESQL_REACH.items() if key not in parsed.query}
            engine = create_engine(parsed, connect_args=reach, pool_pre_ping=True, pool_size=5, max_overflow=15)
            _prepare_postgresql(engine, durability, busy_timeout_s)
            return cls(engine, is_memory=False, on_commit=on_commit, busy_timeout_s=busy_timeout_s)
        is_memory = parsed.database in (None, "", ":memory:")
        options: dict[str, Any] = {"poolclass": StaticPool} if is_memory else {"pool_size": 5, "max_overflow": 15}
        arguments = {"check_same_thread": False, "timeout": busy_timeout_s}
        engine = create_engine(parsed, connect_args=arguments, **options)
        _prepare_sqlite(engine, durability)
        return cls(engine, is_memory=is_memory, on_commit=on_commit, busy_timeout_s=busy_timeout_s)

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Read one consistent snapshot."""
        with self._turn(queues=self._readers_queue), translated(), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def peeking(self) -> Iterator[Connection]:
        """Run one reading statement, without a transaction around it."""
        with self._turn(queues=self._readers_queue), translated(), self._peeker.connect() as connection:
            yield connection

    @contextmanager
    def writing(self, kind: str) -> Iterator[Connection]:
        """Write in one transaction; `on_commit` is called just before and just after its commit."""
        with self._turn(queues=self._writers_queue), translated(), self._writer.begin() as connection:
            yield connection
            self._on_commit(f"{kind}:before")
        self._on_commit(f"{kind}:after")

    def in_commit_order(self, connection: Connection) -> None:
        """Take numbers from here to the commit alone, so that a higher number is never seen before a lower one.

        Without it a reader of `seq > n` could pass over a row whose transaction took its number first and ended last.
        Call it last before the insert. On SQLite writers are alone anyway.
        """
        if self.dialect == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ORDER_LOCK})

    def _turn(self, *, queues: bool) -> AbstractContextManager[None]:
        return self._queued() if queues else nullcontext()

    @contextmanager
    def _queued(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=self._busy_timeout_s):
            raise StoreBusy(f"the database was busy for more than {self._busy_timeout_s:g} s; try again")
        try:
            yield
        finally:
            self._lock.release()


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise BadDatabaseUrl(f"{url!r} is not a database URL; write sqlite:///path or postgresql://…") from error
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        shown = parsed.render_as_string(hide_password=True)
        raise BadDatabaseUrl(f"{shown}: {parsed.drivername!r} is not supported; use sqlite:///path or postgresql://…")
    return parsed


def _prepare_sqlite(engine: Engine, durability: Durability) -> None:
    """Take transactions out of the driver's hands, which would begin them late and never for reads."""

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {durability.upper()}")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        begins_with: str = connection.get_execution_options().get("begins_with", "BEGIN")
        if begins_with:
            connection.exec_driver_sql(begins_with)


def _prepare_postgresql(engine: Engine, durability: Durability, busy_timeout_s: float) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: ConnectionPoolEntry) -> None:
        connection.execute(f"SET lock_timeout = {int(busy_timeout_s * 1000)}")
        if durability == "off":
            connection.execute("SET synchronous_commit = off")
        connection.commit()
