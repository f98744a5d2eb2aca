"""Two actors at once: one that was stopped in mid-action and lost its lease comes back late; two plan tasks; two tickers.

The first worker's process is stopped (as by SIGSTOP, a frozen VM, a long pause) just before a driver call goes out, or
just after a commit. Its lease runs out, a second worker converges, and then the first one's call arrives after all.
"""

import os
from collections.abc import Callable
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
from tests.simulation.kill_points import COMMITS, HOST, OUT_OF_ACTION_S, Moment, Night, Reaper, tell_story
from workers.drivers.simulated.faults import RackVerb

COMES_WITH = {"deactivate": ("undefine",), "rebind": ("ask_reset",)}
"""Actions of two calls: the second follows the first at once, so both come late."""


class Pauser(Reaper):
    """Stops the first worker's process at a chosen point, and lets it go on `late_s` after another one took over."""

    def __init__(self, chosen: frozenset[int], *, late_s: int) -> None:
        super().__init__(chosen)
        self.late_s = late_s
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
        home.agenda.run_until(home.clock.now() + OUT_OF_ACTION_S + self.late_s)
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

        home.agenda.at(home.clock.now() + OUT_OF_ACTION_S + self.late_s, arrive)

    def judge(self, night: Night) -> None:
        stopped_at = self.passed[-1].what
        assert self._stopped is not None
        assert tuple(self.begun_late) in ((), COMES_WITH.get(stopped_at))
        judge(night, END)


UNHARMED = Pauser(frozenset(), late_s=0)
END = end_of(tell_story(UNHARMED))


def pausing_points() -> frozenset[int]:
    """Return where the first worker is stopped: before each verb, after looks and commits; of the many only some."""
    met: dict[str, list[int]] = {}
    for point in UNHARMED.passed:
        met.setdefault(point.what, []).append(point.number)
    assert set(met) == {*(verb.value for verb in RackVerb), *COMMITS}
    most = len(UNHARMED.passed) if os.environ.get("NIGHTSHIFT_KILL") == "all" else 5
    return frozenset(number for numbers in met.values() for number in numbers[:: -(-len(numbers) // most)])


@pytest.mark.parametrize("late_s", [1, 15, 60, 1200])
def test_an_actor_that_lost_its_lease_in_mid_action_begins_nothing_more_and_harms_nothing(late_s: int) -> None:
    pauser = Pauser(pausing_points(), late_s=late_s)
    pauser.tell_and_judge(pauser.judge)
    assert len(pauser.problems) == len(pauser.chosen)
    failed = {point: text for point, text in pauser.problems.items() if text}
    names = ", ".join(f"{point.number} ({point.moment.value} {point.what})" for point in failed)
    assert not failed, f"{len(failed)} of {len(pauser.problems)} points failed: {names}\n{next(iter(failed.items()))}"
