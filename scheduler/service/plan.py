"""Plan: take all open intents and new facts into the plan, in one guarded commit.

Any number of these may run; the version guard makes one of them win, the others decide anew on the newer plan.
"""

import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from scheduler.core.errors import BrokenInvariant, NightshiftError, StalePlan
from scheduler.core.facts import HostFacts
from scheduler.core.intents import ApplyPolicy, FiledIntent
from scheduler.core.plan import Decided, Plan, PlanChange, event
from scheduler.core.planner.due import next_plan_due_at
from scheduler.core.planner.memory import Memory
from scheduler.core.planner.step import step
from scheduler.core.reasons import ReasonCode, reason
from scheduler.core.requests import HostId
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, MINUTE_S, Instant
from scheduler.core.topology import HostProfile
from scheduler.service.facts_cache import FactsCache
from scheduler.service.plan_cache import PlanCache
from scheduler.service.ports import Clock, Wake
from scheduler.store.failures import Unstorable
from scheduler.store.store import Store

MOST_TRIES = 20
"""How often a run steps again, after a lost commit or after its own, before it leaves the rest to the next tick."""

LONGEST_PROBLEM = 300
"""So many characters of a defect are told."""

OVERSLEPT_S = MINUTE_S
"""Who plans so long after it was due has stood still, with the machine or with the whole installation."""


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
    _awake_since_at: Instant | None = None
    """Since when this task is called whenever it is due: what hosts showed before may be out of date."""
    _kept: Memory = field(default_factory=Memory)
    _told_defects: set[str] = field(default_factory=set)
    """The keys of the defects that were told by this process."""

    def run(self) -> PlanRun:
        """Bring the plan up to date. May be called any number of times; without news it costs three small queries.

        A defect of ours that no intent caused stops planning until it is mended: it is told, and raised.
        """
        try:
            return self._run()
        except Exception as error:
            if _is_defect(error):
                self._tell_defect(error)
            raise

    def _run(self) -> PlanRun:
        is_changed = False
        plan = Plan()
        for _ in range(MOST_TRIES):
            now = self.clock.now()
            has_overslept = self._due_at is not None and now > self._due_at + OVERSLEPT_S
            if self._awake_since_at is None or has_overslept:
                self._awake_since_at = now
            plan = self.plans.current()
            self._load_facts()
            intents = self.store.open_intents()
            is_due = self._due_at is not None and now >= self._due_at
            if not intents and not is_due and self._settled_version == plan.version:
                break
            try:
                change = self._step(plan, intents, now)
                if change.is_empty:
                    self._due_at = next_plan_due_at(
                        plan, self._facts, now, self.settings, awake_since_at=self._awake_since_at
                    )
                    self._settled_version = plan.version
                    break
                author = _author_of(change, intents)
                self.plans.commit(plan, change, author=author, after=self._kept.plan_after)
            except StalePlan:
                continue
            except Exception as error:
                if not intents or not _is_defect(error):
                    raise
                self._set_aside(plan, intents, now)
            is_changed = True
            for host in sorted(plan.hosts):
                self.wake.host(host)
        return PlanRun(version=plan.version, is_changed=is_changed, next_due_at=self._due_at)

    def _step(self, plan: Plan, intents: tuple[FiledIntent, ...], now: Instant) -> PlanChange:
        return step(
            plan,
            intents,
            self._facts,
            now,
            settings=self.settings,
            profiles=self.profiles,
            awake_since_at=self._awake_since_at,
            likely_wait_s=self.plans.waits.likely_wait_s,
            used_gpu_s=self.plans.shares.used_gpu_s,
            ended_uses=self.plans.ended.seen_from(plan),
            kept=self._kept,
        )

    def _set_aside(self, plan: Plan, intents: tuple[FiledIntent, ...], now: Instant) -> None:
        """Some intent makes the step fail, by a defect of ours: take the first alone, and refuse it if it is the one.

        One request that nobody foresaw must not keep everybody else waiting. A plan that moved on meanwhile is met by
        the next round.
        """
        first = intents[0]
        try:
            change = self._step(plan, (first,), now)
            author = _author_of(change, (first,))
            self.plans.commit(plan, change, author=author, after=self._kept.plan_after)
        except StalePlan:
            return
        except Exception as error:
            if not _is_defect(error):
                raise
            # Without any intent the step has to work: if it does not, this raises, and the defect is not an intent's.
            quiet = self._step(plan, (), now)
            why = reason(ReasonCode.DEFECT, problem=f"{type(error).__name__} in a {first.intent.kind}")
            told = event(
                "intent.defect",
                now,
                actor="plan",
                is_notice=True,
                intent=first.seq,
                problem=repr(error)[:LONGEST_PROBLEM],
            )
            refused = replace(quiet, decided=(Decided(seq=first.seq, reasons=(why,)),), events=(*quiet.events, told))
            try:
                self.plans.commit(plan, refused, author="plan")
            except StalePlan:
                return

    def _tell_defect(self, error: Exception) -> None:
        """Write once a day of each defect that nothing is planned any more. Its failing hides nothing."""
        now = self.clock.now()
        # Where it arose and not its text, which may name another instant at each step.
        where = traceback.extract_tb(error.__traceback__)[-1]
        constraint = error.facts.get("constraint", "") if isinstance(error, NightshiftError) else ""
        key = f"plan.defect/{now // DAY_S}/{type(error).__name__}/{where.name}/{where.lineno}/{constraint}"
        if key in self._told_defects:
            return
        told = event("plan.defect", now, actor="plan", is_notice=True, problem=repr(error)[:LONGEST_PROBLEM])
        try:
            self.store.append_events((replace(told, key=key),))
        except NightshiftError as trouble:
            # It is told with the next try; what is raised is the defect.
            error.add_note(f"and that could not be told: {trouble.message}")
        else:
            self._told_defects.add(key)

    def _load_facts(self) -> None:
        """Bring the facts in memory up to what the database has."""
        facts, revisions = self.known_facts.current()
        if revisions != self._revisions:
            self._facts, self._revisions, self._settled_version = facts, revisions, None

    @property
    def facts(self) -> Mapping[HostId, HostFacts]:
        """The facts as this process last saw them."""
        return self._facts


def _is_defect(error: Exception) -> bool:
    """Whether it is a defect of ours that made a step fail; trouble of a database or a machine is none."""
    if isinstance(error, NightshiftError):
        return isinstance(error, BrokenInvariant | Unstorable)
    # What the store does not translate is the database's own; only it raises from outside of Python and us.
    return type(error).__module__ == "builtins" and not isinstance(error, MemoryError | OSError)


def _author_of(change: PlanChange, intents: Iterable[FiledIntent]) -> str:
    """Return who is to be named beside what a commit changes: of a policy whoever applied it, else the plan itself."""
    if change.rules is None:
        return "plan"
    accepted = {decided.seq for decided in change.decided if decided.is_accepted}
    applied = [filed for filed in intents if filed.seq in accepted and isinstance(filed.intent, ApplyPolicy)]
    return applied[-1].author if applied else "plan"
