"""Orders: who is tried first for an early start. A policy's value; none of them can break a promise.

Each takes GPUs, the hours asked for in seconds, the instant of submission and now; the smallest comes first.
"""

from collections.abc import Callable

from scheduler.core.spans import DAY_S, HOUR_S, Instant

Order = Callable[[int, int, Instant, Instant], float]

AGES_IN_S = DAY_S
"""Waiting for so long halves what one asked for."""

WIDE = 8
"""From so many GPUs on one finds a place least often, and counts as having asked for half."""

AGE_CAP_S = 48 * HOUR_S


def first_come(_gpus: int, _asked_s: int, submitted_at: Instant, _now: Instant) -> float:
    return submitted_at


def response_ratio(_gpus: int, asked_s: int, submitted_at: Instant, now: Instant) -> float:
    """Short ones first, with smooth ageing."""
    return asked_s / (1 + (now - submitted_at) / AGES_IN_S)


def wide_response_ratio(gpus: int, asked_s: int, submitted_at: Instant, now: Instant) -> float:
    """The same, and wide ones before others."""
    return asked_s / (1 + (now - submitted_at) / AGES_IN_S) / (2 if gpus >= WIDE else 1)


def shortest_first_until(age_cap_s: int) -> Order:
    """Return shortest first, but those that have waited for so long before all others, first come."""

    def order(_gpus: int, asked_s: int, submitted_at: Instant, now: Instant) -> float:
        return submitted_at - now if now - submitted_at >= age_cap_s else asked_s

    return order


shortest_first = shortest_first_until(AGE_CAP_S)


ORDERS: dict[str, Order] = {
    "first_come": first_come,
    "response_ratio": response_ratio,
    "wide_response_ratio": wide_response_ratio,
    "shortest_first": shortest_first,
}
