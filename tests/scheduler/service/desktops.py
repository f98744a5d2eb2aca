"""People who file and plan at the same moment, with nothing in common but the database; and limits for them to pass.

Run as a program it is one of them, in a process of its own: `python -m tests.scheduler.service.desktops URL CASE NAME`.
It says when it is ready, waits for a line, and says the most that it has seen given.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar

from policies.loading import load_policy
from policies.ticker import apply_intent
from scheduler.core.errors import StoreBusy
from scheduler.core.intents import AddHost, Cancel, Extend, Intent, Submit, reservation_id
from scheduler.core.plan import Decided, Plan, Reservation
from scheduler.core.replay import VirtualClock
from scheduler.core.requests import Ask, HostId, ReservationId, Role
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, HOUR_S, Instant
from scheduler.service.facts_cache import FactsCache
from scheduler.service.plan import PlanTask
from scheduler.service.plan_cache import PlanCache
from scheduler.service.submit import Desk
from scheduler.store.store import Store
from tests.databases import find_profile_by_name

T = TypeVar("T")

MONDAY_AT: Instant = 1_772_434_800
"""2026-03-02 08:00 in Berlin."""
TODAY_ENDS_AT = MONDAY_AT + 16 * HOUR_S
WEEK_ENDS_AT = TODAY_ENDS_AT + 6 * DAY_S
HOSTS = (HostId("dgx2-a"), HostId("dgx2-b"))
PEOPLE = ("ada", "bob", "cyd", "dan")
ROUNDS = 4
MOST_TRIES = 100
POLICY = """
version: 1
zone: Europe/Berlin
layouts:
  day: {sizes: [1, 2, 4, 8], queues: [interactive]}
outside: day
queues:
  interactive: {at_boundary: park}
images: [ubuntu]
groups:
  lab: {members: [ada, bob, cyd, dan]}
limits:
  groups:
    lab: {LIMITS}
"""


def given_open(plan: Plan) -> int:
    return sum(1 for _ in _live(plan))


def given_at_once(plan: Plan) -> int:
    spans = [(r.request.gpus, s) for r in _live(plan) for s in r.spans]
    at_each_start = (sum(n for n, s in spans if s.start_at <= one.start_at < s.end_at) for _, one in spans)
    return max(at_each_start, default=0)


def given_this_week(plan: Plan) -> int:
    return _gpu_h(plan, MONDAY_AT - 8 * HOUR_S, WEEK_ENDS_AT)


def given_for_later_days(plan: Plan) -> int:
    return _gpu_h(plan, TODAY_ENDS_AT, TODAY_ENDS_AT + 90 * DAY_S)


def _gpu_h(plan: Plan, from_at: Instant, until_at: Instant) -> int:
    starts = [(r, max(r.spans[0].start_at, r.request.not_before_at or 0)) for r in _live(plan)]
    return sum(r.request.gpus * r.request.run_s for r, at in starts if from_at <= at < until_at) // HOUR_S


def _live(plan: Plan) -> Iterator[Reservation]:
    return (r for r in plan.reservations.values() if r.outcome is None)


@dataclass(frozen=True, slots=True)
class Case:
    """A limit of a group, what its members ask for, and what a plan gives them: in the end `most`, and never more."""

    limits: str
    ask: Ask
    given: Callable[[Plan], int]
    most: int


NOW = Ask(owner="", queue="interactive", gpus=2, run_s=2 * HOUR_S)
TOMORROW = replace(NOW, not_before_at=MONDAY_AT + DAY_S, start_by_at=MONDAY_AT + DAY_S)
CASES = {
    "open": Case("open_reservations: 5", NOW, given_open, 5),
    "waiting": Case("waiting: 5", NOW, given_open, 5),
    "at_once": Case("gpus_at_once: 7", TOMORROW, given_at_once, 6),
    "at_once_or_later": Case("gpus_at_once: 7", NOW, given_at_once, 6),
    "at_once_by_hour": Case(
        "gpus_at_once: 16, by_hour: [{hours: 06:00-20:00, gpus_at_once: 7}]", TOMORROW, given_at_once, 6
    ),
    "week": Case("gpu_hours_per_week: 14", TOMORROW, given_this_week, 12),
    "far_ahead": Case("far_ahead_gpu_hours: 14", TOMORROW, given_for_later_days, 12),
}


class Desktop:
    """One who files and plans."""

    def __init__(self, store: Store) -> None:
        self.clock = VirtualClock(MONDAY_AT)
        self.store = store
        self.desk = Desk(store=store, clock=self.clock, wake=self)
        self.task = PlanTask(
            store=store,
            clock=self.clock,
            wake=self,
            plans=PlanCache(store, self.clock),
            known_facts=FactsCache(store),
            settings=Settings(),
            profiles=find_profile_by_name,
        )

    def plan(self) -> None:
        """Wakes nobody: each plans for himself."""

    def host(self, host: HostId) -> None:
        """There are no workers here."""

    def file(self, intent: Intent, author: str, role: Role = Role.STUDENT) -> int:
        return _in_the_end(lambda: self.desk.file(intent, author=author, role=role).seq)

    def take(self, seq: int) -> Decided:
        """Plan until a request is decided, by whomever."""
        for _ in range(MOST_TRIES):
            _in_the_end(self.task.run)
            decided = self.desk.decision(seq)
            if decided is not None:
                return decided
        raise AssertionError(f"intent {seq} was not decided")

    def set_up(self, limits: str) -> None:
        """Apply a policy, and add the hosts."""
        policy = load_policy(POLICY.replace("{LIMITS}", f"{{{limits}}}"), source="policy.yaml")
        assert not isinstance(policy, tuple), policy
        applied = apply_intent(policy, [], now=MONDAY_AT, version=1, settings=Settings())
        assert self.take(self.file(applied, "root", Role.ADMIN)).is_accepted
        for host in HOSTS:
            add = AddHost(host=host, profile="dgx-2", storage="s", policy_version=1, horizon_at=applied.horizon_at)
            assert self.take(self.file(add, "root", Role.ADMIN)).is_accepted

    def loaded(self) -> Plan:
        return _in_the_end(lambda: self.store.load_plan(now=MONDAY_AT))

    def ask_often(self, case: Case, name: str) -> int:
        """Ask for the same again and again; return the most that was ever given."""
        most = 0
        for _ in range(ROUNDS):
            self.take(self.file(Submit(ask=replace(case.ask, owner=name)), name))
            most = max(most, case.given(self.loaded()))
        return most

    def be_fickle(self, name: str, seed: int) -> None:
        """Ask for this and that, cancel it again, and extend it."""
        random, mine = Random(seed), list[ReservationId]()
        for _ in range(4 * ROUNDS):
            roll = random.random()
            intent: Intent
            if mine and roll < 0.2:
                intent = Cancel(reservation=mine.pop(random.randrange(len(mine))))
            elif mine and roll < 0.4:
                intent = Extend(reservation=random.choice(mine), by_s=HOUR_S)
            else:
                at = random.choice([None, MONDAY_AT + random.randrange(1, 12 * 24) * HOUR_S])
                ask = replace(NOW, owner=name, gpus=random.choice([1, 2, 4]), not_before_at=at)
                intent = Submit(ask=ask)
            seq = self.file(intent, name)
            if self.take(seq).is_accepted and isinstance(intent, Submit):
                mine.append(reservation_id(seq))


def _in_the_end(call: Callable[[], T]) -> T:
    """Call again while the database is busy, as the edge and the ticks do."""
    for _ in range(MOST_TRIES):
        try:
            return call()
        except StoreBusy:
            continue
    raise AssertionError("the database is busy for ever")


def main(url: str, case: str, name: str) -> None:
    with closing(Store.open(url, durability="off", profiles=find_profile_by_name)) as store:
        desktop = Desktop(store)
        print("ready", flush=True)
        sys.stdin.readline()
        print(desktop.ask_often(CASES[case], name), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
