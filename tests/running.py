"""Real processes for tests: a Redis server on a socket, our own commands, a kept clock; and waiting for what they do.

Waiting polls with a deadline: a test that passes takes as long as the thing takes, and one that fails says what it saw.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import pytest

from cli.redis_server import find_server, server_command
from scheduler.core.spans import Instant
from scheduler.service.clock import BEAT_S, ClockKeeper
from workers.broker import ping

T = TypeVar("T")

ROOT = Path(__file__).parent.parent
_POLL_S = 0.02


def wait_for(what: str, look: Callable[[], T | None], *, within_s: float, evidence: Callable[[], str] = str) -> T:
    """Look until something true is seen, and return it; fail after `within_s` of machine time."""
    until_s = time.monotonic() + within_s
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > until_s:
            raise AssertionError(f"{what}: not within {within_s:g} s\n{evidence()}")
        threading.Event().wait(_POLL_S)


def required_program(name: str, kind: str, package: str) -> str:
    """Return where a program is; without it the test is skipped, or fails if NIGHTSHIFT_TEST_REQUIRE names its kind."""
    found = shutil.which(name)
    if found is not None:
        return found
    missing = f"{name} is not installed (apt install {package})"
    if kind in os.environ.get("NIGHTSHIFT_TEST_REQUIRE", ""):
        pytest.fail(missing)
    pytest.skip(missing)


class RedisServer:
    """A Redis server of this test's own, on a Unix socket."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.socket = directory / "redis.sock"
        self.url = f"redis+socket://{quote(str(self.socket))}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        command = server_command(find_server(), socket=self.socket, directory=self._directory)
        with (self._directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for("redis answers", lambda: ping(self.url).is_up, within_s=10)

    def stop(self) -> None:
        """Let it hang: connections stay open, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again. Does nothing to one that is not there."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a power cut does; all it held is gone. May be called twice."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()


class OurProcess:
    """One of our commands as a process, with its log in a file."""

    def __init__(self, command: str, *arguments: str, log: Path, environment: dict[str, str]) -> None:
        self._log = log
        # Called as the program calls it, whether or not it is installed here.
        code = f"import typer; from cli.{command} import {command}; typer.run({command})"
        with log.open("ab") as opened:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, *arguments],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=opened,
                stderr=opened,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def end(self, *, within_s: float) -> int:
        """Ask it to end, and return its exit status."""
        self._process.terminate()
        return self._process.wait(within_s)

    def kill(self) -> None:
        """End it as `kill -9` does. May be called twice."""
        self._process.kill()
        self._process.wait()


class KeptClock:
    """Keeps a scaled clock in a data directory, from a thread of the test."""

    def __init__(self, path: Path, *, speed: float, now: Instant) -> None:
        self._keeper = ClockKeeper(path)
        self._keeper.open(speed, now)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while not self._is_over.wait(BEAT_S):
            self._keeper.beat()

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()
        self._keeper.close()
