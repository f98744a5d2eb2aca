"""Policies that an admin applies against promises: all that must hold holds, but for promises that were told broken.

NIGHTSHIFT_HISTORIES says how many histories each test runs; a failure names the seed that shows it again.
"""

from dataclasses import replace

import pytest

from scheduler.core.intents import ApplyPolicy, Drain, Submit, Undrain
from scheduler.core.plan import Plan, PlanChange, PolicyNote, Reservation
from scheduler.core.planner.causes import CauseCode
from scheduler.core.planner.deciding import OVERRIDDEN_EVENT
from scheduler.core.planner.policy_diff import MOST_BROKEN, policy_diff
from scheduler.core.reasons import ReasonCode
from scheduler.core.requests import AtBoundary, ReservationId
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S
from scheduler.core.windows import Layout
from tests.property.test_planning_histories import FIRST_SEED, HISTORIES, act, random_ask, report
from tests.property.worlds import DAY_LAYOUT, Odds, World, dgx2, materialise, nights, rules, world

WHY = "power work in the cellar"


def random_policy(made: World, *, override: str = WHY) -> ApplyPolicy:
    """Return a policy that many promises may be in the way of."""
    random = made.random
    assert made.plan.rules is not None
    version = made.plan.rules.version + 1
    # Never shorter: how long a stop may take is told by what was asked then, which this world does not keep.
    grace_s = max(made.plan.rules.grace_s, random.choice([300, 300, 900]))
    windows = nights(
        sorted(made.plan.hosts),
        from_at=made.now - 2 * DAY_S,
        until_at=made.plan.horizon_at,
        version=version,
        start_s=random.choice([9, 12, 15, 18, 20]) * HOUR_S,
        length_s=random.choice([1, 4, 8, 12, 20]) * HOUR_S,
        every_days=random.choice([1, 1, 2, 5]),
        only_if_queued=random.random() < 0.8,
        at_boundary=random.choice(
            [
                frozenset({AtBoundary.PARK, AtBoundary.FINISH}),
                frozenset({AtBoundary.FINISH}),
                frozenset({AtBoundary.PARK, AtBoundary.FINISH, AtBoundary.KEEP}),
            ]
        ),
        name=random.choice(["night", "work"]),
        grace_s=grace_s,
    )
    # A window that should have been decided already is not filed: nobody could be warned in time.
    windows = tuple(window for window in windows if window.decide_at >= made.now)
    outside = Layout(
        name="day", sizes=frozenset(random.choice([(1, 2), (1, 2, 4), (1, 2, 4, 8)])), queues=DAY_LAYOUT.queues
    )
    new = rules(
        version,
        limits=made.plan.rules.limits,
        outside=outside,
        min_useful_s=random.choice([30, 30, 60]) * MINUTE_S,
        grace_s=grace_s,
    )
    return ApplyPolicy(
        rules=new,
        windows=windows,
        hosts=frozenset(made.plan.hosts),
        horizon_at=made.plan.horizon_at,
        text=f"policy {version}",
        note=PolicyNote(override=override),
    )


def overridden(change: PlanChange) -> set[ReservationId]:
    return {
        told.reservation for told in change.events if told.kind == OVERRIDDEN_EVENT and told.reservation is not None
    }


def _live(plan: Plan) -> dict[ReservationId, Reservation]:
    return {key: r for key, r in plan.reservations.items() if r.outcome is None and r.promise is not None}


def override_policy(made: World) -> set[ReservationId]:
    """Apply a policy by an override, and hold what came of it against what was said before and what must be told."""
    # What is due anyway is not the policy's doing.
    made.step()
    intent, before = random_policy(made), made.plan
    foreseen = policy_diff(before, made.facts, intent, made.now, settings=made.settings, profiles=dgx2)
    change = made.file(intent)
    assert change.decided[-1].is_accepted, change.decided
    hit = overridden(change)
    said = {one.reservation for one in foreseen.broken}
    if said != hit and len(hit) <= MOST_BROKEN:
        made.problems.append(f"{made.now}: foreseen were {said}, hit are {hit}")
    told = {event.reservation for event in change.events if event.kind == "promise.raised" and event.is_notice}
    for key in hit:
        after = made.plan.reservations[key]
        causes = [why for why in after.reasons if why.fact("cause_code") == CauseCode.OVERRIDDEN]
        if key not in told or not causes or WHY not in str(causes[-1].fact("cause")):
            made.problems.append(f"{made.now}: {key} was hit and not told: {after.reasons}")
    for key, was in _live(before).items():
        if key not in made.plan.reservations or made.plan.reservations[key].outcome not in (was.outcome, None):
            made.problems.append(f"{made.now}: {key} was dropped")
        elif was.disk is not None and was.disk not in made.plan.disks:
            made.problems.append(f"{made.now}: {key} lost its disk")
    return hit


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + HISTORIES))
def test_an_override_breaks_the_promises_that_it_tells_and_no_other(seed: int) -> None:
    hosts = [{"dgx2-a": "a"}, {"dgx2-a": "s", "dgx2-b": "s"}, {"dgx2-a": "a", "dgx2-b": "b", "dgx2-c": "b"}][seed % 3]
    made = world(seed, hosts=hosts, odds=Odds(crashes=0.05, leaves_early=0.2))
    end_at = made.now + 6 * DAY_S
    while made.now < end_at and not made.problems:
        for _ in range(made.random.choice([1, 2, 5])):
            if made.random.random() < 0.8:
                made.file(Submit(ask=random_ask(made)))
            else:
                act(made, has_faults=False)
            made.look()
        if made.random.random() < 0.4:
            override_policy(made)
        if made.random.random() < 0.1:
            host = made.random.choice(sorted(made.plan.hosts))
            made.file(Undrain(host=host) if made.plan.hosts[host].is_drained else Drain(host=host))
        made.run_until(made.now + made.random.choice([1, 600, HOUR_S, 3 * HOUR_S, 9 * HOUR_S, 20 * HOUR_S]))
        materialise(made)
    assert not made.problems, report(made, seed)


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + HISTORIES))
def test_whoever_was_hit_gets_all_hours_in_the_end(seed: int) -> None:
    made = world(seed, hosts={"dgx2-a": "a", "dgx2-b": "b"}, odds=Odds())
    for _ in range(12):
        ask = random_ask(made)
        if ask.start_by_at is None and ask.run_s <= 12 * HOUR_S:
            made.file(Submit(ask=ask))
    made.run_until(made.now + made.random.choice([HOUR_S, 9 * HOUR_S, 11 * HOUR_S]))
    hit = override_policy(made)
    for _ in range(30):
        made.run_until(made.now + DAY_S)
        materialise(made)
    lost = []
    for key in sorted(hit):
        # What no layout admits any more waits for a policy that does.
        r = next(r for _, change in reversed(made.changes) for r in change.reservations if r.id == key)
        ran_s = sum(
            (vm.off_at or made.now) - vm.running_at
            for f in made.facts.values()
            for vm in f.vms
            if vm.reservation == key and vm.running_at
        )
        assert made.plan.rules is not None
        if r.outcome is None and r.request.gpus not in made.plan.rules.outside.sizes and r.request.gpus != 16:
            assert r.disk in made.plan.disks
            continue
        if ran_s < r.request.run_s - 60:
            lost.append((key, r.request, ran_s, r.outcome, r.spans, r.promise))
    assert not lost, f"seed {seed}: {lost}"
    assert not made.problems, report(made, seed)


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + HISTORIES))
def test_a_policy_is_refused_for_those_whom_an_override_would_hit(seed: int) -> None:
    made = world(seed, hosts={"dgx2-a": "s", "dgx2-b": "s"})
    made.file(*(Submit(ask=random_ask(made)) for _ in range(30)))
    made.run_until(made.now + made.random.choice([0, HOUR_S, 12 * HOUR_S]))
    intent = random_policy(made, override="")
    before = made.plan
    refused = made.file(intent).decided[-1].reasons
    made.plan = before
    hit = overridden(made.file(replace(intent, note=PolicyNote(override=WHY))))
    assert {why.code for why in refused} <= {ReasonCode.POLICY_BREAKS_PROMISE}
    assert {why.fact("reservation") for why in refused} == hit or len(hit) > MOST_BROKEN
    assert not made.problems, report(made, seed)
