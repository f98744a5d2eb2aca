"""The plan as one process last saw it: read once for each version, shared by all who decide in that process.

Whoever commits hands the outcome in, so that nobody reads again what this process wrote itself.
"""

from dataclasses import replace
from threading import Lock

from scheduler.core.plan import Plan, PlanChange, apply
from scheduler.core.spans import DAY_S, Instant
from scheduler.service.ended_uses import EndedUsesCache
from scheduler.service.ports import Clock
from scheduler.service.shares import SharesCache
from scheduler.service.waits import WaitsCache
from scheduler.store.leases import LeaseClaim
from scheduler.store.store import Store


class PlanCache:
    """Safe to use from several threads; a plan is a value, so holding on to an old one harms nobody."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = Lock()
        self._plan: Plan | None = None
        self.waits = WaitsCache(store)
        """How long people waited of what they were told."""
        self.shares = SharesCache(store)
        """How much each owner has used lately."""
        self.ended = EndedUsesCache(store)
        """What those held that are not in the plan any more."""

    def current(self) -> Plan:
        """Return the plan at the version that the database has now."""
        version = self._store.plan_version()
        with self._lock:
            if self._plan is None or self._plan.version != version:
                self._plan = self._store.load_plan(now=self._clock.now())
            return self._plan

    def commit(
        self,
        base: Plan,
        change: PlanChange,
        *,
        author: str,
        lease: LeaseClaim | None = None,
        after: Plan | None = None,
    ) -> Plan:
        """Commit a change made from `base` and return the plan after it.

        `after`: what `apply` makes of the two, if somebody has done so. It is kept as it is, so that who remembers
        things of its very rows finds them again.

        Raises StalePlan when another came first, and LeaseLost when a `lease` is given that is not held any more.
        """
        self._store.commit_plan(base.version, change, at=self._clock.now(), author=author, lease=lease)
        after = _without_past(apply(base, change) if after is None else after, self._clock.now())
        with self._lock:
            # A later one may have been read meanwhile.
            if self._plan is None or self._plan.version < after.version:
                self._plan = after
        return after

    @property
    def last_seen(self) -> Plan | None:
        return self._plan


def _without_past(plan: Plan, now: Instant) -> Plan:
    """Drop windows that ended a day ago, as loading does: a plan that is kept in memory must not grow for ever."""
    past = [key for key, window in plan.windows.items() if window.end_at <= now - DAY_S]
    if not past:
        return plan
    return replace(plan, windows={key: window for key, window in plan.windows.items() if key not in past})
