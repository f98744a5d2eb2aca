"""Deciding windows, using gifts, and taking on a new policy's windows: what the clock and the policy do to the plan."""

from collections.abc import Mapping
from dataclasses import replace

from scheduler.core.intents import ApplyPolicy
from scheduler.core.plan import BookedSpan, Reservation, event
from scheduler.core.planner.admission import check_gpus_at_once
from scheduler.core.planner.booking import movable, rebook
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.extending import lengthen, room_until_at
from scheduler.core.planner.promising import keeps_promise
from scheduler.core.planner.replanning import compress, hours_ahead, in_order_of_claim, is_stuck, replan
from scheduler.core.reasons import Reason, ReasonCode, reason
from scheduler.core.requests import AtBoundary, ReservationId
from scheduler.core.windows import Window, WindowId, WindowState


def windows_for_each_host(windows: tuple[Window, ...]) -> tuple[Window, ...]:
    """Split windows by host: each host's window is decided by what is booked on that host."""
    return tuple(
        replace(window, id=WindowId(f"{window.id}/{host}"), hosts=frozenset({host}))
        for window in windows
        for host in sorted(window.hosts)
    )


def decide_windows(draft: Draft) -> None:
    """Decide each window whose time has come, once; release the rest of those with nothing left ahead."""
    for key in sorted(draft.windows):
        window = draft.windows[key]
        if window.end_at <= draft.now:
            continue
        if window.state is WindowState.PLANNED and window.decide_at <= draft.now:
            is_wanted = bool(booked_in(draft, window))
            if is_wanted or not window.only_if_queued:
                _decide(draft, window, WindowState.OPEN)
            else:
                _decide(draft, window, WindowState.RELEASED)
        elif window.state is WindowState.OPEN and _is_idle(draft, window):
            _decide(draft, window, WindowState.RELEASED)


def booked_in(draft: Draft, window: Window) -> list[Reservation]:
    """Return the reservations that a window's own layout lets in and that have time left in it."""
    return [
        r
        for r in draft.reservations.values()
        if window.layout.admits(gpus=r.request.gpus, queue=r.request.queue)
        and any(s.host in window.hosts and s.end_at > draft.now and s.span.overlaps(window.span) for s in r.spans)
    ]


def _is_idle(draft: Draft, window: Window) -> bool:
    """Whether an open window has nothing left ahead, and a rest that is worth a swap back."""
    if not window.only_if_queued or draft.now < window.start_at:
        return False
    if window.end_at - draft.now < draft.settings.worth_a_swap_s:
        return False
    return not booked_in(draft, window)


def _decide(draft: Draft, window: Window, state: WindowState) -> None:
    decided = replace(
        window,
        state=state,
        released_from_at=None if state is WindowState.OPEN else max(draft.now, window.start_at),
    )
    draft.put_window(decided)
    draft.tell(
        event(
            "window.decided",
            draft.now,
            host=min(window.hosts),
            window=window.name,
            state=state.value,
            start_at=window.start_at,
            end_at=window.end_at,
            released_from_at=decided.released_from_at,
        )
    )
    if state is WindowState.RELEASED:
        _use_gift(draft, decided)


def _use_gift(draft: Draft, window: Window) -> None:
    """Let tenants run on through released time, then let others come earlier. Nobody's promise rests on it."""
    going = [
        (r.id, sum(draft.hours_s(s, r.request.gpus) for s in movable(draft, r)))
        for r in draft.reservations.values()
        if r.outcome is None and movable(draft, r) and _edge_span(draft, r, window) is not None
    ]

    alone = [(key, owed_s) for key, owed_s in going if is_stuck(draft, draft.reservations[key])]

    def run_on() -> None:
        for reservation_id, owed_s in going:
            if (reservation_id, owed_s) not in alone:
                _run_on(draft, reservation_id, window, owed_s)

    if replan(draft, first=run_on) is not None:
        alone = going
    for reservation_id, owed_s in alone:
        _run_on_alone(draft, reservation_id, window, owed_s)
    compress(draft)


def _edge_span(draft: Draft, reservation: Reservation, window: Window) -> BookedSpan | None:
    """Return the span, begun already, that would be parked at a window's start."""
    return next(
        (
            s
            for s in reservation.spans
            if s.start_at <= draft.now < s.end_at == window.start_at and s.host in window.hosts
        ),
        None,
    )


def _run_on(draft: Draft, reservation_id: ReservationId, window: Window, owed_s: int) -> None:
    """Lengthen a span over a released edge, as far as there is room and hours to deliver."""
    reservation = draft.reservations[reservation_id]
    span = _edge_span(draft, reservation, window)
    if span is None:
        return
    end_at = min(span.end_at + owed_s, room_until_at(draft, reservation, span))
    longer = replace(span, end_at=end_at)
    if end_at > span.end_at and not check_gpus_at_once(draft, reservation.request, (longer,)):
        lengthen(draft, reservation, span, end_at)


def _run_on_alone(draft: Draft, reservation_id: ReservationId, window: Window, owed_s: int) -> None:
    """The same with everybody else left where they are."""
    with draft.attempt() as attempt:
        reservation = draft.reservations[reservation_id]
        before = _edge_span(draft, reservation, window)
        assert before is not None
        gone = movable(draft, reservation)
        draft.put(replace(reservation, spans=tuple(s for s in reservation.spans if s not in gone)))
        _run_on(draft, reservation_id, window, owed_s)
        reservation = draft.reservations[reservation_id]
        left_s = owed_s - (reservation.spans[-1].end_at - before.end_at)
        if left_s <= 0 or rebook(draft, reservation, run_s=left_s, accept=keeps_promise(draft, reservation)):
            attempt.keep()


def add_windows(draft: Draft, windows: tuple[Window, ...]) -> None:
    """Add windows that clash with none that is there; what is there stays."""
    for window in windows_for_each_host(windows):
        clashes = window.id in draft.windows or any(
            window.hosts & other.hosts and window.span.overlaps(other.span) for other in draft.windows.values()
        )
        if not clashes and window.hosts <= draft.hosts.keys():
            draft.put_window(window)


def apply_policy(draft: Draft, intent: ApplyPolicy) -> tuple[Reason, ...]:
    """Take on a policy: its rules at once, its windows in place of those still planned. All of it, or nothing.

    Refused if a promise would break, naming whose.
    """
    current = draft.rules.version if draft.rules else 0
    if intent.rules.version <= current:
        return (reason(ReasonCode.POLICY_STALE, seen=intent.rules.version, current=current),)
    booked_until_at = max((s.end_at for r in draft.reservations.values() for s in r.spans), default=0)
    if intent.horizon_at < booked_until_at:
        problem = f"its windows reach to {intent.horizon_at}, bookings to {booked_until_at}"
        return (reason(ReasonCode.POLICY_INVALID, problem=problem),)
    if intent.rules.warnings_s and min(intent.rules.warnings_s) <= 0:
        return (reason(ReasonCode.POLICY_INVALID, problem="a warning must come before the end, not at it"),)
    refused: list[Reason] = []
    # Counted by the old rules: with a longer grace the same spans deliver less.
    hours_by_id = hours_ahead(draft) if draft.rules is not None else {}
    lead_was_s = _longest_lead_s(draft) if draft.rules is not None else 0
    with draft.attempt() as attempt:
        draft.set_rules(intent.rules, intent.text)
        draft.set_horizon(intent.horizon_at)
        for key in [k for k, w in draft.windows.items() if not w.is_decided and w.start_at > draft.now]:
            draft.drop_window(key)
        add_windows(draft, intent.windows)
        broken = None
        if not _has_moved_those_hit(draft, hours_by_id, lead_was_s):
            broken = replan(
                draft,
                first=lambda: refused.extend(_cut_at_new_edges(draft, lead_was_s)),
                hours_by_id=hours_by_id,
            )
        if broken is not None and not refused:
            refused.append(_would_break(draft, broken, "no other place keeps it"))
        if not refused:
            attempt.keep()
    if not refused:
        draft.tell(event("policy.applied", draft.now, version=intent.rules.version))
        draft.is_room_freed = True
    return tuple(refused)


def _longest_lead_s(draft: Draft) -> int:
    return max((draft.lead_s(h.profile, size) for h in draft.hosts.values() for size in h.profile.sizes), default=0)


def _has_moved_those_hit(draft: Draft, hours_by_id: Mapping[ReservationId, int], lead_was_s: int) -> bool:
    """Find other places for bookings that lie across new edges, leave the others where they are; False: nothing done.

    What a policy does not touch has to hold under it. Placing everything anew, one after the other, finds less: it may
    not find again what is there now.
    """
    if _longest_lead_s(draft) > lead_was_s:
        return False
    with draft.attempt() as attempt:
        for reservation in in_order_of_claim(draft, [r for r in draft.reservations.values() if r.outcome is None]):
            now = reservation.span_at(draft.now)
            if now is not None and not _lies_well(draft, reservation, now):
                return False
            if all(_lies_well(draft, reservation, span) for span in movable(draft, reservation)):
                continue
            run_s = hours_by_id.get(reservation.id)
            if run_s is None or not rebook(draft, reservation, run_s=run_s, accept=keeps_promise(draft, reservation)):
                return False
        attempt.keep()
    return True


def _lies_well(draft: Draft, reservation: Reservation, span: BookedSpan) -> bool:
    """Whether a reservation may run for all that is left of a span by the windows that there are."""
    request = reservation.request
    from_at = max(span.start_at, draft.now)
    stretches = draft.stretches_of(
        span.host, gpus=request.gpus, queue=request.queue, at_boundary=request.at_boundary, with_gifts=True
    )
    return any(s.start_at <= from_at and span.end_at <= s.end_at for s in stretches)


def _cut_at_new_edges(draft: Draft, lead_was_s: int) -> list[Reason]:
    """Shorten begun spans that a new window cuts; their hours are placed again. Returns who refuses."""
    refused = []
    for key in list(draft.reservations):
        reservation = draft.reservations[key]
        if is_stuck(draft, reservation) and not _may_stay(draft, reservation, lead_was_s):
            problem = "a new window or a longer grace takes its place, and there is no other place for it now"
            refused.append(_would_break(draft, key, problem))
            continue
        span = reservation.span_at(draft.now)
        if reservation.outcome is not None or span is None:
            continue
        request = reservation.request
        stretches = draft.stretches_of(
            span.host, gpus=request.gpus, queue=request.queue, at_boundary=request.at_boundary, with_gifts=True
        )
        stretch = next((s for s in stretches if s.start_at <= draft.now < s.end_at), None)
        if stretch is not None and stretch.end_at >= span.end_at:
            continue
        may_park = (
            stretch is not None
            and stretch.closed_by is not None
            and request.at_boundary is AtBoundary.PARK
            and AtBoundary.PARK in stretch.closed_by.at_boundary
        )
        if stretch is None or not may_park or is_stuck(draft, reservation):
            refused.append(_would_break(draft, key, "it is running and cannot be parked at the new window's edge"))
            continue
        lengthen(draft, reservation, span, stretch.end_at)
    return refused


def _may_stay(draft: Draft, reservation: Reservation, lead_was_s: int) -> bool:
    """Whether a reservation may run where its movable spans are, and is not slower to start there than it was."""
    if _longest_lead_s(draft) > lead_was_s:
        return False
    return all(_lies_well(draft, reservation, span) for span in movable(draft, reservation))


def _would_break(draft: Draft, reservation_id: ReservationId, problem: str) -> Reason:
    owner = draft.reservations[reservation_id].request.owner
    return reason(ReasonCode.POLICY_BREAKS_PROMISE, reservation=reservation_id, owner=owner, problem=problem)
