"""Answering: wait a moment for what becomes of an intent, so that most people have their answer at once.

Who waits in vain has lost nothing: the intent is committed, and is decided by the next plan run.
"""

import time
from collections.abc import Callable

from scheduler.core.plan import Decided
from scheduler.service.submit import Desk

POLL_S = 0.02


def wait_for_decision(
    desk: Desk,
    seq: int,
    *,
    wait_machine_s: float,
    machine_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Decided | None:
    """Return what became of an intent, as soon as it is decided; None when it is not within `wait_machine_s`."""
    until_s = machine_s() + wait_machine_s
    while True:
        decided = desk.decision(seq)
        if decided is not None:
            return decided
        left_s = until_s - machine_s()
        if left_s <= 0:
            return None
        sleep(min(POLL_S, left_s))
