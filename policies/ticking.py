"""The ticker as it runs: a tick each machine second, and one date job at the next instant when something is due.

APScheduler only wakes; what is due is computed by the plan, by converging and by `ticker`. A tick reads the plan's
version, files what the applied policy wants filed, and wakes the plan task and every host. Any number of these may run
at once: what fires once has a key in the database. Nothing that fails ends it: it says so once, and the next tick goes
on.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from policies.data_versions import data_versions, versions_text
from policies.drift import drifted_windows
from policies.format import LoadedPolicy
from policies.loading import load_policy
from policies.ticker import Filed, Ticker
from scheduler.core.converging.due import next_due_at
from scheduler.core.errors import NightshiftError
from scheduler.core.facts import HostFacts
from scheduler.core.plan import Plan
from scheduler.core.planner.due import next_plan_due_at
from scheduler.core.requests import HostId
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant
from scheduler.service.clock import InstallationClock
from scheduler.service.facts_cache import FactsCache
from scheduler.service.plan_cache import PlanCache
from scheduler.service.planned_windows import Compared, report_compared
from scheduler.service.ports import Wake
from scheduler.service.trouble import Trouble
from scheduler.store.store import Store

_log = logging.getLogger(__name__)

_TICK, _DUE = "tick", "due"
_NOT_BEFORE_S = 0.005
"""Not a moment before the clock shows the instant."""
_LEAST_AHEAD_S = 0.05
"""At great speeds something is due all the time: no more than so many ticks in a second for that."""
STALLED_AFTER_S = 5.0
"""So long without a tick, and the tick is entered anew: the machine's clock was set back, by which jobs are timed."""


COMPARE_EVERY_S = 3600.0
"""So often planned windows are compared with the time zones and holidays that are installed, in machine time."""


class PolicyUnreadable(NightshiftError):
    """The applied policy, as it is stored, cannot be read by this version of the program."""

    code = "policy.unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Basis:
    """What the next due instant was computed from: while that stays, so does the instant."""

    plan_version: int
    revisions: Mapping[HostId, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """Which planned windows were compared with those that the data of today makes, and when, in machine time."""

    policy_version: int
    hosts: frozenset[HostId]
    at_s: float


class Ticking:
    """One ticker."""

    def __init__(
        self,
        *,
        store: Store,
        clock: InstallationClock,
        wake: Wake,
        plans: PlanCache,
        known_facts: FactsCache,
        settings: Settings,
        name: str,
        seconds: Callable[[], float] = monotonic,
    ) -> None:
        """`name` is this ticker's, for its heartbeat."""
        self._store = store
        self._clock = clock
        self._wake = wake
        self._plans = plans
        self._known_facts = known_facts
        self._settings = settings
        self._name = name
        self._seconds = seconds
        self._ticker = Ticker(store.file_intent, settings)
        self._trouble = Trouble(_log)
        self._policy: tuple[int, LoadedPolicy | PolicyUnreadable] | None = None
        self._basis: _Basis | None = None
        self._due_at: Instant | None = None
        self._compared: _Compared | None = None
        self._ticked_s = seconds()
        # One thread: a tick and the date job never run at once, and neither does one beside itself.
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    def start(self) -> None:
        """Tick from a thread of its own, until `stop`."""
        # Of APScheduler's lines, that a tick took longer than a second would be the only one; `Trouble` says why.
        logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
        self._ticked_s = self._seconds()
        self._enter_tick()
        self._scheduler.start()

    def stop(self) -> None:
        """End after the tick that runs now."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)

    @property
    def seconds_since_last_tick(self) -> float:
        return self._seconds() - self._ticked_s

    def tend(self) -> None:
        """See to it that the tick goes on though the machine's clock was set; call it every second or so."""
        if self.seconds_since_last_tick > STALLED_AFTER_S:
            self._trouble.is_wrong("ticker.tick", "ticker.stalled", f"no tick for {self.seconds_since_last_tick:.0f} s")
            self._ticked_s = self._seconds()
            self._enter_tick()

    def tick(self) -> None:
        """File what is due, wake everybody, and enter the next due instant. Never raises."""
        self._ticked_s = self._seconds()
        try:
            plan = self._plans.current()
            self._file(plan)
            self._wake_all(plan)
            self._store.beat("ticker", self._name, self._clock.machine_s())
            self._enter_due(plan)
        except Exception as error:
            self._trouble.failed("ticker.tick", error)
        else:
            self._trouble.went_well("ticker.tick")

    def _file(self, plan: Plan) -> None:
        """File what the applied policy wants filed. If that fails the others are woken all the same."""
        try:
            policy = self._applied_policy(plan)
            if policy is not None and plan.rules is not None:
                filed = self._ticker.tick(
                    self._clock.now(),
                    policy=policy,
                    policy_version=plan.rules.version,
                    horizon_at=plan.horizon_at,
                    hosts=frozenset(plan.hosts),
                )
                self._tell(filed)
                self._compare_windows(plan, policy)
        except Exception as error:
            self._trouble.failed("ticker.file", error)
        else:
            self._trouble.went_well("ticker.file")

    def _compare_windows(self, plan: Plan, policy: LoadedPolicy) -> None:
        """Compare what is planned with what the data that is installed makes: at first, then every hour."""
        assert plan.rules is not None
        now_s, hosts = self._seconds(), frozenset(plan.hosts)
        last = self._compared
        if (
            last is not None
            and (last.policy_version, last.hosts) == (plan.rules.version, hosts)
            and now_s < last.at_s + COMPARE_EVERY_S
        ):
            return
        self._compared = _Compared(policy_version=plan.rules.version, hosts=hosts, at_s=now_s)
        record = self._store.policy(plan.rules.version)
        moved = drifted_windows(policy, plan, now=self._clock.now())
        if moved:
            _log.warning("policy.data_changed version=%d windows=%d", plan.rules.version, len(moved))
        report_compared(
            self._store,
            self._clock,
            Compared(version=plan.rules.version, moved=len(moved)),
            made_with=versions_text(() if record is None else record.note.made_with),
            installed=versions_text(data_versions()),
        )

    def next_due_at(self, plan: Plan) -> Instant | None:
        """Return the next instant at which plan, hosts or policy may have something to do by the clock alone.

        Costs one small query as long as neither the plan nor any facts have changed.
        """
        facts, revisions = self._known_facts.current()
        basis, now = _Basis(plan_version=plan.version, revisions=revisions), self._clock.now()
        if basis != self._basis or (self._due_at is not None and self._due_at <= now):
            self._basis, self._due_at = basis, self._first_due_at(plan, facts, now)
        quiet_until = self._ticker.quiet_until
        instants = (self._due_at, quiet_until if quiet_until > now else None)
        return min((at for at in instants if at is not None), default=None)

    def _first_due_at(self, plan: Plan, facts: Mapping[HostId, HostFacts], now: Instant) -> Instant | None:
        instants = [next_plan_due_at(plan, facts, now, self._settings)]
        for host in plan.hosts.values():
            known = facts.get(host.id) or HostFacts(host=host.id)
            instants.append(next_due_at(plan, host.id, known, now, profile=host.profile, settings=self._settings))
        return min((at for at in instants if at is not None), default=None)

    # The applied policy.

    def _applied_policy(self, plan: Plan) -> LoadedPolicy | None:
        """Return the policy that the plan follows; None when there is none, or none that can be read."""
        if plan.rules is None:
            return None
        version = plan.rules.version
        if self._policy is None or self._policy[0] != version:
            self._policy = version, self._load_policy(version, plan.rules.source)
        policy = self._policy[1]
        if isinstance(policy, PolicyUnreadable):
            # Nothing is filed any more, and nobody is stopped: what is planned goes on, and is woken.
            self._trouble.failed("ticker.policy", policy)
            return None
        self._trouble.went_well("ticker.policy")
        return policy

    def _load_policy(self, version: int, source: str) -> LoadedPolicy | PolicyUnreadable:
        record = self._store.policy(version)
        if record is None:
            return PolicyUnreadable(f"policy {version} is applied and not stored; apply it again", version=version)
        loaded = load_policy(record.text, source=source or f"policy-{version}", settings=self._settings)
        if not isinstance(loaded, tuple):
            return loaded
        return PolicyUnreadable(
            f"policy {version} as it is stored cannot be read: {loaded[0]}; correct it and apply it again",
            version=version,
            problems=len(loaded),
        )

    def _tell(self, filed: tuple[Filed, ...]) -> None:
        for one in filed:
            if not one.is_new:
                continue
            event = "policy.caught_up" if one.is_caught_up else "policy.filed"
            _log.info("%s key=%r intent=%d", event, one.key, one.intent.seq)

    # Waking.

    def _wake_all(self, plan: Plan) -> None:
        self._wake.plan()
        for host in sorted(plan.hosts):
            self._wake.host(host)

    def _enter_tick(self) -> None:
        self._scheduler.add_job(
            self.tick,
            IntervalTrigger(seconds=self._settings.tick_machine_s, timezone=UTC),
            id=_TICK,
            replace_existing=True,
            next_run_time=datetime.fromtimestamp(self._clock.machine_s(), UTC),
        )

    def _enter_due(self, plan: Plan) -> None:
        """Enter the date job anew, if something is due before the next tick: a tick at that instant."""
        due_at = self.next_due_at(plan)
        machine_s = None if due_at is None else self._clock.machine_s_at(due_at)
        now_s = self._clock.machine_s()
        if machine_s is None or machine_s > now_s + self._settings.tick_machine_s:
            return
        ahead_s = max(machine_s - now_s + _NOT_BEFORE_S, _LEAST_AHEAD_S)
        run_at = datetime.fromtimestamp(now_s, UTC) + timedelta(seconds=ahead_s)
        self._scheduler.add_job(self.tick, DateTrigger(run_date=run_at, timezone=UTC), id=_DUE, replace_existing=True)
