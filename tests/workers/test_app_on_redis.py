"""A worker process on a real Redis that is away at first, dies, comes back empty, or hangs."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.installation import Installation, Parts, open_parts
from scheduler.core.intents import AddHost
from scheduler.core.requests import HostId, Role
from scheduler.store.leases import host_lease
from tests.running import OurProcess, RedisServer, wait_for
from workers.app import PLAN_QUEUE, host_queue
from workers.broker import open_redis
from workers.drivers.simulated.rack import SimulatedRack

WORKER = "worker-of-a-test"


class Site:
    """A data directory with one worker on it, and nobody who ticks."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.redis = RedisServer(home)
        self.installation = Installation(
            data=home, database_url=f"sqlite:///{home / 'nightshift.sqlite3'}", redis_url=self.redis.url
        )
        self.parts: Parts = open_parts(self.installation)
        self.parts.store.migrate()
        self.worker: OurProcess | None = None

    def start_worker(self, *arguments: str) -> OurProcess:
        environment = {**self.installation.environment(), "NIGHTSHIFT_INSTANCE": WORKER}
        self.worker = OurProcess("worker", *arguments, log=self.home / "worker.log", environment=environment)
        return self.worker

    def log(self) -> str:
        return (self.home / "worker.log").read_text()

    def says(self, event: str, *, times: int = 1, within_s: float = 15) -> None:
        def look() -> bool:
            return self.log().count(f" {event} ") >= times

        wait_for(f"{event} {times} times", look, within_s=within_s, evidence=self.log)

    def beat_at_s(self, kind: str, name: str) -> float:
        beats = self.parts.store.heartbeats()
        return next((beat.machine_s for beat in beats if (beat.kind, beat.name) == (kind, name)), 0.0)

    def wait_for_message(self, wake: Callable[[], None], kind: str, name: str) -> None:
        """Wake until a heartbeat tells that a message arrived after now."""
        since_s = time.time()

        def look() -> bool:
            wake()
            return self.beat_at_s(kind, name) >= since_s

        wait_for(f"a message: {kind} {name}", look, within_s=20, evidence=self.log)

    def add_host(self, host: HostId) -> None:
        self.parts.desk.file(AddHost(host=host, profile="dgx-2", storage="local"), author="admin", role=Role.ADMIN)

        def look() -> bool:
            self.parts.wake.plan()
            return host in self.parts.plans.current().hosts

        wait_for(f"{host} is in the plan", look, within_s=15, evidence=self.log)

    def make_rack(self, host: HostId) -> None:
        SimulatedRack(self.installation.racks, host, self.parts.profiles("dgx-2"), self.parts.clock, seed=1).close()

    def close(self) -> None:
        if self.worker is not None:
            self.worker.kill()
        self.parts.close()
        self.redis.kill()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    try:
        yield site
    finally:
        site.close()


def test_messages_flow_again_when_redis_was_away_at_the_start_and_when_it_died_and_came_back_empty(site: Site) -> None:
    worker = site.start_worker()
    site.says("redis.away")
    site.redis.start()
    site.says("redis.back")
    site.wait_for_message(site.parts.wake.plan, "plan", WORKER)
    for times in (2, 3):
        site.redis.kill()
        site.says("redis.away", times=times)
        site.redis.start()
        site.says("redis.back", times=times)
        site.wait_for_message(site.parts.wake.plan, "plan", WORKER)
    assert worker.end(within_s=8) == 0
    # Once each, however many tries there were between.
    lines = [line.split(" ")[3] for line in site.log().splitlines()]
    assert lines == [
        "worker.started",
        *["redis.away", "redis.back"] * 3,
        "worker.ended",
    ]


def test_a_host_that_is_added_later_is_served_without_a_restart(site: Site) -> None:
    site.redis.start()
    site.start_worker()
    late = HostId("late")
    site.add_host(late)
    site.make_rack(late)
    site.wait_for_message(lambda: site.parts.wake.host(late), "host", late)


def test_without_messages_a_worker_looks_by_itself_after_a_while(site: Site) -> None:
    host = HostId("dgx2-a")
    site.make_rack(host)
    site.start_worker()
    site.parts.desk.file(AddHost(host=host, profile="dgx-2", storage="local"), author="admin", role=Role.ADMIN)
    wait_for("a look at the host", lambda: site.beat_at_s("host", host) > 0, within_s=25, evidence=site.log)
    assert "worker.alone" in site.log()
    # What tells a supervisor that messages arrive is not said.
    assert site.beat_at_s("worker", WORKER) == 0
    assert site.beat_at_s("plan", WORKER) == 0


def test_a_worker_ends_cleanly_while_redis_is_away(site: Site) -> None:
    worker = site.start_worker()
    site.says("redis.away")
    assert worker.end(within_s=8) == 0


def test_messages_flow_again_when_redis_hung_for_a_while(site: Site) -> None:
    site.redis.start()
    site.start_worker()
    site.wait_for_message(site.parts.wake.plan, "plan", WORKER)
    site.redis.stop()
    since_s = time.monotonic()
    # Longer than every limit on an answer; whoever wakes never waits meanwhile.
    wait_for("a while", lambda: time.monotonic() - since_s > 6, within_s=10)
    for _ in range(100):
        site.parts.wake.plan()
    assert time.monotonic() - since_s < 7
    site.redis.go_on()
    site.wait_for_message(site.parts.wake.plan, "plan", WORKER)


def test_a_worker_ends_cleanly_and_gives_its_lease_up_while_redis_hangs(site: Site) -> None:
    host = HostId("dgx2-a")
    site.make_rack(host)
    site.redis.start()
    worker = site.start_worker()
    site.add_host(host)
    site.wait_for_message(lambda: site.parts.wake.host(host), "host", host)
    now_s = site.parts.clock.machine_s()
    assert not site.parts.store.acquire_lease(host_lease(host), "test/1", now_machine_s=now_s, ttl_s=1)
    site.redis.stop()
    assert worker.end(within_s=8) == 0
    now_s = site.parts.clock.machine_s()
    assert site.parts.store.acquire_lease(host_lease(host), "test/1", now_machine_s=now_s, ttl_s=1)


def test_a_worker_of_named_hosts_leaves_the_others_and_the_plan_alone(site: Site) -> None:
    site.redis.start()
    client = open_redis(site.redis.url)
    mine, other = HostId("mine"), HostId("other")
    for host in (mine, other):
        site.make_rack(host)
    site.start_worker("--host", mine, "--no-plan")
    site.says("worker.started")
    for host in (mine, other):
        site.parts.wake.host(host)
    site.parts.wake.plan()
    assert site.parts.wake.flush(5)
    wait_for("its own are taken", lambda: client.llen(host_queue(mine)) == 0, within_s=10, evidence=site.log)
    site.says("host.converge.failed")
    assert client.llen(host_queue(other)) == 1
    assert client.llen(PLAN_QUEUE) == 1
    client.close()
