"""How fast product time goes: fast through quiet stretches, slow enough to be watched while anything happens.

Pure decisions, and the record of the speeds that were run at. Holds no clock: `now` and machine time are arguments.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cli.answers import Pace
from scheduler.core.spans import Instant, Span

BUSY_SPEED = 120.0
"""The most while anything is due, starting or stopping."""
FASTEST = 7_200.0
"""The most at any time: two hours of product time in a second."""
NEAR_S = 6
"""What is due within so much product time is due now."""
LANDING_S = 0.15
"""What is due next is never nearer than so much machine time at the speed chosen, so that a look comes in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is going on and what comes next."""

    now: Instant
    next_due_at: Instant | None
    """The next instant at which plan, host or a student has something to do; one that is past was not seen to yet."""
    busy_with: str
    """What is being asked, decided, started, stopped, reset or copied, in a word; empty when nothing is."""


def speed_for(outlook: Outlook, *, until_at: Instant) -> float:
    """Return how fast time may go until the next look, in whole steps; it is not to run past `until_at`."""
    if outlook.busy_with:
        return BUSY_SPEED
    next_at = until_at if outlook.next_due_at is None else min(outlook.next_due_at, until_at)
    ahead_s = next_at - NEAR_S - outlook.now
    if ahead_s <= 0:
        return BUSY_SPEED
    landing = ahead_s / LANDING_S
    return float(max(BUSY_SPEED, min(FASTEST, landing // BUSY_SPEED * BUSY_SPEED)))


@dataclass(slots=True)
class Speeds:
    """The speeds that were run at, with where in product time and how long in machine time."""

    paces: list[Pace] = field(default_factory=list)
    _machine_s: list[float] = field(default_factory=list)

    def changed(self, speed: float, *, now: Instant, machine_s: float) -> None:
        """Note that time goes at this speed from here on."""
        self.paces.append(Pace(from_at=now, speed=speed))
        self._machine_s.append(machine_s)

    def shares(self, *, until_at: Instant, until_machine_s: float) -> Iterator[tuple[str, float, int]]:
        """Yield each band of speeds that was run at: its name, seconds of machine time, seconds of product time."""
        ends_at = [*(pace.from_at for pace in self.paces[1:]), until_at]
        ends_s = [*self._machine_s[1:], until_machine_s]
        for name, least, most in _BANDS:
            spent = [
                (end_s - begin_s, end_at - pace.from_at)
                for pace, begin_s, end_at, end_s in zip(self.paces, self._machine_s, ends_at, ends_s, strict=True)
                if least < pace.speed <= most
            ]
            if spent:
                yield name, sum(machine for machine, _ in spent), sum(product for _, product in spent)

    def too_fast_s(self, changing: Sequence[Span], *, until_at: Instant) -> int:
        """Return how much product time went by faster than `BUSY_SPEED` in these spans; what two share counts twice."""
        ends_at = [*(pace.from_at for pace in self.paces[1:]), until_at]
        return sum(
            max(0, min(end_at, span.end_at) - max(pace.from_at, span.start_at))
            for pace, end_at in zip(self.paces, ends_at, strict=True)
            if pace.speed > BUSY_SPEED
            for span in changing
        )


_BANDS = (
    ("up to 120×", 0.0, BUSY_SPEED),
    ("to 1,200×", BUSY_SPEED, 1_200.0),
    (f"to {FASTEST:,.0f}×", 1_200.0, FASTEST),
)
