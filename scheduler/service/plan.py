"""Plan: take all open intents and new facts into the plan, in one guarded commit.

Any number of these may run; the version guard makes one of them win, the others decide anew on the newer plan.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from scheduler.core.errors import BrokenInvariant, NightshiftError, StalePlan
from scheduler.core.facts import HostFacts
from scheduler.core.intents import FiledIntent
from scheduler.core.plan import Decided, Plan, PlanChange, event
from scheduler.core.planner.due import next_plan_due_at
from scheduler.core.planner.step import step
from scheduler.core.reasons import ReasonCode, reason
from scheduler.core.requests import HostId
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile
from scheduler.service.facts_cache import FactsCache
from scheduler.service.plan_cache import PlanCache
from scheduler.service.ports import Clock, Wake
from scheduler.store.failures import Unstorable
from scheduler.store.store import Store

MOST_TRIES = 20
"""How often a run steps again, after a lost commit or after its own, before it leaves the rest to the next tick."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRun:
    """What one run did."""

    version: int
    is_changed: bool
    next_due_at: Instant | None
    """When the clock alone may next change the plan."""


@dataclass(slots=True, kw_only=True)
class PlanTask:
    """The plan task of one process."""

    store: Store
    clock: Clock
    wake: Wake
    plans: PlanCache
    known_facts: FactsCache
    settings: Settings
    profiles: Callable[[str], HostProfile]
    _facts: Mapping[HostId, HostFacts] = field(default_factory=dict)
    _revisions: Mapping[HostId, int] = field(default_factory=dict)
    _settled_version: int | None = None
    """The plan version at which the last step found nothing to change, with the facts in memory."""
    _due_at: Instant | None = None

    def run(self) -> PlanRun:
        """Bring the plan up to date. May be called any number of times; without news it costs three small queries."""
        is_changed = False
        plan = Plan()
        for _ in range(MOST_TRIES):
            now = self.clock.now()
            plan = self.plans.current()
            self._load_facts()
            intents = self.store.open_intents()
            is_due = self._due_at is not None and now >= self._due_at
            if not intents and not is_due and self._settled_version == plan.version:
                break
            try:
                change = self._step(plan, intents, now)
                if change.is_empty:
                    self._due_at = next_plan_due_at(plan, self._facts, now, self.settings)
                    self._settled_version = plan.version
                    break
                self.plans.commit(plan, change, author="plan")
            except StalePlan:
                continue
            except Exception as error:
                if not intents or not _may_be_an_intents_fault(error):
                    raise
                self._set_aside(plan, intents, now)
            is_changed = True
            for host in sorted(plan.hosts):
                self.wake.host(host)
        return PlanRun(version=plan.version, is_changed=is_changed, next_due_at=self._due_at)

    def _step(self, plan: Plan, intents: tuple[FiledIntent, ...], now: Instant) -> PlanChange:
        return step(plan, intents, self._facts, now, settings=self.settings, profiles=self.profiles)

    def _set_aside(self, plan: Plan, intents: tuple[FiledIntent, ...], now: Instant) -> None:
        """Some intent makes the step fail, by a defect of ours: take the first alone, and refuse it if it is the one.

        One request that nobody foresaw must not keep everybody else waiting. A plan that moved on meanwhile is met by
        the next round.
        """
        first = intents[0]
        try:
            change = self._step(plan, (first,), now)
            self.plans.commit(plan, change, author="plan")
        except StalePlan:
            return
        except Exception as error:
            if not _may_be_an_intents_fault(error):
                raise
            # Without any intent the step has to work: if it does not, this raises, and the defect is not an intent's.
            quiet = self._step(plan, (), now)
            why = reason(ReasonCode.DEFECT, problem=f"{type(error).__name__} in a {first.intent.kind}")
            told = event(
                "intent.defect", now, actor="plan", is_notice=True, intent=first.seq, problem=repr(error)[:300]
            )
            refused = replace(quiet, decided=(Decided(seq=first.seq, reasons=(why,)),), events=(*quiet.events, told))
            try:
                self.plans.commit(plan, refused, author="plan")
            except StalePlan:
                return

    def _load_facts(self) -> None:
        """Bring the facts in memory up to what the database has."""
        facts, revisions = self.known_facts.current()
        if revisions != self._revisions:
            self._facts, self._revisions, self._settled_version = facts, revisions, None

    @property
    def facts(self) -> Mapping[HostId, HostFacts]:
        """The facts as this process last saw them."""
        return self._facts


def _may_be_an_intents_fault(error: Exception) -> bool:
    """Whether an intent may be what made a step fail; a database or a machine in trouble is nobody's fault."""
    if isinstance(error, NightshiftError):
        return isinstance(error, BrokenInvariant | Unstorable)
    # What the store does not translate is the database's own; only it raises from outside of Python and us.
    return type(error).__module__ == "builtins" and not isinstance(error, MemoryError | OSError)
