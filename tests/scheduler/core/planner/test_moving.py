"""Who may be moved, and who needs no look for it."""

from scheduler.core.intents import Cancel, Submit
from scheduler.core.plan import Reservation
from scheduler.core.requests import Ask
from scheduler.core.spans import HOUR_S, MINUTE_S
from tests.property.worlds import World, world


def with_one_for_later() -> tuple[World, Reservation]:
    made = world(1)
    made.now += 8 * HOUR_S
    wanted_at = made.now + 4 * HOUR_S
    made.file(Submit(ask=Ask(owner="ada", queue="interactive", gpus=1, run_s=HOUR_S, not_before_at=wanted_at)))
    made.look()
    (one,) = made.live()
    return made, one


def test_one_that_may_not_start_yet_and_is_in_time_is_not_looked_at_before_its_time() -> None:
    made, one = with_one_for_later()
    board = made.kept.board
    assert board is not None
    assert board.resting == {one.id}
    assert one.id not in board.unsure
    assert one.request.not_before_at is not None
    made.now = min(one.request.not_before_at, one.spans[0].start_at) - MINUTE_S
    made.step()
    assert board.resting == {one.id}
    made.now += MINUTE_S
    made.look()
    assert not board.resting
    assert not made.problems


def test_one_that_is_changed_does_not_rest() -> None:
    made, one = with_one_for_later()
    made.file(Cancel(reservation=one.id), author="ada")
    board = made.kept.board
    assert board is not None
    assert not board.resting
    assert not made.problems


def test_those_that_rest_are_looked_at_anew_when_it_depends_on_others_how_one_may_be_moved() -> None:
    made, one = with_one_for_later()
    board = made.kept.board
    assert board is not None
    board.begin_moving(("anything else",))
    assert not board.resting
    assert one.id in board.unsure
