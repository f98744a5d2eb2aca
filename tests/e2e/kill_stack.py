"""`nightshift up` as a process that may be killed and started again on its data directory, and those who watch it.

What people were told is kept from the answers of the API, what happened is read from the rack's log: nothing else is
believed. Holds no scenario.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from cli.address import Address
from cli.client import Client, Json, Surroundings
from cli.data_directory import read_children, read_up
from cli.demonstration.students import Notebook
from cli.installation import Installation
from cli.runs import Run, read_runs
from scheduler.core.errors import NightshiftError
from scheduler.core.requests import HostId, ReservationId
from scheduler.core.spans import Instant
from scheduler.service.clock import open_clock
from workers.drivers.simulated.log import LogLine, read_file
from workers.drivers.simulated.schema import BadRack, rack_path

HOST, PROFILE = HostId("dgx2-a"), "dgx-2"
ZONE = "Europe/Berlin"
STARTS_WITHIN_S = 60.0
ENDS_WITHIN_S = 11.0
"""Ten seconds for ending, and one for the machine that these tests share."""
LOOK_EVERY_S = 0.05
READ_EVERY_S = 0.4


class NotSo(AssertionError):
    """Something did not come about in time, with what was seen."""


def rest(for_s: float) -> None:
    """Let the processes work for so long; only ever within a wait that ends at what was waited for."""
    threading.Event().wait(for_s)


class Extra:
    """One more of our processes beside those that `up` runs."""

    def __init__(self, site: "Site", *arguments: str) -> None:
        self.instance = f"extra-{arguments[0]}-{len(site.extras)}"
        with (site.data.parent / f"{site.data.name}.{self.instance}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "cli.main", *arguments],
                env={**_environment(), **site.installation.environment(), "NIGHTSHIFT_INSTANCE": self.instance},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> int:
        self._process.terminate()
        try:
            return self._process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass(slots=True)
class Site:
    """One data directory, and `nightshift up` on it, which may be killed and started again."""

    data: Path
    speed: float
    extras: list[Extra] = field(default_factory=list)
    notebook: Notebook = field(init=False)
    starts: int = 0
    """How often `up` was started here."""
    read_failures: int = 0
    """How often the API could not be read; between a kill and the next life that is as it should be."""
    _process: subprocess.Popen[bytes] | None = None
    _client: Client | None = None
    _read_at_s: float = 0.0
    _lines: tuple[LogLine, ...] = ()
    _now: Instant = 0
    """The product time of the answer read last."""

    def __post_init__(self) -> None:
        self.notebook = Notebook(lambda: self._now)

    @property
    def installation(self) -> Installation:
        """What `up` works with: nothing that the environment of the tests names."""
        return Installation(
            data=self.data,
            database_url=f"sqlite:///{self.data / 'nightshift.sqlite3'}",
            redis_url=f"redis+socket://{self.data / 'redis.sock'}",
        )

    # Starting and ending.

    def start(self) -> None:
        """Start `nightshift up` and wait until it says that it is up."""
        self.starts += 1
        with self._printed.open("ab") as printed:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "cli.main", "up"),
                    *("--data", str(self.data), "--port", "0", "--speed", f"{self.speed:g}"),
                ],
                env={**_environment(), "COLUMNS": "200"},
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
            )
        pid = self._process.pid

        def is_up() -> bool:
            record = read_up(self.installation)
            return record is not None and record.pid == pid

        self.wait_for("Nightshift is up", is_up, within_s=STARTS_WITHIN_S)
        record = read_up(self.installation)
        assert record is not None
        self._close_client()
        token = self.installation.admin_token_file.read_text(encoding="ascii").strip()
        address = Address(url=record.url, token=token, source="test")
        self._client = Client(address, Surroundings(environ={}))

    def end(self) -> int:
        """End it as Ctrl-C does, and return its status."""
        assert self._process is not None
        self._close_client()
        self._process.send_signal(signal.SIGINT)
        process, self._process = self._process, None
        try:
            return process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise NotSo(f"it did not end within {ENDS_WITHIN_S:g} s\n{self.evidence()}") from None

    def kill_up(self) -> None:
        """`kill -9` of the supervisor alone: its children are left to find out."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def pid_of(self, name: str) -> int:
        """Return the process of a child that runs now."""
        found: list[int] = []

        def look() -> bool:
            found[:] = [child.pid for child in read_children(self.installation) if child.name == name]
            return bool(found)

        self.wait_for(f"{name} runs", look, within_s=STARTS_WITHIN_S)
        return found[0]

    def kill_children(self, *names: str) -> None:
        """`kill -9` of children, all at one moment."""
        for pid in [self.pid_of(name) for name in names]:
            os.kill(pid, signal.SIGKILL)

    def run_beside(self, *arguments: str) -> Extra:
        """Start one more of our processes on this installation."""
        extra = Extra(self, *arguments)
        self.extras.append(extra)
        return extra

    def clean_up(self) -> None:
        """Leave nothing running, whatever happened. May be called twice."""
        self._close_client()
        for extra in self.extras:
            extra.kill()
        for child in read_children(self.installation):
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGCONT)
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _close_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    # Asking and reading.

    @property
    def client(self) -> Client:
        assert self._client is not None, "it is not up"
        return self._client

    @property
    def now(self) -> Instant:
        """Product time."""
        return open_clock(self.data).now()

    def enrol(self, *names: str) -> None:
        """Make students of them, as an admin does."""
        for name in names:
            self.client.post("/users", {"name": name, "role": "student"})

    def reserve(self, owner: str, gpus: int, run_s: int) -> ReservationId:
        body: Json = {"owner": owner, "gpus": gpus, "run_s": run_s, "queue": "interactive"}
        return self.note(self.client.post("/reservations", body))

    def note(self, answer: Json) -> ReservationId:
        """Keep what an answer says."""
        self._now = self.now
        return self.notebook.note(answer)

    def read(self) -> list[Json]:
        """Read all reservations, as their owners would, and keep what they say."""
        answer = self.client.get("/reservations", all=True, limit=200)
        self._now = self.now
        found: list[Json] = answer["reservations"]
        for one in found:
            self.notebook.note(one)
        return found

    def log(self) -> tuple[LogLine, ...]:
        """Read the rack's log: what happened, whatever anybody believes."""
        # Not made yet, or being made.
        with suppress(BadRack):
            self._lines += read_file(rack_path(self.data, HOST), after_seq=self._lines[-1].seq if self._lines else 0)
        return self._lines

    def runs(self) -> tuple[Run, ...]:
        return read_runs(self.log())

    def wait_for(self, what: str, is_so: Callable[[], bool], *, within_s: float) -> None:
        """Wait for something in machine time, reading the answers meanwhile as people do."""
        until_s = time.monotonic() + within_s
        while not is_so():
            now_s = time.monotonic()
            if now_s > until_s:
                raise NotSo(f"not within {within_s:g} s: {what}\n{self.evidence()}")
            if self._process is not None and self._process.poll() is not None:
                raise NotSo(f"nightshift up ended by itself before this: {what}\n{self.evidence()}")
            if self._client is not None and now_s - self._read_at_s >= READ_EVERY_S:
                self._read_at_s = now_s
                self._read_if_answered()
            rest(LOOK_EVERY_S)

    def _read_if_answered(self) -> None:
        impatient = Client(self.client.address, Surroundings(environ={}), answer_s=2.0)
        try:
            answer = impatient.get_once("/reservations?all=true&limit=200")
        except NightshiftError:
            self.read_failures += 1
            return
        finally:
            impatient.close()
        self._now = self.now
        for one in answer["reservations"]:
            self.notebook.note(one)

    @property
    def printed(self) -> str:
        return self._printed.read_text(encoding="utf-8")

    @property
    def _printed(self) -> Path:
        return self.data.parent / f"{self.data.name}.printed"

    def evidence(self) -> str:
        """Return what is known, for the message of a test that fails."""
        files = [*sorted((self.data / "logs").glob("*.log")), *sorted(self.data.parent.glob(f"{self.data.name}.*.log"))]
        rack = [
            f"{_clock_text(line.at)} {line.what} {line.reservation} g{line.generation} {line.partition}"
            for line in self.log()[-60:]
        ]
        kept = [
            f"{k.reservation} {k.owner} {[(_clock_text(t.seen_at), _clock_text(t.start_by_at), t.why) for t in k.told]}"
            for k in self.notebook.kept
        ]
        return "\n".join(
            [
                *("== printed", self.printed if self._printed.exists() else "", f"now {_clock_text(self.now)}"),
                *(f"== {file.name}\n{_tail(file)}" for file in files),
                *("== rack", *rack, "== told", *kept),
            ]
        )


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")}


def _tail(file: Path) -> str:
    return "\n".join(file.read_text(encoding="utf-8", errors="replace").splitlines()[-25:])


def _clock_text(at: Instant) -> str:
    return datetime.fromtimestamp(at, ZoneInfo(ZONE)).strftime("%H:%M:%S")
