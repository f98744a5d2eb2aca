"""The reservations that have not ended, those that wait for their first start and those that have had it apart.

Followed from change to change, so that nobody has to look through all of them for the few that matter.
"""

from collections.abc import Iterable, Mapping

from scheduler.core.plan import Reservation
from scheduler.core.requests import ReservationId


class Live:
    """Mutable; not thread-safe. Each part is in the order in which the reservations came, but for those started."""

    def __init__(self) -> None:
        self.all: dict[ReservationId, Reservation] = {}
        self.unstarted: dict[ReservationId, Reservation] = {}
        self.started: dict[ReservationId, Reservation] = {}

    def refill(self, reservations: Iterable[Reservation]) -> None:
        """Begin anew with some, in the order in which they came."""
        for part in (self.all, self.unstarted, self.started):
            part.clear()
        for reservation in reservations:
            self.put(reservation)

    def put(self, reservation: Reservation) -> None:
        """Follow a reservation: one that is known keeps its place, one that has ended is let go."""
        key = reservation.id
        if reservation.outcome is not None:
            self.drop(key)
            return
        self.all[key] = reservation
        if reservation.generation:
            self.unstarted.pop(key, None)
            self.started[key] = reservation
        else:
            self.started.pop(key, None)
            self.unstarted[key] = reservation

    def drop(self, key: ReservationId) -> None:
        self.all.pop(key, None)
        self.unstarted.pop(key, None)
        self.started.pop(key, None)

    def would_be_out_of_order(self, reservations: Mapping[ReservationId, Reservation | None]) -> bool:
        """Whether following these would put one last that came earlier; None: there is none any more."""
        known, unstarted = self.all, self.unstarted
        return any(
            key not in known or (not one.generation and key not in unstarted)
            for key, one in reservations.items()
            if one is not None and one.outcome is None
        )
