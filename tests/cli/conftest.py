"""A command line that speaks to a server in this process."""

from itertools import count
from pathlib import Path

import pytest

from tests.cli.command_line import CommandLine, environment
from tests.cli.fake_server import TOKEN, URL, FakeServer


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def nightshift(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """Return a student's command line on the fake server."""
    for name in ("NIGHTSHIFT_SERVER", "NIGHTSHIFT_TOKEN", "COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return CommandLine(
        transport=server.transport(),
        environ=environment(tmp_path, NIGHTSHIFT_SERVER=URL, NIGHTSHIFT_TOKEN=TOKEN),
        slept_s=server.slept_s,
        keys=(f"key-{number}" for number in count(1)),
    )
