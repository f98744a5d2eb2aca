"""A trace through the planner in simulated time: the plan that keeps every promise, with the calendar that it uses.

Requests come, run as long as they run, and end; once a day, if wanted, all that runs may come back on another block.
What happened is written down for the checker, which knows nothing of the planner; whether a promise was tight is found
by a slow sweep over what is booked.
"""

import heapq
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.trace_checker import Event, Left, Placed, Told, check
from benchmarks.traces import OpenClock, Schedule, TraceRequest
from scheduler.core.calendar.bookings import Fit
from scheduler.core.calendar.kinds import aligned_kind
from scheduler.core.calendar.likely import Likely
from scheduler.core.calendar.making import Calendar, make_calendar
from scheduler.core.calendar.orders import Order, wide_response_ratio
from scheduler.core.calendar.witness import Witness
from scheduler.core.rules import Slack
from scheduler.core.spans import FOREVER, HOUR_S

DEFAULT_SLACK = Slack(least_s=2 * HOUR_S, share=0.25)
HOST = aligned_kind(16)


@dataclass(frozen=True, slots=True, kw_only=True)
class OurRun:
    """What a run came to; instants are open time."""

    schedule: Schedule
    likely_at: list[int]
    promises_kept: int
    loose_promises: int
    seconds: float
    nights_placed_anew: int
    nights_left: int
    """Nights after which everybody was where they had been."""


def run(
    requests: Sequence[TraceRequest],
    *,
    hosts: int,
    slack: bool,
    night: bool,
    storage: str,
    clock: OpenClock,
    order: Order = wide_response_ratio,
    may_be_compiled: bool = True,
    is_judged: bool = True,
) -> OurRun:
    """Run the requests, which are in open time. `is_judged`: a second run, not timed, sweeps for loose promises."""
    replay = _Replay(requests, hosts, slack, night, storage, clock, order, may_be_compiled)
    began = time.perf_counter()
    replay.run()
    seconds = time.perf_counter() - began
    loose = 0
    if is_judged:
        judged = _Replay(requests, hosts, slack, night, storage, clock, order, may_be_compiled, sweeps=True)
        judged.run()
        assert judged.events == replay.events, "two runs of one trace differ"
        loose = judged.loose
    found = check(requests, replay.events, hosts=hosts)
    return OurRun(
        schedule=Schedule(start_at=replay.start_at, told_at=replay.told_at),
        likely_at=replay.likely_at,
        promises_kept=found.kept,
        loose_promises=loose,
        seconds=seconds,
        nights_placed_anew=replay.nights[True],
        nights_left=replay.nights[False],
    )


@dataclass(slots=True)
class _Replay:
    requests: Sequence[TraceRequest]
    hosts: int
    slack: bool
    night: bool
    storage: str
    clock: OpenClock
    order: Order
    may_be_compiled: bool
    sweeps: bool = False
    loose: int = 0
    events: list[Event] = field(default_factory=list)
    start_at: list[int] = field(default_factory=list)
    told_at: list[int] = field(default_factory=list)
    likely_at: list[int] = field(default_factory=list)
    nights: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    _ends: list[tuple[int, int]] = field(default_factory=list)
    _likely: Likely = field(default_factory=Likely)

    def run(self) -> None:
        requests = self.requests
        count = len(requests)
        calendar = make_calendar(requests[0].submit_at, may_be_compiled=self.may_be_compiled)
        is_local = self.storage == "local"
        for host in range(self.hosts):
            calendar.add_host(HOST, label=host if is_local else 0)
        slack = DEFAULT_SLACK if self.slack else Slack()
        witness = Witness(calendar, order=self.order, slack=slack, keeps_host=is_local)
        self.start_at, self.told_at, self.likely_at = [0] * count, [0] * count, [0] * count
        nights = self.clock.nights(until_at=FOREVER) if self.night else iter(())
        night_at = next(nights, FOREVER)
        number = 0
        while number < count or witness.waiting or self._ends:
            now = min(
                self._ends[0][0] if self._ends else FOREVER,
                requests[number].submit_at if number < count else FOREVER,
                witness.next_start_at(),
                night_at,
            )
            is_room_freed = False
            while self._ends and self._ends[0][0] <= now:
                _, key = heapq.heappop(self._ends)
                witness.end(key, now)
                self.events.append(Left(job=key, at=now))
                is_room_freed = True
            if now >= night_at:
                night_at = next(nights, FOREVER)
                self._place_anew(witness, now)
                is_room_freed = True
            self._began(witness, witness.start_due(now), now)
            if is_room_freed:
                self._began(witness, witness.start_early(now), now)
            while number < count and requests[number].submit_at <= now:
                self._submit(witness, requests[number], now)
                number += 1

    def _submit(self, witness: Witness, request: TraceRequest, now: int) -> None:
        key = request.number
        fit = Fit(request.gpus, request.asked_s, request.asked_s)
        earliest_at = _swept(witness.calendar, self.hosts, witness, fit, now) if self.sweeps else 0
        waiting = witness.submit(key, fit, now)
        assert waiting is not None, "everything fits on an empty host at some time"
        told_at = waiting.due_at
        if self.sweeps and told_at > earliest_at + witness.slack.of(earliest_at - now):
            self.loose += 1
        self.told_at[key] = told_at
        self.likely_at[key] = now + self._likely.wait_s(request.gpus, told_at - now)
        self.events.append(Told(job=key, at=now, start_by_at=told_at))
        self._began(witness, witness.start_due(now) if told_at <= now else witness.start_early(now, (key,)), now)

    def _began(self, witness: Witness, keys: Iterable[int], now: int) -> None:
        for key in keys:
            request = self.requests[key]
            self.start_at[key] = now
            heapq.heappush(self._ends, (now + request.run_s, key))
            place = witness.running[key].place
            self.events.append(Placed(job=key, at=now, host=place.host, mask=HOST.masks[place.set]))
            told_s = self.told_at[key] - request.submit_at
            if told_s > 0:
                self._likely.learn(request.gpus, told_s, now - request.submit_at)

    def _place_anew(self, witness: Witness, now: int) -> None:
        running = sorted(witness.running)
        self.events += [Left(job=key, at=now) for key in running]
        self.nights[witness.place_anew(now)] += 1
        for key in running:
            place = witness.running[key].place
            self.events.append(Placed(job=key, at=now, host=place.host, mask=HOST.masks[place.set]))


def _swept(calendar: Calendar, hosts: int, witness: Witness, fit: Fit, now: int) -> int:
    """Return the earliest fit by looking at every booking on every block: slow, and its own code."""
    busy: list[list[tuple[int, int, int]]] = [[] for _ in range(hosts)]
    for key in (*witness.running, *witness.waiting):
        place = calendar.booking(key).place
        busy[place.host].append((place.start_at, place.end_at, HOST.masks[place.set]))
    earliest = FOREVER
    for mine in busy:
        mine.sort()
        for number in HOST.by_size[fit.size]:
            mask, cursor = HOST.masks[number], now
            for start, end, other in mine:
                if other & mask:
                    if start - cursor >= fit.whole_s:
                        break
                    cursor = max(cursor, end)
            earliest = min(earliest, cursor)
    return earliest
