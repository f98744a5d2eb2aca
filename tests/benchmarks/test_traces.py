"""A trace file is read or refused by its line; asks and the clock of closed nights."""

import gzip
from pathlib import Path

import pytest

from benchmarks.traces import (
    DAY_S,
    HOUR_S,
    NIGHT_AT_S,
    Asks,
    BadTrace,
    OpenClock,
    Schedule,
    TraceJob,
    asks,
    in_open_time,
    in_wall_time,
    load,
)
from tests.benchmarks.trace_cases import requests_of

HEADER = "submit_s,gpus,duration_s,user\n"


def write(folder: Path, text: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_a_trace_is_read_gzipped_or_not(tmp_path: Path, name: str) -> None:
    found = load(write(tmp_path, HEADER + '0,1,60,"Ada, L."\n\n7,32,5,bela\n', name))
    assert found == (
        TraceJob(submit_s=0, gpus=1, duration_s=60, user="Ada, L."),
        TraceJob(submit_s=7, gpus=32, duration_s=5, user="bela"),
    )


def test_lines_may_end_as_on_windows_and_a_mark_may_stand_first(tmp_path: Path) -> None:
    assert len(load(write(tmp_path, "\ufeff" + (HEADER + "0,1,60,a\n").replace("\n", "\r\n")))) == 1


def test_who_ran_for_less_than_a_second_ran_for_one(tmp_path: Path) -> None:
    assert load(write(tmp_path, HEADER + "0,1,0,a\n"))[0].duration_s == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"t\.csv:1: the columns are '': write submit_s,gpus,duration_s,user"),
        ("0,1,60,a\n", r"t\.csv:1: the columns are '0,1,60,a': write submit_s"),
        (HEADER, r"t\.csv:2: no request"),
        (HEADER + "0,1,60\n", r"t\.csv:2: 3 values, '0,1,60': write submit_s"),
        (HEADER + "0,1,60,a\nx,1,60,a\n", r"t\.csv:3: submit_s is 'x': write a whole number"),
        (HEADER + "0,1,6.5,a\n", r"t\.csv:2: duration_s is '6\.5': write a whole number"),
        (HEADER + "0,1,-5,a\n", r"t\.csv:2: duration_s is '-5'"),
        (HEADER + "0,1,²,a\n", r"t\.csv:2: duration_s is '²'"),
        (HEADER + f"0,1,{'9' * 5000},a\n", r"t\.csv:2: duration_s is '9+…': write at most 3162240000"),
        (HEADER + "0,3,60,a\n", r"t\.csv:2: gpus is 3: write 1, 2, 4, 8, 16 or more; the next size is 4"),
        (HEADER + "0,0,60,a\n", r"t\.csv:2: gpus is 0: write 1, 2"),
        (HEADER + "\n9,1,60,a\n8,1,60,a\n", r"t\.csv:4: submit_s is 8, after a line with 9: sort"),
        (HEADER + '0,1,60,"a\n', r"t\.csv:2: not a line of CSV"),
    ],
)
def test_what_is_not_of_the_form_is_refused_by_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadTrace, match=message) as refused:
        load(write(tmp_path, text))
    assert "\n" not in str(refused.value)


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTrace, match=r"none\.csv: cannot be read \(No such file"):
        load(tmp_path / "none.csv")
    whole = write(tmp_path, HEADER + "0,1,60,a\n", "t.csv.gz").read_bytes()
    for broken in (whole[:-9], b"no gzip", whole[:12] + b"\x00\xff\x00" + whole[15:]):
        (tmp_path / "broken.csv.gz").write_bytes(broken)
        with pytest.raises(BadTrace, match=r"broken\.csv\.gz: not a whole gzip file"):
            load(tmp_path / "broken.csv.gz")
    (tmp_path / "latin.csv").write_bytes(HEADER.encode() + b"0,1,60,\xe1da\n")
    with pytest.raises(BadTrace, match=r"latin\.csv:2: byte 0xe1 is not UTF-8"):
        load(tmp_path / "latin.csv")


def test_people_ask_for_one_to_three_times_what_they_use_in_quarters_of_an_hour() -> None:
    jobs = [TraceJob(submit_s=at, gpus=1, duration_s=1000, user="a") for at in range(300)]
    asked = [request.asked_s for request in asks(jobs, kind=Asks.OVER, seed=1).requests]
    assert set(asked) == {1800, 2700, 3600}
    assert asked == [request.asked_s for request in asks(jobs, kind=Asks.OVER, seed=1).requests]
    assert asked != [request.asked_s for request in asks(jobs, kind=Asks.OVER, seed=2).requests]
    assert {request.asked_s for request in asks(jobs).requests} == {1000}


def test_what_is_larger_than_a_host_is_dropped_and_changes_nobody_elses_ask() -> None:
    sizes = (1, 32, 8)
    jobs = [TraceJob(submit_s=0, gpus=gpus, duration_s=50_000, user="a") for gpus in sizes]
    smaller = [TraceJob(submit_s=0, gpus=min(16, gpus), duration_s=50_000, user="a") for gpus in sizes]
    found = asks(jobs, kind=Asks.OVER, seed=5)
    assert (found.dropped, [(one.number, one.gpus) for one in found.requests]) == (1, [(0, 1), (1, 8)])
    assert found.requests[1].asked_s == asks(smaller, kind=Asks.OVER, seed=5).requests[2].asked_s


@pytest.mark.parametrize("night_hours", [0, 1, 4, 8, 12.5, 23.75])
def test_the_open_clock_and_back_is_the_same_instant_wherever_it_is_open(night_hours: float) -> None:
    clock = OpenClock(night_hours)
    for wall_at in range(0, 3 * DAY_S, 450):
        since_s = (wall_at - NIGHT_AT_S) % DAY_S
        open_at = clock.to_open(wall_at)
        if since_s > clock.closed_s or not night_hours:
            assert clock.start_to_wall(open_at) == clock.end_to_wall(open_at) == wall_at
        else:
            assert clock.start_to_wall(open_at) == wall_at - since_s + clock.closed_s
            assert clock.end_to_wall(open_at) == wall_at - since_s


def test_what_runs_over_a_closing_stands_still() -> None:
    clock = OpenClock(8)
    start_at = NIGHT_AT_S - HOUR_S
    end_at = clock.end_to_wall(clock.to_open(start_at) + 2 * HOUR_S)
    assert end_at - start_at == 2 * HOUR_S + 8 * HOUR_S
    assert clock.to_open(0) == 0


def test_nights_are_a_day_of_open_time_apart() -> None:
    assert list(OpenClock().nights(until_at=2 * DAY_S)) == [NIGHT_AT_S, NIGHT_AT_S + DAY_S]
    clock = OpenClock(8)
    # The file starts in the night before: closed until 4:00.
    assert list(clock.nights(until_at=40 * HOUR_S)) == [16 * HOUR_S, 32 * HOUR_S]
    assert [clock.end_to_wall(at) for at in clock.nights(until_at=40 * HOUR_S)] == [NIGHT_AT_S, NIGHT_AT_S + DAY_S]


def test_a_clock_without_open_time_is_refused() -> None:
    for hours in (-1, 24):
        with pytest.raises(ValueError, match="less than 24"):
            OpenClock(hours)


def test_who_submits_to_closed_hosts_is_told_the_opening_and_has_waited_for_it() -> None:
    clock = OpenClock(8)
    requests = requests_of((NIGHT_AT_S + HOUR_S, 1, 60, 60))
    (request,) = in_open_time(requests, clock)
    assert request.submit_at == 16 * HOUR_S
    seen = in_wall_time(Schedule(start_at=[request.submit_at], told_at=[request.submit_at]), clock)
    assert seen.start_at == seen.told_at == [NIGHT_AT_S + 8 * HOUR_S]
