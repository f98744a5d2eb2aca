"""The clocks of an installation: machine time, and product time that `--speed` may scale.

A scaled clock is three numbers in the file `clock.json` of the data directory: a machine instant, the product instant
that belongs to it, and the speed. One process, the supervisor, keeps the file and writes it anew several times a
second; everybody else only reads it. Without that heartbeat product time stands still: a time that nobody keeps must
not pass.

What was seen is never taken back: a reader's curve ends `HOLD_S` after its anchor, and the keeper goes on from the end
of that curve, never from before it. Holds no rule about who may run at which speed.
"""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TypeAlias

from scheduler.core.errors import NightshiftError
from scheduler.core.spans import Instant

CLOCK_FILE = "clock.json"
HOLD_S = 1.0
"""How much machine time an anchor is good for; product time stands still after it."""
BEAT_S = 0.25
"""How often the keeper writes a new anchor."""
_POLL_S = 0.2
"""How long a sleeper trusts the speed that it saw."""
_CHANGE_AHEAD_S = 0.005
"""A change of speed takes effect this much later, by when everybody can read of it."""
_MOST_CHANGE_TRIES = 5

Machine: TypeAlias = Callable[[], float]
"""Returns machine time in seconds since 1970; an argument, so that tests need not wait."""


class ClockUnreadable(NightshiftError):
    """The file of the clock does not say what time it is."""

    code = "clock.unreadable"


class RealClock:
    """Product time is machine time."""

    speed = 1.0

    def now(self) -> Instant:
        return int(time.time())

    def machine_s(self) -> float:
        return time.time()

    def machine_s_at(self, instant: Instant) -> float | None:
        """Return when, in machine time, a product instant comes."""
        return float(instant)

    def sleep_until(self, instant: Instant) -> None:
        while (left_s := instant - time.time()) > 0:
            # In pieces: the machine's clock may be set meanwhile.
            time.sleep(min(left_s, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """A machine instant, the product instant that belongs to it, and how fast product time goes from there."""

    machine_s: float
    product_s: float
    speed: float

    def product_s_at(self, machine_s: float) -> float:
        """Return product time, which stands still before the anchor and `HOLD_S` after it."""
        return self.product_s + min(max(machine_s - self.machine_s, 0.0), HOLD_S) * self.speed


class ScaledClock:
    """Reads the time that a `ClockKeeper` keeps. Safe to use from several threads; never goes back in a process."""

    def __init__(
        self, path: Path, *, machine: Machine = time.time, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Raises ClockUnreadable when the file cannot be read now; later the last anchor that could be is kept."""
        self._path = os.fspath(path)
        self._machine = machine
        self._sleep = sleep
        self._lock = Lock()
        self._last: Instant = 0
        self._read: tuple[tuple[int, int, int] | None, Anchor] = None, read_anchor(path)
        """The newest anchor that was read, and the mark of the file that it was read after; put down as one."""

    def now(self) -> Instant:
        # Machine time first: whoever still goes by an old anchor then does so with a time from before the new one.
        machine_s = self._machine()
        product = int(self.anchor().product_s_at(machine_s))
        with self._lock:
            self._last = max(self._last, product)
            return self._last

    def machine_s(self) -> float:
        return self._machine()

    def anchor(self) -> Anchor:
        """Return the newest anchor that can be read. Costs a look at the file's date while it is the same."""
        before, anchor = self._read
        try:
            stat = os.stat(self._path)
        except OSError:
            return anchor
        seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if seen == before:
            return anchor
        try:
            anchor = read_anchor(Path(self._path))
        except ClockUnreadable:
            return anchor
        self._read = seen, anchor
        return anchor

    @property
    def speed(self) -> float:
        """How fast product time is meant to go; 0 after a clean end."""
        return self.anchor().speed

    @property
    def heartbeat_age_s(self) -> float:
        """How long ago the keeper wrote; past `HOLD_S` product time stands still."""
        return self._machine() - self.anchor().machine_s

    def machine_s_at(self, instant: Instant) -> float | None:
        """Return when a product instant comes if the speed stays as it is; None while time stands still."""
        machine_s, anchor = self._machine(), self.anchor()
        left_s = instant - anchor.product_s_at(machine_s)
        if left_s <= 0:
            return machine_s
        if anchor.speed == 0 or machine_s - anchor.machine_s > HOLD_S:
            return None
        return machine_s + left_s / anchor.speed

    def sleep_until(self, instant: Instant) -> None:
        while self.now() < instant:
            at = self.machine_s_at(instant)
            left_s = _POLL_S if at is None else max(at - self._machine(), 0.001)
            self._sleep(min(left_s, _POLL_S))


class ClockKeeper:
    """The one writer of a clock's file. Not for several threads."""

    def __init__(self, path: Path, *, machine: Machine = time.time) -> None:
        self._path = path
        self._machine = machine
        self._anchor: Anchor | None = None

    def open(self, speed: float, now: Instant) -> Instant:
        """Let time go on where it stood, at this speed, and return the product instant; `now` if it never went.

        After an end that was not clean it goes on from the latest that anybody can have seen. Raises ClockUnreadable
        when there is a file that does not say what time it was.
        """
        _check_speed(speed)
        product_s = float(now)
        if self._path.exists():
            before = read_anchor(self._path)
            product_s = before.product_s + HOLD_S * before.speed
        self._write(Anchor(machine_s=self._machine(), product_s=product_s, speed=speed), is_lasting=True)
        return int(product_s)

    def beat(self) -> None:
        """Write a new anchor on the same curve; call it every `BEAT_S`. Cheap to call more often."""
        machine_s, anchor = self._machine(), self._opened()
        if abs(machine_s - anchor.machine_s) < BEAT_S:
            return
        # A machine's clock that was put back does not tell how far people have seen: at most to the curve's end.
        seen_until_s = machine_s if machine_s > anchor.machine_s else anchor.machine_s + HOLD_S
        self._write(Anchor(machine_s=machine_s, product_s=anchor.product_s_at(seen_until_s), speed=anchor.speed))

    def set_speed(self, speed: float) -> None:
        """Change the speed; 0 lets product time stand still."""
        _check_speed(speed)
        before = self._opened()
        for _ in range(_MOST_CHANGE_TRIES):
            # The old curve is followed to an instant a little ahead: nobody has seen further when the new one is there.
            at_s = self._machine() + _CHANGE_AHEAD_S
            self._write(Anchor(machine_s=at_s, product_s=before.product_s_at(at_s), speed=speed), is_lasting=True)
            if self._machine() <= at_s:
                return

    def close(self) -> None:
        """Let product time stand still, until it is opened again."""
        if self._anchor is not None:
            self.set_speed(0)
            self._anchor = None

    def _opened(self) -> Anchor:
        if self._anchor is None:
            raise RuntimeError("the clock is not open")
        return self._anchor

    def _write(self, anchor: Anchor, *, is_lasting: bool = False) -> None:
        """Replace the file by rename: a reader finds the old anchor or the new one, never a part."""
        text = json.dumps({"machine_s": anchor.machine_s, "product_s": anchor.product_s, "speed": anchor.speed})
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with beside.open("w", encoding="ascii") as file:
            file.write(text)
            if is_lasting:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(self._path)
        self._anchor = anchor


InstallationClock: TypeAlias = RealClock | ScaledClock


def open_clock(data: Path) -> InstallationClock:
    """Return the clock of a data directory: the scaled one if it ever ran at another speed than 1."""
    path = data / CLOCK_FILE
    return ScaledClock(path) if path.exists() else RealClock()


def read_anchor(path: Path) -> Anchor:
    """Read the file of a clock; raises ClockUnreadable."""
    try:
        read = json.loads(path.read_text(encoding="ascii"))
        anchor = Anchor(
            machine_s=float(read["machine_s"]), product_s=float(read["product_s"]), speed=float(read["speed"])
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ClockUnreadable(
            f"{path}: does not say what time it is ({error!r}); nightshift up keeps it: start that, or move the file"
            " away to go back to the machine's time",
            path=str(path),
        ) from error
    numbers = (anchor.machine_s, anchor.product_s, anchor.speed)
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise ClockUnreadable(
            f"{path}: {numbers} is no time; move the file away to go back to the machine's time", path=str(path)
        )
    return anchor


def _check_speed(speed: float) -> None:
    if not (math.isfinite(speed) and speed >= 0):
        raise ValueError(f"speed {speed!r}: a speed is a number from 0 up")
