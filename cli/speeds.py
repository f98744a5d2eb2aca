"""At which speed the time of a data directory may go, and the clock's keeper where that is not the machine's.

Product time never goes back, and time that was scaled is ahead of the machine's; so a directory stays with what it
began with.
"""

import math
import time
from collections.abc import Collection

from cli.installation import Installation, open_parts
from scheduler.core.errors import NightshiftError
from scheduler.core.requests import HostId
from scheduler.service.clock import ClockKeeper
from scheduler.store.failures import SchemaTooOld

MOST_SPEED = 86_400.0
"""A day in a second."""


class WrongSpeed(NightshiftError):
    """This data directory's time cannot go at this speed."""

    code = "up.wrong_speed"


def check_speed(speed: float) -> None:
    """Raise WrongSpeed for what is no speed."""
    if not (math.isfinite(speed) and 0 < speed <= MOST_SPEED):
        raise WrongSpeed(f"--speed {speed:g}: a speed is a number above 0 and up to {MOST_SPEED:g}")


def check_real_hosts(speed: float, real: Collection[HostId]) -> None:
    """Raise WrongSpeed where time is scaled and there are real hosts: their guests live in the machine's time."""
    if real and speed != 1:
        names = ", ".join(sorted(real))
        raise WrongSpeed(
            f"--speed {speed:g}: {names} {'is a real host' if len(real) == 1 else 'are real hosts'}, whose guests live"
            " in the machine's time; start it without --speed"
        )


def open_keeper(installation: Installation, speed: float) -> ClockKeeper | None:
    """Return the keeper of a clock that may go at this speed, and stands still for now; None for the machine's time.

    Raises WrongSpeed.
    """
    data = installation.data
    if installation.clock_file.exists():
        if speed == 1:
            raise WrongSpeed(
                f"the time of {data} was scaled and is not the machine's; start it with --speed and another number"
                " than 1, or a new directory with --data"
            )
    elif speed == 1:
        return None
    elif _has_history(installation):
        raise WrongSpeed(
            f"{data} runs in real time, which cannot be scaled afterwards; start it without --speed, or a new"
            " directory with --data"
        )
    keeper = ClockKeeper(installation.clock_file)
    keeper.open(0, int(time.time()))
    return keeper


def _has_history(installation: Installation) -> bool:
    parts = open_parts(installation, is_waking=False)
    try:
        return parts.store.plan_version() > 0
    except SchemaTooOld:
        return False
    finally:
        parts.close()
