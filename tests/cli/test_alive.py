"""The health check of single parts."""

from contextlib import closing
from pathlib import Path

import pytest

from cli import alive
from cli.instance import instance_name
from scheduler.profiles.loading import load_profile
from scheduler.store.heartbeats import Heartbeat
from scheduler.store.store import Store

NOW_S = 1_000_000.0


def beat(kind: str, name: str, age_s: float) -> Heartbeat:
    return Heartbeat(kind=kind, name=name, machine_s=NOW_S - age_s)


def test_the_newest_heartbeat_of_this_machines_part_counts() -> None:
    heartbeats = [
        beat("ticker", "ticker-here-7-a1", 90),
        beat("ticker", "ticker-here-8-b2", 4),
        beat("ticker", "ticker-there-9-c3", 1),
        beat("ticker", "ticker-here2-9-c3", 1),
        beat("worker", "worker-here-10-d4", 2),
    ]
    assert alive.youngest_age_s(heartbeats, "ticker", machine="here", now_machine_s=NOW_S) == 4


def test_a_part_that_runs_elsewhere_is_not_alive_here() -> None:
    heartbeats = [beat("worker", "worker-there-1-a1", 1)]
    assert alive.youngest_age_s(heartbeats, "worker", machine="here", now_machine_s=NOW_S) is None


@pytest.mark.parametrize("kind", alive.KINDS)
def test_processes_name_themselves_as_the_check_expects(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    assert instance_name(kind, {}).startswith(alive.names_here(kind, "here"))


@pytest.mark.parametrize("arguments", [(), ("planner",), ("ticker", "worker")])
def test_what_is_no_part_is_told_in_one_line(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert alive.check(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "worker" in said.err


@pytest.mark.parametrize(
    ("age_s", "status", "says"),
    [(3.0, 0, "3 s ago"), (61.0, 1, "61 s old"), (None, 1, "no ticker of here ever said")],
)
def test_the_check_asks_the_database(
    age_s: float | None,
    status: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("NIGHTSHIFT_DATABASE", raising=False)
    monkeypatch.setenv("NIGHTSHIFT_DATA", str(tmp_path))
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    monkeypatch.setattr("time.time", lambda: NOW_S)
    url = f"sqlite:///{tmp_path / 'nightshift.sqlite3'}"
    with closing(Store.open(url, profiles=load_profile)) as store:
        store.migrate()
        if age_s is not None:
            store.beat("ticker", "ticker-here-7-a1", NOW_S - age_s)
    assert alive.check(["ticker"]) == status
    said = capsys.readouterr()
    assert says in said.out + said.err


def test_a_database_that_is_not_there_is_one_line_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_DATA", str(tmp_path))
    monkeypatch.setenv("NIGHTSHIFT_DATABASE", f"sqlite:///{tmp_path / 'no' / 'such.sqlite3'}")
    assert alive.check(["ticker"]) != 0
    assert capsys.readouterr().err.count("\n") == 1
