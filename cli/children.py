"""A child process of `nightshift up`: how it is started, how it ended, and when it is started again.

Holds one child at a time and decides nothing about the others: their order and what is told is in `stack`. Times are
machine time of the monotonic clock, handed in.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cli.parent_watch import PARENT_VARIABLE

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
STEADY_AFTER_S = 30.0
"""A child that lived this long begins with the shortest pause again."""
MOST_LOG_BYTES = 10 << 20
_TAIL_BYTES = 4096
_LONGEST_LINE = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """What to run."""

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str]
    passes: tuple[int, ...] = ()
    """File descriptors that it inherits, under the same numbers."""


@dataclass(slots=True)
class BackOff:
    """How long to wait before a child is started again: longer each time, and as at first once it ran steadily."""

    pause_s: float = FIRST_PAUSE_S
    failures: int = 0
    """Ends since it last ran steadily."""

    def after_end(self, alive_s: float) -> float:
        """Return how long to wait after it ended, having been alive for so long."""
        if alive_s >= STEADY_AFTER_S:
            self.pause_s, self.failures = FIRST_PAUSE_S, 0
        self.failures += 1
        wait_s = self.pause_s
        self.pause_s = min(self.pause_s * 2, LONGEST_PAUSE_S)
        return wait_s


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEnd:
    """How a child ended."""

    name: str
    instance: str
    status: int
    """As `subprocess` tells it: negative for a signal."""
    alive_s: float
    last_line: str
    """What it wrote last in this life; empty when it wrote nothing."""

    @property
    def text(self) -> str:
        """Say how it ended, in words."""
        if self.status >= 0:
            return f"ended with status {self.status}"
        try:
            return f"was ended by {signal.Signals(-self.status).name}"
        except ValueError:
            return f"was ended by signal {-self.status}"


@dataclass(slots=True, kw_only=True)
class Child:
    """One process that is to run always."""

    spec: ChildSpec
    back_off: BackOff = field(default_factory=BackOff)
    instance: str = ""
    """The name of this life of it; its leases and heartbeats carry it."""
    started_at_s: float = 0.0
    start_again_at_s: float | None = None
    """When it is to be started again; None while it runs."""
    last_line: str = ""
    """What it wrote last in the life before this one."""
    _process: subprocess.Popen[bytes] | None = None
    _log_begins_at: int = 0

    @property
    def pid(self) -> int | None:
        """Its process; None while there is none."""
        return None if self._process is None else self._process.pid

    def start(self, instance: str, now_s: float) -> None:
        """Start it, from a thread that lives as long as the child is to live: the kernel ends it with that thread."""
        self.instance, self.started_at_s, self.start_again_at_s = instance, now_s, None
        own = {**self.spec.environment, PARENT_VARIABLE: str(os.getpid()), "NIGHTSHIFT_INSTANCE": instance}
        wrapped = (sys.executable, "-P", "-m", "cli.parent_watch", "--", *self.spec.command)
        with self.spec.log.open("ab") as log:
            self._log_begins_at = log.tell()
            # A session of its own: Ctrl-C in the terminal is for `up` alone, which ends its children in order.
            self._process = subprocess.Popen(
                wrapped,
                env={**os.environ, **own},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self.spec.passes,
                start_new_session=True,
            )

    def poll(self, now_s: float) -> ChildEnd | None:
        """Return how it ended, once, if it has ended since the last look; it is then due to be started again."""
        if self._process is None or self._process.poll() is None:
            return None
        alive_s = now_s - self.started_at_s
        self.last_line = last_line(self.spec.log, self._log_begins_at)
        end = ChildEnd(
            name=self.spec.name,
            instance=self.instance,
            status=self._process.returncode,
            alive_s=alive_s,
            last_line=self.last_line,
        )
        self._process = None
        self.start_again_at_s = now_s + self.back_off.after_end(alive_s)
        return end

    def could_not_start(self, now_s: float) -> None:
        """Take note that there was nothing to start it with; it is due again later."""
        self.start_again_at_s = now_s + self.back_off.after_end(0.0)

    def terminate(self) -> None:
        """Ask it to end."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """End it at once, with everything that it started."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)


def last_line(log: Path, begins_at: int) -> str:
    """Return the last line of a log that holds anything, from a position on; empty when there is none."""
    try:
        with log.open("rb") as opened:
            size = opened.seek(0, os.SEEK_END)
            opened.seek(max(begins_at if begins_at <= size else 0, size - _TAIL_BYTES))
            lines = opened.read(_TAIL_BYTES).decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((" ".join(line.split())[:_LONGEST_LINE] for line in reversed(lines) if line.strip()), "")


def cut_log(log: Path, most_bytes: int = MOST_LOG_BYTES) -> bool:
    """Copy a log that has grown too large beside itself and empty it; whoever appends to it goes on undisturbed."""
    try:
        size = log.stat().st_size
    except FileNotFoundError:
        return False
    if size <= most_bytes:
        return False
    older = log.with_name(f"{log.name}.1")
    with log.open("r+b") as opened, older.open("wb") as kept:
        opened.seek(max(0, size - most_bytes))
        while chunk := opened.read(1 << 20):
            kept.write(chunk)
        opened.truncate(0)
    return True
