"""The checker bites on limits too: whatever is over one is found, if it is planted in a good plan."""

from dataclasses import replace

import pytest

from scheduler.core.intents import Submit
from scheduler.core.plan import LimitRule, Limits, PlanChange, apply
from scheduler.core.requests import Ask, DiskId, ReservationId
from scheduler.core.rules import ClockHours, Group, LimitScope
from scheduler.core.spans import DAY_S, HOUR_S, Span
from tests.property.checker import Scene, violations
from tests.property.worlds import MIDNIGHT, world

LAB = Group(name="lab", members=frozenset({"ada", "bob"}))
NIGHT = (ClockHours(weekdays=frozenset(range(7)), from_minute=22 * 60, until_minute=6 * 60),)
TOMORROW = Span(start_at=MIDNIGHT + DAY_S, end_at=MIDNIGHT + 2 * DAY_S)


def each(*, hours: tuple[ClockHours, ...] = (), span: Span | None = None, **limits: object) -> LimitRule:
    return LimitRule(scope=LimitScope.EACH, hours=hours, span=span, limits=Limits(**limits))  # type: ignore[arg-type]


def together(**limits: object) -> LimitRule:
    return LimitRule(scope=LimitScope.GROUP, name="lab", limits=Limits(**limits))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "after_s", "expected"),
    [
        (together(gpus_at_once=6), 0, "group lab has 8 GPUs at"),
        (together(gpus_at_once=6), 5 * HOUR_S, None),
        (each(gpus_at_once=3, hours=NIGHT), 0, "bob has 4 GPUs at"),
        (each(gpus_at_once=3, hours=NIGHT), 7 * HOUR_S, None),
        (each(gpus_at_once=3, span=TOMORROW), DAY_S, "bob has 4 GPUs at"),
        (each(gpus_at_once=3, span=TOMORROW), 0, None),
        (together(gpu_h_per_week=15), DAY_S, "group lab has 57600 GPU-seconds in the week"),
        (together(gpu_h_per_week=15), 7 * DAY_S, None),
        (each(far_ahead_gpu_h=7), DAY_S, "bob holds 28800 GPU-seconds for later days"),
        (each(far_ahead_gpu_h=7), 0, None),
        (each(sizes=frozenset({1}), hours=NIGHT), 0, "bob may have sizes"),
        (each(longest_run_s=60, hours=NIGHT), DAY_S, "bob may have longest_run_s 60"),
    ],
)
def test_what_is_over_a_limit_is_found(rule: LimitRule, after_s: int, expected: str | None) -> None:
    made = world(windows=())
    made.file(Submit(ask=Ask(owner="ada", queue="interactive", gpus=4, run_s=2 * HOUR_S)))
    (mine,) = made.live()
    assert made.plan.rules is not None
    made.plan = replace(made.plan, rules=replace(made.plan.rules, limit_rules=(rule,), groups=(LAB,)))
    (span,) = mine.spans
    partition = made.plan.hosts[span.host].profile.partitions_of_size(4)[-1]
    planted = replace(
        mine,
        request=replace(mine.request, id=ReservationId("r-99"), owner="bob"),
        spans=(replace(span, partition=partition.id, start_at=span.start_at + after_s, end_at=span.end_at + after_s),),
        disk=DiskId("d-99"),
    )
    change = PlanChange(reservations=(planted,))
    scene = Scene(
        before=made.plan,
        after=apply(made.plan, change),
        change=change,
        intents=(),
        facts=made.facts,
        now=made.now,
        settings=made.settings,
    )
    about = [text for text in violations(scene) if "GPU" in text or "may have" in text]
    assert bool(about) is (expected is not None), about
    assert expected is None or any(expected in text for text in about), about
