"""What people keep of the answers that they get, and how fast time went meanwhile: all that an auditor is told.

Values only. Holds no HTTP: whoever asks fills these in, from answers and from nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from scheduler.core.requests import ReservationId
from scheduler.core.spans import Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A promise as one answer had it."""

    seen_at: Instant
    """When the answer was read; of a promise that was put off, when its notice was written."""
    start_by_at: Instant
    end_by_at: Instant
    why: str = ""
    """What fault or override put it off, as the answer says; empty when it names none."""

    def is_put_off_by(self, after: "Told") -> bool:
        """Whether a later answer promises less."""
        return after.start_by_at > self.start_by_at or after.end_by_at > self.end_by_at


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswers:
    """What one person keeps of the answers about one reservation."""

    reservation: ReservationId
    owner: str
    gpus: int
    run_s: int
    submitted_at: Instant
    told: tuple[Told, ...]
    """The promise, and each other one that a later answer had; oldest first. Empty when nothing was promised."""
    not_before_at: Instant | None = None
    let_go_at: Instant | None = None
    """From here its owner wants nothing more of it: stopped, cancelled, or shut down from inside."""
    ended_at: Instant | None = None
    kept_until_at: Instant | None = None
    """Until when its disk is kept, as the last answer has it."""
    by_policy: str | None = None
    """The policy's entry that asked for it; None when a person did."""

    @property
    def is_told(self) -> bool:
        """Whether any answer named a fault that put its promise off, or left nothing to promise."""
        return any(told.why for told in self.told)

    @property
    def is_given_up(self) -> bool:
        """Whether an answer named a fault and promised nothing new: no place is left, and nothing can be promised."""
        return any(after.why and not before.is_put_off_by(after) for before, after in pairwise(self.told))

    def start_by_at(self, up_at: Instant | None) -> Instant:
        """Return the best start that was promised before the guest was up, and not put off with a word since."""
        best = self.told[0]
        for told in self.told:
            if up_at is not None and told.seen_at > up_at:
                break
            if told.start_by_at <= best.start_by_at or (told.why and best.is_put_off_by(told)):
                best = told
        return best.start_by_at

    def end_by_at(self) -> Instant:
        """Return the best end that was promised, and not put off with a word since."""
        best = self.told[0]
        for told in self.told:
            if told.end_by_at <= best.end_by_at or (told.why and best.is_put_off_by(told)):
                best = told
        return best.end_by_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """From this instant of product time on, so many seconds of it passed in one of machine time."""

    from_at: Instant
    speed: float


def machine_s(paces: Sequence[Pace], from_at: Instant, until_at: Instant) -> float:
    """Return how much machine time passed in `[from_at, until_at)`, by the speeds that were run at; oldest first."""
    if not paces:
        return float(max(0, until_at - from_at))
    spent_s = 0.0
    for number, pace in enumerate(paces):
        begin = from_at if number == 0 else max(from_at, pace.from_at)
        end = min(until_at, paces[number + 1].from_at) if number + 1 < len(paces) else until_at
        if end > begin and pace.speed > 0:
            spent_s += (end - begin) / pace.speed
    return spent_s
