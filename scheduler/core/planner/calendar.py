"""The calendar: which GPUs of which host are booked when, and where a partition is free.

One sorted list of disjoint busy spans for each GPU, so a double booking cannot be entered at all. Earliest fit hops
from conflict to conflict: its cost grows with the number of bookings on the partition's GPUs between the asked and the
found start, not with all bookings. Knows nothing of requests, windows or promises.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable

from scheduler.core.errors import BrokenInvariant
from scheduler.core.requests import HostId
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile, Partition, PartitionId


class HostCalendar:
    """The bookings of one host. Mutable: it lives inside one planning step."""

    def __init__(self, host: HostId, profile: HostProfile) -> None:
        self.host = host
        self.profile = profile
        self._starts: list[list[Instant]] = [[] for _ in profile.gpus]
        self._ends: list[list[Instant]] = [[] for _ in profile.gpus]
        self._around: dict[PartitionId, tuple[int, ...]] = {}

    def add(self, partition: Partition, start_at: Instant, end_at: Instant) -> None:
        """Book a partition for `[start_at, end_at)`. Raises BrokenInvariant when any GPU of it is booked then."""
        conflict = self.conflict(partition, start_at, end_at)
        if conflict is not None:
            raise BrokenInvariant(
                f"{partition.id} of {self.host} is already booked in [{start_at}, {end_at}) until {conflict}",
                host=self.host,
                partition=partition.id,
            )
        for gpu in partition.gpus:
            insort(self._starts[gpu], start_at)
            insort(self._ends[gpu], end_at)

    def remove(self, partition: Partition, start_at: Instant, end_at: Instant) -> None:
        """Take a booking out again; it must be there."""
        for gpu in partition.gpus:
            at = bisect_left(self._starts[gpu], start_at)
            if at >= len(self._starts[gpu]) or self._starts[gpu][at] != start_at or self._ends[gpu][at] != end_at:
                raise BrokenInvariant(f"{partition.id} of {self.host} has no booking [{start_at}, {end_at})")
            del self._starts[gpu][at]
            del self._ends[gpu][at]

    def conflict(self, partition: Partition, start_at: Instant, end_at: Instant) -> Instant | None:
        """Return an instant before which the partition cannot be free for this long, or None when it is free now."""
        latest: Instant | None = None
        for gpu in partition.gpus:
            ends = self._ends[gpu]
            at = bisect_right(ends, start_at)
            if at < len(ends) and self._starts[gpu][at] < end_at and (latest is None or ends[at] > latest):
                latest = ends[at]
        return latest

    def free_until(self, partition: Partition, from_at: Instant) -> Instant | None:
        """Return when the partition is next booked at or after `from_at`; None when it never is."""
        earliest: Instant | None = None
        for gpu in partition.gpus:
            at = bisect_right(self._ends[gpu], from_at)
            if at < len(self._starts[gpu]):
                start_at = max(self._starts[gpu][at], from_at)
                earliest = start_at if earliest is None else min(earliest, start_at)
        return earliest

    def busy_mask(self, instant: Instant) -> int:
        """Return the GPUs booked at an instant, as a bit mask."""
        mask = 0
        for gpu, ends in enumerate(self._ends):
            at = bisect_right(ends, instant)
            if at < len(ends) and self._starts[gpu][at] <= instant:
                mask |= 1 << gpu
        return mask

    def crowding(self, partition: Partition, busy: int) -> tuple[int, ...]:
        """Return how full the partitions around this one are, smallest first: book where least is broken up.

        `busy` is the mask of the GPUs that are booked.
        """
        if partition.id not in self._around:
            around = (p for p in self.profile.partitions if p.size > partition.size and p.mask & partition.mask)
            self._around[partition.id] = tuple(p.mask for p in sorted(around, key=lambda p: p.size))
        return tuple((mask & busy).bit_count() for mask in self._around[partition.id])


class Calendar:
    """The bookings of all hosts."""

    def __init__(self, hosts: Iterable[tuple[HostId, HostProfile]]) -> None:
        self.by_host = {host: HostCalendar(host, profile) for host, profile in hosts}
