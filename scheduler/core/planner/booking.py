"""Booking: where the hours of one reservation lie, and moving them.

A booking moves only to where whoever moves it accepts it; that is nearly always where its promise still holds. Disks
follow their bookings. Ending a reservation gives its room back.
"""

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum

from scheduler.core.facts import VmEnd
from scheduler.core.plan import BookedDisk, BookedSpan, Outcome, Reservation
from scheduler.core.planner.booked_limits import NOT_OVER, AlreadyOver, already_over, is_within, over_limits, retry_at
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.placing import Want, place, shortest_lead_s
from scheduler.core.planner.promising import has_started
from scheduler.core.reasons import Reason, ReasonCode
from scheduler.core.requests import HostId, Request, ReservationId
from scheduler.core.spans import FOREVER, Instant
from scheduler.core.topology import PartitionId

Place = tuple[HostId, PartitionId]

TIMED_OUT = "driver.timeout"
"""How the problem of a start begins whose call did not end within its limit."""

MOST_LIMIT_WAITS = 64
"""So many later starts are tried before a placement within limits gives up."""


class Reach(StrEnum):
    """On which hosts a booking may be placed."""

    ANSWERING = "answering"
    ANSWERING_FIRST = "answering_first"
    """On one that does not answer only if no other can take it, or it is booked on such a one already."""
    ALL = "all"


def with_kept_disk(want: Want, disk: BookedDisk) -> Want:
    """Say of a want that it has a disk already."""
    return replace(want, storage=disk.storage, disk_gib=0, kept_disk=disk)


def want_of(draft: Draft, request: Request, *, run_s: int, with_gifts: bool) -> Want:
    from_at = max(draft.now, request.not_before_at or 0)
    only_at = request.is_at_fixed_time
    if only_at:
        assert request.start_by_at is not None
        from_at = request.start_by_at - shortest_lead_s(draft, request.gpus)
    return Want(
        of=request.id,
        gpus=request.gpus,
        queue=request.queue,
        at_boundary=request.at_boundary,
        run_s=run_s,
        from_at=from_at,
        only_at=only_at,
        with_gifts=with_gifts,
        disk_gib=request.disk_gib,
        is_scratch=draft.is_scratch(request.queue),
    )


def movable(draft: Draft, reservation: Reservation) -> tuple[BookedSpan, ...]:
    """Return the spans of a reservation that the plan may still move: not pinned, not begun.

    A span that has begun is being handed over, pinned or not: placed anew from now it would only be late.
    """
    if reservation.outcome is not None:
        return ()
    now = draft.now
    return tuple([span for span in reservation.spans if span.generation is None and span.start_at > now])


def rebook(
    draft: Draft,
    reservation: Reservation,
    *,
    run_s: int | None = None,
    from_at: Instant | None = None,
    avoid: frozenset[Place] = frozenset(),
    is_fault: bool = False,
    reach: Reach = Reach.ANSWERING_FIRST,
    may_be_over: AlreadyOver | None = None,
    latest_at: Instant = FOREVER,
    accept: Callable[[tuple[BookedSpan, ...]], bool],
) -> bool:
    """Place the movable spans of a reservation anew, if `accept` likes the outcome; else leave them.

    `run_s`: what they have to deliver, by default what they deliver now. With `is_fault` what was to start at one
    instant may start after it, and what has no place within limits gets one all the same. `may_be_over`: by how much it
    may be over limits, by default `over_as_it_is`. `latest_at`: of no use is a later start than that. Returns
    whether they were placed anew.
    """
    old = movable(draft, reservation)
    may_be_over = over_as_it_is(draft, reservation) if may_be_over is None else may_be_over
    fixed = tuple(span for span in reservation.spans if span not in old)
    if run_s is None:
        run_s = sum(draft.hours_s(span, reservation.request.gpus) for span in old)
    want = replace(want_of(draft, reservation.request, run_s=run_s, with_gifts=True), latest_at=latest_at)
    if fixed or has_started(reservation):
        last_end_at = max((span.end_at for span in fixed), default=draft.now)
        stay = _place(fixed[-1]) if fixed and last_end_at > draft.now else None
        from_at = max(draft.now, last_end_at, from_at or 0)
        want = replace(want, only_at=False, from_at=from_at, stay=stay, goes_on=True)
    elif is_fault or from_at is not None:
        want = replace(want, only_at=want.only_at and not is_fault, from_at=max(draft.now, want.from_at, from_at or 0))
    disk = draft.disks.get(reservation.disk) if reservation.disk else None
    if disk is not None:
        if is_disk_bound(draft, reservation) or any(span.end_at > draft.now for span in fixed):
            want = with_kept_disk(want, disk)
            # What a fault took is made good even where the pool gets tight by it.
            want = replace(want, kept_disk=None) if is_fault else want
        else:
            want = replace(want, disk_gib=disk.size_gib)
            del draft.disks[disk.id]
    draft.put(replace(reservation, spans=fixed))
    is_on_silent = any(span.host in draft.silent_hosts for span in old)
    spans = None
    if reach is not Reach.ALL:
        spans = place_within(draft, reservation.request, replace(want, avoid=avoid), may_be_over, is_due=is_fault)
    is_well = spans is not None and accept(spans)
    may_use_silent = reach is Reach.ALL or (reach is Reach.ANSWERING_FIRST and (spans is None or is_on_silent))
    if not is_well and may_use_silent and (draft.silent_hosts or reach is Reach.ALL):
        anywhere = replace(want, avoid=avoid, may_use_silent=True)
        spans = place_within(draft, reservation.request, anywhere, may_be_over, is_due=is_fault)
        is_well = spans is not None and accept(spans)
    if disk is not None:
        draft.disks[disk.id] = disk
    if spans is None or not is_well:
        draft.put(reservation)
        return False
    draft.put(replace(reservation, spans=_joined(draft, reservation.request, fixed, spans)))
    follow_disk(draft, reservation.id, is_owed=True)
    return True


def over_as_it_is(draft: Draft, reservation: Reservation) -> AlreadyOver:
    """Return by how much a reservation may be over limits where it is placed anew: by as much as it is now.

    It is over one only under a policy that allowed it.
    """
    return already_over(draft, reservation.request, reservation.spans)


def place_within(
    draft: Draft, request: Request, want: Want, already_over: AlreadyOver = NOT_OVER, *, is_due: bool = False
) -> tuple[BookedSpan, ...] | None:
    """Place where nobody goes over a limit, or further over it than he is: if need be later than there is room.

    `is_due`: what was promised has to be placed, and if there is no such place, anywhere.
    """
    earliest = spans = place(draft, want)
    for _ in range(MOST_LIMIT_WAITS):
        if spans is None:
            break
        over = over_limits(draft, request, spans)
        if is_within(over, already_over):
            return spans
        from_at = retry_at(over, already_over)
        if want.only_at or from_at >= min(draft.horizon_at, want.latest_at + 1):
            break
        want = replace(want, from_at=max(from_at, want.from_at + 1))
        spans = place(draft, want)
    return earliest if is_due else None


def _joined(
    draft: Draft, request: Request, fixed: tuple[BookedSpan, ...], spans: tuple[BookedSpan, ...]
) -> tuple[BookedSpan, ...]:
    """Return a booking in one; where it goes on in the same place without a gap, the guest just runs on."""
    if not fixed or fixed[-1].end_at <= draft.now or _place(fixed[-1]) != _place(spans[0]):
        return fixed + spans
    last, following = fixed[-1], spans[0]
    if last.end_at != following.start_at:
        return fixed + spans
    # No second start: the last of the hours needs no lead. What is parked at an edge still runs to the edge.
    lead_s = draft.lead_s(draft.hosts[last.host].profile, request.gpus) if len(spans) == 1 else 0
    return (*fixed[:-1], replace(last, end_at=following.end_at - lead_s), *spans[1:])


def _place(span: BookedSpan) -> Place:
    return span.host, span.partition


def is_disk_bound(draft: Draft, reservation: Reservation) -> bool:
    """Whether its disk is on a host, or may be: from then on it runs only where that disk is.

    What failed to start each time, before a disk was made, is as good elsewhere.
    """
    if reservation.request.continues is not None:
        return True
    vms = draft.vms_of(reservation.id)
    if len(vms) < reservation.generation:
        return True
    for _, vm in vms:
        # What did not end in its time goes on, and may leave a disk there yet.
        if vm.end is not VmEnd.START_FAILED or vm.up_at is not None or vm.problem.startswith(TIMED_OUT):
            return True
    return any(f.disk == reservation.disk and f.deleted_at is None for h in draft.facts.values() for f in h.disks)


def follow_disk(draft: Draft, reservation_id: ReservationId, *, is_owed: bool = False) -> None:
    """Move the disk's booking after its reservation's spans.

    `is_owed`: it is kept for its whole retention whatever else is in the pool; whoever says so looks for the room, or
    makes good what a fault took.
    """
    assert draft.rules is not None
    reservation = draft.reservations[reservation_id]
    if reservation.disk is None or reservation.disk not in draft.disks or not reservation.spans:
        return
    disk = draft.disks[reservation.disk]
    until_at = reservation.spans[-1].end_at + draft.rules.retention_s
    if is_disk_bound(draft, reservation):
        if is_owed:
            draft.keep_disk_until(disk.id, until_at)
        else:
            _keep_disk(draft, disk, reservation.spans[-1].end_at)
        return
    # Not the first of all: that one may have passed without a start.
    first = next((span for span in reservation.spans if span.end_at > draft.now), reservation.spans[-1])
    if has_started(reservation):
        # What was told of its retention stays, even where no disk was ever made.
        from_at, until_at = min(disk.from_at, first.start_at), max(disk.until_at, until_at)
    else:
        from_at = first.start_at
    draft.disks[disk.id] = replace(disk, storage=draft.hosts[first.host].storage, from_at=from_at, until_at=until_at)


def _keep_disk(draft: Draft, disk: BookedDisk, end_at: Instant) -> None:
    """Keep a disk for its retention after an end.

    A later policy may have made that longer than was told: where the pool has no room for it, what was told holds.
    """
    assert draft.rules is not None
    until_at = end_at + draft.rules.retention_s
    if until_at > disk.until_at and not draft.has_pool_room(
        disk.storage,
        is_scratch=disk.is_scratch,
        start_at=max(disk.until_at, draft.now),
        end_at=until_at,
        more_gib=disk.size_gib,
    ):
        until_at = end_at
    draft.keep_disk_until(disk.id, until_at)


def end(draft: Draft, reservation: Reservation, outcome: Outcome, why: Reason) -> None:
    """End a reservation now: its booking gives its room back, its VM is stopped by converge, its disk is kept."""
    spans = tuple(
        replace(span, end_at=min(span.end_at, draft.now)) for span in reservation.spans if span.start_at < draft.now
    )
    # The promise stays as it was put off last, so what put it off is said as long as the reservation is shown.
    broken = (told for told in reservation.reasons if told.code is ReasonCode.PROMISE_BROKEN)
    ended = replace(reservation, spans=spans, outcome=outcome, ended_at=draft.now, reasons=(why, *broken))
    draft.put(ended)
    draft.is_room_freed = True
    if reservation.disk is not None and reservation.disk in draft.disks:
        if has_started(reservation) or reservation.request.continues is not None:
            _keep_disk(draft, draft.disks[reservation.disk], draft.now)
        else:
            del draft.disks[reservation.disk]
    facts = dict(why.facts)
    facts.pop("reservation", None)
    draft.note(f"reservation.{outcome.value}", ended, is_notice=True, why=why.code.value, **facts)
