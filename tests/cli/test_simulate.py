"""`nightshift simulate` as a user runs it: what a night looks like, and one line for every mistake."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def nightshift(*arguments: str, columns: int = 150) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env={"COLUMNS": str(columns), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONPATH": ":".join(sys.path)},
    )


def test_two_days_and_a_night_run_with_every_promise_kept(tmp_path: Path) -> None:
    written, data = tmp_path / "run.json", tmp_path / "data"
    ran = nightshift("simulate", "--json", str(written), "--data", str(data), "--picture", str(tmp_path / "run.svg"))
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    assert "Promises broken: 0." in ran.stdout
    assert "GPU 15" in ran.stdout
    result = json.loads(written.read_text())
    stories = result["reservations"]
    assert result["promises_broken"] == 0
    by_policy = [s for s in stories if s["is_by_policy"]]
    assert {s["gpus"] for s in by_policy} == {2, 16}
    nightly = next(s for s in by_policy if s["gpus"] == 16)
    assert nightly["ran"][0]["partition"] == "16g0-15"
    assert nightly["ran"][0]["up_at"] <= nightly["promise"]["start_by_at"]
    assert any(len(s["ran"]) > 1 for s in stories if not s["is_by_policy"]), "somebody is parked and resumed"
    assert "[" in (tmp_path / "run.svg").read_text()
    log = nightshift("rack", "log", "--data", str(data), "--json")
    assert log.returncode == 0, log.stderr
    assert sum('"guest.up"' in line for line in log.stdout.splitlines()) == sum(
        1 for s in stories for r in s["ran"] if r["up_at"] is not None
    )


def test_one_seed_gives_one_run_to_the_byte(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.json" for number in range(2)]
    for file in files:
        assert nightshift("simulate", "--cap", "1h", "--json", str(file)).returncode == 0
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--cap", "soon"), "--cap 'soon' is not a duration"),
        (("--cap", "-1h"), "--cap '-1h' is not a duration"),
        (("--cap", "5m"), "--cap '5m' is not a duration from 15m"),
        (("--start", "tomorrow"), "--start 'tomorrow' is not a day"),
        (("--start", "2026-02-30"), "--start '2026-02-30' is not a day"),
        (("--policy", "/nonexistent/policy.yaml"), "cannot read policy /nonexistent/policy.yaml"),
        (("--trace", "/nonexistent.csv"), "cannot read trace /nonexistent.csv"),
        (("--data", "/proc/nightshift"), "--data /proc/nightshift cannot be made"),
    ],
)
def test_a_mistake_gets_one_line_with_the_value_and_no_traceback(arguments: tuple[str, ...], said: str) -> None:
    ran = nightshift("simulate", *arguments)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
    assert "Traceback" not in ran.stderr + ran.stdout


def test_a_half_valid_policy_is_refused_with_file_line_and_column(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nzone: Europe/Berlin\nwindos: []\n")
    ran = nightshift("simulate", "--policy", str(policy))
    assert ran.returncode == 2
    assert f"{policy}:" in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
