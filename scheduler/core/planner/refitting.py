"""Refitting: bookings are brought in line with the windows of a policy that is being applied.

First those whose place it takes find other ones by their promises, and nobody else moves. If that fails all are placed
anew. Who then has no place by their promise is *hit*: because of them the policy is refused, or, if an admin overrides
it, their promise is broken and told. Of two ways the one that hits fewest is taken, else the one that moves fewest.

Who runs and cannot stay is never stopped at once: it is cut at the edge of a window, like all, or after the longest
warning, and its hours are booked anew with the disk that it has (decision 0027).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from scheduler.core.plan import BookedSpan, Reservation
from scheduler.core.planner.booking import movable, over_as_it_is, rebook
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.extending import lengthen
from scheduler.core.planner.promising import keeps_promise
from scheduler.core.planner.replanning import hours_ahead, in_order_of_claim, is_stuck, replan
from scheduler.core.requests import AtBoundary, ReservationId
from scheduler.core.spans import Instant
from scheduler.core.windows import Stretch

NO_OTHER_PLACE = "no other place keeps it"
PLACE_TAKEN = "a new window or a longer grace takes its place, and there is no other place for it now"
NOT_PARKED = "it is running and cannot be parked at the new window's edge"
NOT_ADMITTED = "it is running and no layout admits it any more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A reservation whose promise cannot be kept."""

    reservation: ReservationId
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """What bookings are worth under the policy that holds: with a longer grace the same spans deliver less."""

    hours_by_id: Mapping[ReservationId, int]
    """What is movable has to deliver; without those that are stuck."""
    stuck_hours_by_id: Mapping[ReservationId, int]
    unstarted_hours_by_id: Mapping[ReservationId, int]
    """What begun spans deliver in which nothing was started yet."""
    longest_lead_s: int


def booked_now(draft: Draft) -> Booked:
    """Return what bookings are worth before another policy is taken on."""
    if draft.rules is None:
        return Booked(hours_by_id={}, stuck_hours_by_id={}, unstarted_hours_by_id={}, longest_lead_s=0)
    stuck = [r for r in _live(draft) if is_stuck(draft, r)]
    begun = [(r, span) for r in _live(draft) if (span := r.span_at(draft.now)) is not None and not span.is_pinned]
    return Booked(
        hours_by_id=hours_ahead(draft),
        stuck_hours_by_id={r.id: _hours_s(draft, r, movable(draft, r)) for r in stuck},
        unstarted_hours_by_id={r.id: _hours_s(draft, r, (span,)) for r, span in begun},
        longest_lead_s=_longest_lead_s(draft),
    )


def refit(draft: Draft, booked: Booked) -> tuple[Hit, ...]:
    """Bring bookings in line with the windows that there are now; return whose promise cannot be kept by that.

    Those are booked as early as the others leave room, or, where there is none, not at all. Breaks no promise yet.
    """
    if _has_moved_those_hit(draft, booked):
        return ()
    with draft.attempt() as attempt:
        hits = _place_all_anew(draft, booked)
        if not hits:
            attempt.keep()
            return ()
    with draft.attempt() as attempt:
        others_stay = _move_those_hit(draft, booked)
        if others_stay is not None and len(others_stay) <= len(hits):
            attempt.keep()
            return others_stay
    return _place_all_anew(draft, booked)


def _has_moved_those_hit(draft: Draft, booked: Booked) -> bool:
    """Find other places for bookings that lie across new edges, leave the others where they are; False: nothing done.

    What a policy does not touch has to hold under it. Placing everything anew, one after the other, finds less: it may
    not find again what is there now.
    """
    if _longest_lead_s(draft) > booked.longest_lead_s:
        return False
    with draft.attempt() as attempt:
        for reservation in in_order_of_claim(draft, _live(draft)):
            now = reservation.span_at(draft.now)
            if now is not None and not _lies_well(draft, reservation, now):
                return False
            if all(_lies_well(draft, reservation, span) for span in movable(draft, reservation)):
                continue
            run_s = booked.hours_by_id.get(reservation.id)
            if run_s is None or not rebook(draft, reservation, run_s=run_s, accept=keeps_promise(draft, reservation)):
                return False
        attempt.keep()
    return True


@dataclass(slots=True)
class _Cuts:
    """What was cut because of new windows."""

    cut_s_by_id: dict[ReservationId, int] = field(default_factory=dict)
    problem_by_id: dict[ReservationId, str] = field(default_factory=dict)
    """Who was cut that may not be: a broken promise, wherever the rest is booked."""
    homeless: dict[ReservationId, int] = field(default_factory=dict)
    """Hours of those that lost their place before the others look for theirs: stuck ones, starts that are given up."""


def _place_all_anew(draft: Draft, booked: Booked) -> tuple[Hit, ...]:
    """Place all movable bookings anew; those that no place by their promise is found for come last."""
    cuts = _Cuts()
    _give_up_starts(draft, booked, cuts)
    last: dict[ReservationId, int] = {}
    replan(
        draft,
        first=lambda: _cut_at_new_edges(draft, booked, cuts),
        hours_by_id={key: run_s for key, run_s in booked.hours_by_id.items() if key not in cuts.homeless},
        on_broken=last.__setitem__,
    )
    return _place_last(draft, cuts, last)


def _move_those_hit(draft: Draft, booked: Booked) -> tuple[Hit, ...] | None:
    """The same with everybody left where they are whom the new windows do not touch; None: they touch all."""
    if _longest_lead_s(draft) > booked.longest_lead_s:
        return None
    cuts = _Cuts()
    _give_up_starts(draft, booked, cuts)
    _cut_at_new_edges(draft, booked, cuts)
    moving = [
        r
        for r in _live(draft)
        if r.id in booked.hours_by_id
        and r.id not in cuts.homeless
        and (r.id in cuts.cut_s_by_id or not all(_lies_well(draft, r, span) for span in movable(draft, r)))
    ]
    most_by_id = {r.id: over_as_it_is(draft, r) for r in moving}
    for reservation in moving:
        _take_out(draft, reservation, movable(draft, reservation))
    last: dict[ReservationId, int] = {}
    for key in [r.id for r in in_order_of_claim(draft, moving)]:
        reservation = draft.reservations[key]
        run_s = booked.hours_by_id[key] + cuts.cut_s_by_id.get(key, 0)
        if run_s > 0 and not rebook(
            draft, reservation, run_s=run_s, may_be_over=most_by_id[key], accept=keeps_promise(draft, reservation)
        ):
            last[key] = run_s
    return _place_last(draft, cuts, last)


def _place_last(draft: Draft, cuts: _Cuts, last: Mapping[ReservationId, int]) -> tuple[Hit, ...]:
    """Place those that found nothing by their promise, as early as there is room; return whose promises are hit."""
    problem_by_id = dict(cuts.problem_by_id)
    run_s_by_id = {**last, **cuts.homeless}
    for key in [r.id for r in in_order_of_claim(draft, [draft.reservations[key] for key in run_s_by_id])]:
        if not _is_placed_by_promise(draft, draft.reservations[key], run_s_by_id[key]):
            problem_by_id.setdefault(key, PLACE_TAKEN if key in cuts.homeless else NO_OTHER_PLACE)
    return tuple(Hit(reservation=key, problem=problem_by_id[key]) for key in draft.reservations if key in problem_by_id)


def _is_placed_by_promise(draft: Draft, reservation: Reservation, run_s: int) -> bool:
    if rebook(draft, reservation, run_s=run_s, accept=keeps_promise(draft, reservation)):
        return True
    rebook(draft, reservation, run_s=run_s, is_fault=True, accept=lambda _: True)
    return False


def _give_up_starts(draft: Draft, booked: Booked, cuts: _Cuts) -> None:
    """Take out what is about to start where no layout admits it any more: its guest would only be shut down again."""
    for key, unstarted_s in booked.unstarted_hours_by_id.items():
        reservation = draft.reservations[key]
        span = reservation.span_at(draft.now)
        if span is None or _stretch_now(draft, reservation, span) is not None:
            continue
        _take_out(draft, reservation, (span, *movable(draft, reservation)))
        ahead_s = booked.hours_by_id.get(key, booked.stuck_hours_by_id.get(key, 0))
        cuts.homeless[key] = unstarted_s + ahead_s


def _cut_at_new_edges(draft: Draft, booked: Booked, cuts: _Cuts) -> None:
    """Shorten begun spans that new windows cut, and take out what is stuck where it may not run any more."""
    for key in list(draft.reservations):
        reservation = draft.reservations[key]
        if reservation.outcome is not None or key in cuts.homeless:
            continue
        stuck_s = booked.stuck_hours_by_id.get(key)
        if stuck_s is not None and not _may_stay(draft, reservation, booked):
            badly = [s for s in movable(draft, reservation) if not _lies_well(draft, reservation, s)]
            _take_out(draft, reservation, badly or movable(draft, reservation))
            cuts.homeless[key] = stuck_s
        span = reservation.span_at(draft.now)
        if span is None:
            continue
        end_at, problem = _end_under_policy(draft, reservation, span)
        if end_at >= span.end_at:
            continue
        if problem is None and stuck_s is not None:
            problem = NOT_PARKED
        if problem is not None:
            cuts.problem_by_id[key] = problem
        cuts.cut_s_by_id[key] = span.end_at - end_at
        if key in cuts.homeless:
            cuts.homeless[key] += span.end_at - end_at
        lengthen(draft, reservation, span, end_at)


def _end_under_policy(draft: Draft, reservation: Reservation, span: BookedSpan) -> tuple[Instant, str | None]:
    """Return when a begun span has to end by the windows that there are, and what keeps it from being parked then."""
    stretch = _stretch_now(draft, reservation, span)
    if stretch is None:
        # Its guest is warned like any other before it is shut down.
        warned_at = draft.now + _longest_warning_s(draft)
        coming = (window.start_at for window in draft.windows_of(span.host) if window.start_at > draft.now)
        return min(span.end_at, warned_at, *coming), NOT_ADMITTED
    may_park = (
        stretch.closed_by is not None
        and reservation.request.at_boundary is AtBoundary.PARK
        and AtBoundary.PARK in stretch.closed_by.at_boundary
    )
    return min(span.end_at, stretch.end_at), None if may_park else NOT_PARKED


def _stretch_now(draft: Draft, reservation: Reservation, span: BookedSpan) -> Stretch | None:
    return next((s for s in _stretches(draft, reservation, span) if s.start_at <= draft.now < s.end_at), None)


def _longest_warning_s(draft: Draft) -> int:
    assert draft.rules is not None
    return max(draft.rules.warnings_s, default=draft.rules.grace_s)


def _may_stay(draft: Draft, reservation: Reservation, booked: Booked) -> bool:
    """Whether a reservation may run where its movable spans are, and is not slower to start there than it was."""
    if _longest_lead_s(draft) > booked.longest_lead_s:
        return False
    return all(_lies_well(draft, reservation, span) for span in movable(draft, reservation))


def _lies_well(draft: Draft, reservation: Reservation, span: BookedSpan) -> bool:
    """Whether a reservation may run for all that is left of a span by the windows that there are."""
    from_at = max(span.start_at, draft.now)
    return any(s.start_at <= from_at and span.end_at <= s.end_at for s in _stretches(draft, reservation, span))


def _stretches(draft: Draft, reservation: Reservation, span: BookedSpan) -> Iterable[Stretch]:
    request = reservation.request
    return draft.stretches_of(
        span.host, gpus=request.gpus, queue=request.queue, at_boundary=request.at_boundary, with_gifts=True
    )


def _live(draft: Draft) -> list[Reservation]:
    return [r for r in draft.reservations.values() if r.outcome is None]


def _take_out(draft: Draft, reservation: Reservation, gone: Iterable[BookedSpan]) -> None:
    taken = set(gone)
    draft.put(replace(reservation, spans=tuple(span for span in reservation.spans if span not in taken)))


def _hours_s(draft: Draft, reservation: Reservation, spans: Iterable[BookedSpan]) -> int:
    return sum(draft.hours_s(span, reservation.request.gpus) for span in spans)


def _longest_lead_s(draft: Draft) -> int:
    return max((draft.lead_s(one, size) for one in draft.host_book.profiles for size in one.sizes), default=0)
