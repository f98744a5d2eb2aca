"""What a policy would change, before it is applied: windows by name and host, bookings, promises."""

from dataclasses import replace
from random import Random

import pytest

from scheduler.core.intents import AddHost, ApplyPolicy, FiledIntent, Submit, reservation_id
from scheduler.core.plan import LimitRule, Limits, Plan, PlanChange, Rules, apply
from scheduler.core.planner import policy_diff as module
from scheduler.core.planner.policy_diff import PolicyDiff, policy_diff
from scheduler.core.planner.step import step
from scheduler.core.reasons import ReasonCode
from scheduler.core.requests import Ask, AtBoundary, HostId, ReservationId, Role
from scheduler.core.rules import LimitScope
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S, Instant, Span
from scheduler.core.windows import Window
from tests.property.worlds import MIDNIGHT, dgx2, nights, rules

NOW: Instant = MIDNIGHT + 8 * HOUR_S
HORIZON_AT: Instant = NOW + 10 * DAY_S
HOSTS = (HostId("a"), HostId("b"))
SETTINGS = Settings()


def usual(**changes: object) -> tuple[Window, ...]:
    options = {"from_at": NOW, "until_at": HORIZON_AT, **changes}
    return nights(HOSTS, **options)  # type: ignore[arg-type]


def policy(
    windows: tuple[Window, ...], *, version: int = 2, horizon_at: Instant = HORIZON_AT, holding: Rules | None = None
) -> ApplyPolicy:
    return ApplyPolicy(
        rules=replace(holding or rules(), version=version),
        windows=tuple(replace(window, policy_version=version) for window in windows),
        hosts=frozenset(HOSTS),
        horizon_at=horizon_at,
        text="",
    )


class Desk:
    """A plan of two hosts with a night each, that reservations are taken into."""

    def __init__(self, *, is_policy_applied: bool = True) -> None:
        self.plan = Plan()
        self.seq = 0
        for host in HOSTS:
            self.do(AddHost(host=host, profile="dgx-2", storage=host))
        if is_policy_applied:
            self.do(policy(usual(), version=1))

    def do(self, intent: AddHost | ApplyPolicy | Submit) -> PlanChange:
        self.seq += 1
        filed = FiledIntent(seq=self.seq, at=NOW, author="root", role=Role.ADMIN, intent=intent)
        change = step(self.plan, (filed,), {}, NOW, settings=SETTINGS, profiles=dgx2)
        assert not change.decided[0].reasons, change.decided
        self.plan = apply(self.plan, change)
        return change

    def book(self, owner: str, *, gpus: int = 16, hours: int = 4, **asked: object) -> ReservationId:
        queue = "hpc" if gpus == 16 else "interactive"
        options = {"at_boundary": AtBoundary.FINISH, **asked}
        self.do(Submit(ask=Ask(owner=owner, queue=queue, gpus=gpus, run_s=hours * HOUR_S, **options)))  # type: ignore[arg-type]
        return reservation_id(self.seq)

    def diff(self, intent: ApplyPolicy) -> PolicyDiff:
        before = self.plan
        found = policy_diff(self.plan, {}, intent, NOW, settings=SETTINGS, profiles=dgx2)
        assert self.plan == before
        return found


def test_the_same_policy_changes_nothing() -> None:
    desk = Desk()
    desk.book("ada")
    desk.book("bob", gpus=4, hours=20, at_boundary=AtBoundary.PARK)
    found = desk.diff(policy(usual()))
    assert (found.is_empty, found.owners_hit, found.plan_version) == (True, (), desk.plan.version)


def test_a_window_that_opens_later_moves_by_name_and_host_and_minutes() -> None:
    found = Desk().diff(policy(usual(start_s=21 * HOUR_S, length_s=11 * HOUR_S)))
    first = found.windows[0]
    assert (first.name, first.hosts) == ("night", HOSTS)
    assert first.before == Span(start_at=MIDNIGHT + 20 * HOUR_S, end_at=MIDNIGHT + 32 * HOUR_S)
    assert first.after == Span(start_at=MIDNIGHT + 21 * HOUR_S, end_at=MIDNIGHT + 32 * HOUR_S)
    assert all(one.before and one.after and one.after.start_at - one.before.start_at == HOUR_S for one in found.windows)
    # The last day is not compared.
    assert len(found.windows) == 9
    assert (found.is_empty, found.is_refused) == (False, False)


def test_what_the_horizon_brings_is_no_change() -> None:
    later_at = HORIZON_AT + DAY_S
    assert Desk().diff(policy(usual(until_at=later_at), horizon_at=later_at)).is_empty


def test_windows_appear_and_vanish_on_the_hosts_on_which_they_do() -> None:
    nights_of_a = tuple(replace(window, hosts=frozenset(HOSTS[:1])) for window in usual())
    vanished = Desk().diff(policy(nights_of_a)).windows
    assert {(one.hosts, one.after) for one in vanished} == {(HOSTS[1:], None)}
    noons = usual(name="noon", start_s=12 * HOUR_S, length_s=2 * HOUR_S)
    appeared = Desk().diff(policy((*usual(), *noons))).windows
    assert {(one.name, one.hosts, one.before) for one in appeared} == {("noon", HOSTS, None)}


def test_one_night_less_is_one_that_vanishes_and_moves_no_other() -> None:
    windows = usual(start_s=21 * HOUR_S)
    found = Desk().diff(policy((*windows[:3], *windows[4:]))).windows
    gone = [one for one in found if one.after is None]
    assert [one.before.start_at for one in gone if one.before] == [MIDNIGHT + 3 * DAY_S + 20 * HOUR_S]
    assert len(found) == 9


def test_a_window_that_is_another_one_at_its_time_says_in_what() -> None:
    found = Desk().diff(policy(usual(grace_s=240, only_if_queued=False))).windows
    assert {one.differs for one in found} == {("grace", "only_if_queued")}
    assert all(one.before == one.after for one in found)


def test_new_time_zone_data_moves_windows_under_the_same_text() -> None:
    # The names are those of the clock on the wall, the instants half an hour later.
    moved = tuple(
        replace(w, start_at=w.start_at + 1800, end_at=w.end_at + 1800, decide_at=w.decide_at + 1800) for w in usual()
    )
    found = Desk().diff(policy(moved))
    assert {one.after.start_at - one.before.start_at for one in found.windows if one.before and one.after} == {1800}
    assert not found.rules


def test_bookings_are_hit_by_the_minutes_that_applying_it_moves_them() -> None:
    desk = Desk()
    hit = desk.book("ada", hours=20, gpus=4, at_boundary=AtBoundary.PARK)
    desk.book("bob", hours=2, gpus=4)
    intent = policy(usual(start_s=21 * HOUR_S, length_s=11 * HOUR_S))
    found = desk.diff(intent)
    (change,) = found.bookings
    assert (change.reservation, change.owner, change.start_moves_s) == (hit, "ada", 0)
    # One hour more on the first day, one hour less on the second, and the hand-over that it takes.
    assert -HOUR_S - 15 * MINUTE_S <= change.end_moves_s <= -HOUR_S + 15 * MINUTE_S
    assert found.owners_hit == ("ada",)
    desk.do(intent)
    assert desk.plan.reservations[hit].spans == change.after
    assert desk.plan.reservations[hit].promise == change.promise


def test_every_promise_that_would_break_is_named_with_its_owner_and_why() -> None:
    desk = Desk()
    broken = {desk.book("ada", hours=11), desk.book("bob", hours=11)}
    found = desk.diff(policy(usual(length_s=6 * HOUR_S)))
    assert found.is_refused
    assert {one.reservation for one in found.broken} == broken
    assert {one.why.code for one in found.broken} == {ReasonCode.POLICY_BREAKS_PROMISE}
    assert found.owners_hit == ("ada", "bob")
    # What the policy does otherwise is shown all the same.
    assert found.windows
    assert all(one.after and one.after.end_at - one.after.start_at == 6 * HOUR_S for one in found.windows)


def test_more_broken_promises_than_anybody_reads_are_not_counted_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BROKEN", 1)
    desk = Desk()
    desk.book("ada", hours=11)
    desk.book("bob", hours=11)
    found = desk.diff(policy(usual(length_s=6 * HOUR_S)))
    assert (len(found.broken), found.is_broken_complete) == (1, False)
    assert found.windows


def test_what_would_be_refused_anyway_says_why() -> None:
    found = Desk().diff(policy(usual(), version=1))
    assert (found.is_empty, found.is_refused) == (False, True)
    assert [why.code for why in found.refusals] == [ReasonCode.POLICY_STALE]


def test_other_rules_that_differ_are_named_and_the_lines_that_they_stand_on_are_not() -> None:
    rule = LimitRule(scope=LimitScope.USER, name="ada", limits=Limits(waiting=3), source="p.yaml:7")
    desk = Desk()
    desk.do(policy(usual(), holding=rules(limit_rules=(rule,))))
    moved = rules(limit_rules=(replace(rule, source="p.yaml:9"),))
    assert desk.diff(policy(usual(), version=3, holding=moved)).is_empty
    stricter = rules(limit_rules=(replace(rule, limits=Limits(waiting=2)),), retention_s=DAY_S)
    found = desk.diff(policy(usual(), version=3, holding=stricter))
    assert found.rules == ("retention", "limits")
    assert not found.windows


def test_a_first_policy_brings_all_of_its_windows() -> None:
    found = Desk(is_policy_applied=False).diff(policy(usual(), version=1))
    assert len(found.windows) == 10
    assert {one.before for one in found.windows} == {None}


def test_a_window_that_was_decided_stays_and_is_no_change() -> None:
    desk = Desk()
    decided_at = MIDNIGHT + 19 * HOUR_S
    change = step(desk.plan, (), {}, decided_at, settings=SETTINGS, profiles=dgx2)
    plan = apply(desk.plan, change)
    later = policy(usual(start_s=21 * HOUR_S)[1:], horizon_at=HORIZON_AT)
    found = policy_diff(plan, {}, later, decided_at, settings=SETTINGS, profiles=dgx2)
    assert min(one.before.start_at for one in found.windows if one.before) == MIDNIGHT + DAY_S + 20 * HOUR_S


@pytest.mark.parametrize("seed", range(40))
def test_a_diff_says_what_applying_the_policy_does(seed: int) -> None:
    random = Random(seed)
    desk = Desk()
    for number in range(random.randrange(1, 16)):
        gpus = random.choice((1, 2, 4, 8, 16))
        at_boundary = random.choice((AtBoundary.PARK, AtBoundary.FINISH))
        # Those that are parked over the night have their ends moved by it.
        hours = random.randrange(13, 40) if at_boundary is AtBoundary.PARK and gpus < 16 else random.randrange(1, 9)
        desk.book(f"u{number % 4}", gpus=gpus, hours=hours, at_boundary=at_boundary)
    start_s, end_s = (random.randrange(least, most) * HOUR_S // 4 for least, most in ((72, 90), (112, 132)))
    intent = policy(usual(start_s=start_s, length_s=end_s - start_s, every_days=random.choice((1, 1, 2))))
    before = desk.plan
    found = desk.diff(intent)
    filed = FiledIntent(seq=99, at=NOW, author="root", role=Role.ADMIN, intent=intent)
    change = step(before, (filed,), {}, NOW, settings=SETTINGS, profiles=dgx2)
    assert change.decided[0].is_accepted is not found.is_refused
    if found.is_refused:
        assert {one.why for one in found.broken} >= set(change.decided[0].reasons)
        assert {one.reservation for one in found.broken}.isdisjoint(one.reservation for one in found.bookings)
        return
    after = apply(before, change)
    moved = {one.reservation: one.after for one in found.bookings}
    for key, reservation in before.reservations.items():
        spans = moved.get(key, reservation.spans)
        assert [(s.start_at, s.end_at, s.host) for s in after.reservations[key].spans] == [
            (s.start_at, s.end_at, s.host) for s in spans
        ]
    compared = {(span, host) for span, host in _spans(before) if span.start_at < found.until_at}
    for one in found.windows:
        compared -= {(one.before, host) for host in one.hosts if one.before}
        compared |= {(one.after, host) for host in one.hosts if one.after}
    far = {(span, host) for span, host in compared ^ _spans(after) if span.start_at < found.until_at}
    assert not far


def _spans(plan: Plan) -> set[tuple[Span, HostId]]:
    return {(window.span, host) for window in plan.windows.values() for host in window.hosts}
