"""The ports of the use cases: the clock, and waking whoever should look now."""

from typing import Protocol

from scheduler.core.requests import HostId
from scheduler.core.spans import Instant


class Clock(Protocol):
    """Two times. Product time may be scaled; machine time (leases, ticks, retries) never is."""

    def now(self) -> Instant:
        """Return product time, whole seconds UTC."""

    def machine_s(self) -> float:
        """Return machine time in seconds; the same clock for all processes of one installation."""

    def sleep_until(self, instant: Instant) -> None:
        """Block the caller until a product instant. Virtual clocks only move their own time."""


class Wake(Protocol):
    """Says "look now". Losing one costs a tick."""

    def plan(self) -> None:
        """Something may have to be decided."""

    def host(self, host: HostId) -> None:
        """Something may have to be done on a host."""
