"""Converge: make one host look as the plan says, one pass after the other until nothing is left to ask.

    lease ─▶ plan, facts ─▶ outcomes of chains ─▶ look ─▶ witness ─▶ diff ─▶ pin ─▶ write what will be asked ─▶ ask

Whatever is asked is committed before it is asked. Every decision is a pure function of `scheduler.core`; here is only
the order of things, and what is kept between passes: the plan of a version, the facts under an unbroken lease, and the
chains that this process has in flight. Killed anywhere and run again, the end is the same.
"""

from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from threading import Lock

from scheduler.core.converging.actions import Action, Diff, Finding, StartVm
from scheduler.core.converging.asked import forget_closed, in_order
from scheduler.core.converging.asking import ask_key, write_asks
from scheduler.core.converging.desired import desired_host
from scheduler.core.converging.diff import diff
from scheduler.core.converging.due import next_due_at
from scheduler.core.converging.witness import witness
from scheduler.core.errors import LeaseLost, NightshiftError, StalePlan
from scheduler.core.facts import HostFacts, Measurement, ObservedHost, Unreachable
from scheduler.core.plan import Event, Plan, PlanChange, event, pinned
from scheduler.core.reasons import ReasonCode, reason
from scheduler.core.requests import HostId
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile
from scheduler.service.facts_cache import FactsCache
from scheduler.service.plan_cache import PlanCache
from scheduler.service.ports import Clock, Wake
from scheduler.store.leases import host_lease
from scheduler.store.store import Store
from workers.answers import Outcome, raise_defects, with_answer, with_outcomes
from workers.chains import Ticket, in_flight, under_lease
from workers.lease import Lease
from workers.ports import Drivers, HostUnreachable, Runner
from workers.telling import Told
from workers.verbs import Asking, Blocking, ask, chain, text_of

MOST_PASSES = 8
"""After so many passes that each asked something, the rest is left to the next tick."""
ASKS_WITHIN_MACHINE_S = 5.0
"""After so long no further asking verb is called in a pass: guests that hang keep neither starts nor looks waiting."""
MOST_STALE_PLANS = 5
"""How often one pass decides anew because the plan moved on before its pin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvergeReport:
    """What one call came to."""

    host: HostId
    is_mine: bool
    """False: another worker holds the host's lease, or this one is converging it already."""
    problem: str = ""
    """Why it was not carried through; empty when it was."""
    actions: tuple[Action, ...] = ()
    findings: tuple[Finding, ...] = ()
    """Why what the plan wants is not so yet, and what was left alone; of the last pass."""
    next_due_at: Instant | None = None
    has_news: bool = False
    """Facts that planning reads were written: the plan may have something to decide."""


@dataclass(frozen=True, slots=True)
class _Pass:
    actions: tuple[Action, ...] = ()
    findings: tuple[Finding, ...] = ()
    has_asked: bool = False
    """An asking verb was called: another look may already show more to do."""


class Converge:
    """The converging of one host by one worker. Calls from several threads are safe; one at a time does the work."""

    def __init__(
        self,
        host: HostId,
        store: Store,
        drivers: Drivers,
        clock: Clock,
        runner: Runner,
        wake: Wake,
        *,
        plans: PlanCache,
        known_facts: FactsCache,
        settings: Settings,
        profile: HostProfile,
        actor: str,
        new_token: Callable[[], str],
    ) -> None:
        """`new_token` gives a lease token that nobody ever had; one is taken each time the lease is taken anew."""
        self._host = host
        self._store = store
        self._drivers = drivers
        self._clock = clock
        self._runner = runner
        self._wake = wake
        self._settings = settings
        self._profile = profile
        self._actor = actor
        self._lease = Lease(host_lease(host), store, clock, settings, new_token)
        self._plans = plans
        self._known_facts = known_facts
        self._plan: Plan | None = None
        self._facts: HostFacts | None = None
        self._tickets: list[Ticket] = []
        self._outcomes: deque[Outcome] = deque()
        self._told = Told(settings.finding_is_new_after_s)
        self._lock = Lock()
        self._is_asked_again = False
        self._has_news = False

    def converge(self) -> ConvergeReport:
        """Bring the host nearer to what the plan says; safe to call at any time, as often as one likes."""
        self._is_asked_again = True
        if not self._lock.acquire(blocking=False):
            # Whoever is at it takes one more look before it ends.
            return ConvergeReport(host=self._host, is_mine=False, problem="this worker is converging it already")
        try:
            return self._converge()
        except LeaseLost as error:
            self._forget_lease()
            # What was about to be told was not written: rather tell twice than never.
            self._told = Told(self._settings.finding_is_new_after_s)
            return ConvergeReport(host=self._host, is_mine=False, problem=text_of(error))
        except NightshiftError as error:
            # What was written and what was not is the store's to say: begin from what it has, and rather tell twice.
            self._facts = self._plan = None
            self._told = Told(self._settings.finding_is_new_after_s)
            return ConvergeReport(host=self._host, is_mine=True, problem=text_of(error))
        finally:
            self._lock.release()

    def release(self) -> None:
        """Give the lease up, so that another worker need not wait for its end; for a clean shutdown."""
        with self._lock:
            self._lease.release()
            self._forget_lease()

    def _converge(self) -> ConvergeReport:
        done: list[Action] = []
        last = _Pass()
        self._has_news = False
        for _ in range(MOST_PASSES):
            self._is_asked_again = False
            is_new = self._lease.hold()
            if is_new is None:
                self._facts = None
                return ConvergeReport(host=self._host, is_mine=False, problem="another worker holds its lease")
            last = self._pass(is_new_lease=is_new)
            done.extend(last.actions)
            if not last.has_asked and not self._is_asked_again:
                break
        return ConvergeReport(
            host=self._host,
            is_mine=True,
            actions=tuple(done),
            findings=last.findings,
            next_due_at=self._next_due_at(),
            has_news=self._has_news,
        )

    def _next_due_at(self) -> Instant | None:
        if self._plan is None or self._facts is None:
            return None
        now = self._clock.now()
        return next_due_at(self._plan, self._host, self._facts, now, profile=self._profile, settings=self._settings)

    def _forget_lease(self) -> None:
        self._lease.forget()
        self._facts = None

    # One pass.

    def _pass(self, *, is_new_lease: bool) -> _Pass:
        if is_new_lease:
            self._facts = None
        plan = self._current_plan()
        if self._host not in plan.hosts:
            return _Pass()
        old = self._current_facts(plan)
        outcomes = tuple(self._outcomes)
        facts, told = with_outcomes(old, outcomes, self._clock.now())
        events = self._told.without_repeats(told, self._clock.now())
        ended = {ticket for ticket, _ in outcomes}
        before_look = in_flight(tuple(ticket for ticket in self._tickets if ticket not in ended))
        look = self._look()
        now = self._clock.now()
        seen = witness(facts, look, plan, now, profile=self._profile, settings=self._settings, in_flight=before_look)
        self._record(old, seen.facts, (*events, *seen.events), seen.measurements)
        self._settle(outcomes)
        if isinstance(look, Unreachable):
            why = reason(
                ReasonCode.HOST_UNREACHABLE,
                host=self._host,
                since_at=seen.facts.unreachable_since_at,
                problem=seen.facts.problem,
            )
            return _Pass(findings=(Finding(reservation=None, why=why),))
        todo = self._decide(look, now)
        self._write(todo, now)
        has_asked = self._do(todo.actions, now)
        return _Pass(todo.actions, todo.findings, has_asked)

    def _current_plan(self) -> Plan:
        plan = self._plans.current()
        if plan is not self._plan:
            self._plan = plan
            if self._facts is not None:
                self._facts = forget_closed(self._facts, plan)
        return plan

    def _current_facts(self, plan: Plan) -> HostFacts:
        if self._facts is None:
            self._facts = forget_closed(in_order(self._store.load_facts(self._host)), plan)
        return self._facts

    def _look(self) -> ObservedHost | Unreachable:
        try:
            return self._drivers.hypervisor.look()
        except HostUnreachable as error:
            return Unreachable(problem=error.message or error.code, mend=str(error.facts.get("mend") or ""))

    def _record(
        self,
        old: HostFacts,
        new: HostFacts,
        events: tuple[Event, ...] = (),
        measurements: tuple[Measurement, ...] = (),
    ) -> None:
        """Commit a change of facts, guarded by the lease; nothing is written when nothing changed."""
        if old != new or events or measurements:
            revision = self._store.record_facts(
                self._host,
                self._lease.token,
                old,
                new,
                tuple(replace(told, actor=self._actor) for told in events),
                measurements,
                now_machine_s=self._clock.machine_s(),
            )
            if revision is not None:
                self._has_news = True
                self._known_facts.put(self._host, in_order(new), revision)
        self._facts = new

    def _settle(self, outcomes: tuple[Outcome, ...]) -> None:
        """Close the chains whose outcomes are committed."""
        for ticket, _ in outcomes:
            self._outcomes.popleft()
            self._tickets.remove(ticket)
        raise_defects(outcomes)

    # Deciding and doing.

    def _decide(self, look: ObservedHost, now: Instant) -> Diff:
        """Return what to do, with the spans of all starts pinned; decided anew when the plan has moved on."""
        todo = Diff()
        for _ in range(MOST_STALE_PLANS):
            plan = self._current_plan()
            facts = self._current_facts(plan)
            todo = diff(
                desired_host(plan, self._host, now, facts, self._settings),
                look,
                facts,
                now,
                in_flight=in_flight(tuple(self._tickets)),
                profile=self._profile,
                settings=self._settings,
            )
            starts = [action for action in todo.actions if isinstance(action, StartVm)]
            try:
                if starts:
                    self._pin(plan, starts, now)
            except StalePlan:
                self._plan = None
                continue
            return todo
        # The plan changes faster than it can be pinned: stop what must stop, and start at the next call.
        return replace(todo, actions=tuple(action for action in todo.actions if not isinstance(action, StartVm)))

    def _pin(self, plan: Plan, starts: list[StartVm], now: Instant) -> None:
        told = tuple(
            replace(
                event(
                    "span.pinned",
                    now,
                    reservation=start.vm.id,
                    host=self._host,
                    partition=start.vm.partition.id,
                    generation=start.vm.reservation.generation + 1,
                ),
                actor=self._actor,
            )
            for start in starts
        )
        change = PlanChange(reservations=tuple(pinned(start.vm.reservation, now) for start in starts), events=told)
        # Guarded by the lease like the facts: a pin from an old look would end the start that another one just made.
        self._plan = self._plans.commit(plan, change, author=self._actor, lease=self._lease.claim)

    def _write(self, todo: Diff, now: Instant) -> None:
        """Commit what is about to be asked, and what was found that is new."""
        assert self._facts is not None
        facts, events = write_asks(self._facts, todo.actions, now, profile=self._profile, settings=self._settings)
        self._record(self._facts, in_order(facts), (*events, *self._told.new(todo.findings, self._host, now)))
        self._told.mark(todo.findings, now)

    def _do(self, actions: tuple[Action, ...], now: Instant) -> bool:
        """Ask, in order; begin the chains; write the answers. Return whether an asking verb was called.

        What there is no time left to ask stays written as asked and not answered: the next pass asks it.
        """
        assert self._facts is not None
        facts, events = self._facts, list[Event]()
        until_machine_s = self._clock.machine_s() + ASKS_WITHIN_MACHINE_S
        asking = [action for action in actions if isinstance(action, Asking)]
        with self._lease.kept() if asking else nullcontext():
            for action in actions:
                if not self._lease.is_held():
                    raise LeaseLost(f"the lease of {self._host} was lost; nothing more is begun")
                if isinstance(action, Blocking):
                    self._begin(action, now)
                elif isinstance(action, Asking) and self._clock.machine_s() < until_machine_s:
                    key = ask_key(action)
                    assert key is not None
                    answer = ask(action, self._drivers, self._profile)
                    facts, told = with_answer(facts, *key, answer, self._clock.now())
                    events.extend(told)
        self._record(self._facts, facts, self._told.without_repeats(events, now))
        return bool(asking)

    def _begin(self, action: Blocking, now: Instant) -> None:
        token = self._lease.token
        ticket, steps = chain(
            action, self._drivers, self._clock, self._profile, self._settings, token=token, asked_at=now
        )
        self._tickets.append(ticket)

        def done(failure: Exception | None) -> None:
            self._outcomes.append((ticket, failure))
            self._wake.host(self._host)

        self._runner.run(ticket.key, under_lease(steps, lambda: self._lease.is_held_by(token)), done)
