"""What people were told in a history: promises, notices, ends, and bookings as they stood; collected, never judged.

The auditor holds this against what really happened on the racks. Knows nothing of why anything was decided.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from scheduler.core.plan import BookedSpan, Outcome, PlanChange, Reservation
from scheduler.core.reasons import ReasonCode
from scheduler.core.requests import AtBoundary, DiskId, HostId, Promise, ReservationId
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile
from scheduler.core.windows import Layout, Window, WindowId, WindowState
from workers.drivers.simulated.log import LogLine

RAISED = "promise.raised"
EXTENDED = "reservation.extended"


@dataclass(slots=True, kw_only=True)
class Told:
    """One reservation as its owner knows it; lists are in order of time."""

    id: ReservationId
    owner: str
    queue: str
    gpus: int
    not_before_at: Instant | None
    at_boundary: AtBoundary
    promises: list[tuple[Instant, Promise]]
    """Each promise that it ever had, and since when; the first is what was told at admission."""
    hours: list[tuple[Instant, int]]
    """Running time asked for, and since when: an extension adds to it."""
    raised: list[tuple[Instant, Promise]] = field(default_factory=list)
    """Notices that the promise does not hold, and what holds instead."""
    extended: list[tuple[Instant, Instant]] = field(default_factory=list)
    """When it was extended, and the end that was promised with it."""
    bookings: list[tuple[Instant, tuple[BookedSpan, ...]]] = field(default_factory=list)
    """Where it was booked, and since when."""
    disks: list[tuple[Instant, DiskId]] = field(default_factory=list)
    ended_at: Instant | None = None
    outcome: Outcome | None = None
    reasons: frozenset[ReasonCode] = frozenset()
    kept_until_at: Instant | None = None
    """Until when its disk is kept, as promised at its end."""

    @property
    def run_s(self) -> int:
        return self.hours[-1][1]

    @property
    def was_given_up(self) -> bool:
        """Whether its owner ended it."""
        return self.outcome in (Outcome.CANCELLED, Outcome.STOPPED)

    def spans_at(self, at: Instant) -> tuple[BookedSpan, ...]:
        """Return where it was booked by what was decided up to an instant."""
        found: tuple[BookedSpan, ...] = ()
        for since_at, spans in self.bookings:
            if since_at <= at:
                found = spans
        return found


@dataclass(slots=True, kw_only=True)
class Ledger:
    """Everything that was told in a history."""

    told: dict[ReservationId, Told] = field(default_factory=dict)
    windows: dict[WindowId, Window] = field(default_factory=dict)
    """Decided windows, as they were last decided."""
    outside: list[tuple[Instant, Layout]] = field(default_factory=list)
    """The layout outside of windows, and since when."""
    retention_s: int = 0

    def note(self, change: PlanChange, at: Instant) -> None:
        """Take down one commit of the plan."""
        if change.rules is not None:
            self.outside.append((at, change.rules.outside))
            self.retention_s = change.rules.retention_s
        for window in change.windows:
            if window.state is not WindowState.PLANNED:
                self.windows[window.id] = window
        for reservation in change.reservations:
            if reservation.promise is not None:
                self._note_reservation(reservation, reservation.promise, at)
        for event in change.events:
            told = self.told.get(event.reservation) if event.reservation is not None else None
            facts = dict(event.facts)
            if told is not None and event.kind == RAISED and event.is_notice:
                start_by_at, end_by_at = facts["start_by_at"], facts["end_by_at"]
                assert isinstance(start_by_at, int)
                assert isinstance(end_by_at, int)
                told.raised.append((at, Promise(start_by_at=start_by_at, end_by_at=end_by_at)))
            elif told is not None and event.kind == EXTENDED:
                end_by_at = facts["end_by_at"]
                assert isinstance(end_by_at, int)
                told.extended.append((at, end_by_at))

    def _note_reservation(self, reservation: Reservation, promise: Promise, at: Instant) -> None:
        request = reservation.request
        told = self.told.get(reservation.id)
        if told is None:
            told = self.told[reservation.id] = Told(
                id=reservation.id,
                owner=request.owner,
                queue=request.queue,
                gpus=request.gpus,
                not_before_at=request.not_before_at,
                at_boundary=request.at_boundary,
                promises=[(at, promise)],
                hours=[(at, request.run_s)],
            )
        if told.promises[-1][1] != promise:
            told.promises.append((at, promise))
        if told.hours[-1][1] != request.run_s:
            told.hours.append((at, request.run_s))
        if not told.bookings or told.bookings[-1][1] != reservation.spans:
            told.bookings.append((at, reservation.spans))
        if reservation.disk is not None and (not told.disks or told.disks[-1][1] != reservation.disk):
            told.disks.append((at, reservation.disk))
        if told.outcome is None and reservation.outcome is not None:
            told.outcome = reservation.outcome
            told.ended_at = reservation.ended_at
            told.reasons = frozenset(why.code for why in reservation.reasons)
            told.kept_until_at = at + self.retention_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwatched:
    """A stretch in which nobody looked at a host, or it did not answer."""

    host: HostId
    from_at: Instant
    until_at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What the auditor gets to see."""

    until_at: Instant
    logs: Mapping[HostId, tuple[LogLine, ...]]
    profiles: Mapping[HostId, HostProfile]
    ledger: Ledger
    unwatched: tuple[Unwatched, ...] = ()
    leaves: frozenset[tuple[HostId, Instant]] = frozenset()
    """When somebody takes a domain of theirs away by hand."""
    has_faults: bool = False
    """False: nothing was made to fail, so nothing that was promised may be taken back."""
