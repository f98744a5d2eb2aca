"""What the plan wants of a host at an instant, and what it says of starts that are seen there."""

from dataclasses import replace

import pytest

from scheduler.core.converging.desired import Standing, desired_host, standing_of
from scheduler.core.facts import VmEnd
from scheduler.core.plan import Outcome, Reservation
from scheduler.core.requests import AtBoundary, HostId
from scheduler.core.spans import DAY_S, HOUR_S
from scheduler.core.windows import Layout, Window, WindowId, WindowState
from tests.scheduler.core.converging.acting_values import HOST, R1, R2, SETTINGS, T, facts, plan, reservation, span, vm


@pytest.mark.parametrize(("at_s", "is_wanted"), [(-1, False), (0, True), (4 * HOUR_S - 1, True), (4 * HOUR_S, False)])
def test_a_vm_is_wanted_exactly_while_its_half_open_span_covers_now(at_s: int, is_wanted: bool) -> None:
    desired = desired_host(plan(reservation()), HOST, T + at_s, facts(), SETTINGS)
    assert bool(desired.vms) is is_wanted


def test_nothing_of_another_host_or_of_an_ended_reservation_is_wanted() -> None:
    elsewhere = reservation(R1, span(host="dgx2-b"))
    over = reservation(R2, outcome=Outcome.STOPPED)
    assert desired_host(plan(elsewhere, over), HOST, T, facts(), SETTINGS).vms == ()


def test_resumes_come_before_new_starts_and_the_largest_first() -> None:
    small_resume = reservation(R1, span(partition="1g0", generation=1))
    large_new = reservation(R2, span(partition="8g8-15"))
    desired = desired_host(plan(large_new, small_resume), HOST, T, facts(), SETTINGS)
    assert [wanted.id for wanted in desired.vms] == [R1, R2]


@pytest.mark.parametrize(
    ("booked", "generation", "standing"),
    [
        (reservation(R1, span(generation=2)), 2, Standing.WANTED),
        (reservation(R1, span(generation=2)), 1, Standing.ENDED),
        (reservation(R1, span(generation=2)), 3, Standing.UNKNOWN),
        (reservation(R1, span(generation=2), outcome=Outcome.COMPLETED), 2, Standing.ENDED),
        (reservation(R1, span(end_s=-1, start_s=-60, generation=2)), 2, Standing.ENDED),
        (reservation(R1, span(generation=2, host="dgx2-b")), 2, Standing.ENDED),
        (reservation(R2), 1, Standing.UNKNOWN),
    ],
)
def test_a_start_may_be_stopped_only_if_the_plan_knows_that_it_is_over(
    booked: Reservation, generation: int, standing: Standing
) -> None:
    assert standing_of(plan(booked), HOST, T, R1, generation) is standing


def test_a_span_that_follows_on_the_same_partition_is_run_by_the_same_start() -> None:
    booked = reservation(R1, span(0, 100, generation=1), span(100, 200))
    assert standing_of(plan(booked), HOST, T + 150, R1, 1) is Standing.WANTED
    moved = reservation(R1, span(0, 100, generation=1), span(100, 200, partition="2g2-3"))
    assert standing_of(plan(moved), HOST, T + 150, R1, 1) is Standing.ENDED
    parked = reservation(R1, span(0, 100, generation=1), span(120, 200))
    assert standing_of(plan(parked), HOST, T + 150, R1, 1) is Standing.ENDED


def night(state: WindowState = WindowState.OPEN) -> Window:
    return Window(
        id=WindowId("night@1"),
        name="night",
        layout=Layout(name="night", sizes=frozenset({16}), queues=frozenset({"hpc"})),
        hosts=frozenset({HOST}),
        start_at=T + 4 * HOUR_S,
        end_at=T + 8 * HOUR_S,
        decide_at=T,
        only_if_queued=False,
        at_boundary=frozenset({AtBoundary.PARK}),
        warnings_s=(3600, 900),
        grace_s=120,
        policy_version=1,
        state=state,
        released_from_at=T + 4 * HOUR_S if state is WindowState.RELEASED else None,
    )


@pytest.mark.parametrize(
    ("window", "grace_s", "warnings_s"),
    [(None, 300, (1800, 600)), (night(), 120, (3600, 900)), (night(WindowState.RELEASED), 300, (1800, 600))],
)
def test_grace_and_warnings_are_those_of_the_window_that_closes_the_span_else_the_policys(
    window: Window | None, grace_s: int, warnings_s: tuple[int, ...]
) -> None:
    booked = plan(reservation(R1, span(generation=1)))
    booked = replace(booked, windows={} if window is None else {window.id: window})
    (wanted,) = desired_host(booked, HOST, T, facts(), SETTINGS).vms
    assert wanted.warn_at == tuple(T + 4 * HOUR_S - warning_s for warning_s in warnings_s)
    (ended,) = desired_host(booked, HOST, T + 4 * HOUR_S, facts(vm()), SETTINGS).ended
    assert ended.grace_s == grace_s


def test_only_disks_past_their_retention_that_nobody_uses_may_be_deleted() -> None:
    over = reservation(R1, span(0, 100, generation=1), outcome=Outcome.COMPLETED)
    booked = plan(over)
    assert desired_host(booked, HOST, T + DAY_S - 1, facts(), SETTINGS).expired_disks == ()
    assert [d.id for d in desired_host(booked, HOST, T + DAY_S, facts(), SETTINGS).expired_disks] == ["d-r-1"]
    # Still on the host, or off for a reason that nobody understands.
    assert desired_host(booked, HOST, T + DAY_S, facts(vm()), SETTINGS).expired_disks == ()
    unclear = vm(end=VmEnd.UNKNOWN, off_at=T)
    assert desired_host(booked, HOST, T + DAY_S, facts(unclear), SETTINGS).expired_disks == ()
    live = plan(reservation(R1, span(0, 100), span(2 * DAY_S, 3 * DAY_S)))
    assert desired_host(live, HOST, T + DAY_S, facts(), SETTINGS).expired_disks == ()


def test_disks_of_a_storage_that_the_host_does_not_reach_are_not_its_concern() -> None:
    booked = plan(reservation(R1, span(0, 100), outcome=Outcome.COMPLETED))
    far = replace(booked.hosts[HOST], storage="elsewhere")
    assert desired_host(replace(booked, hosts={HOST: far}), HOST, T + DAY_S, facts(), SETTINGS).expired_disks == ()
    assert desired_host(booked, HostId("unknown"), T + DAY_S, facts(), SETTINGS).expired_disks == ()
