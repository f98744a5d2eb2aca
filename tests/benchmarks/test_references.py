"""The reference schedulers: by hand on a few requests, and against one that tries every second."""

import pytest

from benchmarks.aligned import easy as aligned_easy
from benchmarks.aligned import fcfs as aligned_fcfs
from benchmarks.aligned_conservative import conservative as aligned_conservative
from benchmarks.fungible import conservative, conservative_replanned, easy
from benchmarks.references import REFERENCES
from benchmarks.traces import HOST_GPUS, TraceRequest
from tests.benchmarks.trace_cases import drawn, fits_aligned, fits_fungible, requests_of, slow_conservative

SEEDS = range(15)
IN_THE_WAY = requests_of((0, 8, 50, 100), (0, 8, 60, 60), (1, 16, 50, 50), (2, 8, 30, 30))
"""The first ends at 50 instead of 100: the third could start at 60, were the fourth not told that it does."""
BLOCKED = requests_of((0, 4, 100, 100), (0, 4, 10, 10), (0, 4, 100, 100), (0, 4, 10, 10), (1, 8, 5, 5), (2, 4, 20, 20))
"""From 10 on 8 GPUs are free, of two blocks of 8."""


def test_bookings_move_up_at_an_early_end_in_the_order_of_submission_and_none_goes_back() -> None:
    found = conservative(IN_THE_WAY, 1)
    assert (found.told_at, found.start_at) == ([0, 0, 100, 60], [0, 0, 90, 50])


def test_planning_all_anew_at_an_early_end_breaks_what_was_told() -> None:
    found = conservative_replanned(IN_THE_WAY, 1)
    assert (found.told_at, found.start_at) == ([0, 0, 100, 60], [0, 0, 60, 110])


def test_exact_conservative_tells_what_comes() -> None:
    found = REFERENCES["conservative_exact"](IN_THE_WAY, 1)
    assert (found.told_at, found.start_at) == ([0, 0, 60, 110], [0, 0, 60, 110])


def test_easy_lets_nobody_delay_the_first_of_the_queue() -> None:
    assert easy(IN_THE_WAY, 1).start_at == [0, 0, 60, 110]


def test_easy_fills_in_who_is_over_by_then_and_who_needs_only_what_is_spare() -> None:
    running, head = (0, 12, 100, 100), (1, 8, 10, 10)
    is_over, is_too_long, is_spare = (2, 2, 98, 98), (3, 4, 98, 98), (4, 2, 500, 500)
    found = easy(requests_of(running, head, is_over, is_too_long, is_spare), 1)
    assert found.start_at == [0, 100, 2, 100, 4]


def test_easy_gives_away_what_is_spare_only_once() -> None:
    soon, late = ((0, gpus, 100, 100) for gpus in (8, 4, 2)), ((0, gpus, 900, 900) for gpus in (8, 4, 2))
    # Of the 4 that are free now, the first of the queue leaves 2 at 100.
    found = easy(requests_of(*soon, *late, (1, 16, 10, 10), (2, 2, 500, 500), (2, 2, 500, 500)), 2)
    assert found.start_at[6:] == [100, 2, 110]


def test_easy_reserves_by_what_was_asked_for_and_starts_when_it_ends() -> None:
    assert easy(requests_of((0, 16, 50, 100), (1, 16, 10, 10), (2, 16, 10, 10)), 1).start_at == [0, 50, 60]


def test_free_gpus_of_two_blocks_are_no_block() -> None:
    assert conservative(BLOCKED, 1).start_at == [0, 0, 0, 0, 10, 10 + 5]
    assert aligned_conservative(BLOCKED, 1).start_at == [0, 0, 0, 0, 100, 10]
    assert aligned_fcfs(BLOCKED, 1).start_at == [0, 0, 0, 0, 100, 100]
    assert aligned_easy(BLOCKED, 1).start_at == [0, 0, 0, 0, 100, 10]


def test_aligned_easy_lets_nobody_onto_the_kept_block_who_is_not_over_by_then() -> None:
    running, head = (0, 8, 100, 100), (1, 16, 10, 10)
    found = aligned_easy(requests_of(running, head, (2, 1, 99, 99), (3, 1, 97, 97)), 1)
    assert found.start_at == [0, 100, 110, 3]


def test_aligned_easy_puts_the_small_beside_the_small() -> None:
    # First fit would put the last but one on GPU 8, where it stands in the way of the 8.
    rows = ((0, 8, 10, 10), (0, 1, 100, 100), (10, 1, 100, 100), (11, 8, 100, 100))
    assert aligned_easy(requests_of(*rows), 1).start_at == [0, 0, 10, 11]
    assert aligned_fcfs(requests_of(*rows), 1).start_at == [0, 0, 10, 100]


def test_aligned_easy_fills_the_fuller_host() -> None:
    # From 10 on the first host has 8 free and the second one has 1.
    first, second = ((0, 8, 99, 99), (0, 8, 10, 10)), ((0, gpus, 99, 99) for gpus in (8, 4, 2, 1))
    assert aligned_easy(requests_of(*first, *second, (11, 1, 50, 50), (12, 8, 50, 50)), 2).start_at[6:] == [11, 12]


def test_aligned_bookings_move_up_at_an_early_end() -> None:
    found = aligned_conservative(requests_of((0, 16, 30, 100), (1, 8, 10, 20), (2, 16, 10, 10)), 1)
    assert (found.told_at, found.start_at) == ([0, 100, 120], [0, 30, 40])


@pytest.mark.parametrize("seed", SEEDS)
def test_fungible_conservative_is_what_trying_every_second_finds(seed: int) -> None:
    for hosts in (1, 2):
        assert conservative(drawn(seed), hosts) == slow_conservative(drawn(seed), hosts, fits_fungible)


@pytest.mark.parametrize("seed", SEEDS)
def test_aligned_conservative_is_what_trying_every_second_finds(seed: int) -> None:
    for hosts in (1, 2):
        assert aligned_conservative(drawn(seed), hosts) == slow_conservative(drawn(seed), hosts, fits_aligned)


@pytest.mark.parametrize("seed", SEEDS)
def test_planning_anew_is_what_trying_every_second_finds(seed: int) -> None:
    for hosts in (1, 2):
        slow = slow_conservative(drawn(seed), hosts, fits_fungible, replans=True)
        assert conservative_replanned(drawn(seed), hosts) == slow


@pytest.mark.parametrize("name", REFERENCES)
def test_no_reference_uses_more_than_there_is_nor_starts_before_the_submission(name: str) -> None:
    for seed in range(40):
        requests = drawn(seed, count=60)
        found = REFERENCES[name](requests, 2)
        assert most_at_once(requests, found.start_at) <= 2 * HOST_GPUS
        assert all(at >= request.submit_at for at, request in zip(found.start_at, requests, strict=True))


@pytest.mark.parametrize("reference", [conservative, aligned_conservative])
def test_nobody_starts_later_than_told(reference: type) -> None:
    for seed in range(60):
        found = reference(drawn(seed, count=60), 2)
        assert all(at <= told for at, told in zip(found.start_at, found.told_at, strict=True))


def test_replanning_does_break_promises_of_a_crowd() -> None:
    found = [conservative_replanned(drawn(seed, count=60), 2) for seed in range(60)]
    assert any(at > told for one in found for at, told in zip(one.start_at, one.told_at or [], strict=True))


@pytest.mark.parametrize("name", REFERENCES)
def test_with_nobody_there_is_nothing_to_do(name: str) -> None:
    assert REFERENCES[name]((), 1).start_at == []


def most_at_once(requests: tuple[TraceRequest, ...], start_at: list[int]) -> int:
    """Return the most GPUs that are in use at any time."""
    changes = []
    for request, at in zip(requests, start_at, strict=True):
        changes += [(at, request.gpus), (at + request.run_s, -request.gpus)]
    used = most = 0
    for _, change in sorted(changes):
        used += change
        most = max(most, used)
    return most
