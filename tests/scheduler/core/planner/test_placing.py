"""Placing where the oracle does not look: long runs, packing, and places that just failed."""

from scheduler.core.plan import BookedSpan, Plan, PlanChange, Reservation, apply
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.placing import Want, place
from scheduler.core.requests import AtBoundary, HostId, Promise, Request, ReservationId
from scheduler.core.spans import DAY_S, HOUR_S
from scheduler.core.topology import PartitionId
from tests.property.worlds import MIDNIGHT, World, nights, world

HOST = HostId("dgx2-a")


def draft(made: World) -> Draft:
    return Draft(made.plan, made.facts, made.now, made.settings)


def want(**changes: object) -> Want:
    usual = {"gpus": 1, "queue": "interactive", "at_boundary": AtBoundary.PARK, "run_s": HOUR_S, "from_at": MIDNIGHT}
    return Want(**{**usual, **changes})  # type: ignore[arg-type]


def test_the_longest_run_fits_between_long_nights() -> None:
    until_at = MIDNIGHT + 90 * DAY_S
    long_nights = nights([HOST], from_at=MIDNIGHT, until_at=until_at, start_s=18 * HOUR_S, length_s=14 * HOUR_S)
    made = world(horizon_days=90, windows=long_nights)
    spans = place(draft(made), want(run_s=30 * DAY_S))
    assert spans is not None
    assert len(spans) > 64


def test_small_requests_are_put_where_least_is_broken_up() -> None:
    made = world(windows=())
    taken = []
    for number in range(5):
        workspace = draft(made)
        spans = place(workspace, want())
        assert spans is not None
        taken.append(str(spans[0].partition))
        partition = made.plan.hosts[HOST].profile.partition(spans[0].partition)
        made.plan = _booked(made, number, partition.id)
    assert taken == ["1g0", "1g1", "1g2", "1g3", "1g4"]


def _booked(made: World, number: int, partition: PartitionId) -> Plan:
    request = Request(
        id=ReservationId(f"r-{100 + number}"),
        owner="ada",
        queue="interactive",
        gpus=1,
        run_s=HOUR_S,
        submitted_at=MIDNIGHT,
        not_before_at=None,
        start_by_at=None,
        at_boundary=AtBoundary.PARK,
        image="ubuntu-24.04",
        disk_gib=10,
    )
    span = BookedSpan(start_at=MIDNIGHT, end_at=MIDNIGHT + DAY_S, host=HOST, partition=partition)
    held = Reservation(request=request, promise=Promise(start_by_at=0, end_by_at=0), spans=(span,))
    return apply(made.plan, PlanChange(reservations=(held,)))


def test_a_place_that_just_failed_is_taken_only_when_there_is_no_other() -> None:
    made = world(windows=())
    first = (HOST, PartitionId("8g0-7"))
    second = (HOST, PartitionId("8g8-15"))
    spans = place(draft(made), want(gpus=8, avoid=frozenset({first})))
    assert spans is not None
    assert spans[0].partition == "8g8-15"
    assert place(draft(made), want(gpus=8, avoid=frozenset({first, second}))) is not None


def test_a_guest_stays_where_it_is_when_its_block_is_free_as_early_as_any() -> None:
    made = world(windows=())
    spans = place(draft(made), want(gpus=4, stay=(HOST, PartitionId("4g12-15"))))
    assert spans is not None
    assert spans[0].partition == "4g12-15"


def test_nothing_is_placed_past_the_horizon() -> None:
    made = world(windows=(), horizon_days=1)
    assert place(draft(made), want(run_s=DAY_S)) is None
    assert place(draft(made), want(from_at=MIDNIGHT + 2 * DAY_S)) is None
