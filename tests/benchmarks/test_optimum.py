"""Small cases, what we come to in them, and the ratio to what CP-SAT came to."""

import argparse
from collections.abc import Sequence

import pytest

from benchmarks import optimum
from benchmarks.optimum import BUSY, MIXES, STEP_S, Case, make_cases, over, plan_ours, problem
from benchmarks.peers import cp_sat, venv
from benchmarks.peers.cp_sat import Optimum, Problem
from benchmarks.peers.peer import NOT_HERE, NotHere
from benchmarks.workload import HOUR_S, LIMITS_S


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    optimum.add_arguments(parser)
    return parser.parse_args(words)


def test_a_seed_gives_the_same_cases_and_each_mix_on_an_idle_and_on_a_busy_host() -> None:
    cases = make_cases(seeds=(1, 2), vms=5)
    assert cases == make_cases(seeds=(1, 2), vms=5)
    assert [(case.mix, case.busy) for case in cases[::2]] == [(mix, busy) for mix in MIXES for busy in ((), BUSY)]
    assert all(len(case.requests) == 5 for case in cases)
    assert cases[0].requests != cases[1].requests


def test_all_limits_are_whole_steps() -> None:
    assert all(limit % STEP_S == 0 for limit in (*LIMITS_S, *(until for _, until in BUSY)))


def test_with_one_at_a_time_we_wait_as_long_as_we_are_told() -> None:
    case = Case(mix="wide", busy=(), requests=((16, HOUR_S), (16, 2 * HOUR_S), (16, HOUR_S)))
    for most_placed in (0, 100):
        ours = plan_ours(case, most_placed=most_placed)
        assert ours.start_at == ours.start_by == (0, HOUR_S, 3 * HOUR_S)
        assert ours.weight_h(case) == 16 * 4


def test_what_is_on_the_host_is_waited_for() -> None:
    case = Case(mix="wide", busy=BUSY, requests=((8, HOUR_S), (16, HOUR_S)))
    assert plan_ours(case, most_placed=100).start_by == (3 * HOUR_S, 6 * HOUR_S)


def test_a_search_waits_less_where_blocks_were_chosen_one_by_one() -> None:
    cases = make_cases(seeds=(1, 2, 3), vms=28)
    case = next(case for case in cases if case.mix == "wide")
    plain, searched = plan_ours(case, most_placed=0), plan_ours(case, most_placed=3000)
    assert searched.start_by == plain.start_by
    assert all(at <= by for at, by in zip(searched.start_at, searched.start_by, strict=True))
    assert searched.weight_h(case) < plain.weight_h(case)
    assert plan_ours(case, most_placed=3000).start_at == searched.start_at


def test_a_problem_is_the_case_in_steps() -> None:
    case = Case(mix="wide", busy=((2, HOUR_S),), requests=((16, HOUR_S), (1, STEP_S)))
    assert problem(case, (HOUR_S, 0)) == Problem(gpus=16, busy=((2, 2),), requests=((16, 2, 2), (1, 1, 0)))
    assert problem(case, None, (4, 5)).requests == ((16, 2, None), (1, 1, None))
    assert problem(case, None, (4, 5)).starts == (4, 5)


def test_nobody_waits_in_either_is_as_good_as_the_best() -> None:
    assert over(0, 0) == 1
    assert over(3, 0) == float("inf")
    assert over(3, 2) == 1.5


def test_what_is_written_down_is_over_the_best_that_keeps_our_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    def solve(problems: Sequence[Problem], *, seconds: float, workers: int) -> list[Optimum]:
        assert (seconds, workers) == (3, 2)
        has_promises = problems[0].requests[0][2] is not None
        assert all(one.starts == (() if has_promises else (7,)) for one in problems)
        weight = 100 if has_promises else 50
        return [Optimum(seconds=0.1, weight=weight, bound=weight - has_promises, starts=(7,)) for _ in problems]

    monkeypatch.setattr(cp_sat, "solve", solve)
    monkeypatch.setattr(cp_sat, "_is_beside_us", lambda: True)
    figures = optimum.run(parsed("--vms", "4", "--seeds", "1", "--seconds", "3", "--budget", "50"))
    cases = figures["cases"]
    assert isinstance(cases, list)
    assert len(cases) == 2 * len(MIXES)
    assert figures["free_ratio"] == 0.5
    assert figures["proved"] == 0
    assert figures["ratio"] == pytest.approx(sum(case["ours_h"] for case in cases) / (50.0 * len(cases)), abs=1e-3)
    assert all(case["ratio"] == pytest.approx(case["ours_h"] / 50, abs=1e-3) for case in cases)
    assert all(case["best_h"] == 50 and case["free_h"] == 25 for case in cases)
    assert figures["worst_ratio"] == max(case["ratio"] for case in cases)


def test_without_or_tools_it_ends_with_a_status_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cp_sat, "_is_beside_us", lambda: False)
    monkeypatch.setattr(venv, "find", lambda _peer: None)
    with pytest.raises(SystemExit) as ended:
        optimum.run(parsed("--vms", "2", "--seeds", "1"))
    assert ended.value.code == NOT_HERE
    assert "OR-Tools is not here: pip install ortools==" in capsys.readouterr().err


def test_a_plan_that_was_not_found_in_time_is_said() -> None:
    with pytest.raises(NotHere, match="found no plan within 2 s"):
        cp_sat._told({"weight": None, "seconds": 2.0, "bound": 0.0, "starts": []}, 2)
