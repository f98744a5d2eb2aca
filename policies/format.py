"""What a policy file says, as values that were checked; the layer between the file and core's values.

Holds the values, and `rules`, which needs nothing but them. Windows and reservations become core's values for a stretch
of time, in `windows` and `filings`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from policies.holiday_days import HolidayDays
from policies.problems import Place, Problem
from policies.times import EntryTimes
from policies.zone_shifts import shifts_of
from scheduler.core.plan import LimitRule, Limits, Queue, Rules
from scheduler.core.planner.limit_book import go_by_clock
from scheduler.core.requests import AtBoundary
from scheduler.core.rules import NO_SLACK, Group, Slack, Unused
from scheduler.core.spans import MINUTE_S
from scheduler.core.windows import Layout

HAND_OVER_BOUND_S = 10 * MINUTE_S
"""What destroying a guest and resetting its GPUs may take after its grace; no kind of host has larger bounds. With it,
a window that says nothing is decided its longest warning, its grace and this before it starts: 75 min by default."""
MAINTENANCE = Layout(name="maintenance", sizes=frozenset(), queues=frozenset())
"""The layout in which nothing runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowEntry:
    """An entry of `windows` or `maintenance`: when which hosts have another layout, what their guests are told and may
    choose."""

    name: str
    layout: Layout
    opens: EntryTimes
    for_s: int
    """Wall-clock length: 12 h from 20:00 is 08:00, whatever the clocks do that night."""
    hosts: tuple[str, ...]
    """Globs over host names, with `*` and `?`."""
    at_boundary: frozenset[AtBoundary]
    warnings_s: tuple[int, ...]
    grace_s: int
    decide_lead_s: int
    only_if_queued: bool
    is_maintenance: bool = False
    """It has its hosts whatever other windows say: those are cut to what it leaves of them."""
    place: Place

    @property
    def what(self) -> str:
        """How messages name it: `window night`."""
        return f"{'maintenance' if self.is_maintenance else 'window'} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReserveEntry:
    """An entry of `reserve`: reservations that the policy itself asks for."""

    name: str
    starts: EntryTimes
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
    """The name of its file or directory."""
    text: str
    """Of all its files (`bundle`)."""
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
    limit_rules: tuple[LimitRule, ...] = ()
    groups: tuple[Group, ...] = ()
    unused: Unused | None = None
    slack: Slack = NO_SLACK
    holidays: HolidayDays
    windows: tuple[WindowEntry, ...]
    """Maintenance first, then the others, in the order of the file."""
    reserve: tuple[ReserveEntry, ...]
    place_by_part: Mapping[str, Place]
    """Where layouts, queues, groups, limits and overrides stand, for messages: `layout night`, `limits of user ada`."""
    notes: tuple[Problem, ...] = ()
    """Warnings that need no calendar: above all, what is accepted and not enforced yet."""

    def place_of(self, part: str) -> Place:
        """Return where a part stands; the beginning if it stands nowhere."""
        return self.place_by_part.get(part, Place(file=self.source, line=1, column=1))

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
            limit_rules=self.limit_rules,
            zone_shifts=shifts_of(self.zone) if go_by_clock(self.limits, self.limit_rules) else (),
            groups=self.groups,
            unused=self.unused,
            slack=self.slack,
            source=self.source,
        )
