"""`nightshift demo`: a mistake is told at once, in one line, before anything is started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def nightshift(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={"COLUMNS": "100", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONPATH": ":".join(sys.path)},
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--json", "/nonexistent/numbers.json"), "cannot write /nonexistent/numbers.json"),
        (("--picture", "/"), "cannot write /: it is a directory"),
        (("--keep", "/"), "--keep / is there already"),
        (("--keep", "/proc/nightshift"), "--keep /proc/nightshift cannot be made"),
    ],
)
def test_a_mistake_gets_one_line_with_the_value_and_no_traceback(arguments: tuple[str, ...], said: str) -> None:
    ran = nightshift("demo", *arguments)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
    assert "Traceback" not in ran.stderr + ran.stdout


def test_a_mistake_leaves_no_file_and_no_directory_behind(tmp_path: Path) -> None:
    written, kept = tmp_path / "numbers.json", tmp_path / "there"
    kept.mkdir()
    assert nightshift("demo", "--json", str(written), "--keep", str(kept)).returncode == 2
    assert os.listdir(tmp_path) == ["there"]
    assert os.listdir(kept) == []


def test_the_help_has_examples() -> None:
    ran = nightshift("demo", "--help")
    assert ran.returncode == 0
    assert "nightshift demo --json demo.json" in ran.stdout
