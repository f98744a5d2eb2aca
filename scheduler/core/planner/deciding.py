"""Deciding windows, using gifts, and taking on a new policy's windows: what the clock and the policy do to the plan."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

from scheduler.core.intents import ApplyPolicy, FiledIntent
from scheduler.core.plan import BookedSpan, Event, Reservation, event
from scheduler.core.planner.admission import check_booked_limits
from scheduler.core.planner.booking import follow_disk, movable, rebook
from scheduler.core.planner.causes import overridden_by
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.extending import edge_at, lengthen, room_until_at, trim
from scheduler.core.planner.moving import go_on_putting_late, put_late
from scheduler.core.planner.moving_up import compress
from scheduler.core.planner.promising import break_promise, keeps_promise
from scheduler.core.planner.refitting import Hit, booked_now, refit
from scheduler.core.planner.replanning import replan
from scheduler.core.reasons import Reason, ReasonCode, reason
from scheduler.core.requests import HostId, ReservationId, Role
from scheduler.core.windows import Layout, Window, WindowId, WindowState

MOST_NAMED = 50
"""So many reservations are named by a policy that is refused because of them."""
OVERRIDDEN_EVENT = "promise.overridden"


def windows_for_each_host(windows: tuple[Window, ...]) -> tuple[Window, ...]:
    """Split windows by host: each host's window is decided by what is booked on that host."""
    return tuple(
        replace(window, id=WindowId(f"{window.id}/{host}"), hosts=frozenset({host}))
        for window in windows
        for host in sorted(window.hosts)
    )


def decide_windows(draft: Draft) -> None:
    """Decide each window whose time has come, once; release the rest of those with nothing left ahead.

    Where tenants are parked the layout is free afterwards: all that goes on or waits is placed anew then.
    """
    given = []
    are_opening = False
    booked = _Booked(draft)
    for key in draft.window_book.to_decide(draft.now):
        window = draft.windows[key]
        if window.end_at <= draft.now:
            continue
        if window.state is WindowState.PLANNED and window.decide_at <= draft.now:
            is_wanted = not window.only_if_queued or booked.has_any_in(window)
            decided = _decide(draft, window, WindowState.OPEN if is_wanted else WindowState.RELEASED)
        elif window.state is WindowState.OPEN and _is_idle(draft, window, booked):
            decided = _decide(draft, window, WindowState.RELEASED)
        else:
            continue
        if decided.state is WindowState.RELEASED:
            given.append(decided)
        else:
            are_opening = True
    if given:
        _use_gifts(draft, given)
    elif are_opening:
        replan(draft)
    if given or are_opening:
        put_late(draft)
        # From now on others are let in than before.
        draft.are_all_to_be_tried = True
    else:
        go_on_putting_late(draft)


class _Booked:
    """What is booked for windows' own layouts, by host; looked up once for all that are decided together."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._by_layout: dict[int, dict[HostId, list[BookedSpan]]] = {}

    def has_any_in(self, window: Window) -> bool:
        """Whether a reservation that a window's own layout lets in has time left in it."""
        by_host = self._by_layout.get(id(window.layout))
        if by_host is None:
            by_host = self._by_layout[id(window.layout)] = self._spans_of(window.layout)
        start_at, end_at = window.start_at, window.end_at
        return any(s.start_at < end_at and start_at < s.end_at for host in window.hosts for s in by_host.get(host, ()))

    def _spans_of(self, layout: Layout) -> dict[HostId, list[BookedSpan]]:
        """Return what is not over of those that a layout lets in."""
        found: dict[HostId, list[BookedSpan]] = {}
        for (gpus, queue), alike in self._draft.live_by_sort().items():
            if layout.admits(gpus=gpus, queue=queue):
                for span in chain.from_iterable(one.spans for one in alike.values()):
                    if span.end_at > self._draft.now:
                        found.setdefault(span.host, []).append(span)
        return found


def _is_idle(draft: Draft, window: Window, booked: _Booked) -> bool:
    """Whether an open window has nothing left ahead, and a rest that is worth a swap back."""
    if not window.only_if_queued or draft.now < window.start_at:
        return False
    if window.end_at - draft.now < draft.settings.worth_a_swap_s:
        return False
    return not booked.has_any_in(window)


def _decide(draft: Draft, window: Window, state: WindowState) -> Window:
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
    return decided


def _use_gifts(draft: Draft, windows: Sequence[Window]) -> None:
    """Let tenants run on through released time, then let others come earlier. Nobody's promise rests on it."""
    going = []
    by_edge = {(host, window.start_at): window for window in windows for host in window.hosts}
    for r in draft.live():
        span = r.span_at(draft.now)
        window = None if span is None else by_edge.get((span.host, span.end_at))
        if window is not None and movable(draft, r):
            owed_s = sum(draft.hours_s(s, r.request.gpus) for s in movable(draft, r))
            going.append((r.id, window, owed_s))
    for reservation_id, window, owed_s in going:
        _run_on_for_less_later(draft, reservation_id, window, owed_s)
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
    if end_at > span.end_at and not check_booked_limits(draft, reservation.request, (longer,)):
        lengthen(draft, reservation, span, end_at)


def _run_on_for_less_later(draft: Draft, reservation_id: ReservationId, window: Window, owed_s: int) -> None:
    """The same, for as much less at the end; everybody else is left where they are."""
    with draft.attempt() as attempt:
        reservation = draft.reservations[reservation_id]
        before = _edge_span(draft, reservation, window)
        assert before is not None
        # What is booked for itself is not in its way, and cannot go on elsewhere meanwhile.
        over_at = edge_at(draft, reservation, before)
        own = [s for s in movable(draft, reservation) if s.start_at < over_at]
        draft.put(replace(reservation, spans=tuple(s for s in reservation.spans if s not in own)))
        _run_on(draft, reservation_id, window, owed_s)
        reservation = draft.reservations[reservation_id]
        end_at = next(s.end_at for s in reservation.spans if s.start_at == before.start_at)
        spans = sorted((*reservation.spans, *(s for s in own if s.start_at >= end_at)), key=lambda s: s.start_at)
        draft.put(replace(reservation, spans=tuple(spans)))
        if end_at > before.end_at and _delivers(draft, reservation_id, owed_s - (end_at - before.end_at)):
            follow_disk(draft, reservation_id)
            attempt.keep()


def _delivers(draft: Draft, reservation_id: ReservationId, left_s: int) -> bool:
    """Have the spans of one that may be moved deliver what is left, hardly more; return whether that can be done."""
    reservation = draft.reservations[reservation_id]
    tail = movable(draft, reservation)
    booked_s = sum(draft.hours_s(s, reservation.request.gpus) for s in tail)
    if left_s <= 0:
        draft.put(replace(reservation, spans=tuple(s for s in reservation.spans if s not in tail)))
        draft.is_room_freed = draft.is_room_freed or bool(tail)
        return True
    if booked_s >= left_s:
        trim(draft, reservation, tail, booked_s - left_s)
        return True
    return rebook(draft, reservation, run_s=left_s, accept=keeps_promise(draft, reservation))


def add_windows(draft: Draft, windows: tuple[Window, ...]) -> None:
    """Add windows that clash with none that is there; what is there stays."""
    first_at = min((window.start_at for window in windows), default=0)
    book = draft.window_book.by_host
    there = {host: [window for window in book.get(host, ()) if window.end_at > first_at] for host in draft.hosts}
    for window in windows_for_each_host(windows):
        near = chain.from_iterable(there.get(host, ()) for host in window.hosts)
        start_at, end_at = window.start_at, window.end_at
        clashes = window.id in draft.windows or any(w.start_at < end_at and start_at < w.end_at for w in near)
        if not clashes and window.hosts <= draft.hosts.keys():
            draft.put_window(window)
            for host in window.hosts:
                there.setdefault(host, []).append(window)


def apply_policy(draft: Draft, filed: FiledIntent, intent: ApplyPolicy) -> tuple[Reason, ...]:
    """Take on a policy: its rules at once, its windows in place of those still planned. All of it, or nothing.

    Refused if a promise would break, naming whose; unless an admin overrides it: then it is broken, and told.
    """
    unfit = _unfit(draft, filed, intent)
    if unfit is not None:
        return (unfit,)
    override = intent.note.override
    booked = booked_now(draft)
    with draft.attempt() as attempt:
        draft.set_rules(intent.rules, intent.text)
        draft.set_horizon(intent.horizon_at)
        for key in [k for k, w in draft.windows.items() if not w.is_decided and w.start_at > draft.now]:
            draft.drop_window(key)
        add_windows(draft, intent.windows)
        hits = refit(draft, booked)
        if hits and not override:
            return tuple(would_break(draft.reservations[hit.reservation], hit.problem) for hit in hits[:MOST_NAMED])
        attempt.keep()
    for hit in hits:
        _override(draft, filed, intent, hit)
    draft.policy_note = intent.note
    draft.tell(_applied(draft, filed, intent, hits))
    draft.is_room_freed = True
    return ()


def _unfit(draft: Draft, filed: FiledIntent, intent: ApplyPolicy) -> Reason | None:
    """Say why a policy cannot be taken on at all, whatever it would break."""
    current = draft.policy_version
    if intent.rules.version <= current:
        return reason(ReasonCode.POLICY_STALE, seen=intent.rules.version, current=current)
    if intent.note.override and filed.role is not Role.ADMIN:
        return reason(ReasonCode.ADMIN_ONLY, what="break promises by an override")
    booked_until_at = max((s.end_at for r in draft.reservations.values() for s in r.spans), default=0)
    if intent.horizon_at < booked_until_at:
        problem = f"its windows reach to {intent.horizon_at}, bookings to {booked_until_at}"
        return reason(ReasonCode.POLICY_INVALID, problem=problem)
    if intent.rules.warnings_s and min(intent.rules.warnings_s) <= 0:
        return reason(ReasonCode.POLICY_INVALID, problem="a warning must come before the end, not at it")
    return None


def _override(draft: Draft, filed: FiledIntent, intent: ApplyPolicy, hit: Hit) -> None:
    """Break a promise because an admin wants it so: told to its owner, and written down with who did it and why."""
    reservation = draft.reservations[hit.reservation]
    version = intent.rules.version
    draft.tell(
        event(
            OVERRIDDEN_EVENT,
            draft.now,
            reservation=reservation.id,
            actor=filed.author,
            owner=reservation.request.owner,
            override=intent.note.override,
            problem=hit.problem,
            version=version,
        )
    )
    break_promise(draft, reservation, overridden_by(intent.note.override, version=version))


def _applied(draft: Draft, filed: FiledIntent, intent: ApplyPolicy, hits: Sequence[Hit]) -> Event:
    note = intent.note
    facts: dict[str, str | int | None] = {"version": intent.rules.version}
    if note.message:
        facts["message"] = note.message
    if note.override:
        facts |= {"override": note.override, "promises_broken": len(hits)}
    return Event(kind="policy.applied", at=draft.now, actor=filed.author, facts=tuple(sorted(facts.items())))


def would_break(reservation: Reservation, problem: str) -> Reason:
    """Return the reason why a policy is refused that would break a promise."""
    owner = reservation.request.owner
    return reason(ReasonCode.POLICY_BREAKS_PROMISE, reservation=reservation.id, owner=owner, problem=problem)
