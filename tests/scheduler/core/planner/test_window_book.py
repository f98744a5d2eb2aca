"""Windows looked up: which hosts have windows alike."""

from dataclasses import replace

from scheduler.core.planner.window_book import WindowBook
from scheduler.core.requests import HostId
from scheduler.core.spans import DAY_S
from scheduler.core.windows import Window, WindowId, WindowState
from tests.property.worlds import MIDNIGHT, nights

A, B, C = HostId("a"), HostId("b"), HostId("c")


def book_of(*windows: Window) -> WindowBook:
    return WindowBook({window.id: window for window in windows})


def test_hosts_with_the_same_windows_are_alike() -> None:
    (night,) = nights((A,), from_at=MIDNIGHT, until_at=MIDNIGHT + DAY_S)
    same = replace(night, id=WindowId("other"), hosts=frozenset({B}))
    book = book_of(night, same)
    assert book.like(A) == book.like(B)
    assert book.like(A) in (A, B)
    assert book.like(C) not in (A, B), "it has none"
    assert book.like(C) == book_of().like(A)


def test_hosts_whose_windows_begin_end_admit_or_were_given_away_otherwise_are_not() -> None:
    (night,) = nights((A,), from_at=MIDNIGHT, until_at=MIDNIGHT + DAY_S)
    own = replace(night, id=WindowId("other"), hosts=frozenset({B}))
    for other in (
        replace(own, start_at=night.start_at + 1),
        replace(own, end_at=night.end_at - 1),
        replace(own, state=WindowState.RELEASED, released_from_at=MIDNIGHT),
        replace(own, at_boundary=frozenset()),
        replace(own, layout=replace(night.layout, sizes=frozenset({1}))),
    ):
        book = book_of(night, other)
        assert book.like(A) != book.like(B)
