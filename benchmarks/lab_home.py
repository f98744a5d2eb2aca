"""Nightshift in one process on the virtual DGX-2, in real time: its own parts, and only the messages replaced.

Store on a file, plan task, converge with its threads, libvirt's drivers. A wake is answered at once, as a message would
be; a thread does what the ticker and the worker's watch do. Can be paused, so that others may be measured on the host.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic, sleep
from uuid import uuid4

from benchmarks.driver_calls import WOKEN, Calls, timed
from policies.loading import load_policy
from policies.ticker import apply_intent
from scheduler.core.intents import AddHost, Intent, Stop, Submit, reservation_id
from scheduler.core.requests import Ask, HostId, ReservationId, Role
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile
from scheduler.profiles.loading import load_profile
from scheduler.service.clock import RealClock
from scheduler.service.facts_cache import FactsCache
from scheduler.service.plan import PlanTask
from scheduler.service.plan_cache import PlanCache
from scheduler.service.submit import Desk
from scheduler.store.store import Store
from tests.lab.site import PROFILE
from workers.converge import Converge
from workers.drivers.libvirt.host import LibvirtHost
from workers.runners import ThreadRunner
from workers.watching import WATCH_EVERY_S

HOST = HostId("lab-a")
IMAGE = "guest"
MORE_THREADS = 4
"""As in a worker: besides one for each GPU."""
START_WITHIN_S = 300
DECIDED_WITHIN_S = 10.0
LOOK_EVERY_S = 0.02

POLICY = f"""\
version: 1
zone: UTC
layouts:
  all: {{sizes: [1, 2, 4, 8, 16], queues: [any]}}
outside: all
queues:
  any: {{at_boundary: finish, default_disk: 1GiB}}
images: [{IMAGE}]
defaults: {{disk: 1GiB, grace: 10s, min_useful: 1m}}
"""

_log = logging.getLogger(__name__)


class Refused(AssertionError):
    """The plan says no to what a measurement asks for, or nothing."""


class Home:
    """One Nightshift with one host. `close` ends it; the host goes on."""

    def __init__(self, uri: str, database: Path) -> None:
        self.calls = Calls()
        self.profile = _profile(PROFILE)
        self._settings = Settings()
        self._clock = RealClock()
        self._plan_loop = _Loop("plan", self._look_at_plan)
        self._host_loop = _Loop("host", self._look_at_host)
        wake = _Wake(self._plan_loop, self._host_loop, self.calls)
        self._store = Store.open(f"sqlite:///{database}", profiles=_profile)
        self._store.migrate()
        plans, known_facts = PlanCache(self._store, self._clock), FactsCache(self._store)
        self._desk = Desk(store=self._store, clock=self._clock, wake=wake)
        self._plan_task = PlanTask(
            store=self._store,
            clock=self._clock,
            wake=wake,
            plans=plans,
            known_facts=known_facts,
            settings=self._settings,
            profiles=_profile,
        )
        self._libvirt = LibvirtHost(HOST, self.profile, uri, on_change=self._host_loop.wake)
        self.drivers = self._libvirt.drivers()
        """For steps by hand, which are not among `calls`."""
        self._runner = ThreadRunner(len(self.profile.gpus) + MORE_THREADS)
        self._converge = Converge(
            HOST,
            self._store,
            timed(self.drivers, self.calls),
            self._clock,
            self._runner,
            wake,
            plans=plans,
            known_facts=known_facts,
            settings=self._settings,
            profile=self.profile,
            actor="benchmark",
            new_token=lambda: f"benchmark/{uuid4().hex}",
        )
        self._due_at: dict[str, Instant | None] = {}
        self._is_closed = Event()
        Thread(target=self._watch, name="watch", daemon=True).start()
        self._set_up(uri)

    def _set_up(self, uri: str) -> None:
        self._libvirt.need_images([IMAGE])
        self.do(AddHost(host=HOST, profile=PROFILE, storage="lab", connect=uri), role=Role.ADMIN)
        policy = load_policy(POLICY, source="benchmark.yaml")
        assert not isinstance(policy, tuple), policy
        now = self._clock.now()
        self.do(apply_intent(policy, [HOST], now=now, version=1, settings=self._settings), role=Role.ADMIN)

    # What people do.

    def submit(self, gpus: int, *, run_s: int) -> ReservationId:
        """File a reservation and return the id that it gets; not waiting for what becomes of it."""
        ask = Ask(owner="benchmark", queue="any", gpus=gpus, run_s=run_s, disk_gib=1)
        return reservation_id(self._desk.file(Submit(ask=ask), author="benchmark", role=Role.STUDENT).seq)

    def stop(self, reservation: ReservationId) -> None:
        """End a reservation now; returns once that is decided."""
        self.do(Stop(reservation=reservation), role=Role.STUDENT)

    def do(self, intent: Intent, *, role: Role) -> None:
        """File an intent and wait until it is decided. Raises Refused."""
        filed = self._desk.file(intent, author="benchmark", role=role)
        ends_s = monotonic() + DECIDED_WITHIN_S
        while (decided := self._desk.decision(filed.seq)) is None:
            if monotonic() > ends_s:
                raise Refused(f"{intent.kind} is not decided after {DECIDED_WITHIN_S:g} s")
            sleep(LOOK_EVERY_S)
        if not decided.is_accepted:
            raise Refused(f"{intent.kind}: {decided.reasons}")

    # What makes it go.

    def pause(self) -> None:
        """Look at nothing any more, once a look that is being made has ended."""
        self._plan_loop.pause()
        self._host_loop.pause()

    def resume(self) -> None:
        self._plan_loop.resume()
        self._host_loop.resume()

    def close(self) -> None:
        self._is_closed.set()
        self.pause()
        self._runner.close()
        self._converge.release()
        self._libvirt.close()
        self._store.close()

    def _look_at_plan(self) -> None:
        self._due_at["plan"] = self._plan_task.run().next_due_at

    def _look_at_host(self) -> None:
        report = self._converge.converge()
        self._due_at["host"] = report.next_due_at
        if report.has_news:
            self._plan_loop.wake()
        if report.problem:
            _log.warning("host.converge problem=%s", report.problem)

    def _watch(self) -> None:
        """Wake at each tick, and when something came due: what the ticker does, and `workers.watching`."""
        loops = {"plan": self._plan_loop, "host": self._host_loop}
        woken_for: dict[str, Instant] = {}
        ticked_s = monotonic()
        while not self._is_closed.wait(WATCH_EVERY_S):
            is_tick = monotonic() - ticked_s >= self._settings.tick_machine_s
            if is_tick:
                ticked_s = monotonic()
            for name, loop in loops.items():
                due_at = self._due_at.get(name)
                is_due = due_at is not None and due_at <= self._clock.now() and woken_for.get(name) != due_at
                if is_due and due_at is not None:
                    woken_for[name] = due_at
                if is_tick or is_due:
                    loop.wake()


@cache
def _profile(name: str) -> HostProfile:
    """Return a host profile by which a start may take long: how long is what is measured, and not to be cut off."""
    profile = load_profile(name)
    patient = tuple((gpus, START_WITHIN_S) for gpus, _ in profile.bounds.start_s_by_size)
    return replace(profile, bounds=replace(profile.bounds, start_s_by_size=patient))


class _Wake:
    """`scheduler.service.ports.Wake` within this process."""

    def __init__(self, plan_loop: "_Loop", host_loop: "_Loop", calls: Calls) -> None:
        self._plan_loop = plan_loop
        self._host_loop = host_loop
        self._calls = calls

    def plan(self) -> None:
        self._plan_loop.wake()

    def host(self, host: HostId) -> None:
        self._calls.note(WOKEN)
        self._host_loop.wake()


class _Loop:
    """A thread that does some work whenever it is woken, once for all who wake it meanwhile."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self._name = name
        self._work = work
        self._is_woken = Event()
        self._turn = Lock()
        self._is_paused = False
        Thread(target=self._work_for_ever, name=name, daemon=True).start()

    def wake(self) -> None:
        self._is_woken.set()

    def pause(self) -> None:
        self._is_paused = True
        with self._turn:
            """What is being done has ended."""

    def resume(self) -> None:
        self._is_paused = False
        self.wake()

    def _work_for_ever(self) -> None:
        while True:
            self._is_woken.wait()
            self._is_woken.clear()
            with self._turn:
                if self._is_paused:
                    continue
                try:
                    self._work()
                except Exception:
                    _log.exception("%s.failed", self._name)
