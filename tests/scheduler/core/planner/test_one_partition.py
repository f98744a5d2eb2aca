"""Bookings over the edges of windows: on one partition, unless that makes somebody wait beside free GPUs or end later.

In the world's own hours: nights of 16-GPU jobs from 20:00 to 8:00. Half hosts are asked for unless said otherwise.
"""

from typing import Any

from scheduler.core.facts import GpuState
from scheduler.core.intents import ApplyPolicy, Cancel, Submit
from scheduler.core.plan import BookedSpan, Decided, Reservation
from scheduler.core.planner import alternatives
from scheduler.core.planner.alternatives import Change
from scheduler.core.planner.explaining import quote, why
from scheduler.core.planner.placing import is_of_one_partition
from scheduler.core.reasons import ReasonCode, sentence
from scheduler.core.requests import Ask, AtBoundary, HostId, ReservationId
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S, Instant
from scheduler.core.windows import Window
from tests.property.worlds import MIDNIGHT, Odds, World, nights, rules, world


def at(hour: float) -> Instant:
    return MIDNIGHT + round(hour * HOUR_S)


def lived_from_8(**more: Any) -> World:
    made = world(1, odds=Odds(ignores_grace=0), **more)
    made.now = at(8)
    made.look()
    return made


def each_night(*hosts: str) -> tuple[Window, ...]:
    """Return nights that open whether anybody has asked for them or not."""
    names = [HostId(host) for host in hosts]
    return nights(names, from_at=MIDNIGHT, until_at=MIDNIGHT + 15 * DAY_S, only_if_queued=False)


def long_ask(owner: str, hours: float, **more: Any) -> Ask:
    return Ask(**{"owner": owner, "queue": "interactive", "gpus": 8, "run_s": round(hours * HOUR_S), **more})


def ask(made: World, owner: str, hours: float, **more: Any) -> Decided:
    decided = made.file(Submit(ask=long_ask(owner, hours, **more))).decided[-1]
    made.look()
    return decided


def reserve(made: World, owner: str, hours: float, **more: Any) -> ReservationId:
    decided = ask(made, owner, hours, **more)
    assert not decided.reasons, [sentence(one) for one in decided.reasons]
    assert decided.reservation is not None
    return decided.reservation


def course(made: World, owner: str, hours: float, hour: float, **more: Any) -> ReservationId:
    """Reserve for a fixed time."""
    return reserve(made, owner, hours, not_before_at=at(hour), start_by_at=at(hour), **more)


def cancel(made: World, *keys: ReservationId) -> None:
    for key in keys:
        made.file(Cancel(reservation=key))
    made.look()


def of(made: World, key: ReservationId) -> Reservation:
    return made.plan.reservations[key]


def ahead(made: World, key: ReservationId) -> list[BookedSpan]:
    return [span for span in of(made, key).spans if span.start_at > made.now]


def lose_a_gpu(made: World, span: BookedSpan) -> None:
    gpu = min(made.plan.hosts[span.host].profile.partition(span.partition).gpus)
    made.set_gpu(span.host, gpu, GpuState.QUARANTINED)
    made.look()


def raised(made: World) -> list[str | None]:
    """Return whose promise was raised."""
    return [told.reservation for _, change in made.changes for told in change.events if told.kind == "promise.raised"]


def half_a_course_tomorrow() -> World:
    """Return 15:00 on a host of which one half is in use until 19:00; on the other there is a course tomorrow."""
    made = lived_from_8()
    reserve(made, "ben", 11)
    course(made, "cyd", 8, 33)
    made.run_until(at(15))
    return made


def one_waits_beside_a_free_half() -> World:
    """Return 15:00 on a host of which one half has just come free, and one that waits for all its hours on either.

    On both there is a course tomorrow.
    """
    made = lived_from_8()
    reserve(made, "ben", 11)
    leaves = reserve(made, "eve", 10.5)
    for number in range(2):
        course(made, f"cyd{number}", 8, 33)
    made.run_until(at(14))
    waits = reserve(made, "wai", 10)
    made.run_until(at(15))
    cancel(made, leaves)
    assert of(made, waits).spans[0].start_at > at(15)
    return made


def test_who_comes_where_nobody_waits_starts_at_once_and_goes_on_elsewhere() -> None:
    made = half_a_course_tomorrow()
    mine = of(made, reserve(made, "stu", 10))
    assert mine.spans[0].start_at == at(15)
    assert not is_of_one_partition(mine.spans)
    assert not made.problems


def test_who_waits_for_tonight_keeps_nobody_from_starting_now() -> None:
    made = half_a_course_tomorrow()
    reserve(made, "hpc", 4, queue="hpc", gpus=16)
    assert of(made, reserve(made, "stu", 10)).spans[0].start_at == at(15)


def test_who_could_not_run_to_its_end_before_the_night_keeps_nobody_from_starting_now() -> None:
    made = half_a_course_tomorrow()
    reserve(made, "wai", 6, at_boundary=AtBoundary.FINISH)
    assert of(made, reserve(made, "stu", 10)).spans[0].start_at == at(15)


def test_who_comes_where_others_wait_takes_one_partition_or_waits_too() -> None:
    made = one_waits_beside_a_free_half()
    mine = of(made, reserve(made, "stu", 10))
    assert mine.spans[0].start_at > at(15)
    assert is_of_one_partition(mine.spans)


def test_a_deadline_is_kept_in_pieces_where_one_partition_is_too_late() -> None:
    made = one_waits_beside_a_free_half()
    mine = of(made, reserve(made, "stu", 10, start_by_at=at(16)))
    assert mine.promise is not None
    assert mine.promise.start_by_at <= at(16)
    assert mine.spans[0].start_at == at(15)
    made.run_until(at(70))
    assert not made.problems


def test_who_waits_for_one_partition_is_offered_several_and_can_have_them() -> None:
    made = one_waits_beside_a_free_half()
    told = quote(
        made.plan, made.facts, long_ask("stu", 10), made.now, made.settings, most_alternatives=alternatives.MOST
    )
    split = next(one for one in told.alternatives if one.change is Change.SPLIT)
    assert split.start_at == at(15)
    mine = reserve(made, "stu", 10)
    reasons = why(made.plan, made.facts, of(made, mine), made.now, made.settings)
    assert ReasonCode.SOONER_IN_PIECES in {one.code for one in reasons}
    cancel(made, mine)
    # Who thinks about it for ten minutes can have it still.
    made.run_until(at(15) + 10 * MINUTE_S)
    decided = made.file(Submit(ask=split.ask)).decided[-1]
    assert not decided.reasons, [sentence(one) for one in decided.reasons]


def test_who_begins_in_time_on_one_partition_is_offered_no_others() -> None:
    made = half_a_course_tomorrow()
    told = quote(made.plan, made.facts, long_ask("stu", 4), made.now, made.settings, most_alternatives=5)
    assert not told.alternatives


def test_who_lost_its_place_does_not_wait_for_itself() -> None:
    made = lived_from_8(hosts={"a": "a", "b": "b"})
    tenants = [reserve(made, f"u{number}", 11 + number / 10) for number in range(4)]
    by_place = {(of(made, key).spans[0].host, of(made, key).spans[0].partition): key for key in tenants}
    courses = [course(made, f"course{number}", 2, 33) for number in range(3)]
    before = of(made, courses[0]).spans[0]
    made.run_until(at(15))
    mine = reserve(made, "ada", 10)
    promised = of(made, mine).promise
    made.run_until(at(15.5))
    cancel(made, by_place[before.host, before.partition])
    made.run_until(at(15.75))
    lose_a_gpu(made, of(made, mine).spans[0])
    assert of(made, mine).promise == promised
    assert not raised(made)
    assert not made.problems


def parked_between_courses() -> tuple[World, ReservationId]:
    """Return 22:00, with one parked that goes on in the morning; only host a has nights.

    On a it would run on one partition into the next night and end after it; from a to b it ends as promised.
    """
    hosts = {"a": "s", "b": "s"}
    made = lived_from_8(hosts=hosts, windows=each_night("a"))
    for number in range(2):
        reserve(made, f"z{number}", 35.7, at_boundary=AtBoundary.FINISH)
    courses = [course(made, f"c{number}", 11, 57, at_boundary=AtBoundary.FINISH) for number in range(4)]
    made.run_until(at(9))
    mine = reserve(made, "ada", 30)
    made.run_until(at(19.5))
    cancel(made, *(key for key in courses if of(made, key).spans[0].host == "a"))
    made.run_until(at(22))
    return made, mine


def test_who_resumes_after_a_lost_gpu_ends_as_promised_though_in_pieces() -> None:
    made, mine = parked_between_courses()
    lose_a_gpu(made, ahead(made, mine)[0])
    assert not raised(made)
    made.run_until(at(80))
    assert not made.problems


def test_a_policy_that_moves_a_resume_is_applied_where_pieces_keep_its_promise() -> None:
    made, _ = parked_between_courses()
    earlier = nights(
        [HostId("a")],
        from_at=made.now,
        until_at=made.plan.horizon_at,
        version=2,
        start_s=20 * HOUR_S - 10 * MINUTE_S,
        length_s=12 * HOUR_S + 10 * MINUTE_S,
        only_if_queued=False,
    )
    decided = made.file(
        ApplyPolicy(
            rules=rules(2),
            windows=earlier,
            hosts=frozenset(made.plan.hosts),
            horizon_at=made.plan.horizon_at,
            text="earlier",
        )
    ).decided[-1]
    assert not decided.reasons, [sentence(one) for one in decided.reasons]
