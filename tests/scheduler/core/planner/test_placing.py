"""Placing where the oracle does not look: long runs, packing, and places that just failed."""

from scheduler.core.plan import BookedDisk, BookedSpan, Plan, PlanChange, Reservation, apply
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.placing import Want, is_of_one_partition, place
from scheduler.core.requests import AtBoundary, DiskId, HostId, Promise, Request, ReservationId
from scheduler.core.spans import DAY_S, HOUR_S, Instant
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
        made.plan = _booked(made, number, spans[0])
    assert taken == ["1g0", "1g1", "1g2", "1g3", "1g4"]


def _booked(made: World, number: int, *spans: BookedSpan, gpus: int = 1) -> Plan:
    request = Request(
        id=ReservationId(f"r-{100 + number}"),
        owner="ada",
        queue="interactive",
        gpus=gpus,
        run_s=HOUR_S,
        submitted_at=MIDNIGHT,
        not_before_at=None,
        start_by_at=None,
        at_boundary=AtBoundary.PARK,
        image="ubuntu-24.04",
        disk_gib=10,
    )
    held = Reservation(request=request, promise=Promise(start_by_at=0, end_by_at=0), spans=spans)
    return apply(made.plan, PlanChange(reservations=(held,)))


def _day(number: int, host: HostId, partition: str) -> BookedSpan:
    """Return a partition from 8 to 20 on a day, between two nights."""
    at = MIDNIGHT + number * DAY_S
    return BookedSpan(start_at=at + 8 * HOUR_S, end_at=at + 20 * HOUR_S, host=host, partition=PartitionId(partition))


def test_who_goes_on_stays_on_one_partition_though_another_fits_better_on_some_day() -> None:
    other = HostId("dgx2-b")
    made = world(hosts={HOST: "s", other: "s"})
    # On the first day there is room only on b; on the second a quarter of a is what breaks up least.
    made.plan = _booked(made, 0, _day(0, HOST, "16g0-15"), gpus=16)
    made.plan = _booked(made, 1, _day(1, HOST, "4g0-3"), gpus=4)
    in_pieces = place(draft(made), want(gpus=4, run_s=20 * HOUR_S, avoid=frozenset({(HOST, PartitionId("4g12-15"))})))
    assert in_pieces is not None
    assert [span.host for span in in_pieces] == [other, HOST]
    goes_on = place(draft(made), want(gpus=4, run_s=20 * HOUR_S, goes_on=True))
    assert goes_on is not None
    assert [(span.start_at, span.end_at) for span in goes_on] == [(span.start_at, span.end_at) for span in in_pieces]
    assert is_of_one_partition(goes_on)


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


def _fill(workspace: Draft, storage: str, gib: int, until_at: Instant, *, from_at: Instant = MIDNIGHT) -> None:
    key = DiskId(f"d-{len(workspace.disks)}")
    workspace.disks[key] = BookedDisk(
        id=key,
        reservation=ReservationId("r-0"),
        owner="ada",
        size_gib=gib,
        storage=storage,
        is_scratch=False,
        from_at=from_at,
        until_at=until_at,
    )


def test_a_disk_waits_for_as_many_others_as_it_needs_the_room_of() -> None:
    workspace = draft(world(hosts={HOST: "a"}, windows=(), profile="dgx-2/small-pool"))
    for number in range(40):
        _fill(workspace, "a", 50, MIDNIGHT + (number + 1) * HOUR_S)
    for gib, hours in ((50, 1), (1000, 20), (2000, 40)):
        spans = place(workspace, want(disk_gib=gib))
        assert spans is not None
        assert spans[0].start_at == MIDNIGHT + hours * HOUR_S
    assert place(workspace, want(disk_gib=2001)) is None


def test_one_that_is_parked_over_a_night_begins_after_what_is_in_its_disks_way_then() -> None:
    workspace = draft(world(hosts={HOST: "a"}, profile="dgx-2/small-pool", retention_s=HOUR_S))
    for number in range(80):
        _fill(workspace, "a", 1, MIDNIGHT + 8 * HOUR_S + (number + 1) * 60)
    _fill(workspace, "a", 2000, MIDNIGHT + 60 * HOUR_S, from_at=MIDNIGHT + 42 * HOUR_S)
    # Without the nights it would be over by then.
    spans = place(workspace, want(disk_gib=500, run_s=30 * HOUR_S, from_at=MIDNIGHT + 8 * HOUR_S, with_gifts=False))
    assert spans is not None
    assert spans[0].start_at == MIDNIGHT + 60 * HOUR_S


def test_of_several_storages_the_one_on_which_gpus_and_disks_have_room_first_is_taken() -> None:
    other = HostId("dgx2-b")
    made = world(hosts={HOST: "a", other: "b"}, windows=(), profile="dgx-2/small-pool")
    for busy_h, start_h, host in ((0, 5, other), (7, 7, other), (12, 10, HOST)):
        workspace = draft(made)
        if busy_h:
            end_at = MIDNIGHT + busy_h * HOUR_S
            span = BookedSpan(start_at=MIDNIGHT, end_at=end_at, host=other, partition=PartitionId("16g0-15"))
            workspace.board.book(ReservationId("r-0"), span)
        _fill(workspace, "a", 2000, MIDNIGHT + 10 * HOUR_S)
        _fill(workspace, "b", 2000, MIDNIGHT + 5 * HOUR_S)
        spans = place(workspace, want(gpus=8, disk_gib=100))
        assert spans is not None
        assert (spans[0].host, spans[0].start_at) == (host, MIDNIGHT + start_h * HOUR_S)
