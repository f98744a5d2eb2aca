"""One worker and one ticker as real processes, Redis on a socket, SQLite, a simulated rack, at speed 60."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.installation import Installation, Parts, open_parts
from policies.loading import load_policy
from policies.ticker import apply_intent
from scheduler.core.intents import AddHost, Intent, Submit, reservation_id
from scheduler.core.plan import Decided, Outcome, Reservation
from scheduler.core.requests import Ask, HostId, ReservationId, Role
from scheduler.core.spans import MINUTE_S
from tests.running import ROOT, KeptClock, OurProcess, RedisServer, wait_for
from workers.attending import lease_prefix
from workers.drivers.simulated.log import read_file
from workers.drivers.simulated.rack import SimulatedRack
from workers.drivers.simulated.schema import rack_path

HOST = HostId("dgx2-a")
MONDAY_10_UTC = 1_772_445_600
"""2026-03-02 10:00 UTC: day for a while yet."""
SPEED = 60.0


class Site:
    """An installation with one host and the university's policy."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.redis = RedisServer(home)
        self.installation = Installation(
            data=home,
            database_url=f"sqlite:///{home / 'nightshift.sqlite3'}",
            redis_url=self.redis.url,
        )
        self.clock = KeptClock(self.installation.clock_file, speed=SPEED, now=MONDAY_10_UTC)
        self.parts: Parts = open_parts(self.installation)
        self.parts.store.migrate()
        self.processes: list[OurProcess] = []
        SimulatedRack(self.installation.racks, HOST, self.parts.profiles("dgx-2"), self.parts.clock, seed=1).close()

    def start(self, command: str, instance: str, *arguments: str) -> OurProcess:
        environment = {**self.installation.environment(), "NIGHTSHIFT_INSTANCE": instance}
        process = OurProcess(command, *arguments, log=self.home / f"{instance}.log", environment=environment)
        self.processes.append(process)
        return process

    def do(self, intent: Intent, *, author: str = "admin", role: Role = Role.ADMIN) -> Decided:
        filed = self.parts.desk.file(intent, author=author, role=role)
        decided = wait_for(
            f"{intent.kind} is decided",
            lambda: self.parts.desk.decision(filed.seq),
            within_s=15,
            evidence=self.evidence,
        )
        assert decided.is_accepted, decided.reasons
        return decided

    def set_up(self) -> None:
        """Add the host and apply the policy, through whoever plans."""
        self.do(AddHost(host=HOST, profile="dgx-2", storage="local"))
        file = ROOT / "policies" / "examples" / "university.yaml"
        policy = load_policy(file.read_text(encoding="utf-8"), source="university.yaml")
        assert not isinstance(policy, tuple)
        self.do(
            apply_intent(policy, [HOST], now=self.parts.clock.now(), version=1, settings=self.parts.settings),
        )

    def submit(self, *, gpus: int, run_s: int) -> ReservationId:
        ask = Ask(owner="ada", queue="interactive", gpus=gpus, run_s=run_s)
        return reservation_id(self.do(Submit(ask=ask), author="ada", role=Role.STUDENT).seq)

    def reservation(self, name: ReservationId) -> Reservation:
        found = self.parts.store.reservation(name)
        assert found is not None
        return found

    def on_rack(self, what: str, name: ReservationId | None = None) -> int | None:
        """Return when it first happened on the rack, to a reservation or to no VM, whatever anybody believes."""
        lines = read_file(rack_path(self.home, HOST))
        return next((line.at for line in lines if line.what == what and line.reservation == name), None)

    def wait_on_rack(self, what: str, name: ReservationId | None = None, *, within_s: float) -> int:
        return wait_for(f"{what} {name}", lambda: self.on_rack(what, name), within_s=within_s, evidence=self.evidence)

    def evidence(self) -> str:
        logs = [f"--- {path.name}\n{path.read_text()}" for path in sorted(self.home.glob("*.log"))]
        rack = [f"{line.at} {line.what} {line.reservation}" for line in read_file(rack_path(self.home, HOST))][-30:]
        return "\n".join([*logs, "--- rack", *rack])

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        self.parts.close()
        self.redis.kill()
        self.clock.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    try:
        yield site
    finally:
        site.close()


def test_a_reservation_runs_to_its_end_though_the_worker_is_killed_while_it_starts(site: Site) -> None:
    site.redis.start()
    ticker = site.start("ticker", "ticker-1")
    first = site.start("worker", "worker-1")
    site.set_up()
    name = site.submit(gpus=2, run_s=10 * MINUTE_S)
    site.wait_on_rack("disk.copying", within_s=20)
    first.kill()
    assert site.on_rack("guest.up", name) is None
    # As its supervisor does, which saw it die: nobody waits for the end of its lease.
    assert site.parts.store.release_leases_of(lease_prefix("worker-1")) == 1
    second = site.start("worker", "worker-2")
    running_at = site.wait_on_rack("guest.up", name, within_s=40)
    promise = site.reservation(name).promise
    assert promise is not None
    assert running_at <= promise.start_by_at
    ended = wait_for("it is completed", lambda: site.reservation(name).outcome, within_s=60, evidence=site.evidence)
    assert ended is Outcome.COMPLETED
    beats = {(beat.kind, beat.name) for beat in site.parts.store.heartbeats()}
    assert {("worker", "worker-2"), ("plan", "worker-2"), ("host", HOST), ("ticker", "ticker-1")} <= beats
    began_s = time.monotonic()
    assert (second.end(within_s=8), ticker.end(within_s=8)) == (0, 0)
    assert time.monotonic() - began_s < 8
    # The lease was given up: nobody has to wait for its end.
    now_s = site.parts.clock.machine_s()
    assert site.parts.store.acquire_lease(f"host.{HOST}", "test/1", now_machine_s=now_s, ttl_s=1)
