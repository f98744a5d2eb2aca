"""Where there is room for the disks of those that wait, if they start now.

Pools have room for all that is booked; where one is booked out for a while, whoever starts now has none there.
"""

from scheduler.core.calendar.bookings import Rooms
from scheduler.core.plan import Reservation
from scheduler.core.planner.draft import Draft
from scheduler.core.spans import FOREVER, Instant


class DiskRoom:
    """Of one pass over those that wait; looked at when asked for."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._known: dict[tuple[int, bool], Rooms | None] = {}
        self._is_plenty = self._has_plenty()

    def of(self, reservation: Reservation) -> Rooms | None:
        """Return where there is room for the disk of one; None: everywhere, or it needs none."""
        if self._is_plenty or reservation.disk is None or reservation.request.continues is not None:
            return None
        disk = self._draft.disks.get(reservation.disk)
        if disk is None:
            return None
        wanted = disk.size_gib, disk.is_scratch
        if wanted not in self._known:
            self._known[wanted] = self._look(disk.size_gib, is_scratch=disk.is_scratch)
        return self._known[wanted]

    def has_any(self, reservation: Reservation) -> bool:
        """Whether any pool has room at this instant for the disk of one."""
        rooms = self.of(reservation)
        return rooms is None or any(until_at > self._draft.now for until_at in rooms.until_at)

    def has_changed(self) -> bool:
        """Look again at all that was asked for; return whether any answer is another one."""
        was_plenty, before = self._is_plenty, self._known
        self._is_plenty = self._has_plenty()
        if self._is_plenty:
            self._known = {}
            return not was_plenty
        self._known = {(gib, is_scratch): self._look(gib, is_scratch=is_scratch) for gib, is_scratch in before}
        return was_plenty or self._known != before

    def _has_plenty(self) -> bool:
        """Whether each pool has room for one disk more of any size beside all that are ever booked there."""
        disks, hosts = self._draft.disks, self._draft.host_book
        largest_gib = disks.largest_gib()
        for part in (False, True):
            # Whoever waits has a disk booked: where none is, nobody asks for room.
            most_gib = disks.most_booked_gib(is_scratch=part)
            if most_gib and most_gib + largest_gib > hosts.least_pool_gib(is_scratch=part):
                return False
        return True

    def _look(self, gib: int, *, is_scratch: bool) -> Rooms | None:
        draft = self._draft
        assert draft.rules is not None
        until_at = {
            storage: self._until_at(storage, gib, is_scratch=is_scratch) for storage in draft.host_book.by_storage
        }
        if min(until_at.values(), default=FOREVER) == FOREVER:
            return None
        hosts = [draft.hosts[host] for host in draft.board.hosts_in_order()]
        return Rooms(tuple([until_at[host.storage] for host in hosts]), draft.rules.retention_s)

    def _until_at(self, storage: str, gib: int, *, is_scratch: bool) -> Instant:
        """Return until when one part of a storage's pool has room for a disk from now on."""
        draft = self._draft
        most_gib = draft.pool_room_gib(storage, is_scratch=is_scratch) - gib
        if draft.disks.booked_gib(storage, is_scratch=is_scratch) <= most_gib:
            # Beside all disks, those that are booked for later too.
            return FOREVER
        return draft.disks.levels(storage, is_scratch=is_scratch).first_over(most_gib, draft.now)
