"""What the API stands on: handed in by the process that serves it, and by tests. Holds no decision."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from threading import BoundedSemaphore
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import Depends, Request

from scheduler.core.settings import Settings
from scheduler.core.topology import HostProfile
from scheduler.service.facts_cache import FactsCache
from scheduler.service.plan_cache import PlanCache
from scheduler.service.ports import Clock
from scheduler.service.snapshot import Snapshot, take_snapshot
from scheduler.service.submit import Desk
from scheduler.service.users import Users
from scheduler.store.store import Store

MOST_AT_ONCE = 80
"""Requests that are worked on at once, each in a thread of its own."""
MOST_WAITING = 60
"""Those of them that may wait for a decision: some threads are left for whoever only looks."""


def real_time() -> float:
    """Return the speed of a clock that is not scaled."""
    return 1.0


def installed_version() -> str:
    """Return the version of the program as it is installed."""
    try:
        return version("nightshift")
    except PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """One installation, as the API uses it."""

    store: Store
    clock: Clock
    desk: Desk
    plans: PlanCache
    known_facts: FactsCache
    settings: Settings
    profiles: Callable[[str], HostProfile]
    users: Users
    redis_ping: Callable[[], str | None]
    """Returns what is wrong with Redis; None while it answers."""
    speed: Callable[[], float] = real_time
    """How fast product time goes now."""
    waiting: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(MOST_WAITING))
    """Held by each request that waits for a decision."""

    def snapshot(self) -> Snapshot:
        return take_snapshot(plans=self.plans, known_facts=self.known_facts, clock=self.clock)

    def zone(self) -> ZoneInfo:
        """Return the zone that times are shown in: the applied policy's, as last seen."""
        plan = self.plans.last_seen
        return ZoneInfo("UTC" if plan is None or plan.rules is None else plan.rules.zone)


async def services_of(request: Request) -> Services:
    """Return the services of the application that a request came to."""
    found = request.app.state.services
    assert isinstance(found, Services)
    return found


Given = Annotated[Services, Depends(services_of)]
"""Parameter of endpoints: the services."""
