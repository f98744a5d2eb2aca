"""A policy against promises: refused for those whom it hits; by an override they are parked, moved, told, and kept."""

from dataclasses import replace

from scheduler.core.intents import ApplyPolicy, FiledIntent, Submit
from scheduler.core.plan import Plan, PlanChange, PolicyNote, Reservation, Rules, apply
from scheduler.core.planner.causes import CauseCode, override_told
from scheduler.core.planner.deciding import MOST_NAMED, OVERRIDDEN_EVENT
from scheduler.core.planner.step import step
from scheduler.core.reasons import Reason, ReasonCode
from scheduler.core.requests import Ask, AtBoundary, ReservationId, Role
from scheduler.core.spans import DAY_S, HOUR_S
from scheduler.core.windows import Layout
from tests.property.worlds import MIDNIGHT, dgx2, nights, rules, world
from tests.scheduler.core.planner.test_policy_diff import NOW, SETTINGS, Desk, policy, usual

WHY = "power work"


def overriding(intent: ApplyPolicy, why: str = WHY) -> ApplyPolicy:
    return replace(intent, note=PolicyNote(override=why))


def tried(plan: Plan, intent: ApplyPolicy, *, role: Role = Role.ADMIN) -> PlanChange:
    filed = FiledIntent(seq=999, at=NOW, author="root", role=role, intent=intent)
    return step(plan, (filed,), {}, NOW, settings=SETTINGS, profiles=dgx2)


def reasons_of(change: PlanChange) -> tuple[Reason, ...]:
    return change.decided[0].reasons


def told_by_override(reservation: Reservation) -> str:
    cause = override_told(reservation)
    assert cause is not None
    assert cause.code is CauseCode.OVERRIDDEN
    return cause.text


def test_a_refusal_names_all_whom_an_override_would_hit_and_nothing_changes() -> None:
    desk = Desk()
    hit = {desk.book("ada", hours=11), desk.book("bob", hours=11)}
    desk.book("cyd", gpus=2, hours=2)
    short = policy(usual(length_s=6 * HOUR_S))
    refused = tried(desk.plan, short)
    assert {why.fact("reservation") for why in reasons_of(refused)} == hit
    assert (refused.reservations, refused.windows, refused.rules, refused.events) == ((), (), None, ())
    change = desk.do(overriding(short))
    assert {event.reservation for event in change.events if event.kind == OVERRIDDEN_EVENT} == hit


def test_of_very_many_only_so_many_are_named() -> None:
    desk = Desk()
    for number in range(MOST_NAMED + 5):
        desk.book(f"u{number}", gpus=2, hours=1)
    none = Layout(name="day", sizes=frozenset({16}), queues=frozenset({"hpc"}))
    assert len(reasons_of(tried(desk.plan, policy(usual(), holding=rules(outside=none))))) == MOST_NAMED


def test_what_has_no_place_left_keeps_its_record_and_its_disk_and_is_booked_when_there_is_one() -> None:
    desk = Desk()
    lost = desk.book("ada", hours=4)
    before = desk.plan.reservations[lost]
    change = desk.do(overriding(policy(())))
    after = desk.plan.reservations[lost]
    assert (after.outcome, after.spans, after.promise) == (None, (), before.promise)
    assert after.disk in desk.plan.disks
    assert told_by_override(after) == f"an admin's override: {WHY}"
    assert sum(event.is_notice for event in change.events if event.reservation == lost) >= 1
    # It is told once: the next step has nothing to add.
    assert step(desk.plan, (), {}, NOW + 60, settings=SETTINGS, profiles=dgx2).is_empty
    desk.do(policy(usual(), version=3))
    again = desk.plan.reservations[lost]
    assert again.spans
    assert told_by_override(again) == f"an admin's override: {WHY}"


def test_nobody_else_is_moved_where_that_helps_nobody() -> None:
    desk = Desk()
    hit = desk.book("ada", hours=11)
    others = [desk.book(f"u{number}", gpus=8, hours=3) for number in range(6)]
    before = {key: desk.plan.reservations[key].spans for key in others}
    desk.do(overriding(policy(usual(length_s=6 * HOUR_S))))
    assert {key: desk.plan.reservations[key].spans for key in others} == before
    assert desk.plan.reservations[hit].promise_notice > 0


def test_an_override_where_every_promise_holds_breaks_none() -> None:
    desk = Desk()
    desk.book("ada", gpus=4, hours=20, at_boundary=AtBoundary.PARK)
    change = desk.do(overriding(policy(usual(start_s=21 * HOUR_S, length_s=11 * HOUR_S))))
    assert [event.kind for event in change.events if "promise" in event.kind] == []
    assert change.policy_note == PolicyNote(override=WHY)


def test_only_an_admin_overrides() -> None:
    desk = Desk()
    desk.book("ada", hours=11)
    for role in (Role.POLICY, Role.STUDENT):
        refused = tried(desk.plan, overriding(policy(usual(length_s=6 * HOUR_S))), role=role)
        assert [why.code for why in reasons_of(refused)] == [ReasonCode.ADMIN_ONLY]


def test_what_is_wrong_with_a_policy_besides_is_not_overridden() -> None:
    desk = Desk()
    stale = tried(desk.plan, overriding(policy(usual(), version=1)))
    assert [why.code for why in reasons_of(stale)] == [ReasonCode.POLICY_STALE]
    desk.book("ada", hours=4)
    short = tried(desk.plan, overriding(policy(usual(), horizon_at=NOW + HOUR_S)))
    assert [why.code for why in reasons_of(short)] == [ReasonCode.POLICY_INVALID]


# With guests.


def new_policy(version: int, now: int, **changes: object) -> ApplyPolicy:
    holding: Rules = rules(version, **{"outside": rules().outside, **changes})
    windows = nights(["dgx2-a"], from_at=now, until_at=MIDNIGHT + 15 * DAY_S, version=version)  # type: ignore[list-item]
    return ApplyPolicy(
        rules=holding,
        windows=tuple(window for window in windows if window.decide_at > now),
        hosts=frozenset({"dgx2-a"}),  # type: ignore[arg-type]
        horizon_at=MIDNIGHT + 15 * DAY_S,
        text="",
        note=PolicyNote(override=WHY),
    )


def test_whom_no_layout_admits_any_more_is_warned_then_parked_and_gets_the_rest_when_one_does() -> None:
    made = world()
    made.odds.ignores_grace = 0.0
    made.file(
        Submit(ask=Ask(owner="ada", queue="interactive", gpus=8, run_s=5 * HOUR_S, at_boundary=AtBoundary.FINISH))
    )
    key = ReservationId(f"r-{made.seq}")
    made.run_until(made.now + HOUR_S)
    begun = made.plan.reservations[key].spans[0]
    small = Layout(name="day", sizes=frozenset({1, 2, 4}), queues=frozenset({"interactive"}))
    made.file(new_policy(2, made.now, outside=small))
    cut = made.plan.reservations[key]
    assert cut.spans == (replace(begun, end_at=made.now + 900),)
    assert told_by_override(cut)
    made.run_until(made.now + 3 * HOUR_S)
    parked = made.plan.reservations[key]
    assert (parked.outcome, parked.disk in made.plan.disks) == (None, True)
    made.file(new_policy(3, made.now))
    made.run_until(made.now + 8 * HOUR_S)
    assert not made.problems, made.problems
    ran = [vm for facts in made.facts.values() for vm in facts.vms if vm.reservation == key]
    assert len(ran) == 2
    assert sum((vm.off_at or made.now) - (vm.running_at or 0) for vm in ran) >= 5 * HOUR_S - 60


def test_a_start_that_has_not_begun_on_its_host_is_given_up_where_no_layout_admits_it() -> None:
    desk = Desk()
    key = desk.book("ada", gpus=8, hours=3)
    desk.plan = apply(
        desk.plan,
        PlanChange(
            reservations=(
                replace(
                    desk.plan.reservations[key],
                    spans=tuple(replace(s, start_at=NOW - 60) for s in desk.plan.reservations[key].spans),
                ),
            )
        ),
    )
    small = Layout(name="day", sizes=frozenset({1, 2, 4}), queues=frozenset({"interactive"}))
    desk.do(overriding(policy(usual(), holding=rules(outside=small))))
    given_up = desk.plan.reservations[key]
    assert (given_up.spans, given_up.outcome) == ((), None)
    assert told_by_override(given_up)
