"""Conservative backfilling on aligned blocks, a reference: all have a booking from submission on; nothing is moved.

Instants are open time. At one instant ends come first, then starts that are due, then requests that are submitted.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

from benchmarks.aligned import BLOCKS
from benchmarks.free_gpus import NEVER
from benchmarks.traces import Schedule, TraceRequest


class _Timeline:
    """Which GPUs of a host are taken from now on, as steps."""

    def __init__(self, now: int) -> None:
        self.at = [now]
        self.used = [0]

    def advance(self, now: int) -> None:
        past = bisect_right(self.at, now) - 1
        if past > 0:
            del self.at[:past], self.used[:past]
        self.at[0] = now

    def take(self, block: int, start_at: int, end_at: int) -> None:
        first, last = self._split(start_at), self._split(end_at)
        for step in range(first, last):
            self.used[step] |= block
        self._merge(first, last)

    def give(self, block: int, start_at: int, end_at: int) -> None:
        first, last = self._split(start_at), self._split(end_at)
        for step in range(first, last):
            self.used[step] &= ~block
        self._merge(first, last)

    def earliest(
        self, blocks: Iterable[int], length_s: int, *, before_at: int, own: int = 0, own_at: int = NEVER
    ) -> tuple[int, int] | None:
        """Return the first instant before `before_at` from which on a block is free for that long, and the block.

        A booking that is to move holds `own` from `own_at` on: free until then is enough there.
        """
        best: tuple[int, int] | None = None
        at, used, last = self.at, self.used, len(self.at) - 1
        for block in blocks:
            step, start_at = 0, at[0]
            enough_at = own_at if block == own else NEVER
            while start_at < before_at:
                next_at = at[step + 1] if step < last else NEVER
                if used[step] & block:
                    start_at = next_at
                elif next_at - start_at >= length_s or next_at >= enough_at:
                    best, before_at = (start_at, block), start_at
                    break
                step += 1
        return best

    def _split(self, at: int) -> int:
        step = bisect_left(self.at, at)
        if step == len(self.at) or self.at[step] != at:
            self.at.insert(step, at)
            self.used.insert(step, self.used[step - 1])
        return step

    def _merge(self, first: int, last: int) -> None:
        for edge in (last, first):
            if edge and self.used[edge] == self.used[edge - 1]:
                del self.at[edge], self.used[edge]


class _Conservative:
    """Conservative backfilling, first fit; at an early end bookings move up in order, one at a time, never later."""

    def __init__(self, requests: Sequence[TraceRequest], hosts: int) -> None:
        self.requests = requests
        self.now = min((request.submit_at for request in requests), default=0)
        self.hosts = tuple(_Timeline(self.now) for _ in range(hosts))
        self.place = [(0, 0)] * len(requests)
        self.start_at = [0] * len(requests)
        self.told_at = [0] * len(requests)
        self.queue: dict[int, None] = {}
        """Those that have not started, in the order of submission."""
        self.due: list[tuple[int, int]] = []
        self.early_ends: list[tuple[int, int]] = []
        self.freed: list[tuple[int, int, int, int]] = []
        """All that was ever given back: host, block, start and end."""
        self.seen = [0] * len(requests)
        """How many of these there were when a booking was made or tried last: it can only win where more was freed."""

    def run(self) -> Schedule:
        requests, due, ends = self.requests, self.due, self.early_ends
        submitted, total = 0, len(requests)
        while submitted < total or self.queue:
            self.now = now = min(
                requests[submitted].submit_at if submitted < total else NEVER,
                due[0][0] if due else NEVER,
                ends[0][0] if ends else NEVER,
            )
            ended = []
            while ends and ends[0][0] == now:
                ended.append(heappop(ends)[1])
            self._start_due()
            if ended:
                for number in ended:
                    self._give_back(number, now)
                self._compress()
                self._start_due()
            while submitted < total and requests[submitted].submit_at == now:
                self._submit(requests[submitted])
                submitted += 1
            self._start_due()
        return Schedule(start_at=self.start_at, told_at=self.told_at)

    def _submit(self, request: TraceRequest) -> None:
        best: tuple[int, int, int] | None = None
        for host, timeline in enumerate(self.hosts):
            timeline.advance(self.now)
            found = timeline.earliest(
                BLOCKS[request.gpus], request.asked_s, before_at=NEVER if best is None else best[0]
            )
            if found is not None:
                best = (found[0], host, found[1])
                if found[0] == self.now:
                    break
        assert best is not None, "after its last booking a host is free"
        at, *place = best
        self._book(request.number, at, (place[0], place[1]))
        self.told_at[request.number] = at
        self.queue[request.number] = None
        self.seen[request.number] = len(self.freed)

    def _book(self, number: int, at: int, place: tuple[int, int]) -> None:
        self.place[number], self.start_at[number] = place, at
        self.hosts[place[0]].take(place[1], at, at + self.requests[number].asked_s)
        heappush(self.due, (at, number))

    def _give_back(self, number: int, from_at: int) -> None:
        host, block = self.place[number]
        end_at = self.start_at[number] + self.requests[number].asked_s
        self.hosts[host].advance(self.now)
        self.hosts[host].give(block, from_at, end_at)
        self.freed.append((host, block, from_at, end_at))

    def _start_due(self) -> None:
        while self.due and self.due[0][0] == self.now:
            at, number = heappop(self.due)
            if number in self.queue and self.start_at[number] == at:
                del self.queue[number]
                request = self.requests[number]
                if request.run_s < request.asked_s:
                    heappush(self.early_ends, (at + request.run_s, number))

    def _compress(self) -> None:
        for number in self.queue:
            found = self._earlier(number)
            if found is not None:
                at, place = found
                self._give_back(number, self.start_at[number])
                self._book(number, at, place)
            self.seen[number] = len(self.freed)

    def _earlier(self, number: int) -> tuple[int, tuple[int, int]] | None:
        """Return an earlier place for a booking: on blocks of which a part was freed that it could need."""
        request, at = self.requests[number], self.start_at[number]
        freed_by_host: dict[int, tuple[int, int]] = {}
        for host, block, from_at, until_at in self.freed[self.seen[number] :]:
            if from_at < at + request.asked_s and until_at > self.now:
                blocks, latest_at = freed_by_host.get(host, (0, 0))
                freed_by_host[host] = blocks | block, max(latest_at, until_at)
        best: tuple[int, tuple[int, int]] | None = None
        own_host, own = self.place[number]
        for host, (freed, until_at) in sorted(freed_by_host.items()):
            timeline = self.hosts[host]
            timeline.advance(self.now)
            found = timeline.earliest(
                [block for block in BLOCKS[request.gpus] if block & freed],
                request.asked_s,
                before_at=min(at if best is None else best[0], until_at),
                own=own if host == own_host else 0,
                own_at=at,
            )
            if found is not None:
                best = (found[0], (host, found[1]))
        return best


def conservative(requests: Sequence[TraceRequest], hosts: int) -> Schedule:
    """Run the aligned counterpart of the reference."""
    return _Conservative(requests, hosts).run()
