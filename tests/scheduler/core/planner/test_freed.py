"""What was freed: the parts of bookings on which nothing lies any more, and who has to look at them."""

from dataclasses import replace

from scheduler.core.plan import BookedSpan, Reservation
from scheduler.core.planner.freed import MOST_REMEMBERED, Freed, parts_freed
from scheduler.core.requests import AtBoundary, HostId, Promise, Request, ReservationId
from scheduler.core.topology import PartitionId


def span(start_at: int, end_at: int, partition: str = "1g0", generation: int | None = None) -> BookedSpan:
    return BookedSpan(
        start_at=start_at,
        end_at=end_at,
        host=HostId("dgx2-a"),
        partition=PartitionId(partition),
        generation=generation,
    )


def booked(*spans: BookedSpan, owner: str = "ada") -> Reservation:
    request = Request(
        id=ReservationId("r-1"),
        owner=owner,
        queue="interactive",
        gpus=1,
        run_s=60,
        submitted_at=0,
        not_before_at=None,
        start_by_at=None,
        at_boundary=AtBoundary.PARK,
        image="ubuntu-24.04",
        disk_gib=10,
    )
    return Reservation(request=request, promise=Promise(start_by_at=0, end_by_at=0), spans=spans)


def test_what_is_booked_no_more_is_freed() -> None:
    assert list(parts_freed([span(0, 10)], [span(0, 6)])) == [span(6, 10)]
    assert list(parts_freed([span(0, 10)], [span(4, 6)])) == [span(0, 4), span(6, 10)]
    assert list(parts_freed([span(0, 10)], [span(6, 8), span(2, 4)])) == [span(0, 2), span(4, 6), span(8, 10)]
    assert list(parts_freed([span(0, 10)], [span(0, 10, "1g1")])) == [span(0, 10)]
    assert list(parts_freed([span(0, 10), span(20, 30)], [span(5, 25)])) == [span(0, 5), span(25, 30)]


def test_a_start_frees_nothing() -> None:
    freed = Freed()
    freed.take("by")
    freed.note(booked(span(0, 10)), booked(span(0, 10, generation=1)))
    assert freed.take("by") == []


def test_it_is_told_once_with_whose_it_was() -> None:
    freed = Freed()
    assert freed.take("by") is None, "nobody knows what was freed before the first look"
    freed.note(booked(span(0, 10), owner="bela"), None)
    freed.note(None, booked(span(20, 30)))
    copied = freed.copy()
    assert freed.take("by") == [("bela", span(0, 10))]
    assert freed.take("by") == []
    assert copied.take("by") == [("bela", span(0, 10))]


def test_everybody_looks_where_anything_else_has_changed_or_too_much_was_freed() -> None:
    freed = Freed()
    freed.take("by")
    freed.note_all()
    assert freed.take("by") is None
    assert freed.take("other") is None
    many = booked(*(span(2 * n, 2 * n + 1) for n in range(MOST_REMEMBERED + 1)))
    freed.note(many, replace(many, spans=()))
    assert freed.take("other") is None
