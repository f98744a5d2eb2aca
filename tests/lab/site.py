"""`nightshift up` on the virtual DGX-2, as its users have it: asked through the API, killed where a test says so."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cli.address import Address
from cli.client import Client, Json, Surroundings
from cli.data_directory import read_children, read_up
from cli.installation import Installation
from scheduler.core.errors import NightshiftError
from scheduler.core.settings import Settings
from scheduler.profiles.loading import load_profile

PROFILE = "dgx-2-lab"
HOST = "lab-a"
STARTS_WITHIN_S = 60.0
ENDS_WITHIN_S = 11.0
LOOK_EVERY_S = 0.2
SHOWN_LINES = 25


def starts_within_s(gpus: int) -> float:
    """Return how long a VM of a size may take to run, when only the last attempt on its place succeeds."""
    settings = Settings()
    return settings.start_attempts * (load_profile(PROFILE).bounds.start_s(gpus) + settings.retry_after_s)


class NotSo(AssertionError):
    """Something did not come about in time."""


@dataclass(slots=True)
class LabSite:
    """One data directory, and `nightshift up` on it."""

    data: Path
    uris: Mapping[str, str]
    """Where each host is reached, by its name."""
    path: str = field(default_factory=lambda: os.environ.get("PATH", os.defpath))
    """Where it finds the programs that it runs."""
    _process: subprocess.Popen[bytes] | None = None
    _client: Client | None = field(default=None)

    @property
    def installation(self) -> Installation:
        return Installation(
            data=self.data,
            database_url=f"sqlite:///{self.data / 'nightshift.sqlite3'}",
            redis_url=f"redis+socket://{self.data / 'redis.sock'}",
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.data.parent / "up.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "cli.main", "up"),
                    *("--data", str(self.data), "--port", "0"),
                    *(part for host, uri in self.uris.items() for part in ("--host", f"{host}={PROFILE}@{uri}")),
                ],
                env={
                    **{name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")},
                    "COLUMNS": "200",
                    "PATH": self.path,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        pid = self._process.pid
        self.wait_for("Nightshift is up", lambda: (up := read_up(self.installation)) is not None and up.pid == pid)
        record = read_up(self.installation)
        assert record is not None
        token = self.installation.admin_token_file.read_text(encoding="ascii").strip()
        self._client = Client(Address(url=record.url, token=token, source="lab"), Surroundings(environ={}))

    def stop(self) -> None:
        """End it; may be called twice."""
        if self._client is not None:
            self._client.close()
            self._client = None
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def client(self) -> Client:
        assert self._client is not None, "it is not up"
        return self._client

    def kill_worker(self) -> None:
        """`kill -9` of the worker, whatever it is doing."""
        for child in read_children(self.installation):
            if child.name == "worker":
                os.kill(child.pid, signal.SIGKILL)

    def worker_pid(self) -> int | None:
        return next((child.pid for child in read_children(self.installation) if child.name == "worker"), None)

    def apply_policy(self, text: str) -> None:
        self.client.post("/policies", {"text": text, "source": "lab.yaml"})

    def enrol(self, name: str) -> None:
        self.client.post("/users", {"name": name, "role": "student"})

    def reserve(self, owner: str, gpus: int, *, run_s: int, queue: str) -> str:
        """Reserve, and return the reservation's id."""
        body: Json = {"owner": owner, "gpus": gpus, "run_s": run_s, "queue": queue, "disk_gib": 1}
        return str(self.client.post("/reservations", body)["id"])

    def reservation(self, id: str) -> Json:
        return self.client.get(f"/reservations/{id}")

    def phase(self, id: str) -> str:
        return str(self.reservation(id)["phase"])

    def cancel(self, id: str) -> None:
        self.client.post(f"/reservations/{id}/cancel", {})

    def drain(self, host: str) -> None:
        self.client.post(f"/hosts/{host}/drain", {})

    def undrain(self, host: str) -> None:
        self.client.post(f"/hosts/{host}/undrain", {})

    def host(self, name: str = HOST) -> Json:
        return self.client.get(f"/hosts/{name}")

    def doctor(self) -> dict[str, Json]:
        """Return what doctor says, by the name of the check."""
        return {str(check["name"]): check for check in self.client.get("/doctor")["checks"]}

    def why(self, id: str) -> Json:
        return self.client.get(f"/reservations/{id}/why")

    def wait_for(self, what: str, is_so: Callable[[], bool], *, within_s: float = STARTS_WITHIN_S) -> float:
        """Wait for something, and return how long that was."""
        began_s = time.monotonic()
        while not is_so():
            if time.monotonic() - began_s > within_s:
                raise NotSo(f"not within {within_s:g} s: {what}\n{self.evidence()}")
            if self._process is not None and self._process.poll() is not None:
                raise NotSo(f"nightshift up ended by itself before this: {what}\n{self.evidence()}")
            time.sleep(LOOK_EVERY_S)
        return time.monotonic() - began_s

    def evidence(self) -> str:
        """Return what is said of every reservation, and the ends of the logs, without what was asked of the API."""
        files = [self.data.parent / "up.log", *sorted((self.data / "logs").glob("*.log"))]
        return "\n".join(
            (
                *self._reservations_now(),
                *(f"== {file.name}\n" + "\n".join(_last_lines(file)) for file in files if file.exists()),
            )
        )

    def _reservations_now(self) -> Iterator[str]:
        try:
            for found in self.client.get("/reservations", all=True, limit=200)["reservations"]:
                said = "; ".join(str(reason["sentence"]) for reason in self.why(str(found["id"]))["reasons"])
                yield f"{found['id']} of {found['owner']}: {found['phase']}: {said}"
        except (AssertionError, NightshiftError) as error:
            yield f"what is said of the reservations cannot be had: {error}"


def _last_lines(log: Path) -> list[str]:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if " info request " not in line][-SHOWN_LINES:]
