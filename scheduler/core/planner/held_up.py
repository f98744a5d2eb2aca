"""What is done for a reservation whose guest should run and does not, or could not where it is booked.

Its starts failed, its GPUs were lost, its host does not answer, or whoever was there before does not leave: it goes to
another place if there is one, and if that is later than its promise, `break_promise` says so, once for each cause.
"""

from collections.abc import Callable
from dataclasses import replace

from scheduler.core.facts import VmEnd, VmFact
from scheduler.core.plan import BookedSpan, Outcome, Reservation
from scheduler.core.planner.booking import Place, Reach, end, is_disk_bound, movable, rebook
from scheduler.core.planner.causes import Cause, cause_of_delay, gpus_were_lost, host_is_silent, starts_failed
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.owed import LEAST_OWED_S, Vms, is_boot_unseen, is_start_of_now, latest_start, owed_s
from scheduler.core.planner.promising import break_promise, is_told, keeps_promise
from scheduler.core.planner.replanning import replan
from scheduler.core.reasons import ReasonCode, reason
from scheduler.core.spans import Instant


def settle_held_up(draft: Draft, reservation: Reservation, vms: Vms) -> None:
    """See to a reservation whose guest does not run."""
    span = reservation.span_at(draft.now)
    is_up = any(vm.up_at is not None and vm.off_at is None for _, vm in vms)
    if span is not None and not is_up and not _is_under_way(draft, reservation, vms):
        if _failed_for_good(draft, reservation, vms, span):
            return
        failed = _failed_here(vms, span)
        if len(failed) >= draft.settings.start_attempts:
            _move_off(draft, reservation, vms, span, cause=starts_failed(span))
        elif draft.is_lost(span):
            _move_off(draft, reservation, vms, span, cause=gpus_were_lost(draft, span))
        else:
            _leave_blocked(draft, reservation, vms, span)
    elif any(draft.is_lost(s) for s in movable(draft, reservation)):
        _move_lost(draft, reservation)
    else:
        _leave_silent(draft, reservation)
    _check_overdue(draft, draft.reservations[reservation.id], vms)


def _is_under_way(draft: Draft, reservation: Reservation, vms: Vms) -> bool:
    """Whether a start for now is under way, or its outcome not seen yet."""
    current = latest_start(reservation, vms)
    return current is not None and current.end is None and is_start_of_now(draft, reservation, current)


def _failed_here(vms: Vms, span: BookedSpan) -> list[VmFact]:
    return [
        vm
        for host, vm in vms
        if vm.end is VmEnd.START_FAILED
        and host == span.host
        and vm.partition == span.partition
        and vm.asked_at >= span.start_at
    ]


def _failed_for_good(draft: Draft, reservation: Reservation, vms: Vms, span: BookedSpan) -> bool:
    """End what could not be started on several places."""
    failed = [vm for _, vm in vms if vm.end is VmEnd.START_FAILED]
    if len(failed) < 3 * draft.settings.start_attempts:
        return False
    here = _failed_here(vms, span)
    why = reason(
        ReasonCode.START_FAILED,
        host=span.host,
        partition=span.partition,
        times=len(failed),
        problem=here[-1].problem if here else "see the events of the reservation",
    )
    end(draft, reservation, Outcome.FAILED, why)
    return True


def ready_by_at(draft: Draft, reservation: Reservation, vms: Vms, span: BookedSpan) -> Instant | None:
    """Return by when the guest of a span that has begun is up by bounds; None while nobody may take it from there."""
    from_at = span.start_at
    current = latest_start(reservation, vms)
    if current is not None and is_start_of_now(draft, reservation, current):
        if current.end is VmEnd.SELF_SHUTDOWN:
            # It waits for its owner, or has just been restarted by them: the time that passed is no fault of the place.
            return None
        if current.end is VmEnd.UNKNOWN and reservation.restart_after < current.generation:
            # It is not understood: that does not get better elsewhere.
            return None
        from_at = max(from_at, current.off_at or 0)
    elif span.is_pinned and not (current is None and draft.is_left(span.host)):
        # Converge is at it, and has not written yet what it asked for. Of a host that is left nothing was asked.
        return None
    return from_at + draft.lead_s(draft.hosts[span.host].profile, reservation.request.gpus)


def _leave_blocked(draft: Draft, reservation: Reservation, vms: Vms, span: BookedSpan) -> None:
    """Leave a place at which the guest should be up by all bounds, and nothing happens, for one that is free now.

    From a host that does not answer it goes before that, if its promise is kept by it, and for a later place too.
    """
    ready_at = ready_by_at(draft, reservation, vms, span)
    if ready_at is None:
        return
    # One that begins just now is not late, however fast its host is.
    is_late = draft.now >= ready_at and draft.now > span.start_at
    if draft.is_left(span.host) and not span.is_pinned and not is_late:
        waiting = replace(reservation, spans=tuple(s for s in reservation.spans if s != span))
        cause = host_is_silent(span.host)
        _move_off(
            draft, reservation, vms, span, cause=cause, reach=Reach.ANSWERING, accept=keeps_promise(draft, waiting)
        )
    elif is_late and draft.is_left(span.host):
        cause = cause_of_delay(draft, reservation, vms)
        _move_off(draft, reservation, vms, span, cause=cause, reach=Reach.ANSWERING)
    elif is_late:
        tried = {(s.host, s.partition) for s in reservation.spans if s.start_at <= draft.now}

        def is_free_now(spans: tuple[BookedSpan, ...]) -> bool:
            return spans[0].start_at <= draft.now and (spans[0].host, spans[0].partition) not in tried

        cause = cause_of_delay(draft, reservation, vms)
        _move_off(draft, reservation, vms, span, cause=cause, reach=Reach.ANSWERING, accept=is_free_now)


def _move_off(
    draft: Draft,
    reservation: Reservation,
    vms: Vms,
    span: BookedSpan,
    *,
    cause: Cause,
    reach: Reach = Reach.ANSWERING_FIRST,
    accept: Callable[[tuple[BookedSpan, ...]], bool] = lambda _: True,
) -> None:
    """End a span on which nothing could be started, and book its hours elsewhere."""
    gone = movable(draft, reservation)
    # It stays in the record: that place was tried.
    cut = (replace(span, end_at=draft.now),) if span.start_at < draft.now else ()
    others = tuple(s for s in reservation.spans if s != span and s not in gone)
    with draft.attempt() as attempt:
        draft.put(replace(reservation, spans=(*others, *cut)))
        moved = draft.reservations[reservation.id]
        run_s = max(owed_s(draft, reservation, vms), draft.settings.shortest_run_s)
        if rebook(
            draft,
            moved,
            run_s=run_s,
            avoid=places_tried(draft, reservation, vms),
            is_fault=True,
            reach=reach,
            accept=accept,
        ):
            # What is blocked is no room: nobody is to move up into it.
            draft.is_room_freed = draft.is_room_freed or bool(_failed_here(vms, span)) or draft.is_lost(span)
            draft.note("reservation.moved", moved, is_notice=True, off=span.partition, host=span.host)
            tell_if_broken(draft, moved, cause)
            attempt.keep()


def places_tried(draft: Draft, reservation: Reservation, vms: Vms) -> frozenset[Place]:
    """Return where a reservation could not be started: where starts failed, and where its time passed without one."""
    failed = {(host, vm.partition) for host, vm in vms if vm.end is VmEnd.START_FAILED}
    ran = {(host, vm.partition) for host, vm in vms if vm.running_at is not None}
    begun = {(s.host, s.partition) for s in reservation.spans if s.start_at <= draft.now}
    now = reservation.span_at(draft.now)
    return frozenset((begun - ran) | failed | ({(now.host, now.partition)} if now is not None else set()))


def _move_lost(draft: Draft, reservation: Reservation) -> None:
    """Book elsewhere what lies on lost GPUs; when no place keeps the promise, take the earliest and say so."""
    lost = next(span for span in movable(draft, reservation) if draft.is_lost(span))
    if not _has_sound_place(draft, reservation):
        # Nothing that is moved makes a place: this is asked at every step until a GPU is mended.
        return
    is_moved = (
        rebook(draft, reservation, accept=keeps_promise(draft, reservation))
        or replan(draft, stuck=reservation.id) is None
        or rebook(draft, reservation, is_fault=True, accept=lambda _: True)
    )
    if is_moved:
        draft.note("reservation.moved", reservation, off=lost.partition, host=lost.host)
        tell_if_broken(draft, reservation, gpus_were_lost(draft, lost))


def _has_sound_place(draft: Draft, reservation: Reservation) -> bool:
    """Whether there is any partition at all that a reservation could be moved to, free or not."""
    disk = draft.disks.get(reservation.disk) if reservation.disk and is_disk_bound(draft, reservation) else None
    return any(
        not partition.mask & draft.mask_out(host.id)
        for host in draft.hosts.values()
        if disk is None or host.storage == disk.storage
        for partition in host.profile.partitions_of_size(reservation.request.gpus)
    )


def _leave_silent(draft: Draft, reservation: Reservation) -> None:
    """Book elsewhere what is about to start on a host that does not answer, if another keeps the promise."""
    ahead = movable(draft, reservation)
    if not ahead or not draft.is_left(ahead[0].host):
        return
    lead_s = draft.lead_s(draft.hosts[ahead[0].host].profile, reservation.request.gpus)
    if draft.now < ahead[0].start_at - lead_s:
        return
    if rebook(draft, reservation, reach=Reach.ANSWERING, accept=keeps_promise(draft, reservation)):
        draft.note("reservation.moved", reservation, off=ahead[0].partition, host=ahead[0].host)


def _check_overdue(draft: Draft, reservation: Reservation, vms: Vms) -> None:
    """A first start that is past its promise was broken by a fault: say so, once for each cause."""
    if reservation.outcome is not None or reservation.promise is None:
        return
    if draft.now <= reservation.promise.start_by_at or any(vm.running_at is not None for _, vm in vms):
        return
    if is_boot_unseen(draft, reservation, vms, reservation.promise.start_by_at):
        return
    has_more = reservation.goes_on_after(draft.now)
    if not has_more and owed_s(draft, reservation, vms) >= LEAST_OWED_S:
        # What it is owed is booked next, and told with its new time; or that there is none.
        return
    if has_more or reservation.promise_notice == 0:
        cause = cause_of_delay(draft, reservation, vms)
        # Where its time has passed and more is booked, there is a new start to tell, whatever the cause was.
        if not is_told(draft, reservation, cause) or reservation.span_at(draft.now) is None:
            break_promise(draft, reservation, cause)


def tell_if_broken(draft: Draft, before: Reservation, cause: Cause) -> None:
    """Raise the promise, with its notice, if the booking cannot keep it any more."""
    current = draft.reservations[before.id]
    if cannot_keep(draft, current):
        break_promise(draft, current, cause)


def cannot_keep(draft: Draft, reservation: Reservation) -> bool:
    """Whether a booking cannot keep the promise any more."""
    ahead = tuple([span for span in reservation.spans if span.end_at > draft.now])
    if not ahead:
        return False
    kept_by = reservation
    if ahead[0].start_at >= draft.now:
        # Of a span that begins just now, nothing was handed over yet: it may still be too late.
        kept_by = replace(reservation, spans=tuple(span for span in reservation.spans if span not in ahead))
    return not keeps_promise(draft, kept_by)(ahead)
