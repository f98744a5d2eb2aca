"""Where there is room for the disks of those that wait, if they start now.

Pools have room for all that is booked. Where one is booked out for a while, whoever starts now has none there, except
for what it has booked itself.
"""

from collections.abc import Mapping, Sequence

from scheduler.core.calendar.bookings import Rooms
from scheduler.core.plan import Reservation
from scheduler.core.planner.draft import Draft
from scheduler.core.spans import FOREVER, Instant


class DiskRoom:
    """Of one pass over those that wait; looked at when asked for."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._known: dict[tuple[int, bool], _Room | None] = {}
        self.is_plenty = self._has_plenty()
        """Each pool has room for one disk more of any size beside all that are ever booked there."""
        self.has_grown = False
        """There is more room for somebody on a host with free GPUs than there was when it was asked for."""

    def of(self, reservation: Reservation) -> Rooms | None:
        """Return where there is room for the disk of one; None: everywhere, or it needs none."""
        room = self._room_of(reservation)
        return None if room is None else room.rooms

    def has_any(self, reservation: Reservation) -> bool:
        """Whether any pool has room at this instant for the disk of one."""
        return self._is_any(self._room_of(reservation))

    def with_room(self, waiting: Sequence[Reservation]) -> Sequence[Reservation]:
        """Return those for whose disks there is room on any host with GPUs for them that are free now.

        Where a disk is booked, its room is its own from then on.
        """
        if self.is_plenty:
            return waiting
        now, disks, found = self._draft.now, self._draft.disks, []
        for reservation in waiting:
            room = self._room_of(reservation)
            if room is not None and reservation.disk is not None:
                request = reservation.request
                free = room.free_by_gpus.get(request.gpus) or self._look_at_free(request.gpus, room)
                if now + request.run_s + room.rooms.kept_s > free[0]:
                    disk = disks[reservation.disk]
                    if disk.from_at > free[1].get(disk.storage, -1):
                        continue
            found.append(reservation)
        return found

    def look_again(self) -> bool:
        """Look again at all that was asked for, after a start; return whether `has_any` answers otherwise for any."""
        before, self.is_plenty = self._known, self._has_plenty()
        self._known = {}
        if not self.is_plenty:
            self._known = {(gib, is_scratch): self._look(gib, is_scratch=is_scratch) for gib, is_scratch in before}
        self.has_grown = self.has_grown or self._is_more_than(before)
        return any(self._is_any(room) != self._is_any(self._known.get(wanted)) for wanted, room in before.items())

    def _room_of(self, reservation: Reservation) -> "_Room | None":
        if self.is_plenty or reservation.disk is None or reservation.request.continues is not None:
            return None
        disk = self._draft.disks.get(reservation.disk)
        if disk is None:
            return None
        wanted = disk.size_gib, disk.is_scratch
        if wanted not in self._known:
            self._known[wanted] = self._look(disk.size_gib, is_scratch=disk.is_scratch)
        return self._known[wanted]

    def _is_any(self, room: "_Room | None") -> bool:
        return room is None or room.latest_at > self._draft.now

    def _is_more_than(self, before: Mapping[tuple[int, bool], "_Room | None"]) -> bool:
        """Whether there is room for longer on any host with free GPUs."""
        calendar = self._draft.board.calendar
        free = {host for size in calendar.sizes for host in calendar.free_hosts(size)}
        for wanted, was in before.items():
            if was is not None and free:
                now = self._known.get(wanted)
                if now is None or any(now.rooms.until_at[host] > was.rooms.until_at[host] for host in free):
                    return True
        return False

    def _has_plenty(self) -> bool:
        disks, hosts = self._draft.disks, self._draft.host_book
        largest_gib = disks.largest_gib()
        for part in (False, True):
            # Whoever waits has a disk booked: where none is, nobody asks for room.
            most_gib = disks.most_booked_gib(is_scratch=part)
            if most_gib and most_gib + largest_gib > hosts.least_pool_gib(is_scratch=part):
                return False
        return True

    def _look(self, gib: int, *, is_scratch: bool) -> "_Room | None":
        draft = self._draft
        assert draft.rules is not None
        storages = draft.host_book.by_storage
        until_at = {storage: self._until_at(storage, gib, is_scratch=is_scratch) for storage in storages}
        if min(until_at.values(), default=FOREVER) == FOREVER:
            return None
        hosts = [draft.hosts[host] for host in draft.board.hosts]
        return _Room(Rooms(tuple([until_at[host.storage] for host in hosts]), draft.rules.retention_s))

    def _until_at(self, storage: str, gib: int, *, is_scratch: bool) -> Instant:
        """Return until when one part of a storage's pool has room for a disk from now on."""
        draft = self._draft
        most_gib = draft.pool_room_gib(storage, is_scratch=is_scratch) - gib
        if draft.disks.booked_gib(storage, is_scratch=is_scratch) <= most_gib:
            # Beside all disks, those that are booked for later too.
            return FOREVER
        return draft.disks.levels(storage, is_scratch=is_scratch).first_over(most_gib, draft.now)

    def _look_at_free(self, gpus: int, room: "_Room") -> tuple[Instant, Mapping[str, Instant]]:
        draft, found = self._draft, dict[str, Instant]()
        ids = draft.board.hosts
        for number in draft.board.calendar.free_hosts(gpus):
            found[draft.hosts[ids[number]].storage] = room.rooms.until_at[number]
        room.free_by_gpus[gpus] = max(found.values(), default=-1), found
        return room.free_by_gpus[gpus]


class _Room:
    """Where there is room for a disk of one size."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self.latest_at = max(rooms.until_at)
        self.free_by_gpus: dict[int, tuple[Instant, Mapping[str, Instant]]] = {}
        """Of the hosts with so many free GPUs: until when there is room, the latest of all, and by their storages."""
