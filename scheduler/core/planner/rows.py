"""Rows that are being changed, with a journal: what was changed since when is told, or undone, at that cost."""

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

from scheduler.core.plan import BookedDisk
from scheduler.core.planner.pool_levels import Booked, Levels
from scheduler.core.requests import DiskId
from scheduler.core.spans import Instant

K = TypeVar("K")
V = TypeVar("V")


class Rows(dict[K, V], Generic[K, V]):
    """A dict that remembers what was there. Changed by `rows[key] = value` and `del rows[key]` alone."""

    def __init__(self, rows: Mapping[K, V]) -> None:
        super().__init__(rows)
        self._journal: list[tuple[K, V | None]] = []

    def __setitem__(self, key: K, value: V) -> None:
        self._journal.append((key, self.get(key)))
        self._set(key, value)

    def __delitem__(self, key: K) -> None:
        self._journal.append((key, self[key]))
        self._set(key, None)

    def _set(self, key: K, value: V | None) -> None:
        if value is None:
            super().pop(key, None)
        else:
            super().__setitem__(key, value)

    def mark(self) -> int:
        """Return where the journal is now."""
        return len(self._journal)

    def before(self, mark: int = 0) -> dict[K, V | None]:
        """Return what was written since a mark as it was then; None: it was not there. Some may be there again."""
        found: dict[K, V | None] = {}
        if mark == len(self._journal):
            return found
        for key, value in self._journal[mark:]:
            found.setdefault(key, value)
        return found

    def differs_from(self, mark: int) -> bool:
        """Whether any row is different from what it was at a mark."""
        return any(self.get(key) != was for key, was in self.before(mark).items())

    def undo(self, mark: int) -> None:
        """Bring everything back to what it was at a mark."""
        for key, value in self.before(mark).items():
            self._set(key, value)
        del self._journal[mark:]

    def forget(self) -> None:
        """Let what is there now be the beginning."""
        self._journal.clear()

    def follow(self, key: K, value: V | None) -> None:
        """Take on what somebody else has changed; None: it is not there any more."""
        self._set(key, value)


class DiskRows(Rows[DiskId, BookedDisk]):
    """Disks, looked up by the part of a storage's pool that they are in."""

    def __init__(self, rows: dict[DiskId, BookedDisk]) -> None:
        super().__init__(rows)
        self._pools: dict[tuple[str, bool], dict[DiskId, BookedDisk]] = {}
        self._booked_gib: dict[bool, dict[str, int]] = {False: {}, True: {}}
        self._levels: dict[tuple[str, bool], Levels] = {}
        """How much is booked when, of pools of which somebody has asked."""
        self._count_by_gib: dict[int, int] = {}
        self._ends: list[tuple[Instant, DiskId]] = []
        """A heap of until when each is booked, with some that are gone or kept longer, without those that are over."""
        self._over: set[DiskId] = set()
        """Those that were over when somebody has asked."""
        for disk in rows.values():
            self._add(disk)

    def booked_gib(self, storage: str, *, is_scratch: bool) -> int:
        """Return the size of all of them together, whenever each is booked."""
        return self._booked_gib[is_scratch].get(storage, 0)

    def most_booked_gib(self, *, is_scratch: bool) -> int:
        """Return the same of the pool of which it is most; looks at all of them."""
        return max(self._booked_gib[is_scratch].values(), default=0)

    def levels(self, storage: str, *, is_scratch: bool) -> Levels:
        """Return how much is booked when in one part of a storage's pool. Not to be changed."""
        pool = storage, is_scratch
        if pool not in self._levels:
            self._levels[pool] = Levels(map(_booked, self._pools.get(pool, {}).values()))
        return self._levels[pool]

    def largest_gib(self) -> int:
        """Return the size of the largest disk; 0 when there is none."""
        return max(self._count_by_gib, default=0)

    def over(self, now: Instant) -> list[DiskId]:
        """Return the disks that are booked for no longer, in the order of their ids."""
        while self._ends and self._ends[0][0] <= now:
            self._over.add(heappop(self._ends)[1])
        if not self._over:
            return []
        for key in [key for key in self._over if key not in self or self[key].until_at > now]:
            self._over.discard(key)
        return sorted(self._over)

    def _set(self, key: DiskId, value: BookedDisk | None) -> None:
        old = self.get(key)
        if old is not None:
            pool = old.storage, old.is_scratch
            del self._pools[pool][key]
            self._booked_gib[old.is_scratch][old.storage] -= old.size_gib
            if pool in self._levels:
                self._levels[pool].add(_booked(old), -1)
            self._count_by_gib[old.size_gib] -= 1
            if not self._count_by_gib[old.size_gib]:
                del self._count_by_gib[old.size_gib]
        super()._set(key, value)
        if value is not None:
            self._add(value)

    def _add(self, disk: BookedDisk) -> None:
        pool = disk.storage, disk.is_scratch
        heappush(self._ends, (disk.until_at, disk.id))
        if len(self._ends) > 64 + 8 * len(self):
            self._ends = [(one.until_at, key) for key, one in self.items()]
            heapify(self._ends)
        self._pools.setdefault(pool, {})[disk.id] = disk
        booked_gib = self._booked_gib[disk.is_scratch]
        booked_gib[disk.storage] = booked_gib.get(disk.storage, 0) + disk.size_gib
        if pool in self._levels:
            self._levels[pool].add(_booked(disk))
        self._count_by_gib[disk.size_gib] = self._count_by_gib.get(disk.size_gib, 0) + 1


def _booked(disk: BookedDisk) -> Booked:
    return disk.from_at, disk.until_at, disk.size_gib
