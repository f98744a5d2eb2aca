"""The phase of a reservation, derived from plan and facts by one function. Nothing else says what phase it is in.

| phase     | the plan says                               | the facts say                                |
| --------- | ------------------------------------------- | -------------------------------------------- |
| waiting   | nothing booked yet, or no place left        | no VM                                        |
| promised  | booked, its first span has not come         | no VM                                        |
| starting  | a span covers now, or comes                 | a first VM was asked for, no guest yet       |
| running   | a span covers now                           | the guest is up                              |
| parking   | the span is over, another follows           | the VM is not off yet                        |
| parked    | the span is over, another follows           | the VM is off                                |
| resuming  | a later span covers now                     | a guest ran before, this one is not up       |
| stopping  | it has ended                                | the VM is not off yet                        |
| ended     | completed, or stopped by its owner          | no VM                                        |
| cancelled | cancelled                                   | no VM                                        |
| refused   | refused                                     | -                                            |
| failed    | failed                                      | no VM                                        |
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import assert_never

from scheduler.core.facts import VmFact
from scheduler.core.plan import Outcome, Reservation
from scheduler.core.spans import Instant


class Phase(StrEnum):
    WAITING = "waiting"
    PROMISED = "promised"
    STARTING = "starting"
    RUNNING = "running"
    PARKING = "parking"
    PARKED = "parked"
    RESUMING = "resuming"
    STOPPING = "stopping"
    ENDED = "ended"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    FAILED = "failed"


def phase_of(reservation: Reservation, vms: Sequence[VmFact], now: Instant) -> Phase:
    """Derive the phase; `vms` are the remembered starts of this reservation."""
    is_on = any(vm.end is None and vm.off_at is None for vm in vms)
    if reservation.outcome is not None:
        return Phase.STOPPING if is_on else _final(reservation.outcome)
    ran = any(vm.running_at is not None for vm in vms)
    is_up = any(vm.running_at is not None and vm.off_at is None for vm in vms)
    if reservation.span_at(now) is not None:
        if is_up:
            return Phase.RUNNING
        return Phase.RESUMING if ran else Phase.STARTING
    if is_on:
        return Phase.PARKING
    if ran:
        return Phase.PARKED
    return Phase.PROMISED if any(span.start_at > now for span in reservation.spans) else Phase.WAITING


def _final(outcome: Outcome) -> Phase:
    match outcome:
        case Outcome.COMPLETED | Outcome.STOPPED:
            return Phase.ENDED
        case Outcome.CANCELLED:
            return Phase.CANCELLED
        case Outcome.REFUSED:
            return Phase.REFUSED
        case Outcome.FAILED:
            return Phase.FAILED
    assert_never(outcome)
