"""`python -m benchmarks trace`: its figures by hand, its file, and what it says to bad input."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks import trace_run
from benchmarks.__main__ import main
from benchmarks.fungible import conservative
from benchmarks.references import REFERENCES
from benchmarks.trace_figures import error_h, load, utilisation, waits
from benchmarks.traces import HOUR_S, OpenClock, Schedule, TraceRequest
from tests.benchmarks.trace_cases import requests_of

H = HOUR_S
REQUESTS = requests_of((0, 16, 2 * H, 4 * H), (0, 8, H, H), (H, 8, H, H))
SCHEDULE = Schedule(start_at=[0, 2 * H, 2 * H], told_at=[0, 4 * H, 4 * H])
TRACE = "submit_s,gpus,duration_s,user\n0,16,7200,a\n0,8,3600,b\n3600,8,3600,b\n3600,64,60,c\n"
KEYS = [
    *("requests", "dropped", "load", "promises", "promises_kept", "loose_promises", "gpu_weighted_wait_h", "told_h"),
    *("p99_h", "max_h", "wait_h_by_size", "likely_error_h", "promise_error_h", "utilisation", "reference", "ratio"),
    *("told_ratio", "seconds"),
]


def test_waits_by_hand() -> None:
    found = waits(REQUESTS, SCHEDULE)
    assert found.gpu_weighted_wait_h == pytest.approx((8 * 2 + 8 * 1) / 32)
    assert found.mean_wait_h == 1.0
    assert found.told_h == pytest.approx(7 / 3)
    assert found.wait_h_by_size == {"8": 1.5, "16": 0.0}
    assert (found.p99_h, found.max_h) == (2.0, 2.0)


def test_99_of_100_do_not_wait_longer_than_p99() -> None:
    requests = requests_of(*((0, 1, H, H) for _ in range(200)))
    found = waits(requests, Schedule(start_at=[number * H for number in range(200)], told_at=None))
    assert (found.p99_h, found.max_h, found.told_h) == (197.0, 199.0, None)


def test_errors_are_of_those_who_waited() -> None:
    assert error_h(REQUESTS, SCHEDULE.start_at, [9 * H, H, 4 * H]) == 1.5
    assert error_h(REQUESTS[:1], [0], [9 * H]) == 0.0


def test_utilisation_is_until_the_last_end_and_load_until_the_last_submission() -> None:
    assert utilisation(REQUESTS, SCHEDULE.start_at, 2) == pytest.approx(48 / (32 * 3))
    assert load(REQUESTS, 3) == pytest.approx(1.0)
    assert load(REQUESTS[:2], 1) is None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    schedule: Schedule
    likely_at: list[int]
    promises_kept: int
    loose_promises: int
    seconds: float


@pytest.fixture
def planner(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Stand in for the planner's run: the reference itself. Returns what it is called with."""
    calls: list[dict[str, object]] = []

    def run(requests: Sequence[TraceRequest], *, hosts: int, **options: object) -> _Run:
        calls.append(options)
        schedule = conservative(requests, hosts)
        return _Run(
            schedule=schedule,
            likely_at=schedule.start_at,
            promises_kept=len(requests),
            loose_promises=0,
            seconds=0.5,
        )

    monkeypatch.setattr(trace_run, "run", run)
    return calls


def figures(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, object]:
    """Run the command on the small trace and return what it writes."""
    (folder / "t.csv").write_text(TRACE, encoding="utf-8")
    given = ["trace", "--trace", str(folder / "t.csv"), "--hosts", "1", "--json", str(folder / "t.json"), *arguments]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *given])
    main()
    found = json.loads((folder / "t.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_all_figures_are_written_and_a_planner_like_the_reference_has_its_waits(
    planner: list[dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = figures(tmp_path, monkeypatch)
    assert sorted(found) == sorted(KEYS)
    assert (found["requests"], found["dropped"], found["promises"], found["ratio"]) == (4, 1, 3, 1.0)
    assert (found["gpu_weighted_wait_h"], found["load"], found["told_ratio"]) == (0.75, 3.0, 1.0)
    reference = found["reference"]
    assert isinstance(reference, dict)
    assert list(reference) == list(REFERENCES)
    for figure in reference.values():
        assert list(figure) == ["gpu_weighted_wait_h", "told_h", "p99_h", "max_h", "wait_h_by_size"]
        assert figure["gpu_weighted_wait_h"] == 0.75
    assert planner == [{"slack": False, "night": False, "storage": "shared", "clock": OpenClock(0)}]


def test_without_references_there_are_no_ratios(
    planner: list[dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("--no-references", "--slack", "default", "--storage", "local", "--night-hours", "8")
    found = figures(tmp_path, monkeypatch, *given)
    assert (found["reference"], found["ratio"], found["told_ratio"]) == ({}, None, None)
    assert planner == [{"slack": True, "night": True, "storage": "local", "clock": OpenClock(8)}]


def test_waits_over_a_closing_are_wall_time(
    planner: list[dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Closed until 4:00: whoever asks before has waited until then.
    found = figures(tmp_path, monkeypatch, "--night-hours", "8")
    assert found["wait_h_by_size"] == {"8": pytest.approx((6 + 5) / 2), "16": 4.0}


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (TRACE + "3601,5,60,c\n", ("--hosts", "1"), ":6: gpus is 5: write 1, 2, 4, 8, 16 or more; the next size is 8"),
        ("submit_s,gpus,duration_s,user\n0,64,60,c\n", ("--hosts", "1"), "all 1 requests are larger than a host"),
        (TRACE, ("--hosts", "0"), "'0' hosts: write a whole number from 1"),
        (TRACE, ("--hosts", "1", "--night-hours", "24"), "'24' hours a day: write 0 or more, and less than 24"),
        (TRACE, ("--hosts", "1", "--night-hours", "nan"), "'nan' hours a day"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["benchmarks", "trace", "--trace", str(tmp_path / "t.csv"), *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_the_command_explains_itself() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks", "trace", "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    assert "--night-hours" in told.stdout
