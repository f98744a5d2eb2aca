"""Limits on what is booked: GPUs at once by hour, date and group, GPU-hours of a week and of later days, starts."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from policies.zone_shifts import shifts_of
from scheduler.core.intents import ApplyPolicy, Cancel, Extend, Stop, Submit
from scheduler.core.plan import LimitRule, Limits, Outcome, Reservation
from scheduler.core.planner.due import next_plan_due_at
from scheduler.core.planner.explaining import Quote, quote
from scheduler.core.reasons import Reason, ReasonCode, sentence
from scheduler.core.requests import Ask, ReservationId
from scheduler.core.rules import ClockHours, Group, LimitScope
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S, Instant, Span
from tests.property.worlds import MIDNIGHT, World, rules, world

VISION = Group(name="vision", members=frozenset({"ada", "bob"}))
LEAD_S = 20 * MINUTE_S
"""No start takes longer."""


def hours(from_h: int, until_h: int, weekdays: Iterable[int] = range(7)) -> tuple[ClockHours, ...]:
    return (ClockHours(weekdays=frozenset(weekdays), from_minute=60 * from_h, until_minute=60 * until_h),)


def rule(scope: LimitScope = LimitScope.EACH, name: str = "", **values: object) -> LimitRule:
    at = {key: values.pop(key) for key in ("hours", "span") if key in values}
    return LimitRule(scope=scope, name=name, limits=Limits(**values), **at)  # type: ignore[arg-type]


def together(**values: object) -> LimitRule:
    return rule(LimitScope.GROUP, "vision", **values)


def limited(*limit_rules: LimitRule, hosts: int = 1, **limits: object) -> World:
    return world(
        windows=(),
        hosts={f"dgx2-{number}": "s" for number in range(hosts)},
        limits=Limits(**limits),  # type: ignore[arg-type]
        limit_rules=limit_rules,
        groups=(VISION,),
    )


def usual(owner: str, **changes: object) -> Ask:
    return replace(Ask(owner=owner, queue="interactive", gpus=4, run_s=2 * HOUR_S), **changes)  # type: ignore[arg-type]


def submit(made: World, owner: str = "ada", **changes: object) -> Reservation:
    made.file(Submit(ask=usual(owner, **changes)))
    key = ReservationId(f"r-{made.seq}")
    return made.plan.reservations.get(key) or made.gone[key]


def refusal(made: World, owner: str = "ada", **changes: object) -> Reason:
    """Ask for what is refused, and return the limit that it goes over."""
    refused = submit(made, owner, **changes)
    assert refused.outcome is Outcome.REFUSED, refused
    limits = [why for why in refused.reasons if why.code is not ReasonCode.INSTEAD]
    assert len(limits) == 1, limits
    return limits[0]


def at(start_at: Instant) -> dict[str, Any]:
    return {"not_before_at": start_at, "start_by_at": start_at}


def start_of(made: World, reservation: Reservation) -> Instant:
    return made.plan.reservations[reservation.id].spans[0].start_at


def told(made: World, owner: str, **changes: object) -> Quote:
    return quote(
        made.plan, made.facts, usual(owner, **changes), made.now, made.settings, ended_uses=made.ended_uses,
        most_alternatives=5,
    )  # fmt: skip


# GPUs at once.


def test_a_group_together_waits_for_its_own_though_there_is_room() -> None:
    made = limited(together(gpus_at_once=8))
    first, second = submit(made, "ada"), submit(made, "bob")
    third, other = submit(made, "bob"), submit(made, "eve")
    assert start_of(made, first) == start_of(made, second) == start_of(made, other) == made.now
    assert start_of(made, third) == first.spans[0].end_at
    assert made.problems == []


def test_at_one_time_a_group_is_refused_what_is_over_its_limit_and_told_whose_and_what_to_do() -> None:
    made = limited(together(gpus_at_once=8))
    later_at = made.now + DAY_S
    submit(made, "ada", gpus=8, **at(later_at))
    why = refusal(made, "bob", **at(later_at + HOUR_S))
    assert sentence(why) == (
        "group vision would hold 12 of at most 8 (GPUs at once); ask for fewer GPUs or for another time"
    )
    assert submit(made, "bob", **at(later_at + 3 * HOUR_S)).promise is not None


def test_by_the_hour_what_holds_at_each_instant_counts() -> None:
    made = limited(rule(hours=hours(8, 20), gpus_at_once=4), gpus_at_once=8)
    by_night, by_day = MIDNIGHT + HOUR_S, MIDNIGHT + 10 * HOUR_S
    assert submit(made, gpus=8, **at(by_night)).promise is not None
    assert refusal(made, gpus=8, **at(by_day)).fact("limit") == 4
    # What begins by night and lasts into the day is held to both.
    over = refusal(made, gpus=8, run_s=3 * HOUR_S, **at(MIDNIGHT + 6 * HOUR_S))
    assert (over.fact("limit"), over.fact("from_at")) == (4, MIDNIGHT + 8 * HOUR_S)
    # Whoever need not start then is booked when he may have them.
    assert start_of(made, submit(made, "eve", gpus=8, not_before_at=by_day)) == MIDNIGHT + 20 * HOUR_S
    assert made.problems == []


def test_what_fits_at_no_hour_is_refused() -> None:
    made = limited(rule(hours=hours(8, 20), gpus_at_once=4), gpus_at_once=8)
    assert refusal(made, gpus=8, run_s=13 * HOUR_S).fact("limit") == 4
    assert submit(made, gpus=8, run_s=11 * HOUR_S, not_before_at=MIDNIGHT + HOUR_S).promise is not None


def test_hours_are_those_of_the_policys_zone() -> None:
    made = world(
        windows=(),
        limit_rules=(rule(hours=hours(8, 20), gpus_at_once=4),),
        zone="America/New_York",
        zone_shifts=shifts_of("America/New_York"),
    )
    assert refusal(made, gpus=8, **at(MIDNIGHT + 13 * HOUR_S)).fact("limit") == 4
    assert submit(made, gpus=8, **at(MIDNIGHT + 10 * HOUR_S)).promise is not None


def test_an_override_holds_for_what_is_booked_within_its_dates_whenever_it_is_asked_for() -> None:
    week = Span(start_at=MIDNIGHT + 2 * DAY_S, end_at=MIDNIGHT + 4 * DAY_S)
    made = limited(
        rule(hours=hours(0, 24), gpus_at_once=2),
        rule(span=week, gpus_at_once=8),
        together(gpus_at_once=4),
        together(span=week, gpus_at_once=12),
    )
    assert refusal(made, gpus=4, **at(MIDNIGHT + DAY_S)).fact("limit") == 2
    within_at = week.start_at + HOUR_S
    assert submit(made, gpus=8, **at(within_at)).promise is not None
    assert refusal(made, "bob", gpus=8, **at(within_at)).fact("limit") == 12
    assert submit(made, "bob", gpus=4, **at(within_at)).promise is not None
    assert made.problems == []


def test_nobody_is_started_early_where_his_group_would_have_too_much() -> None:
    made = limited(together(gpus_at_once=8))
    blocker = submit(made, "eve", gpus=8, run_s=10 * HOUR_S)
    submit(made, "ada", gpus=8, run_s=6 * HOUR_S)
    waits = submit(made, "bob", gpus=8)
    made.run_until(made.now + HOUR_S)
    made.file(Stop(reservation=blocker.id))
    made.run_until(made.now + HOUR_S)
    assert start_of(made, waits) > made.now
    made.run_until(made.now + DAY_S)
    assert made.problems == []


def test_whoever_waits_starts_when_the_hour_comes_that_allows_it() -> None:
    made = limited(rule(hours=hours(8, 20), gpus_at_once=4), gpus_at_once=8)
    made.run_until(MIDNIGHT + 9 * HOUR_S)
    blockers = [submit(made, "eve", gpus=4, run_s=30 * HOUR_S), submit(made, "kim", gpus=4, run_s=30 * HOUR_S)]
    blockers += [submit(made, "lea", gpus=4, run_s=30 * HOUR_S), submit(made, "mia", gpus=4, run_s=30 * HOUR_S)]
    waits = submit(made, "ada", gpus=8)
    assert start_of(made, waits) == MIDNIGHT + 44 * HOUR_S
    made.run_until(MIDNIGHT + 12 * HOUR_S)
    made.file(*(Cancel(reservation=blocker.id) for blocker in blockers))
    made.look()
    assert start_of(made, waits) > made.now
    assert next_plan_due_at(made.plan, made.facts, made.now, made.settings) == MIDNIGHT + 20 * HOUR_S
    made.run_until(MIDNIGHT + 20 * HOUR_S)
    assert start_of(made, waits) == made.now
    assert made.problems == []


def test_an_extension_is_held_to_the_limit_of_the_group() -> None:
    made = limited(together(gpus_at_once=8))
    one = submit(made, "ada", gpus=8)
    behind = submit(made, "bob", gpus=8)
    assert start_of(made, behind) == one.spans[0].end_at
    made.file(Extend(reservation=one.id, by_s=3 * HOUR_S))
    reasons = made.changes[-1][1].decided[-1].reasons
    assert [why.code for why in reasons] == [ReasonCode.LIMIT]
    made.file(Cancel(reservation=behind.id))
    made.file(Extend(reservation=one.id, by_s=3 * HOUR_S))
    assert made.changes[-1][1].decided[-1].is_accepted
    assert made.problems == []


def test_who_has_more_than_a_new_policy_allows_keeps_it_and_gets_no_more() -> None:
    made = limited(together(gpus_at_once=16))
    for owner in ("ada", "bob"):
        submit(made, owner, gpus=8, run_s=5 * HOUR_S)
    promised = {key: r.promise for key, r in made.plan.reservations.items()}
    made.file(
        ApplyPolicy(
            rules=rules(2, limit_rules=(together(gpus_at_once=4),), groups=(VISION,)),
            windows=(),
            hosts=frozenset(made.plan.hosts),
            horizon_at=made.plan.horizon_at,
            text="less",
        )
    )
    assert made.changes[-1][1].decided[-1].is_accepted
    made.run_until(made.now + DAY_S)
    kept = {**made.gone, **made.plan.reservations}
    assert {key: kept[key].promise for key in promised} == promised
    assert made.problems == []


# GPU-hours of a week.


def test_gpu_hours_of_a_week_are_those_that_start_in_it_and_the_rest_starts_in_the_next() -> None:
    made = limited(gpu_h_per_week=24)
    assert start_of(made, submit(made, run_s=5 * HOUR_S)) == made.now
    sunday = MIDNIGHT + 6 * DAY_S + 20 * HOUR_S
    why = refusal(made, run_s=2 * HOUR_S, **at(sunday))
    assert sentence(why) == (
        "ada would hold 28 of at most 24 (GPU-hours that start in one week); "
        "ask for fewer GPU-hours, or for a start in another week"
    )
    assert submit(made, run_s=HOUR_S, **at(sunday)).promise is not None
    assert start_of(made, submit(made)) == MIDNIGHT + 7 * DAY_S
    assert submit(made, run_s=2 * HOUR_S, **at(MIDNIGHT + 8 * DAY_S)).promise is not None
    assert made.problems == []


def test_what_can_start_in_no_week_is_refused() -> None:
    made = limited(gpu_h_per_week=24)
    assert refusal(made, run_s=7 * HOUR_S).fact("would_be") == 28


def test_a_group_shares_its_week() -> None:
    made = limited(together(gpu_h_per_week=16))
    submit(made, "ada")
    later = submit(made, "bob", run_s=3 * HOUR_S)
    assert start_of(made, later) == MIDNIGHT + 7 * DAY_S
    assert start_of(made, submit(made, "bob")) == made.now
    assert start_of(made, submit(made, "eve", run_s=5 * HOUR_S)) == made.now


@pytest.mark.parametrize("is_closed", [False, True])
def test_what_has_ended_counts_what_it_held_also_when_it_has_left_the_plan(is_closed: bool) -> None:
    made = limited(gpu_h_per_week=24)
    # Disks are kept for a week; of what continues an earlier one nothing is left when it ends.
    first = submit(made, run_s=6 * HOUR_S)
    made.run_until(made.now + 3 * HOUR_S)
    made.file(Stop(reservation=first.id))
    made.run_until(made.now + HOUR_S)
    if is_closed:
        ended = made.plan.reservations[first.id]
        made.gone[first.id] = replace(ended, is_closed=True)
        made.plan = replace(made.plan, reservations={})
    assert start_of(made, submit(made, gpus=4, run_s=3 * HOUR_S)) == made.now
    assert start_of(made, submit(made, gpus=1, run_s=HOUR_S)) == MIDNIGHT + 7 * DAY_S


def test_what_never_started_costs_nothing() -> None:
    made = limited(gpu_h_per_week=24)
    for _ in range(3):
        one = submit(made, run_s=6 * HOUR_S, not_before_at=made.now + HOUR_S)
        made.file(Cancel(reservation=one.id))
    assert start_of(made, submit(made, run_s=6 * HOUR_S)) == made.now


def test_an_extension_counts_in_the_week_of_its_start() -> None:
    made = limited(gpu_h_per_week=24)
    one = submit(made, run_s=6 * HOUR_S, **at(MIDNIGHT + 6 * DAY_S + 20 * HOUR_S))
    made.run_until(MIDNIGHT + 7 * DAY_S + HOUR_S)
    made.file(Extend(reservation=one.id, by_s=HOUR_S))
    (why,) = made.changes[-1][1].decided[-1].reasons
    assert (why.code, why.fact("would_be")) == (ReasonCode.LIMIT, 28)
    assert start_of(made, submit(made, run_s=6 * HOUR_S)) == made.now


def test_what_is_booked_for_next_week_is_not_started_early_in_a_week_that_is_used_up() -> None:
    made = limited(gpu_h_per_week=24)
    submit(made, run_s=6 * HOUR_S)
    waits = submit(made)
    made.run_until(MIDNIGHT + 6 * DAY_S)
    assert start_of(made, waits) == MIDNIGHT + 7 * DAY_S
    made.run_until(MIDNIGHT + 7 * DAY_S + HOUR_S)
    assert made.plan.reservations[waits.id].generation == 1
    assert made.problems == []


def test_parked_hours_count_once_in_the_week_of_the_first_start() -> None:
    made = world(limits=Limits(gpu_h_per_week=100), now=MIDNIGHT + 6 * DAY_S + 9 * HOUR_S)
    one = submit(made, gpus=4, run_s=20 * HOUR_S)
    assert len(one.spans) > 1
    assert one.spans[-1].start_at > MIDNIGHT + 7 * DAY_S
    made.run_until(MIDNIGHT + 7 * DAY_S + 10 * HOUR_S)
    assert start_of(made, submit(made, gpus=4, run_s=10 * HOUR_S)) < MIDNIGHT + 8 * DAY_S
    assert made.problems == []


# Held for later days.


def test_use_on_the_same_day_is_free_and_what_is_held_for_later_days_is_not() -> None:
    made = limited(far_ahead_gpu_h=10)
    assert submit(made, run_s=10 * HOUR_S).promise is not None
    tomorrow = MIDNIGHT + DAY_S
    assert submit(made, **at(tomorrow)).promise is not None
    why = refusal(made, gpus=1, run_s=3 * HOUR_S, **at(tomorrow + 5 * HOUR_S))
    assert sentence(why) == (
        "ada would hold 11 of at most 10 (GPU-hours held for later days); "
        "ask for fewer GPU-hours or for a start today, or wait until what is booked starts"
    )
    assert submit(made, run_s=3 * HOUR_S, **at(MIDNIGHT + 23 * HOUR_S)).promise is not None
    assert submit(made, gpus=1, run_s=2 * HOUR_S, **at(tomorrow + 5 * HOUR_S)).promise is not None
    # The next day it is today's.
    made.run_until(tomorrow + 10 * MINUTE_S)
    assert submit(made, gpus=1, run_s=10 * HOUR_S, **at(tomorrow + DAY_S)).promise is not None
    assert made.problems == []


def test_a_group_holds_its_later_days_together() -> None:
    made = limited(together(far_ahead_gpu_h=10))
    submit(made, "ada", **at(MIDNIGHT + DAY_S))
    assert refusal(made, "bob", gpus=1, run_s=3 * HOUR_S, **at(MIDNIGHT + 2 * DAY_S)).fact("owner") == "group vision"
    assert submit(made, "eve", **at(MIDNIGHT + DAY_S)).promise is not None


def test_nobody_is_put_off_to_another_day_for_somebody_else_where_that_is_too_much() -> None:
    made = limited(rule(LimitScope.USER, "ada", far_ahead_gpu_h=1), gpus_at_once=16)
    made.run_until(MIDNIGHT + 18 * HOUR_S)
    for owner in ("eve", "kim"):
        submit(made, owner, gpus=8, run_s=4 * HOUR_S)
    mine = submit(made, "ada", gpus=8, run_s=2 * HOUR_S)
    assert start_of(made, mine) < MIDNIGHT + DAY_S
    for _ in range(4):
        submit(made, "lea", gpus=8, run_s=HOUR_S)
    made.run_until(MIDNIGHT + DAY_S + HOUR_S)
    assert made.plan.reservations[mine.id].spans[0].start_at < MIDNIGHT + DAY_S
    assert made.problems == []


# What may start at an instant.


def test_what_may_be_asked_for_by_the_hour_is_a_matter_of_when_it_starts() -> None:
    made = limited(
        rule(hours=hours(8, 20), longest_run_s=4 * HOUR_S, sizes=frozenset({1, 2})), longest_run_s=12 * HOUR_S
    )
    noon = MIDNIGHT + 12 * HOUR_S
    assert submit(made, gpus=2, run_s=4 * HOUR_S, **at(noon)).promise is not None
    why = refusal(made, gpus=2, run_s=5 * HOUR_S, **at(noon))
    assert (why.fact("name"), why.fact("limit")) == ("hours of one reservation that starts then", 4)
    why = refusal(made, gpus=4, run_s=HOUR_S, **at(noon))
    assert sentence(why) == (
        "ada may not have GPUs of one VM 4 by the policy; "
        "allowed: 1, 2 for a start at that time; another time may allow more"
    )
    assert start_of(made, submit(made, gpus=8, run_s=12 * HOUR_S, not_before_at=noon)) == MIDNIGHT + 20 * HOUR_S
    too_long = refusal(made, run_s=13 * HOUR_S)
    assert too_long.code is ReasonCode.BAD_DURATION
    assert made.problems == []


def test_an_extension_is_held_to_what_holds_at_the_start() -> None:
    made = limited(rule(hours=hours(0, 8), longest_run_s=4 * HOUR_S), longest_run_s=12 * HOUR_S)
    one = submit(made, run_s=3 * HOUR_S)
    for by_s, is_granted in ((2 * HOUR_S, False), (HOUR_S, True)):
        made.file(Extend(reservation=one.id, by_s=by_s))
        assert made.changes[-1][1].decided[-1].is_accepted is is_granted
    assert made.problems == []


def test_what_waits_is_not_started_early_at_an_hour_that_does_not_allow_it() -> None:
    made = limited(rule(hours=hours(8, 20), sizes=frozenset({1})))
    made.run_until(MIDNIGHT + 9 * HOUR_S)
    waits = submit(made, gpus=8)
    assert start_of(made, waits) == MIDNIGHT + 20 * HOUR_S
    made.run_until(MIDNIGHT + 19 * HOUR_S)
    assert start_of(made, waits) == MIDNIGHT + 20 * HOUR_S
    assert made.problems == []


# What is offered instead.


@pytest.mark.parametrize(
    ("limits", "changes"),
    [
        ({"gpus_at_once": 8}, {"gpus": 8, **at(MIDNIGHT + DAY_S + HOUR_S)}),
        ({"gpu_h_per_week": 36}, {"gpus": 8, "run_s": 4 * HOUR_S, **at(MIDNIGHT + DAY_S)}),
        ({"far_ahead_gpu_h": 20}, {"gpus": 4, "run_s": 4 * HOUR_S, **at(MIDNIGHT + 2 * DAY_S)}),
        ({"sizes": frozenset({1, 2, 4})}, {"gpus": 8}),
        ({"disk_gib": 50}, {"disk_gib": 200}),
        ({"furthest_ahead_s": DAY_S}, {"not_before_at": MIDNIGHT + 3 * DAY_S}),
    ],
)
def test_what_is_offered_instead_is_within_the_limits_and_can_be_had(
    limits: dict[str, object], changes: dict[str, object]
) -> None:
    made = limited(together(**limits))
    if limits.keys() & {"gpus_at_once", "gpu_h_per_week", "far_ahead_gpu_h"}:
        submit(made, "bob", **at(MIDNIGHT + DAY_S))
    quoted = told(made, "ada", **changes)
    assert quoted.promise is None
    assert {why.code for why in quoted.reasons} <= {ReasonCode.LIMIT, ReasonCode.LIMIT_CHOICE}
    assert quoted.alternatives
    plan = made.plan
    for other in quoted.alternatives:
        made.plan = plan
        made.file(Submit(ask=other.ask))
        assert made.changes[-1][1].decided[-1].is_accepted, other
        assert made.problems == []


def test_without_such_limits_nothing_is_looked_up() -> None:
    made = limited(rule(open_reservations=5))
    assert next_plan_due_at(made.plan, made.facts, made.now, made.settings) is None
    submit(made)
    assert made.plan.rules is not None
    made.plan = replace(made.plan, rules=replace(made.plan.rules, limit_rules=()))
    made.ended_uses = None  # type: ignore[assignment, method-assign]
    submit(made)
    assert made.problems == []
