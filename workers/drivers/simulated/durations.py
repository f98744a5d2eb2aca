"""How long things take on a simulated host: seeded, by size, and within the profile's bounds.

A duration is drawn from (seed, verb, subject, attempt) alone, so a run is the same whatever else happens around it. The
spread is what such machines show: mostly near the short end, with a tail. Faults go past bounds; durations never do.
"""

import math
from dataclasses import dataclass
from hashlib import blake2b

from scheduler.core.topology import HostProfile

START_S = ((1, 12, 40), (2, 16, 55), (4, 24, 80), (8, 40, 110), (16, 60, 150))
"""(GPUs, shortest, longest): VFIO pins all of the guest's memory first."""
BOOT_S = (20, 60)
BOOT_WHOLE_S = (40, 90)
"""Of 16 GPUs and more."""
SHUTDOWN_S = (11, 90)
"""From the asking to the end at the latest; the closing is drawn apart, so it may be 3 s less."""
CLOSE_S = (1, 4)
"""From the guest's power-off to the end of its process, at the end of a shutdown."""
DESTROY_S = (2, 6)
RESET_S = (3, 12)
DELETE_S = (1, 5)
COPY_S = (5, 60)

_FINEST = 1 << 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What a duration is drawn from."""

    seed: int
    verb: str
    subject: str
    attempt: int

    def within(self, shortest_s: int, longest_s: int) -> int:
        """Return whole seconds in `[shortest_s, longest_s]`, more often short than long."""
        key = f"{self.seed}/{self.verb}/{self.subject}/{self.attempt}".encode()
        drawn = int.from_bytes(blake2b(key, digest_size=6).digest(), "big")
        # The square of an even draw, in integers: the same everywhere.
        return shortest_s + (longest_s - shortest_s + 1) * drawn * drawn // (_FINEST * _FINEST)


def _bounded(shortest_s: int, longest_s: int, bound_s: int) -> tuple[int, int]:
    longest_s = max(1, min(longest_s, bound_s))
    return min(shortest_s, longest_s), longest_s


def _start_range(gpus: int) -> tuple[int, int]:
    below = max((row for row in START_S if row[0] <= gpus), default=START_S[0])
    above = min((row for row in START_S if row[0] >= gpus), default=START_S[-1])
    if below == above or below[0] >= above[0]:
        return below[1], below[2]
    part = math.log2(gpus / below[0]) / math.log2(above[0] / below[0])
    return tuple(round(low + (high - low) * part) for low, high in zip(below[1:], above[1:], strict=True))  # type: ignore[return-value]


def _copy_bound_s(profile: HostProfile) -> int:
    # A start's bound covers copying the disk, starting and booting; a copy may have a third of the tightest one.
    return min((bound_s for _, bound_s in profile.bounds.start_s_by_size), default=3 * COPY_S[1]) // 3


def copy_s(draw: Draw, profile: HostProfile, *, size_gib: int) -> int:
    """Return how long it takes to make a disk from an image and grow it to its size."""
    shortest_s, longest_s = _bounded(*COPY_S, _copy_bound_s(profile))
    longest_s = min(longest_s, shortest_s + 10 + size_gib // 20)
    return draw.within(min(longest_s, shortest_s + size_gib // 100), longest_s)


def boot_s(draw: Draw, profile: HostProfile, *, gpus: int) -> int:
    """Return how long a guest boots after its domain runs."""
    bound_s = _start_bound_s(profile, gpus)
    return draw.within(*_bounded(*(BOOT_WHOLE_S if gpus >= 16 else BOOT_S), bound_s // 3))


def start_s(draw: Draw, profile: HostProfile, *, gpus: int) -> int:
    """Return how long it takes until a domain runs; with the copy and the boot it is within the profile's bound."""
    bound_s = _start_bound_s(profile, gpus)
    left_s = bound_s - min(bound_s // 3, (BOOT_WHOLE_S if gpus >= 16 else BOOT_S)[1])
    left_s -= min(COPY_S[1], _copy_bound_s(profile))
    return draw.within(*_bounded(*_start_range(gpus), left_s))


def destroy_s(draw: Draw, profile: HostProfile) -> int:
    """Return how long it takes to cut a domain's power."""
    return draw.within(*_bounded(*DESTROY_S, profile.bounds.destroy_s))


def reset_s(draw: Draw, profile: HostProfile) -> int:
    """Return how long a device's reset takes."""
    return draw.within(*_bounded(*RESET_S, profile.bounds.reset_s))


def _start_bound_s(profile: HostProfile, gpus: int) -> int:
    sizes = profile.bounds.start_s_by_size
    # A foreign or ill-defined domain may have a size that the profile does not foresee: take the next larger one.
    return next((bound_s for size, bound_s in sorted(sizes) if size >= gpus), max(bound_s for _, bound_s in sizes))
