"""Admitting: the first booking of a request, the promise that it can keep, and the room for its disk; or why not."""

from dataclasses import replace

from scheduler.core.plan import BookedDisk, BookedSpan, Outcome, Reservation
from scheduler.core.planner.admission import check_booked_limits
from scheduler.core.planner.booking import place_within, want_of, with_kept_disk
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.outages import outages
from scheduler.core.planner.placing import Want, latest, place, shortest_lead_s
from scheduler.core.planner.promising import keeps, promise_of, running_by_at
from scheduler.core.reasons import Reason, ReasonCode, reason
from scheduler.core.requests import AtBoundary, DiskId, Promise, Request, ReservationId
from scheduler.core.spans import Instant


def refuse(draft: Draft, request: Request, reasons: tuple[Reason, ...]) -> None:
    """Keep the record of a request that was not admitted."""
    draft.put(
        Reservation(
            request=request, promise=None, outcome=Outcome.REFUSED, ended_at=draft.now, is_closed=True, reasons=reasons
        )
    )


def admit(draft: Draft, request: Request) -> tuple[Reservation | None, tuple[Reason, ...]]:
    """Book a request at its earliest place and promise what that place can keep; or say why not.

    The promise is made of a place that uses no gift; the booking may use gifts, if it is no later for it. Where its
    owner or a group would go over a limit it is booked later, if that helps.
    """
    want = want_of(draft, request, run_s=request.run_s, with_gifts=False)
    if request.continues is not None:
        want = with_kept_disk(want, draft.disks[_kept_disk(draft, request.continues)])
    firm = place(draft, want)
    if firm is None and draft.silent_hosts:
        want = replace(want, may_use_silent=True)
        firm = place(draft, want)
    if firm is None:
        return None, _why_not(draft, request, want)
    if request.start_by_at is not None and _is_too_late(draft, request, firm):
        # In pieces it may be in time where one partition is not.
        latest_at = request.start_by_at - shortest_lead_s(draft, request.gpus)
        firm = place(draft, replace(want, latest_at=latest_at)) or firm
    if _is_too_late(draft, request, firm):
        return None, _not_at_that_time(draft, request, firm)
    over = check_booked_limits(draft, request, firm)
    spans = place_within(draft, request, want) if over else firm
    if spans is not None and _is_too_late(draft, request, spans):
        spans = None
    firm = spans or firm
    promise = _with_slack(draft, request, promise_of(draft, request, firm), firm)
    if draft.window_book.has_gifts:
        gifted = place_within(draft, request, replace(want, with_gifts=True))
        if gifted is not None and keeps(draft, request, promise, gifted):
            spans = gifted
    if spans is None:
        return None, over
    spans = _as_late_as_told(draft, request, want, spans, promise) or spans
    disk = _book_disk(draft, request, spans)
    reservation = Reservation(request=request, promise=promise, spans=spans, disk=disk)
    draft.put(reservation)
    draft.note(
        "reservation.promised",
        reservation,
        is_notice=True,
        start_by_at=promise.start_by_at,
        end_by_at=promise.end_by_at,
        booked_at=spans[0].start_at,
        gpus=request.gpus,
        owner=request.owner,
        likely_at=likely_at(draft, request, promise),
        not_before_at=request.not_before_at,
    )
    return reservation, ()


def _as_late_as_told(
    draft: Draft, request: Request, want: Want, spans: tuple[BookedSpan, ...], promise: Promise
) -> tuple[BookedSpan, ...] | None:
    """Return the latest place in one piece that keeps a promise with slack: the near future stays free for others.

    None where there is no slack, or nothing later that has room for its disk and is within limits.
    """
    slack_s = promise.start_by_at - running_by_at(draft, request, spans[0])
    if len(spans) > 1 or slack_s <= 0 or want.kept_disk is not None:
        return None
    from_at = spans[0].start_at
    late = latest(draft, replace(want, latest_at=from_at + slack_s), spans[0], from_at=from_at)
    if late is None or not keeps(draft, request, promise, (late,)) or check_booked_limits(draft, request, (late,)):
        return None
    return (late,)


def _is_too_late(draft: Draft, request: Request, spans: tuple[BookedSpan, ...]) -> bool:
    return request.start_by_at is not None and promise_of(draft, request, spans).start_by_at > request.start_by_at


def _not_at_that_time(draft: Draft, request: Request, spans: tuple[BookedSpan, ...]) -> tuple[Reason, ...]:
    earliest_at = promise_of(draft, request, spans).start_by_at
    return (reason(ReasonCode.NOT_AT_THAT_TIME, wanted_at=request.start_by_at, earliest_at=earliest_at),)


def _with_slack(draft: Draft, request: Request, promise: Promise, firm: tuple[BookedSpan, ...]) -> Promise:
    """Return the promise, later by the slack that the policy states; never past what was asked for, or the horizon."""
    assert draft.rules is not None
    from_at = max(draft.now, request.not_before_at or 0)
    slack_s = draft.rules.slack.of(firm[0].start_at - from_at)
    if request.start_by_at is not None:
        slack_s = min(slack_s, request.start_by_at - promise.start_by_at)
    slack_s = max(0, min(slack_s, draft.horizon_at - promise.end_by_at))
    return Promise(start_by_at=promise.start_by_at + slack_s, end_by_at=promise.end_by_at + slack_s)


def likely_at(draft: Draft, request: Request, promise: Promise) -> Instant:
    """Return when a first start is likely: by what others waited of what they were told. No promise."""
    from_at = max(draft.now, request.not_before_at or 0)
    told_s = max(0, promise.start_by_at - from_at)
    return from_at + (told_s if draft.likely_wait_s is None else draft.likely_wait_s(request.gpus, told_s))


def _kept_disk(draft: Draft, continued: ReservationId) -> DiskId:
    """Return the disk that an earlier reservation left; the earlier one is known only until it is closed."""
    disk = draft.reservations[continued].disk
    assert disk is not None
    return disk


def without_disk(draft: Draft, request: Request) -> tuple[BookedSpan, ...] | None:
    """Return where a request could be booked if its disk took no room; for asking what it waits for."""
    return place(draft, replace(want_of(draft, request, run_s=request.run_s, with_gifts=True), disk_gib=0))


def _why_not(draft: Draft, request: Request, want: Want) -> tuple[Reason, ...]:
    """Say why a request has no place: another time, a smaller disk, a fault, or never."""
    if request.start_by_at is not None:
        later = replace(want, only_at=False, from_at=max(draft.now, want.from_at))
        soonest = place_within(draft, request, later)
        if soonest is not None:
            return _not_at_that_time(draft, request, soonest)
    if want.disk_gib and place(draft, replace(want, disk_gib=0)) is not None:
        remedy = f"the disk pool has no room for {want.disk_gib} GiB: ask for a smaller disk"
        missing: tuple[Reason, ...] = ()
    else:
        remedy = "ask for fewer GPUs or a shorter time"
        if request.at_boundary is not AtBoundary.PARK:
            remedy += ", or let it be parked at boundaries"
        missing = outages(draft.hosts.values(), draft.facts)
    never = reason(
        ReasonCode.NEVER_FITS,
        gpus=request.gpus,
        run_s=request.run_s,
        queue=request.queue,
        horizon_at=draft.horizon_at,
        remedy=remedy,
    )
    return never, *missing


def _book_disk(draft: Draft, request: Request, spans: tuple[BookedSpan, ...]) -> DiskId:
    assert draft.rules is not None
    until_at = spans[-1].end_at + draft.rules.retention_s
    if request.continues is not None:
        disk_id = _kept_disk(draft, request.continues)
        draft.disks[disk_id] = replace(draft.disks[disk_id], reservation=request.id)
        draft.keep_disk_until(disk_id, until_at)
        return disk_id
    disk_id = DiskId(f"d-{request.id}")
    draft.disks[disk_id] = BookedDisk(
        id=disk_id,
        reservation=request.id,
        owner=request.owner,
        size_gib=request.disk_gib,
        storage=draft.hosts[spans[0].host].storage,
        is_scratch=draft.is_scratch(request.queue),
        from_at=spans[0].start_at,
        until_at=until_at,
    )
    return disk_id
