"""At a quiet moment: a better plan for those that wait, searched for within a budget, every promise kept.

A plan is an order in which bookings take their earliest places. From the best of a few obvious orders on, now one
booking is put elsewhere in the order and all after it are placed anew, now a few are taken out and come back in another
order while the others stay on their blocks, and move up. What is a little worse is taken up too at first, ever less as
the budget goes. Best is the least sum of GPUs times waits. What comes out replaces the plan whole, or nothing moves.

The budget is a number of placements, and the moves come from a fixed sequence: the same plan gives the same answer on
any machine. Must not read a clock.
"""

from collections.abc import Iterator, Sequence

from scheduler.core.calendar.bookings import FIXED, Booking
from scheduler.core.calendar.making import Calendar

MOST_BOOKINGS = 64
"""So many of those that start first are looked at; the others stay."""
MOST_PLACED = 50_000
"""Placements that one search may try."""
MOST_PER_PAIR = 200
"""The same for each two bookings: with few of them there is little to try."""
WARM = 1.0
"""A step may be so much worse at first, in parts of what one booking adds to the sum on average."""
FEWEST_OUT, MOST_OUT = 2, 6
"""So many bookings are taken out at a time."""
_ANY_SUM = 1 << 62
_BITS = (1 << 64) - 1


def improve(
    calendar: Calendar, keys: Sequence[int], *, most_placed: int = MOST_PLACED, most_bookings: int = MOST_BOOKINGS
) -> list[int]:
    """Place bookings that wait anew so that they wait less in sum, each by its promise; return those that moved.

    The sum of GPUs times planned waits is less afterwards, or nothing has moved. May be called again: it goes on from
    where it came to.
    """
    before = {key: calendar.booking(key) for key in keys}
    movable = [key for key, one in before.items() if one.due_at != FIXED and one.place.start_at >= calendar.now]
    movable.sort(key=lambda key: (before[key].place.start_at, before[key].due_at, key))
    search = _Search(calendar, {key: before[key] for key in movable[:most_bookings]})
    search.run(most_placed)
    return search.adopt_best()


class _Search:
    """The best plan found so far, and the one that is in the calendar now: an order, and what each adds to the sum."""

    def __init__(self, calendar: Calendar, before: dict[int, Booking]) -> None:
        self._calendar = calendar
        self._before = before
        self._order = list(before)
        self._waits = [self._wait(key) for key in before]
        self._best = {key: one.place for key, one in before.items()}
        self._least = sum(self._waits)
        self._draws = 1

    def run(self, most_placed: int) -> None:
        """Search until so many placements were tried, or nobody waits."""
        self._begin()
        count = len(self._order)
        most_placed = min(most_placed, MOST_PER_PAIR * count * (count - 1))
        placed = 5 * count
        while placed < most_placed and self._least > 0:
            worse = int(WARM * sum(self._waits) / count * (1 - placed / most_placed) ** 2)
            placed += self._reorder(worse) if self._below(2) else self._take_out(worse)

    def adopt_best(self) -> list[int]:
        """Put the best plan into the calendar; return the bookings that are elsewhere than before."""
        for key in self._before:
            self._calendar.free(key)
        for key, place in self._best.items():
            self._calendar.book(key, place, self._before[key].fit, self._before[key].due_at)
        return [key for key, one in self._before.items() if self._best[key] != one.place]

    def _begin(self) -> None:
        """Move up what can, which is a plan whatever the orders come to; then take the best order, if any is one."""
        self._calendar.compact(self._order)
        self._read()
        for order in self._orders():
            if self._calendar.rebook(order, sum(self._waits)) is not None:
                self._read()

    def _orders(self) -> Iterator[list[int]]:
        """Return what is tried first: as planned, first come, by promise, shortest first."""
        before = self._before
        yield list(before)
        yield sorted(before)
        yield sorted(before, key=lambda key: (before[key].due_at, key))
        yield sorted(before, key=lambda key: (before[key].fit.whole_s, -before[key].fit.size, key))

    def _reorder(self, worse: int) -> int:
        """Put a booking elsewhere in the order, and place all from there on anew; return how many that are."""
        order, waits = self._order, self._waits
        taken, to = self._below(len(order)), self._below(len(order) - 1)
        to += to >= taken
        first = min(taken, to)
        changed = order[first:]
        changed.insert(to - first, changed.pop(taken - first))
        if self._calendar.rebook(changed, sum(waits[first:]) + worse) is not None:
            order[first:] = changed
            waits[first:] = [self._wait(key) for key in changed]
            self._note()
        return len(changed)

    def _take_out(self, worse: int) -> int:
        """Place a few anew in an order of their own, then let the others move up; return how many were placed."""
        pool = list(self._order)
        count = min(len(pool), FEWEST_OUT + self._below(MOST_OUT - FEWEST_OUT + 1))
        for number in range(count):
            other = number + self._below(len(pool) - number)
            pool[number], pool[other] = pool[other], pool[number]
        chosen = pool[:count]
        if self._calendar.rebook(chosen, sum(map(self._wait, chosen)) + worse) is None:
            return count
        self._calendar.compact(self._order)
        self._read()
        return count + len(pool)

    def _read(self) -> None:
        """Take the order, and what each adds, from the calendar."""
        calendar = self._calendar
        self._order.sort(key=lambda key: (calendar.booking(key).place.start_at, key))
        self._waits = [self._wait(key) for key in self._order]
        self._note()

    def _note(self) -> None:
        total = sum(self._waits)
        if total < self._least:
            self._least = total
            self._best = {key: self._calendar.booking(key).place for key in self._order}

    def _wait(self, key: int) -> int:
        one = self._calendar.booking(key)
        return one.fit.size * (one.place.start_at - self._calendar.now)

    def _below(self, bound: int) -> int:
        """Return the next of a fixed sequence of numbers, under a bound: the core may not draw lots.

        Knuth's MMIX generator: The Art of Computer Programming 2, 3.3.4.
        """
        self._draws = (self._draws * 6364136223846793005 + 1442695040888963407) & _BITS
        return (self._draws >> 33) % bound
