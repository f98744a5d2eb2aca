"""Replanning: all bookings taken out and placed anew, or not at all.

A booking never moves past its promise, and what waits for something lost does not hold up the others.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from scheduler.core.plan import Reservation
from scheduler.core.planner.booked_limits import AlreadyOver
from scheduler.core.planner.booking import Reach, movable, over_as_it_is, rebook
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.promising import has_started, keeps_promise
from scheduler.core.requests import ReservationId, by_number
from scheduler.core.spans import Instant

MOST_ROUNDS = 10
"""How often all are placed, each time with the one that found no place before put first of those that wait."""

MOST_PLACED = 5000
"""After so many placements no further round is begun."""


def in_order_of_claim(draft: Draft, reservations: Iterable[Reservation]) -> list[Reservation]:
    """Return reservations in the order in which they choose places.

    Resumes first, of these the largest and of those alike the longest; then by promise, the larger before the smaller.
    """

    def claim(reservation: Reservation) -> tuple[bool, int, int, Instant, tuple[int, str]]:
        request, promise, spans = reservation.request, reservation.promise, reservation.spans
        if has_started(reservation):
            first, second = -request.gpus, -spans[-1].end_at if spans else 0
        else:
            first, second = 0 if promise is None else promise.start_by_at, -request.gpus
        return not has_started(reservation), first, second, request.submitted_at, by_number(request.id)

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

    Who waits and finds no place by its promise is placed before all others that wait, and these again, as often as
    `MOST_ROUNDS` and `MOST_PLACED` allow; not for one that is `stuck`, which may be asked at every step.

    `hours_by_id` is what they have to deliver; by default what they deliver as they are booked now. Bookings that are
    stuck stay where they are, but for `stuck`.

    `on_broken` is told whose promise does not hold then, with the hours that are not placed; all others are placed.

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
        in_order = in_order_of_claim(draft, live)
        resumes = [r for r in in_order if has_started(r)]
        others = [r for r in in_order if not has_started(r)]
        anew, wanted_first = _Anew(draft, run_s_by_id, most_by_id), others[:]
        while True:
            with draft.attempt() as placing:
                broken = anew.place([*resumes, *wanted_first])
                if broken is None:
                    placing.keep()
                    attempt.keep()
                    return None
            if stuck or not anew.may_go_on or has_started(broken) or broken is wanted_first[0]:
                break
            wanted_first.remove(broken)
            wanted_first.insert(0, broken)
        if on_broken is None:
            return broken.id
        anew.place([*resumes, *others], on_broken)
        attempt.keep()
        return None


@dataclass(slots=True)
class _Anew:
    """What is to be placed anew."""

    draft: Draft
    run_s_by_id: Mapping[ReservationId, int]
    most_by_id: Mapping[ReservationId, AlreadyOver]
    rounds: int = 0
    placed: int = 0

    @property
    def may_go_on(self) -> bool:
        """Whether there may be another round."""
        return self.rounds < MOST_ROUNDS and self.placed < MOST_PLACED

    def place(
        self, in_order: Sequence[Reservation], on_broken: Callable[[ReservationId, int], None] | None = None
    ) -> Reservation | None:
        """Place some that were taken out; return the first whose promise does not hold, unless that is to be told."""
        draft = self.draft
        self.rounds += 1
        for before in in_order:
            self.placed += 1
            reservation = draft.reservations[before.id]
            run_s = self.run_s_by_id[before.id] - _delivered_more_s(draft, before, reservation)
            # What waits on a host that does not answer may stay there: it must not push out those that are well placed.
            is_on_silent = any(span.host in draft.silent_hosts for span in before.spans)
            if run_s > 0 and not rebook(
                draft,
                reservation,
                run_s=run_s,
                reach=Reach.ALL if is_on_silent else Reach.ANSWERING_FIRST,
                may_be_over=self.most_by_id[before.id],
                accept=keeps_promise(draft, reservation),
            ):
                if on_broken is None:
                    return before
                on_broken(before.id, run_s)
        return None


def _is_ahead(draft: Draft, reservation: Reservation) -> bool:
    return any(span.end_at > draft.now for span in reservation.spans)


def _delivered_more_s(draft: Draft, before: Reservation, after: Reservation) -> int:
    """Return how many more hours the spans that stay deliver after a change than before it."""
    kept = [span for span in before.spans if span not in movable(draft, before)]
    return sum(s.end_at for s in after.spans) - sum(s.end_at for s in kept)
