"""What one worker process keeps: its plan task, and for each host that it reaches converge, threads and the rack.

The hosts are those named to it, or every host that has a rack file in the data directory or is reached over libvirt; a
host that comes later is attended to later, without a restart. Must not hold how messages arrive (`consuming`) nor when
somebody is woken (`watching`), nor how a host is opened (`reaching`).
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from uuid import uuid4

from scheduler.core.connect import machine_of
from scheduler.core.plan import Host, Plan, Rules
from scheduler.core.reasons import ReasonCode
from scheduler.core.requests import HostId
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile
from scheduler.service.facts_cache import FactsCache
from scheduler.service.plan import PlanTask
from scheduler.service.plan_cache import PlanCache
from scheduler.service.ports import Clock, Wake
from scheduler.service.trouble import Trouble
from scheduler.store.store import Store
from workers.converge import Converge, ConvergeReport
from workers.drivers.simulated.schema import rack_path
from workers.ports import HostUnreachable
from workers.reaching import REAL_SPEED, NoRack, Reached, reach
from workers.runners import ThreadRunner

_log = logging.getLogger(__name__)

STEPS_END_WITHIN_S = 3.0
"""How long a clean end waits for steps that run; what runs on after that harms nobody."""
RELEASED_WITHIN_S = 2.0
"""How long it waits for looks that run, and for the database, until the leases are given up."""
_MORE_THREADS = 4
"""Besides one for each GPU: disks are wiped beside starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What everything in a worker process works with."""

    data: Path
    store: Store
    clock: Clock
    wake: Wake
    plans: PlanCache
    known_facts: FactsCache
    settings: Settings
    profiles: Callable[[str], HostProfile]
    instance: str
    """This life of this worker; its heartbeats carry it, and its lease tokens begin with it."""
    speed: Callable[[], float] = lambda: REAL_SPEED
    """How many product seconds pass in one."""


@dataclass(slots=True, kw_only=True)
class Attended:
    """One host that this process attends to."""

    reached: Reached
    connect: str
    """How it was opened; the plan may come to say another way."""
    converge: Converge
    runner: ThreadRunner
    images_of_version: int | None = None
    """The version of the rules whose images it was told of."""
    next_due_at: Instant | None = None
    """When converging it may have something to do on its own, by its last look."""
    is_mine: bool = False
    """The last look was made with the host's lease."""


@dataclass(slots=True)
class _Planning:
    lock: Lock = field(default_factory=Lock)
    is_asked_again: bool = False
    next_due_at: Instant | None = None


class Attending:
    """Looks when told to. Safe to use from several threads."""

    def __init__(
        self, shared: Shared, *, hosts: frozenset[HostId], does_plan: bool, serves_local: bool = False
    ) -> None:
        """`hosts`: only these; if there are none, every host with a rack file here, and every real one.

        `serves_local`: also those whose URI means the worker's own machine. Several machines have such hosts, and each
        would take its own libvirt for all of them; whoever serves only one machine says so.
        """
        self._shared = shared
        self._named = hosts
        self._serves_local = serves_local
        self.does_plan = does_plan
        self._plan_task = PlanTask(
            store=shared.store,
            clock=shared.clock,
            wake=shared.wake,
            plans=shared.plans,
            known_facts=shared.known_facts,
            settings=shared.settings,
            profiles=shared.profiles,
        )
        self._planning = _Planning()
        self._trouble = Trouble(_log)
        self._opening = Lock()
        self._opened_now: set[HostId] = set()
        """Hosts that are being opened: one that hangs must not keep the others waiting, nor their threads."""
        self._real: frozenset[HostId] = frozenset()
        """Hosts of the plan that are reached over libvirt, by the last look around."""
        self._attended: dict[HostId, Attended] = {}
        self._is_closed = Event()

    # Which hosts.

    @property
    def hosts(self) -> Mapping[HostId, Attended]:
        """The hosts that are attended to now."""
        return dict(self._attended)

    def reachable(self) -> frozenset[HostId]:
        """Return the hosts that this process is to serve, whether it can attend to them already or not."""
        if self._named:
            return frozenset(filter(self._can_be_named, self._named))
        suffix = rack_path(self._shared.data, "").name
        found = (self._shared.data / "racks").glob(f"*{suffix}")
        names = frozenset(HostId(path.name.removesuffix(suffix)) for path in found)
        return frozenset(filter(self._can_be_named, names | self._real))

    def _can_be_named(self, host: HostId) -> bool:
        """Whether a host can have this name, of a file or on the command line; of no other can messages be taken."""
        if host and host.isprintable():
            return True
        self._trouble.is_wrong(
            "host.attend",
            "host.bad_name",
            "no host can have this name; name another, or move the file away",
            of=f"{host!a}",
        )
        return False

    def look_around(self) -> frozenset[HostId]:
        """Attend to hosts that have come since the last call, and return all that it is to serve. Never raises."""
        try:
            plan = self._shared.plans.current()
        except Exception as error:
            self._trouble.failed("worker.look_around", error)
            return self.reachable()
        self._trouble.went_well("worker.look_around")
        self._real = frozenset(filter(None, map(self._served, plan.hosts.values())))
        reachable = self.reachable()
        for host in sorted(reachable):
            if host in plan.hosts:
                self._attend(host, plan)
        return reachable

    def _served(self, host: Host) -> HostId | None:
        """Return a real host that is to be served though nobody named it."""
        if not host.connect:
            return None
        if machine_of(host.connect) or self._serves_local:
            return host.id
        if not self._named:
            self._trouble.is_wrong(
                "host.attend",
                "host.not_named",
                f"{host.id} is reached by {host.connect}, which means each machine itself; start the worker there with"
                f" --host {host.id}",
                of=host.id,
            )
        return None

    def _attend(self, host: HostId, plan: Plan) -> Attended | None:
        """Return a host of the plan as it is attended to; None when it cannot be, which is told once."""
        with self._opening:
            if self._is_closed.is_set() or host in self._attended or host in self._opened_now:
                return self._attended.get(host)
            self._opened_now.add(host)
        try:
            return self._opened(host, plan)
        except Exception as error:
            self._trouble.failed("host.attend", error, of=host)
            return None
        finally:
            with self._opening:
                self._opened_now.discard(host)

    def _opened(self, host: HostId, plan: Plan) -> Attended | None:
        try:
            attended = self._open(plan.hosts[host])
        except NoRack as error:
            self._trouble.is_wrong("host.attend", error.code, error.message, of=host)
            return None
        with self._opening:
            if self._is_closed.is_set():
                attended.reached.close()
                return None
            self._attended[host] = attended
        self._trouble.went_well("host.attend", of=host)
        _log.info("host.attended host=%s profile=%s", host, plan.hosts[host].profile.name)
        return attended

    def _open(self, host: Host) -> Attended:
        shared = self._shared
        reached = reach(
            host,
            shared.data,
            shared.clock,
            speed=shared.speed(),
            on_change=lambda: shared.wake.host(host.id),
        )
        runner = ThreadRunner(len(host.profile.gpus) + _MORE_THREADS)
        converge = Converge(
            host.id,
            shared.store,
            reached.drivers(),
            shared.clock,
            runner,
            shared.wake,
            plans=shared.plans,
            known_facts=shared.known_facts,
            settings=shared.settings,
            profile=host.profile,
            actor=shared.instance,
            new_token=self._new_token,
        )
        return Attended(reached=reached, connect=host.connect, converge=converge, runner=runner)

    def _new_token(self) -> str:
        return f"{lease_prefix(self._shared.instance)}{uuid4().hex}"

    # Looking.

    @property
    def plan_due_at(self) -> Instant | None:
        """When the clock alone may next change the plan, by the last run here."""
        return self._planning.next_due_at

    def plan(self) -> None:
        """Bring the plan up to date. A call while another is at it makes that one look once more."""
        planning = self._planning
        planning.is_asked_again = True
        while planning.is_asked_again and planning.lock.acquire(blocking=False):
            try:
                planning.is_asked_again = False
                run = self._plan_task.run()
                planning.next_due_at = run.next_due_at
                if run.is_changed:
                    _log.info("plan.changed version=%d", run.version)
                self._trouble.went_well("plan.run")
            except Exception as error:
                self._trouble.failed("plan.run", error)
                return
            finally:
                planning.lock.release()

    def converge(self, host: HostId) -> None:
        """Bring a host nearer to what the plan says."""
        if self._is_closed.is_set():
            return
        try:
            plan = self._shared.plans.current()
            if host not in plan.hosts:
                self._trouble.is_wrong(
                    "host.converge", "host.unknown", f"the plan has no {host}; add it first", of=host
                )
                return
            attended = self._as_the_plan_says(host, plan) or self._attend(host, plan)
            if attended is None:
                return
            if plan.rules is not None:
                self._need_images(host, attended, plan.rules)
            report = attended.converge.converge()
            attended.is_mine = report.is_mine
            if report.is_mine:
                attended.next_due_at = report.next_due_at
                self._tell(report)
            if report.has_news:
                self._shared.wake.plan()
        except Exception as error:
            self._trouble.failed("host.converge", error, of=host)
            return
        finally:
            if self._is_closed.is_set():
                # The end came meanwhile, and may have given the lease up before this look took it again.
                self._release(host)
        if report.is_mine:
            self._beat("host", host)

    def _as_the_plan_says(self, host: HostId, plan: Plan) -> Attended | None:
        """Return a host as it is attended to; one that the plan reaches another way by now is let go of first."""
        attended = self._attended.get(host)
        if attended is None or attended.connect == plan.hosts[host].connect:
            return attended
        with self._opening:
            if self._attended.get(host) is attended:
                del self._attended[host]
        _log.info("host.reached_anew host=%s", host)
        attended.runner.begin_close()
        self._release_one(host, attended)
        attended.reached.close()
        return None

    def _need_images(self, host: HostId, attended: Attended, rules: Rules) -> None:
        """Let a host know which images the rules name; once for each version of them."""
        if attended.images_of_version == rules.version:
            return
        try:
            attended.reached.need_images(rules.images)
        except HostUnreachable as error:
            # The look that follows finds the same, and writes it down.
            self._trouble.failed("host.images", error, of=host)
            return
        self._trouble.went_well("host.images", of=host)
        attended.images_of_version = rules.version

    def _tell(self, report: ConvergeReport) -> None:
        if report.actions:
            kinds = [type(action).__name__ for action in report.actions]
            asked = ",".join(f"{kind}:{kinds.count(kind)}" for kind in sorted(set(kinds)))
            _log.info("host.asked host=%s actions=%s", report.host, asked)
        blind = [finding for finding in report.findings if finding.why.code is ReasonCode.HOST_UNREACHABLE]
        if not blind and not report.problem:
            self._trouble.went_well("host.look", of=report.host)
        if report.problem:
            code, _, problem = report.problem.partition(": ")
            self._trouble.is_wrong("host.converge", code, problem, of=report.host)
        elif blind:
            facts = dict(blind[0].why.facts)
            self._trouble.is_wrong("host.look", blind[0].why.code, str(facts.get("problem", "")), of=report.host)
        else:
            self._trouble.went_well("host.converge", of=report.host)

    def beat(self, *, has_planned: bool) -> None:
        """Say that messages arrive here, and that one of them led to a run of the plan task."""
        self._beat("worker", self._shared.instance)
        if has_planned:
            self._beat("plan", self._shared.instance)

    def _beat(self, kind: str, name: str) -> None:
        try:
            self._shared.store.beat(kind, name, self._shared.clock.machine_s())
        except Exception as error:
            self._trouble.failed("worker.beat", error)
        else:
            self._trouble.went_well("worker.beat")

    # The end.

    def close(self) -> None:
        """Begin nothing more, wait a little for what runs, and give the leases up. What was written stays as it is."""
        with self._opening:
            self._is_closed.set()
        attended = self.hosts
        for one in attended.values():
            one.runner.begin_close()
        waiting = [Thread(target=one.runner.close, name="closing", daemon=True) for one in attended.values()]
        for thread in waiting:
            thread.start()
        _join(waiting, STEPS_END_WITHIN_S)
        # Each from a thread of its own: a host that hangs in a look must not keep the leases of the others.
        releasing = [Thread(target=self._release, args=(host,), name="releasing", daemon=True) for host in attended]
        for thread in releasing:
            thread.start()
        _join(releasing, RELEASED_WITHIN_S)

    def _release(self, host: HostId) -> None:
        attended = self._attended.get(host)
        if attended is not None:
            self._release_one(host, attended)

    def _release_one(self, host: HostId, attended: Attended) -> None:
        try:
            attended.converge.release()
        except Exception as error:
            self._trouble.failed("host.release", error, of=host)


def _join(threads: Iterable[Thread], within_s: float) -> None:
    until_s = monotonic() + within_s
    for thread in threads:
        thread.join(max(0.0, until_s - monotonic()))


def lease_prefix(instance: str) -> str:
    """Return how the lease tokens of a worker begin, so that those of a dead one can be given up for it."""
    return f"{instance}/"
