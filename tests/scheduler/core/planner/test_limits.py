"""Limits of owners and of groups: whose come first, and that nobody passes one."""

import pytest

from scheduler.core.intents import Cancel, Extend, Submit
from scheduler.core.plan import LimitRule, Limits
from scheduler.core.reasons import ReasonCode, sentence
from scheduler.core.requests import Ask, ReservationId
from scheduler.core.rules import ClockHours, Group, LimitScope
from scheduler.core.spans import DAY_S, HOUR_S, Span
from tests.property.worlds import MIDNIGHT, World, world

VISION = Group(name="vision", members=frozenset({"ada", "bob"}))


def rule(scope: LimitScope, name: str = "", span: Span | None = None, **limits: object) -> LimitRule:
    return LimitRule(scope=scope, name=name, span=span, limits=Limits(**limits))  # type: ignore[arg-type]


def limited(*rules: LimitRule, **limits: object) -> World:
    return world(windows=(), limits=Limits(**limits), limit_rules=rules, groups=(VISION,))  # type: ignore[arg-type]


def ask(made: World, owner: str, **changes: object) -> list[ReasonCode]:
    usual = {"queue": "interactive", "gpus": 1, "run_s": HOUR_S}
    made.file(Submit(ask=Ask(owner=owner, **{**usual, **changes})))  # type: ignore[arg-type]
    return [why.code for why in made.changes[-1][1].decided[-1].reasons if why.code is not ReasonCode.INSTEAD]


def test_what_is_said_of_a_user_comes_before_his_group_and_that_before_everybody_key_by_key() -> None:
    made = limited(
        rule(LimitScope.USER, "ada", open_reservations=3),
        rule(LimitScope.EACH_OF_GROUP, "vision", open_reservations=2, sizes=frozenset({1, 2})),
        open_reservations=1,
        sizes=frozenset({1}),
    )
    for owner, most in (("ada", 3), ("bob", 2), ("eve", 1)):
        for _ in range(most):
            assert ask(made, owner) == []
        assert ask(made, owner) == [ReasonCode.LIMIT]
    assert ReasonCode.LIMIT_CHOICE not in ask(made, "ada", gpus=2)
    assert ReasonCode.LIMIT_CHOICE in ask(made, "eve", gpus=2)


def test_a_group_together_has_no_more_than_its_limit_whoever_asks() -> None:
    made = limited(rule(LimitScope.GROUP, "vision", open_reservations=2))
    assert [ask(made, owner) for owner in ("ada", "bob")] == [[], []]
    assert ask(made, "ada") == [ReasonCode.LIMIT]
    why = made.changes[-1][1].decided[-1].reasons[0]
    assert sentence(why).startswith("group vision would hold 3 of at most 2 (open reservations)")
    assert ask(made, "eve") == []
    made.file(Cancel(reservation=ReservationId(min(made.plan.reservations))))
    assert ask(made, "bob") == []


def test_two_requests_in_one_step_do_not_pass_a_limit_together() -> None:
    made = limited(rule(LimitScope.GROUP, "vision", waiting=1))
    asks = [Submit(ask=Ask(owner=owner, queue="interactive", gpus=8, run_s=HOUR_S)) for owner in ("ada", "bob")]
    change = made.file(*asks)
    assert [decided.is_accepted for decided in change.decided] == [True, False]


def test_an_override_holds_within_its_dates() -> None:
    week = Span(start_at=MIDNIGHT + DAY_S, end_at=MIDNIGHT + 2 * DAY_S)
    made = limited(rule(LimitScope.EACH, span=week, open_reservations=2), open_reservations=1)
    assert [ask(made, "ada", run_s=3 * DAY_S), ask(made, "ada", run_s=3 * DAY_S)] == [[], [ReasonCode.LIMIT]]
    made.run_until(MIDNIGHT + DAY_S + HOUR_S)
    assert [ask(made, "ada"), ask(made, "ada")] == [[], [ReasonCode.LIMIT]]


def test_gpus_at_once_may_differ_by_user() -> None:
    made = limited(rule(LimitScope.USER, "ada", gpus_at_once=8), gpus_at_once=2)
    assert ask(made, "ada", gpus=8) == []
    assert ask(made, "eve", gpus=4) == [ReasonCode.LIMIT]


@pytest.mark.parametrize(
    ("limits", "changes", "expected"),
    [
        ({"longest_run_s": HOUR_S}, {"run_s": 2 * HOUR_S}, ReasonCode.BAD_DURATION),
        ({"disk_gib": 50}, {"disk_gib": 51}, ReasonCode.LIMIT),
        ({"furthest_ahead_s": DAY_S}, {"not_before_at": MIDNIGHT + 2 * DAY_S}, ReasonCode.LIMIT),
        ({"queues": frozenset({"hpc"})}, {}, ReasonCode.LIMIT_CHOICE),
        ({"images": frozenset({"other"})}, {}, ReasonCode.LIMIT_CHOICE),
        ({"sizes": frozenset({2, 4})}, {}, ReasonCode.LIMIT_CHOICE),
        ({"waiting": 0}, {}, ReasonCode.LIMIT),
    ],
)
@pytest.mark.parametrize("scope", [LimitScope.USER, LimitScope.GROUP])
def test_each_limit_is_held(
    scope: LimitScope, limits: dict[str, object], changes: dict[str, object], expected: ReasonCode
) -> None:
    made = limited(rule(scope, "ada" if scope is LimitScope.USER else "vision", **limits))  # type: ignore[arg-type]
    assert expected in ask(made, "ada", **changes)
    assert ask(made, "eve", **{key: value for key, value in changes.items() if key != "disk_gib"}) == []


def test_an_extension_is_held_to_the_longest_run_of_its_owner() -> None:
    made = limited(rule(LimitScope.USER, "ada", longest_run_s=2 * HOUR_S))
    for owner, is_granted in (("ada", False), ("eve", True)):
        assert ask(made, owner) == []
        made.file(Extend(reservation=ReservationId(f"r-{made.seq}"), by_s=90 * 60))
        assert made.changes[-1][1].decided[-1].is_accepted is is_granted


def test_how_many_are_open_by_the_hour_is_a_matter_of_when_one_asks() -> None:
    hours = ClockHours(weekdays=frozenset(range(7)), from_minute=0, until_minute=60)
    by_hour = LimitRule(scope=LimitScope.EACH, limits=Limits(open_reservations=1), hours=(hours,))
    made = limited(by_hour)
    assert [ask(made, "ada", run_s=DAY_S), ask(made, "ada")] == [[], [ReasonCode.LIMIT]]
    made.run_until(MIDNIGHT + HOUR_S)
    assert ask(made, "ada") == []


def test_where_two_overrides_hold_the_later_one_does() -> None:
    long, short = (Span(start_at=MIDNIGHT + n * HOUR_S, end_at=MIDNIGHT + DAY_S) for n in (-24, -1))
    for rules in (
        (rule(LimitScope.EACH, span=short, open_reservations=2), rule(LimitScope.EACH, span=long, open_reservations=1)),
        (rule(LimitScope.EACH, span=long, open_reservations=1), rule(LimitScope.EACH, span=short, open_reservations=2)),
        (rule(LimitScope.EACH, span=long, open_reservations=1), rule(LimitScope.EACH, span=long, open_reservations=2)),
    ):
        made = limited(*rules)
        assert [ask(made, "ada") for _ in range(3)] == [[], [], [ReasonCode.LIMIT]]
