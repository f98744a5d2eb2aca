"""What people were told of their wait, read back from the record, and what it makes likely for others."""

from scheduler.core.calendar.likely import FEWEST
from scheduler.core.plan import Event, event
from scheduler.core.requests import ReservationId
from scheduler.core.spans import HOUR_S
from scheduler.service.waits import Score, WaitsCache, score
from scheduler.store.store import Store

AT = 1_772_434_800


def told(number: int, *, wait_s: int, gpus: int = 2, at: int = AT) -> Event:
    return event(
        "reservation.promised",
        at,
        reservation=ReservationId(f"r-{number}"),
        gpus=gpus,
        start_by_at=at + wait_s,
        end_by_at=at + wait_s + HOUR_S,
        booked_at=at + wait_s,
        likely_at=at + wait_s,
        not_before_at=None,
    )


def ran(number: int, at: int) -> Event:
    return event("vm.running", at, reservation=ReservationId(f"r-{number}"), generation=1)


def test_without_a_record_what_is_told_is_what_is_likely(store: Store) -> None:
    assert WaitsCache(store).likely_wait_s(2, 8 * HOUR_S) == 8 * HOUR_S


def test_a_wait_is_likely_to_be_the_part_of_it_that_others_waited(store: Store) -> None:
    waits = WaitsCache(store)
    for number in range(FEWEST):
        store.append_events((told(number, wait_s=8 * HOUR_S),))
        store.append_events((ran(number, AT + 2 * HOUR_S),))
    assert waits.likely_wait_s(2, 8 * HOUR_S) == 2 * HOUR_S
    assert waits.likely_wait_s(16, 100 * HOUR_S) == 25 * HOUR_S, "of another kind all that is known counts"
    assert waits.likely_wait_s(2, 0) == 0


def test_only_the_first_running_guest_counts_and_what_is_new_is_read_once(store: Store) -> None:
    waits = WaitsCache(store)
    for number in range(FEWEST):
        store.append_events((told(number, wait_s=8 * HOUR_S), ran(number, AT + 4 * HOUR_S)))
    assert waits.likely_wait_s(2, 8 * HOUR_S) == 4 * HOUR_S
    store.append_events(tuple(ran(number, AT + 100 * HOUR_S) for number in range(FEWEST)))
    assert waits.likely_wait_s(2, 8 * HOUR_S) == 4 * HOUR_S
    assert WaitsCache(store).likely_wait_s(2, 8 * HOUR_S) == 4 * HOUR_S


def test_one_reservation_is_scored_by_what_it_was_told(store: Store) -> None:
    assert score(store, ReservationId("r-1")) is None
    store.append_events((told(1, wait_s=3 * HOUR_S, gpus=8),))
    asked = Score(gpus=8, told_s=3 * HOUR_S, likely_s=3 * HOUR_S, waited_s=None)
    assert score(store, ReservationId("r-1")) == asked
    store.append_events((ran(1, AT + HOUR_S), ran(1, AT + 9 * HOUR_S)))
    assert score(store, ReservationId("r-1")) == Score(gpus=8, told_s=3 * HOUR_S, likely_s=3 * HOUR_S, waited_s=HOUR_S)


def test_an_event_of_an_earlier_version_is_passed_over(store: Store) -> None:
    old = event("reservation.promised", AT, reservation=ReservationId("r-1"), start_by_at=AT, end_by_at=AT)
    store.append_events((old, ran(1, AT + HOUR_S)))
    assert score(store, ReservationId("r-1")) is None
    assert WaitsCache(store).likely_wait_s(2, HOUR_S) == HOUR_S
