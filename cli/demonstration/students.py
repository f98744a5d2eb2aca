"""A dozen students who ask through the API, keep what they were told, and stop what they need no more.

    asking at the recorded instant ─▶ POST /reservations ─▶ the answer, kept
    the guest of one is up         ─▶ its work begins; when that is done, POST …/stop
    now and then                   ─▶ GET /reservations: what else was told

What happens inside of a guest (it came up, its work is done) is told by the rack's log: it stands for the guest.
Holds no judgement of what was told: that is the auditor's.
"""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING, Any

from cli.address import Address
from cli.answers import KeptAnswers, Told
from cli.client import Client, Json, Problem, Surroundings, part
from cli.recorded import Arrival
from cli.times import instant_in
from scheduler.core.errors import NightshiftError
from scheduler.core.reasons import ReasonCode
from scheduler.core.requests import ReservationId
from scheduler.core.spans import MINUTE_S, Instant
from workers.drivers.simulated.log import LogLine

if TYPE_CHECKING:
    import httpx

READ_AGAIN_S = 0.25
"""Every so often in machine time one of the students reads their list."""
AT_ONCE = 4
"""So many requests are under way at a time."""
MOST_READS, BETWEEN_READS_S = 20, 0.25
"""How long an answer is waited for that says "being planned"."""
LEAST_SAVED_S = 5 * MINUTE_S
"""Who would save less than this lets it run to its end."""
ADMIN = "admin"


@dataclass(slots=True)
class Notebook:
    """What one person keeps of the answers, by reservation. Used by several threads."""

    now: Callable[[], Instant]
    _kept: dict[ReservationId, KeptAnswers] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def note(self, answer: Json) -> ReservationId:
        """Keep what an answer about a reservation says."""
        key = ReservationId(str(answer["id"]))
        with self._lock:
            before = self._kept.get(key)
            told = _told(answer, self.now())
            if before is None:
                before = KeptAnswers(
                    reservation=key,
                    owner=str(answer["owner"]),
                    gpus=int(answer["gpus"]),
                    run_s=int(answer["run_s"]),
                    submitted_at=instant_in(answer, "submitted_at") or self.now(),
                    not_before_at=instant_in(answer, "not_before_at"),
                    told=(),
                    by_policy=answer.get("by_policy"),
                )
            self._kept[key] = replace(
                before,
                told=_with(before.told, told),
                ended_at=instant_in(answer, "ended_at"),
                kept_until_at=instant_in(answer.get("disk") or {}, "kept_until_at"),
            )
        return key

    def let_go(self, key: ReservationId, at: Instant) -> None:
        """Note that from `at` on nothing more is wanted of a reservation."""
        with self._lock:
            kept = self._kept[key]
            if kept.let_go_at is None:
                self._kept[key] = replace(kept, let_go_at=at)

    @property
    def kept(self) -> tuple[KeptAnswers, ...]:
        with self._lock:
            return tuple(self._kept.values())


def _told(answer: Json, now: Instant) -> Told | None:
    promise = answer.get("promise")
    if not isinstance(promise, dict):
        return None
    start_by_at, end_by_at = instant_in(promise, "start_by_at"), instant_in(promise, "end_by_at")
    if start_by_at is None or end_by_at is None:
        return None
    why, seen_at = _put_off(answer, now)
    return Told(seen_at=seen_at, start_by_at=start_by_at, end_by_at=end_by_at, why=why)


def _put_off(answer: Json, now: Instant) -> tuple[str, Instant]:
    """Return what the answer says put a promise off last, and when it was told; empty when nothing did."""
    for why in reversed(answer.get("reasons") or []):
        if why.get("code") == ReasonCode.PROMISE_BROKEN.value:
            facts: Any = why.get("facts") or {}
            told_at = facts.get("told_at")
            at = told_at if isinstance(told_at, int) else instant_in(facts, "told_at")
            return str(why.get("sentence")), now if at is None else at
    return "", now


def _with(told: tuple[Told, ...], new: Told | None) -> tuple[Told, ...]:
    if new is None:
        return told
    if told and (told[-1].start_by_at, told[-1].end_by_at, told[-1].why) == (new.start_by_at, new.end_by_at, new.why):
        return told
    return (*told, new)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What became of one request."""

    arrival: Arrival
    reservation: ReservationId | None
    said: str
    """Why not, where there is no reservation."""


@dataclass(slots=True)
class _Student:
    name: str
    client: Client
    notebook: Notebook


@dataclass(slots=True)
class _Work:
    """What is left to do inside of a guest."""

    owner: str
    needs_s: int
    up_at: Instant | None = None

    @property
    def done_at(self) -> Instant | None:
        return None if self.up_at is None else self.up_at + self.needs_s


class School:
    """All students, and the admin who made their accounts. One thread calls it; requests run in others."""

    def __init__(
        self,
        url: str,
        admin_token: str,
        demand: Iterable[Arrival],
        now: Callable[[], Instant],
        *,
        transport: "httpx.BaseTransport | None" = None,
    ) -> None:
        """`transport` None: real sockets."""
        self._url = url
        self._surroundings = Surroundings(environ={}, transport=transport)
        self._now = now
        self._admin = self._person(ADMIN, admin_token)
        self._coming = sorted(demand, key=lambda a: a.at, reverse=True)
        """The next one last."""
        self._students: dict[str, _Student] = {}
        self._work: dict[ReservationId, _Work] = {}
        self._up: dict[ReservationId, Instant] = {}
        """Whose guest is up, and since when."""
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="student")
        self._asking: dict[Future[Asked], Arrival] = {}
        self._others: set[Future[None]] = set()
        self._read_again_s = 0.0
        self._turn = 0
        self.troubles: list[str] = []
        """What did not work, in words; a demonstration that goes well has none."""

    def _person(self, name: str, token: str) -> _Student:
        address = Address(url=self._url, token=token, source="demo")
        return _Student(name, Client(address, self._surroundings), Notebook(self._now))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._students))

    def enrol(self, meanwhile: Callable[[], None]) -> None:
        """Let the admin make an account and a token for everybody who will ask; `meanwhile` is called in between."""
        for name in sorted({arrival.owner for arrival in self._coming}):
            self._admin.client.post("/users", {"name": name, "role": "student"})
            meanwhile()
            issued = self._admin.client.post(f"/users/{part(name)}/tokens", {"label": "demo"})
            meanwhile()
            self._students[name] = self._person(name, str(issued["secret"]))

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        for student in (self._admin, *self._students.values()):
            student.client.close()

    # What happens over the two days.

    @property
    def next_act_at(self) -> Instant | None:
        """When somebody asks for or stops something next."""
        done = [work.done_at for work in self._work.values() if work.done_at is not None]
        asks = [self._coming[-1].at] if self._coming else []
        return min((*asks, *done), default=None)

    @property
    def is_asking(self) -> bool:
        """Somebody waits for the answer to a request."""
        return bool(self._asking) or bool(self._others)

    def hear(self, lines: Iterable[LogLine]) -> None:
        """Follow what happens in the guests: who is up works, and who is down does not."""
        for line in lines:
            if line.reservation is None:
                continue
            work = self._work.get(line.reservation)
            if line.what == "guest.up":
                self._up[line.reservation] = line.at
                if work is not None:
                    work.up_at = line.at
            elif line.what in ("guest.down", "vm.off", "vm.vanished"):
                self._up.pop(line.reservation, None)
                if work is not None and work.up_at is not None:
                    work.needs_s -= line.at - work.up_at
                    work.up_at = None

    def act(self, now: Instant, machine_s: float) -> tuple[Asked, ...]:
        """Do what is due, and return the requests that were answered since."""
        while self._coming and self._coming[-1].at <= now:
            arrival = self._coming.pop()
            self._asking[self._threads.submit(self._ask, self._students[arrival.owner], arrival)] = arrival
        for key in [key for key, work in self._work.items() if work.done_at is not None and work.done_at <= now]:
            work = self._work.pop(key)
            self._others.add(self._threads.submit(self._stop, self._students[work.owner], key))
        answered = self._answered()
        if machine_s >= self._read_again_s and not self._others:
            self._read_again_s = machine_s + READ_AGAIN_S
            readers = [self._admin, *(self._students[name] for name in self.names)]
            self._turn = (self._turn + 1) % len(readers)
            self._threads.submit(self._read, readers[self._turn], is_all=False)
        return answered

    def read_everything(self, meanwhile: Callable[[], None]) -> None:
        """Let everybody read all that they have, once more; the admin what the policy asked for."""
        for student in (self._admin, *self._students.values()):
            meanwhile()
            self._read(student, is_all=True)

    @property
    def kept(self) -> tuple[KeptAnswers, ...]:
        """What everybody kept, and what the admin was told about the policy's own."""
        theirs = [kept for student in self._students.values() for kept in student.notebook.kept]
        return tuple(sorted((*theirs, *self._admin.notebook.kept), key=lambda kept: kept.submitted_at))

    def _answered(self) -> tuple[Asked, ...]:
        self._others = {future for future in self._others if not future.done()}
        done = [future for future in self._asking if future.done()]
        answered = []
        for future in done:
            arrival = self._asking.pop(future)
            asked = future.result()
            answered.append(asked)
            if asked.reservation is None:
                continue
            if arrival.run_s - arrival.needs_s >= LEAST_SAVED_S:
                self._work[asked.reservation] = _Work(
                    owner=arrival.owner, needs_s=arrival.needs_s, up_at=self._up.get(asked.reservation)
                )
        return tuple(answered)

    def finish_requests(self) -> None:
        """Wait for the answers to what is asked for now."""
        wait(self._asking)
        wait(self._others)

    # What runs in the threads.

    def _ask(self, student: _Student, arrival: Arrival) -> Asked:
        try:
            answer = student.client.post("/reservations", {"gpus": arrival.gpus, "run_s": arrival.run_s})
            if "id" not in answer:
                # Not decided within the time that the server waits: it says under which number it will be.
                answer = self._decided(student, str(answer["reservation"]))
            return Asked(arrival=arrival, reservation=student.notebook.note(answer), said="")
        except Problem as problem:
            return Asked(arrival=arrival, reservation=None, said=problem.message)
        except NightshiftError as error:
            self.troubles.append(f"{student.name} could not ask: {error.message}")
            return Asked(arrival=arrival, reservation=None, said=error.message)

    def _decided(self, student: _Student, key: str) -> Json:
        """Read a reservation until it is there; raises what the server says last."""
        for _ in range(MOST_READS):
            try:
                return student.client.get(f"/reservations/{part(key)}")
            except Problem as problem:
                if problem.status != 404:
                    raise
            time.sleep(BETWEEN_READS_S)
        return student.client.get(f"/reservations/{part(key)}")

    def _stop(self, student: _Student, key: ReservationId) -> None:
        try:
            since_at = self._now()
            student.client.post(f"/reservations/{part(key)}/stop")
            student.notebook.note(student.client.get(f"/reservations/{part(key)}"))
            student.notebook.let_go(key, since_at)
        except Problem as problem:
            if problem.status != 409:
                self.troubles.append(f"{student.name} could not stop {key}: {problem.message}")
        except NightshiftError as error:
            self.troubles.append(f"{student.name} could not stop {key}: {error.message}")

    def _read(self, student: _Student, *, is_all: bool) -> None:
        try:
            answer = student.client.get("/reservations", all=is_all, limit=200)
        except NightshiftError as error:
            self.troubles.append(f"{student.name} could not read: {error.message}")
            return
        for one in answer["reservations"]:
            if student is not self._admin or one.get("by_policy") is not None:
                student.notebook.note(one)
