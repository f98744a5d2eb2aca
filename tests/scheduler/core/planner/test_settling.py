"""What facts do to the plan: time is given back, what a fault took is made good, what a guest lost is its own."""

import pytest

from scheduler.core.facts import GpuState, VmEnd
from scheduler.core.intents import Submit
from scheduler.core.plan import Outcome
from scheduler.core.planner.settling import NO_PLACE
from scheduler.core.requests import Ask, ReservationId
from scheduler.core.spans import HOUR_S, MINUTE_S
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
    assert (lost.promise_notice, lost.reasons[-1].fact("cause")) == (2, NO_PLACE)
