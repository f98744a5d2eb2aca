"""Shares: how much each owner has used lately, read from the record, for queues that are ordered by fair share.

What was used counts half after a half-life. Nothing is kept beside the record. Safe to use from several threads.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from threading import Lock

from scheduler.core.plan import Event
from scheduler.core.requests import ReservationId
from scheduler.core.spans import DAY_S, Instant
from scheduler.store.store import Store

READ_AT_ONCE = 2_000
MOST_REMEMBERED = 100_000
"""The use of older reservations is counted as far as it was when they were forgotten."""
PROMISED, RUNNING = "reservation.promised", "vm.running"
OFF = ("vm.off", "vm.vanished")
KEPT_S = 180 * DAY_S
"""Use that is so old counts for nothing."""
REMEMBERED_S = 60
"""An answer is given again for so long: a queue asks for the same owners many times."""


@dataclass(frozen=True, slots=True)
class _Use:
    """GPUs that an owner had for a time."""

    end_at: Instant
    gpu_s: int


@dataclass(slots=True)
class SharesCache:
    """What the record says, as far as this process has read it."""

    store: Store
    _uses: dict[str, deque[_Use]] = field(default_factory=dict)
    _asked: dict[ReservationId, tuple[str, int]] = field(default_factory=dict)
    """Whose a reservation is, and its GPUs."""
    _running: dict[ReservationId, Instant] = field(default_factory=dict)
    _seen_seq: int = 0
    _answers: dict[tuple[str, int], tuple[Instant, float]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def used_gpu_s(self, owner: str, half_life_s: int, now: Instant) -> float:
        """Return the GPU-seconds that an owner has used, older ones counting less."""
        with self._lock:
            known = self._answers.get((owner, half_life_s))
            if known is not None and known[0] <= now < known[0] + REMEMBERED_S:
                return known[1]
            self._read(now)
            used = 0.0
            for use in self._uses.get(owner, ()):
                used += use.gpu_s * math.exp2(-(now - use.end_at) / half_life_s)
            for reservation, since_at in self._running.items():
                its_owner, gpus = self._asked.get(reservation, ("", 0))
                if its_owner == owner:
                    used += gpus * max(0, now - since_at)
            self._answers[owner, half_life_s] = now, used
            return used

    def _read(self, now: Instant) -> None:
        while True:
            found = self.store.events(self._seen_seq, READ_AT_ONCE, kinds=(PROMISED, RUNNING, *OFF))
            for seq, event in found:
                self._seen_seq = seq
                self._learn(event, now)
            if len(found) < READ_AT_ONCE:
                return

    def _learn(self, event: Event, now: Instant) -> None:
        reservation = event.reservation
        if reservation is None:
            return
        if event.kind == PROMISED:
            facts = dict(event.facts)
            owner, gpus = facts.get("owner"), facts.get("gpus")
            if isinstance(owner, str) and isinstance(gpus, int):
                self._asked[reservation] = owner, gpus
                if len(self._asked) > MOST_REMEMBERED:
                    del self._asked[next(iter(self._asked))]
            return
        if event.kind == RUNNING:
            self._running.setdefault(reservation, event.at)
            return
        since_at = self._running.pop(reservation, None)
        asked = self._asked.get(reservation)
        if since_at is None or asked is None:
            return
        uses = self._uses.setdefault(asked[0], deque())
        uses.append(_Use(event.at, asked[1] * max(0, event.at - since_at)))
        while uses and uses[0].end_at < now - KEPT_S:
            uses.popleft()
