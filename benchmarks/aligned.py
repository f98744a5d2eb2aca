"""Reference schedulers on aligned blocks that keep no plan: k GPUs are a block of k on one host, and nothing is moved.

Instants are open time. At one instant ends come first, then requests that are submitted.
"""

from collections import deque
from collections.abc import Sequence
from functools import cache
from heapq import heappop, heappush

from benchmarks.free_gpus import NEVER
from benchmarks.traces import HOST_GPUS, SIZES, Schedule, TraceRequest

BLOCKS = {size: tuple(((1 << size) - 1) << first for first in range(0, HOST_GPUS, size)) for size in SIZES}
"""Masks of GPUs by size."""


@cache
def _best_block(used: int, size: int) -> tuple[int, int] | None:
    """Return the free block in the smallest free buddy, and that one's size; of equals the lowest."""
    best: tuple[int, int] | None = None
    for block in BLOCKS[size]:
        if used & block:
            continue
        buddy = max(whole for whole in SIZES if any(mask & block and not mask & used for mask in BLOCKS[whole]))
        if best is None or buddy < best[0]:
            best = (buddy, block)
    return best


class _Running:
    """What runs where, for schedulers that keep no plan."""

    def __init__(self, requests: Sequence[TraceRequest], hosts: int) -> None:
        self.requests = requests
        self.used = [0] * hosts
        self.asked_until = [[0] * HOST_GPUS for _ in range(hosts)]
        """By host and GPU; of those that are free it says nothing."""
        self.place: dict[int, tuple[int, int]] = {}
        self.ends: list[tuple[int, int]] = []
        self.start_at = [0] * len(requests)

    def start(self, request: TraceRequest, now: int, place: tuple[int, int]) -> None:
        host, block = place
        self.used[host] |= block
        self.place[request.number] = place
        self.start_at[request.number] = now
        for gpu in _gpus(block):
            self.asked_until[host][gpu] = now + request.asked_s
        heappush(self.ends, (now + request.run_s, request.number))

    def end(self, now: int) -> None:
        while self.ends and self.ends[0][0] == now:
            host, block = self.place.pop(heappop(self.ends)[1])
            self.used[host] &= ~block

    def first_place(self, size: int) -> tuple[int, int] | None:
        for host, used in enumerate(self.used):
            for block in BLOCKS[size]:
                if not used & block:
                    return host, block
        return None

    def best_place(self, size: int, but: tuple[int, int] = (-1, 0)) -> tuple[int, int] | None:
        """Return the best fit, off a block of a host that is kept free."""
        best: tuple[int, int, int] | None = None
        for host, used in enumerate(self.used):
            found = _best_block(used | but[1] if host == but[0] else used, size)
            if found is not None and (best is None or found[0] < best[0]):
                best = (found[0], host, found[1])
                if found[0] == size:
                    break
        return None if best is None else best[1:]

    def shadow(self, size: int) -> tuple[int, tuple[int, int]]:
        """Return when a block is free by what was asked for, if none is now; and which."""
        return min(
            (max(until_at[gpu] for gpu in _gpus(block) if used >> gpu & 1), (host, block))
            for host, (used, until_at) in enumerate(zip(self.used, self.asked_until, strict=True))
            for block in BLOCKS[size]
        )


@cache
def _gpus(block: int) -> tuple[int, ...]:
    return tuple(gpu for gpu in range(HOST_GPUS) if block >> gpu & 1)


def fcfs(requests: Sequence[TraceRequest], hosts: int) -> Schedule:
    """Run first come, first served, on the first free block: nobody overtakes."""
    running = _Running(requests, hosts)
    queue: deque[TraceRequest] = deque()
    submitted = 0
    while submitted < len(requests) or queue:
        now = _next(requests, submitted, running.ends)
        running.end(now)
        while submitted < len(requests) and requests[submitted].submit_at == now:
            queue.append(requests[submitted])
            submitted += 1
        while queue and (place := running.first_place(queue[0].gpus)) is not None:
            running.start(queue.popleft(), now, place)
    return Schedule(start_at=running.start_at, told_at=None)


def easy(requests: Sequence[TraceRequest], hosts: int) -> Schedule:
    """Run EASY backfilling, best fit: only the first of the queue has a reservation, of the block free soonest."""
    running = _Running(requests, hosts)
    queue: deque[TraceRequest] = deque()
    submitted = 0
    while submitted < len(requests) or queue:
        now = _next(requests, submitted, running.ends)
        running.end(now)
        while submitted < len(requests) and requests[submitted].submit_at == now:
            queue.append(requests[submitted])
            submitted += 1
        while queue and (place := running.best_place(queue[0].gpus)) is not None:
            running.start(queue.popleft(), now, place)
        if len(queue) > 1:
            started = _backfill(running, queue, now)
            if started:
                queue = deque(request for request in queue if request.number not in started)
    return Schedule(start_at=running.start_at, told_at=None)


def _backfill(running: _Running, queue: deque[TraceRequest], now: int) -> set[int]:
    """Start whoever does not delay the first of the queue, which cannot start."""
    head = queue[0]
    shadow_at, kept = running.shadow(head.gpus)
    # No block of that size or larger is free any more: to those that are over by then, and to the others.
    none_from = {True: head.gpus, False: head.gpus}
    started: set[int] = set()
    for request in queue:
        is_over_by_then = now + request.asked_s <= shadow_at
        if request.gpus >= none_from[is_over_by_then]:
            continue
        place = running.best_place(request.gpus, (-1, 0) if is_over_by_then else kept)
        if place is not None:
            running.start(request, now, place)
            started.add(request.number)
        else:
            none_from[is_over_by_then] = request.gpus
            if is_over_by_then:
                none_from[False] = min(none_from[False], request.gpus)
            if none_from[True] == SIZES[0]:
                break
    return started


def _next(requests: Sequence[TraceRequest], submitted: int, ends: list[tuple[int, int]]) -> int:
    return min(requests[submitted].submit_at if submitted < len(requests) else NEVER, ends[0][0] if ends else NEVER)
