"""How much each owner has used lately, read back from the record."""

from scheduler.core.plan import Event, event
from scheduler.core.requests import ReservationId
from scheduler.core.spans import DAY_S, HOUR_S
from scheduler.service.shares import SharesCache
from scheduler.store.store import Store

AT = 1_772_434_800


def happened(kind: str, number: int, at: int, **facts: str | int) -> Event:
    return event(kind, at, reservation=ReservationId(f"r-{number}"), **facts)  # type: ignore[arg-type]


def test_what_was_used_counts_half_after_a_half_life(store: Store) -> None:
    store.append_events(
        (
            happened("reservation.promised", 1, AT, owner="ada", gpus=4),
            happened("vm.running", 1, AT),
            happened("vm.off", 1, AT + HOUR_S),
        )
    )
    shares = SharesCache(store)
    assert shares.used_gpu_s("ada", DAY_S, AT + HOUR_S) == 4 * HOUR_S
    assert shares.used_gpu_s("ada", DAY_S, AT + HOUR_S + DAY_S) == 2 * HOUR_S
    assert shares.used_gpu_s("bob", DAY_S, AT + HOUR_S) == 0


def test_what_runs_counts_as_far_as_it_has_run_and_only_once_when_it_ends(store: Store) -> None:
    store.append_events(
        (happened("reservation.promised", 1, AT, owner="ada", gpus=2), happened("vm.running", 1, AT)),
    )
    shares = SharesCache(store)
    assert shares.used_gpu_s("ada", DAY_S, AT + HOUR_S) == 2 * HOUR_S
    store.append_events((happened("vm.vanished", 1, AT + 2 * HOUR_S), happened("vm.off", 1, AT + 3 * HOUR_S)))
    assert round(shares.used_gpu_s("ada", 1 << 40, AT + 3 * HOUR_S)) == 4 * HOUR_S


def test_an_event_of_an_earlier_version_counts_for_nobody(store: Store) -> None:
    store.append_events((happened("reservation.promised", 1, AT), happened("vm.running", 1, AT)))
    assert SharesCache(store).used_gpu_s("ada", DAY_S, AT + HOUR_S) == 0
