"""Who has not ended, in parts that are followed from change to change."""

from dataclasses import replace

from scheduler.core.plan import Outcome, Reservation
from scheduler.core.planner.live import Live
from scheduler.core.requests import ReservationId
from tests.scheduler.store.values import reservation

ONE, TWO, THREE = (reservation(f"r-{number}") for number in (1, 2, 3))


def live_of(*reservations: Reservation) -> Live:
    live = Live()
    live.refill(reservations)
    return live


def test_one_that_starts_goes_from_one_part_to_the_other_and_keeps_its_place_among_all() -> None:
    live = live_of(ONE, TWO, THREE)
    started = replace(TWO, generation=1)
    live.put(started)
    assert list(live.all.values()) == [ONE, started, THREE]
    assert list(live.unstarted.values()) == [ONE, THREE]
    assert list(live.started.values()) == [started]


def test_one_that_has_ended_is_in_no_part() -> None:
    of_policy = replace(TWO, request=replace(TWO.request, key="course"))
    live = live_of(ONE, of_policy, replace(THREE, generation=2))
    assert list(live.of_policy) == [TWO.id]
    for one in (ONE, of_policy, THREE):
        live.put(replace(one, outcome=Outcome.CANCELLED))
    assert not any((live.all, live.unstarted, live.started, live.of_policy))
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
    live = live_of(ONE, replace(TWO, generation=1))
    live.refill([THREE])
    assert list(live.all.values()) == list(live.unstarted.values()) == [THREE]
    assert not live.started
    assert sum(map(len, live.by_sort.values())) == 1
