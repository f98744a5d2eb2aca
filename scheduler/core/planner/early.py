"""Starting early: who waits starts now if the plan that is left still keeps every promise.

Whoever waits is booked where it was promised, so the near future stays free. Those that may start are tried in the
policy's order; what is booked in the way of one is moved to the latest place that its own promise allows, and if there
is none nothing moves. So a promise cannot slip by it.

The calendar finds that for what is booked on one partition, if need be in pieces, over boundaries; for what goes on
elsewhere after a boundary, `displacing`.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from enum import Enum, auto
from typing import assert_never

from scheduler.core.calendar.bookings import ONE_PIECE, Fit
from scheduler.core.calendar.orders import AGE_CAP_S, Order, first_come, shortest_first_until, wide_response_ratio
from scheduler.core.plan import BookedSpan, Reservation
from scheduler.core.planner.admission import check_booked_limits
from scheduler.core.planner.booked_limits import over_limits
from scheduler.core.planner.booking import Reach, follow_disk, is_scratch, movable, rebook, want_of
from scheduler.core.planner.displacing import WIDE, Displacer, is_well
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.limits import limits_changed_at
from scheduler.core.planner.placing import (
    cut_fit,
    fits_of,
    is_crossed,
    is_of_one_partition,
    times_of,
)
from scheduler.core.planner.promising import has_started, keeps_promise
from scheduler.core.requests import ReservationId, by_number
from scheduler.core.rules import OrderKind
from scheduler.core.spans import DAY_S, Instant

DEFAULT_HALF_LIFE_S = 14 * DAY_S


def start_early(draft: Draft) -> None:
    """Start whoever may start now.

    All that wait are tried when room was freed or something else has changed; else only who has just come.
    """
    if draft.rules is None:
        return
    chosen, free = _to_try(draft)
    if not chosen:
        return
    turn_of_one = _turns(draft)
    # They come by number, and those of one turn stay so.
    chosen.sort(key=turn_of_one)
    _make_movable(draft)
    displacer = Displacer(draft)
    over: dict[tuple[str, int], bool] = {}
    room = _DiskRoom(draft)
    for reservation in chosen:
        if reservation.request.gpus not in free or _is_over_now(draft, reservation, over):
            continue
        if not room.has_any(reservation):
            continue
        tried = _start(draft, reservation.id) if reservation.id in draft.board.movable else None
        is_started = tried is _Try.STARTED
        if not is_started and _is_worth_another_look(draft, reservation, tried):
            is_started = _start_elsewhere(draft, reservation.id)
        if not is_started and displacer.goes_on:
            is_started = displacer.start(reservation.id)
        if is_started:
            draft.board.fix(reservation.id)
            displacer.forget()
            over.clear()
            room.forget()
            free = _free_sizes(draft, free)


def _is_over_now(draft: Draft, reservation: Reservation, over: dict[tuple[str, int], bool]) -> bool:
    """Whether its owner would go over a limit if it ran now; `over`: what was found of others."""
    key = reservation.request.owner, reservation.request.gpus
    if key not in over:
        instant = replace(reservation.spans[0], start_at=draft.now, end_at=draft.now + 1)
        over[key] = any(one.is_at_once for one in over_limits(draft, reservation.request, (instant,)))
    return over[key]


class _DiskRoom:
    """The most room that any pool has at this instant, for disks of those that wait; worked out when asked for."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._sure_gib: dict[bool, int] = {}
        """Beside all disks, those that are booked for later too."""
        self._now_gib: dict[bool, int] = {}

    def forget(self) -> None:
        """Something was booked."""
        self._sure_gib.clear()
        self._now_gib.clear()

    def has_any(self, reservation: Reservation) -> bool:
        """Whether there is any for the disk of one: booked from its start on, unless it is a kept one."""
        wanted_gib, scratch = reservation.request.disk_gib, is_scratch(self._draft, reservation.request)
        if reservation.request.continues is not None:
            return True
        if scratch not in self._sure_gib:
            disks = self._draft.disks
            self._sure_gib[scratch] = self._most(
                lambda pool: disks.booked_gib(pool, is_scratch=scratch), scratch=scratch
            )
        if wanted_gib <= self._sure_gib[scratch]:
            return True
        if scratch not in self._now_gib:
            peak, now = self._draft.pool_peak_gib, self._draft.now
            self._now_gib[scratch] = self._most(
                lambda pool: peak(pool, is_scratch=scratch, start_at=now, end_at=now + 1), scratch=scratch
            )
        return wanted_gib <= self._now_gib[scratch]

    def _most(self, booked_gib: Callable[[str], int], *, scratch: bool) -> int:
        pools = {host.storage for host in self._draft.hosts.values()}
        return max(
            (self._draft.pool_room_gib(pool, is_scratch=scratch) - booked_gib(pool) for pool in pools), default=0
        )


def _to_try(draft: Draft) -> tuple[list[Reservation], set[int]]:
    """Return those that may start early and are to be tried, and the sizes of which some set is free."""
    draft.ready_board()
    tried = draft.memory.tried
    by = draft.rules, limits_changed_at(draft), draft.begins, draft.silent_hosts, draft.horizon_at, len(draft.hosts)
    are_all = draft.are_all_to_be_tried or tried.are_all_due(draft.now, by, draft.window_book.last_edge_at(draft.now))
    of_age = set(tried.come_of_age(draft.now))
    keys = [one.id for one in draft.live()] if are_all else sorted(draft.touched | of_age, key=by_number)
    draft.touched.clear()
    if are_all:
        draft.are_all_to_be_tried = False
        tried.all_at(draft.now, by)
    waiting = []
    for key in keys:
        reservation = draft.reservations.get(key)
        if reservation is None or reservation.generation or reservation.outcome is not None:
            continue
        if (reservation.request.not_before_at or 0) > draft.now:
            tried.not_before(key, reservation.request.not_before_at or 0)
        elif _may_start_early(draft, reservation):
            waiting.append(reservation)
    free = _free_sizes(draft, {r.request.gpus for r in waiting})
    return [r for r in waiting if r.request.gpus in free], free


def _may_start_early(draft: Draft, reservation: Reservation) -> bool:
    request = reservation.request
    if has_started(reservation) or reservation.outcome is not None or reservation.promise is None:
        return False
    if not reservation.spans or reservation.spans[0].start_at <= draft.now:
        return False
    return not request.is_at_fixed_time and (request.not_before_at or 0) <= draft.now


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
    turn = _turns(draft)
    mine = turn(reservation), by_number(reservation.id)
    others = (r for r in draft.reservations.values() if r.id != reservation.id and _may_start_early(draft, r))
    return sum(1 for other in others if (turn(other), by_number(other.id)) < mine)


def _turns(draft: Draft) -> Callable[[Reservation], tuple[float, float]]:
    """Return what those that wait are ordered by: the smallest is tried first."""
    known = {queue.name: queue.order for queue in draft.rules.queues} if draft.rules is not None else {}
    orders: dict[str, Order] = {}

    def turn(reservation: Reservation) -> tuple[float, float]:
        request = reservation.request
        if request.queue not in orders:
            orders[request.queue] = order_of(draft, request.queue)
        mine = orders[request.queue](request.gpus, request.run_s, request.submitted_at, draft.now)
        order = known.get(request.queue)
        if order is None or order.kind is not OrderKind.FAIR_SHARE:
            return 0, mine
        half_life_s = order.half_life_s or DEFAULT_HALF_LIFE_S
        used = 0 if draft.used_gpu_s is None else draft.used_gpu_s(request.owner, half_life_s, draft.now)
        return used, mine

    return turn


def _make_movable(draft: Draft, waiting: Iterable[Reservation] | None = None) -> None:
    """Tell the board of those that wait on one partition how they may be moved, as far as it does not know."""
    board = draft.board
    board.begin_moving((draft.rules, draft.window_book, draft.horizon_at, draft.hosts_in_trouble()))
    known = board.movable
    new = [
        reservation
        for reservation in (draft.live() if waiting is None else waiting)
        if not reservation.generation
        and (reservation.id not in known or known[reservation.id].reservation is not reservation)
        and _may_start_early(draft, reservation)
    ]
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
        want = want_of(draft, request, run_s=request.run_s, with_gifts=True)
        disk = draft.disks.get(reservation.disk) if request.continues and reservation.disk else None
        if disk is not None:
            want = replace(want, storage=disk.storage)
        kinds = dict(board.profiles_by_kind)
        fit = next((fit for fit in fits_of(draft, want) if kinds[fit.kind] is profile), None)
        # Booked when leads were shorter: it is in time where it is, and would not be elsewhere.
        if fit is None or fit.whole_s > whole_s:
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


def put_late(draft: Draft) -> None:
    """Move those that wait to the latest place that their promises allow: the near future is for whoever can start."""
    draft.ready_board()
    _make_movable(draft)
    known = draft.board.movable
    last_first = sorted(known, key=lambda key: (-known[key].spans[-1].end_at, by_number(key)))
    for key in last_first:
        before, disks = known[key].reservation, draft.disks.mark()
        spans = draft.board.put_late(key)
        if spans is None:
            continue
        draft.put_moved(replace(before, spans=spans))
        follow_disk(draft, key)
        if is_well(draft, draft.reservations[key]):
            known[key].reservation = draft.reservations[key]
        else:
            draft.board.move_back({key: before.spans})
            draft.put_moved(before)
            draft.disks.undo(disks)


class _Try(Enum):
    """What came of trying to start one now that the board may move."""

    STARTED = auto()
    IN_THE_WAY = auto()
    """On no host of its kind there is room, or those in the way have no other place."""
    NOT_WELL = auto()
    """There is room, but a disk or a limit is in the way."""


def _start(draft: Draft, reservation_id: ReservationId) -> _Try:
    """Start one that the board may move now, if all that moves keeps its promise, its disk and its owner's limits."""
    known = draft.board.movable
    size = known[reservation_id].reservation.request.gpus
    moved = draft.board.start_now(reservation_id, widest=size if size < WIDE else 64)
    if moved is None:
        return _Try.IN_THE_WAY
    before = {key: known[key].reservation for key in moved}
    disks = draft.disks.mark()
    for key, spans in moved.items():
        draft.put_moved(replace(before[key], spans=spans))
        follow_disk(draft, key)
    if all(is_well(draft, draft.reservations[key]) for key in moved):
        for key in moved:
            known[key].reservation = draft.reservations[key]
        return _Try.STARTED
    draft.board.move_back({key: before[key].spans for key in moved})
    for key in moved:
        draft.put_moved(before[key])
    draft.disks.undo(disks)
    return _Try.NOT_WELL


def _is_worth_another_look(draft: Draft, reservation: Reservation, tried: _Try | None) -> bool:
    """Whether one may find a place now that the board has not tried: of another kind, with room for it, in pieces.

    The board looks on hosts of one kind for one partition, and knows nothing of disk pools. `tried`: what came of that.
    """
    want = want_of(draft, reservation.request, run_s=reservation.request.run_s, with_gifts=True)
    if tried is _Try.IN_THE_WAY and draft.board.kinds_of(want.gpus) == 1 and not is_crossed(draft, want):
        return False
    times = times_of(draft, want)
    return any(draft.board.earliest(fit, draft.now, draft.now, times) for fit in fits_of(draft, want))


def _start_elsewhere(draft: Draft, reservation_id: ReservationId) -> bool:
    """Start one now wherever nobody is in its way: in one piece or several, on any host that has room for it."""
    reservation = draft.reservations[reservation_id]
    if len(movable(draft, reservation)) != len(reservation.spans):
        return False
    keeps = keeps_promise(draft, reservation)

    def starts_now(spans: tuple[BookedSpan, ...]) -> bool:
        return (
            spans[0].start_at == draft.now
            and keeps(spans)
            and not check_booked_limits(draft, reservation.request, spans)
        )

    is_started = rebook(draft, reservation, reach=Reach.ANSWERING, latest_at=draft.now, accept=starts_now)
    if not is_started and reservation_id not in draft.board.movable:
        # It was taken out and put back: the board has to be told again.
        _make_movable(draft, [draft.reservations[reservation_id]])
    return is_started
