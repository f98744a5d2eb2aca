"""The one simulated-time loop: tests, `simulate`, policy simulation and benchmarks all run on it.

An agenda of calls at instants, run in order of (instant, order of entry), and the virtual clock that it moves. Nothing
here knows what the calls do. One thread, no wall clock, no randomness: the same calls give the same run, to the byte.
"""

import heapq
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from scheduler.core.spans import Instant


class VirtualClock:
    """Product and machine time of a replay. The agenda moves product time; machine time stands still beside it.

    A replay takes no machine time: a day passes between two ticks. Whoever wants a lease to run out says so with
    `pass_machine_time`.

    A blocking verb is run inside `branch()`: its sleeps move the branch's own time, and the caller learns from
    `Branch.now` when the verb would have returned.
    """

    def __init__(self, now: Instant) -> None:
        self._now = now
        self._machine_s = 0.0
        self._branch: Branch | None = None

    def now(self) -> Instant:
        return self._now if self._branch is None else self._branch.now

    def machine_s(self) -> float:
        return self._machine_s

    def pass_machine_time(self, seconds: float) -> None:
        """Let machine time pass: leases run out, product time does not move."""
        self._machine_s += seconds

    def sleep_until(self, instant: Instant) -> None:
        if self._branch is None:
            raise RuntimeError("nothing may block outside of a chain's step: sleep_until was called on the main line")
        self._branch.now = max(self._branch.now, instant)

    def move_to(self, instant: Instant) -> None:
        """Move the main line; never backwards."""
        if instant < self._now:
            raise ValueError(f"virtual time cannot go back from {self._now} to {instant}")
        self._now = instant

    @contextmanager
    def branch(self) -> Iterator["Branch"]:
        """Let a blocking call have time of its own, beginning now; branches do not nest."""
        if self._branch is not None:
            raise RuntimeError("branches of virtual time do not nest")
        self._branch = branch = Branch(self._now)
        try:
            yield branch
        finally:
            self._branch = None


class Branch:
    """The time of one blocking call."""

    __slots__ = ("now",)

    def __init__(self, now: Instant) -> None:
        self.now = now


class Agenda:
    """Calls at instants, in order."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self._heap: list[tuple[Instant, int, Callable[[], None]]] = []
        self._entered = 0
        self.calls = 0
        """How many calls were run; a measure of the work done."""

    def at(self, instant: Instant, call: Callable[[], None]) -> None:
        """Enter a call; an instant in the past means now. Calls of one instant run in order of entry."""
        heapq.heappush(self._heap, (max(instant, self.clock.now()), self._entered, call))
        self._entered += 1

    def run_until(self, until_at: Instant, *, most_calls: int = 50_000_000) -> None:
        """Run all calls up to and including `until_at`, then set the clock there.

        Raises RuntimeError after `most_calls`: a loop that does not move time on must not hang a test.
        """
        left = most_calls
        while self._heap and self._heap[0][0] <= until_at:
            instant, _, call = heapq.heappop(self._heap)
            self.clock.move_to(max(instant, self.clock.now()))
            call()
            self.calls += 1
            left -= 1
            if left == 0:
                raise RuntimeError(f"replay ran {most_calls} calls without reaching {until_at}; now {self.clock.now()}")
        self.clock.move_to(until_at)
