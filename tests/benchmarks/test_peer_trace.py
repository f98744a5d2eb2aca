"""A trace through a peer and through ours: the figures, and what is said where either is missing."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import peer_trace
from benchmarks.peers import accasim
from benchmarks.peers.peer import NOT_HERE
from benchmarks.traces import Schedule, TraceRequest

TRACE = "submit_s,gpus,duration_s,user\n0,16,3600,ada\n0,1,3600,bela\n10,32,60,cleo\n"


@dataclass(frozen=True)
class Run:
    schedule: Schedule
    seconds: float


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(TRACE)
    return path


def parsed(trace: Path, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    peer_trace.add_arguments(parser)
    return parser.parse_args(["--trace", str(trace), "--hosts", "1", "--times", "2", *words])


def slow_peer(requests: Sequence[TraceRequest], hosts: int) -> tuple[float, tuple[int, ...]]:
    return 8.0, (0, 3600)


def test_the_ratio_is_the_peers_seconds_over_ours_on_the_same_requests(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def ours(requests: Sequence[TraceRequest], **facts: object) -> Run:
        given.append((len(requests), facts["hosts"], facts["slack"], facts["night"], facts["storage"]))
        return Run(schedule=Schedule(start_at=[0, 3600], told_at=[0, 3600]), seconds=0.5)

    monkeypatch.setattr(accasim, "run_trace", slow_peer)
    monkeypatch.setitem(sys.modules, "benchmarks.trace_run", SimpleNamespace(run=ours))
    figures = peer_trace.run(parsed(trace))
    assert given == [(2, 1, False, False, "shared")] * 2
    assert (figures["requests"], figures["dropped"], figures["seconds"]) == (2, 1, 0.5)
    peers = figures["peers"]
    assert isinstance(peers, dict)
    assert (peers["accasim"]["seconds"], peers["accasim"]["ratio"]) == (8.0, 16.0)
    assert peers["accasim"]["max_h"] == figures["max_h"] == 1.0


def test_without_our_side_the_peer_is_measured_and_there_is_no_ratio(
    trace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(accasim, "run_trace", slow_peer)
    monkeypatch.setattr(peer_trace, "_OURS", "benchmarks.no_such_module")
    figures = peer_trace.run(parsed(trace))
    peers = figures["peers"]
    assert isinstance(peers, dict)
    assert figures["seconds"] is None
    assert peers["accasim"]["ratio"] is None
    assert "no module benchmarks.no_such_module" in capsys.readouterr().err


def test_a_peer_that_is_not_here_ends_it_with_a_status_of_its_own(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(accasim, "_is_beside_us", lambda: False)
    with pytest.raises(SystemExit) as ended:
        peer_trace.run(parsed(trace))
    assert ended.value.code == NOT_HERE
    assert capsys.readouterr().err.startswith("AccaSim is not here: pip install accasim==")


def test_what_is_no_trace_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        peer_trace.run(parsed(tmp_path / "absent.csv"))
    assert ended.value.code == 2
    assert "absent.csv: cannot be read" in capsys.readouterr().err
    large = tmp_path / "large.csv"
    large.write_text("submit_s,gpus,duration_s,user\n0,32,60,ada\n")
    with pytest.raises(SystemExit) as ended:
        peer_trace.run(parsed(large))
    assert ended.value.code == 2
    assert "all 1 requests are larger than a host" in capsys.readouterr().err
