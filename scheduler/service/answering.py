"""Answering: wait a moment for what becomes of an intent, so that most people have their answer at once.

Who waits in vain has lost nothing: the intent is committed, and is decided by the next plan run.
"""

import time
from collections.abc import Callable

from scheduler.core.plan import Decided
from scheduler.service.submit import Desk

POLL_S = 0.02
PATIENT_AFTER_S = 0.2
PATIENT_POLL_S = 0.1
"""Who waits longer than usual looks less often: perhaps many do, and the database has other work then."""


def wait_for_decision(
    desk: Desk,
    seq: int,
    *,
    wait_machine_s: float,
    machine_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Decided | None:
    """Return what became of an intent, as soon as it is decided; None when it is not within `wait_machine_s`."""
    began_s = machine_s()
    until_s = began_s + wait_machine_s
    while True:
        decided = desk.decision(seq)
        if decided is not None:
            return decided
        now_s = machine_s()
        if now_s >= until_s:
            return None
        poll_s = POLL_S if now_s < began_s + PATIENT_AFTER_S else PATIENT_POLL_S
        sleep(min(poll_s, until_s - now_s))
