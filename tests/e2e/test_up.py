"""`nightshift up` with its real parts: what a person sees, what survives which kill, how it ends.

Speed 60: a minute of product time passes in a second.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.data_directory import birth_of
from cli.family import API, REDIS, TICKER, WORKER
from cli.installation import Installation, open_parts
from scheduler.service.clock import ClockKeeper
from tests.running import wait_for
from workers.drivers.simulated.log import read_file
from workers.drivers.simulated.schema import rack_path

STARTS_WITHIN_S = 60.0
WITHIN_S = 60.0
ENDS_WITHIN_S = 11.0
"""Ten seconds for ending, and one for the machine that these tests share."""
MONDAY_10_UTC = 1_772_445_600
"""2026-03-02 10:00 UTC."""
NAMES = (REDIS, WORKER, TICKER, API)


class Up:
    """One `nightshift up` as a process."""

    def __init__(self, data: Path) -> None:
        self.data = data
        if not data.exists():
            # A directory whose time stands at a morning: no night comes in between, whenever this runs.
            data.mkdir()
            keeper = ClockKeeper(data / "clock.json")
            keeper.open(1, MONDAY_10_UTC)
            keeper.close()
        self.http = httpx.Client()
        self._printed = data.parent / f"{data.name}.printed"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")}
        with self._printed.open("ab") as printed:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "cli.main", "up", "--data", str(data), "--port", "0", "--speed", "60"],
                env={**clean, "COLUMNS": "100"},
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
            )

    @property
    def printed(self) -> str:
        return self._printed.read_text(encoding="utf-8")

    def wait_until_up(self) -> "Up":
        def record() -> dict[str, Any] | None:
            assert self.process.poll() is None, self.evidence()
            try:
                found: dict[str, Any] = json.loads((self.data / "up.json").read_text())
            except (OSError, ValueError):
                return None
            return found if found["pid"] == self.process.pid else None

        self.record = wait_for("it is up", record, within_s=STARTS_WITHIN_S, evidence=self.evidence)
        token = (self.data / "admin.token").read_text().strip()
        self.http.close()
        self.http = httpx.Client(
            base_url=f"{self.record['url']}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=20
        )
        return self

    def evidence(self) -> str:
        logs = sorted((self.data / "logs").glob("*.log")) if (self.data / "logs").is_dir() else []
        return "\n".join([self.printed, *(f"== {log.name}\n{log.read_text()[-2000:]}" for log in logs)])

    def children(self) -> dict[str, dict[str, Any]]:
        return {child["name"]: child for child in json.loads((self.data / "children.json").read_text())}

    def get(self, path: str) -> Any:
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def reserve(self, gpus: int, run_s: int) -> str:
        answer = self.http.post("/reservations", json={"gpus": gpus, "run_s": run_s, "queue": "interactive"})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def wait_for_phase(self, reservation: str, phase: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            try:
                found: dict[str, Any] = self.get(f"/reservations/{reservation}")
            except httpx.TransportError:
                # The API was killed while it answered; whoever asks again is answered by the next one.
                return None
            return found if found["phase"] == phase else None

        return wait_for(f"{reservation} is {phase}", look, within_s=WITHIN_S, evidence=self.evidence)

    def starts_of_guests(self) -> list[str]:
        return [str(line.reservation) for line in read_file(rack_path(self.data, "dgx2-a")) if line.what == "guest.up"]

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(ENDS_WITHIN_S)

    def clean_up(self) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    started = Up(tmp_path_factory.mktemp("up") / "data")
    try:
        yield started.wait_until_up()
        assert started.end(signal.SIGINT) == 0, started.evidence()
    finally:
        started.clean_up()


def test_a_first_start_is_ready_to_be_used(up: Up) -> None:
    me = up.get("/me")
    assert (me["name"], me["role"], me["speed"]) == ("admin", "admin", 60)
    assert [host["id"] for host in up.get("/hosts")["hosts"]] == ["dgx2-a"]
    assert up.get("/policies")["current"] == 1
    free = {size["gpus"]: size for size in up.get("/free")["sizes"]}
    assert set(free) >= {1, 2, 4, 8}


def test_the_screen_says_where_everything_is_and_what_to_type(up: Up) -> None:
    for words in (
        f"is up at {up.record['url']}",
        str(up.data / "admin.token"),
        "dgx2-a (dgx-2, simulated)",
        "version 1, university.yaml",
        "60 seconds in one",
        "Ctrl-C stops it",
        f"export NIGHTSHIFT_DATA={up.data}",
        "nightshift reserve --gpus 2 --for 3h",
    ):
        assert words in up.printed
    assert "\x1b" not in up.printed


def test_every_file_is_for_its_user_alone(up: Up) -> None:
    assert [path for path in (up.data, *up.data.rglob("*")) if path.stat().st_mode & 0o077] == []


def test_a_second_start_on_the_same_directory_names_the_first(up: Up) -> None:
    second = subprocess.run(
        [sys.executable, "-P", "-m", "cli.main", "up", "--data", str(up.data), "--speed", "60"],
        capture_output=True,
        text=True,
        timeout=STARTS_WITHIN_S,
        check=False,
    )
    assert second.returncode == 4
    (line,) = second.stderr.splitlines()
    assert f"pid {up.process.pid}, {up.record['url']}" in line


def test_a_reservation_runs_though_each_part_is_killed_on_its_way(up: Up) -> None:
    before = up.children()
    reservation = up.reserve(gpus=2, run_s=3 * 3600)
    for name in (WORKER, TICKER, REDIS, API):
        os.kill(before[name]["pid"], signal.SIGKILL)
    up.wait_for_phase(reservation, "running")
    assert up.starts_of_guests().count(reservation) == 1

    def all_are_others() -> bool:
        now = up.children()
        return set(now) == set(NAMES) and all(now[name]["pid"] != before[name]["pid"] for name in NAMES)

    wait_for("all run again", all_are_others, within_s=WITHIN_S, evidence=up.evidence)
    for name in NAMES:
        assert f"{name} was ended by SIGKILL and is started again" in up.printed


def test_the_parts_show_that_they_work_under_the_names_that_the_supervisor_gave(up: Up) -> None:
    def are_all_well() -> bool:
        return all(check["ok"] for check in up.get("/doctor")["checks"])

    wait_for("all is well", are_all_well, within_s=WITHIN_S, evidence=lambda: str(up.get("/doctor")))
    # The supervisor judges by these: were they not there, it would end parts that work.
    parts = open_parts(
        Installation(
            data=up.data, database_url=f"sqlite:///{up.data / 'nightshift.sqlite3'}", redis_url="redis://127.0.0.1:1"
        ),
        is_waking=False,
    )
    try:
        beats = {(beat.kind, beat.name): beat.machine_s for beat in parts.store.heartbeats()}
    finally:
        parts.close()
    instances = {name: child["instance"] for name, child in up.children().items()}
    for kind, name in (("plan", WORKER), ("ticker", TICKER), ("api", API)):
        assert time.time() - beats[kind, instances[name]] < 30


def test_after_a_kill_of_everything_it_goes_on_where_it_was(tmp_path: Path) -> None:
    first = Up(tmp_path / "my däta").wait_until_up()
    second: Up | None = None
    try:
        reservation = first.reserve(gpus=4, run_s=3600)
        first.wait_for_phase(reservation, "running")
        told = first.get(f"/reservations/{reservation}")
        now = first.get("/me")["now"]
        children = first.children()
        first.process.kill()
        first.process.wait()
        # Started at once, while the orphans are still ending.
        second = Up(tmp_path / "my däta").wait_until_up()
        assert {name: birth_of(child["pid"]) for name, child in children.items()} == dict.fromkeys(NAMES)
        found = second.get(f"/reservations/{reservation}")
        assert found["promise"] == told["promise"]
        assert found["phase"] == "running"
        assert second.get("/me")["now"] >= now
        assert second.http.post(f"/reservations/{reservation}/stop").status_code in (200, 202)
        second.wait_for_phase(reservation, "ended")
        assert second.starts_of_guests() == [reservation]
        pids = [child["pid"] for child in second.children().values()]
        begun_s = time.monotonic()
        assert second.end() == 0, second.evidence()
        assert time.monotonic() - begun_s < ENDS_WITHIN_S
        assert [pid for pid in pids if birth_of(pid) is not None] == []
        left = {path.name for path in (tmp_path / "my däta").iterdir()}
        assert not left & {"up.json", "children.json", "redis.sock"}
        assert "stopped; everything is kept for the next start" in second.printed
        assert "killed" not in second.printed
    finally:
        first.clean_up()
        if second is not None:
            second.clean_up()
