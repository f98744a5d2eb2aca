"""What those held that have left the plan: read from the database, once for each version of the plan."""

from dataclasses import replace

from scheduler.core.plan import BookedSpan, Outcome, Plan, PlanChange, Reservation
from scheduler.core.reasons import ReasonCode, reason
from scheduler.core.spans import DAY_S, HOUR_S, Instant, Span
from scheduler.core.use import EndedUse, counted_gpu_s, start_of
from scheduler.service.ended_uses import EndedUsesCache
from scheduler.store.store import Store
from tests.scheduler.store.values import host, request, span

AT: Instant = 1_772_434_800
WEEK = Span(start_at=AT, end_at=AT + 7 * DAY_S)


def over(name: str, *spans: BookedSpan, is_closed: bool = True, **changes: object) -> Reservation:
    return Reservation(
        request=replace(request(name, run_s=3 * HOUR_S), **changes),  # type: ignore[arg-type]
        promise=None,
        spans=spans,
        generation=max((one.generation or 0 for one in spans), default=0),
        outcome=Outcome.STOPPED,
        ended_at=max((one.end_at for one in spans), default=AT),
        is_closed=is_closed,
        reasons=(reason(ReasonCode.CANCELLED, by="ada"),),
    )


def held(start_at: Instant, length_s: int, generation: int | None = 1) -> BookedSpan:
    return span(start_at, start_at + length_s, generation=generation)


def test_it_counts_who_started_in_a_week_and_what_was_held_at_most_what_was_asked_for(store: Store) -> None:
    ended = (
        over("r-1", held(AT, HOUR_S)),
        over("r-2", held(AT + HOUR_S, 2 * HOUR_S), held(AT + 5 * HOUR_S, 9 * HOUR_S, 2), owner="bob"),
        over("r-3", held(AT - 1, DAY_S)),
        over("r-4", held(AT + 7 * DAY_S, HOUR_S)),
        over("r-5", held(AT - HOUR_S, 2 * HOUR_S), not_before_at=AT, owner="eve"),
        over("r-6", held(AT + 2 * DAY_S, HOUR_S, None)),
        over("r-7", held(AT + 3 * DAY_S, HOUR_S, None), held(AT + 4 * DAY_S, HOUR_S)),
        over("r-8"),
        over("r-9", held(AT + 5 * DAY_S, HOUR_S), is_closed=False),
    )
    store.commit_plan(0, PlanChange(hosts=(host(),), reservations=ended), at=AT)
    told = EndedUsesCache(store).seen_from(store.load_plan(now=AT))(WEEK)
    assert told == tuple(
        EndedUse(reservation=r.id, owner=r.request.owner, gpu_s=counted_gpu_s(r))
        for r in ended
        if r.is_closed and (at := start_of(r, AT)) is not None and WEEK.covers(at)
    )
    assert {use.reservation: use.gpu_s // HOUR_S for use in told} == {"r-1": 4, "r-2": 12, "r-5": 8, "r-7": 4}


def test_it_reads_again_for_a_later_plan_only(store: Store) -> None:
    store.commit_plan(0, PlanChange(hosts=(host(),), reservations=(over("r-1", held(AT, HOUR_S)),)), at=AT)
    cache = EndedUsesCache(store)
    first = cache.seen_from(Plan(version=1))
    assert len(first(WEEK)) == 1
    store.commit_plan(1, PlanChange(reservations=(over("r-2", held(AT + DAY_S, HOUR_S)),)), at=AT)
    assert len(first(WEEK)) == 1
    assert len(cache.seen_from(Plan(version=2))(WEEK)) == 2
    # Who decides on the earlier plan knows that one from the plan, and is told of it besides.
    assert len(first(WEEK)) == 2


def test_weeks_that_nobody_asks_for_any_more_are_forgotten(store: Store) -> None:
    cache = EndedUsesCache(store)
    told = cache.seen_from(Plan(version=1))
    for number in range(20):
        told(Span(start_at=AT + number, end_at=AT + number + 1))
    assert len(cache._known) == 8
