"""Runs the two days: the real processes, the students, the speed of time and what is shown meanwhile.

One thread does everything here but the students' requests: it keeps the clock, so it never waits for long.
"""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from cli.answers import KeptAnswers
from cli.auditor import LATE_S, audit
from cli.demonstration.counting import count
from cli.demonstration.demand import Demand
from cli.demonstration.pacing import BUSY_SPEED, Speeds, speed_for
from cli.demonstration.report import Ended
from cli.demonstration.screen import Holder, Hours, Picture, Screen
from cli.demonstration.students import School
from cli.demonstration.telling import of_asking, of_lines
from cli.demonstration.watching import Sight, Watch
from cli.first_start import RackSetup
from cli.installation import Installation
from cli.runs import Run, read_runs
from cli.stack import Stack, StartStopped
from scheduler.core.requests import HostId, ReservationId
from scheduler.core.topology import HostProfile
from scheduler.core.windows import Window
from scheduler.profiles.loading import load_profile
from scheduler.service.clock import ClockKeeper
from workers.drivers.simulated.log import LogLine

HOST = HostId("dgx2-a")
PROFILE = "dgx-2"
FIRST_SPEED = 2.0
"""While everything starts; whoever comes first should not find the morning gone."""
LAST_SPEED = 10.0
LOOK_EVERY_S = 0.04
SHOW_EVERY_S = 0.25
SETTLE_S = 1.0
"""So long at the end for the log to have everything that happened."""


@dataclass(slots=True, kw_only=True)
class _Days:
    """What is known while the days go by."""

    log: list[LogLine] = field(default_factory=list)
    runs: tuple[Run, ...] = ()
    refused: list[str] = field(default_factory=list)
    speed: float = FIRST_SPEED
    shown_s: float = 0.0


class Demonstration:
    """Two days, from nothing to an audit. `run` once."""

    def __init__(
        self,
        *,
        data: Path,
        demand: Demand,
        screen: Screen,
        show: Hours,
        machine_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`data` must be new and empty."""
        self._demand = demand
        self._screen = screen
        self._show = show
        self._machine_s = machine_s
        self._begun_s = machine_s()
        self._profile: HostProfile = load_profile(PROFILE)
        # Not what the environment names: a demonstration is on its own.
        self._installation = Installation(
            data=data,
            database_url=f"sqlite:///{data / 'nightshift.sqlite3'}",
            redis_url=f"redis+socket://{data / 'redis.sock'}",
        )
        self._stack = Stack(
            self._installation,
            port=0,
            speed=FIRST_SPEED,
            racks=(RackSetup(host=HOST, profile=PROFILE),),
            on_line=screen.say,
        )
        self._speeds = Speeds()
        self._days = _Days()

    def ask_to_stop(self) -> None:
        """End early. For signal handlers."""
        self._stack.ask_to_stop()

    @property
    def is_stopped(self) -> bool:
        return self._stack.is_stop_asked

    def run(self) -> Ended | None:
        """Run it all and return what came of it; None when it was asked to stop before its end."""
        # Time begins on the first of the two days, whatever day it is outside.
        keeper = ClockKeeper(self._installation.clock_file)
        keeper.open(0.0, self._demand.first_at)
        keeper.close()
        with ExitStack() as closing:
            closing.callback(self._stack.stop)
            try:
                self._stack.start()
            except StartStopped:
                return None
            parts = self._stack.parts
            self._screen.say(f"everything is up after {self._seconds():.0f} s: {self._stack.url}")
            token = self._installation.admin_token_file.read_text(encoding="ascii").strip()
            school = School(self._stack.url, token, self._demand.arrivals, parts.clock.now)
            closing.callback(school.close)
            school.enrol(self._stack.tend)
            self._screen.say(f"{len(school.names)} students: {', '.join(school.names)}")
            watch = Watch(parts=parts, host=HOST, profile=self._profile, machine_s=self._machine_s)
            closing.callback(watch.close)
            watch.open()
            self._live(school, watch)
            if self.is_stopped:
                return None
            self._set_speed(LAST_SPEED, parts.clock.now())
            self._wait(SETTLE_S)
            school.read_everything(self._stack.tend)
            self._days.log += watch.new_lines()
            until_s = self._machine_s()
            windows = tuple(sorted(watch.windows.values(), key=lambda window: window.start_at))
        return self._ended(school, windows, until_s)

    def _live(self, school: School, watch: Watch) -> None:
        """Let the two days go by."""
        days = self._days
        clock = self._stack.parts.clock
        self._set_speed(BUSY_SPEED, clock.now())
        while not self.is_stopped:
            begun_s = self._machine_s()
            self._stack.tend()
            lines = watch.new_lines()
            if lines:
                days.log += lines
                days.runs = read_runs(days.log)
                school.hear(lines)
            sight = watch.look(next_act_at=school.next_act_at, is_asking=school.is_asking)
            asked = school.act(sight.now, begun_s)
            days.refused += [f"{a.arrival.owner}, {a.arrival.gpus} GPUs: {a.said}" for a in asked if not a.reservation]
            if sight.now >= self._demand.until_at:
                return
            self._set_speed(speed_for(sight.outlook, until_at=self._demand.until_at), sight.now)
            kept = {one.reservation: one for one in school.kept} if asked or lines else {}
            for happening in of_asking(asked, kept, self._show):
                self._screen.happened(happening)
            for happening in of_lines(lines, days.runs, sight.owners, sight.phases, gpus=len(self._profile.gpus)):
                self._screen.happened(happening)
            if begun_s - days.shown_s >= SHOW_EVERY_S:
                days.shown_s = begun_s
                self._screen.moved(self._picture(sight, school.kept))
            time.sleep(max(0.0, LOOK_EVERY_S - (self._machine_s() - begun_s)))

    def _set_speed(self, speed: float, now: int) -> None:
        if speed != self._days.speed:
            self._stack.set_speed(speed)
            self._days.speed = speed
            self._speeds.changed(speed, now=now, machine_s=self._machine_s())

    def _wait(self, for_s: float) -> None:
        until_s = self._machine_s() + for_s
        while self._machine_s() < until_s:
            self._stack.tend()
            time.sleep(LOOK_EVERY_S)

    def _seconds(self) -> float:
        return self._machine_s() - self._begun_s

    def _picture(self, sight: Sight, kept: tuple[KeptAnswers, ...]) -> Picture:
        up_at: dict[ReservationId, int] = {}
        holders: dict[int, Holder] = {}
        for run in self._days.runs:
            if run.reservation is None:
                continue
            if run.up_at is not None:
                up_at.setdefault(run.reservation, run.up_at)
            if run.free_at is None:
                state = (
                    "starting" if run.up_at is None else "stopping" if run.stop_asked_at or run.down_at else "running"
                )
                owner = sight.owners.get(run.reservation, "")
                holders |= {gpu: Holder(reservation=run.reservation, owner=owner, state=state) for gpu in run.gpus}
        told = {one.reservation: one for one in kept if one.told}
        in_time = sum(1 for key, at in up_at.items() if key in told and at <= told[key].start_by_at(at) + LATE_S)
        return Picture(
            now=sight.now,
            from_at=self._demand.first_at,
            until_at=self._demand.until_at,
            speed=self._days.speed,
            busy_with=sight.outlook.busy_with,
            gpus=len(self._profile.gpus),
            holders=holders,
            resetting=sight.resetting,
            layout=sight.layout,
            is_window=sight.is_window,
            phases=Counter(sight.phases.values()),
            started=len(up_at),
            kept=in_time,
            seconds=self._seconds(),
        )

    def _ended(self, school: School, windows: tuple[Window, ...], until_s: float) -> Ended:
        """Judge and count what happened up to the end of the two days."""
        until_at = self._demand.until_at
        log = tuple(line for line in self._days.log if line.at <= until_at)
        runs = read_runs(log)
        ran = {run.reservation for run in runs}
        # What the policy asks for on later days has been filed by now, and is no part of these two.
        kept = tuple(
            one
            for one in school.kept
            if one.by_policy is None or one.reservation in ran or (one.told and one.told[0].start_by_at <= until_at)
        )
        changing = [span for run in runs for span in run.changing]
        audited = audit(log, kept, profile=self._profile, until_at=until_at, paces=self._speeds.paces)
        return Ended(
            demand=self._demand,
            runs=runs,
            windows=tuple(window for window in windows if window.start_at < until_at),
            kept=kept,
            audit=audited,
            numbers=count(runs, kept, audited, gpus=len(self._profile.gpus)),
            gpus=len(self._profile.gpus),
            host=HOST,
            speeds=tuple(self._speeds.shares(until_at=until_at, until_machine_s=until_s)),
            changing_s=sum(span.length_s for span in changing),
            too_fast_s=self._speeds.too_fast_s(changing, until_at=until_at),
            seconds=self._seconds(),
            refused=tuple(self._days.refused),
            troubles=tuple(school.troubles),
        )
