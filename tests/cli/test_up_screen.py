"""What `nightshift up` says, to whom, and how it ends when it cannot begin."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cli.api_process import LISTEN_FD, inherited_socket
from cli.installation import Installation
from cli.up import next_commands

WITHIN_S = 60


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")}
    return subprocess.run(
        [sys.executable, "-P", "-m", "cli.main", *arguments],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )


def test_what_cannot_begin_ends_with_one_line_and_a_status(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outcome = run("up", "--data", str(tmp_path / "file"))
    assert outcome.returncode == 2
    (line,) = outcome.stderr.splitlines()
    assert line.startswith(f"nightshift: {tmp_path / 'file'} is not a directory")


def test_a_port_in_use_is_one_line_too(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        outcome = run("up", "--data", str(tmp_path / "data"), "--port", str(taken.getsockname()[1]))
    assert outcome.returncode == 2
    (line,) = outcome.stderr.splitlines()
    assert "is in use by another program" in line


def test_an_api_without_a_prepared_database_says_so_in_one_line(tmp_path: Path) -> None:
    outcome = run("api", "--port", "0", "--data", str(tmp_path))
    assert outcome.returncode == 2
    assert "not migrated" in outcome.stderr.splitlines()[-1]
    assert "Traceback" not in outcome.stderr


def test_what_runs_goes_on_when_nobody_reads_it_any_more(tmp_path: Path) -> None:
    code = f"""
import sys
from cli.up import _LastingConsole, _Screen
screen = _Screen(_LastingConsole(highlight=False))
sys.stdin.read()
for number in range(3):
    screen.tell(f"line {{number}}")
open({str(tmp_path / "went on")!r}, "w").close()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdout.close()
    process.stdin.close()
    assert process.wait(WITHIN_S) == 0
    assert (tmp_path / "went on").exists()


def test_the_commands_to_try_find_a_directory_that_is_not_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NIGHTSHIFT_DATA", "NIGHTSHIFT_DATABASE", "NIGHTSHIFT_REDIS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    own, other = Installation.found(), Installation.found(tmp_path / "it's here")
    assert next_commands(own, None)[0] == "nightshift free"
    assert next_commands(other, None)[0] == f"""export NIGHTSHIFT_DATA='{tmp_path}/it'"'"'s here'"""
    assert next_commands(own, str(tmp_path))[0].startswith("export NIGHTSHIFT_DATA=")


def test_a_socket_is_taken_over_from_a_supervisor_and_from_nobody_else() -> None:
    assert inherited_socket({}) is None
    assert inherited_socket({LISTEN_FD: "x"}) is None
    with socket.create_server(("127.0.0.1", 0)) as listening:
        found = inherited_socket({LISTEN_FD: str(os.dup(listening.fileno()))})
        assert found is not None
        with found:
            assert found.getsockname() == listening.getsockname()
            assert not found.get_inheritable()
