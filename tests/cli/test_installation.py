"""Tests of where an installation is found, and of what a server process is put together from."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from cli.installation import BadInstallation, Installation, open_parts
from cli.instance import instance_name
from cli.log_lines import OneLine
from scheduler.core.intents import Cancel
from scheduler.core.requests import ReservationId, Role
from scheduler.service.clock import ClockKeeper, RealClock, ScaledClock
from tests.running import ROOT
from workers.broker import BadRedisUrl, open_redis, shown
from workers.wake import NoWake


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NIGHTSHIFT_DATA", "NIGHTSHIFT_DATABASE", "NIGHTSHIFT_REDIS", "NIGHTSHIFT_INSTANCE"):
        monkeypatch.delenv(name, raising=False)


def test_everything_is_in_the_data_directory_unless_something_else_is_said(tmp_path: Path) -> None:
    installation = Installation.found(tmp_path)
    assert installation.database_url == f"sqlite:///{tmp_path}/nightshift.sqlite3"
    assert installation.redis_url == f"redis+socket://{tmp_path}/redis.sock"
    assert installation.clock_file == tmp_path / "clock.json"


def test_the_environment_names_data_database_and_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "NIGHTSHIFT_DATA": str(tmp_path),
        "NIGHTSHIFT_DATABASE": "postgresql://db.example/night",
        "NIGHTSHIFT_REDIS": "redis://redis.example:6379/3",
    }
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert Installation.found().environment() == said


def test_another_process_finds_the_same_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = Installation.found(Path("night"))
    assert here.data == tmp_path / "night"
    monkeypatch.chdir("/")
    for name, value in here.environment().items():
        monkeypatch.setenv(name, value)
    assert Installation.found() == here


def test_a_socket_in_a_directory_with_strange_names_is_where_it_is_looked_for(tmp_path: Path) -> None:
    installation = Installation.found(tmp_path / "a b%20c")
    found = open_redis(installation.redis_url).connection_pool.connection_kwargs["path"]
    assert found == str(installation.redis_socket) == str(tmp_path / "a b%20c" / "redis.sock")


def test_a_data_directory_that_no_database_url_can_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInstallation, match="cannot hold"):
        Installation.found(tmp_path / "why?")
    monkeypatch.setenv("NIGHTSHIFT_DATABASE", "postgresql://db/nightshift")
    assert Installation.found(tmp_path / "why?").data == tmp_path / "why?"


@pytest.mark.parametrize("url", ["redis://[bad", "redis://[::1", "redis://h:abc", "http://h", "redis+socket:", ""])
def test_what_names_no_redis_is_refused_with_what_to_write(url: str) -> None:
    with pytest.raises(BadRedisUrl, match="names no Redis"):
        open_redis(url)


@pytest.mark.parametrize("url", ["redis://:secret@h/0", "redis://ada:secret@h", "redis://h/0?db=1&password=secret"])
def test_a_redis_url_is_shown_without_its_password(url: str) -> None:
    assert "secret" not in shown(url)
    assert shown(url).startswith("redis://")


def test_a_file_is_no_data_directory(tmp_path: Path) -> None:
    file = tmp_path / "night"
    file.touch()
    with pytest.raises(BadInstallation, match="is not a directory"):
        Installation.found(file)


def test_parts_work_together_and_close(tmp_path: Path) -> None:
    parts = open_parts(Installation.found(tmp_path), is_waking=False)
    parts.store.migrate()
    filed = parts.desk.file(Cancel(reservation=ReservationId("r-1")), author="ada", role=Role.STUDENT)
    assert parts.desk.decision(filed.seq) is None
    assert parts.plans.current().version == 0
    assert parts.profiles("dgx-2") is parts.profiles("dgx-2")
    assert isinstance(parts.wake, NoWake)
    assert isinstance(parts.clock, RealClock)
    parts.close()


def test_parts_have_the_scaled_clock_where_there_is_one(tmp_path: Path) -> None:
    ClockKeeper(tmp_path / "clock.json").open(60, 1_772_445_600)
    parts = open_parts(Installation.found(tmp_path), is_waking=False)
    assert isinstance(parts.clock, ScaledClock)
    parts.close()


def test_where_an_installation_is_can_be_asked_without_server_parts() -> None:
    code = (
        "import sys; import cli.installation; cli.installation.Installation.found();"
        "print([name for name in ('sqlmodel', 'celery', 'redis', 'workers', 'scheduler.store') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_instance_has_the_name_that_was_given_or_one_of_its_own() -> None:
    assert instance_name("worker", {"NIGHTSHIFT_INSTANCE": "worker-7"}) == "worker-7"
    assert instance_name("worker", {}).startswith("worker-")
    assert instance_name("worker", {}) != instance_name("worker", {})


def test_an_event_is_one_line_whatever_is_in_it() -> None:
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "tick.failed problem=%s", ("a\nb",), sys.exc_info())
    record.created, record.msecs = 1_772_445_600.25, 250.0
    line = OneLine().format(record)
    assert line.startswith("2026-03-02 10:00:00.250Z error tick.failed problem=a\\nb traceback='Traceback")
    assert "\n" not in line
