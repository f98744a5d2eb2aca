"""The checker finds what is wrong, and nothing else."""

import pytest

from benchmarks.trace_checker import Event, Left, Placed, Told, Violation, check
from tests.benchmarks.trace_cases import requests_of

REQUESTS = requests_of((0, 2, 10, 20), (5, 1, 10, 10))
TOLD_0, TOLD_1 = Told(job=0, at=0, start_by_at=0), Told(job=1, at=5, start_by_at=8)
PLACED_0, PLACED_1 = Placed(job=0, at=0, host=0, mask=0b1100), Placed(job=1, at=8, host=0, mask=0b10)
LEFT_0, LEFT_1 = Left(job=0, at=10), Left(job=1, at=18)
GOOD: tuple[Event, ...] = (TOLD_0, PLACED_0, TOLD_1, PLACED_1, LEFT_0, LEFT_1)


def instead(*changes: tuple[Event, Event | None]) -> list[Event]:
    """Return the good run with events put in the place of others, or left out."""
    new = dict(changes)
    return [event for old in GOOD if (event := new.get(old, old)) is not None]


def test_a_good_run_keeps_all_promises() -> None:
    found = check(REQUESTS, GOOD, hosts=1)
    assert (found.promises, found.kept, found.violations) == (2, 2, ())


def test_who_is_parked_may_come_back_elsewhere_at_the_same_instant() -> None:
    back = Placed(job=0, at=6, host=1, mask=0b11)
    events = (TOLD_0, PLACED_0, TOLD_1, Left(job=0, at=6), back, PLACED_1, LEFT_0, LEFT_1)
    assert check(REQUESTS, events, hosts=2).violations == ()


def test_who_is_parked_over_a_closing_comes_back_at_its_end() -> None:
    events = (TOLD_0, PLACED_0, Left(job=0, at=4), Placed(job=0, at=9, host=0, mask=0b11), Left(job=0, at=15))
    assert check(REQUESTS[:1], events, hosts=1, closings=((4, 9),)).violations == ()
    assert check(REQUESTS[:1], events, hosts=1).counts == {Violation.STOOD_STILL: 1}


@pytest.mark.parametrize(
    ("events", "job", "violation"),
    [
        (instead((PLACED_1, Placed(job=1, at=9, host=0, mask=2)), (LEFT_1, Left(job=1, at=19))), 1, Violation.LATE),
        (instead((PLACED_1, Placed(job=1, at=8, host=0, mask=0b100))), 1, Violation.OVERLAP),
        (instead((PLACED_1, Placed(job=1, at=8, host=0, mask=0b11))), 1, Violation.NOT_A_BLOCK),
        (instead((PLACED_1, Placed(job=1, at=8, host=0, mask=0))), 1, Violation.NOT_A_BLOCK),
        (instead((PLACED_1, Placed(job=1, at=8, host=0, mask=1 << 16))), 1, Violation.NOT_A_BLOCK),
        (instead((PLACED_0, Placed(job=0, at=0, host=0, mask=0b110000000))), 0, Violation.NOT_A_BLOCK),
        (instead((PLACED_0, Placed(job=0, at=0, host=1, mask=0b1100)), (LEFT_0, None)), 0, Violation.NO_SUCH_HOST),
        (instead((TOLD_1, None)), 1, Violation.NOT_TOLD),
        (instead((TOLD_1, Told(job=1, at=6, start_by_at=8))), 1, Violation.NOT_TOLD_AT_SUBMISSION),
        ([*GOOD[:3], TOLD_1, *GOOD[3:]], 1, Violation.TOLD_TWICE),
        (instead((PLACED_1, None), (LEFT_1, None)), 1, Violation.NEVER_STARTED),
        (instead((LEFT_1, Left(job=1, at=17))), 1, Violation.WRONG_LENGTH),
        (instead((LEFT_1, None)), 1, Violation.WRONG_LENGTH),
        ([*GOOD, LEFT_1], 1, Violation.NOT_PLACED),
        ([*GOOD[:4], PLACED_1, *GOOD[4:]], 1, Violation.PLACED_TWICE),
        ([*GOOD, Left(job=9, at=20)], 9, Violation.UNKNOWN_JOB),
    ],
)
def test_each_wrong_is_found(events: list[Event], job: int, violation: Violation) -> None:
    found = check(REQUESTS, events, hosts=1)
    assert (job, violation) in found.violations
    assert {number for number, _ in found.violations} == {job}
    assert found.kept == found.promises - (job < 2 and violation is not Violation.NOT_TOLD)


def test_a_start_before_the_submission_is_found() -> None:
    early: list[Event] = [
        TOLD_0,
        Told(job=1, at=0, start_by_at=8),
        Placed(job=1, at=4, host=0, mask=1),
        Left(job=1, at=14),
    ]
    assert check(REQUESTS, early, hosts=1).counts[Violation.BEFORE_SUBMISSION] == 1


def test_events_in_the_wrong_order_are_found() -> None:
    assert check(REQUESTS, [*GOOD[:3], *GOOD[4:], PLACED_1], hosts=1).counts[Violation.TIME_GOES_BACK] == 1


def test_who_stays_in_a_closing_is_found() -> None:
    assert check(REQUESTS, GOOD, hosts=1, closings=((12, 14),)).violations == ((1, Violation.CLOSED),)
    assert check(REQUESTS, GOOD, hosts=1, closings=((18, 24),)).violations == ()
