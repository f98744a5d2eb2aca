"""Policies in simulated time: figures that were worked out by hand, and no policy that passes the check raises."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from zoneinfo import ZoneInfo

import pytest

from policies.checks import check_policy, errors_of
from policies.format import LoadedPolicy
from policies.loading import load_policy
from policies.simulated_figures import NO_GROUP, Figures, figures
from policies.simulating import PolicyRefused, SimulatedHost, Wanted, queue_for, simulate
from scheduler.core import layered
from scheduler.core.rehearsal import Pace, Rehearsal
from scheduler.core.requests import HostId
from scheduler.core.rules import Group
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, FOREVER, HOUR_S, MINUTE_S, Instant
from scheduler.core.topology import HostProfile
from scheduler.profiles.loading import load_profile
from tests.policies.policy_texts import EXAMPLES, example_policy, mutated

MIDNIGHT: Instant = 1_772_406_000
"""Monday 2026-03-02 00:00 in Berlin."""
UNTIL_AT = MIDNIGHT + DAY_S
DGX2 = load_profile("dgx-2")
BOOT_S = {size: Pace().start_s(DGX2, size) for size in DGX2.sizes}
NIGHT = '{name: night, layout: night, hosts: ["*"], opens: "0 20 * * *", for: 12h, only_if_queued: true}'
OPEN = """\
version: 1
zone: Europe/Berlin
outside: all
layouts:
  all: {sizes: [1, 2, 4, 8, 16], queues: [batch]}
queues: {batch: {at_boundary: finish}}
images: [ubuntu]
"""

MakePolicy = Callable[..., LoadedPolicy]


def loaded(text: str) -> LoadedPolicy:
    policy = load_policy(text, source="test.yaml")
    assert isinstance(policy, LoadedPolicy), policy
    return policy


def profiles(name: str) -> HostProfile:
    assert name == DGX2.name
    return DGX2


def hosts(count: int = 1) -> list[SimulatedHost]:
    names = [f"dgx2-{letter}" for letter in "abcdef"[:count]]
    return [SimulatedHost(id=HostId(name), profile="dgx-2", storage=name) for name in names]


def asks(at_s: int, gpus: int, *, hours: float, used_h: float | None = None, owner: str = "ada") -> Wanted:
    used_s = round((hours if used_h is None else used_h) * HOUR_S)
    return Wanted(at=MIDNIGHT + at_s, owner=owner, gpus=gpus, run_s=round(hours * HOUR_S), used_s=used_s)


def lived(policy: LoadedPolicy, wanted: Sequence[Wanted], *, count: int = 1) -> Rehearsal:
    return simulate(
        policy, wanted, hosts(count), from_at=MIDNIGHT, until_at=UNTIL_AT, settings=Settings(), profiles=profiles
    )


def counted(
    policy: LoadedPolicy, wanted: Sequence[Wanted], *, groups: Sequence[Group] = (), until_at: Instant = UNTIL_AT
) -> Figures:
    run = lived(policy, wanted)
    return figures(policy, run, from_at=MIDNIGHT, until_at=until_at, zone=ZoneInfo(policy.zone), groups=groups)


def test_waits_are_those_that_are_worked_out_by_hand() -> None:
    # The first has the whole host for an hour, of two that it asked for; the second waits for it.
    first = asks(0, 16, hours=2, used_h=1)
    second = asks(10 * MINUTE_S, 8, hours=1)
    found = counted(loaded(OPEN), [first, second])
    boot_s = BOOT_S[16]
    first_wait_s = boot_s
    # Whoever shuts his guest down may start it again for a while.
    again_s = Settings().self_shutdown_ends_after_s
    second_wait_s = boot_s + HOUR_S + again_s + BOOT_S[8] - 10 * MINUTE_S
    assert found.waits is not None
    assert (found.asked, found.started, found.waits.requests) == (2, 2, 2)
    assert found.waits.wait_s == round((16 * first_wait_s + 8 * second_wait_s) / 24)
    assert (found.waits.median_s, found.waits.p95_s) == (first_wait_s, second_wait_s)
    assert [(one.name, one.asked) for one in found.waits_by_size] == [("8", 1), ("16", 1)]
    of_eight = found.waits_by_size[0].waits
    assert of_eight is not None
    assert of_eight.wait_s == second_wait_s
    # It was told by the hours that the first one asked for, not by those that it used.
    assert of_eight.told_s >= HOUR_S + second_wait_s
    assert (found.promises_broken, found.refused, found.parkings, found.swaps) == (0, (), 0, 0)


def test_use_is_what_guests_hold_from_hand_over_to_off_by_the_hour_of_the_zone() -> None:
    found = counted(loaded(OPEN), [asks(9 * HOUR_S, 8, hours=1)])
    held_s = BOOT_S[8] + HOUR_S
    assert found.utilisation == round(8 * held_s / (16 * DAY_S), 4)
    by_hour = found.utilisation_by_hour
    assert (by_hour[9], by_hour[10]) == (0.5, round(8 * (held_s - HOUR_S) / (16 * HOUR_S), 4))
    assert sum(share > 0 for share in by_hour) == 2


def test_a_night_parks_its_tenants_and_resumes_them(make_policy: MakePolicy) -> None:
    policy = make_policy(windows=NIGHT)
    tenant, batch = asks(18 * HOUR_S, 8, hours=4), asks(18 * HOUR_S, 16, hours=3, owner="bela")
    run = lived(policy, [tenant, batch])
    found = figures(policy, run, from_at=MIDNIGHT, until_at=UNTIL_AT, zone=ZoneInfo("Europe/Berlin"), groups=())
    story = run.stories[0]
    assert [ran.held_at < MIDNIGHT + 20 * HOUR_S for ran in story.ran] == [True, False]
    assert story.ran[0].off_at - (MIDNIGHT + 20 * HOUR_S) in range(MINUTE_S)
    assert sum(ran.off_at - ran.up_at for ran in story.ran) in range(4 * HOUR_S, 4 * HOUR_S + 2 * MINUTE_S)
    assert (found.windows_opened, found.swaps, found.given_back, found.parkings) == (1, 1, 0, 1)
    # The batch job leaves after its three hours, and the rest of the night is given back.
    assert found.parked_s == story.ran[1].up_at - story.ran[0].off_at
    assert 3 * HOUR_S < found.parked_s < 3.5 * HOUR_S
    assert found.promises_broken == 0


def test_a_night_that_nobody_wants_is_given_back(make_policy: MakePolicy) -> None:
    found = counted(make_policy(windows=NIGHT), [asks(18 * HOUR_S, 8, hours=4)])
    assert (found.windows_opened, found.swaps, found.given_back, found.parkings) == (0, 0, 1, 0)


def test_what_is_refused_is_counted_by_its_reason(make_policy: MakePolicy) -> None:
    policy = make_policy(more="limits: {open_reservations: 1, longest: 2d}\n")
    wanted = [
        asks(0, 1, hours=5),
        asks(60, 1, hours=5),
        asks(120, 1, hours=72, owner="bela"),
        asks(180, 3, hours=1, owner="chen"),
        # There is no window in which whole hosts are given.
        asks(240, 16, hours=1, owner="dora"),
    ]
    found = counted(policy, wanted)
    assert (found.asked, found.started) == (5, 1)
    assert found.refused == (
        ("request.unknown_size", 2),
        ("limit.reached: open reservations", 1),
        ("request.bad_duration", 1),
    )
    assert [one.waits is None for one in found.waits_by_size] == [False, True, True]


def test_groups_are_counted_together_and_the_others_too() -> None:
    groups = [Group(name="vision", members=frozenset({"ada", "bela"})), Group(name="empty", members=frozenset({"zoe"}))]
    wanted = [asks(0, 16, hours=1), asks(60, 4, hours=1, owner="bela"), asks(120, 4, hours=1, owner="chen")]
    found = counted(loaded(OPEN), wanted, groups=groups)
    assert [(one.name, one.asked) for one in found.waits_by_group] == [("vision", 2), (NO_GROUP, 1)]
    assert counted(loaded(OPEN), wanted).waits_by_group == ()


def test_the_policys_own_reservations_are_told_of_those_days_alone(make_policy: MakePolicy) -> None:
    course = '{name: course, cron: "0 10 * * *", for: 2h, gpus: 2, count: 3, queue: interactive, owner: dl}'
    policy = make_policy(reserve=course)
    found = counted(policy, [asks(0, 1, hours=1)])
    (own,) = found.own
    # The course runs though everybody else has gone long before; those of later days are filed, and not of this day.
    assert (own.name, own.due, own.ran) == ("course", 3, 3)
    assert own.gpu_s in range(3 * 2 * 2 * HOUR_S, 3 * 2 * (2 * HOUR_S + MINUTE_S))
    assert own.late_s <= BOOT_S[2]
    assert own.refused == ()
    assert found.asked == 1


def test_a_limit_that_the_policys_own_reservations_hit_is_named(make_policy: MakePolicy) -> None:
    course = '{name: course, cron: "0 10 * * *", for: 2h, gpus: 2, count: 3, queue: interactive, owner: dl}'
    policy = make_policy(reserve=course, more="limits: {gpus_at_once: 4}\n")
    (own,) = counted(policy, [asks(0, 1, hours=1)]).own
    assert (own.due, own.ran, own.refused) == (3, 2, (("limit.reached: GPUs at once", 1),))


def test_the_queue_is_the_one_asked_for_or_goes_by_size(make_policy: MakePolicy) -> None:
    policy = make_policy(windows=NIGHT)
    assert queue_for(policy, gpus=4) == "interactive"
    assert queue_for(policy, gpus=16) == "hpc"
    assert queue_for(policy, gpus=16, asked="hpc") == "hpc"
    assert queue_for(policy, gpus=4, asked="hpc") == "interactive"
    assert queue_for(policy, gpus=4, asked="long-gone") == "interactive"
    assert queue_for(policy, gpus=3) == "interactive"


def test_a_request_for_a_later_time_waits_from_then_on() -> None:
    later = replace(asks(0, 1, hours=1), not_before_at=MIDNIGHT + 5 * HOUR_S)
    found = counted(loaded(OPEN), [later])
    assert found.waits is not None
    assert 0 <= found.waits.wait_s <= BOOT_S[1]


def test_fair_share_lets_those_go_first_who_have_used_less() -> None:
    fair = OPEN.replace("at_boundary: finish", "at_boundary: finish, order: fair-share")
    greedy = asks(0, 16, hours=8, used_h=6)
    wanted = [greedy, asks(60, 16, hours=1), asks(120, 16, hours=1, owner="bela")]

    def first(text: str) -> str:
        stories = lived(loaded(text), wanted).stories[1:]
        return min(stories, key=lambda story: story.ran[0].up_at).demand.ask.owner

    assert first(fair) == "bela"
    assert first(fair.replace("fair-share", "first-come")) == "ada"


def test_a_week_is_counted_with_what_has_left_the_plan() -> None:
    text = OPEN + "limits: {gpu_hours_per_week: 8}\n"
    wanted = [asks(number * 2 * HOUR_S, 4, hours=1) for number in range(4)]
    run = lived(loaded(text), wanted)
    started = [story.ran[0].up_at for story in run.stories if story.ran]
    assert sum(at < MIDNIGHT + DAY_S for at in started) == 2


def test_one_demand_gives_one_result() -> None:
    random = Random(3)
    wanted = [asks(random.randrange(DAY_S), random.choice([1, 2, 4]), hours=random.randint(1, 9)) for _ in range(30)]
    wanted.sort(key=lambda one: one.at)
    policy = loaded(example_policy("university.yaml").text)
    assert counted(policy, wanted).as_json() == counted(policy, wanted).as_json()


def test_a_run_without_the_compiled_calendar_gives_the_same() -> None:
    policy = loaded(example_policy("university.yaml").text)
    wanted = [asks(number * HOUR_S, 4, hours=6, owner=f"owner-{number}") for number in range(12)]
    runs = [
        simulate(
            policy,
            wanted,
            hosts(),
            from_at=MIDNIGHT,
            until_at=UNTIL_AT,
            settings=Settings(),
            profiles=profiles,
            may_be_compiled=may_be_compiled,
        )
        for may_be_compiled in (True, False)
    ]
    told = [[(s.promise, s.ran, s.outcome) for s in run.stories] for run in runs]
    assert told[0] == told[1]


def test_what_is_remembered_from_step_to_step_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random, policy = Random(11), loaded(OPEN)
    wanted = [
        asks(n * 40 * MINUTE_S, random.choice((1, 2, 4, 8)), hours=(hours := random.randint(1, 20)), used_h=hours * 0.7)
        for n in range(60)
    ]
    remembered = lived(policy, wanted, count=2)
    monkeypatch.setattr(layered, "LEAST_LAYER", -FOREVER)
    looked_up = lived(policy, wanted, count=2)
    assert looked_up.stories == remembered.stories
    assert looked_up.steps == remembered.steps > 100


def test_what_the_planner_does_not_take_is_said() -> None:
    twice = [*hosts(), *hosts()]
    with pytest.raises(PolicyRefused, match=r"test.yaml cannot be simulated: .*dgx2-a"):
        simulate(loaded(OPEN), [], twice, from_at=MIDNIGHT, until_at=UNTIL_AT, settings=Settings(), profiles=profiles)


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("seed", range(4))
def test_whatever_the_check_accepts_is_simulated(name: str, seed: int) -> None:
    random = Random(f"{name}/{seed}")
    text = example_policy(name).text
    policy = None
    while policy is None:
        spoiled = mutated(text, random) if seed else text
        found = load_policy(spoiled, source=name)
        # A file with a NUL in it is not read at all.
        is_readable = "\0" not in spoiled
        if is_readable and isinstance(found, LoadedPolicy) and not errors_of(check_policy(found, from_at=MIDNIGHT)):
            policy = found
    wanted = sorted(
        (
            Wanted(
                at=MIDNIGHT + random.randrange(DAY_S),
                owner=random.choice(["ada", "dana", "", "x" * 80, "é\n"]),
                gpus=random.choice([1, 1, 2, 3, 8, 16]),
                run_s=random.choice([60, HOUR_S, 9 * HOUR_S, 40 * DAY_S]),
                used_s=random.choice([1, 30 * MINUTE_S, 20 * HOUR_S]),
                queue=random.choice([None, "hpc", "no such queue"]),
            )
            for _ in range(12)
        ),
        key=lambda one: one.at,
    )
    run = lived(policy, wanted, count=2)
    found_figures = figures(
        policy, run, from_at=MIDNIGHT, until_at=UNTIL_AT, zone=ZoneInfo(policy.zone), groups=policy.groups
    )
    assert found_figures.asked == 12
    assert found_figures.started + sum(count for _, count in found_figures.refused) == 12
    assert found_figures.promises_broken == 0


def test_a_long_request_starts_though_a_course_stands_in_its_way_each_day(make_policy: MakePolicy) -> None:
    # From eight to ten, and from noon to eight: no partition is free for all of it without a break.
    course = '{name: course, cron: "0 10 * * *", for: 2h, gpus: 8, count: 2, queue: interactive, owner: teacher}'
    policy = make_policy(windows=NIGHT.replace(", only_if_queued: true", ""), reserve=course)
    run = lived(policy, [asks(13 * HOUR_S, 4, hours=20)])
    story = run.stories[0]
    assert story.promise is not None
    assert story.promise.start_by_at <= MIDNIGHT + 13 * HOUR_S + HOUR_S
    assert story.started_at is not None
    assert story.started_at <= story.promise.start_by_at
    assert len(story.ran) > 2, "it has the hours before a course, after it, and of other days"
