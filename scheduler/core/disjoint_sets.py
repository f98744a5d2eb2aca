"""Which of some overlapping sets weigh most together, if no two of them may have a member in common.

Holds the search alone: sets are bit masks, weights are numbers. Must not hold what they stand for.
"""

from collections.abc import Iterable, Iterator, Sequence


def heaviest_disjoint(sets: Sequence[tuple[int, int]]) -> tuple[int, tuple[int, ...]]:
    """Return the greatest weight of disjoint sets out of `(mask, weight)`, and the places of some that reach it.

    Each step decides the set that most others overlap with: taken or not. What is left then falls apart into groups
    that have no member in common, and each is decided by itself. Aligned blocks fall apart at once. Crossing sets
    take longer: 64 sets of three out of 64 members, some ten thousand steps.
    """
    # Here, too, bit i is the i-th of the sets.
    overlapping = [
        sum(1 << place for place, (other, _) in enumerate(sets) if place != here and mask & other)
        for here, (mask, _) in enumerate(sets)
    ]
    known: dict[int, tuple[int, int]] = {}

    def best(left: int) -> tuple[int, int]:
        total, taken = 0, 0
        for group in _groups(left, overlapping):
            of_group = best_of_group(group)
            total, taken = total + of_group[0], taken | of_group[1]
        return total, taken

    def best_of_group(group: int) -> tuple[int, int]:
        if group not in known:
            place = max(_places(group), key=lambda place: ((overlapping[place] & group).bit_count(), -place))
            rest = group & ~(1 << place)
            others_total, others_taken = best(rest & ~overlapping[place])
            found = (others_total + sets[place][1], others_taken | 1 << place)
            if rest & overlapping[place]:
                found = max(found, best(rest), key=lambda total_taken: total_taken[0])
            known[group] = found
        return known[group]

    total, taken = best(sum(1 << place for place, (_, weight) in enumerate(sets) if weight > 0))
    return total, tuple(_places(taken))


def _groups(left: int, overlapping: Sequence[int]) -> Iterator[int]:
    """Yield the parts of `left` that have no member in common with each other."""
    while left:
        group, new = 0, left & -left
        while new:
            group |= new
            new = _union(overlapping[place] for place in _places(new)) & left & ~group
        left &= ~group
        yield group


def _places(mask: int) -> Iterator[int]:
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def _union(masks: Iterable[int]) -> int:
    together = 0
    for mask in masks:
        together |= mask
    return together
