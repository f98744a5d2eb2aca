"""A worker killed anywhere and followed by another one: the end is the same as if it had never been killed.

By default every so-manieth point is tried, and one of each kind; NIGHTSHIFT_KILL=all tries them all, and
NIGHTSHIFT_KILL=<number> the one that a failure named.
"""

import os

import pytest

from scheduler.core.plan import Outcome
from tests.simulation.judged import end_of, judge
from tests.simulation.kill_points import COMMITS, Moment, Night, Point, Reaper, moments_of, table, tell_story
from workers.drivers.simulated.faults import RackVerb

STRIDE = 15


UNKILLED = Reaper()
NIGHT = tell_story(UNKILLED)
END = end_of(NIGHT)


def judge_killed(night: Night) -> None:
    assert night.killed_at is not None
    assert night.home.deaths == 1
    judge(night, END)


def test_the_story_ends_as_it_should_when_nobody_is_killed() -> None:
    judge(NIGHT, END)
    assert END.outcomes == (("ada", Outcome.COMPLETED.value), ("bela", None), ("climate", Outcome.COMPLETED.value))
    assert END.running == END.defined == (NIGHT.bela,)
    assert END.disks == (f"d-{NIGHT.ada}", f"d-{NIGHT.bela}")
    assert END.quarantined == {0, 1}
    assert END.left_asked == ()
    kinds = [event.kind for _, event in NIGHT.home.store.events(limit=10_000)]
    assert kinds.count("gpu.quarantined") == 2
    ends = [dict(event.facts)["end"] for _, event in NIGHT.home.store.events(limit=10_000, kinds=("vm.off",))]
    assert ends == ["crashed", "stopped", "destroyed", "self_shutdown", "stopped"]


def test_every_verb_and_every_kind_of_commit_is_a_point_of_the_story() -> None:
    passed = {(point.what, point.moment) for point in UNKILLED.passed}
    for what in (*(verb.value for verb in RackVerb), *COMMITS):
        assert {moment for moment in Moment if (what, moment) in passed} == set(moments_of(what)), what


def chosen_points() -> frozenset[int]:
    chosen = os.environ.get("NIGHTSHIFT_KILL", "")
    if chosen == "all":
        return frozenset(point.number for point in UNKILLED.passed)
    if chosen:
        return frozenset({int(chosen)})
    first_of_kind: dict[tuple[str, Moment], Point] = {}
    for point in UNKILLED.passed:
        first_of_kind.setdefault((point.what, point.moment), point)
    return frozenset(
        point.number
        for point in UNKILLED.passed
        if point.number % STRIDE == 0 or point == first_of_kind[point.what, point.moment]
    )


def test_killed_anywhere_and_run_again_the_end_is_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    reaper = Reaper(chosen_points())
    reaper.tell_and_judge(judge_killed)
    with capsys.disabled():
        print("\n" + table(tuple(UNKILLED.passed)))
        print(f"tried         {len(reaper.problems):>8}")
    reaper.check_all_are_well()
