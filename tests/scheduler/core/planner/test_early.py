"""Early starts: who waits starts as soon as that leaves a plan in which every promise holds."""

from functools import partial

import pytest

from scheduler.core.intents import AddHost, Cancel, Extend, FiledIntent, Stop, Submit
from scheduler.core.plan import Limits, Queue, Reservation
from scheduler.core.planner.step import step
from scheduler.core.reasons import ReasonCode
from scheduler.core.requests import Ask, AtBoundary, HostId, ReservationId, Role
from scheduler.core.rules import OrderKind, QueueOrder, Slack
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S
from scheduler.profiles.loading import load_profile
from tests.property.worlds import MIDNIGHT, World, world

HOST = HostId("dgx2-a")


def submit(made: World, **ask: object) -> ReservationId:
    usual = {"owner": "ada", "queue": "interactive", "gpus": 8, "run_s": 4 * HOUR_S}
    made.file(Submit(ask=Ask(**{**usual, **ask})))  # type: ignore[arg-type]
    return ReservationId(f"r-{made.seq}")


def get(made: World, key: ReservationId) -> Reservation:
    return made.plan.reservations[key]


def start_of(made: World, key: ReservationId) -> int:
    return get(made, key).spans[0].start_at


def full() -> tuple[World, ReservationId, ReservationId]:
    """A host without nights, whose two halves are taken for ten hours."""
    made = world(windows=())
    return made, submit(made, run_s=10 * HOUR_S), submit(made, run_s=10 * HOUR_S)


def test_who_cannot_be_parked_starts_as_soon_as_a_night_is_given_away() -> None:
    made = world()
    made.now = MIDNIGHT + 15 * HOUR_S
    made.look()
    key = submit(made, run_s=8 * HOUR_S, at_boundary=AtBoundary.FINISH)
    other = submit(made, gpus=1)
    made.look()
    assert start_of(made, key) >= MIDNIGHT + 32 * HOUR_S
    # All that wait are tried a few minutes before.
    made.run_until(MIDNIGHT + 18 * HOUR_S + 40 * MINUTE_S)
    made.file(Cancel(reservation=other))
    made.run_until(MIDNIGHT + 20 * HOUR_S)
    night = next(window for window in made.plan.windows.values() if window.start_at == MIDNIGHT + 20 * HOUR_S)
    assert start_of(made, key) == night.decide_at
    assert not made.problems


def test_a_booking_stays_at_its_promise_until_it_can_start() -> None:
    made, one, _ = full()
    waiting, later = submit(made), submit(made, run_s=20 * HOUR_S)
    last = submit(made, run_s=HOUR_S)
    before = start_of(made, last)
    made.file(Cancel(reservation=later))
    assert start_of(made, last) == before, "there is room before it, but not now"
    made.run_until(made.now + HOUR_S)
    made.file(Stop(reservation=one))
    assert start_of(made, last) == made.now, "the shortest is tried first"
    assert start_of(made, waiting) > made.now
    made.run_until(made.now + 2 * DAY_S)
    assert made.problems == []


def test_a_short_one_starts_before_a_long_one_that_was_there_first_if_that_still_has_its_place() -> None:
    made, one, _ = full()
    long = submit(made, run_s=30 * HOUR_S)
    promised = get(made, long).promise
    assert promised is not None
    short = submit(made, run_s=2 * HOUR_S)
    made.run_until(made.now + HOUR_S)
    made.file(Stop(reservation=one))
    assert start_of(made, short) == made.now
    made.run_until(made.now + 3 * DAY_S)
    assert made.problems == [], "the checker has seen that each promise was kept"


def test_nobody_starts_early_over_a_promise_that_has_no_other_place() -> None:
    made, one, _ = full()
    wide = submit(made, gpus=8, run_s=30 * HOUR_S), submit(made, gpus=8, run_s=30 * HOUR_S)
    made.run_until(made.now + HOUR_S)
    late = submit(made, run_s=12 * HOUR_S)
    starts = [start_of(made, key) for key in wide]
    made.file(Stop(reservation=one))
    # Twelve hours from now on would lie over both, and each has its half by its promise only.
    assert start_of(made, late) > made.now
    assert [start_of(made, key) for key in wide] == [made.now, starts[1]] or starts == [
        start_of(made, key) for key in wide
    ]
    made.run_until(made.now + 5 * DAY_S)
    assert made.problems == []


@pytest.mark.parametrize(
    ("kind", "first"), [(OrderKind.FIRST_COME, "long"), (OrderKind.SHORTEST_FIRST, "short"), (None, "short")]
)
def test_the_order_of_the_queue_says_who_is_tried_first(kind: OrderKind | None, first: str) -> None:
    order = None if kind is None else QueueOrder(kind=kind)
    queues = (Queue(name="interactive", order=order), Queue(name="hpc"))
    made = world(windows=(), queues=queues)
    one, two = submit(made, run_s=10 * HOUR_S), submit(made, run_s=10 * HOUR_S)
    asked = {"long": submit(made, run_s=6 * HOUR_S), "short": submit(made, run_s=2 * HOUR_S)}
    made.run_until(made.now + HOUR_S)
    made.file(Stop(reservation=one))
    assert start_of(made, asked[first]) == made.now
    assert [key for key, name in asked.items() if start_of(made, name) == made.now] == [first]
    assert start_of(made, two) < made.now


def test_an_early_start_keeps_its_owner_within_the_limit_of_gpus() -> None:
    made = world(windows=(), limits=Limits(gpus_at_once=8))
    one = submit(made, owner="bob", run_s=10 * HOUR_S)
    submit(made, owner="ada", run_s=10 * HOUR_S)
    mine = submit(made, owner="ada", run_s=2 * HOUR_S)
    made.run_until(made.now + HOUR_S)
    made.file(Stop(reservation=one))
    assert start_of(made, mine) > made.now
    made.run_until(made.now + 2 * DAY_S)
    assert made.problems == []


def test_what_was_asked_for_at_one_time_is_neither_started_early_nor_put_off() -> None:
    made, one, _ = full()
    at = MIDNIGHT + 12 * HOUR_S
    timed = submit(made, not_before_at=at, start_by_at=at, run_s=HOUR_S)
    fixed = start_of(made, timed)
    short = submit(made, run_s=2 * HOUR_S)
    made.run_until(made.now + HOUR_S)
    made.file(Stop(reservation=one))
    assert start_of(made, timed) == fixed
    assert start_of(made, short) == made.now
    assert made.problems == []


def test_who_may_not_start_before_an_instant_starts_then_if_there_is_room() -> None:
    made = world(windows=())
    submit(made, run_s=10 * HOUR_S)
    other = submit(made, run_s=10 * HOUR_S)
    later = submit(made, not_before_at=MIDNIGHT + 3 * HOUR_S, run_s=2 * HOUR_S)
    assert start_of(made, later) > MIDNIGHT + 3 * HOUR_S
    made.run_until(made.now + HOUR_S)
    made.file(Stop(reservation=other))
    assert start_of(made, later) > made.now
    made.run_until(MIDNIGHT + 4 * HOUR_S)
    assert get(made, later).spans[0].start_at == MIDNIGHT + 3 * HOUR_S
    assert made.problems == []


def test_an_extension_moves_who_has_another_place_by_their_promise() -> None:
    made = world(windows=())
    one = submit(made, run_s=3 * HOUR_S, at_boundary=AtBoundary.FINISH)
    other = submit(made, run_s=10 * HOUR_S)
    waiting = submit(made, not_before_at=MIDNIGHT + 2 * HOUR_S, run_s=HOUR_S)
    before = get(made, waiting)
    assert before.spans[0].partition == get(made, one).spans[0].partition
    made.run_until(made.now + HOUR_S)
    made.file(Stop(reservation=other))
    made.file(Extend(reservation=one, by_s=6 * HOUR_S))
    assert made.changes[-1][1].decided[-1].is_accepted
    assert len(get(made, one).spans) == 1, "it just runs on"
    assert get(made, waiting).promise == before.promise
    assert get(made, waiting).spans[0].partition != before.spans[0].partition
    made.run_until(made.now + 2 * DAY_S)
    assert made.problems == []


def test_an_extension_over_somebody_without_another_place_is_refused() -> None:
    made = world(windows=())
    one = submit(made, run_s=10 * HOUR_S, at_boundary=AtBoundary.FINISH)
    submit(made, run_s=10 * HOUR_S)
    waiting = [submit(made, run_s=20 * HOUR_S) for _ in range(2)]
    before = [get(made, key) for key in waiting]
    made.run_until(made.now + HOUR_S)
    made.file(Extend(reservation=one, by_s=HOUR_S))
    (why,) = made.changes[-1][1].decided[-1].reasons
    assert why.code is ReasonCode.NO_ROOM_TO_EXTEND
    assert [get(made, key) for key in waiting] == before
    assert made.problems == []


def test_whoever_waits_starts_when_the_night_is_over() -> None:
    made = world()
    made.run_until(MIDNIGHT + 19 * HOUR_S)
    waiting = submit(made, gpus=8, run_s=9 * HOUR_S, at_boundary=AtBoundary.FINISH)
    assert get(made, waiting).promise is not None
    made.run_until(MIDNIGHT + 34 * HOUR_S)
    assert made.problems == []


def test_a_stated_slack_makes_promises_later_for_those_who_wait_and_lets_short_ones_start_first() -> None:
    made = world(windows=(), slack=Slack(least_s=2 * HOUR_S, share=0.25))
    first, second = submit(made, run_s=10 * HOUR_S), submit(made, run_s=20 * HOUR_S)
    promise = get(made, first).promise
    assert promise is not None
    assert promise.start_by_at < made.now + HOUR_S, "who need not wait is told so"
    long = submit(made, run_s=12 * HOUR_S)
    tight = world(windows=())
    for run_s in (10, 20):
        submit(tight, run_s=run_s * HOUR_S)
    told, earliest = get(made, long).promise, get(tight, submit(tight, run_s=12 * HOUR_S)).promise
    assert told is not None
    assert earliest is not None
    assert 2 * HOUR_S <= told.start_by_at - earliest.start_by_at <= 3 * HOUR_S
    assert told.end_by_at - earliest.end_by_at == told.start_by_at - earliest.start_by_at
    made.run_until(made.now + 3 * DAY_S)
    assert made.problems == []
    assert second


def _used(used: dict[str, float], owner: str, _half_life_s: int, _now: int) -> float:
    return used.get(owner, 0.0)


def test_by_fair_share_who_has_used_least_is_tried_first() -> None:
    queues = (Queue(name="interactive", order=QueueOrder(kind=OrderKind.FAIR_SHARE)), Queue(name="hpc"))
    made = world(windows=(), queues=queues)
    one, _ = submit(made, run_s=10 * HOUR_S), submit(made, run_s=10 * HOUR_S)
    short = submit(made, owner="ada", run_s=2 * HOUR_S)
    long = submit(made, owner="bob", run_s=6 * HOUR_S)
    made.run_until(made.now + HOUR_S)
    plan = made.plan
    for used, first in (({"ada": 9.0, "bob": 1.0}, long), ({"ada": 1.0, "bob": 9.0}, short), ({}, short)):
        stop = FiledIntent(seq=99, at=made.now, author="root", role=Role.ADMIN, intent=Stop(reservation=one))
        change = step(
            plan,
            (stop,),
            made.facts,
            made.now,
            settings=made.settings,
            profiles=load_profile,
            used_gpu_s=partial(_used, used),
        )
        started = [r.id for r in change.reservations if r.spans and r.spans[0].start_at == made.now]
        assert started == [first]


def add_host(made: World, host: str, storage: str, profile: str) -> None:
    made.file(
        AddHost(
            host=HostId(host),
            profile=profile,
            storage=storage,
            policy_version=1,
            horizon_at=made.plan.horizon_at,
        )
    )


@pytest.mark.parametrize("kept_gib", [100, 900])
def test_a_full_pool_on_one_host_does_not_keep_anybody_from_starting_on_another(kept_gib: int) -> None:
    made = world(hosts={"h1": "a"}, windows=(), profile="dgx-2/small-pool")
    add_host(made, "h2", "b", "dgx-2/small-pool")
    for _ in range(2):
        submit(made, run_s=HOUR_S // 2, disk_gib=kept_gib)
    made.run_until(made.now + 2 * HOUR_S)
    others = [submit(made, owner=f"k{n}", run_s=(4 if n < 2 else 3) * HOUR_S, disk_gib=10) for n in range(4)]
    made.run_until(made.now + 15 * 60)
    one = submit(made, owner="carl", run_s=2 * HOUR_S, disk_gib=1000)
    assert start_of(made, one) > made.now
    made.file(*[Cancel(reservation=others[n]) for n in (0, 2, 3)])
    made.run_until(made.now + HOUR_S)
    assert start_of(made, one) <= made.now
    assert made.problems == []


def test_others_give_way_where_the_disk_of_one_has_room_though_gpus_are_free_elsewhere() -> None:
    made = world(
        hosts={"h1": "a"}, windows=(), profile="dgx-2/small-pool", slack=Slack(least_s=12 * HOUR_S, share=0.25)
    )
    for _ in range(2):
        submit(made, run_s=HOUR_S // 2, disk_gib=1000)
    made.run_until(made.now + 2 * HOUR_S)
    # From here on the pool of h1 is full of kept disks, and its GPUs are free.
    add_host(made, "h2", "b", "dgx-2/small-pool")
    running = [submit(made, owner=f"k{n}", run_s=4 * HOUR_S, disk_gib=100) for n in range(2)]
    long = submit(made, owner="bob", run_s=20 * HOUR_S, disk_gib=100)
    short = submit(made, owner="carl", run_s=16 * HOUR_S, disk_gib=100)
    assert {get(made, key).spans[0].host for key in (*running, long, short)} == {"h2"}
    made.run_until(made.now + HOUR_S)
    half = get(made, long).spans[0].partition
    made.file(Cancel(reservation=next(key for key in running if get(made, key).spans[0].partition == half)))
    assert start_of(made, short) == made.now
    assert get(made, short).spans[0].partition == half
    assert get(made, long).spans[0].partition != half, "it gave way"
    made.run_until(made.now + 3 * DAY_S)
    assert made.problems == []


@pytest.mark.parametrize("profile", ["dgx-2", "dgx-2/small-pool"])
def test_whoever_waits_starts_early_on_a_host_of_another_kind_too(profile: str) -> None:
    made = world(windows=())
    add_host(made, "h2", "b", profile)
    others = [submit(made, owner=f"k{n}", run_s=(4 if n < 2 else 8) * HOUR_S) for n in range(4)]
    one = submit(made, owner="carl", run_s=3 * HOUR_S)
    made.run_until(made.now + HOUR_S // 2)
    for key in others:
        if get(made, key).spans[0].host == "h2":
            made.file(Cancel(reservation=key))
    made.run_until(made.now + HOUR_S // 2)
    assert start_of(made, one) <= made.now
    assert made.problems == []


def test_hosts_are_numbered_by_name_however_they_came() -> None:
    made = world(hosts={"h5": "b"}, windows=())
    add_host(made, "h1", "a", "dgx-2")
    for _ in range(3):
        submit(made, gpus=4)
    assert made.problems == [], "the board that is kept gives what a new one gives"
