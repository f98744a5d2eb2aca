"""What a policy file says, as values that were checked; the layer between the file and core's values.

Holds the values, and `rules`, which needs nothing but them. Windows and reservations become core's values for a stretch
of time, in `windows` and `filings`.
"""

from dataclasses import dataclass

from policies.cron import Cron
from policies.problems import Place
from scheduler.core.plan import Limits, Queue, Rules
from scheduler.core.requests import AtBoundary
from scheduler.core.spans import MINUTE_S
from scheduler.core.windows import Layout

HAND_OVER_BOUND_S = 10 * MINUTE_S
"""What destroying a guest and resetting its GPUs may take after its grace; no kind of host has larger bounds. With it,
a window that says nothing is decided its longest warning, its grace and this before it starts: 75 min by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowEntry:
    """An entry of `windows`: when which hosts have another layout, and what their guests are told and may choose."""

    name: str
    layout: Layout
    opens: Cron
    for_s: int
    """Wall-clock length: 12 h from 20:00 is 08:00, whatever the clocks do that night."""
    hosts: tuple[str, ...]
    """Globs over host names, with `*` and `?`."""
    at_boundary: frozenset[AtBoundary]
    warnings_s: tuple[int, ...]
    grace_s: int
    decide_lead_s: int
    only_if_queued: bool
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class ReserveEntry:
    """An entry of `reserve`: reservations that the policy itself asks for."""

    name: str
    cron: Cron
    run_s: int
    gpus: int
    count: int
    queue: str
    owner: str
    image: str | None
    at_boundary: AtBoundary | None
    disk_gib: int | None
    ahead_s: int
    """How long before its start it is filed."""
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPolicy:
    """A policy file without errors."""

    source: str
    """The file's name, as it is in every `file:line`."""
    text: str
    zone: str
    outside: Layout
    layouts: tuple[Layout, ...]
    queues: tuple[Queue, ...]
    images: tuple[str, ...]
    default_disk_gib: int
    retention_s: int
    grace_s: int
    min_useful_s: int
    warnings_s: tuple[int, ...]
    limits: Limits
    windows: tuple[WindowEntry, ...]
    reserve: tuple[ReserveEntry, ...]

    def rules(self, version: int) -> Rules:
        """Return what holds at all times, as core's value for this version of the policy."""
        return Rules(
            version=version,
            zone=self.zone,
            outside=self.outside,
            queues=self.queues,
            images=self.images,
            default_disk_gib=self.default_disk_gib,
            retention_s=self.retention_s,
            grace_s=self.grace_s,
            longest_grace_s=max([self.grace_s, *(window.grace_s for window in self.windows)]),
            min_useful_s=self.min_useful_s,
            warnings_s=self.warnings_s,
            limits=self.limits,
            source=self.source,
        )
