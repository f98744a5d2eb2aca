"""An evening shortly before a swap, made once and copied for each scenario: a full host, and a whole-host job at 20:00.

The tenants are running and were promised, the policy's job is booked. Holds how that comes about, under a real `up`;
what then happens to the swap is in `night`.
"""

import shutil
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from cli.client import Json
from cli.installation import open_parts
from policies.applying import apply_to_plan, check_text
from scheduler.core.requests import ReservationId, Role
from scheduler.core.spans import HOUR_S, Instant
from scheduler.profiles.loading import load_profile
from scheduler.service.clock import ClockKeeper, open_clock
from scheduler.service.plan import PlanTask
from tests.e2e.kill_stack import HOST, PROFILE, ZONE, Site
from workers.drivers.simulated.rack import SimulatedRack

EVENING_SPEED = 120.0
BEGINS_AT = int(datetime(2026, 3, 2, 19, 20, tzinfo=ZoneInfo(ZONE)).timestamp())
"""A Monday."""
SWAPS_AT = int(datetime(2026, 3, 2, 20, 0, tzinfo=ZoneInfo(ZONE)).timestamp())
GOES_ON_AT = SWAPS_AT - 200
TENANTS = (("ada", 8), ("bela", 4), ("chen", 2), ("dora", 1), ("emil", 1))
"""They fill the host."""
TENANTS_RUN_S = 6 * HOUR_S
NIGHT_JOB = "nightly"
COURSE = "course"
COURSE_SIZE = 2

# The window is decided at 19:57 and warned of at 19:59. Tuesday's course is asked for at 20:01, amid the swap.
POLICY = """\
version: 1
zone: Europe/Berlin
layouts:
  day: {sizes: [1, 2, 4, 8], queues: [interactive]}
  night: {sizes: [16], queues: [hpc]}
outside: day
queues:
  interactive: {at_boundary: park, default_disk: 50GiB}
  hpc: {at_boundary: finish, scratch: true, default_disk: 200GiB}
images: [ubuntu-22.04-cuda]
defaults: {grace: 2m, min_useful: 5m, warnings: [1m]}
windows:
  - {name: night, layout: night, opens: "0 20 * * *", for: 12h, decide: 3m, only_if_queued: true}
reserve:
  - {name: nightly, cron: "0 20 * * *", for: 2h, gpus: 16, queue: hpc, owner: climate-group, ahead: 2h}
  - {name: course, cron: "0 17 * * tue", for: 1h, gpus: 2, count: 2, queue: interactive, owner: course, ahead: 20h59m}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evening:
    """A data directory at rest, and the answers that people got so far."""

    data: Path
    tenants: tuple[ReservationId, ...]
    night: ReservationId
    answers: tuple[Json, ...]

    def copy(self, data: Path, *, speed: float, at: Instant = GOES_ON_AT) -> Site:
        """Return a copy that goes on at an instant, as if Nightshift had been down since."""
        shutil.copytree(self.data, data)
        (data / "clock.json").unlink()
        stand_at(data, at)
        site = Site(data=data, speed=speed)
        for answer in self.answers:
            site.note(answer)
        return site


@dataclass(slots=True)
class _Asked:
    tenants: tuple[ReservationId, ...]
    reservations: list[Json] = field(default_factory=list)

    @property
    def nights(self) -> list[ReservationId]:
        return [ReservationId(r["id"]) for r in self.reservations if r["by_policy"] == NIGHT_JOB and r["promise"]]

    @property
    def running(self) -> int:
        return sum(1 for r in self.reservations if r["phase"] == "running")


def make_evening(data: Path, *, rack_seed: int = 1) -> Evening:
    """Let an evening come about in a new data directory, and end it cleanly."""
    data.mkdir(mode=0o700)
    stand_at(data, BEGINS_AT)
    site = Site(data=data, speed=EVENING_SPEED)
    # What `up` finds it leaves as it is: the rack, whose seed says how long everything takes, and the policy.
    clock = open_clock(data)
    SimulatedRack(site.installation.racks, HOST, load_profile(PROFILE), clock, seed=rack_seed).close()
    _apply_policy(site)
    try:
        site.start()
        site.enrol(*(owner for owner, _ in TENANTS))
        asked = _Asked(tuple(site.reserve(owner, gpus, TENANTS_RUN_S) for owner, gpus in TENANTS))

        def is_ready() -> bool:
            asked.reservations = site.read()
            return asked.running == len(TENANTS) and len(asked.nights) == 1

        site.wait_for("the tenants run and the night is promised", is_ready, within_s=60)
        status = site.end()
        assert status == 0, site.evidence()
    finally:
        site.clean_up()
    assert site.now < GOES_ON_AT, "the evening took too long"
    return Evening(
        data=data,
        tenants=asked.tenants,
        night=asked.nights[0],
        answers=tuple(asked.reservations),
    )


def stand_at(data: Path, at: Instant) -> None:
    """Let time stand at an instant until `up` is started there."""
    keeper = ClockKeeper(data / "clock.json")
    keeper.open(0, at)
    keeper.close()


def _apply_policy(site: Site) -> None:
    """Apply our policy before the first start of `up`."""
    parts = open_parts(site.installation, is_waking=False)
    try:
        parts.store.migrate()
        plan, now = parts.plans.current(), parts.clock.now()
        checked = check_text(POLICY, source="evening.yaml", now=now, settings=parts.settings)
        assert checked.policy is not None, checked.problems
        intent = apply_to_plan(checked.policy, plan, now=now, settings=parts.settings)
        filed = parts.desk.file(intent, author="test", role=Role.ADMIN)
        PlanTask(
            store=parts.store,
            clock=parts.clock,
            wake=parts.wake,
            plans=parts.plans,
            known_facts=parts.known_facts,
            settings=parts.settings,
            profiles=parts.profiles,
        ).run()
        decided = parts.desk.decision(filed.seq)
        assert decided is not None, "nobody decided"
        assert decided.is_accepted, decided.reasons
    finally:
        parts.close()
