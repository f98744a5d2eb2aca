"""Migrations: they make what the tables say, on both databases, once, and refuse a database that is ahead."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from scheduler.core.plan import PlanChange
from scheduler.store.engine import Database
from scheduler.store.failures import SchemaTooNew, SchemaTooOld
from scheduler.store.migrating import REVISIONS, alembic_config
from scheduler.store.store import Store
from scheduler.store.tables import Row
from tests.databases import OpenStore, PostgresqlCluster, find_profile_by_name
from tests.scheduler.store.values import host


@pytest.fixture(params=["sqlite-memory", "sqlite-file", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Give a store on a database without tables."""
    url = "sqlite://"
    if request.param == "sqlite-file":
        url = f"sqlite:///{tmp_path / 'plan.sqlite3'}"
    if request.param == "postgresql":
        cluster: PostgresqlCluster = request.getfixturevalue("postgresql_cluster")
        url = cluster.new_database()
    store = Store.open(url, profiles=find_profile_by_name, durability="off")
    yield store
    store.close()


def test_an_empty_database_is_migrated_and_a_migrated_one_is_left_as_it_is(empty: Store) -> None:
    empty.migrate()
    empty.commit_plan(0, PlanChange(hosts=(host(),)), at=1)
    before = empty.load_plan(0)
    empty.migrate()
    assert empty.load_plan(0) == before


def test_a_database_without_tables_says_that_it_wants_migrating(empty: Store) -> None:
    with pytest.raises(SchemaTooOld, match="migrate it first"):
        empty.plan_version()


def test_the_tables_in_the_database_are_the_tables_in_the_code(store: Store) -> None:
    with store._database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Row.metadata) == []


def test_checks_and_keys_in_the_database_are_those_in_the_code() -> None:
    # Alembic compares no checks; on SQLite the text of every CREATE TABLE is kept, so it can be compared whole.
    database = Database.open("sqlite://", durability="off")
    store = Store(database, find_profile_by_name)
    store.migrate()
    with database.reading() as connection:
        rows = connection.execute(text("SELECT sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql <> ''"))
        migrated = {_parts(sql) for sql in rows.scalars() if "alembic" not in sql and "sqlite_sequence" not in sql}
    store.close()

    tables = Row.metadata.tables.values()
    wanted = {str(CreateTable(table).compile(dialect=sqlite.dialect())) for table in tables}
    wanted |= {str(CreateIndex(index).compile(dialect=sqlite.dialect())) for table in tables for index in table.indexes}
    assert migrated == {_parts(sql) for sql in wanted}


def _parts(sql: str) -> frozenset[str]:
    """Cut a CREATE statement at its lines: their order says nothing."""
    return frozenset(line.strip().rstrip(",") for line in sql.strip().splitlines())


def test_a_database_of_a_newer_program_is_refused_at_open_and_by_migrate(open_store: OpenStore) -> None:
    store = open_store()
    with store._database.writing("raw") as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaTooNew, match="9999") as caught:
        store.migrate()
    assert caught.value.facts == {"revision": "9999", "known": REVISIONS[-1]}
    if not store._database.is_memory:
        with pytest.raises(SchemaTooNew):
            open_store()


def test_many_processes_may_migrate_at_once(postgresql_cluster: PostgresqlCluster) -> None:
    url = postgresql_cluster.new_database()
    stores = [Store.open(url, profiles=find_profile_by_name) for _ in range(3)]
    threads = [threading.Thread(target=store.migrate) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [store.plan_version() for store in stores] == [0, 0, 0]
    for store in stores:
        store.close()


def test_the_revisions_that_the_program_knows_are_those_that_it_ships() -> None:
    database = Database.open("sqlite://", durability="off")
    with database.reading() as connection:
        shipped = ScriptDirectory.from_config(alembic_config(connection)).walk_revisions()
        assert [script.revision for script in shipped] == list(reversed(REVISIONS))
    database.close()
