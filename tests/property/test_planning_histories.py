"""Random histories of the plan: whatever people, policies, guests and hosts do, nothing that must hold is broken.

NIGHTSHIFT_HISTORIES says how many histories each test runs; a failure names the seed that shows it again.
"""

import os
from collections.abc import Iterable
from dataclasses import replace

import pytest

from policies.zone_shifts import shifts_of
from scheduler.core.calendar import compiled, making
from scheduler.core.calendar.pure import PureCalendar
from scheduler.core.facts import GpuState, VmEnd
from scheduler.core.intents import (
    ApplyPolicy,
    Cancel,
    Drain,
    Extend,
    FiledIntent,
    Mend,
    Restart,
    Stop,
    Submit,
    Undrain,
)
from scheduler.core.phases import Phase, phase_of
from scheduler.core.plan import LimitRule, Limits, PlanChange, apply
from scheduler.core.planner.explaining import quote, why
from scheduler.core.planner.memory import Memory
from scheduler.core.reasons import ReasonCode, sentence
from scheduler.core.requests import Ask, AtBoundary, Role
from scheduler.core.rules import ClockHours, Group, LimitScope, Slack
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S, Instant, Span
from tests.property.worlds import MIDNIGHT, Odds, World, materialise, nights, rules, world

HISTORIES = int(os.environ.get("NIGHTSHIFT_HISTORIES", "10"))
FIRST_SEED = int(os.environ.get("NIGHTSHIFT_FIRST_SEED", "1"))
OWNERS = ("ada", "ben", "cyd", "dee")


def random_ask(made: World) -> Ask:
    """Ask for something that a person might: mostly possible, sometimes not."""
    random, now = made.random, made.now
    is_hpc = random.random() < 0.25
    run_s = random.choice([60, 20 * MINUTE_S, HOUR_S, 3 * HOUR_S, 5 * HOUR_S, 11 * HOUR_S, 30 * HOUR_S, 3 * DAY_S])
    ask = Ask(
        owner=random.choice(OWNERS),
        queue="hpc" if is_hpc else "interactive",
        gpus=16 if is_hpc else random.choice([1, 1, 1, 2, 2, 4, 4, 8]),
        run_s=run_s + random.choice([0, 0, 1, 1234]),
        at_boundary=random.choice([None, None, None, AtBoundary.PARK, AtBoundary.FINISH, AtBoundary.KEEP]),
        disk_gib=random.choice([None, None, 10, 400, 1000]),
    )
    later_at = now + random.choice([0, 61, HOUR_S, 7 * HOUR_S, DAY_S, 4 * DAY_S]) + random.randint(0, 3600)
    match random.randrange(8):
        case 0:
            return replace(ask, not_before_at=later_at, start_by_at=later_at)
        case 1:
            return replace(ask, not_before_at=later_at)
        case 2:
            return replace(ask, start_by_at=later_at)
        case 3:
            return replace(ask, not_before_at=later_at, start_by_at=later_at + random.randint(0, DAY_S))
        case 4:
            over = [
                r
                for _, r in sorted(made.plan.reservations.items())
                if r.outcome is not None and r.disk in made.plan.disks
            ]
            if over:
                kept = random.choice(over)
                return replace(ask, owner=kept.request.owner, disk_gib=None, continues=kept.id)
        case _:
            pass
    return ask


def act(made: World, *, has_faults: bool) -> None:
    """Do one thing that anybody may do."""
    random = made.random
    roll = random.randrange(100)
    known = sorted(made.plan.reservations)
    if roll < 10:
        ask_first(made)
    elif roll < 50:
        asks = [Submit(ask=random_ask(made)) for _ in range(random.choice([1, 1, 2, 4]))]
        made.file(*asks)
    elif roll < 60 and known:
        made.file(Cancel(reservation=random.choice(known)))
    elif roll < 68 and known:
        made.file(Extend(reservation=random.choice(known), by_s=random.choice([600, HOUR_S, 5 * HOUR_S])))
    elif roll < 72 and known:
        made.file(Stop(reservation=random.choice(known)))
    elif roll < 78 and known:
        off = [vm.reservation for h in made.facts.values() for vm in h.vms if vm.end is VmEnd.SELF_SHUTDOWN]
        made.file(Restart(reservation=random.choice(off or known)))
    elif roll < 82:
        change_policy(made)
    elif has_faults:
        act_of_fate(made, roll)


def ask_first(made: World) -> None:
    """Ask for a quote, then for the same: what was quoted is what is promised. And why is always answered."""
    made.look()
    asked = random_ask(made)
    quoted = quote(made.plan, made.facts, asked, made.now, made.settings, ended_uses=made.ended_uses)
    known = {key: r.promise for key, r in made.plan.reservations.items()}
    made.file(Submit(ask=asked))
    new = made.changes[-1][1].decided[-1]
    admitted = next(r for r in made.changes[-1][1].reservations if r.id == new.reservation)
    # A refusal says besides what could be had instead.
    codes = [r.code for r in new.reasons if r.code is not ReasonCode.INSTEAD]
    if (quoted.promise, [r.code for r in quoted.reasons]) != (admitted.promise, codes):
        made.problems.append(f"{made.now}: quoted {quoted}, got {admitted}")
    made.problems += [
        f"{made.now}: a submit changed the promise of {key}"
        for key, promise in known.items()
        if key in made.plan.reservations and made.plan.reservations[key].promise != promise
    ]
    for r in made.plan.reservations.values():
        reasons = why(made.plan, made.facts, r, made.now, made.settings, ended_uses=made.ended_uses)
        vms = [vm for host in made.facts.values() for vm in host.vms if vm.reservation == r.id]
        if not reasons and phase_of(r, vms, made.now) is not Phase.RUNNING:
            made.problems.append(f"{made.now}: {r.id} does not run, and nothing says why")
        made.problems += [f"{made.now}: {r.id} is told {sentence(x)}" for x in reasons if "?" in sentence(x)]


def change_policy(made: World) -> None:
    random = made.random
    assert made.plan.rules is not None
    version = made.plan.rules.version + 1
    hosts = sorted(made.plan.hosts)
    boundaries = random.choice(
        [
            frozenset({AtBoundary.PARK, AtBoundary.FINISH}),
            frozenset({AtBoundary.PARK, AtBoundary.FINISH, AtBoundary.KEEP}),
            frozenset({AtBoundary.FINISH}),
        ]
    )
    windows = nights(
        random.choice([hosts, hosts[:1]]),
        from_at=made.now - 2 * DAY_S,
        until_at=made.plan.horizon_at,
        version=version,
        start_s=random.choice([18, 20, 22]) * HOUR_S,
        length_s=random.choice([4, 10, 12]) * HOUR_S,
        only_if_queued=random.random() < 0.8,
        at_boundary=boundaries,
        name=random.choice(["night", "late"]),
    )
    new = rules(
        version,
        limits=made.plan.rules.limits,
        limit_rules=made.plan.rules.limit_rules,
        groups=made.plan.rules.groups,
        zone=made.plan.rules.zone,
        zone_shifts=made.plan.rules.zone_shifts,
        min_useful_s=random.choice([30, 30, 10, 60]) * MINUTE_S,
        grace_s=random.choice([300, 300, 120, 900]),
    )
    made.file(
        ApplyPolicy(
            rules=new,
            windows=windows,
            hosts=frozenset(made.plan.hosts),
            horizon_at=made.plan.horizon_at,
            text=f"policy {version}",
        )
    )


def act_of_fate(made: World, roll: int) -> None:
    random = made.random
    host = random.choice(sorted(made.plan.hosts))
    lost = [(h, g.gpu) for h, facts in sorted(made.facts.items()) for g in facts.gpus]
    if roll < 83:
        (made.answer if made.is_silent(host) else made.fall_silent)(host)
    elif roll < 84:
        for stuck in made.stuck.values():
            stuck.clear()
        made.stuck.setdefault(host, set()).add(random.randrange(16))
    elif roll < 86:
        gpu = random.randrange(16)
        made.set_gpu(host, gpu, random.choice([GpuState.QUARANTINED, GpuState.FOREIGN]))
        made.step()
    elif roll < 91 and lost:
        lost_host, gpu = random.choice(lost)
        made.file(Mend(host=lost_host, gpu=gpu))
        made.set_gpu(lost_host, gpu, GpuState.CLEAN)
        made.step()
    elif roll < 93:
        made.file(Drain(host=host))
    elif roll < 97:
        for drained in [h.id for h in made.plan.hosts.values() if h.is_drained]:
            made.file(Undrain(host=drained))
    elif roll < 98:
        made.sleep_until(made.now + random.choice([HOUR_S, 9 * HOUR_S, 2 * DAY_S]))
        made.look()


def live_through(made: World, *, days: int, has_faults: bool) -> None:
    """Let people and fate act for some days."""
    end_at = made.now + days * DAY_S
    while made.now < end_at and not made.problems:
        for _ in range(made.random.choice([1, 1, 2, 5])):
            act(made, has_faults=has_faults)
            if made.problems:
                return
            if made.random.random() < 0.7:
                made.look()
        made.run_until(made.now + made.random.choice([1, 60, 600, HOUR_S, 3 * HOUR_S, 9 * HOUR_S, 20 * HOUR_S]))
        materialise(made)


def report(made: World, seed: int) -> str:
    return f"seed {seed}: " + "\n".join(made.problems[:5])


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + HISTORIES))
def test_without_faults_every_promise_is_kept(seed: int) -> None:
    hosts = [{"dgx2-a": "a"}, {"dgx2-a": "s", "dgx2-b": "s"}, {"dgx2-a": "a", "dgx2-b": "b", "dgx2-c": "b"}][seed % 3]
    made = world(seed, hosts=hosts, odds=Odds(crashes=0.05, leaves_early=0.2))
    live_through(made, days=6, has_faults=False)
    assert not made.problems, report(made, seed)


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + HISTORIES))
@pytest.mark.parametrize("has_faults", [False, True])
def test_with_slack_every_promise_is_kept(seed: int, has_faults: bool) -> None:
    hosts = [{"dgx2-a": "a"}, {"dgx2-a": "s", "dgx2-b": "s"}][seed % 2]
    odds = Odds(start_fails=0.1, crashes=0.1, leaves_early=0.2, vanishes=0.05) if has_faults else Odds(leaves_early=0.2)
    made = world(seed, hosts=hosts, odds=odds, slack=Slack(least_s=2 * HOUR_S, share=0.25))
    live_through(made, days=5, has_faults=has_faults)
    assert not made.problems, report(made, seed)


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + HISTORIES))
def test_with_faults_whoever_was_not_hit_keeps_every_promise(seed: int) -> None:
    hosts = [{"dgx2-a": "a"}, {"dgx2-a": "s", "dgx2-b": "s"}, {"dgx2-a": "a", "dgx2-b": "b", "dgx2-c": "b"}][seed % 3]
    odds = Odds(start_fails=0.1, crashes=0.1, leaves_early=0.1, vanishes=0.05, ignores_grace=0.3)
    made = world(seed, hosts=hosts, odds=odds, limits=Limits(gpus_at_once=16 if seed % 2 else None))
    live_through(made, days=6, has_faults=True)
    assert not made.problems, report(made, seed)


LONGER_RETENTION = 5026
"""A policy with a longer retention, then a night that is given away: its tenants run on, with no room for more disk."""


@pytest.mark.parametrize("seed", [*range(FIRST_SEED, FIRST_SEED + HISTORIES), LONGER_RETENTION])
def test_with_little_disk_and_tight_limits_no_pool_and_no_limit_is_exceeded(seed: int) -> None:
    made = world(
        seed,
        hosts={"dgx2-a": "s", "dgx2-b": "s"},
        profile="dgx-2/small-pool",
        odds=Odds(leaves_early=0.2),
        limits=Limits(open_reservations=6, gpus_at_once=12, longest_run_s=2 * DAY_S),
        retention_s=DAY_S,
    )
    live_through(made, days=6, has_faults=False)
    assert not made.problems, report(made, seed)


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + HISTORIES))
def test_with_little_disk_on_several_storages_no_pool_is_exceeded_and_every_promise_is_kept(seed: int) -> None:
    hosts = [{"dgx2-a": "a", "dgx2-b": "b"}, {"dgx2-a": "a", "dgx2-b": "b", "dgx2-c": "b"}][seed % 2]
    made = world(
        seed,
        hosts=hosts,
        profile="dgx-2/small-pool",
        odds=Odds(leaves_early=0.3),
        slack=Slack(least_s=(seed % 3) * 4 * HOUR_S, share=0.25),
        retention_s=(seed % 4) * DAY_S,
    )
    live_through(made, days=6, has_faults=False)
    assert not made.problems, report(made, seed)


def by_hour(weekdays: Iterable[int], from_h: int, until_h: int) -> tuple[ClockHours, ...]:
    return (ClockHours(weekdays=frozenset(weekdays), from_minute=60 * from_h, until_minute=60 * until_h),)


def manifold_limits(start_at: Instant) -> tuple[LimitRule, ...]:
    """Limits of all kinds: of people and of a group, by the hour, by the week, for later days, within dates."""
    week, day = range(7), Span(start_at=start_at + 2 * DAY_S, end_at=start_at + 3 * DAY_S)
    return (
        LimitRule(scope=LimitScope.EACH, limits=Limits(gpus_at_once=6), hours=by_hour(week, 8, 18)),
        LimitRule(scope=LimitScope.EACH, limits=Limits(gpus_at_once=16), span=day),
        LimitRule(scope=LimitScope.GROUP, name="ab", limits=Limits(gpus_at_once=12, gpu_h_per_week=160)),
        LimitRule(scope=LimitScope.GROUP, name="ab", limits=Limits(gpus_at_once=8), hours=by_hour(week, 22, 6)),
        LimitRule(scope=LimitScope.GROUP, name="cd", limits=Limits(far_ahead_gpu_h=60, gpu_h_per_week=240)),
        LimitRule(
            scope=LimitScope.EACH_OF_GROUP,
            name="cd",
            limits=Limits(sizes=frozenset({1, 2, 4}), longest_run_s=6 * HOUR_S),
            hours=by_hour(range(5), 9, 17),
        ),
        LimitRule(scope=LimitScope.USER, name="ada", limits=Limits(far_ahead_gpu_h=30)),
    )


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + HISTORIES))
def test_limits_by_hour_week_and_day_of_groups_too_are_never_passed(seed: int) -> None:
    # On a Thursday: a week ends within it, and in some the clock is set forward.
    start_at = (1_772_668_800, 1_774_483_200)[seed % 2]
    made = world(
        seed,
        hosts={"dgx2-a": "s", "dgx2-b": "s"},
        now=start_at,
        odds=Odds(leaves_early=0.2),
        limits=Limits(gpus_at_once=12),
        limit_rules=manifold_limits(start_at),
        groups=(
            Group(name="ab", members=frozenset({"ada", "ben"})),
            Group(name="cd", members=frozenset({"cyd", "dee"})),
        ),
        zone="Europe/Berlin",
        zone_shifts=shifts_of("Europe/Berlin"),
        retention_s=DAY_S,
    )
    live_through(made, days=6, has_faults=False)
    assert not made.problems, report(made, seed)


def full_day(seed: int, *, limits: Limits | None = None) -> World:
    """A morning on which everybody asks for much, and more than a day of it."""
    made = world(seed, limits=limits)
    made.now += 8 * HOUR_S
    for _ in range(25):
        ask = Ask(
            owner=made.random.choice(OWNERS),
            queue="interactive",
            gpus=made.random.choice([1, 2, 4, 8]),
            run_s=made.random.randrange(1, 30) * HOUR_S,
        )
        made.file(Submit(ask=ask))
    return made


def give_the_night_and_change_the_policy(made: World) -> None:
    made.now = MIDNIGHT + 19 * HOUR_S
    made.step()
    assert made.plan.rules is not None
    windows = nights(
        sorted(made.plan.hosts),
        from_at=made.now,
        until_at=made.plan.horizon_at,
        version=2,
        start_s=22 * HOUR_S,
        length_s=6 * HOUR_S,
        every_days=2,
        name="late",
    )
    made.file(
        ApplyPolicy(
            rules=rules(2, limits=made.plan.rules.limits),
            windows=windows,
            horizon_at=made.plan.horizon_at,
            hosts=frozenset(made.plan.hosts),
            text="fewer nights",
        )
    )


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + 2 * HISTORIES))
def test_a_gift_and_a_policy_give_nobody_more_gpus_at_once_than_the_limit(seed: int) -> None:
    made = full_day(seed, limits=Limits(gpus_at_once=8))
    # Nobody converges: all are overdue.
    made.excused |= {r.id for r in made.live()}
    give_the_night_and_change_the_policy(made)
    assert not made.problems, report(made, seed)


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + 2 * HISTORIES))
def test_a_start_that_was_promised_anew_after_a_fault_is_kept_like_the_first(seed: int) -> None:
    made = full_day(seed)
    told = {
        key: replace(r, promise_notice=1) if r.outcome is None and r.spans[0].start_at > made.now else r
        for key, r in made.plan.reservations.items()
    }
    made.plan = replace(made.plan, reservations=told)
    made.excused |= set(told)
    give_the_night_and_change_the_policy(made)
    assert not made.problems, report(made, seed)


def test_a_history_is_the_same_to_the_byte_when_it_is_told_again() -> None:
    def history() -> World:
        made = world(7, hosts={"dgx2-a": "a", "dgx2-b": "b"}, odds=Odds(start_fails=0.1, crashes=0.1))
        made.is_checked = False
        live_through(made, days=5, has_faults=True)
        return made

    one, other = history(), history()
    assert one.changes == other.changes
    assert repr(one.plan) == repr(other.plan)


class Shared(World):
    """Another task plans now and then, with a memory of its own; and what this one decides is not always committed."""

    def step(self, filed: tuple[FiledIntent, ...] = ()) -> PlanChange:
        if not filed and self.plan.hosts:
            roll, asked = self.random.random(), Submit(ask=random_ask(self))
            one = FiledIntent(seq=self.seq + 1, at=self.now, author="admin", role=Role.ADMIN, intent=asked)
            if roll < 0.15:
                self._plan((one,), kept=self.kept)
            elif roll < 0.3:
                change = self._plan((one,), kept=Memory())
                self.seq += 1
                self.plan = apply(self.plan, change)
                self.gone |= {r.id: r for r in change.reservations if r.is_closed}
        change = super().step(filed)
        # What the other one decided was judged by nobody: faults that it has told would count as ours.
        self.problems = [problem for problem in self.problems if "two different changes" in problem]
        return change

    def _check_quiet(self) -> None:
        """What the other has tried in vain this one may try again."""


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + HISTORIES))
def test_a_memory_decides_nothing_though_commits_are_lost_and_others_plan_too(seed: int) -> None:
    hosts = [{"dgx2-a": "a"}, {"dgx2-a": "s", "dgx2-b": "s"}][seed % 2]
    made = world(seed, hosts=hosts, odds=Odds(start_fails=0.05, crashes=0.05, leaves_early=0.25), kind=Shared)
    live_through(made, days=4, has_faults=False)
    assert not made.problems, report(made, seed)


@pytest.mark.skipif(not compiled.is_available(), reason="there is no C compiler")
def test_the_planner_decides_the_same_with_the_calendar_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    def lived() -> World:
        made = world(5, hosts={"dgx2-a": "s", "dgx2-b": "s"}, odds=Odds(crashes=0.05, leaves_early=0.2))
        live_through(made, days=6, has_faults=True)
        return made

    fast = lived()
    monkeypatch.setattr(making, "is_available", lambda: False)
    slow = lived()
    assert slow.kept.board is not None
    assert isinstance(slow.kept.board.calendar, PureCalendar)
    assert len(fast.changes) > 100
    assert slow.changes == fast.changes
    assert slow.problems == fast.problems == []
