"""The reservations that have not ended; those that wait for their first start, and those that go on later, apart.

Followed from change to change, so that nobody has to look through all of them for the few that matter.
"""

from collections.abc import Iterable, Mapping

from scheduler.core.plan import Reservation
from scheduler.core.requests import ReservationId


class Live:
    """Mutable; not thread-safe. Who is in `all` and `unstarted` is there in the order in which they came."""

    def __init__(self) -> None:
        self.all: dict[ReservationId, Reservation] = {}
        self.unstarted: dict[ReservationId, Reservation] = {}
        self.ahead: dict[ReservationId, Reservation] = {}
        """Those that have been started and have a last span that has not, without those that rest."""
        self._resting: dict[ReservationId, Reservation] = {}
        self._rest_by: object = None
        self.of_policy: dict[ReservationId, Reservation] = {}
        """Those that the policy has asked for itself."""
        self.by_sort: dict[tuple[int, str], dict[ReservationId, Reservation]] = {}
        """By their GPUs and their queue."""

    def refill(self, reservations: Iterable[Reservation]) -> None:
        """Begin anew with some, in the order in which they came."""
        for part in (self.all, self.unstarted, self.ahead, self._resting, self.of_policy, self.by_sort):
            part.clear()
        for reservation in reservations:
            self.put(reservation)

    def put(self, reservation: Reservation) -> None:
        """Follow a reservation: one that is known keeps its place, one that has ended is let go."""
        request = reservation.request
        key = request.id
        if reservation.outcome is not None:
            self.drop(key)
            return
        self._resting.pop(key, None)
        self.all[key] = reservation
        self.by_sort.setdefault((request.gpus, request.queue), {})[key] = reservation
        if request.key is not None:
            self.of_policy[key] = reservation
        if not reservation.generation:
            self.unstarted[key] = reservation
        else:
            self.unstarted.pop(key, None)
        if reservation.generation and reservation.spans and reservation.spans[-1].generation is None:
            self.ahead[key] = reservation
        else:
            self.ahead.pop(key, None)

    def drop(self, key: ReservationId) -> None:
        known = self.all.pop(key, None)
        if known is not None:
            del self.by_sort[known.request.gpus, known.request.queue][key]
        self.of_policy.pop(key, None)
        self.unstarted.pop(key, None)
        self.ahead.pop(key, None)
        self._resting.pop(key, None)

    def rest(self, key: ReservationId) -> None:
        """Leave one that goes on later alone: it is not in `ahead` until it is changed, or all are woken."""
        one = self.ahead.pop(key, None)
        if one is not None:
            self._resting[key] = one

    def wake(self, by: object) -> None:
        """Put all back that rest, if they did so by something else."""
        if by is not self._rest_by:
            self._rest_by = by
            self.ahead.update(self._resting)
            self._resting.clear()

    def would_be_out_of_order(self, reservations: Mapping[ReservationId, Reservation | None]) -> bool:
        """Whether following these would put one last that came earlier; None: there is none any more."""
        known, unstarted = self.all, self.unstarted
        return any(
            key not in known or (not one.generation and key not in unstarted)
            for key, one in reservations.items()
            if one is not None and one.outcome is None
        )
