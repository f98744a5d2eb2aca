"""When a worker wakes somebody on its own: what came due on a rack or in the plan, and messages that stay away.

On a real host the hypervisor's events say that something happened; a simulated rack has instants instead, which are
watched here. If no message came for long, Redis or the ticker is away, or this process is connected and hears nothing:
then the worker looks by itself, once each tick, so that its hosts do not depend on any of them. That is told for each
host apart: where two workers serve one host, its messages may all go to the one that does not hold its lease.
"""

import logging
from collections.abc import Callable
from functools import partial
from threading import Event, Thread
from time import monotonic
from typing import TypeAlias

from scheduler.core.requests import HostId
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant
from scheduler.service.ports import Clock, Wake
from scheduler.service.trouble import Trouble
from workers.attending import Attended, Attending

_log = logging.getLogger(__name__)

WATCH_EVERY_S = 0.1
LOOK_AROUND_EVERY_S = 2.0
ALONE_AFTER_S = 10.0
"""So long without a message, and the worker looks by itself. As long as a message is good for."""
HELD_UNHEARD_S = 3.0
"""So long without a message for a host whose lease is held here: a lease that is not renewed ends what runs there."""

Begin: TypeAlias = Callable[[str, Callable[[], None]], None]
"""Does some work beside the caller, unless work of the same name is still being done."""


class _Beside:
    """A thread for each work, none for one that is being done: a host that hangs keeps nobody else waiting."""

    def __init__(self) -> None:
        self._threads: dict[str, Thread] = {}

    def begin(self, name: str, work: Callable[[], None]) -> None:
        """Not for several threads; `work` must not raise."""
        before = self._threads.get(name)
        if before is None or not before.is_alive():
            self._threads[name] = Thread(target=work, name=f"alone.{name}", daemon=True)
            self._threads[name].start()


class Watching:
    """One thread beside the one that takes messages. Is itself what messages reach: `workers.tasks.Looks`."""

    def __init__(
        self,
        attending: Attending,
        *,
        clock: Clock,
        wake: Wake,
        settings: Settings,
        on_hosts: Callable[[frozenset[HostId]], None],
        machine: Callable[[], float] = monotonic,
        begin: Begin | None = None,
    ) -> None:
        """`on_hosts` is told every few seconds which hosts this worker is to serve."""
        self._attending = attending
        self._clock = clock
        self._wake = wake
        self._settings = settings
        self._on_hosts = on_hosts
        self._machine = machine
        self._begin = begin or _Beside().begin
        self._heard_s = machine()
        self._plan_heard_s = self._heard_s
        self._host_heard_s: dict[HostId, float] = {}
        self._looked_around_s: float | None = None
        self._looked_alone_s: dict[str, float] = {}
        self._is_alone = False
        self._woken_for: dict[str, Instant] = {}
        self._trouble = Trouble(_log)
        self._is_closed = Event()
        self._thread: Thread | None = None

    # What messages reach.

    def plan(self) -> None:
        self._plan_heard_s = self._heard()
        self._attending.plan()
        self._attending.beat(has_planned=True)

    def converge(self, host: HostId) -> None:
        heard_s = self._heard()
        if host in self._attending.hosts:
            self._host_heard_s[host] = heard_s
        self._attending.converge(host)
        self._attending.beat(has_planned=False)

    def _heard(self) -> float:
        self._heard_s = self._machine()
        if self._is_alone:
            self._is_alone = False
            _log.info("worker.heard")
        return self._heard_s

    # What nobody says.

    def start(self) -> None:
        """Watch from a thread of its own, until `close`."""
        self._thread = Thread(target=self._watch_for_ever, name="watching", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._is_closed.set()
        if self._thread is not None:
            self._thread.join(1.0)

    def _watch_for_ever(self) -> None:
        while not self._is_closed.wait(WATCH_EVERY_S):
            try:
                self.watch()
            except Exception as error:
                self._trouble.failed("worker.watch", error)
            else:
                self._trouble.went_well("worker.watch")

    def watch(self) -> None:
        """Do once what is due by now."""
        now_s = self._machine()
        if self._looked_around_s is None or now_s - self._looked_around_s >= LOOK_AROUND_EVERY_S:
            self._looked_around_s = now_s
            self._on_hosts(self._attending.look_around())
        self._look_alone(now_s)
        now = self._clock.now()
        if self._attending.does_plan and self._is_new("plan", self._attending.plan_due_at, now):
            self._wake.plan()
        for host, attended in self._attending.hosts.items():
            of_plan = self._is_new(f"host.{host}", attended.next_due_at, now)
            of_rack = self._is_new(f"rack.{host}", self._rack_due_at(host, attended), now)
            if of_plan or of_rack:
                self._wake.host(host)

    def _rack_due_at(self, host: HostId, attended: Attended) -> Instant | None:
        """Return when something comes due on a rack; None when it cannot be read, which is not the others' trouble."""
        try:
            due_at = attended.reached.next_due_at()
        except Exception as error:
            self._trouble.failed("rack.watch", error, of=host)
            return None
        self._trouble.went_well("rack.watch", of=host)
        return due_at

    def _is_new(self, what: str, due_at: Instant | None, now: Instant) -> bool:
        """Whether something came due that nobody was woken for yet; woken once, the rest is up to the tick."""
        if due_at is None or due_at > now or self._woken_for.get(what) == due_at:
            return False
        self._woken_for[what] = due_at
        return True

    def _look_alone(self, now_s: float) -> None:
        """Look at what no message came for, once each tick."""
        if now_s - self._heard_s >= ALONE_AFTER_S and not self._is_alone:
            self._is_alone = True
            _log.warning("worker.alone no_message_s=%d; it looks by itself each tick", ALONE_AFTER_S)
        if self._attending.does_plan and now_s - self._plan_heard_s >= ALONE_AFTER_S:
            self._begin_alone("plan", self._attending.plan, now_s)
        for host, attended in sorted(self._attending.hosts.items()):
            unheard_s = now_s - self._host_heard_s.setdefault(host, self._heard_s)
            if unheard_s >= (HELD_UNHEARD_S if attended.is_mine else ALONE_AFTER_S):
                self._begin_alone(f"host.{host}", partial(self._attending.converge, host), now_s)

    def _begin_alone(self, name: str, look: Callable[[], None], now_s: float) -> None:
        looked_s = self._looked_alone_s.get(name)
        if looked_s is None or now_s - looked_s >= self._settings.tick_machine_s:
            self._looked_alone_s[name] = now_s
            self._begin(name, look)
