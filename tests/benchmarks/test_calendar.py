"""What is measured in a full calendar is that, and what is written down is of the calendar that is used."""

import argparse

import pytest

from benchmarks import calendar
from benchmarks.calendar import BESIDE_HOSTS, LOAD, Case, Cost, best, make_figures, measure
from scheduler.core.calendar import compiled


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    calendar.add_arguments(parser)
    return parser.parse_args(words)


def cost(*, live: int, cpu_mean_us: float, memory_mb: float = 1.0) -> Cost:
    return Cost(
        live=live,
        query_commit_p50_us=cpu_mean_us,
        query_commit_p99_us=9 * cpu_mean_us,
        cpu_p50_us=cpu_mean_us,
        cpu_p99_us=8 * cpu_mean_us,
        cpu_mean_us=cpu_mean_us,
        cancel_us=3.0,
        shorten_us=4.0,
        extend_us=5.0,
        memory_mb=memory_mb,
        load=LOAD,
    )


@pytest.mark.parametrize("is_compiled", [False, True])
def test_so_many_are_live_all_along_at_the_load(is_compiled: bool) -> None:
    found = measure(Case(hosts=3, live=300, is_compiled=is_compiled, calls=40))
    assert found.live == 300
    assert 0.5 < found.load <= LOAD
    assert min(found.query_commit_p50_us, found.cancel_us, found.shorten_us, found.extend_us) > 0
    assert found.query_commit_p99_us >= found.query_commit_p50_us


def test_the_best_run_counts_with_the_most_memory() -> None:
    runs = [cost(live=10, cpu_mean_us=20, memory_mb=7), cost(live=10, cpu_mean_us=10, memory_mb=5)]
    assert best(runs) == cost(live=10, cpu_mean_us=10, memory_mb=7)


def test_what_is_written_down_is_of_the_compiled_calendar_with_all_that_are_live() -> None:
    cases = {
        Case(hosts=hosts, live=live, is_compiled=is_compiled, calls=1): cost(live=live, cpu_mean_us=mean)
        for hosts, live, is_compiled, mean in (
            (64, 100, True, 1),
            (64, 100, False, 10),
            (64, 500, True, 2),
            (64, 500, False, 20),
            (BESIDE_HOSTS, 100, True, 1),
            (BESIDE_HOSTS, 100, False, 30),
            (BESIDE_HOSTS, 500, True, 3),
            (BESIDE_HOSTS, 500, False, 10),
        )
    }
    figures = make_figures(64, 500, cases)
    assert (figures["hosts"], figures["live"], figures["calendar"]) == (64, 500, "compiled")
    assert figures["query_commit_us"] == {"p50": 2, "p99": 18}
    assert figures["query_commit_per_s"] == 500_000
    assert (figures["cancel_us"], figures["shorten_us"], figures["extend_us"], figures["memory_mb"]) == (3, 4, 5, 1)
    assert figures["cost_at_1000_hosts"] == 1.5
    rows = figures["rows"]
    assert isinstance(rows, list)
    assert [row["over_given_hosts"] for row in rows] == [1, 1, 1, 1, 1, 3, 1.5, 0.5]


def test_ten_rounds_hold_all_calls_in_their_order() -> None:
    rounds = calendar._rounds(range(25))
    assert len(rounds) == 10
    assert [value for mine in rounds for value in mine] == list(range(25))


def test_each_row_is_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calendar, "BESIDE_HOSTS", 2)
    monkeypatch.setattr(calendar, "BESIDE_LIVE", ())
    monkeypatch.setattr(compiled, "is_available", lambda: False)
    monkeypatch.setattr(calendar, "apart", lambda case: cost(live=case.live, cpu_mean_us=case.hosts))
    figures = calendar.run(parsed("--hosts", "1", "--live", "20"))
    assert figures["calendar"] == "python"
    assert figures["cost_at_2_hosts"] == 2


def test_a_process_of_its_own_answers() -> None:
    assert calendar.apart(Case(hosts=1, live=20, is_compiled=False, calls=10)).live == 20


@pytest.mark.parametrize("words", [["--hosts", "0"], ["--live", "9"], ["--calls", "x"]])
def test_arguments_that_are_none_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(*words)
    assert ended.value.code == 2
    assert "whole number" in capsys.readouterr().err
