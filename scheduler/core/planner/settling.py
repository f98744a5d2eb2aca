"""Settling: what the facts mean for the plan. Guests run, end, crash; starts fail; GPUs are lost.

Only ever gives time back, or, where a fault took hours away, finds them another place; if that is later than the
promise, `break_promise` says so. Settling twice changes nothing the second time.
"""

from dataclasses import replace

from scheduler.core.converging.desired import run_end_at
from scheduler.core.facts import VmEnd, VmFact
from scheduler.core.plan import BookedDisk, BookedSpan, Outcome, Reservation
from scheduler.core.planner.admission import check_booked_limits
from scheduler.core.planner.booking import Reach, end, movable, rebook
from scheduler.core.planner.causes import HOURS_LOST, NO_PLACE, Cause, cause_of_delay, host_is_silent, override_told
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.extending import lengthen, room_until_at, trim
from scheduler.core.planner.held_up import cannot_keep, places_tried, settle_held_up, tell_if_broken
from scheduler.core.planner.owed import (
    LEAST_OWED_S,
    Vms,
    delivered_s,
    is_end_unseen,
    is_start_of_now,
    latest_start,
    owed_s,
    own_loss_s,
    ran_since_at,
)
from scheduler.core.planner.promising import break_promise, is_told
from scheduler.core.reasons import ReasonCode, reason
from scheduler.core.requests import HostId, by_number
from scheduler.core.spans import Instant

HOST_FAULTS = frozenset({VmEnd.GPU_LOST, VmEnd.HOST_REBOOT, VmEnd.VANISHED, VmEnd.START_FAILED})
"""Ends for which the hours they cost are delivered later."""


def settle(draft: Draft) -> None:
    """Bring every live reservation in line with the facts.

    Most need nothing for hours: what was found of them is remembered, and costs a comparison.
    """
    settled = draft.settled
    settled.begin(draft.now, draft.rules, draft.hosts_in_trouble(), draft.longest_grace_s())
    if settled.restless is None:
        settled.everybody(one.id for one in draft.live())
    assert settled.restless is not None
    for key in sorted(settled.restless, key=by_number):
        reservation = draft.reservations.get(key)
        if reservation is None or reservation.outcome is not None or reservation.promise is None:
            settled.drop(key)
            continue
        is_well = _settle_one(draft, reservation, draft.vms_of(key))
        if is_well and draft.reservations[key] is reservation and not draft.is_just_awake and not draft.silent_hosts:
            settled.remember(key, _quiet_until_at(draft, reservation, draft.vms_of(key)))
    _drop_disks(draft)


def _quiet_until_at(draft: Draft, reservation: Reservation, vms: Vms) -> Instant:
    """Return until when there is nothing to settle for one that is as it should be, if nothing happens to it."""
    edges = [span.start_at if span.start_at > draft.now else span.end_at for span in reservation.spans]
    current = latest_start(reservation, vms)
    if current is not None and current.end is VmEnd.SELF_SHUTDOWN and current.off_at is not None:
        edges.append(current.off_at + draft.settings.self_shutdown_ends_after_s)
    if reservation.promise is not None:
        edges.append(reservation.promise.start_by_at + 1)
    return min([edge for edge in edges if edge > draft.now], default=draft.now)


def _settle_one(draft: Draft, reservation: Reservation, vms: Vms) -> bool:
    """Return whether there is nothing to settle before its next edge, as long as nothing happens to it."""
    if draft.is_just_awake and is_end_unseen(draft, reservation, vms):
        return False
    current = latest_start(reservation, vms)
    if _ended_by_guest(draft, reservation, vms, current):
        return False
    if current is not None and current.off_at is not None and _ended_while_parked(draft, reservation, vms, current):
        return False
    is_well = False
    if current is not None and current.running_at is not None and current.off_at is None:
        # One that was asked to stop will be started again: the lead of what follows is not given back.
        is_well = current.stop_asked_at is not None or _settle_running(draft, reservation, vms, current)
    else:
        settle_held_up(draft, reservation, vms)
        is_well = _waits_well(draft, reservation, vms)
    reservation = draft.reservations[reservation.id]
    if reservation.outcome is None and not reservation.goes_on_after(draft.now):
        _settle_over(draft, reservation, vms)
        return False
    return is_well


def _waits_well(draft: Draft, reservation: Reservation, vms: Vms) -> bool:
    """Whether one waits as it should, on GPUs that are there.

    For its first start, which is to come in time; to be up; parked; or for its owner, after it shut itself down.
    """
    ahead = [span for span in reservation.spans if span.end_at > draft.now]
    if not ahead or reservation.promise is None or any(map(draft.is_lost, ahead)):
        return False
    is_begun = ahead[0].start_at <= draft.now
    if not vms:
        return not is_begun and not reservation.generation and ahead[0].start_at <= reservation.promise.start_by_at
    current = latest_start(reservation, vms)
    if current is None:
        return False
    if not is_begun:
        # Parked, or it heeded the warning and shut itself down just before.
        return current.end in (VmEnd.STOPPED, VmEnd.SELF_SHUTDOWN) and current.running_at is not None
    if not is_start_of_now(draft, reservation, current):
        return False
    if current.end is None:
        return current.running_at is None and draft.now <= reservation.promise.start_by_at
    return current.end is VmEnd.SELF_SHUTDOWN and current.running_at is not None


def _ended_by_guest(draft: Draft, reservation: Reservation, vms: Vms, current: VmFact | None) -> bool:
    """End what shut itself down and was not restarted in time, and what crashed too often."""
    crashes = len([vm for _, vm in vms if vm.end is VmEnd.CRASHED])
    if crashes > draft.settings.crash_restarts:
        end(draft, reservation, Outcome.FAILED, reason(ReasonCode.CRASHED_TOO_OFTEN, times=crashes))
        return True
    if current is None or current.end is not VmEnd.SELF_SHUTDOWN or current.off_at is None:
        return False
    if reservation.restart_after >= current.generation or _is_parked(draft, reservation, current):
        return False
    grace_s = draft.settings.self_shutdown_ends_after_s
    if draft.now < current.off_at + grace_s:
        return False
    end(draft, reservation, Outcome.COMPLETED, reason(ReasonCode.SHUT_ITSELF_DOWN, grace_s=grace_s))
    return True


def _is_parked(draft: Draft, reservation: Reservation, vm: VmFact) -> bool:
    """Whether a guest that shut itself down did so just before it would have been parked: it heeded the warning."""
    assert vm.off_at is not None
    span = reservation.span_of(vm.generation)
    if span is None:
        return False
    edge_at = run_end_at(reservation, span)
    if vm.off_at <= edge_at - draft.settings.self_shutdown_ends_after_s:
        return False
    return any(later.start_at >= edge_at for later in reservation.spans) or override_told(reservation) is not None


def _ended_while_parked(draft: Draft, reservation: Reservation, vms: Vms, current: VmFact) -> bool:
    """End what is off, between its spans, with all its hours delivered: a guest may take long to shut down."""
    if current.running_at is None or is_start_of_now(draft, reservation, current):
        return False
    if owed_s(draft, reservation, vms) >= LEAST_OWED_S:
        return False
    _end_delivered(draft, reservation)
    return True


def _end_delivered(draft: Draft, reservation: Reservation) -> None:
    end(draft, reservation, Outcome.COMPLETED, reason(ReasonCode.HOURS_DELIVERED, run_s=reservation.request.run_s))


def _settle_running(draft: Draft, reservation: Reservation, vms: Vms, current: VmFact) -> bool:
    """Give back what a guest that runs will not need; find room for what a fault cost it.

    Returns whether there was nothing to do: it has what it needs.
    """
    began_on = reservation.span_of(current.generation)
    span = reservation.span_at(draft.now)
    if began_on is None or span is None or not is_start_of_now(draft, reservation, current):
        return False
    # Its start was held up, and what was booked again meanwhile was not told each time.
    if cannot_keep(draft, reservation):
        break_promise(draft, reservation, _cause_of_loss(reservation, vms))
        reservation = draft.reservations[reservation.id]
    host = next(host for host, vm in vms if vm is current)
    ran_at = ran_since_at(draft, reservation, host, current)
    assert ran_at is not None
    running_at = max(ran_at, reservation.request.not_before_at or 0)
    earlier = [item for item in vms if item[1].generation < current.generation]
    left_s = reservation.request.run_s - delivered_s(draft, reservation, earlier, draft.now)
    due_at = running_at + max(left_s, 0)
    if due_at < span.end_at:
        gone = movable(draft, reservation)
        kept = [s for s in reservation.spans if s not in gone and s is not span]
        shorter = () if due_at <= span.start_at else (replace(span, end_at=max(due_at, draft.now)),)
        draft.put(replace(reservation, spans=(*kept, *shorter)))
        draft.is_room_freed = True
        return False
    tail = movable(draft, reservation)
    tail_s = sum([draft.hours_s(s, reservation.request.gpus) for s in tail])
    missing_s = due_at - span.end_at - tail_s
    if missing_s < 0 and tail:
        return not trim(draft, reservation, tail, -missing_s)
    if missing_s >= LEAST_OWED_S and _is_hosts_fault(draft, reservation, vms, began_on):
        missing_s -= own_loss_s(draft, reservation, vms)
        if missing_s >= LEAST_OWED_S:
            _make_good(draft, reservation, span, tail_s, missing_s)
        return False
    return True


def _is_hosts_fault(draft: Draft, reservation: Reservation, vms: Vms, span: BookedSpan) -> bool:
    """Whether hours were lost through no doing of the guest: a fault, an override, a start that took over its bound."""
    if any(vm.end in HOST_FAULTS for _, vm in vms) or override_told(reservation) is not None:
        return True
    if any(not past.is_pinned and past.start_at < past.end_at <= draft.now for past in reservation.spans):
        # Nothing was ever started in it: a host did not answer, or did not get to it.
        return True
    bound_at = span.start_at + draft.lead_s(draft.hosts[span.host].profile, reservation.request.gpus)
    # The first start on it: what a guest lost by crashing and starting again is its own.
    first = next(((host, vm) for host, vm in vms if vm.asked_at >= span.start_at), None)
    ran_at = None if first is None else ran_since_at(draft, reservation, *first)
    return ran_at is None or ran_at > bound_at


def _make_good(draft: Draft, reservation: Reservation, span: BookedSpan, tail_s: int, missing_s: int) -> None:
    """Find room for hours that a fault took: in place if it is free, else in a later span."""
    if tail_s == 0:
        end_at = min(span.end_at + missing_s, room_until_at(draft, reservation, span))
        longer = replace(span, end_at=end_at)
        if end_at > span.end_at and not check_booked_limits(draft, reservation.request, (longer,)):
            lengthen(draft, reservation, span, end_at)
            missing_s -= end_at - span.end_at
    reservation = draft.reservations[reservation.id]
    if missing_s >= LEAST_OWED_S:
        rebook(draft, reservation, run_s=tail_s + missing_s, is_fault=True, accept=lambda _: True)
    tell_if_broken(draft, reservation, _cause_of_loss(reservation, draft.vms_of(reservation.id)))


def _cause_of_loss(reservation: Reservation, vms: Vms) -> Cause:
    """Say what took hours: an admin's override, if there was one and no fault, else a fault."""
    has_failed = any(vm.end in HOST_FAULTS for _, vm in vms)
    return HOURS_LOST if has_failed else override_told(reservation) or HOURS_LOST


def _settle_over(draft: Draft, reservation: Reservation, vms: Vms) -> None:
    """All booked time is over: done, unless a fault still owes hours."""
    if override_told(reservation) is not None and any(_is_shutting_down(draft, host, vm) for host, vm in vms):
        # What an override left it is known once its guest is off.
        return
    run_s = owed_s(draft, reservation, vms)
    last = max(reservation.spans, key=lambda s: s.end_at, default=None)
    never_ran = not any(vm.running_at is not None for _, vm in vms)
    if run_s >= LEAST_OWED_S and (never_ran or last is None or _is_hosts_fault(draft, reservation, vms, last)):
        _book_what_is_owed(draft, reservation, vms, run_s)
        return
    _end_delivered(draft, reservation)


def _is_shutting_down(draft: Draft, host: HostId, vm: VmFact) -> bool:
    return vm.running_at is not None and vm.off_at is None and host not in draft.silent_hosts


def _book_what_is_owed(draft: Draft, reservation: Reservation, vms: Vms, run_s: int) -> None:
    """Find another place for hours that a fault took, or wait for one: a host that does not answer is none."""
    avoid = places_tried(draft, reservation, vms)
    if rebook(
        draft, reservation, run_s=run_s, avoid=avoid, is_fault=True, reach=Reach.ANSWERING, accept=lambda _: True
    ):
        never_ran = not any(vm.running_at is not None for _, vm in vms)
        is_delayed = never_ran and bool(reservation.spans)
        cause = cause_of_delay(draft, reservation, vms) if is_delayed else _cause_of_loss(reservation, vms)
        first = next(s for s in draft.reservations[reservation.id].spans if s.end_at > draft.now)
        # It goes on to wait where it waited, for what its owner was told: when it runs, its new end is told.
        is_same = first.start_at <= draft.now and (first.host, first.partition) in avoid
        is_known = never_ran and is_same and is_told(draft, reservation, cause)
        draft.note("reservation.moved", reservation, is_notice=not is_known, owed_s=run_s)
        if not is_known:
            tell_if_broken(draft, reservation, cause)
        return
    last = max(reservation.spans, key=lambda s: s.end_at, default=None)
    cause = host_is_silent(last.host) if last is not None and last.host in draft.silent_hosts else NO_PLACE
    if not is_told(draft, reservation, cause):
        break_promise(draft, reservation, cause)


def close_ended(draft: Draft) -> None:
    """Close ended reservations of which nothing is left on any host; the last thing of a step."""
    for reservation in draft.to_close():
        disk = draft.disks.get(reservation.disk) if reservation.disk else None
        is_disk_left = disk is not None and disk.reservation == reservation.id
        if not is_disk_left and all(vm.is_gone for _, vm in draft.vms_of(reservation.id)):
            draft.put(replace(reservation, is_closed=True))


def _drop_disks(draft: Draft) -> None:
    """Give room back whose retention is over, once the disk is seen to be gone."""
    over = draft.disks.over(draft.now)
    if not over:
        return
    present = {fact.disk for facts in draft.facts.values() for fact in facts.disks if fact.deleted_at is None}
    for disk_id in over:
        holder = draft.reservations.get(draft.disks[disk_id].reservation)
        is_held = holder is not None and holder.outcome is None
        if disk_id not in present and not is_held:
            if _drop_disk(draft, draft.disks[disk_id]):
                draft.is_room_freed = True


def _drop_disk(draft: Draft, disk: BookedDisk) -> bool:
    """Drop a disk; return whether its pool was so full that others may have been in want of room for theirs."""
    room_gib = draft.pool_room_gib(disk.storage, is_scratch=disk.is_scratch)
    left_gib = room_gib - draft.disks.booked_gib(disk.storage, is_scratch=disk.is_scratch)
    del draft.disks[disk.id]
    # The largest of all, kept ones too: whoever waits has one booked, and a look too many does no harm.
    return left_gib < draft.disks.largest_gib()
