"""The closed family of actions: one idempotent step each, as `diff` wants it and `converge` does it.

Holds values and the keys under which blocking steps are kept apart. Must not hold rules about when.
"""

from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

from scheduler.core.converging.desired import DesiredVm
from scheduler.core.plan import BookedDisk
from scheduler.core.reasons import Reason
from scheduler.core.requests import DiskId, ReservationId
from scheduler.core.spans import Instant
from scheduler.core.topology import PartitionId


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """What chains of this very process are working on."""

    gpus: frozenset[int] = frozenset()
    disks: frozenset[DiskId] = frozenset()
    vms: frozenset[UUID] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class AskShutdown:
    """Ask a guest to shut down; `until_at` is the end of its grace."""

    reservation: ReservationId
    uuid: UUID
    until_at: Instant
    attempt: int
    """1: the ACPI button; 2: half-way through the grace, through the agent."""
    is_again: bool = False
    """The same attempt once more: the first was refused, or its asker was killed."""
    is_paused: bool = False
    """It cannot answer as it is; unless somebody lets it go on, its grace is all that it has."""

    @property
    def through_agent(self) -> bool:
        return self.attempt > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyVm:
    """Cut a VM's power after its grace; its disk is kept. Blocking."""

    reservation: ReservationId
    uuid: UUID
    gpus: frozenset[int]
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveVm:
    """Clear away what a start left: its routing, then its definition. The disk stays."""

    reservation: ReservationId
    uuid: UUID
    partition: PartitionId | None
    """Whose routing to take down; None while somebody else runs on some of its GPUs."""
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineGpu:
    """Take a GPU out of the plan. Touches nothing on the host."""

    gpu: int
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetGpu:
    """Ask for a reset of a free GPU, or of a switch or adapter that was handed out with GPUs; `rebind` it first."""

    gpu: int | None
    """None for a switch or an adapter."""
    address: str
    attempt: int
    rebind: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StartVm:
    """Pin the span to a new generation and start it. Blocking."""

    vm: DesiredVm
    is_disk_used: bool = False
    """A guest has run from its disk: one that is not there now must not be replaced by an empty one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarnGuest:
    """Tell who is logged in that the end comes."""

    reservation: ReservationId
    uuid: UUID
    end_at: Instant
    owner: str
    is_again: bool = False
    """The asker of the first was killed; nobody is told twice by mail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteDisk:
    """Wipe and delete a disk whose retention is over. Blocking."""

    disk: BookedDisk
    attempt: int


Action: TypeAlias = AskShutdown | DestroyVm | RemoveVm | QuarantineGpu | ResetGpu | StartVm | WarnGuest | DeleteDisk


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Why something waits or was left alone."""

    reservation: ReservationId | None
    why: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """What to do now, in order (ends before starts), and why the rest waits."""

    actions: tuple[Action, ...] = ()
    findings: tuple[Finding, ...] = ()
