"""Kinds of hosts, as the calendar sees them: a family of GPU sets, and which of them cross.

The calendar numbers everything: hosts in the order in which they were added, sets in the order of the profile's
partitions. Sets are bit masks; bit i is GPU i. Any family of at most 64 sets of at most 64 GPUs will do: aligned blocks
(laminar: of two sets one holds the other, or they are disjoint) or tables whose sets cross.
"""

from collections.abc import Sequence

from scheduler.core.errors import NightshiftError
from scheduler.core.topology import HostProfile

MOST_SETS = 64
MOST_GPUS = 64


class BadKind(NightshiftError):
    """A family of GPU sets that no calendar can be made of."""

    code = "profile.bad_sets"


class Kind:
    """A family of GPU sets. Immutable; hosts of one profile share one."""

    def __init__(self, name: str, masks: Sequence[int]) -> None:
        """Raises BadKind naming the offending set."""
        _check(name, masks)
        self.name = name
        self.masks = tuple(masks)
        self.sizes = tuple(mask.bit_count() for mask in self.masks)
        self.gpus = tuple(tuple(gpu for gpu in range(mask.bit_length()) if mask >> gpu & 1) for mask in self.masks)
        self.gpu_count = max(mask.bit_length() for mask in self.masks)
        numbers = range(len(self.masks))
        self.conflicts = tuple(
            tuple(other for other in numbers if self.masks[other] & self.masks[number]) for number in numbers
        )
        """For each set those that share a GPU with it, itself among them."""
        self.around = tuple(
            tuple(
                sorted(
                    (o for o in self.conflicts[n] if self.sizes[o] > self.sizes[n]), key=lambda o: (self.sizes[o], o)
                )
            )
            for n in numbers
        )
        """For each set the larger ones that booking it breaks up, smallest first."""
        by_size: dict[int, list[int]] = {}
        for number in numbers:
            by_size.setdefault(self.sizes[number], []).append(number)
        self.by_size = {size: tuple(found) for size, found in by_size.items()}


def _check(name: str, masks: Sequence[int]) -> None:
    if not masks:
        raise BadKind(f"{name} has no sets of GPUs; give at least one", profile=name)
    if len(masks) > MOST_SETS:
        raise BadKind(
            f"{name} has {len(masks)} sets of GPUs; give at most {MOST_SETS}", profile=name, partitions=len(masks)
        )
    seen: set[int] = set()
    for number, mask in enumerate(masks):
        if not 0 < mask < 1 << MOST_GPUS:
            raise BadKind(f"set {number} of {name} is {mask:#x}; give 1 to {MOST_GPUS} GPUs", profile=name)
        if mask in seen:
            raise BadKind(f"set {number} of {name} has the same GPUs as an earlier one: {mask:#x}", profile=name)
        seen.add(mask)


def kind_of(profile: HostProfile) -> Kind:
    """Return the kind of a profile: set i is its partition i."""
    return Kind(profile.name, [partition.mask for partition in profile.partitions])


def aligned_kind(gpus: int = 16) -> Kind:
    """Return the aligned blocks of a power of two of GPUs: 31 sets for 16, the largest first."""
    masks = []
    size = gpus
    while size:
        masks += [((1 << size) - 1) << first for first in range(0, gpus, size)]
        size //= 2
    return Kind(f"aligned-{gpus}", masks)
