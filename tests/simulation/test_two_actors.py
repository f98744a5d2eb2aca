"""Two actors at once: one that was stopped in mid-action and lost its lease comes back late; two plan tasks; two tickers.

The first worker's process is stopped (as by SIGSTOP, a frozen VM, a long pause) just before a driver call goes out, or
just after a commit. Its lease runs out, a second worker converges, and then the first one's call arrives after all.
"""

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from cli.in_process import Worker
from policies.ticker import Ticker
from scheduler.core.errors import NightshiftError, StalePlan
from scheduler.core.intents import Submit
from scheduler.core.plan import PlanChange, pinned
from scheduler.core.requests import Ask, Role
from scheduler.core.spans import HOUR_S
from scheduler.service.plan import PlanTask
from scheduler.service.plan_cache import PlanCache
from tests.simulation.judged import end_of, judge
from tests.simulation.kill_points import BLOCKING, COMMITS, HOST, OUT_OF_ACTION_S, Moment, Night, Reaper, tell_story
from workers.drivers.simulated.faults import RackVerb
from workers.ports import Drivers

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
            with home.clock.branch():
                try:
                    call()
                except NightshiftError:
                    # Its chain ends here or at the next step, which needs the lease.
                    pass
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
    most = len(UNHARMED.passed) if os.environ.get("NIGHTSHIFT_KILL") == "all" else 5
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
    most = 1_000 if os.environ.get("NIGHTSHIFT_KILL") == "all" else 1
    chosen = [number for met in numbers.values() for number in met[:most]]
    straggler = Straggler(chosen, arrives_before=range(1, 15))
    straggler.tell_and_judge(lambda night: judge(night, end))
    straggler.check_all_are_well()
