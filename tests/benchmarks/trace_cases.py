"""Requests for tests of `trace`, and a slow conservative scheduler that is obviously right."""

import random
from collections.abc import Callable, Sequence

from benchmarks.traces import HOST_GPUS, SIZES, Schedule, TraceRequest

Busy = list[tuple[int, int, int]]
"""`[start, end)` and the GPUs, as a mask over all hosts or as a number."""


def requests_of(*rows: tuple[int, int, int, int]) -> tuple[TraceRequest, ...]:
    """Make requests of (submitted, GPUs, runs, asked for)."""
    return tuple(
        TraceRequest(number=number, submit_at=submit_at, gpus=gpus, run_s=run_s, asked_s=asked_s)
        for number, (submit_at, gpus, run_s, asked_s) in enumerate(rows)
    )


def drawn(seed: int, count: int = 25) -> tuple[TraceRequest, ...]:
    """Draw a crowd that asks for too much."""
    draw = random.Random(f"trace/{seed}")
    rows = []
    at = 0
    for _ in range(count):
        at += draw.choice((0, 0, 1, 3))
        run_s = draw.randint(1, 12)
        rows.append((at, draw.choice(SIZES), run_s, run_s + draw.choice((0, 1, 5, 9))))
    return requests_of(*rows)


def fits_fungible(busy: Busy, request: TraceRequest, at: int, hosts: int) -> int | None:
    """Return the number of GPUs if so many are free at each second, or None."""
    seconds = range(at, at + request.asked_s)
    taken = (sum(gpus for start, end, gpus in busy if start <= second < end) for second in seconds)
    return request.gpus if all(gpus + request.gpus <= hosts * HOST_GPUS for gpus in taken) else None


def fits_aligned(busy: Busy, request: TraceRequest, at: int, hosts: int) -> int | None:
    """Return the first free block as a mask over all hosts, or None."""
    used = 0
    for start, end, mask in busy:
        if start < at + request.asked_s and at < end:
            used |= mask
    for first in range(0, hosts * HOST_GPUS, request.gpus):
        block = ((1 << request.gpus) - 1) << first
        if not used & block:
            return block
    return None


def slow_conservative(
    requests: Sequence[TraceRequest],
    hosts: int,
    fits: Callable[[Busy, TraceRequest, int, int], int | None],
    *,
    replans: bool = False,
) -> Schedule:
    """Try each second for each booking, from nothing, whenever somebody ends early."""
    booked: dict[int, tuple[int, int]] = {}
    ends: dict[int, int] = {}
    told_at: list[int] = []

    def busy_but(*others: int) -> Busy:
        return [
            (at, ends.get(number, at + requests[number].asked_s), gpus)
            for number, (at, gpus) in booked.items()
            if number not in others
        ]

    def earliest(request: TraceRequest, now: int, *others: int) -> tuple[int, int]:
        busy = busy_but(request.number, *others)
        at = now
        while (gpus := fits(busy, request, at, hosts)) is None:
            at += 1
        return at, gpus

    for now in range(sum(request.asked_s for request in requests) + requests[-1].submit_at + 1):
        early = [
            number
            for number, (at, _) in booked.items()
            if at + requests[number].run_s == now < at + requests[number].asked_s
        ]
        ends |= dict.fromkeys(early, now)
        if early:
            waiting = [number for number, (at, _) in booked.items() if at > now]
            left = list(waiting)
            for number in waiting:
                new = earliest(requests[number], now, *(left if replans else ()))
                left.remove(number)
                if replans or new[0] < booked[number][0]:
                    booked[number] = new
        for request in requests:
            if request.submit_at == now:
                booked[request.number] = earliest(request, now)
                told_at.append(booked[request.number][0])
    return Schedule(start_at=[booked[request.number][0] for request in requests], told_at=told_at)
