"""The heaviest of some sets that may not overlap: what trying everything finds, also where sets cross."""

from collections.abc import Sequence
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.disjoint_sets import heaviest_disjoint

Sets = Sequence[tuple[int, int]]


def are_disjoint(sets: Sets) -> bool:
    return not any(one & other for (one, _), (other, _) in combinations(sets, 2))


def heaviest_by_trying(sets: Sets) -> int:
    choices = (chosen for count in range(len(sets) + 1) for chosen in combinations(sets, count))
    return max(sum(weight for _, weight in chosen) for chosen in choices if are_disjoint(chosen))


@given(st.lists(st.tuples(st.integers(1, 255), st.integers(-3, 50)), max_size=9))
def test_it_is_what_trying_everything_finds(sets: list[tuple[int, int]]) -> None:
    total, places = heaviest_disjoint(sets)
    chosen = [sets[place] for place in places]
    assert are_disjoint(chosen)
    assert total == sum(weight for _, weight in chosen) == heaviest_by_trying(sets)


def test_of_nothing_it_is_nothing() -> None:
    assert heaviest_disjoint([]) == (0, ())
    assert heaviest_disjoint([(3, 0), (5, -1)]) == (0, ())


def test_crossing_sets_of_many_members_are_decided_too() -> None:
    # By members there are 2^32 cases here: 32 pairs, each far from its other half, and 31 sets that chain them up.
    pairs = [(1 << low | 1 << (low + 32), 3) for low in range(32)]
    chain = [(1 << low | 1 << (low + 33), 4) for low in range(31)]
    total, places = heaviest_disjoint(pairs + chain)
    # The whole chain leaves GPUs 31 and 32 to no pair; 32 pairs weigh less.
    assert total == 31 * 4
    assert places == tuple(range(32, 63))
