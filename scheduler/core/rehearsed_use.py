"""What owners have used in a rehearsal, as the record would tell it, for shares and for limits of a week. Pure."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from scheduler.core.plan import Reservation
from scheduler.core.spans import DAY_S, Instant, Span
from scheduler.core.use import EndedUse, counted_gpu_s, start_of


@dataclass(slots=True)
class _Faded:
    """What the first so many uses count for at an instant."""

    counted: int = 0
    at: Instant = 0
    gpu_s: float = 0.0

    def fade(self, at: Instant, half_life_s: int) -> None:
        self.gpu_s *= math.exp2(-(at - self.at) / half_life_s)
        self.at = at


@dataclass(slots=True)
class RehearsedUse:
    """What was used so far. Told in order of time."""

    _uses: dict[str, list[tuple[Instant, int]]] = field(default_factory=dict)
    """By owner: when a guest went off, and the GPU-seconds that it had."""
    _running: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By owner: the GPUs that run, and the sum of since when each does."""
    _faded: dict[tuple[str, int], _Faded] = field(default_factory=dict)
    _ended: dict[int, list[tuple[Instant, EndedUse]]] = field(default_factory=dict)
    """By the day of their start."""

    def runs(self, owner: str, gpus: int, at: Instant) -> None:
        running, since = self._running.get(owner, (0, 0))
        self._running[owner] = running + gpus, since + gpus * at

    def is_off(self, owner: str, gpus: int, *, since_at: Instant, at: Instant) -> None:
        running, since = self._running[owner]
        self._running[owner] = running - gpus, since - gpus * since_at
        self._uses.setdefault(owner, []).append((at, gpus * (at - since_at)))

    def used_gpu_s(self, owner: str, half_life_s: int, now: Instant) -> float:
        """Return the GPU-seconds that an owner has used, older ones counting less."""
        faded = self._faded.setdefault((owner, half_life_s), _Faded())
        uses = self._uses.get(owner, [])
        for at, gpu_s in uses[faded.counted :]:
            faded.fade(at, half_life_s)
            faded.gpu_s += gpu_s
        faded.counted = len(uses)
        faded.fade(now, half_life_s)
        running, since = self._running.get(owner, (0, 0))
        return faded.gpu_s + running * now - since

    def is_closed(self, reservation: Reservation, now: Instant) -> None:
        """Take note of a reservation that leaves the plan."""
        start_at = start_of(reservation, now)
        if start_at is not None:
            use = EndedUse(
                reservation=reservation.id, owner=reservation.request.owner, gpu_s=counted_gpu_s(reservation)
            )
            self._ended.setdefault(start_at // DAY_S, []).append((start_at, use))

    def ended_uses(self, week: Span) -> Iterator[EndedUse]:
        """Yield what those held that started in a week and are not in the plan any more."""
        for day in range(week.start_at // DAY_S, week.end_at // DAY_S + 1):
            for start_at, use in self._ended.get(day, ()):
                if week.covers(start_at):
                    yield use
