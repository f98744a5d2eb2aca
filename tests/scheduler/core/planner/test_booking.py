"""Bookings move only so that promises hold; each test tells the story of a case that once went wrong."""

from dataclasses import replace

from scheduler.core.facts import GpuState
from scheduler.core.intents import ApplyPolicy, Cancel, Drain, Extend, Stop, Submit
from scheduler.core.plan import Limits, Reservation
from scheduler.core.reasons import ReasonCode
from scheduler.core.requests import Ask, AtBoundary, HostId, ReservationId
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S
from tests.property.worlds import MIDNIGHT, World, nights, rules, world

HOST = HostId("dgx2-a")


def submit(made: World, **ask: object) -> ReservationId:
    usual = {"owner": "ada", "queue": "interactive", "gpus": 1, "run_s": 3 * HOUR_S}
    made.file(Submit(ask=Ask(**{**usual, **ask})))  # type: ignore[arg-type]
    return ReservationId(f"r-{made.seq}")


def get(made: World, key: ReservationId) -> Reservation:
    return made.plan.reservations[key]


def last_reasons(made: World) -> list[ReasonCode]:
    return [r.code for r in made.changes[-1][1].decided[-1].reasons if r.code is not ReasonCode.INSTEAD]


def test_a_latest_start_that_cannot_be_promised_is_refused_with_the_earliest_that_can() -> None:
    made = world()
    for _ in range(2):
        submit(made, gpus=8)
    submit(made, gpus=8, start_by_at=made.now + HOUR_S)
    assert last_reasons(made) == [ReasonCode.NOT_AT_THAT_TIME]
    why, instead = made.changes[-1][1].decided[-1].reasons
    assert instead.code is ReasonCode.INSTEAD
    earliest_at = why.fact("earliest_at")
    assert isinstance(earliest_at, int)
    assert earliest_at > made.now + HOUR_S
    accepted = submit(made, gpus=8, start_by_at=earliest_at)
    promise = get(made, accepted).promise
    assert promise is not None
    assert promise.start_by_at == earliest_at


def test_a_continued_reservation_can_still_be_replanned_after_the_one_before_it_is_closed() -> None:
    made = world()
    one = submit(made, gpus=8)
    made.run_until(made.now + HOUR_S)
    made.file(Stop(reservation=one))
    blocker = submit(made, gpus=8, run_s=5 * HOUR_S)
    submit(made, gpus=8, run_s=5 * HOUR_S)
    two = submit(made, gpus=8, continues=one)
    made.run_until(made.now + HOUR_S)
    assert one not in made.plan.reservations, "closed, and out of the plan"
    before = get(made, two).spans
    made.file(Cancel(reservation=blocker))
    assert get(made, two).spans[0].start_at < before[0].start_at
    assert made.problems == []


def test_a_disk_that_is_continued_or_extended_never_overfills_the_pool() -> None:
    made = world(profile="dgx-2/small-pool", retention_s=DAY_S)
    made.run_until(made.now + 8 * HOUR_S)
    one = submit(made, gpus=8, run_s=HOUR_S, disk_gib=1000)
    made.run_until(made.now + 2 * HOUR_S)
    kept_until_at = made.plan.disks[get(made, one).disk or next(iter(made.plan.disks))].until_at
    # From there on the whole pool is somebody else's.
    for _ in range(2):
        submit(made, gpus=8, run_s=2 * HOUR_S, disk_gib=1000, not_before_at=kept_until_at + HOUR_S)
    submit(made, gpus=8, run_s=11 * HOUR_S, continues=one, not_before_at=kept_until_at - HOUR_S)
    assert last_reasons(made) == [ReasonCode.NEVER_FITS]
    assert made.problems == []


def test_a_span_that_has_begun_is_not_placed_anew_while_it_is_handed_over() -> None:
    made = world()
    made.now += 9 * HOUR_S
    one = submit(made)
    begun = get(made, one).spans
    made.now += 60
    host = made.plan.rules
    assert host is not None
    windows = nights([HOST], from_at=made.now, until_at=made.plan.horizon_at, version=2)
    change = made.file(
        ApplyPolicy(
            rules=rules(2),
            windows=windows,
            hosts=frozenset(made.plan.hosts),
            horizon_at=made.plan.horizon_at,
            text="the same nights",
        )
    )
    assert change.decided[-1].is_accepted, "a hand-over that is under way holds up no policy"
    assert get(made, one).spans == begun
    made.file(Extend(reservation=one, by_s=HOUR_S))
    assert get(made, one).spans == (replace(begun[0], end_at=begun[0].end_at + HOUR_S),)


def test_hours_are_counted_by_the_old_rules_when_a_policy_gives_more_grace() -> None:
    made = world()
    made.now += 9 * HOUR_S
    parked = submit(made, run_s=20 * HOUR_S)
    made.look()
    slow = rules(2, grace_s=900)
    windows = nights([HOST], from_at=made.now, until_at=made.plan.horizon_at, version=2, grace_s=900)
    change = made.file(
        ApplyPolicy(
            rules=slow, windows=windows, hosts=frozenset(made.plan.hosts), horizon_at=made.plan.horizon_at, text="slow"
        )
    )
    assert not change.decided[-1].is_accepted, "ten minutes more grace is ten minutes less of the promised hours"
    assert change.decided[-1].reasons[0].fact("reservation") == parked
    assert made.problems == []


def test_a_booking_on_a_lost_gpu_does_not_hold_up_a_policy_that_leaves_it_alone() -> None:
    made = world()
    job = submit(made, queue="hpc", gpus=16)
    made.set_gpu(HOST, 3, GpuState.QUARANTINED)
    made.step()
    assert get(made, job).spans, "there is no other place for it: it stays where it is, in case the GPU is mended"
    windows = nights([HOST], from_at=made.now, until_at=made.plan.horizon_at, version=2)
    change = made.file(
        ApplyPolicy(
            rules=rules(2),
            windows=windows,
            hosts=frozenset(made.plan.hosts),
            horizon_at=made.plan.horizon_at,
            text="same",
        )
    )
    assert change.decided[-1].is_accepted


def test_a_booking_left_on_a_drained_host_does_not_hold_up_the_gift_to_others() -> None:
    made = world()
    made.now += 10 * HOUR_S
    running = submit(made, gpus=8, run_s=14 * HOUR_S)
    made.look()
    made.file(Drain(host=HOST))
    made.run_until(MIDNIGHT + 19 * HOUR_S)
    (only,) = get(made, running).spans
    assert only.end_at > MIDNIGHT + 20 * HOUR_S, "it runs on, although the host is drained"
    assert made.problems == []


def test_when_room_comes_free_behind_a_guest_it_runs_on_without_a_second_start() -> None:
    made = world(windows=())
    made.now += 9 * HOUR_S
    # Everything is busy but the block of one tenant, whose extension is booked behind somebody else.
    one = submit(made, gpus=8, run_s=2 * HOUR_S)
    submit(made, gpus=8, run_s=30 * HOUR_S)
    behind = submit(made, gpus=8, run_s=4 * HOUR_S)
    made.look()
    made.file(Extend(reservation=one, by_s=HOUR_S))
    assert last_reasons(made) == [ReasonCode.NO_ROOM_TO_EXTEND]
    made.file(Cancel(reservation=behind))
    made.file(Extend(reservation=one, by_s=HOUR_S))
    assert len(get(made, one).spans) == 1
    made.run_until(made.now + DAY_S)
    assert len({vm.generation for h in made.facts.values() for vm in h.vms if vm.reservation == one}) == 1
    assert made.problems == []


def test_moving_up_gives_nobody_more_gpus_at_once_than_the_limit() -> None:
    made = world(limits=Limits(gpus_at_once=8), windows=())
    made.now += 9 * HOUR_S
    blocker = submit(made, owner="ben", gpus=8, run_s=5 * HOUR_S)
    submit(made, owner="cyd", gpus=8, run_s=2 * HOUR_S)
    submit(made, owner="ada", gpus=8, run_s=HOUR_S)
    later = submit(made, owner="ada", gpus=8, run_s=HOUR_S)
    if later not in made.plan.reservations:
        later = submit(made, owner="ada", gpus=8, run_s=HOUR_S, not_before_at=made.now + 8 * HOUR_S)
    made.file(Cancel(reservation=blocker))
    mine = [r for r in made.live() if r.request.owner == "ada"]
    assert len(mine) == 2
    first, second = sorted((r.spans[0] for r in mine), key=lambda s: s.start_at)
    assert first.end_at <= second.start_at


def test_what_was_to_start_at_one_instant_is_moved_at_once_when_its_gpus_are_lost() -> None:
    made = world(windows=(), hosts={"dgx2-a": "a"})
    made.now += 9 * HOUR_S
    at = made.now + 2 * HOUR_S
    for _ in range(2):
        submit(made, gpus=4, not_before_at=at, start_by_at=at)
    job = submit(made, gpus=8, not_before_at=at, start_by_at=at, at_boundary=AtBoundary.FINISH)
    gpu = min(made.plan.hosts[HOST].profile.partition(get(made, job).spans[0].partition).gpus)
    made.set_gpu(HOST, gpu, GpuState.QUARANTINED)
    made.step()
    moved = get(made, job)
    assert moved.spans[0].start_at > at
    assert moved.promise_notice == 1, "told at once, not when its time has passed"
    assert made.problems == []


def test_a_cancelled_booking_that_never_began_is_closed_in_the_same_step() -> None:
    made = world()
    one = submit(made, not_before_at=made.now + 5 * HOUR_S + MINUTE_S)
    made.file(Cancel(reservation=one))
    assert one not in made.plan.reservations
    assert made.problems == []
