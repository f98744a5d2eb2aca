"""Whether a part of Nightshift has stopped working though its process lives: its heartbeat does not move on.

Pure: heartbeats and the time are handed in. The time is that of the supervisor alone, so that a machine that slept or
whose clock was set makes nobody look stalled.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

STALLED_AFTER_S = 90.0
_LONGEST_GAP_S = 30.0
"""Who did not look for so long was held up itself, perhaps with everybody else: all are counted anew."""


@dataclass(slots=True)
class StallWatch:
    """Follows the heartbeats of some instances."""

    _moved_at_s: dict[str, tuple[float, float]] = field(default_factory=dict)
    """The heartbeat seen last of an instance, and when it was seen to move."""
    _looked_at_s: float | None = None

    def stalled(
        self,
        beats: Mapping[str, float],
        alive: Mapping[str, float],
        now_s: float,
        excused: frozenset[str] = frozenset(),
    ) -> tuple[str, ...]:
        """Return the instances that gave no sign of life for too long.

        `beats` are the newest heartbeats by instance, `alive` since when each instance runs. An instance that never
        gave any is counted from its start; one that is `excused`, from now on.
        """
        self._moved_at_s = {name: kept for name, kept in self._moved_at_s.items() if name in alive}
        if self._looked_at_s is not None and now_s - self._looked_at_s > _LONGEST_GAP_S:
            self._moved_at_s = {name: (beat, now_s) for name, (beat, _) in self._moved_at_s.items()}
        self._looked_at_s = now_s
        found = []
        for name, started_at_s in sorted(alive.items()):
            beat = beats.get(name, 0.0)
            seen = self._moved_at_s.get(name)
            if name in excused or (seen is not None and seen[0] != beat):
                self._moved_at_s[name] = (beat, now_s)
            elif seen is None:
                self._moved_at_s[name] = (beat, started_at_s)
            elif now_s - seen[1] > STALLED_AFTER_S:
                found.append(name)
        return tuple(found)
