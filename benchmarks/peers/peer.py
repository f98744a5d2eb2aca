"""What every peer gives back, and what is said where one is missing. Knows no peer."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

NOT_HERE = 3
"""The exit status where a peer, or something that it needs, is missing."""
GPUS = 16
"""Of every host."""


class NotHere(Exception):
    """A peer is missing or cannot run this; the message says what to do, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerPlan:
    """What a peer took to plan a batch, and when it would start what was asked."""

    seconds: float
    """As the peer itself or the clock around its planning says; setting up is not in it."""
    cpu_s: float
    """Of its processors, in that time: what other programs on the machine do is hardly in it."""
    planned: int
    """So many requests were looked at in that time."""
    starts: tuple[int | None, ...]
    """One for each request, in seconds from the batch's beginning; `None` where the peer gave no start."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """What else is worth a place beside the figures."""


def best(plans: Sequence[PeerPlan]) -> PeerPlan:
    """Return the fastest of several."""
    return min(plans, key=lambda plan: plan.seconds)


def cache() -> Path:
    """Return where peers are installed."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "nightshift" / "benchmarks"
