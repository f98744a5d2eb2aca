"""The pages for students and admins say what the command line does: each line that they show runs."""

import re
import shlex
from pathlib import Path

import httpx
import pytest

from tests.cli.command_line import CommandLine
from tests.cli.fake_server import TOKEN, FakeServer

DOCS = Path(__file__).parent.parent.parent / "docs"
LINES = [
    (page, line.strip())
    for page in ("students.md", "admins.md")
    for line in (DOCS / page).read_text(encoding="utf-8").splitlines()
    if line.startswith("    nightshift ")
]


@pytest.mark.parametrize(("page", "line"), LINES)
def test_every_command_line_in_the_documents_runs(
    nightshift: CommandLine,
    server: FakeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    page: str,
    line: str,
) -> None:
    server.role = "admin"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    example = (DOCS.parent / "policies" / "examples" / "university.yaml").read_text(encoding="utf-8")
    (tmp_path / "university.yaml").write_text(example, encoding="utf-8")
    if "simulate" in line:
        # It is lived through, so it has to be a whole one.
        current = {"version": 1, "source": "university.yaml", "text": example}
        server.answers["GET /policies/1"] = lambda _: httpx.Response(200, json=current)
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519.pub").write_text(f"ssh-ed25519 {'A' * 68} ada@laptop\n")
    words = [word.replace("r-18", "r-17") for word in shlex.split(line)[1:] if word != "--wait"]
    ran = nightshift(*words, stdin=f"{TOKEN}\n")
    # The fake server is not well, and doctor says so.
    assert ran.code == (1 if words[0] == "doctor" else 0), ran.err


def test_the_pages_name_every_command_of_theirs() -> None:
    students = (DOCS / "students.md").read_text(encoding="utf-8")
    admins = (DOCS / "admins.md").read_text(encoding="utf-8")
    for command in ("reserve", "quote", "ls", "show", "why", "cancel", "extend", "stop", "start", "restart", "free",
                    "calendar", "login"):  # fmt: skip
        assert re.search(rf"nightshift {command}\b", students), command
    for command in ("host ls", "host show", "host add", "host connect", "host drain", "host undrain", "policy check",
                    "policy diff", "policy apply", "policy show", "policy history", "policy rollback",
                    "policy watch", "policy simulate",
                    "user add", "user ls", "user token", "user tokens", "user revoke", "user disable", "user enable",
                    "doctor", "whoami"):  # fmt: skip
        assert f"nightshift {command}" in admins, command
