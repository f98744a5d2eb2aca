"""From a policy's text to the intents that apply it and that add hosts under it."""

from importlib.resources import files

import pytest

from policies.applying import AppliedPolicyUnreadable, add_to_plan, apply_to_plan, check_text
from policies.format import LoadedPolicy
from scheduler.core.plan import Host, Plan
from scheduler.core.requests import HostId
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, HOUR_S
from scheduler.profiles.loading import load_profile

MONDAY_AT = 1_772_434_800  # 2026-03-02 08:00 in Berlin
EXAMPLE = (files("policies") / "examples" / "university.yaml").read_text(encoding="utf-8")
SETTINGS = Settings()
HOST = Host(id=HostId("dgx2-a"), profile=load_profile("dgx-2"), storage="dgx2-a")


def checked(text: str) -> LoadedPolicy:
    found = check_text(text, source="p.yaml", now=MONDAY_AT, settings=SETTINGS, hosts=(HOST,))
    assert found.policy is not None, found.problems
    return found.policy


def applied_plan(*hosts: Host) -> Plan:
    plan = Plan(version=1, hosts={host.id: host for host in hosts})
    intent = apply_to_plan(checked(EXAMPLE), plan, now=MONDAY_AT, settings=SETTINGS)
    return Plan(version=2, rules=intent.rules, horizon_at=intent.horizon_at, hosts=plan.hosts)


def test_a_text_with_errors_is_no_policy_and_tells_them_all() -> None:
    found = check_text("version: 1\nzne: UTC\n", source="p.yaml", now=MONDAY_AT, settings=SETTINGS)
    assert found.policy is None
    assert len(found.problems) > 3


def test_a_text_that_only_the_calendar_shows_wrong_is_no_policy_either() -> None:
    twice = EXAMPLE.replace('opens: "0 18 * * sat-sun"', 'opens: "0 21 * * *"')
    found = check_text(twice, source="p.yaml", now=MONDAY_AT, settings=SETTINGS, hosts=(HOST,))
    assert found.policy is None
    assert any("overlap" in str(problem) for problem in found.problems)


def test_the_next_version_follows_the_plans() -> None:
    first = apply_to_plan(checked(EXAMPLE), Plan(), now=MONDAY_AT, settings=SETTINGS)
    assert (first.rules.version, first.hosts, first.windows) == (1, frozenset(), ())
    plan = applied_plan(HOST)
    second = apply_to_plan(checked(EXAMPLE), plan, now=MONDAY_AT, settings=SETTINGS)
    assert (second.rules.version, second.hosts, second.text) == (2, frozenset({HOST.id}), EXAMPLE)
    assert second.horizon_at == MONDAY_AT + SETTINGS.horizon_s


def test_a_host_comes_with_its_windows_up_to_the_plans_horizon() -> None:
    plan = applied_plan(HOST)
    intent = add_to_plan(
        HostId("dgx2-b"),
        profile="dgx-2",
        storage="b",
        plan=plan,
        applied_text=EXAMPLE,
        now=MONDAY_AT + DAY_S,
        settings=SETTINGS,
    )
    assert (intent.policy_version, intent.horizon_at) == (1, plan.horizon_at)
    assert intent.windows
    assert {window.hosts for window in intent.windows} == {frozenset({HostId("dgx2-b")})}
    assert all(window.decide_at >= MONDAY_AT + DAY_S for window in intent.windows)
    assert plan.horizon_at - 2 * DAY_S < intent.windows[-1].start_at < plan.horizon_at


def test_a_window_that_should_have_been_decided_is_left_out() -> None:
    # 19:30 on a Monday: the window of 20:00 was decided at 18:45.
    now = MONDAY_AT + 11 * HOUR_S + HOUR_S // 2
    intent = add_to_plan(
        HostId("dgx2-b"), profile="dgx-2", storage="b", plan=applied_plan(HOST), applied_text=EXAMPLE, now=now,
        settings=SETTINGS,
    )  # fmt: skip
    assert intent.windows[0].id.startswith("night@2026-03-03T20:00")


def test_before_a_policy_a_host_has_no_windows() -> None:
    intent = add_to_plan(
        HostId("x"), profile="dgx-2", storage="x", plan=Plan(), applied_text=None, now=MONDAY_AT, settings=SETTINGS
    )
    assert (intent.windows, intent.policy_version, intent.horizon_at) == ((), 0, 0)


def test_a_host_that_no_window_names_comes_without_any() -> None:
    intent = add_to_plan(
        HostId("other"), profile="dgx-2", storage="x", plan=applied_plan(), applied_text=EXAMPLE, now=MONDAY_AT,
        settings=SETTINGS,
    )  # fmt: skip
    assert (intent.windows, intent.policy_version) == ((), 1)


def test_under_a_policy_that_cannot_be_read_no_host_is_added() -> None:
    with pytest.raises(AppliedPolicyUnreadable, match="apply a corrected one first"):
        add_to_plan(
            HostId("x"), profile="dgx-2", storage="x", plan=applied_plan(), applied_text="version: 99", now=MONDAY_AT,
            settings=SETTINGS,
        )  # fmt: skip
