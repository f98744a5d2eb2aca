"""Replanning: all bookings taken out and placed anew, or not at all.

A booking never moves past its promise, and what waits for something lost does not hold up the others.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from scheduler.core.plan import Reservation
from scheduler.core.planner.booking import Reach, movable, over_as_it_is, rebook
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.promising import has_started, keeps_promise
from scheduler.core.requests import ReservationId, by_number
from scheduler.core.spans import Instant


def in_order_of_claim(draft: Draft, reservations: Iterable[Reservation]) -> list[Reservation]:
    """Return reservations in the order in which they choose places: resumes first, largest first, then first come."""

    def claim(reservation: Reservation) -> tuple[bool, int, Instant, tuple[int, str]]:
        is_resume = has_started(reservation)
        size = -reservation.request.gpus if is_resume else 0
        return not is_resume, size, reservation.request.submitted_at, by_number(reservation.id)

    return sorted(reservations, key=claim)


def is_stuck(draft: Draft, reservation: Reservation) -> bool:
    """Whether a booking lies where nothing may be booked anew, for want of another place: lost GPUs, a drained host."""
    return any(draft.is_lost(span) or draft.hosts[span.host].is_drained for span in movable(draft, reservation))


def hours_ahead(draft: Draft, *, stuck: ReservationId | None = None) -> dict[ReservationId, int]:
    """Return the hours that the movable spans of each live reservation deliver.

    Without those that are stuck, `stuck` excepted: what they wait for must not hold up everybody else.
    """
    live = [r for r in draft.live() if _is_ahead(draft, r)]
    live = [r for r in live if r.id == stuck or not is_stuck(draft, r)]
    return {r.id: sum(draft.hours_s(s, r.request.gpus) for s in movable(draft, r)) for r in live}


def replan(
    draft: Draft,
    *,
    first: Callable[[], None] | None = None,
    hours_by_id: Mapping[ReservationId, int] | None = None,
    stuck: ReservationId | None = None,
    on_broken: Callable[[ReservationId, int], None] | None = None,
) -> ReservationId | None:
    """Take all movable bookings out, do `first`, and place them again. None: done, and every promise holds.

    `hours_by_id` is what they have to deliver; by default what they deliver as they are booked now. Bookings that are
    stuck stay where they are, but for `stuck`.

    `on_broken` is told whose promise does not hold, with the hours that are not placed; all others are placed then.

    Else everything is as it was, and the reservation whose promise did not hold is returned. This is what makes a
    boundary a free defragmentation: resumes are placed largest first, on blocks that are all free.
    """
    with draft.attempt() as attempt:
        run_s_by_id = hours_ahead(draft, stuck=stuck) if hours_by_id is None else hours_by_id
        live = [draft.reservations[key] for key in run_s_by_id]
        most_by_id = {r.id: over_as_it_is(draft, r) for r in live}
        for reservation in live:
            gone = movable(draft, reservation)
            draft.put(replace(reservation, spans=tuple(s for s in reservation.spans if s not in gone)))
        if first is not None:
            first()
        resumes = [r for r in in_order_of_claim(draft, live) if has_started(r)]
        others = [r for r in in_order_of_claim(draft, live) if not has_started(r)]
        others.sort(key=lambda r: r.promise.start_by_at if r.promise else 0)
        for before in [*resumes, *others]:
            reservation = draft.reservations[before.id]
            run_s = run_s_by_id[before.id] - _delivered_more_s(draft, before, reservation)
            # What waits on a host that does not answer may stay there: it must not push out those that are well placed.
            is_on_silent = any(span.host in draft.silent_hosts for span in before.spans)
            if run_s > 0 and not rebook(
                draft,
                reservation,
                run_s=run_s,
                reach=Reach.ALL if is_on_silent else Reach.ANSWERING_FIRST,
                may_be_over=most_by_id[before.id],
                accept=keeps_promise(draft, reservation),
            ):
                if on_broken is None:
                    return before.id
                on_broken(before.id, run_s)
        attempt.keep()
        return None


def _is_ahead(draft: Draft, reservation: Reservation) -> bool:
    return any(span.end_at > draft.now for span in reservation.spans)


def _delivered_more_s(draft: Draft, before: Reservation, after: Reservation) -> int:
    """Return how many more hours the spans that stay deliver after a change than before it."""
    kept = [span for span in before.spans if span not in movable(draft, before)]
    return sum(s.end_at for s in after.spans) - sum(s.end_at for s in kept)
