"""What facts do to the plan: time is given back, what a fault took is made good, what a guest lost is its own."""

from dataclasses import replace

import pytest

from scheduler.core.facts import GpuState, VmEnd
from scheduler.core.intents import Stop, Submit
from scheduler.core.plan import BookedSpan, Outcome, PlanChange, apply
from scheduler.core.planner.causes import NO_PLACE
from scheduler.core.reasons import ReasonCode
from scheduler.core.requests import Ask, HostId, ReservationId
from scheduler.core.spans import HOUR_S, MINUTE_S
from scheduler.core.topology import PartitionId
from tests.property.worlds import World, world

ONE = ReservationId("r-3")


def running(*, run_s: int = 4 * HOUR_S) -> World:
    made = world(windows=())
    made.now += 9 * HOUR_S
    made.file(Submit(ask=Ask(owner="ada", queue="interactive", gpus=2, run_s=run_s)))
    made.run_until(made.now + HOUR_S)
    assert made.vms, "it runs"
    return made


def end_of(made: World, how: VmEnd) -> None:
    vm = made.vms[ONE, made.plan.reservations[ONE].generation]
    vm.ends_at, vm.end = made.now + MINUTE_S, how


def test_a_quick_start_gives_the_rest_of_its_lead_back() -> None:
    made = running()
    (span,) = made.plan.reservations[ONE].spans
    (vm,) = made.facts[span.host].vms
    assert vm.running_at is not None
    assert span.end_at == vm.running_at + 4 * HOUR_S


def test_hours_that_a_guest_lost_by_crashing_are_not_made_good() -> None:
    made = running()
    before = made.plan.reservations[ONE]
    end_of(made, VmEnd.CRASHED)
    made.run_until(made.now + HOUR_S)
    after = made.plan.reservations[ONE]
    assert after.generation == 2
    assert (after.promise, after.spans[-1].end_at) == (before.promise, before.spans[-1].end_at)
    assert after.promise_notice == 0
    assert made.problems == []


@pytest.mark.parametrize("how", [VmEnd.VANISHED, VmEnd.GPU_LOST])
def test_hours_that_a_host_took_are_made_good_and_told(how: VmEnd) -> None:
    made = running()
    end_of(made, how)
    made.run_until(made.now + 10 * HOUR_S)
    vms = [vm for host in made.facts.values() for vm in host.vms]
    assert len(vms) == 2
    assert sum((vm.off_at or 0) - (vm.running_at or 0) for vm in vms) >= 4 * HOUR_S
    assert made.problems == []


def test_what_put_a_promise_off_is_still_said_after_the_end() -> None:
    # It was not, once: who read the answer only after the end saw a promise put off without a word.
    made = running()
    for _ in range(5):  # The lead that a quick start left over makes good for the first four.
        end_of(made, VmEnd.VANISHED)
        made.run_until(made.now + HOUR_S // 2)
    (told,) = made.plan.reservations[ONE].reasons
    assert told.code is ReasonCode.PROMISE_BROKEN
    made.file(Stop(reservation=ONE), author="ada")
    made.run_until(made.now + MINUTE_S)
    ended = made.plan.reservations[ONE]
    assert [why.code for why in ended.reasons] == [ReasonCode.STOPPED_BY_OWNER, ReasonCode.PROMISE_BROKEN]
    assert ended.reasons[1] == told


def test_a_guest_that_leaves_ends_its_booking_ten_minutes_later() -> None:
    made = running()
    end_of(made, VmEnd.SELF_SHUTDOWN)
    left_at = made.now + MINUTE_S
    made.run_until(left_at + 10 * MINUTE_S - 1)
    assert made.plan.reservations[ONE].outcome is None
    made.run_until(left_at + 10 * MINUTE_S)
    ended = made.plan.reservations[ONE]
    assert (ended.outcome, ended.ended_at) == (Outcome.COMPLETED, left_at + 10 * MINUTE_S)


def test_a_reservation_that_cannot_be_started_anywhere_fails_in_the_end() -> None:
    made = world(windows=())
    made.odds.start_fails = 1.0
    made.now += 9 * HOUR_S
    made.file(Submit(ask=Ask(owner="ada", queue="interactive", gpus=2, run_s=4 * HOUR_S)))
    made.run_until(made.now + 20 * HOUR_S)
    assert made.plan.reservations[ONE].outcome is Outcome.FAILED
    places = {vm.partition for host in made.facts.values() for vm in host.vms}
    assert len(places) == 3, "three attempts on each of three partitions"


def test_a_start_that_is_overdue_near_the_end_of_its_booking_is_not_promised_after_its_end() -> None:
    # It was, once: the database refused the promise, and with it every step of the plan that followed.
    made = world(windows=())
    made.now += 9 * HOUR_S
    made.file(Submit(ask=Ask(owner="ada", queue="interactive", gpus=2, run_s=HOUR_S - 5 * MINUTE_S)))
    over_at = made.plan.reservations[ONE].spans[-1].end_at
    made.is_checked = False
    while made.now < over_at - MINUTE_S:
        made.now += MINUTE_S
        made.step()
        promise = made.plan.reservations[ONE].promise
        assert promise is not None
        assert promise.start_by_at <= promise.end_by_at
    assert made.plan.reservations[ONE].promise_notice > 1


def test_whoever_loses_its_last_place_is_told_even_after_an_earlier_notice() -> None:
    made = world(windows=())
    made.now += 9 * HOUR_S
    made.file(Submit(ask=Ask(owner="ada", queue="interactive", gpus=2, run_s=HOUR_S)))
    booked = made.plan.reservations[ONE]
    assert booked.promise is not None
    made.is_checked = False
    made.now = booked.promise.start_by_at + 1
    made.step()
    assert made.plan.reservations[ONE].promise_notice == 1, "it was told that it is late"
    for gpu in range(16):
        made.set_gpu(booked.spans[0].host, gpu, GpuState.QUARANTINED)
    made.now = booked.spans[-1].end_at + HOUR_S
    made.step()
    made.step()
    lost = made.plan.reservations[ONE]
    assert (lost.promise_notice, lost.reasons[-1].fact("cause")) == (2, NO_PLACE.text)


def test_what_had_all_its_hours_while_it_was_stopped_is_not_started_once_more() -> None:
    # It was: the span that it was to go on had begun meanwhile, and nobody gave a begun span back.
    made = running()
    reservation = made.plan.reservations[ONE]
    (span,), (vm,) = reservation.spans, made.facts[HostId("dgx2-a")].vms
    assert vm.running_at is not None
    ahead = BookedSpan(start_at=made.now, end_at=made.now + 2 * HOUR_S, host=span.host, partition=PartitionId("2g8-9"))
    cut = replace(
        reservation,
        request=replace(reservation.request, run_s=made.now + 2 * MINUTE_S - vm.running_at),
        spans=(replace(span, end_at=made.now), ahead),
    )
    made.plan = apply(made.plan, PlanChange(reservations=(cut,)))
    made.is_checked = False
    made.look()
    made.vms[ONE, 1].off_at = made.now + 4 * MINUTE_S
    made.run_until(made.now + HOUR_S)
    assert len([vm for vm in made.facts[span.host].vms if vm.reservation == ONE]) == 1
    ended = made.plan.reservations[ONE]
    assert (ended.outcome, ended.spans[-1].end_at) == (Outcome.COMPLETED, ended.ended_at)
    assert [why.code for why in ended.reasons] == [ReasonCode.HOURS_DELIVERED]


def test_a_guest_that_runs_on_in_the_same_place_gives_back_what_it_does_not_need_of_the_later_span() -> None:
    made = running()
    reservation = made.plan.reservations[ONE]
    (span,) = reservation.spans
    over_at = made.now + HOUR_S
    joined = (
        replace(span, end_at=over_at),
        replace(span, start_at=over_at, end_at=over_at + 9 * HOUR_S, generation=None),
    )
    made.plan = apply(made.plan, PlanChange(reservations=(replace(reservation, spans=joined),)))
    made.is_checked = False
    made.run_until(span.end_at + MINUTE_S)
    ended = made.plan.reservations[ONE]
    assert (ended.outcome, ended.ended_at, ended.generation) == (Outcome.COMPLETED, span.end_at, 1)
