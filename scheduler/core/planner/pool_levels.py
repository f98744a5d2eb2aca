"""How much is booked at each instant: a level that goes up and down, changed by one booking at a time."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import accumulate

from scheduler.core.spans import FOREVER, Instant

Booked = tuple[Instant, Instant, int]
"""From when until when something is booked, and how much of it."""


class Levels:
    """The level over all time. A look costs the steps that it goes over; a change those from its start to its end."""

    def __init__(self, booked: Iterable[Booked] = ()) -> None:
        change_at: dict[Instant, int] = {}
        for start_at, end_at, much in booked:
            if start_at >= end_at:
                continue
            change_at[start_at] = change_at.get(start_at, 0) + much
            change_at[end_at] = change_at.get(end_at, 0) - much
        steps = sorted((at, change) for at, change in change_at.items() if change)
        self._at = [at for at, _ in steps]
        """When the level changes."""
        self._levels = [0, *accumulate(change for _, change in steps)]
        """The level before the first change, and after each."""
        self._first_over: dict[int, tuple[Instant, Instant]] = {}

    def add(self, booked: Booked, times: int = 1) -> None:
        """Take in one more booking; with `times=-1` take one out that was taken in."""
        start_at, end_at, much = booked
        if start_at >= end_at or not much:
            return
        self._first_over.clear()
        first = self._cut(start_at)
        last = self._cut(end_at)
        self._levels[first:last] = [level + much * times for level in self._levels[first:last]]
        self._join(last)
        self._join(first)

    def peak(self, start_at: Instant, end_at: Instant) -> int:
        """Return the highest level in `[start_at, end_at)`."""
        return max(self._levels[bisect_right(self._at, start_at) : bisect_left(self._at, end_at) + 1], default=0)

    def first_over(self, most: int, from_at: Instant) -> Instant:
        """Return the first instant from one on at which the level is over so much; FOREVER when it never is.

        What was found is remembered until something changes.
        """
        since_at, found_at = self._first_over.get(most, (FOREVER, FOREVER))
        if not since_at <= from_at <= found_at:
            first = bisect_right(self._at, from_at)
            over = (number for number in range(first, len(self._levels)) if self._levels[number] > most)
            number = next(over, None)
            found_at = FOREVER if number is None else from_at if number == first else self._at[number - 1]
            self._first_over[most] = from_at, found_at
        return found_at

    def first_room(self, most: int, from_at: Instant, length_s: int) -> Instant:
        """Return the first instant from one on after which the level is never over so much for a while.

        FOREVER when there is none.
        """
        if most < 0:
            return FOREVER
        if self.first_over(most, from_at) - from_at >= length_s:
            return from_at
        start_at, at, first = from_at, self._at, bisect_right(self._at, from_at)
        for number in [n for n, level in enumerate(self._levels[first:], first) if level > most]:
            if number > first and at[number - 1] - start_at >= length_s:
                break
            start_at = at[number]
        return start_at

    def _cut(self, at: Instant) -> int:
        """Let there be a change at an instant, of nothing if need be; return the number of the level after it."""
        number = bisect_left(self._at, at)
        if number == len(self._at) or self._at[number] != at:
            self._at.insert(number, at)
            self._levels.insert(number, self._levels[number])
        return number + 1

    def _join(self, number: int) -> None:
        """Forget the change before a level if it changes nothing."""
        if self._levels[number - 1] == self._levels[number]:
            del self._at[number - 1], self._levels[number]
