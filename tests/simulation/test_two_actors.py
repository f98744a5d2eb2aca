"""Two actors at once: one that was stopped in mid-action and lost its lease comes back late; two plan tasks or tickers.

The first worker's process is stopped (as by SIGSTOP, a frozen VM, a long pause) just before a driver call goes out, or
just after a commit. Its lease runs out, a second worker converges, and then the first one's call arrives after all.
"""

import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from cli.in_process import HostSetup, InProcess, Worker
from policies.ticker import Ticker
from scheduler.core.errors import NightshiftError
from scheduler.core.intents import Cancel, Submit
from scheduler.core.plan import Event, Plan, PlanChange
from scheduler.core.requests import Ask, ReservationId, Role
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, HOUR_S
from scheduler.service.facts_cache import FactsCache
from scheduler.service.plan import PlanTask
from scheduler.service.plan_cache import PlanCache
from scheduler.store.leases import LeaseClaim
from tests.simulation.judged import end_of, judge
from tests.simulation.kill_points import (
    BEGAN_AT,
    BLOCKING,
    COMMITS,
    HOST,
    NIGHTLY,
    OUT_OF_ACTION_S,
    Moment,
    Night,
    Reaper,
    policy,
    tell_story,
)
from tests.workers.converge_bench import Worker as BenchWorker
from tests.workers.converge_bench import World
from workers.drivers.simulated.faults import RackVerb
from workers.ports import DomainSpec, Drivers

LIMIT = "limits: {gpus_at_once: 8}\n"
COURSE = """\
reserve:
  - name: course
    cron: "0 10 * * *"
    for: 2h
    gpus: 1
    count: 2
    queue: interactive
    owner: dl-course
    ahead: 12h
"""
TRY_ALL = os.environ.get("NIGHTSHIFT_KILL") == "all"
COMES_WITH = {"deactivate": ("undefine",), "rebind": ("ask_reset",)}
"""Actions of two calls: the second follows the first at once, so both come late."""
ASYNCHRONOUS = {verb.value for verb in RackVerb} - {verb.value for verb in BLOCKING} - {"look"}
"""Verbs that act at once, whoever waits for them."""


class Pauser(Reaper):
    """Stops the first worker's process at a chosen point; it goes on `variant` seconds after another one took over."""

    def __init__(self, chosen: Collection[int] = (), late_s: Sequence[int] = (0,)) -> None:
        super().__init__(chosen, late_s)
        self.begun_late: list[str] = []
        """What the first worker asked of the host after it had lost its lease, apart from looks."""
        self._stopped: Worker | None = None

    def commit(self, kind: str, moment: Moment) -> None:
        if moment is Moment.AFTER and self.meets(kind, moment):
            self._stop_here()

    def call(self, verb: str, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
        assert self.home is not None
        if self._stopped is not None and verb != RackVerb.LOOK:
            self.begun_late.append(verb)
        moment = Moment.AFTER if verb == RackVerb.LOOK else Moment.BEFORE
        if not self.meets(verb, moment):
            return call(*args, **named)
        is_at_work = self.home.workers[HOST].is_at_work
        if verb == RackVerb.LOOK:
            seen = call(*args, **named)
            self._stop_here() if is_at_work else self._stop_in_chain(lambda: None)
            return seen
        if is_at_work:
            self._stop_here()
            return call(*args, **named)
        self._stop_in_chain(lambda: call(*args, **named))
        return None

    def _stop(self) -> Worker:
        assert self.home is not None
        home, worker = self.home, self.home.workers.pop(HOST)
        worker.runner.pause()
        home.clock.pass_machine_time(OUT_OF_ACTION_S)
        home.agenda.at(home.clock.now() + OUT_OF_ACTION_S, lambda: home.replace_worker(HOST))
        self._stopped = worker
        return worker

    def _stop_here(self) -> None:
        """Stop inside of a converge: everybody else goes on within this call."""
        assert self.home is not None
        home, worker = self.home, self._stop()
        home.agenda.run_until(home.clock.now() + OUT_OF_ACTION_S + self.variant)
        worker.runner.resume()
        home.agenda.at(home.clock.now(), worker.converge)

    def _stop_in_chain(self, call: Callable[[], Any]) -> None:
        """Stop inside of a chain's step: what it was about to call arrives late, then its chain would go on."""
        assert self.home is not None
        home, worker = self.home, self._stop()

        def arrive() -> None:
            # Its chain ends here or at the next step, which needs the lease.
            with home.clock.branch(), suppress(NightshiftError):
                call()
            worker.runner.resume()
            worker.converge()

        home.agenda.at(home.clock.now() + OUT_OF_ACTION_S + self.variant, arrive)

    def judge(self, night: Night) -> None:
        stopped_at = self.passed[-1].what
        assert self._stopped is not None
        assert tuple(self.begun_late) in ((), COMES_WITH.get(stopped_at))
        judge(night, END)


UNHARMED = Pauser()
END = end_of(tell_story(UNHARMED))


def pausing_points() -> frozenset[int]:
    """Return where the first worker is stopped: before each verb, after looks and commits; of the many only some."""
    met: dict[str, list[int]] = {}
    for point in UNHARMED.passed:
        met.setdefault(point.what, []).append(point.number)
    assert set(met) == {*(verb.value for verb in RackVerb), *COMMITS}
    most = len(UNHARMED.passed) if TRY_ALL else 3
    return frozenset(number for numbers in met.values() for number in numbers[:: -(-len(numbers) // most)])


def test_an_actor_that_lost_its_lease_in_mid_action_begins_nothing_more_and_harms_nothing() -> None:
    pauser = Pauser(pausing_points(), late_s=(1, 60))
    pauser.tell_and_judge(pauser.judge)
    pauser.check_all_are_well()


class Straggler(Reaper):
    """Kills the first worker just before a call, which arrives all the same: before the `variant`-th of the next."""

    def __init__(self, chosen: Collection[int] = (), arrives_before: Sequence[int] = (0,)) -> None:
        super().__init__(chosen, arrives_before)
        self._late: Callable[[], Any] | None = None
        self._calls = 0

    def watch(self, drivers: Drivers) -> Drivers:
        self.is_watching = False
        return super().watch(drivers)

    def commit(self, kind: str, moment: Moment) -> None:
        """Commits are not late: the lease guards them."""

    def call(self, verb: str, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
        if verb in ASYNCHRONOUS and self.meets(verb, Moment.BEFORE):
            self._late = lambda: call(*args, **named)
            self.kill()
        if self._late is not None:
            self._calls += 1
            if self._calls == self.variant:
                with suppress(NightshiftError):
                    self._late()
        return call(*args, **named)


def test_a_call_that_arrives_late_harms_nobody_wherever_in_the_next_actors_work_it_falls() -> None:
    unharmed = Straggler()
    end = end_of(tell_story(unharmed))
    numbers: dict[str, list[int]] = {}
    for point in unharmed.passed:
        numbers.setdefault(point.what, []).append(point.number)
    assert set(numbers) == ASYNCHRONOUS
    chosen = [number for met in numbers.values() for number in met[: 6 if TRY_ALL else 1]]
    straggler = Straggler(chosen, arrives_before=range(1, 15) if TRY_ALL else range(2, 13, 2))
    straggler.tell_and_judge(lambda night: judge(night, end))
    straggler.check_all_are_well()


def test_a_definition_that_comes_late_is_cleared_away_again() -> None:
    world, late = World(), list[DomainSpec]()
    drivers = world.rack.drivers()

    class Hypervisor:
        """Remembers what is defined."""

        def __getattr__(self, verb: str) -> Any:
            return getattr(drivers.hypervisor, verb)

        def define(self, spec: DomainSpec) -> None:
            late.append(spec)
            drivers.hypervisor.define(spec)

    watched = replace(drivers, hypervisor=Hypervisor())
    booked = world.book("r-1", "4g0-3", end_s=HOUR_S)
    worker = BenchWorker(world, "worker-1", watched)
    world.run(2 * HOUR_S, worker=worker)
    assert world.vm(booked).is_gone
    drivers.hypervisor.define(late[0])
    world.run(3 * HOUR_S, worker=worker)
    assert drivers.hypervisor.look().domains == ()
    assert world.vm(booked).is_gone
    assert world.facts.asked == ()


# Two at the plan.


def new_home(url: str = "sqlite://") -> InProcess:
    home = InProcess(
        now=BEGAN_AT,
        hosts=(HostSetup(host=HOST, profile="dgx-2", storage="local"),),
        store_url=url,
        settings=Settings(horizon_s=2 * DAY_S),
    )
    assert home.apply_policy(policy(NIGHTLY + LIMIT + COURSE)).is_accepted
    return home


def other_plan_task(home: InProcess) -> PlanTask:
    """Return the plan task of another process on the same database."""
    return PlanTask(
        store=home.store,
        clock=home.clock,
        wake=home.wake,
        plans=PlanCache(home.store, home.clock),
        known_facts=FactsCache(home.store),
        settings=home.settings,
        profiles=home.profile,
    )


def asks(home: InProcess, owner: str, gpus: int) -> ReservationId:
    ask = Ask(owner=owner, queue="interactive", gpus=gpus, run_s=HOUR_S)
    return ReservationId(f"r-{home.desk.file(Submit(ask=ask), author=owner, role=Role.STUDENT).seq}")


def told(home: InProcess, kind: str) -> list[Event]:
    return [event for _, event in home.store.events(limit=10_000, kinds=(kind,))]


def before_commit_of(home: InProcess, author: str, do: Callable[[], Any], patch: pytest.MonkeyPatch) -> list[str]:
    """Let something happen between the decision and the first commit of an author; return who tried to commit."""
    commit, tried = home.plans.commit, list[str]()

    def late_commit(
        base: Plan, change: PlanChange, *, author: str, lease: LeaseClaim | None = None, after: Plan | None = None
    ) -> Plan:
        tried.append(author)
        if tried.count(author) == 1 and author.startswith(first):
            do()
        return commit(base, change, author=author, lease=lease, after=after)

    first = author
    patch.setattr(home.plans, "commit", late_commit)
    return tried


def test_a_pin_made_from_an_older_plan_starts_nothing_that_the_newer_one_gave_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = new_home()
    ada, other = asks(home, "ada", 4), other_plan_task(home)

    def cancel() -> None:
        home.desk.file(Cancel(reservation=ada), author="ada", role=Role.STUDENT)
        other.run()

    tried = before_commit_of(home, "worker", cancel, monkeypatch)
    home.agenda.run_until(BEGAN_AT + HOUR_S)
    assert [author for author in tried if author != "plan"] == ["worker-dgx2-a-0"]
    assert told(home, "reservation.cancelled")
    assert told(home, "span.pinned") == []
    assert [line for line in home.racks[HOST].log() if line.reservation == ada] == []


def test_a_pin_made_from_an_older_plan_is_made_again_from_the_newer_one_once(monkeypatch: pytest.MonkeyPatch) -> None:
    home = new_home()
    ada, other = asks(home, "ada", 4), other_plan_task(home)
    booked: list[ReservationId] = []

    def book() -> None:
        booked.append(asks(home, "bela", 2))
        other.run()

    before_commit_of(home, "worker", book, monkeypatch)
    home.agenda.run_until(BEGAN_AT + 30 * 60)
    pins = [(event.reservation, dict(event.facts)["generation"]) for event in told(home, "span.pinned")]
    assert sorted(pins, key=str) == [(ada, 1), (booked[0], 1)]
    started = [line.reservation for line in home.racks[HOST].log() if line.what == "vm.starting"]
    assert sorted(map(str, started)) == sorted([ada, booked[0]])


def test_a_pin_is_not_written_without_the_lease_or_it_would_end_the_start_of_who_holds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = new_home()
    ada = asks(home, "ada", 4)

    def lose_lease() -> None:
        # From here on the first worker is out of the game, and does not know it yet.
        home.clock.pass_machine_time(OUT_OF_ACTION_S)
        home.replace_worker(HOST)
        home.workers[HOST].converge()

    tried = before_commit_of(home, "worker-dgx2-a-0", lose_lease, monkeypatch)
    home.agenda.run_until(BEGAN_AT + HOUR_S // 2)
    assert [author for author in tried if author != "plan"] == ["worker-dgx2-a-0", "worker-dgx2-a-1"]
    assert [(event.actor, event.reservation) for event in told(home, "span.pinned")] == [("worker-dgx2-a-1", ada)]
    assert [line.generation for line in home.racks[HOST].log() if line.what == "guest.up"] == [1]
    assert told(home, "vm.stop_asked") == []


def test_two_plan_tasks_at_once_decide_each_intent_once_and_pass_no_limit_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = new_home()
    other = other_plan_task(home)
    first, second = asks(home, "ada", 8), ReservationId("")

    def decide_too() -> None:
        nonlocal second
        second = asks(home, "ada", 8)
        other.run()

    tried = before_commit_of(home, "plan", decide_too, monkeypatch)
    home.plan_task.run()
    assert tried == ["plan"]
    assert [event.reservation for event in told(home, "reservation.promised")] == [first, second]
    booked = home.store.load_plan(now=BEGAN_AT).reservations
    assert booked[first].spans[-1].end_at <= booked[second].spans[0].start_at, "there is room, but not within the limit"
    assert home.store.open_intents() == ()


def test_plan_tasks_in_threads_decide_each_intent_once(tmp_path: Path) -> None:
    home = new_home(f"sqlite:///{tmp_path / 'plan.sqlite'}")
    owners = [f"student-{number}" for number in range(24)]
    filed = [asks(home, owner, 2) for owner in owners]
    tasks = [other_plan_task(home) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            list(pool.map(lambda task: task.run(), tasks))
    assert home.store.open_intents() == ()
    assert sorted(str(event.reservation) for event in told(home, "reservation.promised")) == sorted(filed)
    booked = home.store.load_plan(now=BEGAN_AT).reservations.values()
    spans = [(span, home.profile("dgx-2").partition(span.partition).gpus) for r in booked for span in r.spans]
    for one, two in combinations(spans, 2):
        assert not (one[0].span.overlaps(two[0].span) and one[1] & two[1])


def test_two_tickers_at_once_file_each_thing_once_and_each_window_is_decided_once(tmp_path: Path) -> None:
    home = new_home(f"sqlite:///{tmp_path / 'plan.sqlite'}")
    loaded, plan = home.policy, home.plan
    assert loaded is not None
    assert plan is not None
    tickers = [Ticker(home.store.file_intent, home.settings) for _ in range(4)]
    tasks = [other_plan_task(home) for _ in tickers]

    def work(number: int) -> list[str]:
        filed = tickers[number].tick(
            home.clock.now(),
            policy=loaded,
            policy_version=1,
            horizon_at=plan.horizon_at,
            hosts=frozenset({HOST}),
        )
        tasks[number].run()
        return [one.key for one in filed if one.is_new]

    filed: list[str] = []
    for hours in (0, 2, 5, 26, 30):
        home.clock.move_to(BEGAN_AT + hours * HOUR_S)
        with ThreadPoolExecutor(4) as pool:
            filed += [key for keys in pool.map(work, range(4)) for key in keys]
    courses = [key for key in filed if key.startswith("course@")]
    assert sorted(courses) == [f"course@2026-03-0{day}T10:00#{number}" for day in (3, 4) for number in (1, 2)]
    assert len(filed) == len(set(filed))
    decided = [dict(event.facts)["start_at"] for event in told(home, "window.decided")]
    assert decided == [BEGAN_AT + 2 * HOUR_S, BEGAN_AT + 26 * HOUR_S]
    owners = [r.request.key for r in home.store.reservations(owner="dl-course")]
    assert len(owners) == len(set(owners)) == 4
