"""The file of one simulated host: its tables, how it is opened, and its transactions.

Holds SQL structure and connections only: what the rows mean is in `state`. The file is apart from the product's
database on purpose: it stands for a machine, which goes on when the product is killed.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from threading import RLock
from time import monotonic, sleep

from scheduler.core.errors import NightshiftError
from workers.ports import HostUnreachable

FORMAT = 1
"""Written to `user_version`; a file of another format is refused."""

BUSY_TIMEOUT_MS = 10_000
"""How long a transaction waits for another process's; theirs take less than a millisecond."""
BUSY_AGAIN_S = 0.01

MEMORY = ":memory:"

TABLES = """
CREATE TABLE host (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    name TEXT NOT NULL,
    profile TEXT NOT NULL,
    seed INTEGER NOT NULL,
    boots INTEGER NOT NULL,
    boot_driver TEXT NOT NULL,
    unreachable_until INTEGER NOT NULL
);
CREATE TABLE domains (
    uuid TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    reservation TEXT,
    generation INTEGER,
    partition TEXT,
    gpus TEXT NOT NULL,
    devices TEXT NOT NULL,
    memory TEXT NOT NULL,
    disk TEXT,
    spec TEXT NOT NULL,
    state TEXT NOT NULL,
    off_reason TEXT,
    operation TEXT,
    is_up INTEGER NOT NULL,
    is_silent INTEGER NOT NULL,
    ignores_acpi INTEGER NOT NULL,
    CHECK ((reservation IS NULL) = (generation IS NULL)),
    CHECK ((state = 'off') = (off_reason IS NOT NULL))
) WITHOUT ROWID;
CREATE TABLE devices (
    address TEXT PRIMARY KEY,
    gpu INTEGER,
    driver TEXT NOT NULL,
    is_alive INTEGER NOT NULL,
    is_clean INTEGER NOT NULL,
    is_resetting INTEGER NOT NULL,
    held_by TEXT,
    CHECK (NOT (is_resetting AND held_by IS NOT NULL)),
    CHECK (NOT (is_clean AND held_by IS NOT NULL))
) WITHOUT ROWID;
CREATE TABLE disks (
    id TEXT PRIMARY KEY,
    size_gib INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('copying', 'ready', 'partial', 'deleting')),
    held_by TEXT,
    CHECK (held_by IS NULL OR state = 'ready')
) WITHOUT ROWID;
CREATE TABLE fabric (
    partition TEXT PRIMARY KEY
) WITHOUT ROWID;
CREATE TABLE images (
    name TEXT PRIMARY KEY
) WITHOUT ROWID;
CREATE TABLE due (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    what TEXT NOT NULL,
    subject TEXT NOT NULL
);
CREATE INDEX due_by_at ON due (at, id);
CREATE TABLE attempts (
    verb TEXT NOT NULL,
    subject TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (verb, subject)
) WITHOUT ROWID;
CREATE TABLE faults (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    verb TEXT,
    subject TEXT,
    at INTEGER,
    skips_left INTEGER NOT NULL,
    times_left INTEGER NOT NULL,
    until_at INTEGER,
    after_s INTEGER,
    gpus TEXT NOT NULL,
    message TEXT NOT NULL
);
CREATE TABLE log (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    what TEXT NOT NULL,
    domain TEXT,
    name TEXT,
    reservation TEXT,
    generation INTEGER,
    gpus TEXT NOT NULL,
    partition TEXT,
    detail TEXT NOT NULL
);
CREATE TRIGGER log_is_not_changed BEFORE UPDATE ON log
BEGIN SELECT RAISE(ABORT, 'the log of a rack is append-only'); END;
CREATE TRIGGER log_is_not_deleted BEFORE DELETE ON log
BEGIN SELECT RAISE(ABORT, 'the log of a rack is append-only'); END;
"""


class BadRack(NightshiftError):
    """The file is not a rack, is one of another format, or belongs to another host."""

    code = "rack.bad"


class Durability(StrEnum):
    """What a commit waits for."""

    SAFE = "full"
    """Each commit is on the disk: the rack survives a power cut, like the machine that it stands for."""
    FAST = "off"
    """Survives a killed process, not a power cut. For tests and replays."""


def rack_path(data_dir: Path, host: str) -> Path:
    """Return where a host's rack file is in an installation's data directory."""
    return data_dir / "racks" / f"{host}.rack.sqlite"


class RackFile:
    """One connection to a rack's file, shared by the threads of a process; other processes have their own."""

    def __init__(self, path: Path | None, durability: Durability) -> None:
        """Open the file, making it if need be; None: in memory, gone with this object."""
        self.path = path
        self._lock = RLock()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self.connection = sqlite3.connect(
            MEMORY if path is None else path,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_TIMEOUT_MS / 1000,
            cached_statements=256,
        )
        try:
            self._prepare(durability)
        except BaseException:
            self.connection.close()
            raise

    def _prepare(self, durability: Durability) -> None:
        try:
            self._log_ahead()
            self.connection.execute(f"PRAGMA synchronous = {durability.value}")
            with self.writing():
                (found,) = self.connection.execute("PRAGMA user_version").fetchone()
                if found == 0:
                    for statement in statements(TABLES):
                        self.connection.execute(statement)
                    self.connection.execute(f"PRAGMA user_version = {FORMAT}")
        except sqlite3.DatabaseError as error:
            raise BadRack(f"{self.path}: not a rack file ({error}); move it away", path=str(self.path)) from error
        if found not in (0, FORMAT):
            raise BadRack(
                f"{self.path}: rack format {found}, this version reads {FORMAT}; delete the file to begin a new rack",
                path=str(self.path),
                found=found,
            )

    def _log_ahead(self) -> None:
        """Go over to a write-ahead log. Where others just do the same, SQLite says that it is busy without waiting."""
        until_s = monotonic() + BUSY_TIMEOUT_MS / 1000
        while True:
            try:
                self.connection.execute("PRAGMA journal_mode = WAL").fetchone()
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    raise
                if monotonic() >= until_s:
                    raise _kept_by_others(self.path, error) from error
            sleep(BUSY_AGAIN_S)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Run a transaction that may write: committed at the end, rolled back if it raises."""
        with self._lock:
            self._begin()
            try:
                yield self.connection
            except BaseException:
                self.connection.execute("ROLLBACK")
                raise
            self.connection.execute("COMMIT")

    def _begin(self) -> None:
        try:
            self.connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise _kept_by_others(self.path, error) from error

    @contextmanager
    def trying(self) -> Iterator[sqlite3.Connection]:
        """Run a transaction whose writes are always undone: to see what will have happened by an instant."""
        with self._lock:
            self._begin()
            try:
                yield self.connection
            finally:
                self.connection.execute("ROLLBACK")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Run several reads on one state of the file."""
        with self._lock:
            self.connection.execute("BEGIN")
            try:
                yield self.connection
            finally:
                self.connection.execute("ROLLBACK")

    def version(self) -> tuple[int, int]:
        """Return a mark that differs after any change, by this connection or another one's commit."""
        with self._lock:
            (others,) = self.connection.execute("PRAGMA data_version").fetchone()
            return others, self.connection.total_changes

    def close(self) -> None:
        with self._lock:
            self.connection.close()


def _kept_by_others(path: Path | None, error: sqlite3.Error) -> HostUnreachable:
    return HostUnreachable(f"{path}: {error}; another process keeps the rack's file", path=str(path))


def statements(script: str) -> Iterator[str]:
    """Split a script into its statements; `executescript` would commit the transaction that it runs in."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
