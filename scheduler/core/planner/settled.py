"""What was settled and needs no look for now: a memory from one planning step to the next. Never the truth.

A reservation is passed by while its record and all that is known of its starts are the very same values, nothing about
hosts or the policy has changed, and the clock has not come to where it matters. A memory that is lost costs time only.
"""

from collections.abc import Iterable
from heapq import heappop, heappush

from scheduler.core.plan import Rules
from scheduler.core.requests import ReservationId
from scheduler.core.spans import Instant


class Settled:
    """Mutable; not thread-safe."""

    def __init__(self) -> None:
        self._rules: Rules | None = None
        self._others: tuple[object, ...] = ()
        self._until: list[tuple[Instant, ReservationId]] = []
        """A heap of until when, with some that have been looked at again since."""
        self.restless: set[ReservationId] | None = None
        """Who needs a look; None: everybody."""

    def begin(self, now: Instant, rules: Rules | None, *others: object) -> None:
        """Come to an instant; `rules` and `others`: what everything depends on besides. Is it new, all is forgotten."""
        if rules is not self._rules or others != self._others:
            self._rules, self._others = rules, others
            self._until.clear()
            self.restless = None
        while self._until and self._until[0][0] <= now:
            self.look_at(heappop(self._until)[1])

    def look_at(self, reservation: ReservationId) -> None:
        """Something about a reservation has changed."""
        if self.restless is not None:
            self.restless.add(reservation)

    def everybody(self, live: Iterable[ReservationId]) -> None:
        """Say who there is, after all was forgotten."""
        self.restless = set(live)

    def remember(self, reservation: ReservationId, until_at: Instant) -> None:
        """Take note that a reservation needs no look before an instant, as long as nothing happens to it."""
        heappush(self._until, (until_at, reservation))
        if self.restless is not None:
            self.restless.discard(reservation)

    def drop(self, reservation: ReservationId) -> None:
        """Forget one that has ended."""
        if self.restless is not None:
            self.restless.discard(reservation)
