"""Facts: what a host shows, and what was asked of it and by when. Written only by that host's converge.

`Observed*` is one look at a host as a driver returns it. `*Fact` is what is remembered of looks and asks.
Holds values only; how a look becomes facts is in `witness`, what to do about them in `diff`.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from uuid import NAMESPACE_URL, UUID, uuid5

from scheduler.core.requests import DiskId, HostId, ReservationId
from scheduler.core.spans import Instant
from scheduler.core.topology import PartitionId

_DOMAINS = uuid5(NAMESPACE_URL, "nightshift:domain")


@lru_cache(maxsize=1 << 14)
def domain_uuid(reservation: ReservationId, generation: int) -> UUID:
    """Return the UUID of one start of a reservation's VM: a late actor can only ever address its own start."""
    return uuid5(_DOMAINS, f"{reservation}/{generation}")


class DomainState(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    SHUTTING_DOWN = "shutting_down"
    OFF = "off"
    UNKNOWN = "unknown"


class OffReason(StrEnum):
    """Why a domain is off, as the hypervisor tells it."""

    SHUTDOWN = "shutdown"
    """The guest powered itself off, asked or not."""
    DESTROYED = "destroyed"
    CRASHED = "crashed"
    FAILED = "failed"
    """It never came up."""
    UNKNOWN = "unknown"
    """Also what a host shows after it was rebooted."""


class CheckResult(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    UNVERIFIED = "unverified"
    """Cannot be told from where the worker runs; shown, never counted as passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCheck:
    """One check of a device's hand-over: what was checked, how it came out, who says so."""

    name: str
    """`bound`, `group_free`, `config_readable`, `reset_done`; `ids_match` where the profile names ids."""
    result: CheckResult
    source: str
    detail: str = ""
    held_by: UUID | None = None
    """The domain whose hold on another device is all that fails the check: it passes once that one lets go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedDomain:
    uuid: UUID
    name: str
    state: DomainState
    off_reason: OffReason | None
    """Set exactly when the state is off."""
    is_busy: bool
    """An operation on it has not ended yet: whoever began it, wait for its observed end."""
    reservation: ReservationId | None
    generation: int | None
    """From the domain's metadata; None for a domain that Nightshift did not make."""
    devices: frozenset[str]
    """PCI addresses in its definition."""
    is_guest_up: bool | None
    """The guest answers; None when that cannot be told (agent silent)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedDevice:
    address: str
    held_by: UUID | None
    checks: tuple[DeviceCheck, ...]

    @property
    def failed(self) -> tuple[DeviceCheck, ...]:
        return tuple(check for check in self.checks if check.result is CheckResult.FAILED)

    def result_of(self, name: str) -> CheckResult:
        """Return how a check came out; a check that was not made is unverified."""
        return next((check.result for check in self.checks if check.name == name), CheckResult.UNVERIFIED)

    @property
    def group_held_by(self) -> UUID | None:
        """The domain that has another device of its IOMMU group, where that alone keeps it from being free."""
        return next((check.held_by for check in self.failed if check.name == "group_free"), None)

    @property
    def mistaken_for(self) -> str:
        """What was found here instead of what the profile says; empty when they agree, or nobody compared."""
        return next((check.detail or "another device" for check in self.failed if check.name == "ids_match"), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedDisk:
    id: str
    """A disk id of ours, or the name of a volume that Nightshift did not make."""
    size_gib: int
    is_ready: bool
    """False while a copy is under way, or after one that was cut off."""
    is_busy: bool
    held_by: UUID | None


class TroubleKind(StrEnum):
    WRONG = "wrong"
    UNVERIFIED = "unverified"
    """Cannot be told from where the worker runs; shown, never counted as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTrouble:
    """Something about a host itself that keeps its VMs from being given their GPUs, or may."""

    code: str
    """`host.no_iommu`: says which; never changes its meaning."""
    kind: TroubleKind
    problem: str
    """What was seen, in one line; the same words at every look that sees the same."""
    mend: str
    """What to do, in one line."""


UNREACHABLE = "host.unreachable"
"""The code of the trouble that a host does not answer; only where its driver knows what to do about that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreachable:
    """What a failure to look came to."""

    problem: str
    mend: str = ""
    """What to do, in one line; empty where nobody can say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedHost:
    """One look at a host."""

    host: HostId
    boot_id: str
    domains: tuple[ObservedDomain, ...]
    devices: tuple[ObservedDevice, ...]
    disks: tuple[ObservedDisk, ...]
    are_disks_known: bool = True
    """False: the pool could not be read, and a disk that is not shown is not gone."""
    troubles: tuple[HostTrouble, ...] = ()


class VmEnd(StrEnum):
    """How one start of a VM ended."""

    STOPPED = "stopped"
    """It shut down after it was asked to."""
    DESTROYED = "destroyed"
    """It ignored its grace and was destroyed by the ladder."""
    SELF_SHUTDOWN = "self_shutdown"
    CRASHED = "crashed"
    GPU_LOST = "gpu_lost"
    """It went down with a GPU of its own that cannot be read any more: a fault of the host, not of the guest."""
    HOST_REBOOT = "host_reboot"
    VANISHED = "vanished"
    START_FAILED = "start_failed"
    UNKNOWN = "unknown"


class Verb(StrEnum):
    """What can be asked of a host; the closed list of driver verbs that change something."""

    CREATE_DISK = "create_disk"
    DELETE_DISK = "delete_disk"
    PREPARE = "prepare"
    START = "start"
    SHUTDOWN = "shutdown"
    DESTROY = "destroy"
    REMOVE = "remove"
    RESET = "reset"
    REBIND = "rebind"
    WARN = "warn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked and by when it should be done; written before asking."""

    verb: Verb
    subject: str
    """A domain's UUID, a device's address or a disk's id."""
    asked_at: Instant
    until_at: Instant
    attempt: int = 1
    detail: str = ""
    """What the driver answered to the last attempt, empty when it has not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VmFact:
    """One start of a reservation's VM, from the asking to its end."""

    reservation: ReservationId
    generation: int
    partition: PartitionId
    asked_at: Instant
    up_at: Instant | None = None
    """When the domain was first seen running."""
    running_at: Instant | None = None
    """When the guest was first seen up; with a silent agent, `up_at` once the boot bound has passed."""
    is_agent_silent: bool = False
    stop_asked_at: Instant | None = None
    off_at: Instant | None = None
    end: VmEnd | None = None
    problem: str = ""
    is_gone: bool = False
    """Its domain is not defined on the host any more."""

    @property
    def uuid(self) -> UUID:
        return domain_uuid(self.reservation, self.generation)


class GpuState(StrEnum):
    CLEAN = "clean"
    DIRTY = "dirty"
    """A VM had it, and no reset has been seen since."""
    QUARANTINED = "quarantined"
    FOREIGN = "foreign"
    """Held by a domain that Nightshift did not make."""
    UNCLEAR = "unclear"
    """Of a start of ours whose state is not understood, or not what the profile says; until that is so again."""


OUT_OF_PLAN = frozenset({GpuState.QUARANTINED, GpuState.FOREIGN, GpuState.UNCLEAR})


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFact:
    gpu: int
    state: GpuState
    since_at: Instant
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFact:
    disk: DiskId
    size_gib: int
    made_at: Instant
    deleted_at: Instant | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignDomain:
    """A domain that Nightshift did not make: reported, never touched."""

    uuid: UUID
    name: str
    gpus: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """Everything that is remembered of one host."""

    host: HostId
    boot_id: str | None = None
    seen_at: Instant | None = None
    unreachable_since_at: Instant | None = None
    problem: str = ""
    vms: tuple[VmFact, ...] = ()
    gpus: tuple[GpuFact, ...] = ()
    """Only GPUs that are not clean, or were not once; a GPU without a fact is clean."""
    disks: tuple[DiskFact, ...] = ()
    asked: tuple[Asked, ...] = ()
    foreign: tuple[ForeignDomain, ...] = ()
    troubles: tuple[HostTrouble, ...] = ()
    """Of the latest look that was answered, sorted by code and problem; and why the last one was not."""

    @property
    def gpus_out_of_plan(self) -> frozenset[int]:
        """GPUs that no booking may count on: quarantined, in foreign hands, or of a start that is not understood.

        A switch or an adapter that is dead is among them by a GPU that stands in for it (`witness_shared`).
        """
        return frozenset(g.gpu for g in self.gpus if g.state in OUT_OF_PLAN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """How long something took, for estimates and for faults: `start` of 16 GPUs took 171 s."""

    host: HostId
    what: str
    gpus: int
    took_s: int
    at: Instant
    extra: tuple[tuple[str, str], ...] = field(default=())
