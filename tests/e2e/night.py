"""One swap to night and back under `nightshift up`, disturbed on its way, and what is judged at its end.

    20:00 tenants are parked ─▶ the 16-GPU VM starts ─▶ its guest is up ─▶ its owner stops it ─▶ the tenants resume
          └ parking             └ night starts                                                   └ resuming

A scenario disturbs some of these stages. The judge is the auditor that ships, on the rack's log and the answers of the
API; what it does not look at (how often anything was started, what the policy asked for, how it all ended) is here.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from cli.answers import Pace
from cli.auditor import Audit, Verdict, audit
from cli.client import Json
from cli.runs import Run
from scheduler.core.errors import NightshiftError
from scheduler.core.spans import Instant
from scheduler.profiles.loading import load_profile
from tests.e2e.evening import COURSE, COURSE_SIZE, SWAPS_AT, Evening
from tests.e2e.kill_stack import PROFILE, NotSo, Site

SCENARIO, ROW = "scenario", "night"
"""Under these names a test leaves what it lives through, and its row for the table at the end of a test run."""
COLUMNS = ("scenario", "disturbed at", "seconds", "to night, s", "and back, s", "kept", "told", "API away")
WITHIN_S = 100.0
"""Machine time for each part of a night; a pause of the only worker is in it."""


class Stage(StrEnum):
    """How far a swap is, by the rack's log alone."""

    PARKING = "parking"
    """Guests have been asked to shut down, and some are still there."""
    NIGHT_STARTS = "night starts"
    """The 16-GPU VM is being started, and its guest is not up."""
    RESUMING = "resuming"
    """Tenants are being started again, and not all are up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is done to a night."""

    name: str
    disturb: Callable[[Site], None]
    stages: frozenset[Stage]
    beside: tuple[tuple[str, ...], ...] = ()
    """More of our processes, from the beginning."""
    may_be_late: bool = False
    """It holds everything up for longer than promises have to spare: who is late must then be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a scenario."""

    scenario: str
    seconds: float
    swap_s: int
    """Product time from 20:00 until the guest of the whole-host job was up."""
    back_s: int
    """Product time from the end of the job until the last tenant was up again."""
    disturbed: tuple[Stage, ...]
    audit: Audit
    unread: int
    """How often an answer of the API stayed out."""

    def as_row(self) -> list[str]:
        """Return it as a row of a table, as `COLUMNS` names it."""
        return [
            self.scenario,
            ", ".join(self.disturbed),
            f"{self.seconds:.0f}",
            f"{self.swap_s}",
            f"{self.back_s}",
            f"{self.audit.count(Verdict.KEPT)}",
            f"{self.audit.count(Verdict.TOLD)}",
            f"{self.unread}",
        ]


@dataclass(slots=True)
class Night:
    """Lives through one scenario on a copy of the evening."""

    site: Site
    evening: Evening
    scenario: Scenario
    disturbed: list[Stage] = field(default_factory=list)

    def live(self) -> Outcome:
        """Live through it, and raise AssertionError where something is not as it must be."""
        began_s = time.monotonic()
        site = self.site
        try:
            site.start()
            for arguments in self.scenario.beside:
                site.run_beside(*arguments)
            for stage in (Stage.PARKING, Stage.NIGHT_STARTS):
                self._come_to(stage)
            site.wait_for("the whole-host job runs", lambda: self.night_up_at is not None, within_s=WITHIN_S)
            self._stop_the_job()
            self._come_to(Stage.RESUMING)
            site.wait_for("all tenants run again", self._all_are_back, within_s=WITHIN_S)
            site.wait_for("all is well", self._all_is_well, within_s=WITHIN_S)
            answers = site.read()
            for extra in site.extras:
                self._must(extra.is_alive, f"{extra.instance} ended by itself")
                self._must(extra.end() == 0, f"{extra.instance} did not end well")
            self._must(site.end() == 0, "nightshift up did not end well")
            return self._judge(answers, time.monotonic() - began_s)
        finally:
            site.clean_up()

    # The course of a night.

    def _come_to(self, stage: Stage) -> None:
        """Wait for a stage, and disturb it if it is to be; what is over already cannot be."""
        self.site.wait_for(f"stage: {stage}", lambda: self._is_at(stage) or self._is_past(stage), within_s=WITHIN_S)
        if stage in self.scenario.stages and self._is_at(stage):
            self.disturbed.append(stage)
            self.scenario.disturb(self.site)

    def _is_at(self, stage: Stage) -> bool:
        runs = self.site.runs()
        night = self._nights(runs)
        match stage:
            case Stage.PARKING:
                return not night and any(run.stop_asked_at is not None and run.free_at is None for run in runs)
            case Stage.NIGHT_STARTS:
                return any(run.up_at is None and run.free_at is None for run in night)
            case Stage.RESUMING:
                return any(run.up_at is None for run in self._resumed(runs))

    def _is_past(self, stage: Stage) -> bool:
        runs = self.site.runs()
        night = self._nights(runs)
        match stage:
            case Stage.PARKING:
                return bool(night)
            case Stage.NIGHT_STARTS:
                return any(run.up_at is not None for run in night)
            case Stage.RESUMING:
                return self._all_are_back()

    def _nights(self, runs: tuple[Run, ...]) -> list[Run]:
        return [run for run in runs if run.reservation == self.evening.night]

    def _resumed(self, runs: tuple[Run, ...]) -> list[Run]:
        return [run for run in runs if run.reservation in self.evening.tenants and run.held_at > SWAPS_AT]

    @property
    def night_up_at(self) -> Instant | None:
        return next((run.up_at for run in self._nights(self.site.runs()) if run.up_at is not None), None)

    def _all_are_back(self) -> bool:
        up = [run.reservation for run in self._resumed(self.site.runs()) if run.up_at is not None and not run.down_at]
        return sorted(map(str, up)) == sorted(self.evening.tenants)

    def _stop_the_job(self) -> None:
        """Its owner needs it no more, so the rest of the night is given back and the tenants resume."""
        since_at = self.site.now
        self.site.note(self.site.client.post(f"/reservations/{self.evening.night}/stop"))
        self.site.notebook.let_go(self.evening.night, since_at)

    def _all_is_well(self) -> bool:
        try:
            return all(check["ok"] for check in self.site.client.get("/doctor")["checks"])
        except NightshiftError:
            return False

    # What is judged.

    def _must(self, is_so: bool, otherwise: str) -> None:
        if not is_so:
            raise NotSo(f"{otherwise}\n{self.site.evidence()}")

    def _judge(self, answers: list[Json], seconds: float) -> Outcome:
        site = self.site
        runs = site.runs()
        until_at = max(site.now, site.log()[-1].at)
        audited = audit(
            site.log(),
            site.notebook.kept,
            profile=load_profile(PROFILE),
            until_at=until_at,
            paces=(Pace(from_at=SWAPS_AT - 3600, speed=site.speed),),
        )
        expected = tuple(stage for stage in Stage if stage in self.scenario.stages)
        self._must(tuple(self.disturbed) == expected, f"only these stages were disturbed: {self.disturbed}")
        said = "\n".join(finding.sentence for finding in audited.findings)
        self._must(not audited.findings, f"the auditor found:\n{said}")
        known = {*self.evening.tenants, self.evening.night}
        self._must({run.reservation for run in runs} == known, "somebody else ran too")
        # Each guest was started once for each stretch that it ran: by nobody twice, and by nobody in vain.
        starts = Counter(str(line.reservation) for line in site.log() if line.what == "vm.starting")
        wanted = Counter({**dict.fromkeys(self.evening.tenants, 2), self.evening.night: 1})
        self._must(starts == wanted, f"started so often: {dict(starts)}")
        self._must(len({run.disk for run in runs}) == len(known), "a guest was started with another disk")
        course = [answer for answer in answers if answer["by_policy"] == COURSE and answer["promise"]]
        self._must(len(course) == COURSE_SIZE, f"the course has {len(course)} promises")
        late = [one.reservation for one in audited.judged if one.verdict is Verdict.TOLD]
        self._must(self.scenario.may_be_late or not late, f"put off, if with a word: {late}")
        (night,) = self._nights(runs)
        assert night.up_at is not None
        assert night.free_at is not None
        return Outcome(
            scenario=self.scenario.name,
            seconds=seconds,
            swap_s=night.up_at - SWAPS_AT,
            back_s=max(run.up_at or until_at for run in self._resumed(runs)) - night.free_at,
            disturbed=tuple(self.disturbed),
            audit=audited,
            unread=site.read_failures,
        )
