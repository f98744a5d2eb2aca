"""Ended uses: what reservations held that started in a week and have left the plan, for limits of GPU-hours per week.

Read only when such a limit is looked at, once for each version of the plan. Safe to use from several threads.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

from scheduler.core.plan import Plan
from scheduler.core.spans import Span
from scheduler.core.use import EndedUse
from scheduler.store.store import Store

MOST_WEEKS = 8
"""So many are remembered: nearly always it is the current one."""


@dataclass(slots=True)
class EndedUsesCache:
    """What the database says, as far as this process has asked."""

    store: Store
    _known: dict[Span, tuple[int, tuple[EndedUse, ...]]] = field(default_factory=dict)
    """By week: at which version of the plan it was read, at least, and what it was."""
    _lock: Lock = field(default_factory=Lock)

    def seen_from(self, plan: Plan) -> Callable[[Span], tuple[EndedUse, ...]]:
        """Return what tells, for a week, what those held that are not in this plan any more.

        What has left a later plan may be among it; who asks knows whom this one still has.
        """
        return partial(self._started_in, plan.version)

    def _started_in(self, version: int, week: Span) -> tuple[EndedUse, ...]:
        with self._lock:
            known = self._known.get(week)
            if known is not None and known[0] >= version:
                return known[1]
        found = self.store.ended_uses(week)
        with self._lock:
            known = self._known.pop(week, None)
            if known is None or known[0] < version:
                known = version, found
            # The week that was asked for last is forgotten last.
            self._known[week] = known
            while len(self._known) > MOST_WEEKS:
                del self._known[next(iter(self._known))]
            return known[1]
