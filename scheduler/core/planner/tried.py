"""Who was tried for an early start in vain, since when: nobody is tried again and again while nothing has changed.

A start that would break a promise now would break it a moment later too, as long as nobody leaves. All are tried again
when room is freed, when windows, hosts or rules have changed, and every quarter of an hour in any case.
"""

from collections.abc import Iterable
from heapq import heappop, heappush

from scheduler.core.requests import ReservationId
from scheduler.core.spans import MINUTE_S, Instant

AGAIN_AFTER_S = 15 * MINUTE_S


class Tried:
    """Mutable; not thread-safe."""

    def __init__(self) -> None:
        self._at: Instant | None = None
        self._by: tuple[object, ...] = ()
        self._not_before: list[tuple[Instant, ReservationId]] = []
        """A heap of when those may first start who may not yet, each once."""
        self._known: set[tuple[Instant, ReservationId]] = set()

    def copy(self) -> "Tried":
        other = Tried()
        other._at, other._by = self._at, self._by
        other._not_before, other._known = list(self._not_before), set(self._known)
        return other

    def are_all_due(self, now: Instant, by: tuple[object, ...], edge_at: Instant) -> bool:
        """Whether all that wait are to be tried.

        `by`: what else it depends on; `edge_at`: when a window last began, ended or was given away.
        """
        at = self._at
        return at is None or now < at or now >= at + AGAIN_AFTER_S or edge_at > at or by != self._by

    def all_at(self, now: Instant, by: tuple[object, ...]) -> None:
        """All that wait have been tried."""
        self._at, self._by = now, by

    def again(self) -> None:
        """All that wait are to be tried once more."""
        self._at = None

    def not_before(self, reservation: ReservationId, at: Instant) -> None:
        """One may not start before an instant."""
        if (at, reservation) not in self._known:
            self._known.add((at, reservation))
            heappush(self._not_before, (at, reservation))

    def come_of_age(self, now: Instant) -> Iterable[ReservationId]:
        """Return who may start from now on, and could not before."""
        while self._not_before and self._not_before[0][0] <= now:
            one = heappop(self._not_before)
            self._known.discard(one)
            yield one[1]
