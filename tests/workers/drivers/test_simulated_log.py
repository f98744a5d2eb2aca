"""The log of a rack: nobody changes it, and `nightshift rack log` shows it."""

import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.rack import app
from scheduler.core.requests import HostId
from scheduler.profiles.loading import load_profile
from tests.contract.simulated_bench import BEGAN_AT, HOST, SimulatedBench
from workers.drivers.simulated.rack import SimulatedRack
from workers.drivers.simulated.schema import Durability, rack_path

PROFILE = load_profile("dgx-2")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data directory of an installation with one host, on which one VM ran."""
    bench = SimulatedBench(PROFILE, directory=tmp_path / "racks")
    spec = bench.define(bench.spec(bench.partition(4), reservation="r-17", generation=3))
    bench.start(spec)
    bench.destroy(spec)
    bench.drivers.hypervisor.look()
    bench.rack.close()
    return tmp_path


@pytest.mark.parametrize("change", ["UPDATE log SET at = 0", "DELETE FROM log", "DELETE FROM log WHERE seq = 1"])
def test_no_line_is_ever_changed_or_deleted(data: Path, change: str) -> None:
    connection = sqlite3.connect(rack_path(data, HOST))
    before = connection.execute("SELECT * FROM log").fetchall()
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(change)
    assert connection.execute("SELECT * FROM log").fetchall() == before
    connection.close()


def test_the_lines_tell_who_held_which_gpus_from_when_to_when(data: Path) -> None:
    bench = SimulatedBench(PROFILE, directory=data / "racks")
    lines = {line.what: line for line in bench.rack.log()}
    starting, off = lines["vm.starting"], lines["vm.off"]
    assert (starting.reservation, starting.generation, starting.partition) == ("r-17", 3, "4g0-3")
    assert starting.gpus == off.gpus == (0, 1, 2, 3)
    assert starting.domain == off.domain
    assert (off.fact("reason"), off.fact("nothing")) == ("destroyed", None)
    assert starting.at < lines["vm.running"].at <= lines["vm.destroy_asked"].at < off.at
    after = bench.rack.log(after_seq=off.seq - 1)
    assert after[0] == off
    bench.rack.close()


def test_the_command_prints_every_line_as_json(data: Path) -> None:
    result = CliRunner().invoke(app, ["log", "--data", str(data), "--json"])
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert {line["host"] for line in lines} == {HOST}
    assert {"vm.starting", "vm.running", "vm.off"} <= {line["what"] for line in lines}
    rest = CliRunner().invoke(app, ["log", "--data", str(data), "--json", "--after", str(lines[-2]["seq"])])
    assert [json.loads(line) for line in rest.stdout.splitlines()] == lines[-1:]


def test_the_command_prints_a_table_for_people(data: Path) -> None:
    result = CliRunner().invoke(app, ["log", "--data", str(data), "--host", HOST], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "r-17-4g0-3 g3" in result.stdout
    assert "2026-03-02 19:00" in result.stdout


def test_the_command_merges_all_hosts_in_order_of_time(data: Path) -> None:
    bench = SimulatedBench(PROFILE)
    other = HostId("dgx2-b")
    SimulatedRack(data / "racks", other, PROFILE, bench.clock, seed=1, durability=Durability.FAST).close()
    result = CliRunner().invoke(app, ["log", "--data", str(data), "--json"])
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
    assert {line["host"] for line in lines if line["at"] == BEGAN_AT} == {HOST, other}
    bench.rack.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "nowhere"], "no such directory: nowhere"),
        (["--data", "{data}", "--host", "dgx2-z"], "no simulated host dgx2-z"),
        (["--data", "{data}/racks"], "no simulated hosts in"),
    ],
)
def test_the_command_says_in_one_line_what_is_not_there(data: Path, options: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["log", *(option.format(data=data) for option in options)])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_command_says_in_one_line_that_a_file_is_no_rack(data: Path) -> None:
    rack_path(data, "broken").write_text("nothing of ours, but long enough to have a header of its own" * 20)
    result = CliRunner().invoke(app, ["log", "--data", str(data), "--host", "broken"])
    assert result.exit_code == 2
    assert "cannot be read as a rack file" in result.stderr
    assert len(result.stderr.splitlines()) == 1
