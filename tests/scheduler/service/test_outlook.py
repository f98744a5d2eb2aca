"""What is said of a reservation in each phase: what comes next, and by when."""

from dataclasses import replace

import pytest

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


def said(phase: Phase, *spans: BookedSpan, disk_h: float | None = None, **values: object) -> str:
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
        **values,  # type: ignore[arg-type]
    )
    disk = None
    if disk_h is not None:
        disk = BookedDisk(
            id=DiskId("d"), reservation=request.id, owner="ann", size_gib=10, storage="a", is_scratch=False,
            from_at=NOW, until_at=NOW + int(disk_h * HOUR_S),
        )  # fmt: skip
    account = Account(reservation=reservation, phase=phase, delivered_s=0, vm=None, disk=disk)
    return outlook(account, Snapshot(plan=PLAN, facts={}, now=NOW), lambda at: hour(at))


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
