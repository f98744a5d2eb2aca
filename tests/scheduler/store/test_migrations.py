"""Migrations: they make what the tables say, on both databases, once, and refuse a database that is ahead."""

import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, inspect, select, text, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from scheduler.core.errors import BrokenInvariant
from scheduler.core.facts import (
    Asked,
    DiskFact,
    ForeignDomain,
    GpuFact,
    GpuState,
    HostFacts,
    Measurement,
    Verb,
    VmFact,
)
from scheduler.core.intents import Drain
from scheduler.core.plan import Decided, Plan, PlanChange, PolicyNote, Rules, event
from scheduler.core.requests import DiskId, HostId, Role
from scheduler.core.windows import Layout, WindowState
from scheduler.store.accounts import User
from scheduler.store.engine import Database
from scheduler.store.failures import SchemaTooNew, SchemaTooOld
from scheduler.store.migrating import REVISIONS, alembic_config, current_revision
from scheduler.store.store import Store
from scheduler.store.tables import Row
from tests.databases import OpenStore, PostgresqlCluster, find_profile_by_name
from tests.scheduler.store.values import FIRST_FOUR, HOST_A, booked_disk, host, reservation, span, window

RULES = Rules(
    version=1,
    zone="UTC",
    outside=Layout(name="day", sizes=frozenset({1, 2}), queues=frozenset({"interactive"})),
    queues=(),
    images=("ubuntu",),
    default_disk_gib=100,
    retention_s=1,
    grace_s=1,
    min_useful_s=1,
    warnings_s=(),
)


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


def _at_revision(store: Store, revision: str) -> None:
    with store._database.writing("migrate") as connection:
        command.upgrade(alembic_config(connection), revision)


Rows: TypeAlias = dict[str, list[dict[str, object]]]


def _rows(store: Store) -> Rows:
    """Read every row of every table, as it stands there."""
    with store._database.reading() as connection:
        names = sorted(set(inspect(connection).get_table_names()) - {"alembic_version", "sqlite_sequence"})
        return {
            name: sorted(
                (dict(row) for row in connection.execute(text(f'SELECT * FROM "{name}"')).mappings()), key=repr
            )
            for name in names
        }


def _with_columns_of(rows: Rows, before: Rows) -> Rows:
    """Return rows of today without what tables did not have before."""
    return {
        name: [{column: row[column] for column in known[0]} for row in rows[name]] for name, known in before.items()
    }


def _fill_as_first(store: Store) -> tuple[Plan, Mapping[HostId, HostFacts]]:
    """Put a row into every table of a database of the first schema; return what they are to be read as.

    Today's program cannot write there any more: it writes into a database of today, from where the rows are copied.
    """
    today = Store.open("sqlite://", profiles=find_profile_by_name, durability="off")
    today.migrate()
    _fill(today)
    with today._database.reading() as source, store._database.writing("raw") as connection:
        names = set(inspect(connection).get_table_names())
        for table in (table for table in Row.metadata.sorted_tables if table.name in names):
            known = {column["name"] for column in inspect(connection).get_columns(table.name)}
            rows = source.execute(select(*(column for column in table.columns if column.name in known))).mappings()
            if table.name == "plan":
                (row,) = rows
                connection.execute(update(table).values(dict(row)))
                continue
            connection.execute(insert(table), [dict(row) for row in rows])
            if "seq" in known and connection.dialect.name == "postgresql":
                # Keys that are given are not counted.
                connection.execute(
                    text(f"SELECT setval(pg_get_serial_sequence('{table.name}', 'seq'), max(seq)) FROM {table.name}")
                )
    read = today.load_plan(0), today.load_all_facts()
    today.close()
    return read


def _fill(store: Store) -> None:
    """Write a row into every table of the first schema."""
    asked = store.file_intent(Drain(host=HOST_A), at=1, author="root", role=Role.ADMIN, key="k")[0]
    store.file_intent(Drain(host=HOST_A), at=1, author="root", role=Role.ADMIN)
    booked = reservation("r-1", span(0, 100, generation=1), span(200, 300), generation=1)
    change = PlanChange(
        hosts=(host(),),
        windows=(window("open", WindowState.OPEN),),
        reservations=(booked, reservation("r-2", is_closed=True)),
        disks=(booked_disk(),),
        rules=RULES,
        policy_text="version: 1",
        decided=(Decided(seq=asked.seq),),
        events=(event("something", 1, reservation=booked.id),),
    )
    store.commit_plan(0, change, at=1)
    store.acquire_lease(f"host.{HOST_A}", "t", now_machine_s=0, ttl_s=10)
    facts = HostFacts(
        host=HOST_A,
        seen_at=1,
        vms=(VmFact(reservation=booked.id, generation=1, partition=FIRST_FOUR, asked_at=1),),
        gpus=(GpuFact(gpu=9, state=GpuState.QUARANTINED, since_at=1),),
        disks=(DiskFact(disk=DiskId("d-1"), size_gib=100, made_at=1),),
        asked=(Asked(verb=Verb.START, subject="x", asked_at=1, until_at=2),),
        foreign=(ForeignDomain(uuid=UUID(int=1), name="other", gpus=frozenset({12})),),
    )
    measured = Measurement(host=HOST_A, what="start", gpus=4, took_s=70, at=1)
    store.record_facts(HOST_A, "t", HostFacts(host=HOST_A), facts, measurements=[measured], now_machine_s=1)


def test_a_database_of_the_first_schema_is_migrated_with_every_row_as_it_was(empty: Store) -> None:
    _at_revision(empty, "0001")
    plan, facts = _fill_as_first(empty)
    before = _rows(empty)
    assert [name for name, rows in before.items() if not rows] == []
    assert len(before) == 19
    with pytest.raises(SchemaTooOld, match="migrate it first"):
        empty.accounts.all()

    empty.migrate()

    after = _rows(empty)
    assert _with_columns_of(after, before) == before
    assert {name: rows for name, rows in after.items() if name not in before} == {
        "account": [],
        "heartbeat": [],
        "token": [],
    }
    assert (empty.load_plan(0), empty.load_all_facts()) == (plan, facts)
    # What the first schema refused is refused as before, and the new tables work.
    with pytest.raises(BrokenInvariant), empty._database.writing("raw") as connection:
        connection.execute(text("UPDATE reservation SET is_closed = FALSE WHERE id = 'r-2'"))
    empty.commit_plan(1, PlanChange(reservations=(reservation("r-3", span(400, 500)),)), at=2)
    empty.accounts.add(User(name="root", role=Role.ADMIN, created_at=1), by="set-up")
    empty.beat("ticker", "one", 1)
    assert [each.kind for _, each in empty.events()] == ["something", "user.added"]


def test_what_was_there_before_real_hosts_is_simulated_has_no_troubles_and_whole_shares(empty: Store) -> None:
    _at_revision(empty, "0001")
    _fill_as_first(empty)
    empty.migrate()
    after = _rows(empty)
    assert [row["connect"] for row in after["host"]] == [""]
    assert [row["troubles"] for row in after["host_fact"]] == ["[]"]
    assert {(row["memory_gib"], row["vcpus"]) for row in after["reservation"]} == {(None, None)}


def test_of_a_policy_that_was_there_before_notes_nothing_is_known(empty: Store) -> None:
    _at_revision(empty, "0001")
    _fill_as_first(empty)
    with pytest.raises(SchemaTooOld):
        empty.policy(1)
    empty.migrate()
    record = empty.policy(1)
    assert record is not None
    assert (record.text, record.author, record.note) == ("version: 1", "plan", PolicyNote())
    note = PolicyNote(message="longer nights", override="power work", made_with=(("tzdata", "2026a"),))
    rules = replace(RULES, version=2)
    empty.commit_plan(1, PlanChange(rules=rules, policy_text="version: 1 # 2", policy_note=note), at=2, author="ada")
    record = empty.policy(2)
    assert record is not None
    assert (record.author, record.note) == ("ada", note)


def test_a_migration_that_is_cut_off_leaves_the_database_as_it_was(
    empty: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _at_revision(empty, "0001")
    _fill_as_first(empty)
    before = _rows(empty)

    def cut_off(point: str) -> None:
        raise KeyboardInterrupt(point)

    with monkeypatch.context() as patched:
        patched.setattr(empty._database, "_on_commit", cut_off)
        with pytest.raises(KeyboardInterrupt, match="migrate:before"):
            empty.migrate()
    assert _rows(empty) == before
    with empty._database.reading() as connection:
        assert current_revision(connection) == "0001"
    empty.migrate()
    with empty._database.reading() as connection:
        assert current_revision(connection) == REVISIONS[-1]


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
    """Cut a CREATE statement at its lines: their order says nothing.

    A column that came later stands on the line of the one before it.
    """
    columns = re.sub(r", (?=\w+ (?:VARCHAR|BIGINT|INTEGER|BOOLEAN)\b)", "\n", sql)
    return frozenset(line.strip().rstrip(",") for line in columns.strip().splitlines())


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
