"""Levels over time, held to adding up what is booked at each instant."""

import random

import pytest

from scheduler.core.planner.pool_levels import Booked, Levels
from scheduler.core.spans import FOREVER, Instant

LAST = 60


@pytest.mark.parametrize("seed", range(60))
def test_levels_are_what_is_booked_at_each_instant(seed: int) -> None:
    chance = random.Random(seed)
    booked = [_booking(chance) for _ in range(chance.randrange(9))]
    levels = Levels(booked)
    for _ in range(60):
        if booked and chance.random() < 0.45:
            levels.add(booked.pop(chance.randrange(len(booked))), -1)
        else:
            booked.append(_booking(chance))
            levels.add(booked[-1])
        by_instant = {at: sum(much for start, end, much in booked if start <= at < end) for at in range(-3, LAST)}
        start_at, most, length_s = chance.randrange(-2, 30), chance.randrange(-1, 12), chance.randrange(1, 12)
        ahead = range(start_at, LAST - length_s)
        assert levels.peak(start_at, start_at + length_s) == max(by_instant[at] for at in ahead[:length_s])
        over = (at for at in ahead if by_instant[at] > most)
        assert levels.first_over(most, start_at) == next(over, FOREVER)
        room = (at for at in ahead if all(by_instant[n] <= most for n in range(at, at + length_s)))
        assert levels.first_room(most, start_at, length_s) == next(room, FOREVER)
    for one in booked:
        levels.add(one, -1)
    assert levels.peak(-5, FOREVER) == 0, "nothing is left"


def _booking(chance: random.Random) -> Booked:
    start_at: Instant = chance.randrange(30)
    return start_at, start_at + chance.randrange(12), chance.randrange(4)
