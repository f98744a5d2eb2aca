"""The store's own failures, and the one translation of a database's errors into ours.

Holds no retry: whether to try again is the edge's choice, told by `retryable`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy.exc import DBAPIError, IntegrityError, TimeoutError
from sqlalchemy.schema import PrimaryKeyConstraint, UniqueConstraint

from scheduler.core.errors import BrokenInvariant, NightshiftError, StoreBusy
from scheduler.store.tables import Row


class BadDatabaseUrl(NightshiftError):
    """The URL names no database that Nightshift can use."""

    code = "store.bad_url"


class SchemaTooNew(NightshiftError):
    """The database was migrated by a newer version of the program; this one must not write to it."""

    code = "store.schema_too_new"


class SchemaTooOld(NightshiftError):
    """The database has no tables yet, or not all of them."""

    code = "store.schema_too_old"


class ExtensionMissing(NightshiftError):
    """PostgreSQL lacks btree_gist, without which it cannot refuse double bookings."""

    code = "store.extension_missing"


class StoreUnreachable(NightshiftError):
    """The database does not answer. What was being committed may or may not have been."""

    code = "store.unreachable"
    retryable = True


class Unstorable(NightshiftError):
    """A value that cannot be stored as it is: half a surrogate pair, NUL on PostgreSQL, a number where text belongs.

    Nothing was written.
    """

    code = "store.unstorable"


_DOWN_CLASSES = ("08", "53", "57", "58")
"""Connection lost, out of disk, memory or connections, shut down, trouble of the machine."""
_REFUSAL = re.compile(r"^(\w+): ")
_CHECK_FAILED = re.compile(r"CHECK constraint failed: (\w+)")
_NOT_UNIQUE = re.compile(r"UNIQUE constraint failed: (.+)")

_BUSY_STATES = {"40001", "40P01", "55P03"}
"""serialization_failure, deadlock_detected, lock_not_available: PostgreSQL's Errcodes, appendix A."""
_NO_TABLE_STATES = {"42P01", "42703"}
"""undefined_table, undefined_column."""
_NO_EXTENSION_STATES = {"0A000", "58P01"}
"""feature_not_supported, undefined_file: how versions of PostgreSQL say that an extension is not installed."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise our failures instead of the database's; what is not understood passes as it is."""
    try:
        yield
    except DBAPIError as error:
        ours = _ours(error)
        if ours is None:
            raise
        raise ours from error
    except UnicodeEncodeError as error:
        near = error.object[max(0, error.start - 20) : error.end + 20]
        raise Unstorable(f"{near!r} is not text that can be stored: {error.reason}; correct it") from error
    except TimeoutError as error:
        raise StoreBusy(f"no database connection became free: {error}; try again") from error


def _ours(error: DBAPIError) -> NightshiftError | None:
    cause = error.orig
    if isinstance(error, IntegrityError):
        constraint = _broken_constraint(cause)
        return BrokenInvariant(f"the database refused a row: {constraint}: {_first_line(cause)}", constraint=constraint)
    said = _first_line(cause)
    if isinstance(cause, psycopg.Error):
        return _ours_of_postgresql(cause, said)
    if "locked" in said or "busy" in said:
        return StoreBusy(f"the database was busy for too long ({said}); try again")
    if "no such table" in said or "no such column" in said or "has no column" in said:
        return _too_old(said)
    if any(trouble in said for trouble in ("unable to open", "disk I/O error", "readonly", "is full")):
        return StoreUnreachable(f"the database cannot be used: {said}; check its file, its directory and its disk")
    return None


def _ours_of_postgresql(cause: psycopg.Error, said: str) -> NightshiftError | None:
    if cause.sqlstate in _BUSY_STATES:
        return StoreBusy(f"the database was busy for too long ({said}); try again")
    if cause.sqlstate in _NO_TABLE_STATES:
        return _too_old(said)
    if cause.sqlstate in _NO_EXTENSION_STATES and "btree_gist" in said:
        return ExtensionMissing(f"{said}; install PostgreSQL's contrib modules (apt install postgresql-contrib)")
    if isinstance(cause, psycopg.DataError):
        return Unstorable(f"a value cannot be stored: {said}; correct it")
    if isinstance(cause, psycopg.OperationalError) and (cause.sqlstate is None or cause.sqlstate[:2] in _DOWN_CLASSES):
        return StoreUnreachable(f"the database does not answer: {said}; check that it runs")
    return None


def _too_old(said: str) -> SchemaTooOld:
    return SchemaTooOld(f"the database is not migrated to this version ({said}); migrate it first")


def _broken_constraint(cause: BaseException | None) -> str:
    """Return the constraint's name, the same on both databases where it has one there."""
    if isinstance(cause, psycopg.Error):
        return cause.diag.constraint_name or f"{cause.diag.table_name}.{cause.diag.column_name}"
    said = str(cause)
    if match := _CHECK_FAILED.search(said):
        return match[1]
    if match := _NOT_UNIQUE.search(said):
        return _unique_name(match[1])
    if match := _REFUSAL.match(said):
        return match[1]
    return "foreign_key" if "FOREIGN KEY" in said else said


def _unique_name(columns: str) -> str:
    """SQLite tells a broken key by its columns, `table.a, table.b`; find what we named it."""
    table_name, _, _ = columns.partition(".")
    wanted = [column.rpartition(".")[2] for column in columns.split(", ")]
    table = Row.metadata.tables.get(table_name)
    for constraint in () if table is None else table.constraints:
        if not isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint):
            continue
        if sorted(column.name for column in constraint.columns) == sorted(wanted):
            return str(constraint.name)
    return columns


def _first_line(cause: BaseException | None) -> str:
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
