"""Use: what a reservation counts where GPU-hours are limited, and when. Pure; holds no limits.

A reservation counts whole, at the instant at which it first starts: its GPUs times the hours asked for. Once it has
ended it counts what it held, which is never more: parking, an early end and what was never started cost nothing.
"""

from dataclasses import dataclass

from scheduler.core.plan import BookedSpan, Outcome, Reservation
from scheduler.core.requests import Request, ReservationId
from scheduler.core.spans import Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedUse:
    """What a reservation held that has ended."""

    reservation: ReservationId
    owner: str
    gpu_s: int


def held_gpu_s(*, gpus: int, run_s: int, held_s: int) -> int:
    """Return what an ended reservation counts that had GPUs for so long; its hand-overs are no use of its owner's."""
    return gpus * min(run_s, held_s)


def counted_gpu_s(reservation: Reservation) -> int:
    """Return what a reservation counts."""
    request = reservation.request
    if reservation.outcome is None:
        return request.gpus * request.run_s
    held_s = sum(span.end_at - span.start_at for span in reservation.spans if span.is_pinned)
    return held_gpu_s(gpus=request.gpus, run_s=request.run_s, held_s=held_s)


def first_span(reservation: Reservation, now: Instant) -> BookedSpan | None:
    """Return the span in which a reservation first starts; what passed without a start is none."""
    is_live = reservation.outcome is None
    return next((s for s in reservation.spans if s.is_pinned or (is_live and s.end_at > now)), None)


def starts_at(request: Request, first: BookedSpan) -> Instant:
    """Return when a booking starts: with `--at T` at T, though its hand-over comes before."""
    return max(first.start_at, request.not_before_at or 0)


def start_of(reservation: Reservation, now: Instant) -> Instant | None:
    """Return when a reservation first starts; None: it never did, and will not."""
    first = None if reservation.outcome is Outcome.REFUSED else first_span(reservation, now)
    return None if first is None else starts_at(reservation.request, first)
