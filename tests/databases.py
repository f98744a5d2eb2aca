"""Databases for tests: SQLite in memory, SQLite in a file, and a private PostgreSQL cluster for each test process.

The cluster listens on a socket in a temporary directory only, forgets fsync, and goes with the test process. Without
PostgreSQL on the machine its tests are skipped, unless NIGHTSHIFT_TEST_REQUIRE names `postgresql`: then they fail.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from scheduler.core.topology import HostProfile
from scheduler.profiles.loading import load_profile
from scheduler.store.store import Store

_START_LIMIT_S = 60
_FAST = "-c fsync=off -c full_page_writes=off -c autovacuum=off -c wal_level=minimal -c max_wal_senders=0"
_ROOM_BYTES = 2 << 30
_NOT_INSTALLED = "PostgreSQL is not installed (apt install postgresql)"
_NO_BTREE_GIST = "PostgreSQL has no btree_gist: apt install postgresql-contrib"
_TEMPLATE = "migrated"
_KNOWS_STRATEGY = 150000

KINDS = ("sqlite-memory", "sqlite-file", "postgresql")


@dataclass(slots=True)
class PostgresqlCluster:
    """A running cluster of our own."""

    bindir: Path
    home: Path
    user: str | None
    """Whom its processes run as; PostgreSQL refuses root. None: as we do."""
    made: int = field(default=0)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://tester@/{database}?host={self.home}"

    def admin(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(host=str(self.home), user="tester", dbname="postgres", autocommit=True)

    def new_database(self, *, template: str = "template0") -> str:
        """Make a database and return its URL."""
        self.made += 1
        name = f"test_{self.made}"
        with closing(self.admin()) as connection:
            copies = " STRATEGY file_copy" if connection.info.server_version >= _KNOWS_STRATEGY else ""
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}{copies}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Drop a database, whoever still talks to it."""
        with closing(self.admin()) as connection:
            connection.execute(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")

    def run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self.bindir / program, *arguments],
            user=self.user,
            group=None if self.user is None else pwd.getpwnam(self.user).pw_gid,
            extra_groups=None if self.user is None else [],
            cwd=self.home,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=_START_LIMIT_S,
            check=True,
        )


def _bindir() -> Path | None:
    """Find initdb and pg_ctl: Debian keeps them out of PATH, by version."""
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if packaged:
        return packaged[-1].parent
    on_path = shutil.which("pg_config")
    if on_path is None:
        return None
    told = Path(subprocess.run([on_path, "--bindir"], capture_output=True, text=True, check=True).stdout.strip())
    return told if (told / "initdb").exists() else None


def _roomy_memory() -> str | None:
    """Return a directory in memory, where databases are made five times faster; None where containers keep it small."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > _ROOM_BYTES else None


def _unprivileged_user() -> str | None:
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


@lru_cache
def find_profile_by_name(name: str) -> HostProfile:
    """Find a shipped profile, read once for all tests: what stores of tests are opened with."""
    return load_profile(name)


@pytest.fixture(scope="session")
def postgresql_cluster() -> Iterator[PostgresqlCluster]:
    """Start a cluster, once for each test process, with one migrated database to copy from."""
    bindir = _bindir()
    if bindir is None:
        if "postgresql" in os.environ.get("NIGHTSHIFT_TEST_REQUIRE", ""):
            pytest.fail(_NOT_INSTALLED)
        pytest.skip(_NOT_INSTALLED)
    # Not pytest's own directory: that is closed to the user that PostgreSQL runs as, and too long a path for a socket.
    home = Path(tempfile.mkdtemp(prefix="ns-pg-", dir=_roomy_memory()))
    cluster = PostgresqlCluster(bindir=bindir, home=home, user=_unprivileged_user())
    if cluster.user is not None:
        shutil.chown(home, cluster.user)
    data = str(home / "data")
    options = f"-k {home} -c listen_addresses= -c max_connections=60 {_FAST}"
    try:
        cluster.run("initdb", "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        cluster.run("pg_ctl", "-D", data, "-l", str(home / "log"), "-o", options, "-w", "start")
        try:
            _make_template(cluster)
            yield cluster
        finally:
            cluster.run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _make_template(cluster: PostgresqlCluster) -> None:
    with closing(cluster.admin()) as connection:
        if not connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'btree_gist'").fetchone():
            pytest.fail(_NO_BTREE_GIST)
        connection.execute(f"CREATE DATABASE {_TEMPLATE}")
    with closing(Store.open(cluster.url(_TEMPLATE), profiles=find_profile_by_name, durability="off")) as store:
        store.migrate()


@dataclass(frozen=True, slots=True)
class TestDatabase:
    """One fresh database for one test."""

    __test__ = False

    kind: str
    url: str
    """`sqlite://` for the one in memory: every store that is opened on it is a database of its own."""

    @property
    def is_shared(self) -> bool:
        """Whether a second store on the URL sees what the first one wrote."""
        return self.kind != "sqlite-memory"


OpenStore = Callable[..., Store]


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TestDatabase]:
    """Give a fresh database of each kind; what is in a file or on a server is migrated, or will be by `open_store`."""
    kind: str = request.param
    if kind == "postgresql":
        cluster: PostgresqlCluster = request.getfixturevalue("postgresql_cluster")
        url = cluster.new_database(template=_TEMPLATE)
        yield TestDatabase(kind, url)
        cluster.drop(url)
        return
    yield TestDatabase(kind, "sqlite://" if kind == "sqlite-memory" else f"sqlite:///{tmp_path / 'plan.sqlite3'}")


@pytest.fixture
def open_store(database: TestDatabase) -> Iterator[OpenStore]:
    """Open stores on the test's database, migrated; they are closed after the test."""
    opened: list[Store] = []

    def opens(*, on_commit: Callable[[str], None] | None = None) -> Store:
        store = Store.open(database.url, durability="off", profiles=find_profile_by_name, on_commit=on_commit)
        opened.append(store)
        store.migrate()
        return store

    yield opens
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    """Give one store on the test's database."""
    return open_store()
