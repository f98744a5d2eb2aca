"""What was settled and needs no look for now: a memory from one planning step to the next. Never the truth.

A reservation is passed by while its record and all that is known of its starts are the very same values, nothing about
hosts or the policy has changed, and the clock has not come to where it matters. A memory that is lost costs time only.
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from scheduler.core.plan import Rules
from scheduler.core.requests import ReservationId
from scheduler.core.spans import Instant


class Settled:
    """Mutable; not thread-safe."""

    def __init__(self) -> None:
        self._rules: Rules | None = None
        self._others: tuple[object, ...] = ()
        self._until_at: dict[ReservationId, Instant] = {}
        """Until when those that are quiet need no look."""
        self._due: list[tuple[Instant, ReservationId]] = []
        """A heap of the same, with some that have been looked at again since."""
        self.restless: set[ReservationId] | None = None
        """Who needs a look; None: everybody."""

    def begin(self, now: Instant, rules: Rules | None, *others: object) -> None:
        """Come to an instant; `rules` and `others`: what everything depends on besides. Is it new, all is forgotten."""
        if rules is not self._rules or others != self._others:
            self._rules, self._others = rules, others
            self._until_at.clear()
            self._due.clear()
            self.restless = None
        while self._due and self._due[0][0] <= now:
            at, reservation = heappop(self._due)
            if self._until_at.get(reservation) == at:
                self.look_at(reservation)

    def look_at(self, reservation: ReservationId) -> None:
        """Something about a reservation has changed."""
        self._until_at.pop(reservation, None)
        if self.restless is not None:
            self.restless.add(reservation)

    def everybody(self, live: Iterable[ReservationId]) -> None:
        """Say who there is, after all was forgotten."""
        self.restless = set(live)

    def remember(self, reservation: ReservationId, until_at: Instant) -> None:
        """Take note that a reservation needs no look before an instant, as long as nothing happens to it."""
        self._until_at[reservation] = until_at
        heappush(self._due, (until_at, reservation))
        if len(self._due) > 64 + 4 * len(self._until_at):
            self._due = [(at, one) for one, at in self._until_at.items()]
            heapify(self._due)
        if self.restless is not None:
            self.restless.discard(reservation)

    def drop(self, reservation: ReservationId) -> None:
        """Forget one that has ended."""
        self._until_at.pop(reservation, None)
        if self.restless is not None:
            self.restless.discard(reservation)
