"""Windows that cannot be: a grace that their policy does not know of, and a window that is over before its grace is."""

from dataclasses import replace

import pytest

from scheduler.core.intents import AddHost, ApplyPolicy, Materialise
from scheduler.core.plan import PlanChange
from scheduler.core.reasons import ReasonCode, sentence
from scheduler.core.requests import HostId
from scheduler.core.spans import DAY_S, MINUTE_S
from scheduler.core.windows import Window
from tests.property.worlds import MIDNIGHT, World, nights, rules, world

A, B = HostId("dgx2-a"), HostId("dgx2-b")
LONG_GRACE = nights([A], from_at=MIDNIGHT, until_at=MIDNIGHT + DAY_S, grace_s=301)
SHORT = nights([A], from_at=MIDNIGHT, until_at=MIDNIGHT + DAY_S, grace_s=300, length_s=4 * MINUTE_S)


def apply(made: World, windows: tuple[Window, ...], **changes: object) -> PlanChange:
    policy = ApplyPolicy(
        rules=rules(2, **changes),
        windows=windows,
        hosts=frozenset(made.plan.hosts),
        horizon_at=made.plan.horizon_at,
        text="policy 2",
    )
    return made.file(policy)


def refusal(change: PlanChange) -> str:
    (decided,) = change.decided
    (why,) = decided.reasons
    assert why.code is ReasonCode.POLICY_INVALID
    return sentence(why)


def test_a_policy_whose_window_gives_more_grace_than_it_says_of_itself_is_refused() -> None:
    made = world(windows=())
    before = made.plan.rules
    assert "the grace of window 'night' in seconds is 301; give 1 to 300" in refusal(apply(made, LONG_GRACE))
    assert made.plan.rules == before
    assert apply(made, LONG_GRACE, longest_grace_s=301).decided[0].is_accepted


@pytest.mark.parametrize("what", ["more windows", "a host"])
def test_windows_with_more_grace_than_the_applied_policy_says_are_not_taken_on(what: str) -> None:
    made = world(windows=())
    horizon_at = made.plan.horizon_at + DAY_S
    late = tuple(replace(window, start_at=horizon_at - DAY_S, end_at=horizon_at) for window in LONG_GRACE)
    change = made.file(
        Materialise(policy_version=1, windows=late, hosts=frozenset({A}), horizon_at=horizon_at)
        if what == "more windows"
        else AddHost(
            host=B, profile="dgx-2", storage="b", windows=LONG_GRACE, policy_version=1, horizon_at=made.plan.horizon_at
        )
    )
    assert "is 301; give 1 to 300" in refusal(change)


def test_windows_of_another_policy_are_stale_whatever_their_grace() -> None:
    made = world(windows=())
    horizon_at = made.plan.horizon_at + DAY_S
    change = made.file(Materialise(policy_version=2, windows=LONG_GRACE, hosts=frozenset({A}), horizon_at=horizon_at))
    assert [why.code for why in change.decided[0].reasons] == [ReasonCode.POLICY_STALE]


def test_a_policy_with_a_window_that_is_over_before_its_grace_is_is_refused() -> None:
    assert refusal(apply(world(windows=()), SHORT)) == (
        "window 'night' lasts 240 s, its grace 300 s; lengthen it or give less"
    )


def test_what_the_change_of_clocks_leaves_of_a_window_does_not_keep_the_horizon_from_moving_on() -> None:
    made = world(windows=())
    horizon_at = made.plan.horizon_at + DAY_S
    short = tuple(
        replace(window, start_at=horizon_at - DAY_S, end_at=horizon_at - DAY_S + 4 * MINUTE_S) for window in SHORT
    )
    change = made.file(Materialise(policy_version=1, windows=short, hosts=frozenset({A}), horizon_at=horizon_at))
    assert change.decided[0].is_accepted
    assert made.plan.horizon_at == horizon_at
