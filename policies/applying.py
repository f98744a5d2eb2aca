"""From the text of a policy to the intent that applies it, or to every problem in it; and hosts with their windows.

Holds how a text becomes an intent. Whether the plan takes it on is planning's: a policy that breaks a promise is
refused there, with reasons.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from policies.checks import check_policy, errors_of
from policies.format import LoadedPolicy
from policies.loading import load_policy
from policies.problems import Problem
from policies.ticker import apply_intent
from policies.windows import windows_between
from scheduler.core.errors import NightshiftError
from scheduler.core.intents import AddHost, ApplyPolicy
from scheduler.core.plan import Host, Plan
from scheduler.core.requests import HostId
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant


class AppliedPolicyUnreadable(NightshiftError):
    """The policy that is applied cannot be read by this version of the program: its windows are not known."""

    code = "policy.unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedPolicy:
    """What became of a text."""

    policy: LoadedPolicy | None
    """None: it has errors, and must not be applied."""
    problems: tuple[Problem, ...]
    """Errors and warnings, in order of place."""


def check_text(
    text: str, *, source: str, now: Instant, settings: Settings, hosts: Iterable[Host] = ()
) -> CheckedPolicy:
    """Read a policy and hold it against the calendar, and against the hosts that are there."""
    loaded = load_policy(text, source=source, settings=settings)
    if isinstance(loaded, tuple):
        return CheckedPolicy(policy=None, problems=loaded)
    problems = check_policy(loaded, from_at=now, hosts=hosts)
    return CheckedPolicy(policy=None if errors_of(problems) else loaded, problems=problems)


def apply_to_plan(
    policy: LoadedPolicy, plan: Plan, *, now: Instant, settings: Settings, message: str = "", override: str = ""
) -> ApplyPolicy:
    """Return the intent that makes a checked policy the next version of a plan's."""
    version = 1 if plan.rules is None else plan.rules.version + 1
    return apply_intent(
        policy,
        sorted(plan.hosts),
        now=now,
        version=version,
        settings=settings,
        message=message,
        override=override,
    )


def add_to_plan(
    host: HostId,
    *,
    profile: str,
    storage: str,
    connect: str = "",
    plan: Plan,
    applied_text: str | None,
    now: Instant,
    settings: Settings,
) -> AddHost:
    """Return the intent that adds a host, with its windows under the applied policy (`applied_text`) if there is one.

    Raises AppliedPolicyUnreadable: a host without its windows would be promised to tenants at night.
    """
    if plan.rules is None or applied_text is None:
        return AddHost(host=host, profile=profile, storage=storage, connect=connect)
    loaded = load_policy(applied_text, source=plan.rules.source or "policy", settings=settings)
    if isinstance(loaded, tuple):
        raise AppliedPolicyUnreadable(
            f"policy version {plan.rules.version} cannot be read any more ({loaded[0]}); apply a corrected one first",
            version=plan.rules.version,
        )
    version = plan.rules.version
    windows = windows_between(loaded, [host], from_at=now, until_at=plan.horizon_at, version=version)
    return AddHost(
        host=host,
        profile=profile,
        storage=storage,
        connect=connect,
        # Those that should have been decided already are left out: their guests could not be warned in time.
        windows=tuple(window for window in windows if window.decide_at >= now),
        policy_version=version,
        horizon_at=plan.horizon_at,
    )
