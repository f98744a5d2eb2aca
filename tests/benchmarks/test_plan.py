"""Batches by seed, what a plan is checked for, how it is compared, and the shape of what is written down."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import plan
from benchmarks.peers.peer import GPUS, NOT_HERE, NotHere, PeerPlan
from benchmarks.plan import BadPlan, Quality, are_reservations_in_time, check_plan, quality
from benchmarks.workload import AHEAD_S, BUSY_S, HOUR_S, LIMITS_S, SIZES, Batch, DoesNotFit, make_batch


def in_a_row(
    hosts: int,
    occupied: Sequence[tuple[int, int]],
    requests: Sequence[tuple[int, int]],
    reservations: Sequence[tuple[int, int, int]],
) -> list[int]:
    """Plan one after another, when all else has ended: right, and as bad as can be."""
    at = max(
        [until_s for _, until_s in occupied] + [start_s + run_s for start_s, _, run_s in reservations],
    )
    starts = []
    for _, run_s in requests:
        starts.append(at)
        at += run_s
    return starts


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    plan.add_arguments(parser)
    return parser.parse_args(words)


def test_a_batch_depends_on_its_seed_alone() -> None:
    one = make_batch(hosts=4, requests=300, reservations=100, seed=7)
    assert one == make_batch(hosts=4, requests=300, reservations=100, seed=7)
    assert one != make_batch(hosts=4, requests=300, reservations=100, seed=8)
    assert one.requests == make_batch(hosts=4, requests=300, seed=7).requests
    assert one.requests[:100] == make_batch(hosts=4, requests=100, seed=7).requests


def test_a_batch_has_the_mix_of_sizes_and_limits() -> None:
    batch = make_batch(hosts=64, requests=20_000)
    parts = [sum(1 for gpus, _ in batch.requests if gpus == size) / 20_000 for size in SIZES]
    assert parts == pytest.approx([0.60, 0.10, 0.10, 0.14, 0.06], abs=0.01)
    assert {run_s for _, run_s in batch.requests} == set(LIMITS_S)
    assert (min(LIMITS_S), max(LIMITS_S)) == (HOUR_S // 2, 12 * HOUR_S)


def test_every_host_is_busy_with_staggered_ends_in_whole_minutes() -> None:
    for hosts in (1, 2, 64):
        occupied = make_batch(hosts=hosts, requests=0).occupied
        ends = [until_s for _, until_s in occupied]
        assert [host for host, _ in occupied] == list(range(hosts))
        assert ends == sorted(set(ends))
        assert all(BUSY_S[0] <= end <= BUSY_S[1] and end % 60 == 0 for end in ends)


@pytest.mark.parametrize("hosts", [1, 2])
def test_what_is_booked_ahead_fits_and_comes_after_what_runs(hosts: int) -> None:
    batch = make_batch(hosts=hosts, requests=0, reservations=300)
    assert len(batch.reservations) == 300
    assert batch.reservations == tuple(sorted(batch.reservations))
    assert batch.reservations[0][0] >= AHEAD_S > BUSY_S[1]
    assert are_reservations_in_time(batch, [])


def test_reservations_without_a_host_to_hold_them_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.workload.BOOKED_PART", 1_000.0)
    monkeypatch.setattr("benchmarks.workload._DRAWS", 3)
    monkeypatch.setattr("benchmarks.workload._ROUNDS", 2)
    with pytest.raises(DoesNotFit, match="no room for 2000 reservations on 1 hosts within"):
        make_batch(hosts=1, requests=0, reservations=2_000)


def test_a_plan_with_more_gpus_than_there_are_is_not_measured() -> None:
    batch = Batch(hosts=1, occupied=((0, 600),), requests=((8, 60), (8, 60), (1, 60)), reservations=((660, 16, 60),))
    check_plan(batch, [600, 600, 720])
    with pytest.raises(BadPlan, match="17 GPUs at 600 s, and there are 16"):
        check_plan(batch, [600, 600, 600])
    with pytest.raises(BadPlan, match="24 GPUs at 0 s"):
        check_plan(batch, [0, 600, 720])
    with pytest.raises(BadPlan, match="before the batch"):
        check_plan(batch, [-1, 600, 720])
    with pytest.raises(BadPlan, match="2 starts for 3"):
        check_plan(batch, [600, 600])


def test_reservations_that_a_plan_has_moved_are_noticed() -> None:
    batch = Batch(hosts=1, occupied=(), requests=((1, 60),), reservations=((660, 16, 60),))
    assert are_reservations_in_time(batch, [720])
    assert not are_reservations_in_time(batch, [700])


def test_plans_are_compared_over_what_both_have_planned() -> None:
    batch = Batch(hosts=1, occupied=(), requests=((1, HOUR_S), (1, HOUR_S), (1, 9 * HOUR_S)), reservations=())
    assert quality(batch, [0, HOUR_S, 5 * HOUR_S], [2 * HOUR_S, 4 * HOUR_S, None]) == Quality(
        both=2, mean_start_h=3.0, last_end_h=5.0, our_mean_start_h=0.5, our_last_end_h=2.0
    )
    assert quality(batch, [0, 0, 0], [None, None, None]) is None


def test_figures_have_ours_and_each_peer_with_its_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    def peer(batch: Batch, arguments: argparse.Namespace) -> PeerPlan:
        return PeerPlan(seconds=50.0, cpu_s=40.0, planned=4, starts=(HOUR_S,) * 4 + (None,), facts={"layout": "B"})

    monkeypatch.setattr(plan, "_ours", lambda: in_a_row)
    monkeypatch.setattr(plan, "_PEERS", {"slurm": peer})
    figures = plan.run(parsed("--hosts", "2", "--requests", "5", "--times", "1", "--peer", "slurm"))
    assert figures.keys() >= {"seconds", "requests_per_s", "calibration_s", "peers"}
    peers = figures["peers"]
    assert isinstance(peers, dict)
    assert peers["slurm"]["seconds"] == 50.0
    assert peers["slurm"]["ratio"] == round(50.0 / float(str(figures["seconds"])), 1)
    assert (peers["slurm"]["requests_per_s"], peers["slurm"]["with_start"], peers["slurm"]["layout"]) == (0.1, 4, "B")


def test_a_peer_that_is_not_here_ends_it_with_a_status_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(plan, "_ours", lambda: in_a_row)
    monkeypatch.delenv("NIGHTSHIFT_OAR3", raising=False)
    with pytest.raises(SystemExit) as ended:
        plan.run(parsed("--hosts", "1", "--requests", "1", "--times", "1", "--peer", "kamelot"))
    assert ended.value.code == NOT_HERE
    assert capsys.readouterr().err == (
        "Kamelot is not here: clone oar-team/oar3 (c332316) and name it by --kamelot or NIGHTSHIFT_OAR3\n"
    )


def test_our_own_side_is_said_to_be_missing_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_OURS", "benchmarks.no_such_module")
    with pytest.raises(NotHere, match=r"no module benchmarks\.no_such_module"):
        plan._ours()


@pytest.mark.parametrize("words", [["--hosts", "0"], ["--requests", "-1"], ["--peer", "lsf"], ["--times", "x"]])
def test_arguments_that_are_none_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(*words)
    assert ended.value.code == 2


def test_hosts_have_sixteen_gpus_everywhere() -> None:
    assert SIZES[-1] == GPUS
