"""Reference schedulers on fungible GPUs: any free GPUs of the cluster will do, and nothing is ever moved.

Instants are open time. At one instant ends come first, then starts that are due, then requests that are submitted.
"""

from collections import deque
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from itertools import accumulate

from benchmarks.free_gpus import NEVER, Bounds, Profile
from benchmarks.traces import HOST_GPUS, Schedule, TraceRequest


class _Conservative:
    """Conservative backfilling: everybody has a booking from submission on."""

    def __init__(self, requests: Sequence[TraceRequest], hosts: int) -> None:
        self.requests = requests
        self.now = min((request.submit_at for request in requests), default=0)
        self.gpus = hosts * HOST_GPUS
        self.plan = Profile(self.gpus, self.now)
        self.booked_at: dict[int, int] = {}
        """Of those who have not started, in the order of submission."""
        self.due: list[tuple[int, int]] = []
        """When bookings start; those that have moved since are still in it."""
        self.early_ends: list[tuple[int, int]] = []
        self.start_at = [0] * len(requests)
        self.told_at = [0] * len(requests)

    def run(self) -> Schedule:
        requests, due, ends = self.requests, self.due, self.early_ends
        submitted, total = 0, len(requests)
        while submitted < total or self.booked_at:
            self.now = now = min(
                requests[submitted].submit_at if submitted < total else NEVER,
                due[0][0] if due else NEVER,
                ends[0][0] if ends else NEVER,
            )
            self.plan.advance(now)
            ended = []
            while ends and ends[0][0] == now:
                ended.append(heappop(ends)[1])
            self.start_due()
            if ended:
                self.end_early(ended)
                self.start_due()
            while submitted < total and requests[submitted].submit_at == now:
                self.submit(requests[submitted])
                submitted += 1
        return Schedule(start_at=self.start_at, told_at=self.told_at)

    def submit(self, request: TraceRequest) -> None:
        at = self.plan.earliest(request.gpus, request.asked_s, self.now)
        self.plan.take(request.gpus, at, at + request.asked_s)
        self.told_at[request.number] = at
        if at == self.now:
            self.start(request)
        else:
            self.booked_at[request.number] = at
            heappush(self.due, (at, request.number))

    def start_due(self) -> None:
        while self.due and self.due[0][0] <= self.now:
            at, number = heappop(self.due)
            if self.booked_at.get(number) == at:
                del self.booked_at[number]
                self.start(self.requests[number])

    def start(self, request: TraceRequest) -> None:
        self.start_at[request.number] = self.now
        if request.run_s < request.asked_s:
            heappush(self.early_ends, (self.now + request.run_s, request.number))

    def end_early(self, ended: Sequence[int]) -> None:
        raise NotImplementedError


class _Monotone(_Conservative):
    """At an early end bookings move up in the order of submission, one at a time, never later."""

    def __init__(self, requests: Sequence[TraceRequest], hosts: int) -> None:
        super().__init__(requests, hosts)
        self.freed_until: list[int] = []
        """The ends of what was given back since bookings began to move up last."""
        self.seen = [0] * len(requests)
        """How many of these there were when a booking was made or tried last: it can only win where more was freed."""

    def submit(self, request: TraceRequest) -> None:
        super().submit(request)
        self.seen[request.number] = len(self.freed_until)

    def end_early(self, ended: Sequence[int]) -> None:
        plan, seen, now = self.plan, self.seen, self.now
        unseen_until = _last_maxima(self.freed_until)
        self.freed_until = freed_until = []
        for number in ended:
            request = self.requests[number]
            freed_until.append(self.start_at[number] + request.asked_s)
            plan.take(-request.gpus, now, freed_until[-1])
        latest_at = max(freed_until)
        for number, at in self.booked_at.items():
            request = self.requests[number]
            until_at = min(at, max(latest_at, unseen_until[seen[number]]))
            earlier_at = plan.earlier(request.gpus, request.asked_s, at, until_at)
            if earlier_at is not None:
                plan.move(request.gpus, request.asked_s, at, earlier_at)
                self.booked_at[number] = earlier_at
                heappush(self.due, (earlier_at, number))
                freed_until.append(at + request.asked_s)
                latest_at = max(latest_at, freed_until[-1])
            seen[number] = len(freed_until)


def _last_maxima(values: Sequence[int]) -> list[int]:
    """Return the maximum of the values from each on, and 0 after the last; none is negative."""
    return list(accumulate(reversed(values), max, initial=0))[::-1]


class _Replanned(_Conservative):
    """At an early end all bookings are made anew in the order of submission: some come later than they were told."""

    def __init__(self, requests: Sequence[TraceRequest], hosts: int) -> None:
        super().__init__(requests, hosts)
        self.running = Profile(self.gpus, self.now)

    def start(self, request: TraceRequest) -> None:
        super().start(request)
        self.running.advance(self.now)
        self.running.take(request.gpus, self.now, self.now + request.asked_s)

    def end_early(self, ended: Sequence[int]) -> None:
        requests, now = self.requests, self.now
        self.running.advance(now)
        for number in ended:
            self.running.take(-requests[number].gpus, now, self.start_at[number] + requests[number].asked_s)
        self.plan = plan = self.running.copy()
        bounds = Bounds(now)
        for number in self.booked_at:
            request = requests[number]
            at = plan.earliest(request.gpus, request.asked_s, bounds.of(request.gpus, request.asked_s))
            plan.take(request.gpus, at, at + request.asked_s)
            bounds.add(request.gpus, request.asked_s, at)
            self.booked_at[number] = at
        self.due[:] = [(at, number) for number, at in self.booked_at.items()]
        heapify(self.due)


def conservative(requests: Sequence[TraceRequest], hosts: int) -> Schedule:
    """Run the reference: nobody starts later than told."""
    return _Monotone(requests, hosts).run()


def conservative_replanned(requests: Sequence[TraceRequest], hosts: int) -> Schedule:
    return _Replanned(requests, hosts).run()


def easy(requests: Sequence[TraceRequest], hosts: int) -> Schedule:
    """Run EASY backfilling: only the first of the queue has a reservation, by what the running ones asked for."""
    free = hosts * HOST_GPUS
    start_at = [0] * len(requests)
    queue: deque[TraceRequest] = deque()
    ends: list[tuple[int, int]] = []
    asked_until: dict[int, int] = {}
    submitted, total = 0, len(requests)

    def start(request: TraceRequest, now: int) -> None:
        nonlocal free
        free -= request.gpus
        start_at[request.number] = now
        asked_until[request.number] = now + request.asked_s
        heappush(ends, (now + request.run_s, request.number))

    while submitted < total or queue:
        now = min(requests[submitted].submit_at if submitted < total else NEVER, ends[0][0] if ends else NEVER)
        while ends and ends[0][0] == now:
            number = heappop(ends)[1]
            free += requests[number].gpus
            del asked_until[number]
        while submitted < total and requests[submitted].submit_at == now:
            queue.append(requests[submitted])
            submitted += 1
        while queue and queue[0].gpus <= free:
            start(queue.popleft(), now)
        if not queue or not free:
            continue
        head = queue[0]
        # The first can start at shadow_at, and leaves some spare then.
        spare, shadow_at = free - head.gpus, now
        for until_at, number in sorted((until_at, number) for number, until_at in asked_until.items()):
            if spare >= 0 and until_at > shadow_at:
                break
            spare, shadow_at = spare + requests[number].gpus, until_at
        started = set()
        for request in queue:
            if request is head or request.gpus > free:
                continue
            is_over_by_then = now + request.asked_s <= shadow_at
            if is_over_by_then or request.gpus <= spare:
                spare -= 0 if is_over_by_then else request.gpus
                start(request, now)
                started.add(request.number)
                if not free:
                    break
        if started:
            queue = deque(request for request in queue if request.number not in started)
    return Schedule(start_at=start_at, told_at=None)
