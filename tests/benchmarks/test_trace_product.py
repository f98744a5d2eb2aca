"""The product's planning step and the scheme of the benchmark decide the same: same promises, same starts."""

import random
from collections.abc import Sequence

import pytest

from benchmarks import trace_product, trace_run
from benchmarks.traces import DAY_S, HOUR_S, NIGHT_AT_S, OpenClock, TraceRequest
from scheduler.core.planner import deciding, moving
from scheduler.core.planner.draft import Draft
from scheduler.core.rehearsal import Story

HISTORIES = 12


def _requests(seed: int, *, count: int = 120, asks_too_much: bool = True) -> list[TraceRequest]:
    draw = random.Random(seed)
    at, found = 0, []
    for number in range(count):
        at += draw.choice((0, 1, 60, 600, 1800, 5400))
        run_s = draw.choice((60, 900, HOUR_S, 3 * HOUR_S, 11 * HOUR_S, 30 * HOUR_S)) + draw.randrange(300)
        asked_s = -(-round(run_s * draw.uniform(1, 3)) // 900) * 900 if asks_too_much else run_s
        gpus = draw.choice((1, 1, 1, 2, 4, 8, 8, 16))
        found.append(TraceRequest(number=number, submit_at=at, gpus=gpus, run_s=run_s, asked_s=asked_s))
    return found


def _scheme(requests: Sequence[TraceRequest], hosts: int, *, slack: bool = False) -> trace_run.OurRun:
    return trace_run.run(
        requests, hosts=hosts, slack=slack, night=False, storage="shared", clock=OpenClock(0), is_judged=False
    )


@pytest.mark.parametrize("slack", [False, True])
@pytest.mark.parametrize("seed", range(HISTORIES))
def test_the_step_makes_the_promises_and_starts_of_the_scheme(seed: int, slack: bool) -> None:
    requests = _requests(seed, asks_too_much=bool(seed % 4))
    hosts = 1 + seed % 3

    ours, scheme = trace_product.run(requests, hosts=hosts, slack=slack), _scheme(requests, hosts, slack=slack)

    assert ours.told_at == scheme.schedule.told_at
    assert ours.start_at == scheme.schedule.start_at


@pytest.mark.parametrize("may_be_compiled", [True, False])
def test_the_calendars_in_c_and_in_python_lead_to_the_same_starts(may_be_compiled: bool) -> None:
    requests = _requests(99)
    ours = trace_product.run(requests, hosts=2, may_be_compiled=may_be_compiled)
    assert ours.start_at == _scheme(requests, 2).schedule.start_at


@pytest.mark.parametrize("seed", range(HISTORIES // 3))
@pytest.mark.parametrize("storage", ["shared", "local"])
def test_over_closings_every_promise_is_kept_and_all_work_is_done(seed: int, storage: str) -> None:
    requests = _requests(100 + seed, count=60)

    ours = trace_product.run(requests, hosts=2, night_hours=10, storage=storage)

    assert all(start <= told for start, told in zip(ours.start_at, ours.told_at, strict=True))
    for request, story in zip(requests, ours.stories, strict=True):
        assert sum(ran.off_at - ran.up_at for ran in story.ran) == request.run_s
        for ran in story.ran:
            since_night_s = (ran.up_at - 20 * HOUR_S) % DAY_S
            assert since_night_s >= 10 * HOUR_S or ran.up_at == ran.off_at, "nobody runs while hosts are closed"
            assert ran.off_at - ran.up_at <= DAY_S - since_night_s
        if storage == "local":
            assert len({ran.host for ran in story.ran}) == 1
    _check_blocks(ours.stories)


def _check_blocks(stories: Sequence[Story]) -> None:
    """No GPU is in two VMs."""
    ran = sorted(
        ((one.host, one.held_at, one.off_at, one.mask) for story in stories for one in story.ran),
        key=lambda one: one[:3],
    )
    for number, (host, _, off_at, mask) in enumerate(ran):
        for other_host, held_at, _, other in ran[number + 1 :]:
            if other_host != host or held_at >= off_at:
                break
            assert not mask & other


def test_who_finds_no_place_by_its_promise_at_a_boundary_is_placed_first_and_all_others_anew() -> None:
    asked = (
        # submitted, GPUs, used, asked for
        (62582, 2, 20000, 40000),
        (66175, 4, 3600, 3600),
        (66736, 4, 20000, 60000),
        (68966, 8, 40000, 80000),
        (69566, 8, 7200, 14400),
        (70038, 2, 20000, 60000),
    )
    requests = [
        TraceRequest(number=number, submit_at=at, gpus=gpus, run_s=run_s, asked_s=asked_s)
        for number, (at, gpus, run_s, asked_s) in enumerate(asked)
    ]

    ours = trace_product.run(requests, hosts=1, night_hours=1 / 3600)

    # The half that is free from 20:00 on goes to the short one: after the long one it would start too late.
    assert ours.start_at[4] == NIGHT_AT_S + 1
    assert all(start <= told for start, told in zip(ours.start_at, ours.told_at, strict=True))


@pytest.mark.parametrize("seed", range(HISTORIES // 3))
def test_where_those_that_wait_are_put_late_one_in_each_step_every_promise_is_kept(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []

    def go_on(of: Draft) -> None:
        left.append(len(of.memory.to_put_late))
        moving.go_on_putting_late(of)

    monkeypatch.setattr(moving, "MOST_PUT_LATE", 1)
    monkeypatch.setattr(deciding, "go_on_putting_late", go_on)
    requests = _requests(200 + seed)

    ours = trace_product.run(requests, hosts=2, night_hours=10)

    assert all(start <= told for start, told in zip(ours.start_at, ours.told_at, strict=True))
    assert max(left) > 1, "one step has left something to the next"
