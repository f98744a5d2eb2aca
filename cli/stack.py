"""All processes of one Nightshift on one machine, kept running: Redis, worker, ticker and API.

The supervisor as a library; `up` and `demo` use it. Holds the order of things: what is started when, what is done when
a child dies or stalls, how all of it ends. One thread calls `start`, `tend` and `stop`.
"""

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType

from cli.api_process import LISTEN_FD
from cli.children import ChildEnd
from cli.data_directory import (
    ChildRecord,
    DirectoryLock,
    UpRecord,
    end_orphans,
    forget_run,
    make_data_directory,
    read_children,
    write_up,
)
from cli.family import API, LOOK_EVERY_S, REDIS, TICKER, WORKER, Family
from cli.first_start import DEFAULT_RACK, RackSetup, RealHostSetup, prepare
from cli.installation import DEFAULT_PORT, Installation, Parts, open_parts, own_redis_url
from cli.probes import LOOPBACK, StatusProbe, listening_socket, redis_answers
from cli.redis_server import ServerProgram, find_server, make_private, server_command, socket_path
from cli.signs_of_life import SignsOfLife
from cli.speeds import WrongSpeed, check_real_hosts, check_speed, open_keeper
from cli.stall import STALLED_AFTER_S
from scheduler.core.errors import NightshiftError
from scheduler.service.clock import ClockKeeper
from workers.attending import lease_prefix

TEND_EVERY_S = 0.1
START_WITHIN_S = 90.0
MOST_DEATHS_AT_START = 4
STOP_WITHIN_S = 9.0
"""All children but Redis are gone by then, or killed."""
_NEXT_IS_ASKED_AFTER_S: Mapping[str, float] = MappingProxyType({API: 1.5, TICKER: 1.0, WORKER: 0.0})
"""How long the next in order waits for one that was asked to end."""
_REDIS_ENDS_WITHIN_S = 0.6
_LOGS_EVERY_S = 60.0


class ChildWillNotRun(NightshiftError):
    """A part ends again and again, or does not answer, before Nightshift is up."""

    code = "up.child_will_not_run"
    retryable = True


class StartStopped(NightshiftError):
    """Somebody asked for the end before Nightshift was up."""

    code = "up.start_stopped"


def our_command(*arguments: str) -> tuple[str, ...]:
    """Return how one of our own commands is called, whatever the current directory holds."""
    return (sys.executable, "-P", "-m", "cli.main", *arguments)


def installed_version() -> str:
    """Return the version of the program as it is installed."""
    try:
        return version("nightshift")
    except PackageNotFoundError:
        return "not installed"


COMMANDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    # All is on one machine here, so that is the one which a local URI means.
    {WORKER: our_command("worker", "--local"), TICKER: our_command("ticker"), API: our_command("api")}
)


class Stack:
    """One Nightshift, from `start` to `stop`. Used once."""

    def __init__(
        self,
        installation: Installation,
        *,
        port: int = DEFAULT_PORT,
        speed: float = 1.0,
        racks: tuple[RackSetup, ...] = (),
        real: tuple[RealHostSetup, ...] = (),
        on_line: Callable[[str], None] = print,
        commands: Mapping[str, tuple[str, ...]] = COMMANDS,
    ) -> None:
        """`port` 0 takes a free one. `on_line` is told what happens. A plan without any host gets a rack."""
        self.installation = installation
        self.speed = speed
        self.url = ""
        self.redis_program: ServerProgram | None = None
        """The Redis server that is run; None where one was named."""
        self.first_start_lines: tuple[str, ...] = ()
        """What was set up because it was missing."""
        self._asked_port = port
        self._racks = racks
        self._real = real
        self._on_line = on_line
        self._commands = commands
        self._lock = DirectoryLock(installation)
        self._keeper: ClockKeeper | None = None
        self._parts: Parts | None = None
        self._listening: socket.socket | None = None
        self._family = Family(installation, on_line)
        self._stops_asked = 0
        self._up: UpRecord | None = None
        # The database may be slow; the clock's heartbeat must not wait for it.
        self._database_work = ThreadPoolExecutor(1, thread_name_prefix="database")
        self._signs: SignsOfLife | None = None
        self._stalled: set[str] = set()
        """Instances that were killed because they stalled."""
        self._logs_at_s = time.monotonic()
        self._is_clock_told = False

    # What callers ask for.

    def start(self) -> None:
        """Start everything and return when the API answers; if that fails, stop what was started and raise."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def tend(self) -> None:
        """Do what is due: the clock's heartbeat, children that died or stall. Call it every `TEND_EVERY_S`."""
        now_s = time.monotonic()
        self._beat()
        for end in self._family.tend():
            self._after_end(end)
        if self._signs is not None:
            for child in self._signs.stalled(now_s):
                self._stalled.add(child.instance)
                child.kill()
        if now_s - self._logs_at_s >= _LOGS_EVERY_S:
            self._logs_at_s = now_s
            self._family.cut_logs()

    def set_speed(self, speed: float) -> None:
        """Change how fast product time goes; only where it was not the machine's from the start."""
        check_speed(speed)
        if self._keeper is None:
            raise WrongSpeed("this Nightshift runs in real time; its speed cannot be changed")
        self._keeper.set_speed(speed)
        self.speed = speed
        if self._up is not None:
            self._up = replace(self._up, speed=speed)
            # What is written there is for people; the clock has its own file.
            with suppress(OSError):
                write_up(self.installation, self._up)

    def ask_to_stop(self) -> None:
        """Let a `start` under way end early; called again, let `stop` kill at once. For signal handlers."""
        self._stops_asked += 1

    @property
    def is_stop_asked(self) -> bool:
        return self._stops_asked > 0

    @property
    def port(self) -> int:
        """The port on which the API answers."""
        return self._asked_port if self._listening is None else int(self._listening.getsockname()[1])

    @property
    def parts(self) -> Parts:
        """The installation's parts, for reading, while it runs."""
        if self._parts is None:
            raise RuntimeError("this Nightshift is not started")
        return self._parts

    def pid_of(self, name: str) -> int | None:
        """Return the process of a child; None while it has none."""
        child = self._family.get(name)
        return None if child is None else child.pid

    def stop(self) -> None:
        """End everything in order, in at most ten seconds. May be called at any time, and again."""
        until_s = time.monotonic() + STOP_WITHIN_S
        for name, wait_s in _NEXT_IS_ASKED_AFTER_S.items():
            self._family.ask_to_end(name)
            self._wait_for_end((name,), time.monotonic() + wait_s)
        names = tuple(_NEXT_IS_ASKED_AFTER_S)
        self._wait_for_end(names, until_s)
        killed = self._family.kill(names)
        self._family.ask_to_end(REDIS)
        self._wait_for_end((REDIS,), time.monotonic() + _REDIS_ENDS_WITHIN_S)
        killed = (*killed, *self._family.kill((REDIS,)))
        if killed:
            self._on_line(f"did not end in time, so it was killed: {', '.join(child.spec.name for child in killed)}")
        for child in killed:
            self._release_leases(child.instance)
        self._family.close()
        self._database_work.shutdown(cancel_futures=True)
        if self._keeper is not None:
            with suppress(OSError):
                self._keeper.close()
            self._keeper = None
        if self._parts is not None:
            self._parts.close()
            self._parts = None
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        if self._lock.is_held:
            forget_run(self.installation)
            self._lock.release()

    # Starting.

    def _start(self) -> None:
        check_speed(self.speed)
        os.umask(0o077)
        make_data_directory(self.installation.data)
        self._lock.acquire()
        orphans = self._end_orphans()
        self._listening = listening_socket(self._asked_port)
        self.url = f"http://{LOOPBACK}:{self.port}"
        redis_command = self._redis_command()
        self._keeper = open_keeper(self.installation, self.speed)
        self._parts = open_parts(self.installation, is_waking=False)
        self._parts.store.migrate()
        hosts = self._parts.plans.current().hosts.values()
        check_real_hosts(self.speed, {*(h.host for h in self._real), *(h.id for h in hosts if h.connect)})
        racks = self._racks or (() if self._real or hosts else (DEFAULT_RACK,))
        self.first_start_lines = prepare(self._parts, racks=racks, real=self._real)
        for orphan in orphans:
            self._release_leases(orphan.instance)
        make_private(self.installation.logs)
        self._signs = SignsOfLife(self._family, self._parts.store, self.installation.redis_url, self._database_work)
        self._start_children(redis_command)
        if self._keeper is not None:
            # Not before: what is due must find somebody who does it.
            self._keeper.set_speed(self.speed)
        self._up = UpRecord(
            pid=os.getpid(),
            url=self.url,
            speed=self.speed,
            started_machine_s=time.time(),
            version=installed_version(),
        )
        write_up(self.installation, self._up)

    def _end_orphans(self) -> tuple[ChildRecord, ...]:
        """See to it that no child of a supervisor that was killed is left."""
        orphans = read_children(self.installation)
        killed = end_orphans(orphans)
        if killed:
            names = ", ".join(f"{child.name} (pid {child.pid})" for child in killed)
            self._on_line(f"left over by a Nightshift that was killed, and ended now: {names}")
        forget_run(self.installation)
        return orphans

    def _redis_command(self) -> tuple[str, ...] | None:
        """Return how Redis is run; None where a server was named."""
        data = self.installation.data
        if self.installation.redis_url != own_redis_url(data):
            return None
        self.redis_program = find_server()
        path = socket_path(data)
        if path.parent != data:
            make_private(path.parent)
            self._on_line(f"{data / path.name} is too long a path for a socket; it is {path} instead")
        make_private(self.installation.redis_directory)
        return server_command(self.redis_program, socket=path, directory=self.installation.redis_directory)

    def _start_children(self, redis_command: tuple[str, ...] | None) -> None:
        until_s = time.monotonic() + START_WITHIN_S
        environment = {**self.installation.environment(), "PYTHONUNBUFFERED": "1"}
        if redis_command is not None:
            path = socket_path(self.installation.data)
            self._family.add(REDIS, redis_command, environment={})
            self._wait_for_answer(REDIS, lambda: redis_answers(path), until_s)
        for name in (WORKER, TICKER):
            self._family.add(name, self._commands[name], environment=environment)
        assert self._listening is not None
        inherited = self._listening.fileno()
        self._family.add(
            API, self._commands[API], environment={**environment, LISTEN_FD: str(inherited)}, passes=(inherited,)
        )
        probe = StatusProbe(self.port)
        try:
            self._wait_for_answer(API, probe.is_answered, until_s)
        finally:
            probe.close()

    def _wait_for_answer(self, name: str, answers: Callable[[], bool], until_s: float) -> None:
        while not answers():
            self.tend()
            for child in self._family.all():
                if child.back_off.failures >= MOST_DEATHS_AT_START:
                    said = child.last_line or "it says nothing"
                    raise ChildWillNotRun(f"{child.spec.name} ends again and again: {said}; see {child.spec.log}")
            if self.is_stop_asked:
                raise StartStopped("stopped before everything was up")
            if time.monotonic() >= until_s:
                log = self.installation.logs / f"{name}.log"
                raise ChildWillNotRun(f"{name} did not answer within {START_WITHIN_S:g} s; see {log}")
            time.sleep(LOOK_EVERY_S)

    # Tending.

    def _beat(self) -> None:
        if self._keeper is None:
            return
        try:
            self._keeper.beat()
            self._is_clock_told = False
        except OSError as error:
            if not self._is_clock_told:
                self._is_clock_told = True
                self._on_line(f"the clock cannot be written, so time stands still: {error}")

    def _after_end(self, end: ChildEnd) -> None:
        """Tell of a child's end, and let go what it held."""
        child = self._family.get(end.name)
        assert child is not None
        wait_s = 0.0 if child.start_again_at_s is None else max(child.start_again_at_s - time.monotonic(), 0.0)
        how = f"gave no sign of life for {STALLED_AFTER_S:g} s" if end.instance in self._stalled else end.text
        self._stalled.discard(end.instance)
        said = f'; it said last: "{end.last_line}"' if end.last_line else ""
        self._on_line(f"{end.name} {how} and is started again in {wait_s:.1f} s{said} ({child.spec.log})")
        if end.name == WORKER:
            # It is gone for certain, so nobody has to wait for its leases to run out.
            self._database_work.submit(self._release_leases, end.instance)

    def _release_leases(self, instance: str) -> None:
        """Give up what a dead worker held; if that fails they run out by themselves."""
        if self._parts is not None:
            with suppress(NightshiftError):
                self._parts.store.release_leases_of(lease_prefix(instance))

    # Ending.

    def _wait_for_end(self, names: tuple[str, ...], until_s: float) -> None:
        while self._family.alive(names) and time.monotonic() < until_s and self._stops_asked < 2:
            # What ends may wait for steps in product time.
            self._beat()
            time.sleep(LOOK_EVERY_S)
