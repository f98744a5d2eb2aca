"""The calendar: who has which GPUs when, and which windows lie over it. Reads only; who may see names is the edge's."""

from collections.abc import Iterable
from dataclasses import dataclass

from scheduler.core.phases import Phase, phase_of
from scheduler.core.plan import BookedSpan, Reservation
from scheduler.core.requests import ReservationId
from scheduler.core.spans import DAY_S, Instant
from scheduler.core.windows import Window
from scheduler.service.plan_cache import PlanCache
from scheduler.service.snapshot import Snapshot, Vms
from scheduler.store.store import Store

LONGEST_S = 14 * DAY_S
MOST_CLOSED = 2000
"""Closed reservations that are looked through for a stretch of the past."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarEntry:
    """One booked span."""

    reservation: Reservation
    span: BookedSpan
    gpus: tuple[int, ...]
    phase: Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarView:
    """What lies in `[from_at, until_at)`."""

    windows: tuple[Window, ...]
    entries: tuple[CalendarEntry, ...]


def calendar_between(
    *, from_at: Instant, until_at: Instant, snapshot: Snapshot, plans: PlanCache, store: Store
) -> CalendarView:
    """Return windows and bookings that lie, wholly or in part, in a stretch of time; by start."""
    windows = snapshot.plan.windows.values()
    closed: tuple[Reservation, ...] = ()
    if from_at < snapshot.now:
        closed = store.reservations(is_closed=True, ended_since_at=from_at, limit=MOST_CLOSED)
    if from_at < snapshot.now - DAY_S:
        # The plan in memory has let go of windows that ended a day ago.
        windows = store.load_plan(now=snapshot.now, past_at=from_at).windows.values()
    vms_by_reservation = snapshot.vms_by_reservation()
    reservations = {reservation.id: reservation for reservation in closed} | dict(snapshot.plan.reservations)
    return CalendarView(
        windows=tuple(
            sorted(
                (window for window in windows if window.start_at < until_at and window.end_at > from_at),
                key=lambda window: (window.start_at, window.id),
            )
        ),
        entries=tuple(
            sorted(
                _entries(reservations.values(), vms_by_reservation, snapshot, from_at, until_at),
                key=lambda entry: (entry.span.start_at, entry.span.host, entry.gpus),
            )
        ),
    )


def _entries(
    reservations: Iterable[Reservation],
    vms_by_reservation: dict[ReservationId, Vms],
    snapshot: Snapshot,
    from_at: Instant,
    until_at: Instant,
) -> Iterable[CalendarEntry]:
    for reservation in reservations:
        spans = [span for span in reservation.spans if span.start_at < until_at and span.end_at > from_at]
        if not spans:
            continue
        vms = [vm for _, vm in vms_by_reservation.get(reservation.id, ())]
        phase = phase_of(reservation, vms, snapshot.now)
        for span in spans:
            yield CalendarEntry(reservation=reservation, span=span, gpus=snapshot.gpus_of(span), phase=phase)
