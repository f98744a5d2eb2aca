"""Recorded demand: what of a trace becomes what students ask for."""

from pathlib import Path

import pytest

from cli.recorded import BadTrace, arrivals, busiest, read_trace, wide_arrivals
from scheduler.core.spans import HOUR_S, MINUTE_S


def test_the_trace_that_ships_is_whole() -> None:
    jobs = read_trace()
    assert len(jobs) == 876
    assert {job.gpus for job in jobs} == {1, 2, 4}


def test_the_busiest_stretch_holds_no_fewer_jobs_than_any_other() -> None:
    jobs = read_trace()
    best = busiest(jobs, 36 * HOUR_S)
    assert best[-1].submit_s - best[0].submit_s < 36 * HOUR_S
    for first in jobs:
        assert sum(first.submit_s <= job.submit_s < first.submit_s + 36 * HOUR_S for job in jobs) <= len(best)


def test_nobody_asks_for_less_than_they_need_or_more_than_the_cap() -> None:
    asked = arrivals(read_trace(), start_at=0, length_s=10**8, cap_s=4 * HOUR_S, largest=8, seed=3)
    assert len(asked) == 876
    for arrival in asked:
        assert 0 < arrival.needs_s <= arrival.run_s <= 4 * HOUR_S
        assert arrival.run_s % (15 * MINUTE_S) == 0


def test_one_seed_gives_one_demand() -> None:
    jobs = read_trace()

    def ask(seed: int) -> object:
        return arrivals(jobs, start_at=0, length_s=10**8, cap_s=HOUR_S * 4, largest=8, seed=seed)

    assert ask(1) == ask(1)
    assert ask(1) != ask(2)
    sizes = (8, 16)
    assert wide_arrivals(start_at=0, length_s=HOUR_S, sizes=sizes, seed=1) == wide_arrivals(
        start_at=0, length_s=HOUR_S, sizes=sizes, seed=1
    )


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "holds no jobs"),
        (b"submit_s,gpus,duration_s,user\n", "holds no jobs"),
        (b"submit_s,gpus,duration_s,user\n1,x,3,u\n", ":2: not a job"),
        (b"a,b\n1,2\n", ":2: not a job"),
        (b"submit_s,gpus,duration_s,user\n1,1\n", ":2: not a job"),
        (b"\xff\xfe\x00", "cannot read trace"),
    ],
)
def test_a_file_that_is_no_trace_is_refused_with_its_place(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(content)
    with pytest.raises(BadTrace, match=named):
        read_trace(path)


def test_a_gzip_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(b"\x1f\x8b\x08\x00\x00\x00")
    with pytest.raises(BadTrace, match="cannot read trace"):
        read_trace(path)
