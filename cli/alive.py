"""Whether a part of Nightshift on this machine gives signs of life, for health checks: `python -m cli.alive ticker`.

Asks the database for the heartbeats of that part; in a container, this machine is the container. Ends with 0 when one
is fresh, and says how old it is. What is wrong with Nightshift as a whole, `nightshift doctor` tells.
"""

import socket
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from cli.output import EXIT_NO, EXIT_USAGE, complain, fail
from scheduler.core.errors import NightshiftError

if TYPE_CHECKING:
    from scheduler.store.heartbeats import Heartbeat

KINDS = ("api", "ticker", "worker")
FRESH_FOR_S = 60.0
"""A heartbeat is written every few seconds; a database that is busy for a moment is no illness."""


def names_here(kind: str, machine: str) -> str:
    """Return what the names of a machine's processes of a kind begin with, unless a supervisor names them."""
    return f"{kind}-{machine}-"


def youngest_age_s(heartbeats: "Iterable[Heartbeat]", kind: str, *, machine: str, now_machine_s: float) -> float | None:
    """Return how old a machine's newest heartbeat of a kind is; None when there is none."""
    ages = (
        now_machine_s - heartbeat.machine_s
        for heartbeat in heartbeats
        if heartbeat.kind == kind and heartbeat.name.startswith(names_here(kind, machine))
    )
    return min(ages, default=None)


def check(arguments: Sequence[str]) -> int:
    """Say whether a part of this machine is alive, and return the exit code."""
    if len(arguments) != 1 or arguments[0] not in KINDS:
        complain(f"name what to look for, one of {', '.join(KINDS)}: python -m cli.alive {KINDS[-1]}")
        return EXIT_USAGE
    (kind,) = arguments
    try:
        heartbeats = _heartbeats()
    except NightshiftError as error:
        return fail(error)
    machine = socket.gethostname()
    age_s = youngest_age_s(heartbeats, kind, machine=machine, now_machine_s=time.time())
    if age_s is None:
        complain(f"no {kind} of {machine} ever said that it works")
        return EXIT_NO
    if age_s > FRESH_FOR_S:
        complain(f"{kind} of {machine}: the last sign of life is {age_s:.0f} s old")
        return EXIT_NO
    print(f"{kind} of {machine}: a sign of life {max(age_s, 0.0):.0f} s ago")
    return 0


def _heartbeats() -> "tuple[Heartbeat, ...]":
    from cli.installation import Installation
    from scheduler.profiles.loading import load_profile
    from scheduler.store.store import Store

    with closing(Store.open(Installation.found().database_url, profiles=load_profile)) as store:
        return store.heartbeats()


if __name__ == "__main__":
    sys.exit(check(sys.argv[1:]))
