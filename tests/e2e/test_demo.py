"""The demonstration on the real processes: an evening with its swap, and the two whole days with NIGHTSHIFT_E2E=all.

Real processes need real seconds: what is waited for is what ends a demonstration, never an amount of time.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from cli.auditor import Verdict
from cli.demonstration.demand import Demand
from cli.demonstration.running import Demonstration
from cli.demonstration.screen import Hours, Picture
from cli.demonstration.telling import Happening
from cli.recorded import Arrival
from scheduler.core.spans import HOUR_S, MINUTE_S

ZONE = ZoneInfo("Europe/Berlin")
EVENING_AT = int(datetime(2026, 3, 2, 18, 0, tzinfo=ZONE).timestamp())
LONGEST_S = 240


class Silent:
    """A screen that keeps what it was told."""

    def __init__(self) -> None:
        self.happenings: list[Happening] = []
        self.speeds: set[float] = set()

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def say(self, line: str) -> None:
        return None

    def happened(self, happening: Happening) -> None:
        self.happenings.append(happening)

    def moved(self, picture: Picture) -> None:
        self.speeds.add(picture.speed)


def asks(minutes: int, owner: str, gpus: int, run_s: int, needs_s: int | None = None) -> Arrival:
    return Arrival(at=EVENING_AT + minutes * MINUTE_S, owner=owner, gpus=gpus, run_s=run_s, needs_s=needs_s or run_s)


def test_an_evening_is_promised_parked_and_swapped_and_the_auditor_finds_nothing_wrong() -> None:
    demand = Demand(
        first_at=EVENING_AT,
        until_at=EVENING_AT + 150 * MINUTE_S,
        arrivals=(
            asks(2, "ada", 4, 6 * HOUR_S),
            asks(3, "bela", 2, 5 * HOUR_S),
            asks(5, "chen", 1, HOUR_S, 40 * MINUTE_S),
        ),
        recorded=0,
        capped=0,
        wide=0,
    )
    with tempfile.TemporaryDirectory(prefix="nightshift-test-") as directory:
        screen = Silent()
        shown = Hours(zone=ZONE, near_at=EVENING_AT)
        ended = Demonstration(data=Path(directory), demand=demand, screen=screen, show=shown).run()
    assert ended is not None
    assert ended.audit.findings == ()
    assert ended.troubles == ended.refused == ()
    numbers = ended.numbers
    assert (numbers.reservations, numbers.started, numbers.by_policy) == (4, 4, 1)
    assert (numbers.swaps_to_night, numbers.swaps_back) == (1, 0)
    assert (numbers.parkings.parked, numbers.parkings.resumed) == (2, 0)
    assert numbers.promises == numbers.promises_kept == 4
    stopped = [kept for kept in ended.kept if kept.let_go_at is not None]
    assert [(kept.owner, kept.ended_at is not None) for kept in stopped] == [("chen", True)]
    assert {one.verdict for one in ended.audit.judged} == {Verdict.KEPT}
    assert any("all 16 GPUs" in happening.text for happening in screen.happenings)
    assert max(screen.speeds) > 120


def nightshift_demo(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "COLUMNS": "160", "PYTHONPATH": ":".join(sys.path)},
    )


def test_an_interrupted_demonstration_ends_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    written = tmp_path / "numbers.json"
    running = nightshift_demo("--json", str(written))
    assert running.stdout is not None
    for line in running.stdout:
        if "students" in line:
            break
    children = _children_of(running.pid)
    assert children
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=LONGEST_S)
    assert running.returncode == 130
    assert err.strip().splitlines() == ["nightshift: stopped before the two days were over; nothing runs on"]
    assert "Traceback" not in out
    assert not written.exists()
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []


def _children_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


# Three minutes; not a skip, since a skip is to be an exception.
if os.environ.get("NIGHTSHIFT_E2E") == "all":

    def test_two_days_keep_every_promise_and_show_all_that_they_have_to(tmp_path: Path) -> None:
        written, drawn = tmp_path / "numbers.json", tmp_path / "demo.svg"
        out, err = (running := nightshift_demo("--json", str(written), "--picture", str(drawn))).communicate(
            timeout=600
        )
        assert running.returncode == 0, err
        numbers = json.loads(written.read_text())
        assert numbers["reservations"] >= 40
        assert numbers["swaps_to_night"] >= 2
        assert numbers["swaps_back"] >= 2
        assert numbers["resumed"] >= 6
        assert numbers["resumed_on_other_block"] >= 1
        assert numbers["by_policy"] >= 1
        assert numbers["gpu_conflicts"] == numbers["disks_lost"] == 0
        assert numbers["promises_kept"] == numbers["promises"] > 0
        assert "GPU 15" in out
        assert "Speeds:" in out
        svg = drawn.read_text()
        assert "GPU" in svg
        assert "https://cdn" not in svg
