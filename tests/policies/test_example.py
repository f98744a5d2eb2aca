"""The examples that ship say what their comments and the documentation say they do."""

from dataclasses import replace
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import pytest

from policies.bundle import unpack
from policies.checks import check_policy
from policies.filings import filing_times
from policies.format import LoadedPolicy
from policies.loading import load_policy
from policies.problems import Place
from policies.windows import windows_between
from scheduler.core.plan import Limits
from scheduler.core.requests import AtBoundary, HostId
from scheduler.core.rules import LimitScope
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S, Instant
from scheduler.profiles.loading import load_profile
from tests.policies.policy_texts import EXAMPLES, example_policy

NOWHERE = Place(file="", line=1, column=1)
MONDAY: Instant = int(datetime(2026, 3, 2, tzinfo=UTC).timestamp())


def load_example(name: str) -> LoadedPolicy:
    read = example_policy(name)
    policy = load_policy(read.text, source=name)
    assert isinstance(policy, LoadedPolicy), policy
    return policy


def test_every_example_that_ships_is_tested() -> None:
    assert {entry.name for entry in (files("policies") / "examples").iterdir()} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_all_that_is_said_of_one_is_that_something_is_not_enforced_yet(name: str) -> None:
    for problem in check_policy(load_example(name), from_at=MONDAY + 200 * DAY_S):
        assert "is not enforced yet" in problem.what, problem


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_documentation_shows_each_as_it_ships(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")
    shown = [block.split("```")[0] for block in page.split("```yaml\n")[1:]]
    for part in unpack(example_policy(name).text, source=name):
        if not part.is_calendar:
            assert _without_comments(part.text) in map(_without_comments, shown), part.name


def _without_comments(text: str) -> str:
    lines = (line.split("  # ")[0].split("   # ")[0].rstrip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.lstrip().startswith("#"))


def test_the_department_is_closed_from_noon_on_holidays_and_maintained_in_december() -> None:
    policy = load_example("department.yaml")
    hosts = [HostId("dgx2-a"), HostId("dgx2-b")]
    christmas = int(datetime(2026, 12, 24, 12, tzinfo=UTC).timestamp())
    found = windows_between(policy, hosts, from_at=christmas, until_at=christmas + 3 * DAY_S, version=1)
    assert [window.id for window in found] == [f"closed@2026-12-{day}T12:00" for day in (24, 25, 26)]
    december = int(datetime(2026, 12, 4, 12, tzinfo=UTC).timestamp())
    found = windows_between(policy, hosts, from_at=december, until_at=december + 3 * DAY_S, version=1)
    # The night before the power is off ends an hour early, and a night begins after it.
    assert [window.id for window in found] == [
        "night@2026-12-04T20:00#04T20:00-05T06:00",
        "power-work@2026-12-05T06:00",
        "weekend@2026-12-05T20:00",
        "weekend@2026-12-06T20:00",
    ]


def test_the_department_gives_its_course_one_gpu_each_and_its_group_more_before_the_deadline() -> None:
    rules = load_example("department.yaml").rules(1)
    (each,) = [rule for rule in rules.limit_rules if rule.scope is LimitScope.EACH_OF_GROUP]
    assert (each.name, each.limits.gpus_at_once, each.limits.sizes) == ("gpu-101", 1, frozenset({1}))
    (boost,) = [rule for rule in rules.limit_rules if rule.span is not None]
    assert (boost.name, boost.limits.gpus_at_once) == ("vision", 32)
    assert boost.span is not None
    assert boost.span.length_s == 7 * DAY_S


def test_the_institute_gives_one_host_to_students_but_when_it_is_closed() -> None:
    policy = load_example("institute.d")
    hosts = [HostId("dgx2-a"), HostId("dgx2-b")]
    august = int(datetime(2026, 8, 13, tzinfo=UTC).timestamp())
    found = windows_between(policy, hosts, from_at=august, until_at=august + 3 * DAY_S, version=1)
    # Closed until Friday 14 August by the calendar; the 15th is a holiday in Austria.
    assert [w.id for w in found if HostId("dgx2-b") in w.hosts] == [
        f"closed-b@2026-08-{day}T08:00" for day in (13, 14, 15)
    ]
    assert [w.id for w in found if HostId("dgx2-a") in w.hosts] == [
        f"night-a@2026-08-{day}T20:00" for day in (13, 14, 15)
    ]
    assert policy.images == ("ubuntu-24.04-cuda", "pytorch-course")


def test_it_has_no_problem_in_any_season(example: LoadedPolicy) -> None:
    for start in range(0, 365, 91):
        assert check_policy(example, from_at=MONDAY + start * DAY_S) == ()


def test_its_layouts_are_sizes_of_a_dgx_2(example: LoadedPolicy) -> None:
    assert {size for layout in example.layouts for size in layout.sizes} == set(load_profile("dgx-2").sizes)


def test_by_day_there_are_tenants_and_at_night_one_batch_job(example: LoadedPolicy) -> None:
    assert example.outside.admits(gpus=1, queue="interactive")
    assert not example.outside.admits(gpus=16, queue="hpc")
    assert all(window.layout.admits(gpus=16, queue="hpc") for window in example.windows)
    assert [(queue.name, queue.at_boundary, queue.is_scratch) for queue in example.queues] == [
        ("interactive", AtBoundary.PARK, False),
        ("hpc", AtBoundary.FINISH, True),
    ]
    assert example.limits == Limits(open_reservations=20, gpus_at_once=16, longest_run_s=14 * DAY_S)


def test_a_week_of_nights(example: LoadedPolicy) -> None:
    hosts = [HostId("dgx2-a"), HostId("elsewhere")]
    windows = windows_between(example, hosts, from_at=MONDAY, until_at=MONDAY + 7 * DAY_S, version=1)
    assert [window.id for window in windows] == [
        *(f"night@2026-03-0{day}T20:00" for day in range(2, 7)),
        "weekend@2026-03-07T18:00",
        "weekend@2026-03-08T18:00",
    ]
    assert {window.hosts for window in windows} == {frozenset({HostId("dgx2-a")})}
    assert all(window.only_if_queued for window in windows)
    assert all(datetime.fromtimestamp(window.end_at, UTC).hour == 7 for window in windows)


def test_the_night_of_the_design_is_decided_at_18_45_and_warned_of_at_19_00_and_19_45(example: LoadedPolicy) -> None:
    hosts = [HostId("dgx2-a")]
    night = windows_between(example, hosts, from_at=MONDAY, until_at=MONDAY + DAY_S, version=1)[0]
    assert night.start_at == MONDAY + 19 * HOUR_S  # 20:00 in Berlin
    assert night.start_at - night.decide_at == 75 * MINUTE_S
    assert night.warnings_s == (60 * MINUTE_S, 15 * MINUTE_S)
    assert night.grace_s == 5 * MINUTE_S


def test_a_group_has_its_nights_and_a_course_its_tuesdays(example: LoadedPolicy) -> None:
    times = filing_times(example, from_at=MONDAY, until_at=MONDAY + 7 * DAY_S)
    assert [(time.entry.name, time.occurrence.local_text, time.entry.count, time.entry.gpus) for time in times] == [
        ("climate-nightly", "2026-03-02T20:00", 1, 16),
        ("deep-learning-course", "2026-03-03T10:00", 8, 2),
        *(("climate-nightly", f"2026-03-0{day}T20:00", 1, 16) for day in range(3, 7)),
    ]


def test_the_documentation_shows_the_example_as_it_ships(example: LoadedPolicy) -> None:
    page = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")
    shown_text = page.split("```yaml\n")[1].split("```")[0]
    shown = load_policy(shown_text, source=example.source)
    assert isinstance(shown, LoadedPolicy)
    assert shown.rules(1) == example.rules(1)
    assert shown.layouts == example.layouts
    assert [replace(entry, place=NOWHERE) for entry in shown.windows] == [
        replace(entry, place=NOWHERE) for entry in example.windows
    ]
    assert [replace(entry, place=NOWHERE) for entry in shown.reserve] == [
        replace(entry, place=NOWHERE) for entry in example.reserve
    ]
