"""A standstill of the whole installation: what became of a start is judged by a look, not by what was known before.

The story is one that a random history told: a guest was asked to start, everything stopped for an hour, and the plan
settled on facts of before. The guest had had all its hours, and was promised them again, twice, and started again.
"""

from collections.abc import Iterator

import pytest

from cli.in_process import HostSetup, InProcess
from policies.format import LoadedPolicy
from policies.loading import load_policy
from scheduler.core.intents import Submit
from scheduler.core.plan import Outcome, Reservation
from scheduler.core.planner.draft import WAIT_FOR_LOOK_S
from scheduler.core.requests import Ask, HostId, ReservationId
from scheduler.core.spans import HOUR_S, MINUTE_S, Instant

HOST = HostId("dgx2-a")
MORNING: Instant = 1_772_438_400
"""2026-03-02 09:00 in Berlin."""
RUN_S = 20 * MINUTE_S
POLICY = """\
version: 1
zone: Europe/Berlin
outside: day
layouts:
  day: {sizes: [1, 2, 4, 8], queues: [interactive]}
queues:
  interactive: {at_boundary: park, default_disk: 100GiB}
images: [ubuntu]
defaults: {retention: 7d, grace: 5m, min_useful: 30m, warnings: [15m]}
windows: []
"""


class Story:
    def __init__(self) -> None:
        self.home = InProcess(now=MORNING, hosts=(HostSetup(host=HOST, profile="dgx-2", storage="local"),))
        policy = load_policy(POLICY, source="day.yaml")
        assert isinstance(policy, LoadedPolicy)
        assert self.home.apply_policy(policy).is_accepted
        ask = Ask(owner="ada", queue="interactive", gpus=8, run_s=RUN_S)
        decided = self.home.do(Submit(ask=ask), author="ada")
        assert decided.reservation is not None
        self.id: ReservationId = decided.reservation
        while not any(line.what == "vm.starting" for line in self.home.racks[HOST].log()):
            self.home.agenda.run_until(self.home.clock.now() + 1)
        (asked,) = self.home.facts[HOST].vms
        assert asked.up_at is None, "it is starting, and was not seen up"

    @property
    def reservation(self) -> Reservation:
        found = self.home.store.reservation(self.id)
        assert found is not None
        return found

    @property
    def start_by_at(self) -> Instant:
        assert self.reservation.promise is not None
        return self.reservation.promise.start_by_at

    def told(self, kind: str) -> list[Instant]:
        events = self.home.store.events(limit=10_000, kinds=(kind,))
        return [event.at for _, event in events if event.reservation == self.id]

    def stand_still(self, until_at: Instant) -> None:
        """Let time jump; whoever is at work looks again after it."""
        clock = self.home.clock
        clock.pass_machine_time(until_at - clock.now())
        clock.move_to(until_at)
        self.home.wake.host(HOST)


@pytest.fixture
def story() -> Iterator[Story]:
    made = Story()
    yield made
    made.home.close()


def test_a_guest_that_had_its_hours_in_a_standstill_is_neither_told_of_a_fault_nor_started_again(story: Story) -> None:
    over_at = story.reservation.spans[-1].end_at
    story.stand_still(over_at + HOUR_S)
    story.home.agenda.run_until(over_at + 2 * HOUR_S)
    ended = story.reservation
    assert (ended.outcome, ended.generation, ended.promise_notice) == (Outcome.COMPLETED, 1, 0)
    assert story.told("promise.raised") == story.told("reservation.moved") == []


def test_a_guest_that_came_up_in_a_standstill_is_not_told_to_be_late_and_has_its_hours(story: Story) -> None:
    up_by_at = MORNING + story.home.profile("dgx-2").bounds.start_s(8)
    story.stand_still(story.start_by_at + MINUTE_S)
    story.home.agenda.run_until(MORNING + 3 * HOUR_S)
    ended = story.reservation
    assert (ended.outcome, ended.generation, ended.promise_notice) == (Outcome.COMPLETED, 1, 0)
    (vm,) = story.home.facts[HOST].vms or (None,)
    assert vm is None or vm.off_at is not None
    assert up_by_at + RUN_S <= (ended.ended_at or 0) <= up_by_at + RUN_S + MINUTE_S


def test_where_nobody_looks_after_a_standstill_either_the_broken_promise_is_told_a_minute_later(story: Story) -> None:
    awake_at = story.start_by_at + 10 * MINUTE_S
    story.home.kill_worker(HOST)
    story.stand_still(awake_at)
    story.home.enter_look()
    story.home.agenda.run_until(awake_at + WAIT_FOR_LOOK_S + MINUTE_S)
    assert story.told("promise.raised") == [awake_at + WAIT_FOR_LOOK_S]


def test_where_only_the_worker_is_gone_the_broken_promise_is_told_at_once(story: Story) -> None:
    promised_at = story.start_by_at
    story.home.kill_worker(HOST)
    story.home.agenda.run_until(promised_at + 2)
    assert story.told("promise.raised") == [promised_at + 1]
