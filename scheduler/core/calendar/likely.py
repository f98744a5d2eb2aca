"""Likely: an honest estimate of when a request will start, from how long others waited of what they were told.

People ask for more than they use, so most start well before what they are promised. Of the latest starts of the same
size and of a like wait told, the middle ratio of waited to told is what a new one may expect. No promise rests on it.
"""

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field

from scheduler.core.spans import HOUR_S

LATEST = 64
"""So many of the latest starts of a kind count."""
FEWEST = 5
"""With fewer of a kind those of all kinds count."""
_ALL = (0, 0)


@dataclass(slots=True)
class _Ratios:
    latest: deque[float] = field(default_factory=deque)
    ordered: list[float] = field(default_factory=list)

    def add(self, ratio: float) -> None:
        if len(self.latest) == LATEST:
            gone = self.latest.popleft()
            del self.ordered[bisect_left(self.ordered, gone)]
        self.latest.append(ratio)
        insort(self.ordered, ratio)

    @property
    def middle(self) -> float:
        return self.ordered[len(self.ordered) // 2]


@dataclass(slots=True)
class Likely:
    """What starts told so far. Costs nothing that grows with their number."""

    _by_kind: dict[tuple[int, int], _Ratios] = field(default_factory=dict)

    def wait_s(self, gpus: int, told_s: int) -> int:
        """Return the wait that is likely for one of a size that is told a wait; never longer than that."""
        if told_s <= 0:
            return 0
        for kind in (_kind(gpus, told_s), _ALL):
            ratios = self._by_kind.get(kind)
            if ratios is not None and len(ratios.ordered) >= FEWEST:
                return min(told_s, round(told_s * ratios.middle))
        return told_s

    def learn(self, gpus: int, told_s: int, waited_s: int) -> None:
        """Take note of a start."""
        if told_s <= 0:
            return
        ratio = min(1.0, waited_s / told_s)
        for kind in (_kind(gpus, told_s), _ALL):
            self._by_kind.setdefault(kind, _Ratios()).add(ratio)


def _kind(gpus: int, told_s: int) -> tuple[int, int]:
    return gpus.bit_length(), (4 * told_s // HOUR_S).bit_length()
