"""The auditor finds nothing in an honest history, and each wrong in one that was tampered with."""

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest

from scheduler.core.facts import domain_uuid
from scheduler.core.plan import BookedSpan, Outcome
from scheduler.core.reasons import ReasonCode
from scheduler.core.requests import AtBoundary, DiskId, HostId, Promise, ReservationId
from scheduler.core.spans import DAY_S, HOUR_S
from scheduler.core.topology import PartitionId
from scheduler.core.windows import Layout, Window, WindowId, WindowState
from scheduler.profiles.loading import load_profile
from tests.simulation.rack_auditor import audit, audit_quiet
from tests.simulation.told import History, Ledger, Told
from workers.drivers.simulated.log import LogLine

HOST = HostId("dgx2-a")
ONE, OTHER = ReservationId("r-1"), ReservationId("r-2")
DISK = DiskId("d-r-1")
T = 1_000_000
END = T + 2 * HOUR_S
"""When the one reservation is over; it was booked from T."""
KEPT_UNTIL = END + DAY_S
PAIR = PartitionId("2g0-1")
STRANGER = UUID(int=7)


def line(at: int, what: str, reservation: ReservationId | None = ONE, **detail: str | int) -> LogLine:
    """Make a line about the VM of a reservation; without one, about somebody else's."""
    is_disk = what.startswith("disk.")
    return LogLine(
        seq=0,
        at=at,
        what=what,
        domain=None if is_disk else STRANGER if reservation is None else domain_uuid(reservation, 1),
        name="by-hand" if reservation is None else str(reservation),
        reservation=reservation,
        generation=None if reservation is None else 1,
        gpus=() if is_disk else (0, 1),
        partition=None if is_disk or reservation is None else PAIR,
        detail=tuple(sorted((("disk", DISK) if is_disk else ("reason", "shutdown"), *detail.items()))),
    )


def honest_log() -> list[LogLine]:
    return [
        line(T + 10, "disk.copying"),
        line(T + 20, "disk.made"),
        line(T + 20, "vm.starting", dirty=0, is_fabric_set=1),
        line(T + 60, "vm.running"),
        line(T + 90, "guest.up"),
        line(END, "vm.shutdown_asked"),
        line(END + 10, "guest.down"),
        line(END + 12, "vm.off"),
        line(END + 12, "vm.undefined"),
        line(KEPT_UNTIL, "disk.deleting"),
        line(KEPT_UNTIL + 2, "disk.deleted"),
    ]


def told(reservation: ReservationId = ONE) -> Told:
    promise = Promise(start_by_at=T + 960, end_by_at=END)
    span = BookedSpan(start_at=T, end_at=END, host=HOST, partition=PAIR, generation=1)
    return Told(
        id=reservation,
        owner="ada",
        queue="interactive",
        gpus=2,
        not_before_at=None,
        at_boundary=AtBoundary.PARK,
        promises=[(T - 100, promise)],
        hours=[(T - 100, HOUR_S)],
        bookings=[(T - 100, (span,))],
        disks=[(T - 100, DISK)],
        ended_at=END,
        outcome=Outcome.COMPLETED,
        reasons=frozenset({ReasonCode.HOURS_DELIVERED}),
        kept_until_at=KEPT_UNTIL,
    )


def history(log: list[LogLine], *known: Told) -> History:
    ledger = Ledger(told={one.id: one for one in known or (told(),)})
    day = Layout(name="day", sizes=frozenset({1, 2, 4, 8}), queues=frozenset({"interactive"}))
    ledger.outside.append((0, day))
    return History(
        until_at=KEPT_UNTIL + DAY_S,
        logs={HOST: tuple(log)},
        profiles={HOST: load_profile("dgx-2")},
        ledger=ledger,
    )


def test_an_honest_history_has_no_violations() -> None:
    assert audit(history(honest_log())) == []
    assert audit_quiet(history(honest_log())) == []


def without(what: str) -> Callable[[list[LogLine]], list[LogLine]]:
    return lambda log: [one for one in log if one.what != what]


def instead(what: str, make: Callable[[LogLine], LogLine]) -> Callable[[list[LogLine]], list[LogLine]]:
    return lambda log: [make(one) if one.what == what else one for one in log]


def with_lines(*lines: LogLine) -> Callable[[list[LogLine]], list[LogLine]]:
    return lambda log: sorted([*log, *lines], key=lambda one: one.at)


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (with_lines(replace(line(T + 30, "vm.foreign", None))), "GPU 0 is held by"),
        (instead("vm.starting", lambda one: replace(one, gpus=(0, 2))), "which are not partition 2g0-1"),
        (instead("vm.starting", lambda one: replace(one, partition=PartitionId("4g0-3"))), "are not partition 4g0-3"),
        (
            instead("vm.starting", lambda one: replace(one, gpus=(0,), partition=PartitionId("1g0"))),
            "asked for 2 GPUs and got (0,)",
        ),
        (instead("vm.starting", lambda one: replace(one, detail=(("dirty", 1), ("is_fabric_set", 1)))), "not reset"),
        (instead("vm.starting", lambda one: replace(one, detail=(("dirty", 0),))), "without its routing"),
        (without("guest.up"), f"was not up until {END}"),
        (instead("guest.up", lambda one: replace(one, at=T + 961)), f"promised to start by {T + 960}"),
        (instead("guest.down", lambda one: replace(one, at=T + HOUR_S)), f"promised {HOUR_S} s by {END}, ran"),
        (instead("disk.deleting", lambda one: replace(one, at=KEPT_UNTIL - 1)), f"kept until {KEPT_UNTIL}"),
        (instead("disk.deleting", lambda one: replace(one, at=END - 1)), "r-1 has not ended"),
        (with_lines(line(T + 100, "disk.copying")), "was written over"),
        (with_lines(line(T + 100, "disk.deleting", disk="d-r-9")), "disk d-r-9, which is nobody's, was deleted"),
        (instead("vm.shutdown_asked", lambda one: replace(one, at=END - 60)), f"it is booked there until {END}"),
        (with_lines(line(END - 60, "vm.destroy_asked")), "without having been asked to shut down"),
        (with_lines(line(END - 60, "vm.destroy_asked")), f"it is booked there until {END}"),
        (with_lines(line(T + 5, "vm.destroy_asked", None)), "which is somebody else's, was asked to stop"),
        (with_lines(line(T + 5, "vm.undefined", None)), "which is somebody else's, was undefined"),
        (with_lines(line(T + 500, "vm.undefined")), "was undefined while it ran"),
        (without("vm.off"), "was undefined while it ran"),
        (instead("vm.off", lambda one: replace(one, at=END + HOUR_S)), "and still had GPUs"),
        (
            with_lines(line(END + 601, "vm.starting", dirty=0, is_fabric_set=1)),
            f"was started at {END + 601}, it had ended",
        ),
        (instead("vm.starting", lambda one: replace(one, reservation=OTHER)), "nobody was promised it"),
    ],
)
def test_a_tampered_log_is_found_out(tamper: Callable[[list[LogLine]], list[LogLine]], found: str) -> None:
    assert any(found in wrong for wrong in audit(history(tamper(honest_log()))))


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (lambda log: log[:7], "r-1 still has GPUs (0, 1)"),
        (without("disk.deleted"), f"disk {DISK} was never deleted"),
    ],
)
def test_what_is_left_at_the_end_is_found(tamper: Callable[[list[LogLine]], list[LogLine]], found: str) -> None:
    assert any(found in wrong for wrong in audit_quiet(history(tamper(honest_log()))))


def test_a_reservation_that_never_ends_is_found() -> None:
    endless = told()
    endless.outcome = None
    assert audit_quiet(history(honest_log(), endless)) == ["r-1 never came to an end"]


def test_an_end_before_anything_ran_is_found_unless_its_owner_gave_it_up() -> None:
    early = told()
    early.ended_at = T + 30
    log = without("guest.up")(honest_log())[:4]
    assert any("and never ran" in wrong for wrong in audit(history(log, early)))
    early.outcome = Outcome.CANCELLED
    assert not any("and never ran" in wrong for wrong in audit(history(log, early)))


def test_a_promise_that_is_put_off_without_a_notice_is_found() -> None:
    later = told()
    later.promises.append((T, Promise(start_by_at=T + 2000, end_by_at=END + 2000)))
    found = audit(history(honest_log(), later))
    assert any("its start was put off" in wrong for wrong in found)
    assert any("its end was put off" in wrong for wrong in found)


def test_a_notice_of_a_broken_promise_is_found_where_nothing_failed_and_believed_where_something_did() -> None:
    broken = told()
    after = Promise(start_by_at=T + 2000, end_by_at=END + 2000)
    broken.promises.append((T + 961, after))
    broken.raised.append((T + 961, after))
    late = instead("guest.up", lambda one: replace(one, at=T + 1999))(honest_log())
    assert any("although nothing failed" in wrong for wrong in audit(history(late, broken)))
    assert audit(replace(history(late, broken), has_faults=True)) == []


@pytest.mark.parametrize(
    ("before", "at_the_stop", "is_wrong"),
    [
        ((END, None), (END, END + HOUR_S), False),
        ((END, None), (END, END), True),
        ((END + 2 * HOUR_S, None), (END, END + HOUR_S), True),
        ((END, None), (None, T), True),
    ],
    ids=["parked", "goes on without a gap", "its end was put back", "its booking is gone"],
)
def test_a_late_stop_is_wrong_where_it_is_booked_again_unless_its_own_run_had_come_to_its_end(
    before: tuple[int, None], at_the_stop: tuple[int | None, int], is_wrong: bool
) -> None:
    stop_at = END + HOUR_S + 5

    def booked(own_end_at: int | None, next_at: int | None) -> tuple[BookedSpan, ...]:
        spans = []
        if own_end_at is not None:
            spans.append(BookedSpan(start_at=T, end_at=own_end_at, host=HOST, partition=PAIR, generation=1))
        if next_at is not None:
            spans.append(BookedSpan(start_at=next_at, end_at=END + 3 * HOUR_S, host=HOST, partition=PAIR))
        return tuple(spans)

    bookings = [(T - 100, booked(*before)), (stop_at, booked(*at_the_stop))]
    late = [*honest_log()[:5], line(stop_at, "vm.shutdown_asked")]
    problems = audit(history(late, replace(told(), bookings=bookings, ended_at=None, outcome=None)))
    assert any("it is booked there until" in problem for problem in problems) == is_wrong


def test_two_vms_of_one_reservation_are_found() -> None:
    second = replace(
        line(T + 30, "vm.starting", dirty=0), domain=UUID(int=9), gpus=(2, 3), partition=PartitionId("2g2-3")
    )
    assert any("r-1 has two VMs" in wrong for wrong in audit(history(with_lines(second)(honest_log()))))


def test_a_tenant_that_is_started_in_a_night_is_found_unless_the_night_was_given_away() -> None:
    night = Window(
        id=WindowId("night"),
        name="night",
        layout=Layout(name="night", sizes=frozenset({16}), queues=frozenset({"hpc"})),
        hosts=frozenset({HOST}),
        start_at=T,
        end_at=END,
        decide_at=T - HOUR_S,
        only_if_queued=True,
        at_boundary=frozenset({AtBoundary.PARK}),
        warnings_s=(),
        grace_s=300,
        policy_version=1,
        state=WindowState.OPEN,
    )
    dark = history(honest_log())
    dark.ledger.windows[night.id] = night
    assert any("while layout night holds" in wrong for wrong in audit(dark))
    dark.ledger.windows[night.id] = replace(night, state=WindowState.RELEASED)
    assert audit(dark) == []


@pytest.mark.parametrize("was_told", [True, False])
def test_who_was_told_of_what_held_them_up_and_gave_up_is_owed_nothing(*, was_told: bool) -> None:
    anew = Promise(start_by_at=T + 2 * HOUR_S, end_by_at=END + 2 * HOUR_S)
    one = told()
    one.outcome, one.ended_at, one.reasons = Outcome.CANCELLED, END + 5 * HOUR_S, frozenset({ReasonCode.CANCELLED})
    one.kept_until_at = one.ended_at + DAY_S
    if was_told:
        one.promises.append((T + 961, anew))
        one.raised.append((T + 961, anew))
    found = audit(replace(history([], one), has_faults=True))
    assert any(f"promised {HOUR_S} s by" in wrong for wrong in found) is not was_told
    assert any("promised to start by" in wrong for wrong in found) is not was_told
