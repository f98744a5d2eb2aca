"""A batch to plan, drawn by seed: what runs already, what is asked for, and what is booked ahead.

Sizes 1, 2, 4, 8 and 16 as 60, 10, 10, 14 and 6 of a hundred; limits of half an hour to 12 hours; every host busy with
one job of 16 GPUs whose limits are staggered. Instants are seconds from the batch's beginning. Must not know who plans.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.peers.peer import GPUS

HOUR_S = 3600
SIZES = (1, 2, 4, 8, 16)
WEIGHTS = (60, 10, 10, 14, 6)
LIMITS_S = tuple(HOUR_S * halves // 2 for halves in (1, 2, 4, 8, 16, 24))
BUSY_S = (HOUR_S // 2, 12 * HOUR_S)
"""The first and the last end of what runs already."""
AHEAD_S = 24 * HOUR_S
"""What is booked ahead begins this late or later: what runs has ended, and no peer has to end it."""
LEAST_AHEAD_S = 14 * 24 * HOUR_S
BOOKED_PART = 0.3
"""Of all GPU time between the first and the last advance reservation, at most."""
_STEP_S = HOUR_S // 2
_DRAWS = 1_000
_ROUNDS = 20


class DoesNotFit(Exception):
    """No room was found for an advance reservation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Everything that a planner is given."""

    hosts: int
    occupied: tuple[tuple[int, int], ...]
    """`(host, until_s)`: all 16 GPUs of the host."""
    requests: tuple[tuple[int, int], ...]
    """`(gpus, run_s)`, in the order of submission, all at 0."""
    reservations: tuple[tuple[int, int, int], ...]
    """`(start_s, gpus, run_s)`: by start; all fit on aligned blocks, largest first."""


def make_batch(*, hosts: int, requests: int, reservations: int = 0, seed: int = 1) -> Batch:
    """Return the batch of a seed; the requests do not depend on how many reservations there are."""
    first_s, last_s = BUSY_S
    minutes = [(first_s + (last_s - first_s) * host // max(1, hosts - 1)) // 60 for host in range(hosts)]
    asked = random.Random(f"plan/requests/{seed}")
    return Batch(
        hosts=hosts,
        occupied=tuple((host, minute * 60) for host, minute in enumerate(minutes)),
        requests=tuple(_draw(asked) for _ in range(requests)),
        reservations=_reservations(hosts, reservations, random.Random(f"plan/reservations/{seed}")),
    )


def _draw(draw: random.Random) -> tuple[int, int]:
    return draw.choices(SIZES, WEIGHTS)[0], draw.choice(LIMITS_S)


def _reservations(hosts: int, count: int, draw: random.Random) -> tuple[tuple[int, int, int], ...]:
    """Draw sizes and limits, then instants at which all have room; over longer and longer if they have not."""
    asked = [_draw(draw) for _ in range(count)]
    gpu_s = sum(gpus * run_s for gpus, run_s in asked)
    over_s = max(LEAST_AHEAD_S, gpu_s / (BOOKED_PART * GPUS * hosts))
    for _ in range(_ROUNDS):
        booked = _spread(hosts, asked, int(over_s) // _STEP_S, draw)
        if booked is not None:
            return tuple(sorted(booked))
        over_s *= 1.25
    raise DoesNotFit(f"no room for {count} reservations on {hosts} hosts within {over_s / 24 / HOUR_S:.0f} days")


def _spread(
    hosts: int, asked: Sequence[tuple[int, int]], steps: int, draw: random.Random
) -> list[tuple[int, int, int]] | None:
    busy = [[0] * (steps + max(LIMITS_S) // _STEP_S) for _ in range(hosts)]
    booked = []
    # What is largest has the fewest places.
    for gpus, run_s in sorted(asked, reverse=True):
        for _ in range(_DRAWS):
            step = draw.randrange(steps)
            if _book(busy, step, gpus, run_s // _STEP_S):
                booked.append((AHEAD_S + step * _STEP_S, gpus, run_s))
                break
        else:
            return None
    return booked


def _book(busy: list[list[int]], begin: int, gpus: int, steps: int) -> bool:
    """Take the first aligned block that is free for so many steps, if there is one."""
    block = (1 << gpus) - 1
    for host in busy:
        taken = 0
        for at in range(begin, begin + steps):
            taken |= host[at]
        for first in range(0, GPUS, gpus):
            if not taken & block << first:
                for at in range(begin, begin + steps):
                    host[at] |= block << first
                return True
    return False
