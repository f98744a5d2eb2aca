"""The plan: promises, bookings, the state of windows, disks and hosts, at one version.

A plan is a value. A decision reads one and returns a `PlanChange`; the store commits the change against the version it
was made from; `apply` turns the old value into the new one, so a process that keeps the plan in memory does not reload.
Holds no decisions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from scheduler.core.layered import changed
from scheduler.core.reasons import Reason
from scheduler.core.requests import AtBoundary, DiskId, HostId, Promise, Request, ReservationId
from scheduler.core.rules import NO_SLACK, ClockHours, Group, LimitScope, QueueOrder, Slack, Unused
from scheduler.core.spans import Instant, Span
from scheduler.core.topology import HostProfile, PartitionId
from scheduler.core.windows import Layout, Window, WindowId


class Outcome(StrEnum):
    """How a reservation ended."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedSpan:
    """One span of a booking: these GPUs of this host for `[start_at, end_at)`, hand-over and start included."""

    start_at: Instant
    end_at: Instant
    host: HostId
    partition: PartitionId
    generation: int | None = None
    """The number of the latest start on it; None until converge pins it. A pinned span is never moved."""

    @property
    def is_pinned(self) -> bool:
        return self.generation is not None

    @property
    def span(self) -> Span:
        return Span(start_at=self.start_at, end_at=self.end_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedDisk:
    """Room in a disk pool, from the first start to the end of retention."""

    id: DiskId
    reservation: ReservationId
    """Who has it now; changes when a later reservation continues an earlier one."""
    owner: str
    size_gib: int
    storage: str
    """The label of the storage that holds it: only hosts with this label reach it."""
    is_scratch: bool
    """Counts against the part of the pool set aside for whole-host batch work."""
    from_at: Instant
    until_at: Instant
    """The end of its retention; never moves earlier once the disk may exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """The record that follows a request to its end."""

    request: Request
    promise: Promise | None
    spans: tuple[BookedSpan, ...] = ()
    """The booking, in order of time; spans in the past stay as they were."""
    generation: int = 0
    """The last generation handed out."""
    restart_after: int = 0
    """The owner asked to start again what shut itself down, up to this generation."""
    disk: DiskId | None = None
    outcome: Outcome | None = None
    ended_at: Instant | None = None
    is_closed: bool = False
    """Nothing of it is left on any host: it needs no more looking after."""
    promise_notice: int = 0
    """How many times a fault or an override raised the promise; each time was told."""
    reasons: tuple[Reason, ...] = ()

    @property
    def id(self) -> ReservationId:
        return self.request.id

    def span_at(self, now: Instant) -> BookedSpan | None:
        """Return the span that covers an instant, if any."""
        for span in self.spans:
            if span.start_at <= now < span.end_at:
                return span
        return None

    def goes_on_after(self, now: Instant) -> bool:
        """Whether any of its booked time is still to come."""
        for span in self.spans:  # noqa: SIM110 -- asked at every step, and half the time of a generator
            if span.end_at > now:
                return True
        return False

    def span_of(self, generation: int) -> BookedSpan | None:
        """Return the span that is pinned to a generation, if any."""
        for span in self.spans:
            if span.generation == generation:
                return span
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host as the plan knows it."""

    id: HostId
    profile: HostProfile
    storage: str
    connect: str = ""
    """The libvirt URI at which it is reached; empty for a simulated rack."""
    is_drained: bool = False
    mended: tuple[tuple[int, Instant], ...] = ()
    """GPUs that an admin said were mended, and when: converge checks them and takes them back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """`interactive` (tenants), `hpc` (whole-host batch), or more by policy."""

    name: str
    at_boundary: AtBoundary = AtBoundary.PARK
    """What its requests do at a boundary unless they say otherwise."""
    is_scratch: bool = False
    """Its disks come from the scratch part of the pool."""
    default_disk_gib: int | None = None
    order: QueueOrder | None = None
    """None: short ones first, and who has waited long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one person, or of a group together; None: no limit."""

    open_reservations: int | None = None
    gpus_at_once: int | None = None
    """Most GPUs booked for one owner at one instant."""
    longest_run_s: int | None = None
    gpu_h_per_week: int | None = None
    """GPU-hours that start in one week, Monday to Sunday by the policy's zone."""
    furthest_ahead_s: int | None = None
    """How far ahead of its start a reservation may be made."""
    far_ahead_gpu_h: int | None = None
    """GPU-hours held at one time that start on a later day than today; use on the same day is free."""
    waiting: int | None = None
    """Requests that have not started yet."""
    disk_gib: int | None = None
    """The largest disk of one reservation."""
    sizes: frozenset[int] | None = None
    """GPUs of one VM that may be asked for; None: all."""
    queues: frozenset[str] | None = None
    images: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRule:
    """Limits that hold for somebody, perhaps at some hours or on some dates only."""

    scope: LimitScope
    name: str = ""
    """Of the group or the user; empty for each owner."""
    limits: Limits
    hours: tuple[ClockHours, ...] = ()
    """Empty: at all hours."""
    span: Span | None = None
    """A dated override: within it, it takes the place of what else is said about the same people."""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the applied policy says, as core values; `policies` parses the file into this."""

    version: int
    zone: str
    outside: Layout
    """The layout that holds outside of windows."""
    queues: tuple[Queue, ...]
    images: tuple[str, ...]
    default_disk_gib: int
    retention_s: int
    grace_s: int
    min_useful_s: int
    warnings_s: tuple[int, ...]
    """How long before the end of a reservation its guest is warned, longest first."""
    limits: Limits = Limits()
    """For each owner, at all times."""
    limit_rules: tuple[LimitRule, ...] = ()
    """What is said besides: of groups and users, by hours, by date."""
    zone_shifts: tuple[tuple[Instant, int], ...] = ()
    """From when on the zone's clock is how many seconds ahead of UTC, where limits go by it; empty is UTC."""
    groups: tuple[Group, ...] = ()
    unused: Unused | None = None
    slack: Slack = NO_SLACK
    longest_grace_s: int = 0
    """The longest grace of any of its windows, also of those past the horizon: leads never grow under one policy."""
    source: str = ""

    def queue(self, name: str) -> Queue | None:
        for queue in self.queues:
            if queue.name == name:
                return queue
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyNote:
    """What is kept with a policy version besides its text and its rules."""

    message: str = ""
    """Why it was applied, in the words of whoever did."""
    override: str = ""
    """Why an admin let it break promises; empty: it may break none."""
    made_with: tuple[tuple[str, str], ...] = ()
    """The versions of the data that its windows were made with, by name: `holidays`, `tzdata`."""


NO_NOTE = PolicyNote()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the append-only record: audit, event stream and outbox of notices in one."""

    kind: str
    """`vm.started`, `promise.raised`, …"""
    at: Instant
    reservation: ReservationId | None = None
    host: HostId | None = None
    actor: str = ""
    facts: tuple[tuple[str, str | int | None], ...] = ()
    is_notice: bool = False
    """Somebody is to be told."""
    key: str | None = None
    """At most one event with this key is ever written."""


def event(
    kind: str,
    at: Instant,
    *,
    reservation: ReservationId | None = None,
    host: HostId | None = None,
    actor: str = "",
    is_notice: bool = False,
    **facts: str | int | None,
) -> Event:
    """Make an event from keyword facts."""
    return Event(
        kind=kind,
        at=at,
        reservation=reservation,
        host=host,
        actor=actor,
        is_notice=is_notice,
        facts=tuple(sorted(facts.items())),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What became of an intent: accepted when there are no reasons."""

    seq: int
    reservation: ReservationId | None = None
    reasons: tuple[Reason, ...] = ()

    @property
    def is_accepted(self) -> bool:
        return not self.reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan at one version. Closed reservations and past windows are not in it."""

    version: int = 0
    rules: Rules | None = None
    """None until a first policy is applied; nothing can be reserved before."""
    horizon_at: Instant = 0
    """Windows are known up to here; nothing is booked past it."""
    hosts: Mapping[HostId, Host] = field(default_factory=dict)
    windows: Mapping[WindowId, Window] = field(default_factory=dict)
    reservations: Mapping[ReservationId, Reservation] = field(default_factory=dict)
    disks: Mapping[DiskId, BookedDisk] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanChange:
    """What one commit writes: whole new rows, never columns. Empty tuples mean nothing of that kind changes."""

    reservations: tuple[Reservation, ...] = ()
    windows: tuple[Window, ...] = ()
    dropped_windows: tuple[WindowId, ...] = ()
    """Windows still `planned` that a new policy version does not have."""
    hosts: tuple[Host, ...] = ()
    disks: tuple[BookedDisk, ...] = ()
    dropped_disks: tuple[DiskId, ...] = ()
    """Room given back: the disk never came to be, or its retention is over and it is gone."""
    rules: Rules | None = None
    policy_text: str | None = None
    policy_note: PolicyNote | None = None
    horizon_at: Instant | None = None
    decided: tuple[Decided, ...] = ()
    events: tuple[Event, ...] = ()

    @property
    def is_empty(self) -> bool:
        return self == _NO_CHANGE


_NO_CHANGE = PlanChange()


def apply(plan: Plan, change: PlanChange) -> Plan:
    """Return the plan after a commit of `change`, one version on. Costs what is changed."""
    return Plan(
        version=plan.version + 1,
        rules=plan.rules if change.rules is None else change.rules,
        horizon_at=plan.horizon_at if change.horizon_at is None else change.horizon_at,
        hosts=changed(plan.hosts, {host.id: host for host in change.hosts}),
        windows=changed(plan.windows, {window.id: window for window in change.windows}, change.dropped_windows),
        reservations=changed(
            plan.reservations,
            {r.id: r for r in change.reservations if not r.is_closed},
            [r.id for r in change.reservations if r.is_closed],
        ),
        disks=changed(plan.disks, {disk.id: disk for disk in change.disks}, change.dropped_disks),
    )


def pinned(reservation: Reservation, at: Instant) -> Reservation:
    """Return the reservation with the span at an instant pinned to the next generation. What converge commits."""
    generation = reservation.generation + 1
    spans = tuple(
        replace(span, generation=generation) if span.start_at <= at < span.end_at else span
        for span in reservation.spans
    )
    return replace(reservation, spans=spans, generation=generation)
