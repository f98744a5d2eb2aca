"""Limits on what is booked: GPUs at once, GPU-hours of a week and of later days, and what may start at an instant.

GPUs at once are limited at each instant by what holds then. A reservation counts whole in the week, and for the day, in
which it starts; so once it has started neither its parkings nor its moves change what it counts, and its resumes are
never refused. What may be asked for (its size, queue, image, disk and length) is limited here where that depends on
when it starts.

Who is over a limit already, under a policy that allowed it, may be moved, but never gets further over it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import NamedTuple

from scheduler.core.plan import BookedSpan
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.limit_book import ChoiceKey, Limited, NumberKey, Step, Value
from scheduler.core.planner.limits import LimitName, book_of, not_among, over_limit, reservations_of
from scheduler.core.reasons import Reason
from scheduler.core.requests import Request, ReservationId
from scheduler.core.spans import FOREVER, HOUR_S, Instant, Span
from scheduler.core.use import counted_gpu_s, first_span, start_of, starts_at
from scheduler.core.wall_clock import next_day_at, week_of

AlreadyOver = Mapping[tuple[str, str], int]
"""By how much somebody is over a limit, by which limit and whose; who is within is absent."""
NOT_OVER: AlreadyOver = {}
MOST_GPUS = 1 << 31
"""More GPUs than anybody can have: there is no limit."""

_CHOICES: tuple[tuple[ChoiceKey, LimitName], ...] = (
    ("sizes", LimitName.SIZES),
    ("queues", LimitName.QUEUES),
    ("images", LimitName.IMAGES),
)
_AT_THAT_TIME = " for a start at that time; another time may allow more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Over:
    """A limit that a booking goes over."""

    limit: tuple[str, str]
    """Which, and whose."""
    by: int
    why: Reason
    retry_at: Instant
    """The earliest start at which it may be within; FOREVER: none is."""

    @property
    def is_at_once(self) -> bool:
        """Whether it is of GPUs at one instant."""
        return self.limit[0] == "gpus_at_once"


def over_limits(draft: Draft, request: Request, spans: Sequence[BookedSpan]) -> tuple[Over, ...]:
    """Return the limits that a request would go over if it were booked so.

    `spans`: those that are new or changed, or all that it has.
    """
    book = book_of(draft)
    if not book.may_bind_bookings or not spans:
        return ()
    bound = [one for one in book.limited(request.owner) if one.is_bound_by_bookings]
    if not bound:
        return ()
    found: list[Over] = []
    start_at = _start_that_counts(draft, request, spans)
    for one in bound:
        if one.is_stated("gpus_at_once"):
            found += _gpus_at_once(draft, one, request, spans)
        if start_at is not None:
            found += _gpu_hours(draft, one, request, start_at)
            found += _not_at_that_time(draft, one, request, start_at)
    return tuple(found)


def is_within(over: Iterable[Over], already_over: AlreadyOver = NOT_OVER) -> bool:
    """Whether nobody goes over a limit, or further over it than he is."""
    return all(one.by <= already_over.get(one.limit, 0) for one in over)


def retry_at(over: Iterable[Over], already_over: AlreadyOver = NOT_OVER) -> Instant:
    """Return the earliest start at which a booking may be within all limits."""
    return max((one.retry_at for one in over if one.by > already_over.get(one.limit, 0)), default=FOREVER)


def already_over(draft: Draft, request: Request, spans: Sequence[BookedSpan]) -> AlreadyOver:
    """Return by how much a booking is over limits as it is."""
    return {one.limit: one.by for one in over_limits(draft, request, spans)}


# GPUs at once.


def _gpus_at_once(draft: Draft, one: Limited, request: Request, spans: Sequence[BookedSpan]) -> list[Over]:
    mine = sorted((max(s.start_at, draft.now), s.end_at) for s in spans if s.end_at > draft.now)
    if not mine:
        return []
    from_at, until_at = mine[0][0], mine[-1][1]
    changes: list[tuple[Instant, int]] = []
    most = request.gpus
    for other in reservations_of(draft, one.members):
        if other.id == request.id:
            continue
        for span in other.spans:
            if span.end_at > from_at:
                changes.append((max(span.start_at, from_at), other.request.gpus))
                changes.append((span.end_at, -other.request.gpus))
                most += other.request.gpus if span.start_at < until_at else 0
    limits = one.steps("gpus_at_once", from_at, max(until_at, draft.horizon_at))
    # Nearly always all that they have at any time of it is no more than they may have at once.
    if all(limit is None or most <= _whole(limit) for at, limit in limits if at < until_at):
        return []
    return _first_excess(one, request.gpus, mine, changes, limits)


def _first_excess(
    one: Limited,
    gpus: int,
    mine: Sequence[tuple[Instant, Instant]],
    changes: Sequence[tuple[Instant, int]],
    limits: Sequence[Step],
) -> list[Over]:
    """Go through time once: where it is too much, by how much at most, and from when on it would not be.

    `mine`: where the request is booked; `changes`: by how many GPUs the others have more from an instant on.
    """
    worst: _Level | None = None
    first_at, well_at = FOREVER, FOREVER
    for level in _levels(gpus, mine[0][0], changes, limits):
        at, until_at, held, limit = level
        if held <= limit:
            well_at = at if worst is not None and well_at == FOREVER else well_at
        else:
            over_at = next((max(s, at) for s, end_at in mine if s < until_at and at < end_at), FOREVER)
            first_at = min(first_at, over_at)
            if over_at < FOREVER and (worst is None or held - limit > worst.excess):
                worst = level._replace(at=over_at)
        if until_at >= mine[-1][1] and (worst is None or well_at < FOREVER):
            break
    if worst is None:
        return []
    if first_at >= mine[0][1]:
        # What is too much comes after a parking: where that goes with another start is not known.
        later = (at for at, _ in chain(changes, limits) if at > mine[0][0])
        well_at = min(later, default=FOREVER)
    remedy = "ask for fewer GPUs or for another time"
    why = over_limit(one.who, LimitName.AT_ONCE, worst.held, worst.limit, remedy, from_at=worst.at)
    return [Over(limit=("gpus_at_once", one.who), by=worst.excess, why=why, retry_at=well_at)]


class _Level(NamedTuple):
    """What would be held for a stretch of time, and what may be."""

    at: Instant
    until_at: Instant
    held: int
    limit: int

    @property
    def excess(self) -> int:
        return self.held - self.limit


def _levels(
    gpus: int, from_at: Instant, changes: Sequence[tuple[Instant, int]], limits: Sequence[Step]
) -> Iterator[_Level]:
    """Yield what would be held with so many GPUs more, and what may be, from an instant on."""
    held, limit = gpus, MOST_GPUS
    # At each instant all that changes then counts.
    by_at: dict[Instant, int] = {from_at: 0}
    for at, more in changes:
        by_at[at] = by_at.get(at, 0) + more
    limit_at = dict(limits)
    for at, until_at in pairwise((*sorted(by_at.keys() | limit_at.keys()), FOREVER)):
        held += by_at.get(at, 0)
        if at in limit_at:
            stated = limit_at[at]
            limit = MOST_GPUS if stated is None else _whole(stated)
        yield _Level(at, until_at, held, limit)


def _whole(value: Value) -> int:
    assert isinstance(value, int)
    return value


# What counts by its start.


def _start_that_counts(draft: Draft, request: Request, spans: Sequence[BookedSpan]) -> Instant | None:
    """Return when a request first starts; None: it has started and asks for nothing more, so that counts as it did."""
    # What this step lets start now has not started yet.
    before, current = draft.plan.reservations.get(request.id), draft.reservations.get(request.id)
    begun = () if before is None else [s for s in before.spans if s.is_pinned or s.start_at <= draft.now < s.end_at]
    if begun and current is not None and current.request.run_s == request.run_s:
        return None
    # What passed without a start is none.
    ahead = (span for span in spans if span.is_pinned or span.end_at > draft.now)
    first = min((*begun, *ahead), key=lambda span: span.start_at, default=None)
    return None if first is None else starts_at(request, first)


def _gpu_hours(draft: Draft, one: Limited, request: Request, start_at: Instant) -> list[Over]:
    found = []
    gpu_s = request.gpus * request.run_s
    most_h = one.number("gpu_h_per_week", start_at) if one.is_stated("gpu_h_per_week") else None
    if most_h is not None:
        week = week_of(book_of(draft).shifts, start_at)
        by_s = gpu_s + _started_in_s(draft, one, week, but=request.id) - most_h * HOUR_S
        if by_s > 0:
            remedy = "ask for fewer GPU-hours, or for a start in another week"
            why = over_limit(one.who, LimitName.PER_WEEK, most_h + _hours(by_s), most_h, remedy)
            key = f"gpu_h_per_week/{week.start_at}"
            found.append(Over(limit=(key, one.who), by=by_s, why=why, retry_at=week.end_at))
    most_h = one.number("far_ahead_gpu_h", draft.now) if one.is_stated("far_ahead_gpu_h") else None
    tomorrow_at = next_day_at(book_of(draft).shifts, draft.now)
    if most_h is not None and start_at >= tomorrow_at:
        by_s = gpu_s + _held_from_s(draft, one, tomorrow_at, but=request.id) - most_h * HOUR_S
        if by_s > 0:
            remedy = "ask for fewer GPU-hours or for a start today, or wait until what is booked starts"
            why = over_limit(one.who, LimitName.FAR_AHEAD, most_h + _hours(by_s), most_h, remedy)
            found.append(Over(limit=("far_ahead_gpu_h", one.who), by=by_s, why=why, retry_at=FOREVER))
    return found


def _hours(gpu_s: int) -> int:
    """Return GPU-hours, begun ones as whole ones."""
    return -(-gpu_s // HOUR_S)


def _started_in_s(draft: Draft, one: Limited, week: Span, *, but: ReservationId) -> int:
    """Return the GPU-seconds of the others that start in a week, ended ones too."""
    total = 0
    for other in reservations_of(draft, one.members):
        at = None if other.id == but else start_of(other, draft.now)
        if at is not None and week.covers(at):
            total += counted_gpu_s(other)
    if draft.ended_uses is not None and week.start_at <= draft.now:
        total += sum(
            use.gpu_s
            for use in draft.ended_uses(week)
            # Who was closed since the plan was read is in both.
            if use.owner in one.members and use.reservation not in draft.reservations
        )
    return total


def _held_from_s(draft: Draft, one: Limited, from_at: Instant, *, but: ReservationId) -> int:
    """Return the GPU-seconds of the others that start at an instant or later."""
    total = 0
    for other in reservations_of(draft, one.members):
        if other.id == but or other.outcome is not None:
            continue
        first = first_span(other, draft.now)
        if first is not None and starts_at(other.request, first) >= from_at:
            total += counted_gpu_s(other)
    return total


def _not_at_that_time(draft: Draft, one: Limited, request: Request, start_at: Instant) -> list[Over]:
    """Return what may not start at an instant, of those limits that do not hold at all times."""
    found = []
    chosen: dict[ChoiceKey, int | str] = {"sizes": request.gpus, "queues": request.queue, "images": request.image}
    for key, what in _CHOICES:
        if not one.is_timed(key):
            continue
        for why in not_among(one.who, what, chosen[key], one.choice(key, start_at), when=_AT_THAT_TIME):
            later = (
                at
                for at, allowed in one.steps(key, start_at, draft.horizon_at)
                if at > start_at and (allowed is None or (isinstance(allowed, frozenset) and chosen[key] in allowed))
            )
            found.append(Over(limit=(key, one.who), by=1, why=why, retry_at=next(later, FOREVER)))
    found += _too_much_then(draft, one, "longest_run_s", request.run_s, start_at, LimitName.LONGEST_THEN, HOUR_S)
    found += _too_much_then(draft, one, "disk_gib", request.disk_gib, start_at, LimitName.DISK_THEN, 1)
    return found


def _too_much_then(
    draft: Draft, one: Limited, key: NumberKey, value: int, start_at: Instant, name: LimitName, unit: int
) -> list[Over]:
    limit = one.number(key, start_at) if one.is_timed(key) else None
    if limit is None or value <= limit:
        return []
    later = (
        at
        for at, allowed in one.steps(key, start_at, draft.horizon_at)
        if at > start_at and (allowed is None or value <= _whole(allowed))
    )
    why = over_limit(one.who, name, -(-value // unit), limit // unit, "ask for less, or for a start at another time")
    return [Over(limit=(key, one.who), by=value - limit, why=why, retry_at=next(later, FOREVER))]
