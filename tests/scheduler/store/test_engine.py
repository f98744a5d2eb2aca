"""The connection: what is waited for, what is refused, what is told about it; and durability is as asked."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from scheduler.core.errors import StoreBusy
from scheduler.core.plan import PlanChange, event
from scheduler.store.engine import Database, Durability
from scheduler.store.failures import BadDatabaseUrl, StoreUnreachable
from scheduler.store.store import Store
from tests.databases import PostgresqlCluster, find_profile_by_name


@pytest.mark.parametrize("url", ["mysql://x/y", "postgresql+psycopg2://x/y", "plan.sqlite3", "sqlite+aiosqlite://", ""])
def test_a_url_that_names_no_database_of_ours_is_refused(url: str) -> None:
    with pytest.raises(BadDatabaseUrl):
        Database.open(url, durability="full")


def test_a_refused_url_does_not_show_its_password() -> None:
    with pytest.raises(BadDatabaseUrl) as caught:
        Database.open("mysql://ada:secret@x/y", durability="full")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["postgresql://x/y", "postgres://x/y", "postgresql+psycopg://x/y"])
def test_every_way_to_write_postgresql_uses_one_driver(url: str) -> None:
    with closing(Database.open(url, durability="full")) as database:
        assert database.engine.dialect.driver == "psycopg"


@pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("off", 0)])
def test_a_file_is_in_wal_mode_with_the_durability_asked_for(
    tmp_path: Path, durability: Durability, synchronous: int
) -> None:
    with (
        closing(Database.open(f"sqlite:///{tmp_path / 'x.sqlite3'}", durability=durability)) as database,
        database.peeking() as connection,
    ):
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == synchronous
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_a_file_that_another_process_holds_is_busy_and_nothing_was_written(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite3"
    database = Database.open(f"sqlite:///{path}", durability="off", busy_timeout_s=0.01)
    with closing(Store(database, find_profile_by_name)) as store:
        store.migrate()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(StoreBusy) as caught:
            store.append_events([event("x", 1)])
        assert caught.value.retryable
        assert store.events() == ()

        other.execute("ROLLBACK")
        other.close()
        store.append_events([event("x", 1)])
        assert len(store.events()) == 1


def test_readers_of_a_file_see_the_last_commit_while_a_writer_is_at_work(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'x.sqlite3'}", durability="off", busy_timeout_s=0.01)
    with closing(Store(database, find_profile_by_name)) as store:
        store.migrate()
        with database.writing("raw") as connection:
            connection.execute(text("UPDATE plan SET version = 1"))
            assert store.plan_version() == 0
            assert store.load_plan(0).version == 0
        assert store.plan_version() == 1


def test_a_second_writer_of_one_process_is_busy_when_its_turn_does_not_come() -> None:
    database = Database.open("sqlite://", durability="off", busy_timeout_s=0.01)
    with closing(Store(database, find_profile_by_name)) as store:
        store.migrate()
        with database.writing("raw"), pytest.raises(StoreBusy):
            store.append_events([event("x", 1)])
        store.append_events([event("x", 1)])


def test_a_plan_that_is_locked_on_postgresql_is_busy(postgresql_cluster: PostgresqlCluster) -> None:
    url = postgresql_cluster.new_database(template="migrated")
    database = Database.open(url, durability="full", busy_timeout_s=0.01)
    with (
        closing(Store(database, find_profile_by_name)) as store,
        closing(Database.open(url, durability="off")) as other,
    ):
        with other.writing("raw") as connection:
            connection.execute(text("SELECT 1 FROM plan FOR UPDATE"))
            with pytest.raises(StoreBusy):
                store.commit_plan(0, PlanChange(), at=1)
        assert store.commit_plan(0, PlanChange(), at=1) == 1


@pytest.mark.parametrize("url", ["postgresql://nobody@/x?host=/does/not/exist", "sqlite:////does/not/exist/x.sqlite3"])
def test_a_database_that_is_not_there_is_unreachable(url: str) -> None:
    with pytest.raises(StoreUnreachable) as caught:
        Store.open(url, profiles=find_profile_by_name)
    assert caught.value.retryable
