"""Where a host's worker may be killed: before, half-way in, during and after every driver call and every commit.

Holds the numbering of these points, the killing, and the story that is told with it: one evening and night on one
host, in which every verb of every port is called. What must be true afterwards is in the tests.
"""

import os
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from threading import current_thread, main_thread
from typing import Any, NoReturn

from cli.in_process import HostSetup, InProcess
from policies.format import LoadedPolicy
from policies.loading import load_policy
from scheduler.core.intents import Submit
from scheduler.core.plan import PlanChange
from scheduler.core.requests import Ask, HostId, ReservationId, Role
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S, Instant
from scheduler.store.leases import LeaseClaim
from tests.simulation.told import Ledger
from workers.drivers.simulated.faults import Fault, FaultKind, RackVerb
from workers.ports import Drivers

HOST = HostId("dgx2-a")
BEGAN_AT: Instant = 1_772_474_400
"""2026-03-02 18:00 UTC."""
ENDED_AT = BEGAN_AT + 6 * HOUR_S
OUT_OF_ACTION_S = 20
"""From a worker's death until another one is at work, in product and in machine time: more than a lease."""
NIGHTLY = """\
version: 1
zone: UTC
outside: day
layouts:
  day: {sizes: [1, 2, 4, 8], queues: [interactive]}
  night: {sizes: [16], queues: [hpc]}
queues:
  interactive: {at_boundary: park, default_disk: 100GiB}
  hpc: {at_boundary: finish, scratch: true, default_disk: 500GiB}
images: [ubuntu]
defaults: {retention: 1h, grace: 5m, min_useful: 30m, warnings: [15m]}
windows:
  - {name: night, layout: night, hosts: ["dgx2-*"], opens: "0 20 * * *", for: 12h, only_if_queued: true}
"""


class Moment(StrEnum):
    BEFORE = "before"
    HALF = "half"
    """The verb did a part of its work; nobody heard how far it came."""
    DURING = "during"
    """A blocking verb has begun on the host; the host goes on with it by itself."""
    AFTER = "after"


BLOCKING = frozenset({RackVerb.START, RackVerb.DESTROY, RackVerb.CREATE_DISK, RackVerb.DELETE_DISK})
COMMITS = ("pin", "facts", "lease")
"""What converge commits: the pin of a span, facts with their events, its lease."""


def moments_of(what: str) -> tuple[Moment, ...]:
    """Return the moments of a driver call or commit at which a worker may be killed, in order."""
    if what in COMMITS or what == RackVerb.LOOK:
        return Moment.BEFORE, Moment.AFTER
    if what in BLOCKING:
        return Moment.BEFORE, Moment.HALF, Moment.DURING, Moment.AFTER
    return Moment.BEFORE, Moment.HALF, Moment.AFTER


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One place at which a worker may be killed."""

    number: int
    what: str
    moment: Moment


class Killed(BaseException):
    """`kill -9`: nothing may catch it."""


class Reaper:
    """Numbers the points that the first worker passes, and kills it at those that were chosen.

    At a chosen point the whole process is copied. The copy's worker is killed there, its story goes on to the end and
    is judged; in the original nobody ever dies. So the story is told once, and each kill costs what comes after it.
    """

    def __init__(self, chosen: Collection[int] = (), variants: Sequence[int] = (0,)) -> None:
        """`variants`: numbers of which each chosen point is tried with every one; what they mean is a subclass's."""
        self.chosen = frozenset(chosen)
        self.variants = tuple(variants)
        self.variant = 0
        """Of this copy."""
        self.is_armed = self.is_watching = False
        self.passed: list[Point] = []
        self.problems: dict[tuple[Point, int], str] = {}
        """What the judge said of each point and variant; empty: nothing."""
        self.home: InProcess | None = None
        self._verdict_fd: int | None = None
        """Where the verdict is written; only a copy has one."""

    def meets(self, what: str, moment: Moment) -> bool:
        """Pass a point; True in a copy whose worker is to be killed here."""
        if not self.is_armed:
            return False
        point = Point(number=len(self.passed) + 1, what=what, moment=moment)
        self.passed.append(point)
        return point.number in self.chosen and any(self._copy(point, variant) for variant in self.variants)

    def _copy(self, point: Point, variant: int) -> bool:
        read_fd, write_fd = os.pipe()
        with warnings.catch_warnings(), self._alone_at_the_store(point):
            # Of other threads: none works on what is copied here; a test runner's own may be there.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            os.close(read_fd)
            self._verdict_fd, self.is_armed, self.variant = write_fd, False, variant
            return True
        os.close(write_fd)
        with os.fdopen(read_fd) as verdict:
            self.problems[point, variant] = verdict.read()
        _, status = os.waitpid(pid, 0)
        if status:
            self.problems[point, variant] += f"the copy of the process died: {status}"
        return False

    def _alone_at_the_store(self, point: Point) -> AbstractContextManager[object]:
        """Let nobody be at the store while the process is copied: a lease is renewed by a thread that is not copied."""
        is_ours = point.what in COMMITS and point.moment is Moment.BEFORE
        return nullcontext() if self.home is None or is_ours else self.home.store._database._lock

    def tell_and_judge(self, judge: Callable[["Night"], None]) -> None:
        """Tell the story; every copy is judged and ends here."""
        try:
            night = tell_story(self)
            if self._verdict_fd is not None:
                judge(night)
        except BaseException:
            if self._verdict_fd is None:
                raise
            self._leave(traceback.format_exc())
        if self._verdict_fd is not None:
            self._leave("")
        night.home.close()

    def _leave(self, verdict: str) -> NoReturn:
        assert self._verdict_fd is not None
        with os.fdopen(self._verdict_fd, "w") as written:
            written.write(verdict)
        os._exit(0)

    def check_all_are_well(self) -> None:
        """Raise AssertionError naming every point at which the judge found something, and the first finding whole."""
        assert len(self.problems) == len(self.chosen) * len(self.variants)
        failed = {key: text for key, text in self.problems.items() if text}
        names = ", ".join(f"{point.number} ({point.moment.value} {point.what}, {variant})" for point, variant in failed)
        first = next(iter(failed.values()), "")
        assert not failed, f"{len(failed)} of {len(self.problems)} failed: {names}\n{first}"

    def kill(self) -> None:
        raise Killed(self.passed[-1])

    def on_commit(self, point: str) -> None:
        """Stand beside a commit of the store."""
        kind, moment = point.split(":")
        if self.home is None or not any(worker.is_at_work for worker in self.home.workers.values()):
            # Not converge's: of the plan task, or of somebody who asks for something.
            return
        if current_thread() is not main_thread():
            # A lease that is renewed beside a call, where the machine is slow: no point of the story, and a copy made
            # there would have that thread alone.
            return
        self.commit("pin" if kind == "plan" else kind, Moment(moment))

    def commit(self, kind: str, moment: Moment) -> None:
        """Let a commit of converge pass, or kill beside it."""
        if self.meets(kind, moment):
            self.kill()

    def watch(self, drivers: Drivers) -> Drivers:
        """Stand between the first worker and its host; those who come after it are left alone."""
        if self.is_watching:
            return drivers
        self.is_watching = True
        return Drivers(
            host=drivers.host,
            hypervisor=Watched(drivers.hypervisor, self),
            pci=Watched(drivers.pci, self),
            fabric=Watched(drivers.fabric, self),
            images=Watched(drivers.images, self),
            guest=Watched(drivers.guest, self),
        )

    def call(self, verb: str, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Call a verb, and kill at the moment that was chosen."""
        if not self.is_armed:
            return call(*args, **named)
        assert self.home is not None
        met = {moment: self.meets(verb, moment) for moment in moments_of(verb)}
        if met[Moment.BEFORE]:
            self.kill()
        if met.get(Moment.HALF):
            self.home.racks[HOST].inject(Fault(kind=FaultKind.ACT_HALF, verb=RackVerb(verb), subject=_subject(args[0])))
        try:
            answer = call(*args, **named)
        finally:
            if met.get(Moment.HALF) or met.get(Moment.DURING) or (met[Moment.AFTER] and verb not in BLOCKING):
                self.kill()
        if met[Moment.AFTER]:
            # It returns at the branch's instant; what follows in the chain is entered after this.
            self.home.agenda.at(self.home.clock.now(), self.kill)
        return answer


class Watched:
    """A port that the reaper stands beside."""

    def __init__(self, port: Any, reaper: Reaper) -> None:
        self._port = port
        self._reaper = reaper

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        call = getattr(self._port, verb)

        def watched(*args: Any, **named: Any) -> Any:
            return self._reaper.call(verb, call, *args, **named)

        return watched


def _subject(first: Any) -> str:
    """Return how the fault script names what a verb is called with."""
    if isinstance(first, tuple):
        return str(first[0])
    return str(getattr(first, "uuid", None) or getattr(first, "id", first))


def watch_commits(home: InProcess) -> Ledger:
    """Take down from now on what every commit of the plan tells people; for the auditor."""
    ledger, commit_plan = Ledger(), home.store.commit_plan

    def noted(
        base_version: int, change: PlanChange, *, at: Instant, author: str = "plan", lease: LeaseClaim | None = None
    ) -> int:
        version = commit_plan(base_version, change, at=at, author=author, lease=lease)
        ledger.note(change, at)
        return version

    home.store.commit_plan = noted  # type: ignore[method-assign]  # a store that tells what it writes
    return ledger


def policy(text: str = NIGHTLY) -> LoadedPolicy:
    loaded = load_policy(text, source="nightly.yaml")
    assert isinstance(loaded, LoadedPolicy), loaded
    return loaded


@dataclass(slots=True, kw_only=True)
class Night:
    """The story as it was told once."""

    home: InProcess
    ledger: Ledger
    ada: ReservationId
    bela: ReservationId
    climate: ReservationId
    killed_at: Point | None = None


def tell_story(reaper: Reaper) -> Night:
    """Tell the story to its end, with another worker OUT_OF_ACTION_S after the first was killed.

    Two tenants start. Ada's guest crashes and is started again. Both are warned and parked at 20:00; bela's guest is
    deaf and is destroyed. A job of 16 GPUs runs and ends early; two of its GPUs cannot be reset and are quarantined.
    The tenants resume on other blocks, ada's hours end, and the job's disk is deleted when its retention is over.
    Bela's guest runs on.
    """
    home = InProcess(
        now=BEGAN_AT,
        hosts=(HostSetup(host=HOST, profile="dgx-2", storage="local"),),
        settings=Settings(horizon_s=2 * DAY_S),
        on_commit=reaper.on_commit,
        watch=reaper.watch,
    )
    reaper.home = home
    ledger = watch_commits(home)
    assert home.apply_policy(policy()).is_accepted
    night = Night(
        home=home,
        ledger=ledger,
        ada=_ask(home, Ask(owner="ada", queue="interactive", gpus=4, run_s=3 * HOUR_S)),
        bela=_ask(home, Ask(owner="bela", queue="interactive", gpus=2, run_s=12 * HOUR_S)),
        climate=_ask(home, Ask(owner="climate", queue="hpc", gpus=16, run_s=2 * HOUR_S)),
    )
    _enter_faults(night)
    reaper.is_armed = True
    while home.clock.now() < ENDED_AT:
        try:
            home.agenda.run_until(ENDED_AT)
        except Killed as killed:
            night.killed_at = killed.args[0]
            home.kill_worker(HOST)
            home.clock.pass_machine_time(OUT_OF_ACTION_S)
            home.agenda.at(home.clock.now() + OUT_OF_ACTION_S, lambda: home.replace_worker(HOST))
    reaper.is_armed = False
    return night


def _ask(home: InProcess, ask: Ask) -> ReservationId:
    filed = home.desk.file(Submit(ask=ask), author=ask.owner, role=Role.STUDENT)
    return ReservationId(f"r-{filed.seq}")


def _enter_faults(night: Night) -> None:
    rack, agenda = night.home.racks[HOST], night.home.agenda
    deaf = Fault(kind=FaultKind.IGNORE_SHUTDOWN, verb=RackVerb.ASK_SHUTDOWN, subject=night.bela, times=9)
    silent = Fault(kind=FaultKind.AGENT_SILENT, verb=RackVerb.ASK_SHUTDOWN, subject=night.bela, times=9, after_s=1)
    crash = Fault(kind=FaultKind.GUEST_CRASH, subject=night.ada, at=BEGAN_AT + HOUR_S)
    early = Fault(kind=FaultKind.GUEST_SHUTDOWN, subject=night.climate, at=BEGAN_AT + 3 * HOUR_S)
    for fault in (deaf, silent, crash, early):
        rack.inject(fault)

    def break_resets() -> None:
        for gpu in (0, 1):
            address = rack.profile.gpu(gpu).address
            rack.inject(Fault(kind=FaultKind.HANG, verb=RackVerb.ASK_RESET, subject=address, times=99))

    agenda.at(BEGAN_AT + 3 * HOUR_S - MINUTE_S, break_resets)
    # Machine time passes too: the lease is renewed on the way, and taken anew after a long silence.
    for minutes, seconds in ((30, 6), (70, 6), (121, 6), (150, 20), (200, 6)):
        agenda.at(BEGAN_AT + minutes * MINUTE_S, lambda s=seconds: night.home.clock.pass_machine_time(s))  # type: ignore[misc]


def table(points: tuple[Point, ...]) -> str:
    """Write how many points there are of each verb and commit at each moment."""
    count = Counter((point.what, point.moment) for point in points)
    lines = [f"{'kill points':<14}" + "".join(f"{moment.value:>8}" for moment in Moment)]
    for what in (*(verb.value for verb in RackVerb), *COMMITS):
        lines.append(f"{what:<14}" + "".join(f"{count[what, moment] or '-':>8}" for moment in Moment))
    lines.append(f"{'all':<14}" + f"{len(points):>8}")
    return "\n".join(lines)
