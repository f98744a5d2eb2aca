"""Starting early: who waits starts now if the plan that is left still keeps every promise.

Whoever waits is booked where it was promised, so the near future stays free. Those that may start are tried in the
policy's order; what is booked in the way of one is moved to the latest place that its own promise allows, and if there
is none nothing moves. So a promise cannot slip by it. Here is who is tried, and in what order; `starting` tries.
"""

from collections.abc import Callable
from typing import assert_never

from scheduler.core.calendar.orders import AGE_CAP_S, Order, first_come, shortest_first_until, wide_response_ratio
from scheduler.core.plan import Reservation
from scheduler.core.planner.board import Movable
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.limits import limits_changed_at
from scheduler.core.planner.moving import make_movable, may_start_early, unmovable
from scheduler.core.planner.placing import opens_at
from scheduler.core.planner.promising import is_in_time
from scheduler.core.planner.starting import Tries, free_sizes
from scheduler.core.requests import ReservationId, by_number
from scheduler.core.rules import OrderKind
from scheduler.core.spans import DAY_S

DEFAULT_HALF_LIFE_S = 14 * DAY_S


def start_early(draft: Draft) -> None:
    """Start whoever may start now.

    All that wait are tried when room was freed or something else has changed; else only who has just come.
    """
    if draft.rules is None:
        return
    waiting, free = _to_try(draft)
    if waiting:
        tries = Tries(draft, free)
        tries.start(sorted(tries.with_room(waiting), key=_turns(draft)))


def _to_try(draft: Draft) -> tuple[list[Reservation], set[int]]:
    """Return those that may start early and are to be tried, and the sizes of which some set is free.

    Whom no window lets in now, on any host, is not among them.
    """
    draft.ready_board()
    tried, unstarted = draft.memory.tried, draft.unstarted()
    by = draft.rules, limits_changed_at(draft), draft.begins, draft.silent_hosts, draft.horizon_at, len(draft.hosts)
    are_all = draft.are_all_to_be_tried or tried.are_all_due(draft.now, by, draft.window_book.last_edge_at(draft.now))
    keys = (draft.touched | set(tried.come_of_age(draft.now))) & unstarted.keys()
    draft.touched.clear()
    if not are_all and not keys:
        return [], set()
    make_movable(draft)
    groups: list[dict[ReservationId, Movable]] = []
    if are_all:
        draft.are_all_to_be_tried = False
        tried.all_at(draft.now, by)
        # Who may be moved may start early.
        alike = draft.board.movable_by_shape.values()
        groups += [group for group in alike if group and _is_let_in(draft, next(iter(group.values())).reservation)]
        keys = {one.request.id for one in unmovable(draft)}
    others = []
    for key in keys:
        reservation = unstarted[key]
        not_before_at = reservation.request.not_before_at or 0
        if not_before_at > draft.now:
            tried.not_before(key, not_before_at)
            if key in draft.board.unsure and is_in_time(draft, reservation):
                draft.board.rest(key, min(not_before_at, reservation.spans[0].start_at))
        elif may_start_early(draft, reservation) and _is_let_in(draft, reservation):
            others.append(reservation)
    sizes = {next(iter(group.values())).reservation.request.gpus for group in groups}
    free = free_sizes(draft, sizes.union(one.request.gpus for one in others))
    waiting = [one for one in others if one.request.gpus in free]
    for group in groups:
        if next(iter(group.values())).reservation.request.gpus in free:
            waiting += [one.reservation for key, one in group.items() if unstarted.get(key) is one.reservation]
    return waiting, free


def _is_let_in(draft: Draft, reservation: Reservation) -> bool:
    """Whether some window lets one in now, as it does all that may run when it may."""
    return opens_at(draft, reservation.request, draft.now) <= draft.now


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
    if not may_start_early(draft, reservation):
        return None
    turn = _turns(draft)
    mine = turn(reservation)
    others = (r for r in draft.unstarted().values() if r.id != reservation.id and may_start_early(draft, r))
    return sum(1 for other in others if turn(other) < mine)


def _turns(draft: Draft) -> Callable[[Reservation], tuple[float, float, tuple[int, str]]]:
    """Return what those that wait are ordered by: the smallest is tried first, of those alike who came first."""
    known: dict[str, tuple[Order, int | None]] = {}
    now = draft.now

    def turn(reservation: Reservation) -> tuple[float, float, tuple[int, str]]:
        request = reservation.request
        order, half_life_s = known.get(request.queue) or known.setdefault(
            request.queue, _order_of(draft, request.queue)
        )
        mine = order(request.gpus, request.run_s, request.submitted_at, now)
        if half_life_s is None or draft.used_gpu_s is None:
            return 0, mine, by_number(request.id)
        return draft.used_gpu_s(request.owner, half_life_s, now), mine, by_number(request.id)

    return turn


def _order_of(draft: Draft, queue: str) -> tuple[Order, int | None]:
    """Return the order of a queue, and where shares are fair the half-life of what was used."""
    known = draft.rules.queue(queue) if draft.rules is not None else None
    order = None if known is None else known.order
    if order is None or order.kind is not OrderKind.FAIR_SHARE:
        return order_of(draft, queue), None
    return order_of(draft, queue), order.half_life_s or DEFAULT_HALF_LIFE_S
