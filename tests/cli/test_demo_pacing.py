"""How fast time goes in the demonstration: never past what is due, never fast while anything happens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.demonstration.pacing import BUSY_SPEED, FASTEST, LANDING_S, NEAR_S, Outlook, Speeds, speed_for
from scheduler.core.spans import Span

NOW = 1_772_442_000
END = NOW + 100_000
instants = st.integers(min_value=NOW - 1000, max_value=NOW + 200_000)


def outlook(next_due_at: int | None, busy_with: str = "") -> Outlook:
    return Outlook(now=NOW, next_due_at=next_due_at, busy_with=busy_with)


@given(due_at=st.none() | instants)
def test_while_anything_happens_time_goes_at_most_120_times(due_at: int | None) -> None:
    assert speed_for(outlook(due_at, "parking"), until_at=END) == BUSY_SPEED == 120


@pytest.mark.parametrize("ahead_s", [-500, 0, 1, NEAR_S])
def test_what_is_due_or_past_due_is_come_to_slowly(ahead_s: int) -> None:
    assert speed_for(outlook(NOW + ahead_s), until_at=END) == BUSY_SPEED


@given(due_at=instants)
def test_no_speed_reaches_what_is_due_before_the_next_look_but_the_slow_one(due_at: int) -> None:
    speed = speed_for(outlook(due_at), until_at=END)
    assert BUSY_SPEED <= speed <= FASTEST
    assert speed == BUSY_SPEED or NOW + speed * LANDING_S <= min(due_at, END) - NEAR_S


def test_a_long_quiet_stretch_goes_by_at_the_highest_speed() -> None:
    assert speed_for(outlook(NOW + 50_000), until_at=END) == FASTEST
    assert speed_for(outlook(None), until_at=END) == FASTEST


def test_the_end_is_landed_on_like_anything_due() -> None:
    assert speed_for(outlook(None), until_at=NOW + 5) == BUSY_SPEED
    assert speed_for(outlook(NOW + 50_000), until_at=NOW + 5) == BUSY_SPEED


def test_the_shares_of_speeds_add_up_to_all_of_both_times() -> None:
    speeds = Speeds()
    speeds.changed(120.0, now=1000, machine_s=5.0)
    speeds.changed(7_200.0, now=1240, machine_s=7.0)
    speeds.changed(600.0, now=8440, machine_s=8.0)
    speeds.changed(120.0, now=9040, machine_s=9.0)
    shares = tuple(speeds.shares(until_at=9160, until_machine_s=10.0))
    assert shares == (("up to 120×", 3.0, 360), ("to 1,200×", 1.0, 600), ("to 7,200×", 1.0, 7200))
    assert sum(machine_s for _, machine_s, _ in shares) == 10.0 - 5.0
    assert sum(product_s for _, _, product_s in shares) == 9160 - 1000


def test_what_went_by_faster_than_120_times_while_a_vm_changed_is_counted() -> None:
    speeds = Speeds()
    speeds.changed(120.0, now=1000, machine_s=5.0)
    speeds.changed(7_200.0, now=1240, machine_s=7.0)
    speeds.changed(120.0, now=8440, machine_s=8.0)
    slow = (Span(start_at=1000, end_at=1240), Span(start_at=8440, end_at=9000))
    assert speeds.too_fast_s(slow, until_at=9000) == 0
    assert speeds.too_fast_s((*slow, Span(start_at=1200, end_at=1250)), until_at=9000) == 10
    assert speeds.too_fast_s((Span(start_at=8000, end_at=8500),), until_at=9000) == 440
