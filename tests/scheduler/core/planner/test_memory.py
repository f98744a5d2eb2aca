"""What one planning step leaves for the next, when somebody else changes the plan in between."""

from dataclasses import replace

import pytest

from scheduler.core.intents import Submit
from scheduler.core.plan import PlanChange, apply, pinned
from scheduler.core.planner import memory
from scheduler.core.requests import Ask
from scheduler.core.spans import HOUR_S
from tests.property.worlds import World, world


def with_one_that_begins() -> World:
    made = world(1)
    made.now += 10 * HOUR_S
    made.file(Submit(ask=Ask(owner="ada", queue="interactive", gpus=1, run_s=HOUR_S)))
    return made


def test_what_others_change_twice_is_followed_once() -> None:
    made = with_one_that_begins()
    (one,) = made.live()
    started = pinned(one, made.now)
    again = replace(started, restart_after=1)
    plan = apply(made.plan, PlanChange(reservations=(started,)))
    plan = apply(plan, PlanChange(reservations=(again,)))
    assert plan.reservations[one.id] is again
    made.plan = plan
    change = made.step()
    assert made.problems == []
    assert made.kept.plan_after.reservations == apply(plan, change).reservations


def test_a_change_of_another_plan_than_the_last_steps_is_looked_for() -> None:
    made = with_one_that_begins()
    (one,) = made.live()
    other = replace(made.plan, reservations=dict(made.plan.reservations))
    made.plan = apply(other, PlanChange(reservations=(pinned(one, made.now),)))
    made.step()
    assert made.problems == []


def test_who_was_put_late_by_a_step_whose_commit_was_lost_is_put_late_again() -> None:
    made = with_one_that_begins()
    (one,) = made.live()
    made.kept.was_put_late.add(one.id)
    made.plan = apply(made.plan, PlanChange(reservations=(replace(one, restart_after=1),)))
    made.kept.begin(made.plan, made.facts, made.now)
    assert made.kept.to_put_late == [one.id]
    assert not made.kept.was_put_late


def test_what_others_have_left_is_known_also_where_the_board_has_to_be_made_anew() -> None:
    made = with_one_that_begins()
    (one,) = made.live()
    assert one.spans
    made.kept.freed.take("by")
    plan = apply(made.plan, PlanChange(reservations=(replace(one, spans=()),)))
    # The clock was set back: no board goes back in time.
    made.kept.begin(plan, made.facts, made.now - 1)
    assert made.kept.is_new
    assert made.kept.freed.take("by") == [(one.request.owner, span) for span in one.spans]


def test_what_was_worked_out_from_windows_that_a_step_has_changed_goes_on_with_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = with_one_that_begins()
    before = made.kept.window_book(made.plan)
    made.now = min(window.decide_at for window in made.plan.windows.values())
    assert made.step().windows, "a night is given away, for nobody asked for it"
    made.plan = made.kept.plan_after
    with monkeypatch.context() as patch:
        patch.setattr(memory, "WindowBook", None)
        book = made.kept.window_book(made.plan)
    assert book is not before
    assert book.by_id == dict(sorted(made.plan.windows.items()))
    stretches, openings = made.kept.stretches(book, made.plan.rules, made.plan.horizon_at)
    made.file(Submit(ask=Ask(owner="ben", queue="interactive", gpus=1, run_s=HOUR_S)))
    assert made.kept.window_book(made.plan) is book
    known = made.kept.stretches(book, made.plan.rules, made.plan.horizon_at)
    assert known[0] is stretches
    assert known[1] is openings


def test_limits_are_worked_out_once_for_a_policy() -> None:
    made = with_one_that_begins()
    assert made.plan.rules is not None
    book = made.kept.limit_book(made.plan.rules)
    made.now += 1
    made.step()
    assert made.kept.limit_book(made.plan.rules) is book
    assert made.kept.limit_book(replace(made.plan.rules, version=9)) is not book
