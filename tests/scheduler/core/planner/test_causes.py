"""Causes of a broken promise: two are one by what they are and where, whatever their texts list."""

from dataclasses import replace

import pytest

from scheduler.core.facts import GpuState
from scheduler.core.intents import Submit
from scheduler.core.planner.causes import NO_PLACE, Cause, CauseCode, host_is_silent
from scheduler.core.reasons import ReasonCode, reason
from scheduler.core.requests import Ask, HostId, ReservationId
from scheduler.core.spans import HOUR_S
from tests.property.worlds import MIDNIGHT, world

A, B = HostId("dgx2-a"), HostId("dgx2-b")
HELD = Cause(code=CauseCode.STILL_HELD, host=A, place="4g0-3", text="4g0-3 of dgx2-a is still held by r-1, r-2")


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        (replace(HELD, text="4g0-3 of dgx2-a is still held by r-2"), True),
        (replace(HELD, text="by: anything that a driver may say: at all by anybody"), True),
        (replace(HELD, place="4g4-7"), False),
        (replace(HELD, host=B), False),
        (replace(HELD, code=CauseCode.NOT_RESET), False),
    ],
)
def test_a_cause_is_the_same_by_its_code_host_and_place(other: Cause, is_same: bool) -> None:
    assert other.is_told_by(reason(ReasonCode.PROMISE_BROKEN, **HELD.as_facts())) is is_same


def test_a_cause_that_was_kept_without_its_code_is_the_same_only_word_for_word() -> None:
    kept = reason(ReasonCode.PROMISE_BROKEN, cause=HELD.text)
    assert HELD.is_told_by(kept)
    assert not replace(HELD, text="4g0-3 of dgx2-a is still held by r-2").is_told_by(kept)


def test_a_cause_without_a_host_is_not_that_of_one() -> None:
    assert NO_PLACE.is_told_by(reason(ReasonCode.PROMISE_BROKEN, **NO_PLACE.as_facts()))
    assert not host_is_silent(A).is_told_by(reason(ReasonCode.PROMISE_BROKEN, **NO_PLACE.as_facts()))


def test_more_gpus_lost_on_a_host_are_no_new_cause_for_who_waits_there() -> None:
    made = world(windows=())
    made.now = MIDNIGHT + 9 * HOUR_S
    for gpu in range(1, 16):
        made.set_gpu(A, gpu, GpuState.QUARANTINED)
    made.file(Submit(ask=Ask(owner="ada", queue="interactive", gpus=1, run_s=4 * HOUR_S)))
    one = ReservationId(f"r-{made.seq}")
    made.set_gpu(A, 0, GpuState.QUARANTINED)
    made.run_until(made.now + HOUR_S)
    told = [
        e for _, change in made.changes for e in change.events if (e.reservation, e.kind) == (one, "promise.raised")
    ]
    assert [dict(event.facts)["cause_code"] for event in told] == ["gpus_lost"]
    (why,) = made.plan.reservations[one].reasons
    assert (why.fact("cause_code"), why.fact("cause_host")) == ("gpus_lost", A)
    assert made.problems == []
