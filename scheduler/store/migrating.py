"""Brings a database's tables up to this version of the program, and refuses one that is ahead of it.

The migrations are in `migrations/`; there is no alembic.ini, and none is needed.
"""

from typing import Any

from sqlalchemy import Connection, inspect, text

from scheduler.store.failures import SchemaTooNew

REVISIONS = ("0001", "0002", "0003", "0004")
"""What this version of the program knows, oldest first."""

_VERSIONS_TABLE = "alembic_version"


def refuse_newer(connection: Connection) -> None:
    """Raise if the database holds a revision that this version of the program does not know."""
    revision = current_revision(connection)
    if revision is not None and revision not in REVISIONS:
        raise SchemaTooNew(
            f"the database is at schema revision {revision}, this program knows up to {REVISIONS[-1]};"
            " run the newer version of Nightshift, or restore a copy from before the upgrade",
            revision=revision,
            known=REVISIONS[-1],
        )


def current_revision(connection: Connection) -> str | None:
    """Return the revision that the database is at; None when it was never migrated."""
    if not inspect(connection).has_table(_VERSIONS_TABLE):
        return None
    revision: str | None = connection.execute(text(f"SELECT version_num FROM {_VERSIONS_TABLE}")).scalar()
    return revision


def migrate(connection: Connection) -> None:
    """Run what is missing, inside the caller's transaction; nothing when nothing is. May be called many times."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('nightshift.migrate'))"))
    refuse_newer(connection)
    if current_revision(connection) == REVISIONS[-1]:
        return
    # Alembic is needed by this one call in a process's life; importing it costs more than the migrations.
    from alembic import command

    command.upgrade(alembic_config(connection), "head")


def alembic_config(connection: Connection) -> Any:
    """Return the configuration of Alembic for this connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "scheduler.store:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
