"""Who has not ended, in parts that are followed from change to change."""

from dataclasses import replace

from scheduler.core.plan import BookedSpan, Outcome, Reservation
from scheduler.core.planner.live import Live
from scheduler.core.requests import HostId, ReservationId
from scheduler.core.spans import HOUR_S
from scheduler.core.topology import PartitionId
from tests.scheduler.store.values import reservation

ONE, TWO, THREE, FOUR = (reservation(f"r-{number}") for number in (1, 2, 3, 4))


def live_of(*reservations: Reservation) -> Live:
    live = Live()
    live.refill(reservations)
    return live


def parked(one: Reservation) -> Reservation:
    first = BookedSpan(start_at=0, end_at=HOUR_S, host=HostId("a"), partition=PartitionId("1g0"), generation=1)
    later = replace(first, start_at=9 * HOUR_S, end_at=10 * HOUR_S, generation=None)
    return replace(one, generation=1, spans=(first, later))


def test_one_that_starts_goes_from_one_part_to_the_other_and_keeps_its_place_among_all() -> None:
    live = live_of(ONE, TWO, THREE)
    started = replace(TWO, generation=1)
    live.put(started)
    assert list(live.all.values()) == [ONE, started, THREE]
    assert list(live.unstarted.values()) == [ONE, THREE]
    assert not live.ahead, "it has nothing to go on with later"


def test_one_that_has_ended_is_in_no_part() -> None:
    of_policy = replace(TWO, request=replace(TWO.request, key="course"))
    live = live_of(ONE, of_policy, replace(THREE, generation=2))
    assert list(live.of_policy) == [TWO.id]
    for one in (ONE, of_policy, THREE):
        live.put(replace(one, outcome=Outcome.CANCELLED))
    assert not any((live.all, live.unstarted, live.ahead, live.of_policy))
    assert not any(live.by_sort.values())
    live.drop(ReservationId("r-9"))


def test_those_of_one_size_and_queue_are_found_together() -> None:
    wide = replace(TWO, request=replace(TWO.request, gpus=8))
    live = live_of(ONE, wide, THREE)
    assert set(live.by_sort[8, wide.request.queue]) == {TWO.id}
    assert set(live.by_sort[ONE.request.gpus, ONE.request.queue]) == {ONE.id, THREE.id}


def test_one_that_comes_back_would_be_last() -> None:
    live = live_of(ONE, THREE)
    assert live.would_be_out_of_order({TWO.id: TWO})
    assert not live.would_be_out_of_order({ONE.id: replace(ONE, generation=1), THREE.id: None})
    assert not live.would_be_out_of_order({TWO.id: replace(TWO, outcome=Outcome.COMPLETED)})
    live.put(replace(ONE, generation=1))
    assert live.would_be_out_of_order({ONE.id: ONE}), "it is not among those that were not started"


def test_a_refilled_one_knows_nothing_of_before() -> None:
    live = live_of(ONE, parked(TWO), parked(FOUR))
    live.rest(FOUR.id)
    live.refill([THREE])
    live.wake("new windows")
    assert list(live.all.values()) == list(live.unstarted.values()) == [THREE]
    assert not live.ahead
    assert sum(map(len, live.by_sort.values())) == 1


def test_who_goes_on_later_and_rests_is_left_alone_until_it_is_changed_or_all_are_woken() -> None:
    one, two = parked(ONE), parked(TWO)
    live = live_of(one, two, THREE)
    live.wake("windows")
    live.rest(ONE.id)
    live.rest(TWO.id)
    live.rest(THREE.id)
    live.wake("windows")
    assert not live.ahead
    live.put(replace(two, restart_after=1))
    assert list(live.ahead) == [TWO.id]
    live.wake("other windows")
    assert live.ahead == {ONE.id: one, TWO.id: replace(two, restart_after=1)}
    live.rest(ONE.id)
    live.put(replace(one, generation=2, spans=tuple(replace(span, generation=2) for span in one.spans)))
    live.drop(TWO.id)
    live.wake("windows")
    assert not live.ahead
