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


def test_the_last_edge_of_any_host_is_found_a_gift_among_them() -> None:
    (night,) = nights((A,), from_at=MIDNIGHT, until_at=MIDNIGHT + DAY_S)
    same = replace(night, id=WindowId("same"), hosts=frozenset({B}))
    gift_at = night.start_at + 100
    given = replace(
        night, id=WindowId("given"), hosts=frozenset({C}), state=WindowState.RELEASED, released_from_at=gift_at
    )
    book = book_of(night, same, given)
    assert book.last_edge_at(night.start_at - 1) == 0
    assert book.last_edge_at(night.start_at) == night.start_at
    assert book.last_edge_at(gift_at + 1) == gift_at
    assert book.last_edge_at(night.end_at) == night.end_at
    assert book_of(night, same).last_edge_at(gift_at + 1) == night.start_at


def test_windows_are_found_by_when_they_are_to_be_decided_and_by_their_grace() -> None:
    (night,) = nights((A,), from_at=MIDNIGHT, until_at=MIDNIGHT + DAY_S, grace_s=300)
    later = replace(night, id=WindowId("later"), hosts=frozenset({B}), decide_at=night.decide_at + 1, grace_s=600)
    opened = replace(night, id=WindowId("opened"), hosts=frozenset({C}), state=WindowState.OPEN)
    book = book_of(later, opened, night)
    assert book.to_decide(night.decide_at - 1) == [opened.id]
    assert book.to_decide(night.decide_at) == sorted([night.id, opened.id])
    assert book.to_decide(night.decide_at + 1) == sorted([night.id, later.id, opened.id])
    assert book.most_grace_s == book.longest_grace_s(night.end_at - 1) == 600
    assert book.longest_grace_s(night.end_at) == 0
    assert book.most_grace_s == 600, "that of those that are over is in it"
    assert book_of().most_grace_s == 0
