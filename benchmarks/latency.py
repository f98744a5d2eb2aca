"""How long people wait under a real `nightshift up`: from submit to promise, and from submit to a guest that is up.

Students ask for one GPU at random instants, through the API, and stop what has come up. To promise: from sending the
request to having the answer. To start: until the rack's log has the guest up, less what the rack took to copy the
disk, to start and to boot, and less the wait for a GPU that its last guest is leaving. All in machine time; the speed
only makes the log's whole seconds finer. The limit is an answer that decides nothing (GET /status) in the same run.
What is not shown is a database with years of history, a network, and many who ask at one moment.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.table import Table

from benchmarks.chains import start_s
from cli.recorded import STUDENTS
from scheduler.core.requests import ReservationId
from scheduler.core.spans import MINUTE_S
from scheduler.core.topology import HostProfile
from scheduler.profiles.loading import load_profile
from scheduler.service.clock import Anchor, read_anchor
from tests.e2e.evening import stand_at
from tests.e2e.kill_stack import PROFILE, ZONE, Site, rest
from workers.drivers.simulated.log import LogLine

BEGINS_AT = int(datetime(2026, 3, 2, 9, 0, tzinfo=ZoneInfo(ZONE)).timestamp())
"""A Monday morning, with no window near."""
SPEED = 60.0
MEAN_GAP_S = 0.4
RUN_S = 30 * MINUTE_S
DISK_GIB = 50
"""Kept for a week each: the pool has room for all."""
LAST_ONE_WITHIN_S = 30.0
_FLOOR_TIMES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class _Submit:
    reservation: ReservationId
    product_s: float
    """When it was sent, in product time."""
    to_promise_s: float
    is_at_once: bool
    """The answer had the promise, and did not only say that it is being planned."""


@dataclass(slots=True)
class _People:
    """Who ask, and stop what has come up, each in a thread of their own."""

    site: Site
    submits: list[_Submit] = field(default_factory=list)
    _stopping: dict[ReservationId, Future[object]] = field(default_factory=dict)
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2))

    def submit(self, owner: str) -> None:
        product_s = self._anchor().product_s_at(time.time())
        began_s = time.perf_counter()
        body = {"owner": owner, "gpus": 1, "run_s": RUN_S, "queue": "interactive", "disk_gib": DISK_GIB}
        answer = self.site.client.post("/reservations", body)
        took_s = time.perf_counter() - began_s
        is_at_once = "id" in answer
        self.submits.append(
            _Submit(
                reservation=ReservationId(str(answer["id" if is_at_once else "reservation"])),
                product_s=product_s,
                to_promise_s=took_s,
                is_at_once=is_at_once,
            )
        )

    def stop_who_is_up(self) -> None:
        for line in self.site.log():
            key = line.reservation
            if line.what == "guest.up" and key is not None and key not in self._stopping:
                self._stopping[key] = self._threads.submit(self.site.client.post, f"/reservations/{key}/stop")

    @property
    def are_all_up(self) -> bool:
        return {submit.reservation for submit in self.submits} <= self._stopping.keys()

    def close(self) -> None:
        self._threads.shutdown()

    def _anchor(self) -> Anchor:
        return read_anchor(self.site.installation.clock_file)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--submits", type=int, default=200)
    parser.add_argument("--speed", type=float, default=SPEED, help="seconds of product time in one")
    parser.add_argument("--seed", type=int, default=1, help="of the instants at which somebody asks")


def run(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Measure, print the table and return its rows."""
    with tempfile.TemporaryDirectory(prefix="nightshift-latency-") as directory:
        data = Path(directory) / "data"
        data.mkdir(mode=0o700)
        stand_at(data, BEGINS_AT)
        site = Site(data=data, speed=arguments.speed)
        try:
            site.start()
            site.enrol(*STUDENTS)
            floor_s = _floor(site)
            submits = _ask(site, arguments.submits, random.Random(f"latency/{arguments.seed}"))
            site.end()
            to_start_s = _to_start(submits, site.log(), load_profile(PROFILE), arguments.speed)
        finally:
            site.clean_up()
    rows = [
        _row("an answer that decides nothing (the limit)", floor_s),
        _row("submit to promise", [submit.to_promise_s for submit in submits]),
        _row("submit to start, less the rack's own time", to_start_s),
    ]
    table = Table("what", "measured", "p50, ms", "p99, ms", "most, ms")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    out = Console()
    out.print(table)
    late = sum(1 for submit in submits if not submit.is_at_once)
    out.print(f'answered "being planned": {late}; not up in the end: {len(submits) - len(to_start_s)}')
    return rows


def _floor(site: Site) -> list[float]:
    took = []
    for _ in range(_FLOOR_TIMES):
        began_s = time.perf_counter()
        site.client.get("/status")
        took.append(time.perf_counter() - began_s)
    return took


def _ask(site: Site, times: int, draw: random.Random) -> list[_Submit]:
    """Let people ask, in an open loop: nobody waits for the answer of another but the one thread that sends."""
    people = _People(site)
    next_s = time.monotonic()
    try:
        while len(people.submits) < times:
            next_s += draw.expovariate(1 / MEAN_GAP_S)
            while (left_s := next_s - time.monotonic()) > 0:
                people.stop_who_is_up()
                rest(min(left_s, 0.05))
            people.submit(draw.choice(STUDENTS))
        until_s = time.monotonic() + LAST_ONE_WITHIN_S
        while not people.are_all_up and time.monotonic() < until_s:
            people.stop_who_is_up()
            rest(0.05)
    finally:
        people.close()
    return people.submits


def _to_start(submits: Sequence[_Submit], log: Sequence[LogLine], profile: HostProfile, speed: float) -> list[float]:
    """Return what starts took in machine time beside the rack's own, from when a GPU was ready."""
    took = []
    for submit in submits:
        mine = [line for line in log if line.reservation == submit.reservation or _is_of_its_disk(line, submit)]
        up_at = next((line.at for line in mine if line.what == "guest.up"), None)
        if up_at is None:
            continue
        starting = next(line for line in mine if line.what == "vm.starting")
        addresses = {profile.gpu(gpu).address for gpu in starting.gpus}
        resets = [
            line.at
            for line in log
            if line.what == "gpu.reset" and line.seq < starting.seq and line.fact("device") in addresses
        ]
        ready_at = max([submit.product_s, *resets])
        took.append((up_at - ready_at - start_s(mine, submit.reservation)) / speed)
    return took


def _is_of_its_disk(line: LogLine, submit: _Submit) -> bool:
    return line.what.startswith("disk.") and line.fact("disk") == f"d-{submit.reservation}"


def _row(what: str, seconds: Sequence[float]) -> dict[str, object]:
    ordered = sorted(seconds)

    def at(part: float) -> float:
        # The nearest rank: a value that was measured.
        return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))] * 1000, 1)

    return {"what": what, "measured": len(ordered), "p50_ms": at(0.5), "p99_ms": at(0.99), "most_ms": at(1.0)}
