"""The supervisor on stand-ins for its children: what is started, told, restarted, refused, and ended in order.

The real parts are in tests/e2e.
"""

import json
import os
import shutil
import signal
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cli import signs_of_life, stall
from cli import stack as stack_module
from cli.data_directory import AlreadyRunning, birth_of, read_up
from cli.family import API, REDIS, TICKER, WORKER
from cli.first_start import RealHostSetup
from cli.installation import Installation, open_parts
from cli.probes import PortTaken, redis_answers
from cli.speeds import WrongSpeed
from cli.stack import ChildWillNotRun, Stack, StartStopped
from scheduler.core.requests import HostId
from scheduler.service.clock import ScaledClock, read_anchor
from scheduler.store.failures import SchemaTooNew
from tests.running import wait_for
from workers.attending import lease_prefix

WITHIN_S = 30.0

ANSWERS = """
import os, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
listening = socket.socket(fileno=int(os.environ["NIGHTSHIFT_LISTEN_FD"]))
while True:
    caller, _ = listening.accept()
    caller.recv(4096)
    caller.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
    caller.close()
"""
LIVES = """
import os, pathlib, signal, sys, time
def end(*_):
    with open(pathlib.Path(os.environ["NIGHTSHIFT_DATA"]) / "ended", "a") as file:
        file.write(f"{os.environ['NIGHTSHIFT_INSTANCE'].split('-')[0]}\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("lives", flush=True)
time.sleep(300)
"""
STAYS = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('stays', flush=True); time.sleep(300)"
)


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


STAND_INS = {WORKER: python(LIVES), TICKER: python(LIVES), API: python(ANSWERS)}


class Supervised:
    """A stack that is stopped at the end of a test, with what it told."""

    def __init__(
        self,
        data: Path,
        *,
        speed: float = 1.0,
        real: tuple[RealHostSetup, ...] = (),
        commands: Mapping[str, tuple[str, ...]] = STAND_INS,
    ) -> None:
        self.lines: list[str] = []
        self.stack = Stack(
            Installation.found(data), port=0, speed=speed, real=real, on_line=self.lines.append, commands=commands
        )

    def pids(self) -> dict[str, int | None]:
        return {name: self.stack.pid_of(name) for name in (REDIS, WORKER, TICKER, API)}

    def wait_for_line(self, *words: str) -> str:
        def look() -> str | None:
            self.stack.tend()
            return next((line for line in self.lines if all(word in line for word in words)), None)

        return wait_for(f"a line with {words}", look, within_s=WITHIN_S, evidence=lambda: "\n".join(self.lines))

    def wait_for_other(self, name: str, pid: int | None) -> int:
        def look() -> int | None:
            self.stack.tend()
            now = self.stack.pid_of(name)
            return None if now == pid else now

        return wait_for(f"another {name}", look, within_s=WITHIN_S)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("NIGHTSHIFT_DATA", "NIGHTSHIFT_DATABASE", "NIGHTSHIFT_REDIS"):
        monkeypatch.delenv(name, raising=False)
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def up(data: Path) -> Iterator[Supervised]:
    supervised = Supervised(data, speed=60)
    supervised.stack.start()
    yield supervised
    supervised.stack.stop()


def test_everything_runs_once_it_is_started_and_is_written_down(up: Supervised, data: Path) -> None:
    assert all(up.pids().values())
    record = read_up(up.stack.installation)
    assert record is not None
    assert (record.pid, record.url, record.speed) == (os.getpid(), up.stack.url, 60)
    assert up.stack.url == f"http://127.0.0.1:{up.stack.port}"
    assert redis_answers(data / "redis.sock")
    public = [path for path in data.rglob("*") if path.stat().st_mode & 0o077]
    assert public == []
    assert up.lines == []


def test_the_end_is_in_order_clean_and_leaves_nothing_running(up: Supervised, data: Path) -> None:
    pids = [pid for pid in up.pids().values() if pid is not None]
    logs = [up.stack.installation.logs / f"{name}.log" for name in (WORKER, TICKER)]
    # A stand-in that is ended before it has come so far leaves no trace of its end.
    wait_for("both say that they live", lambda: all("lives" in log.read_text() for log in logs), within_s=WITHIN_S)
    begun_s = time.monotonic()
    up.stack.stop()
    assert time.monotonic() - begun_s < 10
    assert (data / "ended").read_text().split() == [TICKER, WORKER]
    assert [pid for pid in pids if birth_of(pid) is not None] == []
    assert not (data / "up.json").exists()
    assert not (data / "children.json").exists()
    assert not (data / "redis.sock").exists()
    assert read_anchor(data / "clock.json").speed == 0
    assert up.lines == []
    up.stack.stop()


@pytest.mark.parametrize("name", [REDIS, WORKER, TICKER, API])
def test_who_is_killed_is_started_again_and_told_in_one_line(up: Supervised, name: str) -> None:
    pid = up.stack.pid_of(name)
    assert pid is not None
    log = up.stack.installation.logs / f"{name}.log"
    if name in (WORKER, TICKER):
        wait_for("it says that it lives", lambda: "lives" in log.read_text(), within_s=WITHIN_S)
    os.kill(pid, signal.SIGKILL)
    line = up.wait_for_line(name, "was ended by SIGKILL", "started again in 0.2 s")
    assert line.endswith(f"({log})")
    if name in (WORKER, TICKER):
        assert 'it said last: "lives"' in line
    up.wait_for_other(name, pid)
    assert len(up.lines) == 1


def test_what_a_dead_worker_held_is_free_at_once(up: Supervised) -> None:
    store, pid = up.stack.parts.store, up.stack.pid_of(WORKER)
    instance = next(c["instance"] for c in _children(up) if c["name"] == WORKER)
    now_s = time.time()
    assert store.acquire_lease("host.dgx2-a", f"{lease_prefix(instance)}x", now_machine_s=now_s, ttl_s=3600)
    assert store.acquire_lease("host.dgx2-b", "another/x", now_machine_s=now_s, ttl_s=3600)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    up.wait_for_other(WORKER, pid)
    wait_for(
        "the lease is free",
        lambda: store.acquire_lease("host.dgx2-a", "next/y", now_machine_s=now_s, ttl_s=1),
        within_s=WITHIN_S,
    )
    assert not store.acquire_lease("host.dgx2-b", "next/y", now_machine_s=now_s, ttl_s=1)


def test_who_lives_and_does_nothing_is_killed_and_told(up: Supervised, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stall, "STALLED_AFTER_S", 0.5)
    monkeypatch.setattr(signs_of_life, "_EVERY_S", 0.1)
    pid = up.stack.pid_of(TICKER)
    up.wait_for_line("ticker gave no sign of life", "started again in")
    up.wait_for_other(TICKER, pid)
    assert not any(line.startswith("worker") for line in up.lines), "no ticker called it"


def _children(up: Supervised) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((up.stack.installation.data / "children.json").read_text())
    return found


def test_callers_wait_while_the_api_is_started_again(up: Supervised) -> None:
    pid = up.stack.pid_of(API)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for("it is dead", lambda: birth_of(pid) is None, within_s=WITHIN_S)
    with socket.create_connection(("127.0.0.1", up.stack.port), timeout=WITHIN_S) as caller:
        caller.sendall(b"GET /api/v1/status HTTP/1.1\r\n\r\n")
        up.wait_for_other(API, pid)
        assert caller.recv(100).startswith(b"HTTP/1.1 200")


def test_a_second_one_on_the_same_directory_is_told_who_runs(up: Supervised, data: Path) -> None:
    second = Supervised(data, speed=60)
    with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}, {up.stack.url}"):
        second.stack.start()
    assert all(up.pids().values())
    assert read_up(up.stack.installation) is not None


def test_time_goes_at_the_asked_speed_and_stands_still_at_the_end(up: Supervised, data: Path) -> None:
    clock = ScaledClock(data / "clock.json")
    first = clock.now()

    def has_a_minute_passed() -> bool:
        up.stack.tend()
        return clock.now() - first >= 60

    wait_for("a minute", has_a_minute_passed, within_s=WITHIN_S)
    up.stack.set_speed(3600)
    assert clock.speed == 3600
    record = read_up(up.stack.installation)
    assert record is not None
    assert record.speed == 3600
    up.stack.stop()
    stopped = clock.now()
    assert ScaledClock(data / "clock.json", machine=lambda: time.time() + 1000).now() == stopped


def test_a_directory_whose_time_was_scaled_is_refused_in_real_time(up: Supervised, data: Path) -> None:
    up.stack.stop()
    with pytest.raises(WrongSpeed, match=r"was scaled.*--speed.*--data"):
        Supervised(data).stack.start()
    again = Supervised(data, speed=10)
    again.stack.start()
    again.stack.stop()


def test_a_directory_that_ran_in_real_time_is_refused_with_a_speed(data: Path) -> None:
    first = Supervised(data)
    first.stack.start()
    with pytest.raises(WrongSpeed, match="real time"):
        first.stack.set_speed(60)
    first.stack.stop()
    assert not (data / "clock.json").exists()
    with pytest.raises(WrongSpeed, match=r"runs in real time.*without --speed"):
        Supervised(data, speed=60).stack.start()
    assert not (data / "clock.json").exists()


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf"), 1e9])
def test_what_is_no_speed_is_refused_before_anything_is_made(data: Path, speed: float) -> None:
    with pytest.raises(WrongSpeed, match="--speed"):
        Supervised(data, speed=speed).stack.start()
    assert not data.exists()


def test_a_port_in_use_is_named_before_anything_is_started(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        stack = Stack(Installation.found(data), port=port, commands=STAND_INS)
        with pytest.raises(PortTaken, match=rf"port {port} on 127\.0\.0\.1 is in use by another program.*--port"):
            stack.start()
    assert not (data / "nightshift.sqlite3").exists()
    assert not (data / "logs").exists()


def test_a_part_that_will_not_run_ends_the_start_with_its_last_words(data: Path) -> None:
    broken = {**STAND_INS, TICKER: python("import sys; sys.exit('no time for this')"), API: python(LIVES)}
    supervised = Supervised(data, commands=broken)
    with pytest.raises(ChildWillNotRun, match=r"ticker ends again and again: no time for this; see .*ticker\.log"):
        supervised.stack.start()
    assert set(supervised.pids().values()) == {None}
    assert not redis_answers(data / "redis.sock")
    assert not (data / "up.json").exists()


def test_who_is_asked_to_stop_while_it_starts_does(data: Path) -> None:
    supervised = Supervised(data, commands={**STAND_INS, API: python(LIVES)})
    supervised.stack.ask_to_stop()
    with pytest.raises(StartStopped):
        supervised.stack.start()
    assert not redis_answers(data / "redis.sock")


def test_who_does_not_end_is_killed_and_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_module, "STOP_WITHIN_S", 1.0)
    supervised = Supervised(data, commands={**STAND_INS, WORKER: python(STAYS)})
    supervised.stack.start()
    pid = supervised.stack.pid_of(WORKER)
    assert pid is not None
    wait_for("it says so", lambda: "stays" in (data / "logs" / "worker.log").read_text(), within_s=WITHIN_S)
    supervised.stack.stop()
    assert birth_of(pid) is None
    assert supervised.lines == ["did not end in time, so it was killed: worker"]


def test_a_second_demand_ends_everything_at_once(data: Path) -> None:
    supervised = Supervised(data, commands={**STAND_INS, WORKER: python(STAYS), TICKER: python(STAYS)})
    supervised.stack.start()
    log = data / "logs" / "ticker.log"
    wait_for("it says so", lambda: log.exists() and "stays" in log.read_text(), within_s=WITHIN_S)
    supervised.stack.ask_to_stop()
    supervised.stack.ask_to_stop()
    begun_s = time.monotonic()
    supervised.stack.stop()
    assert time.monotonic() - begun_s < stack_module.STOP_WITHIN_S / 2
    assert set(supervised.pids().values()) == {None}


def test_a_redis_that_was_named_is_used_and_none_is_started(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_REDIS", "redis://127.0.0.1:1/0")
    supervised = Supervised(data)
    supervised.stack.start()
    assert supervised.stack.pid_of(REDIS) is None
    assert supervised.stack.redis_program is None
    assert not (data / "redis.sock").exists()
    supervised.stack.stop()


def test_a_socket_path_that_is_too_long_is_told_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Wherever tests have their directories, this one has to be short.
    runtime = Path(tempfile.mkdtemp(prefix="ns-", dir="/tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    data = tmp_path / ("d" * 100)
    supervised = Supervised(data)
    supervised.stack.start()
    try:
        (line,) = supervised.lines
        assert "too long a path for a socket" in line
        socket_path = Path(supervised.stack.installation.redis_url.removeprefix("redis+socket://"))
        assert socket_path.is_relative_to(runtime)
        assert redis_answers(socket_path)
    finally:
        supervised.stack.stop()
        shutil.rmtree(runtime)


def test_a_database_of_a_newer_program_is_refused_before_anything_is_started(data: Path) -> None:
    data.mkdir()
    first = open_parts(Installation.found(data), is_waking=False)
    first.store.migrate()
    first.close()
    with sqlite3.connect(data / "nightshift.sqlite3") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(SchemaTooNew, match="schema revision 9999"):
        Supervised(data).stack.start()
    assert not (data / "logs").exists()


def test_a_real_host_is_refused_in_scaled_time_before_it_is_added(data: Path) -> None:
    real = RealHostSetup(host=HostId("dgx2-r"), profile="dgx-2", connect="qemu:///system")
    with pytest.raises(WrongSpeed, match=r"dgx2-r is a real host.*start it without --speed"):
        Supervised(data, speed=60, real=(real,)).stack.start()
    parts = open_parts(Installation.found(data), is_waking=False)
    assert parts.plans.current().hosts == {}
    parts.close()
