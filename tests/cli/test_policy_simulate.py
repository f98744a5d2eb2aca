"""`nightshift policy simulate`: two policies on one demand, as tables, JSON and a picture; of a trace or a server."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.traces import Asks as TheirAsks
from benchmarks.traces import asks as their_asks
from benchmarks.traces import load
from cli import side_by_side
from cli.policy_demand import of_trace
from cli.recorded import Asks, read_trace
from cli.simulated_fleet import BadFleet, named_fleet
from scheduler.core.spans import HOUR_S
from tests.api.bench import POLICY, Bench, opened
from tests.cli.command_line import CommandLine, environment
from tests.cli.fake_server import URL
from tests.cli.test_commands_on_the_api import InProcessTransport
from tests.cli.test_light_client import light

LATER = POLICY.replace('opens: "0 20 * * *", for: 12h', 'opens: "0 22 * * *", for: 10h').replace(
    "open_reservations: 20", "open_reservations: 1"
)
GROUPS = 'groups: {vision: {members: [ann, "c07"]}}\n'
TRACE = """\
submit_s,gpus,duration_s,user
0,8,7200,ann
60,8,7200,ben
120,4,1800,ann
61200,2,14400,ann
61200,16,7200,ben
61260,1,30,ann
61320,32,600,ben
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a directory with an old policy, a new one and a trace."""
    for name, text in (("old.yaml", POLICY), ("new.yaml", LATER + GROUPS), ("jobs.csv", TRACE)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture
def alone(tmp_path: Path) -> CommandLine:
    """Return a command line without any server."""
    return CommandLine(transport=None, environ=environment(tmp_path), slept_s=[], keys=(str(n) for n in count(1)))


def arguments(files: Path, *more: str) -> tuple[str, ...]:
    given = ("--old", files / "old.yaml", "--trace", files / "jobs.csv", "--hosts", "1")
    return ("policy", "simulate", str(files / "new.yaml"), *map(str, given), *more)


def test_the_table_shows_both_policies_on_the_same_demand(alone: CommandLine, files: Path) -> None:
    ran = alone(*arguments(files))
    assert (ran.code, ran.err) == (0, "")
    rows = {" ".join(line.split()) for line in ran.out.splitlines()}
    assert "6 requests of jobs.csv on 1 × dgx-2." in rows
    assert "Left out: 1 larger than any VM of these hosts." in rows
    assert "old: old.yaml new: new.yaml change" in rows
    assert {"Started 6 4 -2", "Refused 0 2 +2", "limit.reached: open reservations 0 2 +2"} <= rows
    assert any(row.startswith("vision (4)") for row in rows)
    assert any(row.startswith("in no group (2)") for row in rows)
    assert "Broken promises 0 0" in rows
    assert "GPUs held by the hour of the day, old and new" in rows


def test_a_table_fits_a_terminal_of_100_columns(
    alone: CommandLine, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert max(len(line) for line in alone(*arguments(files)).out.splitlines()) <= 100


def test_json_has_all_figures_and_is_the_same_each_time(alone: CommandLine, files: Path) -> None:
    ran = [alone(*arguments(files, "--json")).out for _ in range(2)]
    assert ran[0] == ran[1]
    found = json.loads(ran[0])
    assert found["demand"] | {"from_at": 0, "until_at": 0} == {
        "from": "jobs.csv",
        "requests": 6,
        "dropped": 1,
        "never_ran": 0,
        "from_at": 0,
        "until_at": 0,
        "zone": "Europe/Berlin",
    }
    old, new = found["old"], found["new"]
    assert (old["policy"], new["policy"]) == ("old.yaml", "new.yaml")
    assert (old["asked"], new["asked"]) == (6, 6)
    assert (old["parkings"], old["swaps"], old["promises_broken"]) == (1, 1, 0)
    assert new["refused"] == {"limit.reached: open reservations": 2}
    assert [one["name"] for one in old["waits_by_size"]] == ["1", "2", "4", "8", "16"]


def test_a_policy_beside_itself_changes_nothing(alone: CommandLine, files: Path) -> None:
    found = json.loads(alone(*arguments(files, "--old", str(files / "new.yaml"), "--json")).out)
    assert found["old"] == found["new"]


def test_processes_side_by_side_find_what_one_finds(
    alone: CommandLine, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = alone(*arguments(files, "--json"))
    monkeypatch.setattr(side_by_side, "FEW", 0)
    there = alone(*arguments(files, "--json"))
    assert there == here
    # Where no process can be started, they are lived here, one after the other.
    monkeypatch.setattr(side_by_side, "get_context", _NoProcesses)
    assert alone(*arguments(files, "--json")) == here


class _NoProcesses:
    """A machine that has no process to spare."""

    def __init__(self, _: str) -> None:
        from multiprocessing import Pipe

        self.Pipe = Pipe

    def Process(self, **_: object) -> "_NoProcesses":  # noqa: N802  # as the library calls it
        return self

    def start(self) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")


def test_the_picture_is_an_svg_that_needs_nothing_else(alone: CommandLine, files: Path) -> None:
    picture = files / "new.svg"
    assert alone(*arguments(files, "--picture", str(picture))).code == 0
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    drawn = picture.read_text(encoding="utf-8")
    assert "new.yaml" in drawn
    assert "@font-face" not in drawn


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--hosts", "0"), 2, "--hosts is 0; write a number from 1 to 1000"),
        (("--hosts", "a,a"), 2, "different names as a,b,c"),
        (("--hosts", "-1"), 2, "--hosts is '-1'; write a number"),
        (("--hosts", "a,../b"), 2, "different names as a,b,c"),
        (("--profile", "no-such"), 2, "no-such"),
        (("--trace", "/nonexistent.csv"), 2, "cannot read trace /nonexistent.csv"),
        (("--old", "/nonexistent.yaml"), 2, "/nonexistent.yaml: "),
        (("--from", "soon"), 2, "--from: 'soon' is not a date"),
        (("--picture", "/nonexistent/x.svg"), 2, "cannot write /nonexistent/x.svg"),
        (("--asks", "double"), 2, "double"),
        (("--days", "0"), 2, "0"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    alone: CommandLine, files: Path, more: tuple[str, ...], code: int, said: str
) -> None:
    ran = alone(*arguments(files, *more))
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.one_line


def test_a_bad_line_of_a_trace_is_named(alone: CommandLine, files: Path) -> None:
    (files / "jobs.csv").write_text(TRACE + "x,1,1,ann\n", encoding="utf-8")
    ran = alone(*arguments(files))
    assert ran.code == 2
    assert f"{files / 'jobs.csv'}:9: not a job" in ran.one_line


def test_a_trace_in_which_nothing_fits_is_a_no(alone: CommandLine, files: Path) -> None:
    (files / "jobs.csv").write_text("submit_s,gpus,duration_s,user\n0,64,60,ann\n", encoding="utf-8")
    ran = alone(*arguments(files))
    assert ran.code == 1
    assert "nothing was asked for in jobs.csv" in ran.one_line


def test_problems_of_a_policy_are_those_of_the_check(alone: CommandLine, files: Path) -> None:
    (files / "new.yaml").write_text(POLICY.replace("Europe/Berlin", "Europe/Berln"), encoding="utf-8")
    ran = alone(*arguments(files))
    assert ran.code == 1
    assert ran.out.startswith(f"{files / 'new.yaml'}:3:")
    assert json.loads(alone(*arguments(files, "--json")).out)["ok"] is False


def test_windows_that_name_none_of_the_hosts_are_warned_of(alone: CommandLine, files: Path) -> None:
    ran = alone(*arguments(files, "--hosts", "gpu-1,gpu-2"))
    assert ran.code == 0
    assert [line.split(": ")[1] for line in ran.err.splitlines()] == ["warning"] * 2
    assert "names hosts that do not exist: 'dgx2-*'; the hosts are gpu-1, gpu-2" in ran.err


def test_hosts_are_called_as_policies_name_them() -> None:
    names = [host.id for host in named_fleet("28", "dgx-2").hosts]
    assert (names[0], names[25], names[26], names[27]) == ("dgx2-a", "dgx2-z", "dgx2-aa", "dgx2-ab")
    assert [host.id for host in named_fleet("left, right", "dgx-a100").hosts] == ["left", "right"]
    with pytest.raises(BadFleet):
        named_fleet("a,,b", "dgx-2")


@pytest.mark.parametrize("kind", list(Asks))
def test_people_ask_for_as_much_as_in_the_benchmarks(tmp_path: Path, kind: Asks) -> None:
    file = tmp_path / "jobs.csv"
    file.write_text(TRACE, encoding="utf-8")
    ours = of_trace(read_trace(file), from_at=0, asks=kind, seed=7, largest=16)
    theirs = their_asks(load(file), kind=TheirAsks(kind.value), seed=7)
    assert [(w.at, w.gpus, w.run_s) for w in ours.requests] == [
        (r.submit_at, r.gpus, max(60, r.asked_s)) for r in theirs.requests
    ]
    assert ours.dropped == theirs.dropped
    of_a_day = of_trace(read_trace(file), from_at=0, asks=kind, seed=7, largest=16, days=1)
    assert of_a_day == ours


def test_the_light_client_simulates_a_trace(files: Path, tmp_path: Path) -> None:
    ran = light(*arguments(files), tmp_path=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "Wait by size" in ran.stdout


def test_progress_is_shown_on_a_terminal_and_leaves_nothing(files: Path) -> None:
    ours, theirs = pty.openpty()
    ran = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments(files)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        timeout=120,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(sys.path), "TERM": "xterm"},
    )
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    assert ran.returncode == 0
    assert "new policy" in shown
    assert "policy" not in ran.stdout.partition("Started")[0].replace("policy simulate", "")


# ---- on a server


@pytest.fixture
def bench() -> Iterator[Bench]:
    with opened() as bench:
        yield bench


@pytest.fixture
def root(bench: Bench, tmp_path: Path) -> CommandLine:
    environ = environment(tmp_path, NIGHTSHIFT_SERVER=URL, NIGHTSHIFT_TOKEN=bench.secrets["root"])
    keys = (f"root-{number}" for number in count(1))
    return CommandLine(transport=InProcessTransport(bench), environ=environ, slept_s=[], keys=keys)


def test_what_was_asked_for_on_the_server_is_asked_for_again(bench: Bench, root: CommandLine, files: Path) -> None:
    for gpus in (8, 4, 2):
        bench.reserve(gpus=gpus, run_s=3 * HOUR_S)
    given_up = bench.reserve(gpus=1, run_s=HOUR_S, at="2026-03-05T12:00:00Z")
    bench.send("POST", f"/reservations/{given_up['id']}/cancel")
    bench.send("POST", "/reservations", {"gpus": 3, "run_s": HOUR_S})
    ran = root("policy", "simulate", str(files / "new.yaml"), "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert (found["hosts"], found["demand"]["requests"], found["demand"]["never_ran"]) == ("1 × dgx-2", 4, 1)
    assert found["old"]["policy"] == "bench.yaml"
    assert (found["old"]["started"], found["new"]["started"]) == (3, 1)
    assert found["old"]["refused"] == {"request.unknown_size": 1}
    moved = json.loads(root("policy", "simulate", str(files / "new.yaml"), "--json", "--from", "2026-06-01").out)
    assert moved["demand"]["from_at"] - found["demand"]["from_at"] == 91 * 24 * HOUR_S - HOUR_S
    assert moved["new"]["started"] == 1


def test_a_history_of_nothing_is_a_no(root: CommandLine, files: Path) -> None:
    ran = root("policy", "simulate", str(files / "new.yaml"))
    assert ran.code == 1
    assert f"nothing was asked for in the last 30d of {URL}" in ran.one_line
    assert root("policy", "simulate", str(files / "new.yaml"), "--history", "soon").code == 2


def test_without_a_server_it_says_what_is_missing(alone: CommandLine, files: Path) -> None:
    ran = alone("policy", "simulate", str(files / "new.yaml"))
    assert ran.code == 2
    assert "no server is named" in ran.one_line
