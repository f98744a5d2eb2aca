"""Whether a policy's own limits refuse the reservations that it asks for itself, found by looking at some weeks."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from policies.format import LoadedPolicy, ReserveEntry
from policies.occurrences import occurrences
from policies.problems import Problem, warning
from policies.units import duration_text
from policies.windows import zone_of
from scheduler.core.planner.limit_book import ChoiceKey, LimitBook, Limited, NumberKey
from scheduler.core.spans import DAY_S, HOUR_S, Instant, Span
from scheduler.core.wall_clock import Shifts, next_day_at, week_of

LOOKED_AT_S = 60 * DAY_S
MOST_LOOKED_AT = 100
"""Occurrences of one entry."""


def check_own_reservations(policy: LoadedPolicy, *, from_at: Instant) -> list[Problem]:
    """Return warnings about reservations of the policy that its limits refuse, one for each limit."""
    rules = policy.rules(1)
    book = LimitBook(rules)
    problems = []
    for entry in policy.reserve:
        found = occurrences(entry.starts, zone_of(policy), from_at=from_at, until_at=from_at + LOOKED_AT_S)
        starts = [occurrence.at for occurrence in islice(found, MOST_LOOKED_AT)] or [from_at]
        for one in book.limited(entry.owner):
            filed = _Filed(entry, starts, one, rules.zone_shifts)
            problems += [
                warning(entry.place, f"reserve {entry.name} {what}", value, f"{limit} for {one.who}")
                for what, value, limit in (*filed.too_much(), *filed.not_allowed(policy))
            ]
    return problems


@dataclass(frozen=True, slots=True)
class _Filed:
    """An entry of `reserve`, as one of those would see it whose limits it is held to."""

    entry: ReserveEntry
    starts: Sequence[Instant]
    """Of its occurrences, in order."""
    one: Limited
    shifts: Shifts

    def too_much(self) -> Iterator[tuple[str, str, str]]:
        """Yield what there is too much of, how much that is, and the limit."""
        entry = self.entry
        too_much: tuple[tuple[NumberKey, str, list[int]], ...] = (
            ("longest_run_s", "runs longer than the limits allow", [entry.run_s] * len(self.starts)),
            ("gpus_at_once", "wants more GPUs at once than the limits allow", self._at_once()),
            ("open_reservations", "makes more reservations than the limits allow", self._open()),
            ("waiting", "has more requests wait than the limits allow", self._waiting()),
            ("furthest_ahead_s", "is filed further ahead than the limits allow", [entry.ahead_s] * len(self.starts)),
            ("gpu_h_per_week", "takes more GPU-hours in a week than the limits allow", self._in_a_week()),
            ("far_ahead_gpu_h", "holds more GPU-hours for later days than the limits allow", self._far_ahead()),
        )
        for key, what, wanted in too_much:
            limits = self._limits(key)
            over = [(n, limit) for n, limit in zip(wanted, limits, strict=True) if limit is not None and n > limit]
            if over:
                value, limit = over[0]
                name, is_time = _NAMES[key]
                shown = (duration_text(value), duration_text(limit)) if is_time else (str(value), str(limit))
                yield what, shown[0], f"{name} is {shown[1]}"

    def _limits(self, key: NumberKey) -> Iterator[int | None]:
        """Yield a limit as it is for each occurrence."""
        for at in self.starts:
            match key:
                case "gpus_at_once":
                    steps = self.one.steps(key, at, at + self.entry.run_s)
                    values = [value for start_at, value in steps if start_at < at + self.entry.run_s]
                    yield min((value for value in values if isinstance(value, int)), default=None)
                case "longest_run_s" | "gpu_h_per_week":
                    yield self.one.number(key, at)
                case _:
                    yield self.one.number(key, at - self.entry.ahead_s)

    def _at_once(self) -> list[int]:
        return [self.entry.gpus * self.entry.count] * len(self.starts)

    def _open(self) -> list[int]:
        """Return how many are not over when each is filed, itself included."""
        return [self._between(at - self.entry.ahead_s - self.entry.run_s, at) for at in self.starts]

    def _waiting(self) -> list[int]:
        return [self._between(at - self.entry.ahead_s, at) for at in self.starts]

    def _in_a_week(self) -> list[int]:
        weeks: list[Span] = [week_of(self.shifts, at) for at in self.starts]
        return [self._gpu_h(self._between(week.start_at - 1, week.end_at - 1)) for week in weeks]

    def _far_ahead(self) -> list[int]:
        later_at = [next_day_at(self.shifts, at - self.entry.ahead_s) for at in self.starts]
        return [self._gpu_h(self._between(day_at - 1, at)) for day_at, at in zip(later_at, self.starts, strict=True)]

    def _between(self, after_at: Instant, until_at: Instant) -> int:
        """Return how many reservations start after an instant and up to another."""
        found = bisect_right(self.starts, until_at) - bisect_right(self.starts, after_at)
        return max(0, found) * self.entry.count

    def _gpu_h(self, reservations: int) -> int:
        return -(-reservations * self.entry.gpus * self.entry.run_s // HOUR_S)

    def not_allowed(self, policy: LoadedPolicy) -> Iterator[tuple[str, str, str]]:
        """Yield what may not be chosen, what that is, and what may be."""
        entry = self.entry
        image = entry.image or next(iter(policy.images), "")
        choices: tuple[tuple[ChoiceKey, str, int | str], ...] = (
            ("sizes", "has a size that the limits do not allow", entry.gpus),
            ("queues", "has a queue that the limits do not allow", entry.queue),
            ("images", "has an image that the limits do not allow", image),
        )
        for key, what, chosen in choices:
            for at in self.starts:
                allowed = self.one.choice(key, at)
                if allowed is not None and chosen not in allowed:
                    yield what, str(chosen), f"{key} are {', '.join(map(str, sorted(allowed))) or 'none'}"
                    break


_NAMES = {
    "longest_run_s": ("longest", True),
    "gpus_at_once": ("gpus_at_once", False),
    "open_reservations": ("open_reservations", False),
    "waiting": ("waiting", False),
    "furthest_ahead_s": ("furthest_ahead", True),
    "gpu_h_per_week": ("gpu_hours_per_week", False),
    "far_ahead_gpu_h": ("far_ahead_gpu_hours", False),
}
"""How the file names a limit, and whether it is a time."""
