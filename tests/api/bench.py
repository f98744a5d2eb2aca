"""The API on a whole Nightshift in one process: real planning, real converging, a simulated host, virtual time."""

import json as jsonlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from api.app import create_app
from api.services import Services
from cli.in_process import HostSetup, InProcess
from policies.format import LoadedPolicy
from policies.loading import load_policy
from scheduler.core.intents import FiledIntent, Intent
from scheduler.core.requests import HostId, Role
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant
from scheduler.service.submit import Desk
from scheduler.service.users import Users
from tests.api.asgi import API, Answered, Connection

MONDAY_AT: Instant = 1_772_434_800  # 2026-03-02 08:00 in Berlin, 07:00 UTC
HOST = HostId("dgx2-a")
POLICY = """
version: 1
zone: Europe/Berlin
layouts:
  day: {sizes: [1, 2, 4, 8], queues: [interactive]}
  night: {sizes: [16], queues: [hpc]}
outside: day
queues:
  interactive: {at_boundary: park}
  hpc: {at_boundary: finish, scratch: true}
images: [ubuntu, debian]
limits: {open_reservations: 20}
windows:
  - {name: night, layout: night, opens: "0 20 * * *", for: 12h, only_if_queued: true, hosts: ["dgx2-*"]}
"""


def read_policy(text: str) -> LoadedPolicy:
    policy = load_policy(text, source="bench.yaml")
    assert not isinstance(policy, tuple), policy
    return policy


class InlineWake:
    """Plans at once, on the thread of whoever wakes; converging is for the bench to say when."""

    def __init__(self, home: InProcess) -> None:
        self._home = home
        self.is_away = False
        """Nobody listens: what is filed stays undecided."""

    def plan(self) -> None:
        if not self.is_away:
            self._home.plan_task.run()

    def host(self, host: HostId) -> None:
        self._home.wake.host(host)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountingDesk(Desk):
    """Keeps what is handed in."""

    handed_in: list[Intent] = field(default_factory=list)

    def file(self, intent: Intent, *, author: str, role: Role, key: str | None = None) -> FiledIntent:
        self.handed_in.append(intent)
        return Desk.file(self, intent, author=author, role=role, key=key)


class Bench:
    """An API with two students, `ann` and `ben`, and the admin `root`."""

    def __init__(
        self, *, policy: str | None = POLICY, settings: Settings | None = None, store_url: str = "sqlite://"
    ) -> None:
        hosts = (HostSetup(host=HOST, profile="dgx-2", storage=HOST),)
        # Who is not answered at once is not waited for: nothing is decided while a request waits.
        settings = settings or replace(Settings(), decision_wait_machine_s=0.0)
        self.home = InProcess(now=MONDAY_AT, hosts=hosts, store_url=store_url, settings=settings)
        self.home.look()
        if policy is not None:
            assert self.home.apply_policy(read_policy(policy)).is_accepted
        self.wake = InlineWake(self.home)
        self.users = Users(self.home.store, self.home.clock)
        self.secrets: dict[str, str] = {}
        for name, role in (("root", Role.ADMIN), ("ann", Role.STUDENT), ("ben", Role.STUDENT)):
            self.users.add(name, role, by="set-up")
            self.secrets[name] = self.users.issue_token(name, label="test", by="set-up").secret
        self.desk = CountingDesk(store=self.home.store, clock=self.home.clock, wake=self.wake)
        self.services = Services(
            store=self.home.store,
            clock=self.home.clock,
            desk=self.desk,
            plans=self.home.plans,
            known_facts=self.home.known_facts,
            settings=self.home.settings,
            profiles=self.home.profile,
            users=self.users,
            redis_ping=lambda: None,
        )
        self.app = create_app(self.services)
        self.connection = Connection(self.app)

    @property
    def now(self) -> Instant:
        return self.home.clock.now()

    @property
    def filed(self) -> int:
        """How many intents were handed in by requests."""
        return len(self.desk.handed_in)

    def close(self) -> None:
        self.connection.close()
        self.home.close()

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        user: str | None = "ann",
        headers: dict[str, str] | None = None,
        raw: bytes | None = None,
        parts: int = 1,
    ) -> Answered:
        """Send a request as somebody; `path` is below `/api/v1`."""
        sent = {} if user is None else {"Authorization": f"Bearer {self.secrets[user]}"}
        content = b"" if body is None else jsonlib.dumps(body).encode()
        if raw is not None:
            content = raw
        if content:
            sent["Content-Type"] = "application/json"
        return self.connection.send(
            method, f"{API}{path}", body=content, headers={**sent, **(headers or {})}, parts=parts
        )

    def get(self, path: str, *, user: str | None = "ann") -> Any:
        """Return what is at a path, which has to be there."""
        answer = self.send("GET", path, user=user)
        assert answer.status == 200, answer.body
        return answer.json

    def reserve(self, *, user: str = "ann", **asked: Any) -> Any:
        """Reserve something, which has to be promised."""
        answer = self.send("POST", "/reservations", {"gpus": 1, "run_s": 3600, **asked}, user=user)
        assert answer.status == 201, answer.body
        return answer.json

    def pass_time(self, seconds: int) -> None:
        """Let time pass, with everything that comes due in it."""
        self.home.look()
        self.home.agenda.run_until(self.now + seconds)


@contextmanager
def opened(**options: Any) -> Iterator[Bench]:
    bench = Bench(**options)
    try:
        yield bench
    finally:
        bench.close()
