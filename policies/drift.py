"""Drift: planned windows that the same policy would make otherwise with the data that is installed now.

Whoever updates the time zones or the library of holidays moves windows without a word. What is planned stays as it was
planned until an admin applies the policy again; this only says what would be different.
"""

from collections.abc import Iterable

from policies.format import LoadedPolicy
from policies.windows import windows_between
from scheduler.core.plan import Plan
from scheduler.core.planner.deciding import windows_for_each_host
from scheduler.core.planner.window_changes import NEAR_S, WindowChange, window_changes
from scheduler.core.spans import HOUR_S, Instant
from scheduler.core.windows import Window

SOON_S = HOUR_S
"""Windows that are decided so soon are not compared: while we look, they may be."""


def drifted_windows(policy: LoadedPolicy, plan: Plan, *, now: Instant) -> tuple[WindowChange, ...]:
    """Return what would be different of the planned windows if the applied policy's were made today."""
    assert plan.rules is not None
    version, soon_at = plan.rules.version, now + SOON_S
    planned = {
        window.id: window
        for window in plan.windows.values()
        if window.policy_version == version and not window.is_decided
    }
    others = [window for key, window in plan.windows.items() if key not in planned]
    made = windows_between(policy, plan.hosts, from_at=now, until_at=plan.horizon_at, version=version)
    return window_changes(
        [window for window in planned.values() if window.decide_at > soon_at],
        # What an earlier policy has decided has its time: nothing is filed over it.
        [w for w in windows_for_each_host(made) if w.decide_at > soon_at and not _clashes(w, others)],
        now=now,
        until_at=plan.horizon_at - NEAR_S,
    )


def _clashes(window: Window, others: Iterable[Window]) -> bool:
    return any(window.hosts & other.hosts and window.span.overlaps(other.span) for other in others)
