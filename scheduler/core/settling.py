"""Settling: what the facts mean for the plan. Guests run, end, crash; starts fail; GPUs are lost.

Only ever gives time back, or, where a fault took hours away, finds them another place; if that is later than the
promise, `break_promise` says so. Settling twice changes nothing the second time.
"""

from dataclasses import replace

from scheduler.core.booking import break_promise, end, keeps_promise, movable, rebook
from scheduler.core.draft import Draft
from scheduler.core.extending import lengthen, room_until_at
from scheduler.core.facts import VmEnd, VmFact
from scheduler.core.plan import BookedSpan, Outcome, Reservation
from scheduler.core.reasons import ReasonCode, reason
from scheduler.core.replanning import replan
from scheduler.core.requests import HostId
from scheduler.core.spans import Instant

HOST_FAULTS = frozenset({VmEnd.GPU_LOST, VmEnd.HOST_REBOOT, VmEnd.VANISHED, VmEnd.START_FAILED})
"""Ends for which the hours they cost are delivered later."""

NO_PLACE = "no GPUs are left that could take it"
"""The cause of a broken promise that is told once for each time that a reservation loses its last place."""

LEAST_OWED_S = 60
"""Less than this is not worth another start."""


def settle(draft: Draft) -> None:
    """Bring every live reservation in line with the facts."""
    for key in sorted(draft.reservations):
        reservation = draft.reservations[key]
        if reservation.outcome is None and reservation.promise is not None:
            _settle_one(draft, reservation)
    _drop_disks(draft)


def _settle_one(draft: Draft, reservation: Reservation) -> None:
    vms = draft.vms_of(reservation.id)
    current = next((vm for _, vm in vms if vm.generation == reservation.generation), None)
    if _ended_by_guest(draft, reservation, vms, current):
        return
    if current is not None and current.running_at is not None and current.off_at is None:
        _settle_running(draft, reservation, vms, current)
    else:
        _settle_waiting(draft, reservation, vms)
    reservation = draft.reservations[reservation.id]
    if reservation.outcome is None and not any(span.end_at > draft.now for span in reservation.spans):
        _settle_over(draft, reservation, vms)


def _ended_by_guest(
    draft: Draft, reservation: Reservation, vms: list[tuple[HostId, VmFact]], current: VmFact | None
) -> bool:
    """End what shut itself down and was not restarted in time, and what crashed too often."""
    crashes = sum(1 for _, vm in vms if vm.end is VmEnd.CRASHED)
    if crashes > draft.settings.crash_restarts:
        end(draft, reservation, Outcome.FAILED, reason(ReasonCode.CRASHED_TOO_OFTEN, times=crashes))
        return True
    if current is None or current.end is not VmEnd.SELF_SHUTDOWN or current.off_at is None:
        return False
    if reservation.restart_after >= current.generation:
        return False
    grace_s = draft.settings.self_shutdown_ends_after_s
    if draft.now < current.off_at + grace_s:
        return False
    end(draft, reservation, Outcome.COMPLETED, reason(ReasonCode.SHUT_ITSELF_DOWN, grace_s=grace_s))
    return True


def delivered_s(reservation: Reservation, vms: list[tuple[HostId, VmFact]], until_at: Instant) -> int:
    """Return the running time that the guests of a reservation have had up to an instant."""
    from_at = reservation.request.not_before_at or 0
    return sum(_ran_s(vm, from_at, until_at) for _, vm in vms)


def _ran_s(vm: VmFact, from_at: Instant, until_at: Instant) -> int:
    if vm.running_at is None:
        return 0
    off_at = until_at if vm.off_at is None else min(vm.off_at, until_at)
    return max(0, off_at - max(vm.running_at, from_at))


def _settle_running(draft: Draft, reservation: Reservation, vms: list[tuple[HostId, VmFact]], current: VmFact) -> None:
    """Give back what a guest that runs will not need; find room for what a fault cost it."""
    span = next((s for s in reservation.spans if s.generation == current.generation), None)
    if span is None or span.end_at <= draft.now:
        return
    assert current.running_at is not None
    running_at = max(current.running_at, reservation.request.not_before_at or 0)
    earlier = [item for item in vms if item[1].generation < current.generation]
    owed_s = reservation.request.run_s - delivered_s(reservation, earlier, draft.now)
    due_at = running_at + max(owed_s, 0)
    if due_at < span.end_at:
        gone = movable(draft, reservation)
        kept = tuple(s for s in reservation.spans if s not in gone and s != span)
        shorter = () if due_at <= span.start_at else (replace(span, end_at=max(due_at, draft.now)),)
        draft.put(replace(reservation, spans=(*kept, *shorter)))
        draft.is_room_freed = True
        return
    tail = movable(draft, reservation)
    tail_s = sum(draft.hours_s(s, reservation.request.gpus) for s in tail)
    missing_s = due_at - span.end_at - tail_s
    if missing_s < 0 and tail:
        _trim(draft, reservation, tail, -missing_s)
    elif missing_s >= LEAST_OWED_S and _is_hosts_fault(draft, reservation, vms, span):
        _make_good(draft, reservation, span, tail_s, missing_s)


def _trim(draft: Draft, reservation: Reservation, tail: tuple[BookedSpan, ...], surplus_s: int) -> None:
    """Take surplus hours off the end of a tail."""
    assert draft.rules is not None
    kept = [s for s in reservation.spans if s not in tail]
    left = list(tail)
    while left and surplus_s >= (hours_s := draft.hours_s(left[-1], reservation.request.gpus)):
        surplus_s -= hours_s
        left.pop()
    if left:
        last = left.pop()
        hours_s = draft.hours_s(last, reservation.request.gpus)
        # The last span keeps at least the minimum useful length: it was padded to it, or is.
        least_s = min(hours_s, draft.rules.min_useful_s)
        left.append(replace(last, end_at=last.end_at - (hours_s - max(hours_s - surplus_s, least_s))))
    if tuple(left) != tail:
        draft.put(replace(reservation, spans=(*kept, *left)))
        draft.is_room_freed = True


def _is_hosts_fault(draft: Draft, reservation: Reservation, vms: list[tuple[HostId, VmFact]], span: BookedSpan) -> bool:
    """Whether hours were lost through no doing of the guest: a host's fault, or a start that took over its bound."""
    if any(vm.end in HOST_FAULTS for _, vm in vms):
        return True
    bound_at = span.start_at + draft.lead_s(draft.hosts[span.host].profile, reservation.request.gpus)
    # The first start on it: what a guest lost by crashing and starting again is its own.
    first = next((vm for _, vm in vms if vm.asked_at >= span.start_at), None)
    return first is None or first.running_at is None or first.running_at > bound_at


def _make_good(draft: Draft, reservation: Reservation, span: BookedSpan, tail_s: int, missing_s: int) -> None:
    """Find room for hours that a fault took: in place if it is free, else in a later span."""
    if tail_s == 0:
        end_at = min(span.end_at + missing_s, room_until_at(draft, reservation, span))
        if end_at > span.end_at:
            lengthen(draft, reservation, span, end_at)
            missing_s -= end_at - span.end_at
    reservation = draft.reservations[reservation.id]
    if missing_s >= LEAST_OWED_S:
        rebook(draft, reservation, run_s=tail_s + missing_s, is_fault=True, accept=lambda _: True)
    _tell_if_broken(draft, reservation, "hours lost to a fault of the host")


def _settle_waiting(draft: Draft, reservation: Reservation, vms: list[tuple[HostId, VmFact]]) -> None:
    """See to a reservation whose guest does not run: failed starts, lost GPUs, a start that is overdue."""
    span = reservation.span_at(draft.now)
    is_up = any(vm.up_at is not None and vm.off_at is None for _, vm in vms)
    if span is not None and not is_up and not _is_busy_stopping(reservation, vms, span):
        failed = [vm for host, vm in vms if vm.end is VmEnd.START_FAILED and host == span.host]
        here = [vm for vm in failed if vm.partition == span.partition and vm.asked_at >= span.start_at]
        all_failed = sum(1 for _, vm in vms if vm.end is VmEnd.START_FAILED)
        attempts = draft.settings.start_attempts
        if all_failed >= 3 * attempts:
            why = reason(
                ReasonCode.START_FAILED,
                host=span.host,
                partition=span.partition,
                times=all_failed,
                problem=here[-1].problem if here else "see the events of the reservation",
            )
            end(draft, reservation, Outcome.FAILED, why)
            return
        if len(here) >= attempts or draft.is_lost(span):
            _move_off(draft, reservation, vms, span)
    elif any(draft.is_lost(s) for s in movable(draft, reservation)):
        _move_lost(draft, reservation)
    _check_overdue(draft, draft.reservations[reservation.id], vms)


def _is_busy_stopping(reservation: Reservation, vms: list[tuple[HostId, VmFact]], span: BookedSpan) -> bool:
    """Whether the start on this span is still under way, or its outcome not seen yet."""
    current = next((vm for _, vm in vms if vm.generation == span.generation), None)
    return current is not None and current.end is None


def _move_off(draft: Draft, reservation: Reservation, vms: list[tuple[HostId, VmFact]], span: BookedSpan) -> None:
    """End a span on which nothing could be started, and book its hours elsewhere."""
    gone = movable(draft, reservation)
    cut = (replace(span, end_at=draft.now),) if span.is_pinned and span.start_at < draft.now else ()
    others = tuple(s for s in reservation.spans if s != span and s not in gone)
    owed_s = reservation.request.run_s - delivered_s(reservation, vms, draft.now)
    with draft.attempt() as attempt:
        draft.put(replace(reservation, spans=(*others, *cut)))
        draft.is_room_freed = True
        moved = draft.reservations[reservation.id]
        failed = {(host, vm.partition) for host, vm in vms if vm.end is VmEnd.START_FAILED}
        avoid = frozenset({(span.host, span.partition), *failed})
        if rebook(draft, moved, run_s=owed_s, avoid=avoid, is_fault=True, accept=lambda _: True):
            draft.note("reservation.moved", moved, is_notice=True, off=span.partition, host=span.host)
            _tell_if_broken(draft, moved, f"starts on {span.host} {span.partition} failed")
            attempt.keep()


def _move_lost(draft: Draft, reservation: Reservation) -> None:
    """Book elsewhere what lies on lost GPUs; when no place keeps the promise, take the earliest and say so."""
    lost = movable(draft, reservation)
    cause = f"GPUs of {lost[0].host} {lost[0].partition} were lost"
    if rebook(draft, reservation, accept=keeps_promise(draft, reservation)):
        draft.note("reservation.moved", reservation, off=lost[0].partition, host=lost[0].host)
        return
    if replan(draft, stuck=reservation.id) is None:
        draft.note("reservation.moved", reservation, off=lost[0].partition, host=lost[0].host)
        return
    if rebook(draft, reservation, is_fault=True, accept=lambda _: True):
        draft.note("reservation.moved", reservation, off=lost[0].partition, host=lost[0].host)
        _tell_if_broken(draft, reservation, cause)


def _check_overdue(draft: Draft, reservation: Reservation, vms: list[tuple[HostId, VmFact]]) -> None:
    """A first start that is past its promise was broken by a fault: say so, with what holds now."""
    if reservation.outcome is not None or reservation.promise is None:
        return
    if draft.now > reservation.promise.start_by_at and not any(vm.running_at is not None for _, vm in vms):
        ahead = [span for span in reservation.spans if span.end_at > draft.now]
        if ahead or reservation.promise_notice == 0:
            problem = next((vm.problem for _, vm in reversed(vms) if vm.problem), "the hand-over was not done in time")
            break_promise(draft, reservation, problem)


def _settle_over(draft: Draft, reservation: Reservation, vms: list[tuple[HostId, VmFact]]) -> None:
    """All booked time is over: done, unless a fault still owes hours."""
    owed_s = reservation.request.run_s - delivered_s(reservation, vms, draft.now)
    last = max(reservation.spans, key=lambda s: s.end_at, default=None)
    never_ran = not any(vm.running_at is not None for _, vm in vms)
    if owed_s >= LEAST_OWED_S and (never_ran or last is None or _is_hosts_fault(draft, reservation, vms, last)):
        if rebook(draft, reservation, run_s=owed_s, is_fault=True, accept=lambda _: True):
            draft.note("reservation.moved", reservation, is_notice=True, owed_s=owed_s)
            _tell_if_broken(draft, reservation, "hours lost to a fault of the host")
        elif not any(why.fact("cause") == NO_PLACE for why in reservation.reasons):
            break_promise(draft, reservation, NO_PLACE)
        return
    end(draft, reservation, Outcome.COMPLETED, reason(ReasonCode.HOURS_DELIVERED, run_s=reservation.request.run_s))


def _tell_if_broken(draft: Draft, before: Reservation, cause: str) -> None:
    """Raise the promise, with its notice, if the booking cannot keep it any more."""
    current = draft.reservations[before.id]
    ahead = tuple(span for span in current.spans if span.end_at > draft.now)
    if ahead and not keeps_promise(draft, current)(ahead):
        break_promise(draft, current, cause)


def close_ended(draft: Draft) -> None:
    """Close ended reservations of which nothing is left on any host; the last thing of a step."""
    for key in sorted(draft.reservations):
        reservation = draft.reservations[key]
        if reservation.outcome is None or reservation.is_closed:
            continue
        disk = draft.disks.get(reservation.disk) if reservation.disk else None
        is_disk_left = disk is not None and disk.reservation == reservation.id
        if not is_disk_left and all(vm.is_gone for _, vm in draft.vms_of(reservation.id)):
            draft.put(replace(reservation, is_closed=True))


def _drop_disks(draft: Draft) -> None:
    """Give room back whose retention is over, once the disk is seen to be gone."""
    present = {fact.disk for facts in draft.facts.values() for fact in facts.disks if fact.deleted_at is None}
    for disk_id, disk in sorted(draft.disks.items()):
        holder = draft.reservations.get(disk.reservation)
        is_held = holder is not None and holder.outcome is None
        if disk.until_at <= draft.now and disk_id not in present and not is_held:
            del draft.disks[disk_id]
            draft.is_room_freed = True
