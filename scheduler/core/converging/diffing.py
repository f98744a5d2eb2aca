"""The workspace of one diff: what is compared, the lookups both sides need, and the findings so far."""

from dataclasses import dataclass, field

from scheduler.core.converging.actions import Finding, InFlight
from scheduler.core.converging.desired import DesiredHost, DesiredVm, EndedVm
from scheduler.core.facts import DomainState, GpuState, HostFacts, ObservedDomain, ObservedHost, VmFact
from scheduler.core.reasons import ReasonCode, reason
from scheduler.core.requests import ReservationId
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile


@dataclass(slots=True, kw_only=True)
class Diffing:
    """Not kept beyond one diff."""

    desired: DesiredHost
    look: ObservedHost
    facts: HostFacts
    now: Instant
    in_flight: InFlight
    profile: HostProfile
    settings: Settings
    findings: list[Finding] = field(default_factory=list)

    def domain(self, vm: VmFact) -> ObservedDomain | None:
        return next((domain for domain in self.look.domains if domain.uuid == vm.uuid), None)

    def ended(self, vm: VmFact) -> EndedVm | None:
        """Return what the plan says of a start whose time is over; None when it is not, or not known to be."""
        return next(
            (e for e in self.desired.ended if (e.reservation, e.generation) == (vm.reservation, vm.generation)), None
        )

    def is_wanted(self, vm: VmFact) -> bool:
        return any((w.id, w.generation) == (vm.reservation, vm.generation) for w in self.desired.vms)

    def current(self, wanted: DesiredVm) -> VmFact | None:
        """Return the start that a wanted VM is at, if it was started."""
        return next(
            (vm for vm in self.facts.vms if (vm.reservation, vm.generation) == (wanted.id, wanted.generation)), None
        )

    def gpus_of(self, vm: VmFact) -> frozenset[int]:
        return self.profile.partition(vm.partition).gpus

    def is_quarantined(self, gpu: int) -> bool:
        return any(fact.gpu == gpu and fact.state is GpuState.QUARANTINED for fact in self.facts.gpus)

    def are_mended_since(self, gpus: frozenset[int], since_at: Instant) -> bool:
        """Whether an admin said of one of these GPUs, which were quarantined, that it is mended."""
        return any(
            fact.gpu in gpus and fact.state is GpuState.DIRTY and fact.since_at > since_at for fact in self.facts.gpus
        )

    def gpus_in_use_by_others(self, vm: VmFact) -> frozenset[int]:
        """Return the GPUs whose routing is somebody else's by now."""
        gpus = set(self.in_flight.gpus)
        for other in self.facts.vms:
            if other.end is None and other.uuid != vm.uuid:
                gpus |= self.gpus_of(other)
        for stranger in self.facts.foreign:
            gpus |= stranger.gpus
        return frozenset(gpus)

    def addresses_in_use(self) -> frozenset[str]:
        """Return the devices that may not be reset: of starts that have not ended and been cleared away."""
        addresses: set[str] = set()
        for vm in self.facts.vms:
            if not vm.is_gone:
                addresses.update(self.profile.devices(self.profile.partition(vm.partition)))
        addresses.update(self.profile.gpu(gpu).address for gpu in self.in_flight.gpus)
        for domain in self.look.domains:
            if domain.state is not DomainState.OFF or domain.is_busy:
                addresses |= domain.devices
        return frozenset(addresses)

    def profile_addresses(self) -> frozenset[str]:
        """Return every device that some partition of this host hands out."""
        return frozenset(address for p in self.profile.partitions for address in self.profile.devices(p))

    def left_alone(self, vm: VmFact, problem: str) -> None:
        why = reason(ReasonCode.UNKNOWN_STATE, subject=str(vm.uuid), host=self.facts.host, problem=problem)
        self.findings.append(Finding(reservation=vm.reservation, why=why))

    def refused(self, reservation: ReservationId | None, verb: str, subject: str, problem: str) -> None:
        why = reason(ReasonCode.DRIVER_REFUSED, host=self.facts.host, verb=verb, subject=subject, problem=problem)
        self.findings.append(Finding(reservation=reservation, why=why))

    def waits(self, wanted: DesiredVm, code: ReasonCode, **facts: str | int | None) -> None:
        why = reason(code, host=self.facts.host, partition=wanted.partition.id, **facts)
        self.findings.append(Finding(reservation=wanted.id, why=why))
