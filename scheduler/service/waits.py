"""Waits: how long people waited of what they were told, read from the record; and what that makes likely for the next.

The record says of each reservation what it was promised, what was thought likely, and when its guest first ran. Nothing
is kept beside it. Safe to use from several threads.
"""

from dataclasses import dataclass, field
from threading import Lock

from scheduler.core.calendar.likely import Likely
from scheduler.core.plan import Event
from scheduler.core.requests import ReservationId
from scheduler.store.store import Store

LOOKS_BACK = 20_000
"""So many of the latest events are read at first."""
READ_AT_ONCE = 2_000
MOST_REMEMBERED = 50_000
"""So many are remembered that have not run: most of them never will."""

PROMISED, RUNNING = "reservation.promised", "vm.running"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one was told at submission, beside when it ran."""

    gpus: int
    told_s: int
    """From submission to the start that was promised."""
    likely_s: int
    """From submission to the start that was thought likely."""
    waited_s: int | None
    """From submission to its first running guest; None while there was none."""


@dataclass(slots=True)
class WaitsCache:
    """What the record says, as far as this process has read it."""

    store: Store
    _likely: Likely = field(default_factory=Likely)
    _promised: dict[ReservationId, Event] = field(default_factory=dict)
    """What was told to who has not run yet."""
    _seen_seq: int | None = None
    _lock: Lock = field(default_factory=Lock)

    def likely_wait_s(self, gpus: int, told_s: int) -> int:
        """Return the wait that is likely for whoever is told one; never longer than that."""
        with self._lock:
            self._read()
            return self._likely.wait_s(gpus, told_s)

    def _read(self) -> None:
        if self._seen_seq is None:
            self._seen_seq = max(0, self.store.last_event_seq() - LOOKS_BACK)
        while True:
            found = self.store.events(self._seen_seq, READ_AT_ONCE, kinds=(PROMISED, RUNNING))
            for seq, event in found:
                self._seen_seq = seq
                self._learn(event)
            if len(found) < READ_AT_ONCE:
                return

    def _learn(self, event: Event) -> None:
        if event.reservation is None:
            return
        if event.kind == PROMISED:
            self._promised[event.reservation] = event
            if len(self._promised) > MOST_REMEMBERED:
                del self._promised[next(iter(self._promised))]
            return
        promised = self._promised.pop(event.reservation, None)
        score = None if promised is None else score_of(promised, event)
        if score is not None and score.waited_s is not None:
            self._likely.learn(score.gpus, score.told_s, score.waited_s)


def score_of(promised: Event, running: Event | None = None) -> Score | None:
    """Return what an event of a promise told, beside the first of a running guest.

    None where an earlier version wrote the event.
    """
    facts = dict(promised.facts)
    gpus, start_by_at, likely_at = facts.get("gpus"), facts.get("start_by_at"), facts.get("likely_at")
    not_before_at = facts.get("not_before_at")
    if not isinstance(gpus, int) or not isinstance(start_by_at, int) or not isinstance(likely_at, int):
        return None
    from_at = max(promised.at, not_before_at if isinstance(not_before_at, int) else 0)
    return Score(
        gpus=gpus,
        told_s=max(0, start_by_at - from_at),
        likely_s=max(0, likely_at - from_at),
        waited_s=None if running is None else max(0, running.at - from_at),
    )


def score(store: Store, reservation: ReservationId) -> Score | None:
    """Return what a reservation was told at submission, beside when it ran; None where nothing was promised."""
    found = [event for _, event in store.events(0, READ_AT_ONCE, kinds=(PROMISED, RUNNING), reservation=reservation)]
    promised = next((event for event in found if event.kind == PROMISED), None)
    running = next((event for event in found if event.kind == RUNNING), None)
    return None if promised is None else score_of(promised, running)
