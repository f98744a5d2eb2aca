"""Bounds, which promises are made of, and estimates, which tell what is likely.

A bound is enforced: the stop ladder and the boot limit see to it that nothing takes longer, or it is a fault. An
estimate is the measured 95th percentile. They are never mixed: a promise that used an estimate would slip one time in
twenty.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from scheduler.core.plan import Rules
from scheduler.core.topology import HostProfile
from scheduler.core.windows import Window


def longest_grace_s(rules: Rules, windows: Iterable[Window]) -> int:
    """Return the longest grace that anybody may be given: whoever comes next may have to wait it out.

    `windows`: those that are not over; some may be decided ones of an earlier policy.
    """
    return max([rules.grace_s, rules.longest_grace_s, *(window.grace_s for window in windows)])


def stop_bound_s(profile: HostProfile, *, grace_s: int) -> int:
    """Return how long it may take until the GPUs of a VM that was asked to stop are free and reset."""
    return grace_s + profile.bounds.destroy_s + profile.bounds.reset_s


def lead_s(profile: HostProfile, *, gpus: int, grace_s: int) -> int:
    """Return how long after the start of its span a guest may take to run: the VM before it stops, then it starts.

    A span is `lead_s` plus the hours to deliver, so a start that takes its full bound still delivers them all.
    """
    return stop_bound_s(profile, grace_s=grace_s) + profile.bounds.start_s(gpus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """What starts took lately, by size in GPUs; empty sizes fall back to the bound."""

    start_p95_s: Mapping[int, int] = field(default_factory=dict)

    def likely_start_s(self, profile: HostProfile, gpus: int) -> int:
        return min(self.start_p95_s.get(gpus, profile.bounds.start_s(gpus)), profile.bounds.start_s(gpus))


def percentile(values: Iterable[int], share: float) -> int | None:
    """Return the smallest value that at least `share` (0..1) of the values do not exceed; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    rank = max(1, -(-int(share * 1000) * len(ordered) // 1000))
    return ordered[min(rank, len(ordered)) - 1]
