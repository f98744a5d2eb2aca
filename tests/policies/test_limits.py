"""Limits of everybody, of groups and of people: what they become, what is said of them, and that nothing pretends."""

from collections.abc import Callable
from textwrap import dedent

import pytest

from policies.checks import check_policy
from policies.format import LoadedPolicy
from policies.loading import load_policy
from policies.zone_shifts import shifts_of
from scheduler.core.plan import LimitRule, Limits, Queue
from scheduler.core.requests import AtBoundary
from scheduler.core.rules import (
    NO_SLACK,
    ClockHours,
    Group,
    LimitScope,
    OrderKind,
    QueueOrder,
    Slack,
    Unused,
    UnusedAction,
)
from scheduler.core.spans import DAY_S, HOUR_S, Instant
from scheduler.store.codec import from_json, to_json

MakePolicy = Callable[..., LoadedPolicy]
MakeText = Callable[..., str]

MONDAY: Instant = 1_772_409_600
"""2026-03-02 00:00 UTC."""
WORKDAYS = frozenset(range(5))
EVERY_KEY = dedent("""\
    limits:
      open_reservations: 20
      gpus_at_once: 16
      longest: 14d
      gpu_hours_per_week: 400
      furthest_ahead: 30d
      far_ahead_gpu_hours: 100
      waiting: 5
      disk: 500GiB
      sizes: [1, 2]
      queues: [interactive]
      images: [ubuntu]
    """)


def said(policy: LoadedPolicy) -> list[str]:
    return [str(problem) for problem in check_policy(policy, from_at=MONDAY)]


def about(policy: LoadedPolicy, words: str) -> list[str]:
    return [line for line in said(policy) if words in line]


def test_every_limit_becomes_a_core_value(make_policy: MakePolicy) -> None:
    assert make_policy(more=EVERY_KEY).rules(1).limits == Limits(
        open_reservations=20,
        gpus_at_once=16,
        longest_run_s=14 * DAY_S,
        gpu_h_per_week=400,
        furthest_ahead_s=30 * DAY_S,
        far_ahead_gpu_h=100,
        waiting=5,
        disk_gib=500,
        sizes=frozenset({1, 2}),
        queues=frozenset({"interactive"}),
        images=frozenset({"ubuntu"}),
    )


def test_limits_of_groups_users_and_hours_become_rules_with_their_lines(make_policy: MakePolicy) -> None:
    more = dedent("""\
        groups: {course: {members: [dana, emil]}}
        limits:
          gpus_at_once: 8
          by_hour: [{hours: 08:00-20:00, days: mon-fri, gpus_at_once: 4}]
          groups:
            course:
              gpus_at_once: 6
              each: {gpus_at_once: 1, by_hour: [{days: sat-sun, waiting: 1}]}
          users:
            ada: {longest: 2d}
        """)
    rules = make_policy(more=more).rules(1)
    assert rules.groups == (Group(name="course", members=frozenset({"dana", "emil"})),)
    at_work = ClockHours(weekdays=WORKDAYS, from_minute=480, until_minute=1200)
    weekend = ClockHours(weekdays=frozenset({5, 6}), from_minute=0, until_minute=1440)
    assert rules.limit_rules == (
        LimitRule(scope=LimitScope.EACH, limits=Limits(gpus_at_once=4), hours=(at_work,), source="test.yaml:14"),
        LimitRule(scope=LimitScope.GROUP, name="course", limits=Limits(gpus_at_once=6), source="test.yaml:17"),
        LimitRule(scope=LimitScope.EACH_OF_GROUP, name="course", limits=Limits(gpus_at_once=1), source="test.yaml:18"),
        LimitRule(
            scope=LimitScope.EACH_OF_GROUP,
            name="course",
            limits=Limits(waiting=1),
            hours=(weekend,),
            source="test.yaml:18",
        ),
        LimitRule(scope=LimitScope.USER, name="ada", limits=Limits(longest_run_s=2 * DAY_S), source="test.yaml:20"),
    )


def test_an_override_holds_from_its_first_day_to_the_end_of_its_last(make_policy: MakePolicy) -> None:
    more = "overrides: [{name: d, from: 2026-03-28, until: 2026-03-29, limits: {gpus_at_once: 64}}]\n"
    (rule,) = make_policy(more=more).rules(1).limit_rules
    assert rule.span is not None
    assert rule.span.length_s == 47 * HOUR_S  # the clock changes in it
    timed = 'overrides: [{name: d, from: "2026-03-02 08:00", until: "2026-03-02 09:30", limits: {waiting: 9}}]\n'
    (rule,) = make_policy(more=timed).rules(1).limit_rules
    assert rule.span is not None
    assert rule.span.length_s == HOUR_S * 3 // 2


def test_order_of_queues_and_unused_gpus_are_kept(make_policy: MakePolicy) -> None:
    more = dedent("""\
        unused: {no_show_after: 30m, idle_after: 4h, idle_below_percent: 3, then: park}
        """)
    rules = make_policy(more=more).rules(1)
    assert rules.unused == Unused(
        no_show_after_s=1800, idle_after_s=4 * HOUR_S, idle_below_percent=3, action=UnusedAction.PARK
    )
    assert [queue.order for queue in rules.queues] == [None, None]


@pytest.mark.parametrize(
    ("written", "order"),
    [
        ("scratch: false", None),
        ("order: response-ratio", QueueOrder(kind=OrderKind.RESPONSE_RATIO)),
        ("order: first-come", QueueOrder(kind=OrderKind.FIRST_COME)),
        ("order: shortest-first", QueueOrder(kind=OrderKind.SHORTEST_FIRST)),
        ("order: shortest-first, age_cap: 3d", QueueOrder(kind=OrderKind.SHORTEST_FIRST, age_cap_s=3 * DAY_S)),
        ("order: fair-share", QueueOrder(kind=OrderKind.FAIR_SHARE, half_life_s=14 * DAY_S)),
    ],
)
def test_a_queue_has_an_order(make_text: MakeText, written: str, order: QueueOrder | None) -> None:
    text = make_text().replace("interactive:\n", f"interactive: {{{written}}}\n")
    policy = load_policy(text, source="p.yaml")
    assert isinstance(policy, LoadedPolicy)
    assert policy.queues[0] == Queue(name="interactive", at_boundary=AtBoundary.PARK, order=order)
    assert about(policy, "is not enforced yet") == []


def test_rules_go_into_the_database_and_back(make_policy: MakePolicy) -> None:
    policy = make_policy(
        more=EVERY_KEY
        + "groups: {g: {members: [a]}}\nunused: {idle_after: 1h}\n"
        + "overrides: [{name: d, from: 2026-03-28, until: 2026-03-29, limits: {groups: {g: {waiting: 2}}}}]\n"
    )
    rules = policy.rules(1)
    assert from_json(type(rules), to_json(rules)) == rules


def test_all_limits_are_enforced_and_what_is_not_says_so_with_its_line(make_policy: MakePolicy) -> None:
    more = dedent("""\
        groups: {g: {members: [a]}}
        overrides: [{name: d, from: 2026-05-01, until: 2026-05-02, limits: {gpus_at_once: 4, gpu_hours_per_week: 9}}]
        unused: {no_show_after: 30m}
        """)
    limits = EVERY_KEY + "  by_hour: [{hours: 08:00-09:00, gpus_at_once: 4, longest: 4h, waiting: 2}]\n"
    limits += "  groups: {g: {gpus_at_once: 4, gpu_hours_per_week: 4, far_ahead_gpu_hours: 3}}\n"
    (line,) = about(make_policy(more=more + limits), "not enforced yet")
    assert line.startswith("test.yaml:13:9: warning: unused is not enforced yet; ")


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"gpus_at_once": 4}, False),
        ({"gpu_hours_per_week": 4}, True),
        ({"users": "{ada: {far_ahead_gpu_hours: 4}}"}, True),
        ({"by_hour": "[{hours: 08:00-20:00, gpus_at_once: 4}]"}, True),
    ],
)
def test_the_core_is_told_how_the_zones_clock_is_set_where_limits_go_by_it(
    make_policy: MakePolicy, limits: dict[str, object], expected: bool
) -> None:
    keys = ", ".join(f"{key}: {value}" for key, value in limits.items())
    rules = make_policy(more=f"limits: {{{keys}}}\n").rules(1)
    assert rules.zone_shifts == (shifts_of(rules.zone) if expected else ())
    assert from_json(type(rules), to_json(rules)) == rules


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("limits: {gpu_hours_per_weak: 4}", "no such key: 'gpu_hours_per_weak'; did you mean gpu_hours_per_week?"),
        ("limits: {sizes: [3]}", "limits sizes has one that no layout has: '3'; use 1, 2, 4, 8, 16"),
        ("limits: {queues: [hcp]}", "limits queues is not a queue of this policy: 'hcp'; did you mean hpc?"),
        ("limits: {images: [ubunut]}", "did you mean ubuntu?"),
        ("limits: {furthest_ahead: 91d}", "furthest_ahead is out of range: '91d'; use 1m to 90d"),
        ("limits: {groups: {g: {waiting: 1}}}", "a group that this policy does not name: 'g'; add groups at the top"),
        (
            "groups: {vision: {members: [a]}}\nlimits: {groups: {vison: {waiting: 1}}}",
            "does not name: 'vison'; name it in groups at the top, or use one of vision",
        ),
        ("limits: {by_hour: [{gpus_at_once: 4}]}", "says no hours; add hours: 08:00-20:00 or days: mon-fri"),
        ("limits: {by_hour: [{days: mon-fri}]}", "number 1 limits nothing"),
        (
            "limits: {by_hour: [{days: mon-fri, gpu_hours_per_week: 4}]}",
            "by_hour number 1 gpu_hours_per_week cannot be given by the hour; GPU-hours are counted over a whole week; "
            "give it for all hours, or limit gpus_at_once",
        ),
        (
            "limits: {users: {ada: {by_hour: [{hours: 08:00-20:00, far_ahead_gpu_hours: 4}]}}}",
            "far_ahead_gpu_hours cannot be given by the hour; what is held for later days is held at all hours",
        ),
        (
            "overrides: [{name: d, from: 2026-05-01, until: 2026-05-02, limits: {by_hour: [{days: mon, disk: 1TiB}]}}]",
            "disk cannot be given by the hour; a disk is kept at all hours; give it for all hours",
        ),
        ("limits: {by_hour: [{hours: 8-20, waiting: 1}]}", "hours are not hours of the day: '8-20'"),
        ("limits: {by_hour: [{hours: 25:00-26:00, waiting: 1}]}", "hours are not hours of the day"),
        ("limits: {by_hour: [{hours: 08:00-24:30, waiting: 1}]}", "hours are not hours of the day"),
        ("limits: {by_hour: [{hours: 08:00-08:00, waiting: 1}]}", "write 00:00-24:00 for the whole day"),
        ("limits: {by_hour: [{days: 1-5, waiting: 1}]}", "weekday numbers mean different days"),
        ("limits: {by_hour: [{days: mon#1, waiting: 1}]}", "weekdays of a month cannot be given here"),
        ("groups: {g: {}}", "group g has no members; add members: [ada, bela]"),
        ("groups: {g: {members: [a b]}}", "members is not an owner: 'a b'"),
        ("overrides: [{name: d, from: 2026-05-01, limits: {waiting: 1}}]", "override d has no until"),
        (
            "overrides: [{name: d, from: 2026-05-02, until: 2026-05-01, limits: {waiting: 1}}]",
            "override d ends before it begins: until",
        ),
        ("unused: {then: tell}", "unused says nothing; add no_show_after: 30m or idle_after: 4h"),
        ("unused: {idle_after: 1h, then: kill}", "then has an unknown choice: 'kill'; use one of tell, park, stop"),
        ("unused: {idle_after: 1h, idle_below_percent: 101}", "use 1 to 100"),
    ],
)
def test_each_mistake_gets_one_clear_line(make_text: MakeText, more: str, expected: str) -> None:
    found = load_policy(make_text(more=more + "\n"), source="p.yaml")
    assert isinstance(found, tuple)
    lines = [str(problem) for problem in found]
    assert any(expected in line for line in lines), lines


def test_an_order_needs_its_own_numbers(make_text: MakeText) -> None:
    text = make_text().replace("interactive:\n", "interactive: {half_life: 3d}\n")
    found = load_policy(text, source="p.yaml")
    assert isinstance(found, tuple)
    assert "has half_life without its order; add order: fair-share" in str(found[0])


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ("sizes: [16], queues: [interactive]", "nobody can meet: they allow no size in any of their queues"),
        ("sizes: []", "nobody can meet: they allow no size"),
        ("queues: []", "nobody can meet: they allow no size"),
        ("images: []", "they allow no image"),
        ("queues: [hpc], gpus_at_once: 8", "fewer GPUs at once than the smallest VM has: '8'; use at least 16"),
        ("longest: 10m", "shorter than the minimum useful length: '10m'; use at least 30m"),
        ("queues: [hpc], gpu_hours_per_week: 7", "than the smallest reservation takes: '7'; use at least 8"),
        ("waiting: 0", "they allow no waiting request"),
        ("disk: 5GiB", "only disks that are smaller than any: '5GiB'; use at least 10GiB"),
    ],
)
def test_limits_that_nobody_can_meet_are_warnings(make_policy: MakePolicy, limits: str, expected: str) -> None:
    assert about(make_policy(more=f"limits: {{{limits}}}\n"), expected)
    for_one = make_policy(more=f"limits: {{users: {{ada: {{{limits}}}}}}}\n")
    assert about(for_one, expected)
    assert all("limits of user ada" in line for line in about(for_one, expected))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("groups: {g: {members: []}}\nlimits: {groups: {g: {waiting: 1}}}", "group g has no members"),
        ("groups: {g: {members: [a]}}", "group g is named in no limits"),
        (
            "groups: {g: {members: [a]}}\nlimits: {groups: {g: {gpus_at_once: 2, each: {gpus_at_once: 4}}}}",
            "limits of each of group g allow one member more GPUs at once than the group has together: '4'",
        ),
        ("overrides: [{name: d, from: 2025-05-01, until: 2025-05-02, limits: {waiting: 1}}]", "are past"),
        (
            "overrides: [{name: d, from: 2026-05-01, until: 2026-05-04, limits: {waiting: 1}}, "
            "{name: e, from: 2026-05-04, until: 2026-05-05, limits: {waiting: 2}}]",
            "limits in an override overlap those of line 11 in time",
        ),
    ],
)
def test_rules_that_matter_to_nobody_are_warnings(make_policy: MakePolicy, more: str, expected: str) -> None:
    policy = make_policy(more=more + "\n")
    assert len(about(policy, expected)) == 1, said(policy)


def test_a_slack_of_promises_is_a_default_of_the_policy(make_policy: MakePolicy) -> None:
    assert make_policy().rules(1).slack == NO_SLACK
    policy = make_policy(more="defaults: {slack: 2h, slack_percent: 25}\n")
    assert policy.rules(1).slack == Slack(least_s=2 * HOUR_S, share=0.25)
