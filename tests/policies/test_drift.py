"""Planned windows that new time zone or holiday data would move: noticed, told, and never moved by themselves."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from policies import data_versions as module
from policies import ticking
from policies.applying import apply_to_plan, check_text
from policies.data_versions import data_versions, versions_text
from policies.drift import drifted_windows
from policies.format import LoadedPolicy
from policies.holiday_days import DateRange, HolidayDays
from policies.loading import load_policy
from policies.ticker import Ticker
from scheduler.core.intents import AddHost, FiledIntent, Intent
from scheduler.core.plan import Plan, apply
from scheduler.core.planner.step import step
from scheduler.core.requests import HostId, Role
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, HOUR_S, Instant
from scheduler.profiles.loading import load_profile
from scheduler.service.doctor import Check, diagnose, gather
from scheduler.service.facts_cache import FactsCache
from scheduler.service.plan_cache import PlanCache
from scheduler.service.planned_windows import last_compared
from scheduler.store.store import Store
from tests.policies.conftest import policy_text
from tests.policies.test_ticking import Site, StoppedClock, Woken, make_site, open_store

MONDAY_AT: Instant = 1_772_409_600
SETTINGS = Settings()
HOST = HostId("dgx2-a")
EXAMPLES = Path(__file__).parents[2] / "policies" / "examples"


class Desk:
    """A plan that a policy is applied to, and that goes on with the days."""

    def __init__(self, policy: LoadedPolicy, *, now: Instant) -> None:
        self.plan, self.now, self.seq, self.policy = Plan(), now, 0, policy
        self.do(AddHost(host=HOST, profile="dgx-2", storage="a"))
        self.do(apply_to_plan(policy, self.plan, now=now, settings=SETTINGS))
        self.ticker = Ticker(self._file, SETTINGS)

    def do(self, *intents: Intent) -> None:
        filed = []
        for intent in intents:
            self.seq += 1
            filed.append(FiledIntent(seq=self.seq, at=self.now, author="root", role=Role.ADMIN, intent=intent))
        change = step(self.plan, filed, {}, self.now, settings=SETTINGS, profiles=lambda _: load_profile("dgx-2"))
        if not change.is_empty:
            self.plan = apply(self.plan, change)

    def _file(self, intent: Intent, *, at: Instant, author: str, role: Role, key: str) -> tuple[FiledIntent, bool]:
        self.seq += 1
        filed = FiledIntent(seq=self.seq, at=at, author=author, role=role, intent=intent, key=key)
        change = step(self.plan, (filed,), {}, at, settings=SETTINGS, profiles=lambda _: load_profile("dgx-2"))
        self.plan = apply(self.plan, change)
        return filed, True

    def pass_time(self, seconds: int) -> None:
        self.now += seconds
        self.do()
        self.ticker.tick(
            self.now,
            policy=self.policy,
            policy_version=self.plan.rules.version if self.plan.rules else 0,
            horizon_at=self.plan.horizon_at,
            hosts=frozenset(self.plan.hosts),
        )

    def drift(self, policy: LoadedPolicy) -> list[str]:
        return [change.name for change in drifted_windows(policy, self.plan, now=self.now)]


def loaded(text: str, source: str = "p.yaml") -> LoadedPolicy:
    policy = load_policy(text, source=source)
    assert isinstance(policy, LoadedPolicy), policy
    return policy


@pytest.mark.parametrize("name", ["university.yaml", "department.yaml"])
@pytest.mark.parametrize("start_at", [MONDAY_AT, MONDAY_AT + 19 * HOUR_S, 1_792_000_000])
def test_with_the_same_data_nothing_drifts_on_any_day(name: str, start_at: Instant) -> None:
    policy = loaded((EXAMPLES / name).read_text(encoding="utf-8"), source=name)
    desk = Desk(policy, now=start_at)
    for hours in (0, 1, 12, 30, 100, 24 * 25, 24 * 40):
        desk.pass_time(hours * HOUR_S)
        assert desk.drift(policy) == [], hours


def test_a_policy_that_is_applied_over_a_decided_window_does_not_drift() -> None:
    night = policy_text(windows='{name: night, layout: night, opens: "0 20 * * *", for: 12h}')
    desk = Desk(loaded(night), now=MONDAY_AT + 18 * HOUR_S)
    later = loaded(night.replace("0 20", "0 22").replace("for: 12h", "for: 10h"))
    desk.do(apply_to_plan(later, desk.plan, now=desk.now, settings=SETTINGS))
    assert desk.drift(later) == []


def test_a_zone_with_other_rules_moves_every_window() -> None:
    policy = loaded(policy_text(windows='{name: night, layout: night, opens: "0 20 * * *", for: 12h}'))
    desk = Desk(policy, now=MONDAY_AT)
    moved = drifted_windows(replace(policy, zone="Europe/Athens"), desk.plan, now=desk.now)
    assert len(moved) > 80
    assert all(one.before and one.after and one.after.start_at == one.before.start_at - HOUR_S for one in moved)


def test_a_new_holiday_makes_a_window_vanish() -> None:
    text = policy_text(
        windows='{name: night, layout: night, opens: "0 20 * * *", for: 12h, holidays: skip}',
        more="holidays: {also: [2026-12-24]}\n",
    )
    policy = loaded(text)
    desk = Desk(policy, now=MONDAY_AT)
    # The ninth day after this Monday.
    day = DateRange(first=date(2026, 3, 11), last=date(2026, 3, 11))
    entries = tuple(
        replace(entry, opens=replace(entry.opens, holidays=HolidayDays(listed=(day,)))) for entry in policy.windows
    )
    (gone,) = drifted_windows(replace(policy, windows=entries), desk.plan, now=desk.now)
    assert gone.before is not None
    assert gone.after is None
    assert MONDAY_AT + 9 * DAY_S < gone.before.start_at < MONDAY_AT + 10 * DAY_S


# The ticker.


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path / "plan.sqlite3")
    yield store
    store.close()


@pytest.fixture
def site(store: Store) -> Site:
    return make_site(store, StoppedClock())


def policy_check(site: Site) -> Check:
    evidence = gather(
        store=site.store,
        clock=site.clock,
        plans=PlanCache(site.store, site.clock),
        known_facts=FactsCache(site.store),
        speed=1,
        redis_problem=None,
    )
    return next(check for check in diagnose(evidence) if check.name == "policy")


def with_new_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let policies be read as if Berlin had moved an hour east."""

    def load(text: str, **options: object) -> object:
        policy = load_policy(text, **options)  # type: ignore[arg-type]
        return replace(policy, zone="Europe/Athens") if isinstance(policy, LoadedPolicy) else policy

    monkeypatch.setattr(ticking, "load_policy", load)
    monkeypatch.setattr(ticking, "data_versions", lambda: (("tzdata", "2030z"),))


def test_new_data_is_told_once_and_moves_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.ticking(Woken()).tick()
    assert last_compared(site.store.heartbeats()).moved == 0  # type: ignore[union-attr]
    assert "would move" not in policy_check(site).detail
    before = site.decide().windows

    with_new_zones(monkeypatch)
    for name in ("ticker-1", "ticker-2"):
        ticker = site.ticking(Woken(), name)
        ticker.tick()
        ticker.tick()
    assert site.decide().windows == before
    (told,) = [event for _, event in site.store.events() if event.kind == "policy.data_changed"]
    facts = dict(told.facts)
    assert (told.is_notice, facts["version"], facts["installed"]) == (True, 1, "tzdata 2030z")
    assert facts["made_with"] == versions_text(data_versions())
    check = policy_check(site)
    assert not check.is_ok
    assert f"time zone or holiday data changed: {facts['windows']} windows would move" in check.detail
    assert "nightshift policy diff --applied" in check.remedy
    assert "nightshift policy apply --applied" in check.remedy


def test_applying_the_same_text_again_moves_them(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with_new_zones(monkeypatch)
    ticker = site.ticking(Woken())
    ticker.tick()
    assert not policy_check(site).is_ok
    record = site.store.policy(1)
    assert record is not None
    plan = site.decide()
    checked = check_text(record.text, source="university.yaml", now=site.clock.now(), settings=SETTINGS)
    assert checked.policy is not None
    again = apply_to_plan(replace(checked.policy, zone="Europe/Athens"), plan, now=site.clock.now(), settings=SETTINGS)
    site.store.file_intent(again, at=site.clock.now(), author="root", role=Role.ADMIN)
    moved = site.decide().windows
    assert {window.start_at for window in moved.values()} != {window.start_at for window in plan.windows.values()}
    ticker.tick()
    assert "would move" not in policy_check(site).detail


# Which data there is.


def test_the_versions_of_the_data_are_kept_with_a_policy(site: Site) -> None:
    record = site.store.policy(1)
    assert record is not None
    assert [name for name, _ in record.note.made_with] == ["holidays", "tzdata"]
    assert all(version not in ("", "not known") for _, version in record.note.made_with)


def test_zones_of_the_machine_come_before_those_of_the_package(tmp_path: Path) -> None:
    (tmp_path / "Europe").mkdir()
    (tmp_path / "Europe" / "Berlin").touch()
    assert module._zones_version((str(tmp_path),)) == "the machine's"
    (tmp_path / "tzdata.zi").write_text("# version 2030z\nR d\n", encoding="utf-8")
    assert module._zones_version(("/nowhere", str(tmp_path))) == "2030z"
    assert module._zones_version(("/nowhere",)) == module._package_version("tzdata")
