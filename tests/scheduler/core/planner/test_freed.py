"""What was freed: the parts of bookings on which nothing lies any more, and who has to look at them."""

from dataclasses import replace

from scheduler.core.plan import BookedSpan, Reservation
from scheduler.core.planner.freed import MOST_REMEMBERED, Freed, parts_freed
from tests.scheduler.store.values import ALL, reservation, span


def booked(*spans: BookedSpan, owner: str = "ada") -> Reservation:
    made = reservation("r-1", *spans)
    return replace(made, request=replace(made.request, owner=owner))


def test_what_is_booked_no_more_is_freed() -> None:
    assert list(parts_freed([span(0, 10)], [span(0, 6)])) == [span(6, 10)]
    assert list(parts_freed([span(0, 10)], [span(4, 6)])) == [span(0, 4), span(6, 10)]
    assert list(parts_freed([span(0, 10)], [span(6, 8), span(2, 4)])) == [span(0, 2), span(4, 6), span(8, 10)]
    assert list(parts_freed([span(0, 10)], [span(0, 10, ALL)])) == [span(0, 10)]
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
