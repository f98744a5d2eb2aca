"""The witness: a complete plan in which every promise holds, at every instant; and what may be done to it.

Whoever waits is booked as *late* as the promise allows, so that the near future stays empty, and starts as *early* as
leaves such a plan standing. An operation leaves the witness as it is, or swaps it, all at once, for another: that is
why a promise cannot slip.

1. Submit: the earliest place in the plan is what is promised, plus the slack that a policy states.
2. A booking whose start has come starts. This is what makes the promise.
3. Whatever frees room: those that wait are tried in the policy's order. One starts now if what is booked in its way
   finds other places by its own promises, as late as they allow.
4. At a boundary, where all that runs may be placed anew: the largest first, then the bookings by their promises; if
   that fails, everybody stays where they were.

Works on bookings of one piece; knows nothing of people, disks or limits. A submission costs a few bookings whatever
waits; what frees room costs one look at each that waits, and a few bookings for each that may start.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from scheduler.core.calendar.bookings import FIXED, Booking, Fit, Place
from scheduler.core.calendar.improving import MOST_PLACED, improve
from scheduler.core.calendar.making import Calendar
from scheduler.core.calendar.orders import Order, wide_response_ratio
from scheduler.core.rules import NO_SLACK, Slack
from scheduler.core.spans import FOREVER, Instant

MOST_ROUNDS = 10
"""How often bookings are placed anew at a boundary, each time with the one that found no place put first."""


@dataclass(slots=True)
class Waiting:
    """One that waits."""

    key: int
    fit: Fit
    submitted_at: Instant
    due_at: Instant
    """The latest start that it was told."""
    start_at: Instant
    """Where it is booked now."""


@dataclass(slots=True)
class Witness:
    """The plan of a fleet. Not thread-safe."""

    calendar: Calendar
    order: Order = wide_response_ratio
    slack: Slack = NO_SLACK
    keeps_host: bool = False
    """Disks are local: what has started stays on its host, whose label is its number."""
    waiting: dict[int, Waiting] = field(default_factory=dict)
    running: dict[int, Booking] = field(default_factory=dict)
    _starts: list[tuple[Instant, int]] = field(default_factory=list)
    """A heap of when bookings start, with some that have moved since."""

    def quote(self, fit: Fit, now: Instant) -> Place | None:
        """Return the earliest place in the plan."""
        self.calendar.advance(now)
        return self.calendar.earliest(fit, now)

    def submit(self, key: int, fit: Fit, now: Instant) -> Waiting | None:
        """Book a request; return it with what it is told, or None when there is no place.

        `start_due` and `start_early` start it: nothing starts by itself.
        """
        place = self.quote(fit, now)
        if place is None:
            return None
        due_at = place.start_at + self.slack.of(place.start_at - now)
        if due_at > place.start_at:
            place = self.calendar.latest(fit, place.start_at, due_at) or place
        self.calendar.book(key, place, fit, due_at)
        one = self.waiting[key] = Waiting(key, fit, now, due_at, place.start_at)
        heappush(self._starts, (place.start_at, key))
        return one

    def next_start_at(self) -> Instant:
        """Return when the next booking starts; FOREVER when nobody waits."""
        while self._starts:
            start_at, key = self._starts[0]
            known = self.waiting.get(key)
            if known is not None and known.start_at == start_at:
                return start_at
            heappop(self._starts)
        return FOREVER

    def start_due(self, now: Instant) -> list[int]:
        """Start the bookings whose start has come."""
        self.calendar.advance(now)
        started = []
        while self.next_start_at() <= now:
            _, key = heappop(self._starts)
            started.append(key)
            self._start(key)
        return started

    def start_early(self, now: Instant, keys: Iterable[int] | None = None) -> list[int]:
        """Start whoever may start without breaking a promise, in the policy's order; by default of all that wait."""
        self.calendar.advance(now)
        calendar, waiting, order = self.calendar, self.waiting, self.order
        free = self._free_sizes(now)
        chosen = (
            [one for one in waiting.values() if one.fit.size in free] if keys is None else [waiting[k] for k in keys]
        )
        chosen.sort(key=lambda one: (order(one.fit.size, one.fit.whole_s, one.submitted_at, now), one.key))
        started: list[int] = []
        for one in chosen:
            if one.fit.size not in free:
                continue
            moved = calendar.start_now(one.key, widest=_widest(one.fit.size))
            if moved is None:
                continue
            self._follow(moved)
            self._start(one.key)
            started.append(one.key)
            free = self._free_sizes(now)
        return started

    def improve(self, now: Instant, *, most_placed: int = MOST_PLACED) -> bool:
        """At a quiet moment: swap the plan of those that wait for a better one, if a search finds one in its budget."""
        self.calendar.advance(now)
        moved = improve(self.calendar, list(self.waiting), most_placed=most_placed)
        self._follow(moved)
        return bool(moved)

    def _free_sizes(self, now: Instant) -> set[int]:
        """Return the sizes of which some set is free now."""
        sizes = {one.fit.size for one in self.waiting.values()} if len(self.waiting) < 4 else self.calendar.sizes
        return {size for size in sizes if self.calendar.earliest(Fit(size, 1, 1), now, now) is not None}

    def _start(self, key: int) -> None:
        del self.waiting[key]
        self.calendar.set_due(key, FIXED)
        self.running[key] = self.calendar.booking(key)

    def end(self, key: int, now: Instant) -> None:
        """Let one that runs end now."""
        self.calendar.advance(now)
        self.calendar.free(key)
        del self.running[key]

    def cancel(self, key: int, now: Instant) -> None:
        """Take out one that waits."""
        self.calendar.advance(now)
        self.calendar.free(key)
        del self.waiting[key]

    def extend(self, key: int, by_s: int, now: Instant) -> bool:
        """Let one that runs go on for longer, if whoever is in the way has another place by its promise."""
        self.calendar.advance(now)
        calendar = self.calendar
        mine = self.running[key].place
        others = calendar.conflicts(mine.host, mine.set, mine.end_at, mine.end_at + by_s)
        if not all(other in self.waiting for other in others):
            return False
        taken = {other: calendar.free(other) for other in others}
        calendar.end_at(key, mine.end_at + by_s)
        done: list[int] = []
        for other in sorted(taken, key=lambda other: (taken[other].due_at, -taken[other].fit.size, other)):
            late = calendar.latest(taken[other].fit, now, taken[other].due_at)
            if late is None:
                break
            calendar.book(other, late, taken[other].fit, taken[other].due_at)
            done.append(other)
        if len(done) < len(taken):
            for other in done:
                calendar.free(other)
            calendar.end_at(key, mine.end_at)
            for other, booking in taken.items():
                calendar.book(other, booking.place, booking.fit, booking.due_at)
            return False
        self._follow(done)
        self.running[key] = calendar.booking(key)
        return True

    def _follow(self, keys: Sequence[int]) -> None:
        """Take note of where bookings have moved."""
        for key in keys:
            one = self.waiting.get(key)
            if one is not None:
                one.start_at = self.calendar.booking(key).place.start_at
                heappush(self._starts, (one.start_at, key))
        if len(self._starts) > 64 + 8 * len(self.waiting):
            self._starts = [(one.start_at, one.key) for one in self.waiting.values()]
            heapify(self._starts)

    # ---- boundaries

    def place_anew(self, now: Instant) -> bool:
        """At a boundary: place all that runs anew, the largest first, then the bookings by their promises.

        Returns False where that fails: everybody is where they were then.
        """
        self.calendar.advance(now)
        calendar = self.calendar
        running = {key: calendar.free(key) for key in sorted(self.running)}
        waiting = {key: calendar.free(key) for key in sorted(self.waiting)}
        largest = sorted(running, key=lambda key: (-running[key].fit.size, -running[key].place.end_at, key))
        urgent = sorted(waiting, key=lambda key: (waiting[key].due_at, -waiting[key].fit.size, key))
        for _ in range(MOST_ROUNDS):
            failing = self._place_all(now, largest, running, urgent, waiting)
            if failing is None:
                self.running = {key: calendar.booking(key) for key in running}
                urgent.sort(key=lambda key: (-calendar.booking(key).place.end_at, key))
                calendar.relax(urgent)
                self._follow(urgent)
                return True
            if failing not in waiting:
                break
            urgent.remove(failing)
            urgent.insert(0, failing)
        for key, booking in (running | waiting).items():
            calendar.book(key, booking.place, booking.fit, booking.due_at)
        return False

    def _place_all(
        self,
        now: Instant,
        largest: Sequence[int],
        running: dict[int, Booking],
        urgent: Sequence[int],
        waiting: dict[int, Booking],
    ) -> int | None:
        """Place everybody, or nobody and return who found no place."""
        done: list[int] = []
        failing = None
        for key in (*largest, *urgent):
            before = running.get(key) or waiting[key]
            if key in running:
                rest_s = before.place.end_at - now
                label = before.place.host if self.keeps_host else before.fit.label
                place = self.calendar.earliest(Fit(before.fit.size, rest_s, rest_s, label=label), now, now)
            else:
                place = self.calendar.earliest(before.fit, now, before.due_at)
            if place is None:
                failing = key
                break
            self.calendar.book(key, place, before.fit, before.due_at)
            done.append(key)
        if failing is not None:
            for key in done:
                self.calendar.free(key)
        return failing


def _widest(size: int) -> int:
    """Return how large those may be that one of a size puts off: half a host and more only give way to their like."""
    return size if size < 8 else 64
