"""One Nightshift in one process and one thread, in virtual time.

The same plan task, converge, store and policies as in service, on simulated racks. Only the clock, the waking and the
threads are those of a replay: what is due next is looked at next. `simulate` and the tests of histories run on it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from policies.format import LoadedPolicy
from policies.ticker import Ticker, apply_intent
from policies.windows import windows_between
from scheduler.core.errors import NightshiftError
from scheduler.core.facts import HostFacts
from scheduler.core.intents import AddHost, FiledIntent, Intent
from scheduler.core.plan import Decided, Plan
from scheduler.core.reasons import ReasonCode
from scheduler.core.replay import Agenda, VirtualClock
from scheduler.core.requests import HostId, Role
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile
from scheduler.profiles.loading import load_profile
from scheduler.service.facts_cache import FactsCache
from scheduler.service.plan import PlanTask
from scheduler.service.plan_cache import PlanCache
from scheduler.service.submit import Desk
from scheduler.store.store import Store
from workers.converge import Converge
from workers.drivers.simulated.rack import SimulatedRack
from workers.drivers.simulated.schema import Durability
from workers.ports import Drivers
from workers.runners import AgendaRunner

MOST_ROUNDS = 50
"""How often plan and hosts may wake each other at one instant before that is called a defect."""
LOOK_AGAIN_S = 30
"""When a host is looked at again that could not be, or not by this worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSetup:
    """A simulated host to run on."""

    host: HostId
    profile: str
    storage: str


class InProcess:
    """Put together for one run; `agenda.run_until` makes time pass."""

    def __init__(
        self,
        *,
        now: Instant,
        hosts: tuple[HostSetup, ...],
        store_url: str = "sqlite://",
        rack_directory: Path | None = None,
        seed: int = 1,
        settings: Settings | None = None,
        on_commit: Callable[[str], None] | None = None,
        watch: Callable[[Drivers], Drivers] | None = None,
    ) -> None:
        """`watch` is put between every worker and its host, as `on_commit` is around every commit."""
        self.settings = settings or Settings()
        self.watch = watch
        self.clock = VirtualClock(now)
        self.agenda = Agenda(self.clock)
        self._profiles: dict[str, HostProfile] = {}
        self.store = Store.open(store_url, durability="off", profiles=self.profile, on_commit=on_commit)
        self.store.migrate()
        self.wake = _Woken(self)
        self.desk = Desk(store=self.store, clock=self.clock, wake=self.wake)
        self.plans = PlanCache(self.store, self.clock)
        self.known_facts = FactsCache(self.store)
        self.plan_task = PlanTask(
            store=self.store,
            clock=self.clock,
            wake=self.wake,
            plans=self.plans,
            known_facts=self.known_facts,
            settings=self.settings,
            profiles=self.profile,
        )
        self.policy: LoadedPolicy | None = None
        self.ticker = Ticker(self.store.file_intent, self.settings)
        self.racks: dict[HostId, SimulatedRack] = {}
        self.workers: dict[HostId, Worker] = {}
        self.on_looked: Callable[[], None] | None = None
        """Called whenever everything has come to rest at an instant."""
        self._is_entered_at: Instant | None = None
        self._tokens = 0
        self.deaths = 0
        """How many workers were replaced so far; numbers their tokens."""
        for setup in hosts:
            self._add_host(setup, rack_directory, seed)

    def profile(self, name: str) -> HostProfile:
        if name not in self._profiles:
            self._profiles[name] = load_profile(name)
        return self._profiles[name]

    def _add_host(self, setup: HostSetup, rack_directory: Path | None, seed: int) -> None:
        rack = SimulatedRack(
            rack_directory, setup.host, self.profile(setup.profile), self.clock, seed=seed, durability=Durability.FAST
        )
        self.racks[setup.host] = rack
        self.workers[setup.host] = Worker(self, setup.host, rack)
        plan = self.plan
        windows = (
            windows_between(
                self.policy,
                [setup.host],
                from_at=self.clock.now(),
                until_at=plan.horizon_at,
                version=plan.rules.version,
            )
            if self.policy is not None and plan is not None and plan.rules is not None
            else ()
        )
        self.desk.file(
            AddHost(
                host=setup.host,
                profile=setup.profile,
                storage=setup.storage,
                windows=windows,
                policy_version=plan.rules.version if plan is not None and plan.rules is not None else 0,
                horizon_at=plan.horizon_at if plan is not None else 0,
            ),
            author="set-up",
            role=Role.ADMIN,
        )

    def next_token(self) -> str:
        """Return a lease token that was never used."""
        self._tokens += 1
        return f"lease-{self._tokens}"

    # What people and policies do.

    def apply_policy(self, policy: LoadedPolicy) -> Decided:
        """Apply a checked policy and return what became of it; on a yes the ticker follows it from now on."""
        for rack in self.racks.values():
            for image in policy.rules(1).images:
                rack.install_image(image)
        self.look()
        version = (self.plan.rules.version if self.plan and self.plan.rules else 0) + 1
        intent = apply_intent(policy, sorted(self.racks), now=self.clock.now(), version=version, settings=self.settings)
        decided = self.do(intent, author="admin", role=Role.ADMIN)
        if decided.is_accepted:
            self.policy = policy
            self.look()
        return decided

    def do(self, intent: Intent, *, author: str, role: Role = Role.STUDENT) -> Decided:
        """File an intent, let it be decided, and return what became of it."""
        filed: FiledIntent = self.desk.file(intent, author=author, role=role)
        self.look()
        decided = self.desk.decision(filed.seq)
        if decided is None:
            raise NightshiftError(f"intent {filed.seq} was not decided at {self.clock.now()}")
        return decided

    @property
    def plan(self) -> Plan | None:
        return self.plans.last_seen

    @property
    def facts(self) -> Mapping[HostId, HostFacts]:
        return self.plan_task.facts

    # What makes it go.

    def enter_look(self) -> None:
        """See to it that everything is looked at at this instant, once."""
        now = self.clock.now()
        if self._is_entered_at != now:
            self._is_entered_at = now
            self.agenda.at(now, self._entered)

    def _entered(self) -> None:
        self._is_entered_at = None
        self.look()

    def look(self) -> None:
        """Let ticker, plan and hosts look until nothing is left to do at this instant; then enter what comes next."""
        due: list[Instant | None] = []
        for _ in range(MOST_ROUNDS):
            due = [self._tick_and_plan()]
            woken = [worker for _, worker in sorted(self.workers.items()) if worker.is_due(self.clock.now())]
            if not woken:
                break
            for worker in woken:
                worker.converge()
        else:
            raise NightshiftError(f"plan and hosts did not come to rest at {self.clock.now()}")
        if self.on_looked is not None:
            self.on_looked()
        due += [worker.due_at for worker in self.workers.values()]
        now = self.clock.now()
        coming = min((instant for instant in due if instant is not None and instant > now), default=None)
        if coming is not None:
            self.agenda.at(coming, self._at_due)

    def _at_due(self) -> None:
        # Several looks may have entered the same instant: the first of them does the work.
        self.enter_look()

    def _tick_and_plan(self) -> Instant | None:
        run = self.plan_task.run()
        plan = self.plan
        if self.policy is not None and plan is not None and plan.rules is not None:
            filed = self.ticker.tick(
                self.clock.now(),
                policy=self.policy,
                policy_version=plan.rules.version,
                horizon_at=plan.horizon_at,
                hosts=frozenset(plan.hosts),
            )
            if filed:
                run = self.plan_task.run()
        ticks_at = self.ticker.quiet_until
        return min((at for at in (run.next_due_at, ticks_at) if at is not None), default=None)

    def kill_worker(self, host: HostId) -> None:
        """Let a host's worker die as by `kill -9`; nobody takes its place yet."""
        self.workers.pop(host).runner.kill()

    def replace_worker(self, host: HostId) -> None:
        """Let another worker take a host's worker's place, which dies as by `kill -9` unless it is dead already."""
        if host in self.workers:
            self.kill_worker(host)
        self.deaths += 1
        self.workers[host] = Worker(self, host, self.racks[host])
        self.enter_look()

    def close(self) -> None:
        for rack in self.racks.values():
            rack.close()
        self.store.close()


class Worker:
    """One host's converge and the chains it has under way."""

    def __init__(self, home: InProcess, host: HostId, rack: SimulatedRack) -> None:
        self._home = home
        self._rack = rack
        self.runner = AgendaRunner(home.agenda, home.clock)
        self._converge = Converge(
            host=host,
            store=home.store,
            drivers=rack.drivers() if home.watch is None else home.watch(rack.drivers()),
            clock=home.clock,
            runner=self.runner,
            wake=home.wake,
            plans=home.plans,
            known_facts=home.known_facts,
            settings=home.settings,
            profile=rack.profile,
            actor=f"worker-{host}-{home.deaths}",
            new_token=home.next_token,
        )
        self.is_woken = True
        self.is_at_work = False
        """Its converge is running right now."""
        self._converge_due_at: Instant | None = None
        self._seen_due_at: Instant | None = None

    @property
    def due_at(self) -> Instant | None:
        """When there is something to see or to do next, as far as the clock tells."""
        instants = (self._converge_due_at, self._rack.next_due_at())
        # What came due on the host and was not seen yet is seen when somebody gets to look again.
        return min((at for at in instants if at is not None and at > self._home.clock.now()), default=None)

    def is_due(self, now: Instant) -> bool:
        return self.is_woken or (self._seen_due_at is not None and self._seen_due_at <= now)

    def converge(self) -> None:
        self.is_woken = False
        self.is_at_work = True
        try:
            report = self._converge.converge()
        finally:
            self.is_at_work = False
        self._converge_due_at = report.next_due_at
        is_blind = any(finding.why.code is ReasonCode.HOST_UNREACHABLE for finding in report.findings)
        if not report.is_mine or report.problem or is_blind:
            # In service the next tick looks again; here nothing else would.
            self._converge_due_at = self._home.clock.now() + LOOK_AGAIN_S
        self._seen_due_at = self.due_at


@dataclass(slots=True)
class _Woken:
    """Wakes by entering a look; a host's wake also marks its worker."""

    home: InProcess
    plans: int = field(default=0)

    def plan(self) -> None:
        self.plans += 1
        self.home.enter_look()

    def host(self, host: HostId) -> None:
        worker = self.home.workers.get(host)
        if worker is not None:
            worker.is_woken = True
        self.home.enter_look()
