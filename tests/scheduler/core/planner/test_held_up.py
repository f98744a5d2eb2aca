"""Hosts that do not answer, places that are never handed over: bookings leave them, and people are told once."""

from dataclasses import replace
from itertools import pairwise

from scheduler.core.facts import GpuState, VmEnd
from scheduler.core.intents import Drain, Extend, Restart, Submit
from scheduler.core.plan import PlanChange, Reservation, apply, pinned
from scheduler.core.planner.explaining import why
from scheduler.core.reasons import ReasonCode
from scheduler.core.requests import Ask, HostId, ReservationId
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S
from tests.property.worlds import MIDNIGHT, World, world

A, B = HostId("dgx2-a"), HostId("dgx2-b")
TWO_HOSTS = {"dgx2-a": "a", "dgx2-b": "b"}


def submit(made: World, **ask: object) -> ReservationId:
    usual = {"owner": "ada", "queue": "interactive", "gpus": 8, "run_s": HOUR_S}
    made.file(Submit(ask=Ask(**{**usual, **ask})))  # type: ignore[arg-type]
    return ReservationId(f"r-{made.seq}")


def get(made: World, key: ReservationId) -> Reservation:
    return next(r for _, change in reversed(made.changes) for r in change.reservations if r.id == key)


def notices(made: World, key: ReservationId, kind: str = "promise.raised") -> list[object]:
    return [
        dict(event.facts).get("cause")
        for _, change in made.changes
        for event in change.events
        if event.reservation == key and event.kind == kind and event.is_notice
    ]


def told_end_at(made: World, key: ReservationId) -> int:
    raised = [e for _, change in made.changes for e in change.events if e.kind == "promise.raised"]
    return next(int(dict(e.facts)["end_by_at"] or 0) for e in reversed(raised) if e.reservation == key)


def hosts_of(reservation: Reservation) -> list[HostId]:
    return [span.host for span in reservation.spans]


def day(hosts: dict[str, str] | None = None) -> World:
    made = world(windows=(), hosts=hosts)
    made.now += 9 * HOUR_S
    return made


def test_nothing_new_is_promised_on_a_host_that_does_not_answer() -> None:
    made = day(TWO_HOSTS)
    made.fall_silent(A)
    for _ in range(3):
        assert hosts_of(get(made, submit(made))) == [B]
    assert made.problems == []


def test_where_no_other_host_can_take_it_a_silent_one_is_booked_and_what_fails_is_told_once_for_its_cause() -> None:
    made = day()
    made.fall_silent(A)
    one = submit(made)
    assert hosts_of(get(made, one)) == [A]
    made.run_until(made.now + 40 * HOUR_S)
    assert notices(made, one) == ["host dgx2-a does not answer"]
    waiting = made.plan.reservations[one]
    assert not any(span.end_at > made.now for span in waiting.spans), "it waits for a place"
    assert ReasonCode.HOST_UNREACHABLE in {
        found.code for found in why(made.plan, made.facts, waiting, made.now, made.settings)
    }
    made.answer(A)
    made.run_until(made.now + 3 * HOUR_S)
    assert len(notices(made, one)) == 2, "told when there is a new time for it"
    vms = [vm for vm in made.facts[A].vms if vm.reservation == one]
    assert [(vm.off_at or 0) - (vm.running_at or 0) >= HOUR_S for vm in vms] == [True]
    assert made.problems == []


def test_what_is_booked_on_a_host_that_falls_silent_goes_elsewhere_in_time_to_keep_its_promise() -> None:
    made = day(TWO_HOSTS)
    at = made.now + 3 * HOUR_S
    one = submit(made, not_before_at=at)
    booked = get(made, one)
    assert hosts_of(booked) == [A]
    made.fall_silent(A)
    made.run_until(at - HOUR_S)
    assert hosts_of(made.plan.reservations[one]) == [A], "the host may be back by then"
    made.run_until(at + HOUR_S)
    moved = made.plan.reservations[one]
    assert hosts_of(moved) == [B]
    assert (moved.promise, moved.promise_notice) == (booked.promise, 0)
    assert made.problems == []


def test_a_short_silence_moves_nothing() -> None:
    made = day(TWO_HOSTS)
    one = submit(made, not_before_at=made.now + 10 * MINUTE_S)
    made.fall_silent(A)
    made.run_until(made.now + 4 * MINUTE_S)
    made.answer(A)
    made.run_until(made.now + HOUR_S)
    assert hosts_of(made.plan.reservations[one]) == [A]


def test_a_start_on_a_silent_host_that_is_late_by_all_bounds_goes_elsewhere_and_is_told_why() -> None:
    made = day(TWO_HOSTS)
    one = submit(made)
    made.fall_silent(A)
    made.run_until(made.now + 2 * HOUR_S)
    assert hosts_of(get(made, one)) == [A, B]
    assert notices(made, one) == ["host dgx2-a does not answer"]
    assert [vm.reservation for vm in made.facts[B].vms if vm.running_at is not None] == [one]
    assert made.problems == []


def test_what_could_not_be_started_before_it_had_a_disk_goes_to_a_host_with_other_disks() -> None:
    made = day(TWO_HOSTS)
    made.set_gpu(A, 15, GpuState.QUARANTINED)
    made.full_pools.add(A)
    made.odds.start_fails = 1.0
    one = submit(made)
    made.run_until(made.now + 4 * HOUR_S)
    tried = {host for host, facts in made.facts.items() for vm in facts.vms if vm.reservation == one}
    assert tried == {A, B}
    assert made.problems == []


def test_a_small_one_that_could_not_be_started_leaves_the_host_and_not_only_the_block() -> None:
    made = day(TWO_HOSTS)
    made.full_pools |= {A, B}
    made.odds.start_fails = 1.0
    one = submit(made, gpus=1)
    made.run_until(made.now + 4 * HOUR_S)
    vms = [(vm.asked_at, host) for host, facts in made.facts.items() for vm in facts.vms if vm.reservation == one]
    hosts = [host for _, host in sorted(vms)]
    assert hosts[:4] == [A, A, A, B]
    assert made.problems == []


def test_a_guest_that_ran_when_its_host_fell_silent_stays_where_it_is() -> None:
    made = day(TWO_HOSTS)
    one = submit(made, run_s=5 * HOUR_S)
    made.run_until(made.now + HOUR_S)
    before = made.plan.reservations[one]
    made.fall_silent(A)
    made.run_until(made.now + 2 * HOUR_S)
    assert made.plan.reservations[one] == before
    assert made.problems == []


def test_a_start_that_was_asked_for_before_its_host_fell_silent_is_not_made_twice() -> None:
    made = day(TWO_HOSTS)
    one = submit(made)
    made.converge()
    before = made.plan.reservations[one]
    assert before.spans[0].is_pinned
    made.fall_silent(A)
    made.run_until(before.spans[0].end_at - 1)
    assert made.plan.reservations[one].spans == before.spans


def test_a_start_that_is_blocked_goes_to_a_place_that_is_free() -> None:
    made = day()
    made.stuck[A] = {3}
    one = submit(made, gpus=2, run_s=4 * HOUR_S)
    booked = get(made, one)
    made.stuck[A] = set(made.plan.hosts[A].profile.partition(booked.spans[0].partition).gpus)
    made.run_until(made.now + HOUR_S)
    moved = made.plan.reservations[one]
    assert len({span.partition for span in moved.spans}) == 2
    assert [vm.partition for vm in made.facts[A].vms if vm.running_at is not None] == [moved.spans[-1].partition]
    assert made.problems == []


def test_a_blocked_start_with_no_other_place_stays_and_is_told_once() -> None:
    made = day()
    made.stuck[A] = set(range(16))
    submit(made, run_s=10 * HOUR_S)
    one = submit(made, run_s=10 * HOUR_S)
    made.run_until(made.now + 9 * HOUR_S)
    assert len(get(made, one).spans) == 1
    assert notices(made, one) == ["the hand-over was not done in time"]
    codes = {r.code for r in why(made.plan, made.facts, made.plan.reservations[one], made.now, made.settings)}
    assert ReasonCode.BOUND_EXCEEDED in codes
    assert made.problems == []


def test_when_its_time_has_passed_without_a_start_the_next_start_is_promised() -> None:
    made = world()
    made.stuck[A] = {0}
    one = submit(made, queue="hpc", gpus=16, run_s=20 * HOUR_S)
    first, second = get(made, one).spans
    made.run_until(first.end_at + MINUTE_S)
    assert len(notices(made, one)) == 2
    promise = made.plan.reservations[one].promise
    assert promise is not None
    assert second.start_at < promise.start_by_at < second.start_at + HOUR_S
    assert made.problems == []


def test_what_never_started_is_not_booked_again_where_it_could_not_start() -> None:
    made = day()
    one = submit(made, gpus=4)
    booked = get(made, one)
    blocks = made.plan.hosts[A].profile
    made.stuck[A] = set(range(16))
    made.run_until(booked.spans[0].end_at + MINUTE_S)
    places = [span.partition for span in made.plan.reservations[one].spans]
    assert places[-1] != places[0]
    made.stuck[A] = set(blocks.partition(places[0]).gpus)
    made.run_until(made.now + 2 * HOUR_S)
    assert any(vm.running_at is not None for vm in made.facts[A].vms if vm.reservation == one)


def test_the_cause_that_is_told_names_who_is_still_there() -> None:
    made = day()
    one = submit(made)
    made.run_until(made.now + 30 * MINUTE_S)
    submit(made, run_s=20 * HOUR_S)
    two = submit(made, owner="ben")
    promise = get(made, two).promise
    assert promise is not None
    # Nobody looks after the host: the guest of the first holds its GPUs past its end.
    made.is_checked = False
    made.now = get(made, two).spans[0].start_at
    made.step()
    made.now = promise.start_by_at + 1
    made.step()
    partition = get(made, two).spans[-1].partition
    assert notices(made, two) == [f"{partition} of {A} is still held by {one}"]


def warned(made: World, *, leaves_before_s: int) -> ReservationId:
    """A tenant is parked at 20:00 for a job, and shuts itself down some time before."""
    made.now = MIDNIGHT + 17 * HOUR_S
    submit(made, owner="sim", gpus=16, queue="hpc")
    one = submit(made, gpus=1, run_s=10 * HOUR_S)
    made.run_until(MIDNIGHT + 19 * HOUR_S)
    vm = made.vms[one, 1]
    vm.ends_at, vm.end = MIDNIGHT + 20 * HOUR_S - leaves_before_s, VmEnd.SELF_SHUTDOWN
    return one


def test_a_guest_that_leaves_just_before_it_is_parked_has_the_rest_of_its_hours_in_the_morning() -> None:
    made = world()
    one = warned(made, leaves_before_s=8 * MINUTE_S)
    made.run_until(MIDNIGHT + 2 * DAY_S)
    vms = [vm for vm in made.facts[A].vms if vm.reservation == one]
    assert len(vms) == 2
    assert sum((vm.off_at or 0) - (vm.running_at or 0) for vm in vms) >= 10 * HOUR_S - 8 * MINUTE_S
    assert made.problems == []


def test_a_guest_that_leaves_long_before_it_is_parked_has_ended_unless_its_owner_restarts_it() -> None:
    made = world()
    one = warned(made, leaves_before_s=11 * MINUTE_S)
    made.run_until(MIDNIGHT + 20 * HOUR_S)
    assert get(made, one).outcome is not None


def test_a_restart_is_accepted_while_parked() -> None:
    made = world()
    one = warned(made, leaves_before_s=8 * MINUTE_S)
    made.run_until(MIDNIGHT + 20 * HOUR_S + MINUTE_S)
    change = made.file(Restart(reservation=one))
    assert change.decided[-1].is_accepted
    made.run_until(MIDNIGHT + 2 * DAY_S)
    assert len([vm for vm in made.facts[A].vms if vm.reservation == one]) == 2
    assert made.problems == []


def test_a_guest_on_a_drained_host_is_not_extended_there() -> None:
    made = day()
    one = submit(made)
    made.run_until(made.now + 10 * MINUTE_S)
    made.file(Drain(host=A))
    change = made.file(Extend(reservation=one, by_s=8 * HOUR_S))
    (reason,) = change.decided[-1].reasons
    assert (reason.code, reason.fact("host")) == (ReasonCode.HOST_DRAINED, A)


def test_only_what_the_host_took_is_made_good_not_what_the_guest_lost_by_crashing() -> None:
    made = day()
    one = submit(made, run_s=4 * HOUR_S)
    made.run_until(made.now + 10 * MINUTE_S)
    for generation, end in enumerate((VmEnd.VANISHED, VmEnd.CRASHED, VmEnd.CRASHED, VmEnd.CRASHED), start=1):
        vm = made.vms[one, generation]
        vm.ends_at, vm.end = made.now + 10 * MINUTE_S, end
        made.run_until(made.now + 30 * MINUTE_S)
    vms = sorted(made.facts[A].vms, key=lambda vm: vm.generation)
    assert [vm.end for vm in vms[1:]] == [VmEnd.CRASHED] * 3 + [None]
    delivered_s = sum((vm.off_at or made.now) - (vm.running_at or made.now) for vm in vms)
    lost_s = [(later.running_at or 0) - (vm.off_at or 0) for vm, later in pairwise(vms)]
    left_s = made.plan.reservations[one].spans[-1].end_at - made.now
    assert sum(lost_s[1:]) > 2 * MINUTE_S
    assert abs(delivered_s + left_s + sum(lost_s[1:]) - 4 * HOUR_S) <= MINUTE_S


def test_equal_plans_give_equal_changes_whatever_the_order_of_their_rows() -> None:
    made = day(TWO_HOSTS)
    for seq in range(12):
        submit(made, gpus=(1, 2, 4, 8)[seq % 4], run_s=(seq + 1) * HOUR_S)
    made.is_checked = False
    made.now += 2 * HOUR_S
    kept = made.plan
    one = made.step()
    assert len(one.reservations) > 2
    made.plan = replace(
        kept,
        hosts=dict(reversed(list(kept.hosts.items()))),
        reservations=dict(reversed(list(kept.reservations.items()))),
        disks=dict(reversed(list(kept.disks.items()))),
        windows=dict(reversed(list(kept.windows.items()))),
    )
    assert made.step() == one


def test_a_start_that_stays_blocked_past_its_booking_again_and_again_is_told_once() -> None:
    made = day()
    made.stuck[A] = set(range(16))
    one = submit(made)
    made.run_until(made.now + 20 * HOUR_S)
    assert get(made, one).outcome is None
    assert notices(made, one) == ["the hand-over was not done in time"]
    made.stuck[A] = set()
    made.run_until(made.now + 3 * HOUR_S)
    assert get(made, one).outcome is not None
    assert told_end_at(made, one) > made.now - 3 * HOUR_S, "when it ran, its new end was told"
    assert made.problems == []


def test_two_causes_that_take_turns_are_told_once_each() -> None:
    made = day()
    made.stuck[A] = set(range(16))
    one = submit(made, run_s=30 * HOUR_S)
    for _ in range(20):
        made.run_until(made.now + 15 * MINUTE_S)
        made.fall_silent(A)
        made.look()
        made.run_until(made.now + 15 * MINUTE_S)
        made.answer(A)
        made.look()
    assert sorted(map(str, notices(made, one))) == ["host dgx2-a does not answer", "the hand-over was not done in time"]
    assert made.problems == []


def test_a_restart_by_its_owner_is_no_late_hand_over() -> None:
    made = day()
    one = submit(made, gpus=1, run_s=4 * HOUR_S)
    made.run_until(made.now + HOUR_S)
    guest = made.vms[one, 1]
    guest.ends_at, guest.end = made.now + MINUTE_S, VmEnd.SELF_SHUTDOWN
    made.run_until(made.now + 10 * MINUTE_S)
    before = get(made, one)
    made.file(Restart(reservation=one), author="ada")
    made.run_until(made.now + HOUR_S)
    assert [(s.host, s.partition) for s in get(made, one).spans] == [(s.host, s.partition) for s in before.spans]
    assert notices(made, one) == []
    assert made.problems == []


def test_what_was_pinned_and_never_asked_for_leaves_a_host_that_does_not_answer() -> None:
    made = day({"dgx2-a": "a", "dgx2-b": "a"})
    one = submit(made, run_s=20 * HOUR_S)
    pin = PlanChange(reservations=(pinned(get(made, one), made.now),))
    made.plan = apply(made.plan, pin)
    first = made.plan.reservations[one].spans[0].host
    made.fall_silent(first)
    made.run_until(made.now + HOUR_S)
    assert hosts_of(get(made, one)) == [first, B if first == A else A]
    assert notices(made, one) == [f"host {first} does not answer"]


def test_who_waited_through_all_of_a_booking_unseen_is_told_once_and_with_the_new_time() -> None:
    # They were told twice at one instant, the first time of an end that had passed.
    made = day()
    one = submit(made)
    made.is_checked = False
    made.now = get(made, one).spans[-1].end_at + HOUR_S
    made.step()
    assert notices(made, one) == ["the hand-over was not done in time"]
    assert told_end_at(made, one) == get(made, one).spans[-1].end_at > made.now
