"""Starting early: who waits starts now if the plan that is left still keeps every promise.

Whoever waits is booked where it was promised, so the near future stays free. Those that may start are tried in the
policy's order; what is booked in the way of one is moved to the latest place that its own promise allows, and if there
is none nothing moves. So a promise cannot slip by it.

What is booked in several spans, over boundaries, starts early only where nobody is in its way, and gives way to nobody.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import assert_never

from scheduler.core.calendar.orders import AGE_CAP_S, Order, first_come, shortest_first_until, wide_response_ratio
from scheduler.core.calendar.pure import Fit
from scheduler.core.plan import BookedSpan, Reservation
from scheduler.core.planner.admission import check_gpus_at_once
from scheduler.core.planner.booking import Reach, follow_disk, movable, rebook, want_of
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.placing import fits_of, may_park_at, shape_of, stretches_for
from scheduler.core.planner.promising import has_started, keeps_promise
from scheduler.core.requests import ReservationId, by_number
from scheduler.core.rules import OrderKind
from scheduler.core.spans import DAY_S, Instant

DEFAULT_HALF_LIFE_S = 14 * DAY_S

WIDE = 8
"""From so many GPUs on a booking gives way only to its like: it finds another place least often."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """One that waits in one piece."""

    reservation: Reservation
    span: BookedSpan
    key: int


def start_early(draft: Draft) -> None:
    """Start whoever may start now."""
    if draft.rules is None:
        return
    chosen = [r for r in draft.reservations.values() if _may_start_early(draft, r)]
    free = _free_sizes(draft, {r.request.gpus for r in chosen})
    chosen = [r for r in chosen if r.request.gpus in free]
    if not chosen:
        return
    chosen.sort(key=lambda r: (_turn(draft, r), by_number(r.id)))
    waiting = _make_movable(draft, draft.reservations.values())
    try:
        for reservation in chosen:
            if reservation.request.gpus not in free:
                continue
            is_started = reservation.id in waiting and _start(draft, waiting, reservation.id)
            if not is_started and (reservation.id not in waiting or _is_worth_another_look(draft, reservation)):
                is_started = _start_elsewhere(draft, waiting, reservation.id)
            if is_started:
                started = waiting.pop(reservation.id, None)
                if started is not None:
                    draft.board.fix(started.key)
                free = _free_sizes(draft, free)
    finally:
        for one in waiting.values():
            draft.board.fix(one.key)


def _may_start_early(draft: Draft, reservation: Reservation) -> bool:
    request = reservation.request
    if reservation.outcome is not None or reservation.promise is None or has_started(reservation):
        return False
    if not reservation.spans or reservation.spans[0].start_at <= draft.now:
        return False
    is_fixed = request.start_by_at is not None and request.start_by_at == request.not_before_at
    return not is_fixed and (request.not_before_at or 0) <= draft.now


def _free_sizes(draft: Draft, sizes: Iterable[int]) -> set[int]:
    """Return the sizes of which some set has nothing booked on it now."""
    calendar = draft.ready_board().calendar
    return {size for size in sizes if calendar.earliest(Fit(size, 1, 1), draft.now, draft.now) is not None}


def order_of(draft: Draft, queue: str) -> Order:
    """Return the order of a queue."""
    known = draft.rules.queue(queue) if draft.rules is not None else None
    if known is None or known.order is None:
        return wide_response_ratio
    match known.order.kind:
        case OrderKind.RESPONSE_RATIO:
            return wide_response_ratio
        case OrderKind.FIRST_COME:
            return first_come
        case OrderKind.SHORTEST_FIRST:
            return shortest_first_until(AGE_CAP_S if known.order.age_cap_s is None else known.order.age_cap_s)
        case OrderKind.FAIR_SHARE:
            # Among those who have used alike.
            return wide_response_ratio
    assert_never(known.order.kind)


def order_text(draft: Draft, queue: str) -> str:
    """Say the order of a queue in a few words."""
    known = draft.rules.queue(queue) if draft.rules is not None else None
    if known is None or known.order is None:
        return "short ones first, and who has waited long"
    match known.order.kind:
        case OrderKind.RESPONSE_RATIO:
            return "short ones first, and who has waited long"
        case OrderKind.FIRST_COME:
            return "first come, first served"
        case OrderKind.SHORTEST_FIRST:
            return "shortest first"
        case OrderKind.FAIR_SHARE:
            return "who has used least lately first"
    assert_never(known.order.kind)


def turn_of(draft: Draft, reservation: Reservation) -> int | None:
    """Return how many are tried for an early start before one; None: it may not start now whoever else does."""
    if not _may_start_early(draft, reservation):
        return None
    mine = _turn(draft, reservation), by_number(reservation.id)
    others = (r for r in draft.reservations.values() if r.id != reservation.id and _may_start_early(draft, r))
    return sum(1 for other in others if (_turn(draft, other), by_number(other.id)) < mine)


def _turn(draft: Draft, reservation: Reservation) -> tuple[float, float]:
    """Return what those that wait are ordered by: the smallest is tried first."""
    request = reservation.request
    turn = order_of(draft, request.queue)(request.gpus, request.run_s, request.submitted_at, draft.now)
    known = draft.rules.queue(request.queue) if draft.rules is not None else None
    if known is None or known.order is None or known.order.kind is not OrderKind.FAIR_SHARE:
        return 0, turn
    half_life_s = known.order.half_life_s or DEFAULT_HALF_LIFE_S
    used = 0 if draft.used_gpu_s is None else draft.used_gpu_s(request.owner, half_life_s, draft.now)
    return used, turn


def _make_movable(draft: Draft, reservations: Iterable[Reservation]) -> dict[ReservationId, _Waiting]:
    """Tell the board of those that wait in one piece how they may be moved."""
    found: list[tuple[Reservation, BookedSpan, Fit, Hashable, Instant]] = []
    latest_at: dict[Hashable, Instant] = {}
    for reservation in reservations:
        if not _may_start_early(draft, reservation) or len(reservation.spans) != 1:
            continue
        span, promise = reservation.spans[0], reservation.promise
        assert promise is not None
        profile = draft.hosts[span.host].profile
        due_at = promise.start_by_at - draft.lead_s(profile, reservation.request.gpus)
        length_s = span.end_at - span.start_at
        due_at = min(due_at, promise.end_by_at - length_s)
        if due_at < span.start_at or draft.is_lost(span) or draft.hosts[span.host].is_drained:
            continue
        want = want_of(draft, reservation.request, run_s=reservation.request.run_s, with_gifts=True)
        if reservation.request.continues is not None and reservation.disk in draft.disks:
            want = replace(want, storage=draft.disks[reservation.disk].storage)
        kinds = dict(draft.board.profiles_by_kind)
        fit = next((fit for fit in fits_of(draft, want) if kinds[fit.kind] is profile), None)
        # Booked when leads were shorter: it is in time where it is, and would not be elsewhere.
        if fit is None or fit.whole_s > length_s:
            continue
        shape = shape_of(want)
        if due_at + length_s > latest_at.get(shape, 0):
            latest_at[shape] = due_at + length_s
            draft.board.know_shape(
                shape,
                min(due_at + length_s, draft.horizon_at),
                partial(stretches_for, draft, want),
                partial(may_park_at, want),
            )
        found.append((reservation, span, fit._replace(whole_s=length_s, shortest_s=length_s), shape, due_at))
    return {
        reservation.id: _Waiting(reservation, span, draft.board.set_movable(span, fit, shape, due_at))
        for reservation, span, fit, shape, due_at in found
    }


def _start(draft: Draft, waiting: dict[ReservationId, _Waiting], reservation_id: ReservationId) -> bool:
    """Start one of one piece now, if all that moves keeps its promise, its disk and its owner's limits."""
    size = waiting[reservation_id].reservation.request.gpus
    moved = draft.board.start_now(waiting[reservation_id].key, widest=size if size < WIDE else 64)
    if moved is None:
        return False
    before = {key: waiting[key] for key in moved}
    disks = dict(draft.disks)
    for key, span in moved.items():
        draft.put_moved(replace(draft.reservations[key], spans=(span,)))
        follow_disk(draft, key)
    if all(_is_well(draft, draft.reservations[key]) for key in moved):
        for key, span in moved.items():
            waiting[key] = _Waiting(draft.reservations[key], span, before[key].key)
        return True
    draft.board.move_back((key, moved[key], before[key].span) for key in moved)
    for key in moved:
        draft.put_moved(before[key].reservation)
    draft.disks = disks
    return False


def _is_well(draft: Draft, reservation: Reservation) -> bool:
    """Whether a booking that was moved keeps its promise, has room for its disk, and is within its owner's limits."""
    if not keeps_promise(draft, reservation)(reservation.spans):
        return False
    if check_gpus_at_once(draft, reservation.request, reservation.spans):
        return False
    if reservation.disk is None or reservation.disk not in draft.disks:
        return True
    disk = draft.disks[reservation.disk]
    room_gib = draft.pool_room_gib(disk.storage, is_scratch=disk.is_scratch)
    start_at = max(disk.from_at, draft.now)
    peak_gib = draft.pool_peak_gib(disk.storage, is_scratch=disk.is_scratch, start_at=start_at, end_at=disk.until_at)
    return peak_gib <= room_gib


def _is_worth_another_look(draft: Draft, reservation: Reservation) -> bool:
    """Whether one of one piece may find a place now that the board has not tried: of another kind, or with room for it.

    The board looks on hosts of one kind, and knows nothing of disk pools.
    """
    want = want_of(draft, reservation.request, run_s=reservation.request.run_s, with_gifts=True)
    return any(
        draft.board.earliest(
            fit,
            draft.now,
            draft.now,
            shape=shape_of(want),
            stretches=partial(stretches_for, draft, want),
            may_park=partial(may_park_at, want),
            horizon_at=draft.horizon_at,
        )
        for fit in fits_of(draft, want)
    )


def _start_elsewhere(draft: Draft, waiting: dict[ReservationId, _Waiting], reservation_id: ReservationId) -> bool:
    """Start one now wherever nobody is in its way: in one piece or several, on any host that has room for it."""
    reservation = draft.reservations[reservation_id]
    if len(movable(draft, reservation)) != len(reservation.spans):
        return False
    keeps = keeps_promise(draft, reservation)

    def starts_now(spans: tuple[BookedSpan, ...]) -> bool:
        return (
            spans[0].start_at == draft.now
            and keeps(spans)
            and not check_gpus_at_once(draft, reservation.request, spans)
        )

    was_movable = waiting.pop(reservation_id, None) is not None
    is_started = rebook(draft, reservation, reach=Reach.ANSWERING, accept=starts_now)
    if was_movable and not is_started:
        # It was taken out and put back: the board has to be told again.
        waiting.update(_make_movable(draft, [draft.reservations[reservation_id]]))
    return is_started
