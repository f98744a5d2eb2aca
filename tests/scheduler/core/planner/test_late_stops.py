"""A stop that was asked under an older, longer grace keeps its end: nothing behind it is promised before."""

from dataclasses import replace

from scheduler.core.facts import Asked, Verb
from scheduler.core.intents import ApplyPolicy, Stop, Submit
from scheduler.core.plan import Reservation
from scheduler.core.requests import Ask, HostId, ReservationId
from scheduler.core.spans import HOUR_S, Instant
from tests.property.worlds import World, dgx2, rules, world

A = HostId("dgx2-a")
LONG_S, SHORT_S = 2 * HOUR_S, 300
RUN_S = 4 * HOUR_S


def submit(made: World) -> Reservation:
    made.file(Submit(ask=Ask(owner="ada", queue="interactive", gpus=8, run_s=RUN_S)))
    return made.plan.reservations[ReservationId(f"r-{made.seq}")]


def with_a_stop_in_flight() -> tuple[World, Instant]:
    """A guest was asked to leave, with two hours of grace; then a policy is applied that gives five minutes."""
    made = world(windows=(), grace_s=LONG_S)
    made.now += 9 * HOUR_S
    one = submit(made)
    made.run_until(made.now + HOUR_S // 2)
    made.file(Stop(reservation=one.id), author="ada")
    until_at = made.now + LONG_S
    facts = made.facts[A]
    (vm,) = facts.vms
    ask = Asked(verb=Verb.SHUTDOWN, subject=str(vm.uuid), asked_at=made.now, until_at=until_at)
    asked = tuple(replace(each, stop_asked_at=made.now) for each in facts.vms)
    made.facts[A] = replace(facts, vms=asked, asked=(ask,))
    policy = ApplyPolicy(
        rules=rules(2, grace_s=SHORT_S), windows=(), hosts=frozenset({A}), horizon_at=made.plan.horizon_at, text="2"
    )
    assert made.file(policy).decided[0].is_accepted
    return made, until_at


def test_what_is_booked_behind_a_stop_is_promised_when_its_own_grace_is_over() -> None:
    made, until_at = with_a_stop_in_flight()
    bounds = dgx2().bounds
    free, behind = submit(made), submit(made)
    assert free.promise is not None
    assert behind.promise is not None
    assert free.spans[0].start_at == made.now, "the other half of the host is free"
    assert behind.promise.start_by_at == until_at + bounds.destroy_s + bounds.reset_s + bounds.start_s(8)
    assert behind.promise.end_by_at == behind.promise.start_by_at + RUN_S
    assert made.problems == []


def test_once_the_guest_is_off_its_grace_holds_nobody_up() -> None:
    made, _ = with_a_stop_in_flight()
    made.facts[A] = replace(made.facts[A], vms=tuple(replace(vm, off_at=made.now) for vm in made.facts[A].vms))
    assert [submit(made).spans[0].start_at for _ in range(2)] == [made.now, made.now]
