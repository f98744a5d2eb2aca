"""What is said of a reservation in each phase: what comes next, and by when."""

from dataclasses import replace
from typing import Any

import pytest

from scheduler.core.facts import VmEnd, VmFact
from scheduler.core.phases import Phase
from scheduler.core.plan import BookedDisk, BookedSpan, Host, Outcome, Plan, Reservation, Rules
from scheduler.core.reasons import ReasonCode, reason
from scheduler.core.requests import AtBoundary, DiskId, HostId, Promise, Request, ReservationId
from scheduler.core.spans import HOUR_S, MINUTE_S
from scheduler.core.topology import PartitionId
from scheduler.core.windows import Layout
from scheduler.profiles.loading import load_profile
from scheduler.service.listing import Account
from scheduler.service.outlook import outlook
from scheduler.service.snapshot import Snapshot

NOW = 100 * HOUR_S
HOST = HostId("a")
DISK = DiskId("d")
LEAD_S = 11 * MINUTE_S
"""Grace, destroying, resetting and the start of a VM of one or two GPUs, on a DGX-2."""
PLAN = Plan(
    version=1,
    rules=Rules(
        version=1,
        zone="UTC",
        outside=Layout(name="day", sizes=frozenset({1, 2}), queues=frozenset({"interactive"})),
        queues=(),
        images=("ubuntu",),
        default_disk_gib=100,
        retention_s=HOUR_S,
        grace_s=5 * MINUTE_S,
        min_useful_s=HOUR_S,
        warnings_s=(),
    ),
    hosts={HOST: Host(id=HOST, profile=load_profile("dgx-2"), storage="a")},
)


def hour(at: float) -> str:
    return f"{(at - NOW) / HOUR_S:+.2f} h"


def span(start_h: float, end_h: float, partition: str = "2g0-1") -> BookedSpan:
    return BookedSpan(
        start_at=NOW + int(start_h * HOUR_S),
        end_at=NOW + int(end_h * HOUR_S),
        host=HOST,
        partition=PartitionId(partition),
    )


def said(
    phase: Phase,
    *spans: BookedSpan,
    disk_h: float | None = None,
    disk_of: ReservationId | None = None,
    starts: tuple[VmFact, ...] = (),
    vm: tuple[HostId, VmFact] | None = None,
    restart_by_at: int | None = None,
    **values: Any,
) -> str:
    """Return what is said; `disk_of`: who has its disk now."""
    request = Request(
        id=ReservationId("r-1"),
        owner="ann",
        queue="interactive",
        gpus=2,
        run_s=HOUR_S,
        submitted_at=NOW,
        not_before_at=None,
        start_by_at=None,
        at_boundary=AtBoundary.PARK,
        image="ubuntu",
        disk_gib=10,
    )
    reservation = replace(
        Reservation(request=request, promise=Promise(start_by_at=NOW + 2 * HOUR_S, end_by_at=NOW + 9 * HOUR_S)),
        spans=spans,
        **values,
    )
    disk = None
    if disk_h is not None:
        disk = BookedDisk(
            id=DISK, reservation=request.id, owner="ann", size_gib=10, storage="a", is_scratch=False,
            from_at=NOW, until_at=NOW + int(disk_h * HOUR_S),
        )  # fmt: skip
    account = Account(
        reservation=reservation,
        phase=phase,
        delivered_s=0,
        vm=vm,
        disk=disk,
        starts=starts,
        restart_by_at=restart_by_at,
    )
    plan = PLAN
    if disk_of is not None:
        taken = BookedDisk(
            id=DISK, reservation=disk_of, owner="ann", size_gib=10, storage="a", is_scratch=False,
            from_at=NOW, until_at=NOW + HOUR_S,
        )  # fmt: skip
        plan = replace(PLAN, disks={DISK: taken})
    return outlook(account, Snapshot(plan=plan, facts={}, now=NOW), hour)


RESUMES = hour(NOW + 5 * HOUR_S + LEAD_S)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (said(Phase.WAITING), "waits for a place; it is booked as soon as there is one"),
        (said(Phase.PROMISED, span(1, 3)), "starts by +2.00 h"),
        (said(Phase.STARTING, span(-0.1, 3)), f"is starting; runs by {hour(NOW - HOUR_S // 10 + LEAD_S)}"),
        (said(Phase.RUNNING, span(-1, 3)), "runs until +3.00 h"),
        (
            said(Phase.RUNNING, span(-1, 1), span(5, 7)),
            f"runs until +1.00 h, then it is parked; resumes by {RESUMES}",
        ),
        (said(Phase.PARKING, span(-1, 0), span(5, 7)), f"is being parked; resumes by {RESUMES}"),
        (said(Phase.PARKED, span(-1, 0), span(5, 7)), f"is parked; resumes by {RESUMES}"),
        (said(Phase.PARKED, span(-1, 0)), "is parked; it goes on as soon as there is a place"),
        (said(Phase.RESUMING, span(-9, -5), span(0, 2)), f"is resuming; runs by {hour(NOW + LEAD_S)}"),
        (
            said(Phase.STOPPING, span(-1, 0), outcome=Outcome.STOPPED, disk_h=4),
            "is stopping; its disk is kept until +4.00 h",
        ),
        (said(Phase.ENDED, outcome=Outcome.COMPLETED, ended_at=NOW - HOUR_S), "completed at -1.00 h"),
        (
            said(
                Phase.FAILED, outcome=Outcome.FAILED, reasons=(reason(ReasonCode.CRASHED_TOO_OFTEN, times=3),), disk_h=1
            ),
            "failed: the guest crashed 3 times; it is not started again, its disk is kept until +1.00 h",
        ),
        (
            said(
                Phase.REFUSED, outcome=Outcome.REFUSED, reasons=(reason(ReasonCode.UNKNOWN_SIZE, gpus=3, sizes="1, 2"),)
            ),
            "was refused: 3 GPUs cannot be given to one VM here; ask for one of 1, 2",
        ),
    ],
)
def test_each_phase_says_what_comes_next(told: str, expected: str) -> None:
    assert told == expected


def test_spans_that_go_on_in_place_are_one_run() -> None:
    told = said(Phase.RUNNING, span(-1, 1), span(1, 2), span(2, 4, "2g2-3"))
    assert told == f"runs until +2.00 h, then it is parked; resumes by {hour(NOW + 2 * HOUR_S + LEAD_S)}"


def test_a_disk_whose_time_is_over_is_not_promised() -> None:
    assert said(Phase.CANCELLED, outcome=Outcome.CANCELLED, ended_at=NOW, disk_h=0) == "cancelled at +0.00 h"


def test_a_first_start_is_told_by_its_promise_where_that_is_earlier() -> None:
    promised = Promise(start_by_at=NOW + MINUTE_S, end_by_at=NOW + HOUR_S)
    assert said(Phase.STARTING, span(0, 3), promise=promised) == f"is starting; runs by {hour(NOW + MINUTE_S)}"


def start(asked_h: float, *, generation: int, end: VmEnd | None = None, off_h: float | None = None) -> VmFact:
    return VmFact(
        reservation=ReservationId("r-1"),
        generation=generation,
        partition=PartitionId("2g0-1"),
        asked_at=NOW + int(asked_h * HOUR_S),
        end=end,
        off_at=None if off_h is None else NOW + int(off_h * HOUR_S),
    )


BROKEN = Promise(start_by_at=NOW - MINUTE_S, end_by_at=NOW + HOUR_S)


def test_what_is_late_is_not_told_to_come_in_the_past() -> None:
    late_by = hour(NOW - HOUR_S + LEAD_S)
    kept: dict[str, Any] = {"promise": BROKEN}
    assert said(Phase.STARTING, span(-1, 3), **kept) == "is starting, but late: it was to run by -0.02 h"
    assert said(Phase.RESUMING, span(-9, -5), span(-1, 2)) == f"is resuming, but late: it was to run by {late_by}"
    assert said(Phase.PROMISED, span(1, 3), **kept) == "is late: it was to start by -0.02 h"
    # A fault raised the promise: that is what was told.
    assert said(Phase.STARTING, span(-1, 3)) == "is starting; runs by +2.00 h"


def test_a_start_after_a_crash_is_told_by_its_own_bound() -> None:
    crashed = start(-1, generation=1, end=VmEnd.CRASHED, off_h=-0.5)
    again = start(-0.01, generation=2)
    bound_s = PLAN.hosts[HOST].profile.bounds.start_s(2)
    told = said(Phase.RESUMING, span(-1, 3), starts=(crashed, again), vm=(HOST, again))
    assert told == f"is starting again; runs by {hour(again.asked_at + bound_s)}"
    assert said(Phase.RESUMING, span(-1, 3), starts=(crashed,)) == "is starting again"


def test_who_shut_down_is_told_by_when_to_restart() -> None:
    told = said(Phase.RESUMING, span(-1, 3), restart_by_at=NOW + HOUR_S)
    assert told == "its guest shut itself down; restart it by +1.00 h, or it ends then"


def test_a_disk_that_went_on_is_not_said_to_be_kept() -> None:
    over: dict[str, Any] = {"outcome": Outcome.FAILED, "ended_at": NOW, "disk": DISK, "disk_of": ReservationId("r-2")}
    crashed = (reason(ReasonCode.CRASHED_TOO_OFTEN, times=3),)
    told = said(Phase.FAILED, reasons=crashed, **over)
    assert told == "failed: the guest crashed 3 times; it is not started again, its disk went on with r-2"
    gone = said(Phase.FAILED, outcome=Outcome.FAILED, reasons=crashed)
    assert gone == "failed: the guest crashed 3 times; it is not started again"
