"""Moving what waits: the board is told who may be moved how far, and those that wait are put as late as promised.

The calendar moves what is booked on one partition, if need be in pieces, over boundaries; the rest is `displacing`'s.
"""

from collections.abc import Hashable, Iterable
from dataclasses import replace

from scheduler.core.calendar.bookings import ONE_PIECE, Fit
from scheduler.core.plan import Reservation
from scheduler.core.planner.admission import check_booked_limits
from scheduler.core.planner.booking import follow_disk, want_of
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.placing import Want, cut_fit, fit_on, is_of_one_partition, times_of
from scheduler.core.planner.promising import has_started, keeps_promise
from scheduler.core.requests import ReservationId, by_number
from scheduler.core.spans import Instant

MOST_PUT_LATE = 500
"""So many that wait are put late in one step; each costs a tenth of a millisecond."""

MOST_TRIED_LATE = 10 * MOST_PUT_LATE
"""So many are looked at for it; most of those that stay cost less."""


def may_start_early(draft: Draft, reservation: Reservation) -> bool:
    request = reservation.request
    if has_started(reservation) or reservation.outcome is not None or reservation.promise is None:
        return False
    if not reservation.spans or reservation.spans[0].start_at <= draft.now:
        return False
    return not request.is_at_fixed_time and (request.not_before_at or 0) <= draft.now


def unmovable(draft: Draft, *, with_resting: bool = False) -> list[Reservation]:
    """Return those not started that the board may not move as they are, in the order in which they came.

    `with_resting`: those too of whom it is known that they are in time, and cannot start or move yet.
    """
    known, unsure, unstarted = draft.board.movable, draft.board.unsure, draft.unstarted()
    for key in list(unsure):
        if key not in unstarted or (key in known and known[key].reservation is unstarted[key]):
            unsure.discard(key)
    found = unsure | draft.board.resting if with_resting else unsure
    return [unstarted[key] for key in sorted(found, key=by_number)]


def make_movable(draft: Draft, waiting: Iterable[Reservation] | None = None) -> None:
    """Tell the board of those that wait on one partition how they may be moved, as far as it does not know."""
    board = draft.board
    board.begin_moving(
        (draft.rules, draft.window_book, draft.horizon_at, draft.hosts_in_trouble(), draft.longest_grace_s())
    )
    new = _new_to_move(draft) if waiting is None else [one for one in waiting if may_start_early(draft, one)]
    for reservation in new:
        board.fix(reservation.id)
    known_until_at: dict[Hashable, Instant] = {}
    found: list[tuple[Reservation, Fit, Hashable, Instant]] = []
    for reservation in new:
        if not is_of_one_partition(reservation.spans):
            continue
        request, spans, promise = reservation.request, reservation.spans, reservation.promise
        assert promise is not None
        profile = draft.hosts[spans[0].host].profile
        lead_s = draft.lead_s(profile, request.gpus)
        whole_s = lead_s + sum(draft.hours_s(span, request.gpus) for span in spans)
        due_at = min(promise.start_by_at - lead_s, promise.end_by_at - whole_s)
        if due_at < spans[0].start_at or promise.end_by_at < spans[-1].end_at:
            continue
        if draft.is_lost(spans[0]) or draft.hosts[spans[0].host].is_drained:
            continue
        want = want_of_one(draft, reservation)
        fit = fit_on(draft, want, board.kind_of(spans[0].host), profile)
        # Booked when leads were shorter: it is in time where it is, and would not be elsewhere.
        if fit.whole_s > whole_s:
            continue
        fit = cut_fit(draft, want, fit._replace(whole_s=whole_s), end_by_at=promise.end_by_at)
        times = times_of(draft, want)
        until_at = due_at + whole_s if fit.lead_s == ONE_PIECE else promise.end_by_at
        if until_at > known_until_at.get(times.shape, 0):
            known_until_at[times.shape] = until_at
            board.know_shape(times, until_at)
        found.append((reservation, fit, times.shape, due_at))
    for reservation, fit, shape, due_at in found:
        board.set_movable(reservation, fit, shape, due_at)


def want_of_one(draft: Draft, reservation: Reservation) -> Want:
    """Return what one that waits wants: all of its hours, where the disk is that it continues."""
    request = reservation.request
    want = want_of(draft, request, run_s=request.run_s, with_gifts=True)
    disk = draft.disks.get(reservation.disk) if request.continues and reservation.disk else None
    return want if disk is None else replace(want, storage=disk.storage)


def _new_to_move(draft: Draft) -> list[Reservation]:
    """Return those that wait and of whom the board does not know how they may be moved, in the order they came."""
    return [one for one in unmovable(draft) if may_start_early(draft, one)]


def put_late(draft: Draft) -> None:
    """Move those that wait to the latest place that their promises allow: the near future is for whoever can start.

    Those that are booked last go first. So many are moved in one step; the rest in the steps that follow.
    """
    draft.ready_board()
    make_movable(draft)
    known = draft.board.movable
    # The last of these is taken first.
    last_first = sorted(known, key=lambda key: (-known[key].spans[-1].end_at, by_number(key)))
    draft.memory.to_put_late = last_first[::-1]
    go_on_putting_late(draft)


def go_on_putting_late(draft: Draft) -> None:
    """Go on with what earlier steps have left of it."""
    left = draft.memory.to_put_late
    if not left:
        return
    draft.ready_board()
    make_movable(draft)
    while left and draft.put_late < MOST_PUT_LATE and draft.tried_late < MOST_TRIED_LATE:
        key = left.pop()
        draft.tried_late += 1
        if _is_put_late(draft, key):
            draft.put_late += 1
            draft.memory.was_put_late.add(key)
            draft.are_all_to_be_tried = True


def _is_put_late(draft: Draft, key: ReservationId) -> bool:
    known = draft.board.movable.get(key)
    spans = None if known is None else draft.board.put_late(key)
    if known is None or spans is None:
        return False
    before, disks = known.reservation, draft.disks.mark()
    draft.put_moved(replace(before, spans=spans))
    follow_disk(draft, key)
    if is_well(draft, draft.reservations[key]):
        known.reservation = draft.reservations[key]
        return True
    draft.board.move_back({key: before.spans})
    draft.put_moved(before)
    draft.disks.undo(disks)
    return False


def is_well(draft: Draft, reservation: Reservation) -> bool:
    """Whether a booking that was moved keeps its promise, has room for its disk, and is within its owner's limits."""
    if not keeps_promise(draft, reservation)(reservation.spans):
        return False
    if check_booked_limits(draft, reservation.request, reservation.spans):
        return False
    if reservation.disk is None or reservation.disk not in draft.disks:
        return True
    disk = draft.disks[reservation.disk]
    start_at = max(disk.from_at, draft.now)
    return draft.has_pool_room(
        disk.storage, is_scratch=disk.is_scratch, start_at=start_at, end_at=disk.until_at, more_gib=0
    )
