"""Alternatives: what is offered instead can be had, as it stands."""

from scheduler.core.intents import FiledIntent, Submit
from scheduler.core.plan import Limits
from scheduler.core.planner.alternatives import Change
from scheduler.core.planner.explaining import Quote, quote
from scheduler.core.planner.step import step
from scheduler.core.reasons import ReasonCode, sentence
from scheduler.core.requests import Ask, AtBoundary, Role
from scheduler.core.spans import DAY_S, HOUR_S
from scheduler.profiles.loading import load_profile
from tests.property.worlds import World, world


def ask(**changes: object) -> Ask:
    usual = {"owner": "ada", "queue": "interactive", "gpus": 8, "run_s": 4 * HOUR_S}
    return Ask(**{**usual, **changes})  # type: ignore[arg-type]


def quoted(made: World, asked: Ask) -> Quote:
    return quote(made.plan, made.facts, asked, made.now, made.settings, most_alternatives=5)


def busy() -> World:
    """A host with four GPUs free for long, and four until others come."""
    made = world(windows=())
    for gpus in (8, 4):
        made.file(Submit(ask=ask(gpus=gpus, run_s=10 * HOUR_S)))
    return made


def check_all_can_be_had(made: World, told: Quote) -> None:
    for other in told.alternatives:
        again = quoted(made, other.ask)
        assert again.promise == other.promise, other


def test_a_refused_start_is_offered_later_and_smaller() -> None:
    made = busy()
    told = quoted(made, ask(not_before_at=made.now + HOUR_S, start_by_at=made.now + HOUR_S))
    assert told.promise is None
    changes = [other.change for other in told.alternatives]
    assert changes[:2] == [Change.LATER, Change.FEWER_GPUS]
    assert told.alternatives[1].ask.gpus == 4
    check_all_can_be_had(made, told)
    assert len(told.alternatives) <= 5


def test_beside_a_promise_only_what_starts_sooner_is_offered() -> None:
    made = busy()
    told = quoted(made, ask())
    assert told.promise is not None
    assert told.alternatives
    for other in told.alternatives:
        assert other.promise.start_by_at < told.promise.start_by_at
        assert other.change is Change.FEWER_GPUS
    check_all_can_be_had(made, told)
    assert quoted(made, ask(gpus=1)).alternatives == ()


def test_what_can_never_be_had_is_answered_with_the_nearest_that_can() -> None:
    made = world(horizon_days=90)
    cases = (
        (ask(gpus=17), lambda a: a.gpus == 8),
        (ask(gpus=3), lambda a: a.gpus in (2, 4)),
        (ask(run_s=400 * DAY_S), lambda a: a.run_s == made.settings.longest_run_s),
        (ask(not_before_at=made.now - DAY_S), lambda a: a.not_before_at is None),
        (ask(not_before_at=made.now + 400 * DAY_S), lambda a: a.not_before_at is None),
        (ask(disk_gib=1 << 29), lambda a: a.disk_gib is not None and a.disk_gib < 1 << 29),
        (ask(image="windows-95"), lambda a: a.image is None),
        (ask(run_s=21 * HOUR_S, at_boundary=AtBoundary.FINISH), lambda a: a.at_boundary is not AtBoundary.FINISH),
    )
    for asked, is_near in cases:
        told = quoted(made, asked)
        assert told.promise is None, asked
        assert told.alternatives, asked
        assert is_near(told.alternatives[0].ask), told.alternatives[0]
        check_all_can_be_had(made, told)


def test_a_refusal_says_what_could_be_had_instead() -> None:
    made = busy()
    made.file(Submit(ask=ask(start_by_at=made.now + HOUR_S)))
    *_, last = made.changes[-1][1].decided[-1].reasons
    assert last.code is ReasonCode.INSTEAD
    assert sentence(last).startswith("instead: 8 GPUs for 4 h, running by ")


def test_in_simulated_time_nobody_is_told_what_could_be_had_instead() -> None:
    made = busy()
    intent = Submit(ask=ask(start_by_at=made.now + HOUR_S))
    filed = FiledIntent(seq=99, at=made.now, author="ada", role=Role.STUDENT, intent=intent)
    decided = []
    for says_instead in (True, False):
        change = step(
            made.plan,
            (filed,),
            made.facts,
            made.now,
            settings=made.settings,
            profiles=load_profile,
            says_instead=says_instead,
        )
        decided.append(change.decided[-1].reasons)
    assert decided[0][:-1] == decided[1], "all the rest is the same"
    assert decided[0][-1].code is ReasonCode.INSTEAD


def test_where_nothing_can_be_had_nothing_is_offered() -> None:
    made = world(limits=Limits(open_reservations=1))
    made.file(Submit(ask=ask(gpus=1)))
    told = quoted(made, ask(gpus=1))
    assert [why.code for why in told.reasons] == [ReasonCode.LIMIT]
    assert told.alternatives == ()


def test_asking_changes_nothing() -> None:
    made = busy()
    before = made.plan
    quoted(made, ask(start_by_at=made.now + HOUR_S))
    assert made.plan == before
