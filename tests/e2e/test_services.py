"""What docker-compose.yml says, run: each service's own command and environment as a plain process.

PostgreSQL and Redis come from the machine, the rest from this checkout. Rewritten are host names, ports and the data
directory, and nothing else; containers are the one thing that is not tried here. Time is scaled as `up --speed` scales
it, for nobody waits an hour.
"""

import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import psycopg
import pytest

from scheduler.service.clock import BEAT_S, CLOCK_FILE, ClockKeeper
from tests.compose import Service, read_services
from tests.databases import PostgresqlCluster
from tests.running import required_program
from workers.drivers.simulated.log import read_file
from workers.drivers.simulated.schema import rack_path

SPEED = 30.0
BEGINS_AT = int(datetime(2026, 11, 23, 9, 0, tzinfo=UTC).timestamp())
"""A Monday morning, with no window near."""
HOST = "dgx2-a"
PASSWORD = "p@ss: /w%rd#" + secrets.token_hex(8)
"""With characters that a URL could not hold as they are."""
START_LIMIT_S = 60.0
_LOOK_EVERY_S = 0.1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def redis_server() -> str:
    """Return where redis-server is."""
    return required_program("redis-server", "redis", "redis-server")


@dataclass(slots=True)
class Running:
    """The services of one test: where they are, and those that were started."""

    directory: Path
    services: dict[str, Service]
    postgres_port: int = field(default_factory=free_port)
    redis_port: int = field(default_factory=free_port)
    api_port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def service(self, name: str) -> Service:
        """Return a service with this machine's places in place of the containers'."""

        def rewrite(word: str) -> str:
            for theirs, ours in (
                ("@postgres:5432", f"@127.0.0.1:{self.postgres_port}"),
                ("//redis:6379", f"//127.0.0.1:{self.redis_port}"),
                ("/var/lib/nightshift", str(self.data)),
                ("0.0.0.0", "127.0.0.1"),
                ("8470", str(self.api_port)),
            ):
                word = word.replace(theirs, ours)
            return word

        return self.services[name].rewritten(rewrite)

    def environment(self, service: Service) -> dict[str, str]:
        """Return what a container's process sees: the service's own environment, and that of the image."""
        image = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(self.data),
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return {**image, **service.environment}

    def start(self, name: str, *, as_name: str | None = None) -> None:
        """Start one of Nightshift's services."""
        service = self.service(name)
        with self.log(as_name or name).open("wb") as log:
            self.processes[as_name or name] = subprocess.Popen(
                [Path(sys.executable).parent / "nightshift", *service.command],
                cwd=self.data,
                env=self.environment(service),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def is_healthy(self, name: str) -> bool:
        """Ask a service's own health check."""
        service = self.service(name)
        program, *arguments = service.health
        return (
            subprocess.run(
                [sys.executable if program == "python" else program, *arguments],
                cwd=self.data,
                env=self.environment(service),
                capture_output=True,
                check=False,
                timeout=10,
            ).returncode
            == 0
        )

    def stop(self, name: str) -> tuple[int, float]:
        """End a service as Compose does and return its exit status and how long that took."""
        process = self.processes.pop(name)
        began_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(timeout=self.services[name.split("-")[0]].stop_within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        return status, time.monotonic() - began_s

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def logs(self) -> str:
        """Return the end of every log, for the message of a test that fails."""
        return "\n".join(
            f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-30:])
            for path in sorted(self.directory.glob("*.log"))
        )

    def wait_until(self, claim: str, is_so: Callable[[], bool], *, limit_s: float = START_LIMIT_S) -> None:
        """Wait until something is so; nobody who was started may end meanwhile."""
        until_s = time.monotonic() + limit_s
        while not is_so():
            ended = {name: process.poll() for name, process in self.processes.items() if process.poll() is not None}
            if ended or time.monotonic() > until_s:
                pytest.fail(f"not within {limit_s:g} s: {claim}; ended: {ended}\n{self.logs()}")
            time.sleep(_LOOK_EVERY_S)


@contextmanager
def postgres(running: Running, machine: PostgresqlCluster) -> Iterator[None]:
    """Run the service `postgres` as its image would: made with the user, password and database of its environment."""
    service = running.service("postgres")
    said = service.environment
    home = Path(tempfile.mkdtemp(prefix="ns-pg-"))
    password = home / "password"
    password.write_text(said["POSTGRES_PASSWORD"], encoding="utf-8")
    cluster = PostgresqlCluster(bindir=machine.bindir, home=home, user=machine.user)
    if cluster.user is not None:
        shutil.chown(home, cluster.user)
        shutil.chown(password, cluster.user)
    program, *flags = service.command
    assert program == "postgres"
    data = str(home / "data")
    options = [*flags, "-p", str(running.postgres_port), "-k", str(home), "-c", "listen_addresses=127.0.0.1"]
    try:
        user = ["--username", said["POSTGRES_USER"]]
        arguments = [*said["POSTGRES_INITDB_ARGS"].split(), "--pwfile", str(password), "--no-sync"]
        cluster.run("initdb", "-D", data, *user, *arguments)
        cluster.run("pg_ctl", "-D", data, "-l", str(home / "log"), "-o", " ".join([*options, "-F"]), "-w", "start")
        try:
            with psycopg.connect(
                host=str(home),
                port=running.postgres_port,
                user=said["POSTGRES_USER"],
                dbname="postgres",
                autocommit=True,
            ) as connection:
                connection.execute(f"CREATE DATABASE {said['POSTGRES_DB']}".encode())
            health = [
                str(machine.bindir / service.health[0]),
                *service.health[1:],
                "--port",
                str(running.postgres_port),
            ]
            assert subprocess.run(health, check=False, timeout=10).returncode == 0
            yield
        finally:
            cluster.run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def redis(running: Running, program: str) -> Iterator[None]:
    """Run the service `redis` on a port of its own."""
    service = running.service("redis")
    name, *arguments = service.command
    assert name == "redis-server"
    directory = running.directory / "redis"
    directory.mkdir()
    places = ["--port", str(running.redis_port), "--bind", "127.0.0.1", "--dir", str(directory)]
    with (running.directory / "redis.log").open("wb") as log:
        process = subprocess.Popen([program, *arguments, *places], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        running.wait_until("redis answers", lambda: _answers(service.health, running.redis_port))
        yield
        assert process.poll() is None
        assert list(directory.iterdir()) == [], "redis keeps nothing"
    finally:
        process.terminate()
        process.wait(timeout=10)


def _answers(health: tuple[str, ...], port: int) -> bool:
    program, *arguments = health
    asked = subprocess.run(
        [program, "-p", str(port), *arguments], capture_output=True, text=True, check=False, timeout=10
    )
    return asked.stdout.strip() == "PONG"


@contextmanager
def scaled_time(data: Path) -> Iterator[None]:
    """Keep the clock of a data directory, as `up --speed` does."""
    keeper = ClockKeeper(data / CLOCK_FILE)
    keeper.open(SPEED, BEGINS_AT)
    ends = Event()

    def beats() -> None:
        while not ends.wait(BEAT_S):
            keeper.beat()

    beating = Thread(target=beats)
    beating.start()
    try:
        yield
    finally:
        ends.set()
        beating.join()
        keeper.close()


@pytest.fixture
def running(postgresql_cluster: PostgresqlCluster, redis_server: str) -> Iterator[Running]:
    """Give PostgreSQL, Redis and a clock; Nightshift's own services are for the test to start."""
    # Not pytest's own directory: a test as root shares it with the user that PostgreSQL runs as.
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ns-services-")))
        running = Running(directory, read_services({"POSTGRES_PASSWORD": PASSWORD}))
        running.data.mkdir(mode=0o700)
        stack.enter_context(postgres(running, postgresql_cluster))
        stack.enter_context(redis(running, redis_server))
        stack.enter_context(scaled_time(running.data))
        try:
            yield running
        finally:
            for process in running.processes.values():
                process.kill()
                process.wait()


def finish_init(running: Running, *, as_name: str) -> str:
    """Run `init` to its end and return what it said."""
    running.start("init", as_name=as_name)
    status = running.processes.pop(as_name).wait(timeout=START_LIMIT_S)
    said = running.log(as_name).read_text(encoding="utf-8")
    assert status == 0, said
    return said


def what_happened(running: Running, reservation: str) -> list[str]:
    """Read a reservation's lines in the log of the simulated rack, oldest first."""
    return [line.what for line in read_file(rack_path(running.data, HOST)) if line.reservation == reservation]


def test_what_compose_says_runs_a_reservation_and_ends_cleanly(running: Running) -> None:
    said = finish_init(running, as_name="init-1")
    assert HOST in said
    token_file = running.data / "admin.token"
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    assert PASSWORD not in said
    # It runs again at each start of the services.
    assert finish_init(running, as_name="init-2").strip() == "nothing was missing"

    assert [name for name in ("api", "ticker", "worker") if running.is_healthy(name)] == []
    for name, part in (("api", "api"), ("ticker-1", "ticker"), ("ticker-2", "ticker"), ("worker", "worker")):
        running.start(part, as_name=name)
    for name in ("api", "ticker", "worker"):
        running.wait_until(f"{name} is healthy", partial(running.is_healthy, name))

    headers = {"Authorization": f"Bearer {token_file.read_text(encoding='ascii').strip()}"}
    with httpx.Client(base_url=f"{running.url}/api/v1", headers=headers, timeout=10) as client:

        def get(path: str) -> dict[str, Any]:
            answer = client.get(path)
            assert answer.status_code == 200, answer.text
            read: dict[str, Any] = answer.json()
            return read

        running.wait_until("every check of the doctor passes", lambda: all(c["ok"] for c in get("/doctor")["checks"]))

        with psycopg.connect(
            running.service("worker").environment["NIGHTSHIFT_DATABASE"], password=PASSWORD
        ) as database:
            assert database.execute("SELECT count(*) FROM heartbeat WHERE kind = 'ticker'").fetchone() == (2,)

        # As one would by `docker compose exec api`.
        doctor = subprocess.run(
            [Path(sys.executable).parent / "nightshift", "doctor"],
            cwd=running.data,
            env={**running.environment(running.service("api")), "NIGHTSHIFT_TOKEN": token_file.read_text().strip()},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert doctor.returncode == 0, doctor.stdout + doctor.stderr

        asked = client.post("/reservations", json={"gpus": 2, "run_s": 3600})
        assert asked.status_code in (201, 202), asked.text
        reservation = asked.json()["id" if asked.status_code == 201 else "reservation"]
        running.wait_until("it is promised", lambda: get(f"/reservations/{reservation}")["promise"] is not None)
        promise = get(f"/reservations/{reservation}")["promise"]
        assert datetime.fromisoformat(promise["start_by_at"]).timestamp() > BEGINS_AT

        running.wait_until(
            "its guest runs", lambda: get(f"/reservations/{reservation}")["phase"] == "running", limit_s=90
        )
        vm = get(f"/reservations/{reservation}")["vm"]
        assert (vm["host"], len(vm["gpus"])) == (HOST, 2)
        assert vm["running_at"] <= promise["start_by_at"]
        assert "vm.running" in what_happened(running, reservation)

        # One ticker of two is as good as both: what an owner asks for still comes about.
        status, _ = running.stop("ticker-1")
        assert status == 0, running.logs()
        assert client.post(f"/reservations/{reservation}/stop").status_code in (200, 202)
        running.wait_until("its guest is gone", lambda: "vm.off" in what_happened(running, reservation))
        assert what_happened(running, reservation).count("vm.starting") == 1

    for name in ("api", "ticker-2", "worker"):
        status, took_s = running.stop(name)
        assert status == 0, f"{name} ended with {status} after {took_s:.1f} s\n{running.logs()}"
    assert PASSWORD not in running.logs()
