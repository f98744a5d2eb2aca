"""Values for the tests of witness, desired and diff: a plan, facts and looks, made from as few words as possible."""

from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID

from scheduler.core.converging.actions import Diff, InFlight
from scheduler.core.converging.desired import desired_host
from scheduler.core.converging.diff import diff
from scheduler.core.converging.witness import witness
from scheduler.core.converging.witnessing import Witnessed
from scheduler.core.facts import (
    Asked,
    CheckResult,
    DeviceCheck,
    DomainState,
    HostFacts,
    ObservedDevice,
    ObservedDisk,
    ObservedDomain,
    ObservedHost,
    OffReason,
    Unreachable,
    Verb,
    VmFact,
    domain_uuid,
)
from scheduler.core.plan import BookedDisk, BookedSpan, Host, Plan, Reservation, Rules
from scheduler.core.requests import AtBoundary, DiskId, HostId, Request, ReservationId
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, HOUR_S, Instant
from scheduler.core.topology import PartitionId
from scheduler.core.windows import Layout
from scheduler.profiles.loading import load_profile

T: Instant = 1_772_478_000
HOST = HostId("dgx2-a")
PROFILE = load_profile("dgx-2")
SETTINGS = Settings()
R1, R2 = ReservationId("r-1"), ReservationId("r-2")
RULES = Rules(
    version=1,
    zone="UTC",
    outside=Layout(name="day", sizes=frozenset({1, 2, 4, 8, 16}), queues=frozenset({"interactive"})),
    queues=(),
    images=("ubuntu",),
    default_disk_gib=100,
    retention_s=7 * DAY_S,
    grace_s=300,
    min_useful_s=1800,
    warnings_s=(1800, 600),
)
FACTS = HostFacts(host=HOST, boot_id="boot-1", seen_at=T)


def span(
    start_s: int = 0,
    end_s: int = 4 * HOUR_S,
    *,
    partition: str = "2g0-1",
    generation: int | None = None,
    host: str = HOST,
) -> BookedSpan:
    return BookedSpan(
        start_at=T + start_s,
        end_at=T + end_s,
        host=HostId(host),
        partition=PartitionId(partition),
        generation=generation,
    )


def reservation(id_: ReservationId = R1, *spans: BookedSpan, **fields: object) -> Reservation:
    spans = spans or (span(),)
    gpus = PROFILE.partition(spans[0].partition).size
    request = Request(
        id=id_,
        owner="ada",
        queue="interactive",
        gpus=gpus,
        run_s=HOUR_S,
        submitted_at=T,
        not_before_at=None,
        start_by_at=None,
        at_boundary=AtBoundary.PARK,
        image="ubuntu",
        disk_gib=100,
    )
    pins = [s.generation for s in spans if s.generation is not None]
    made = Reservation(
        request=request, promise=None, spans=spans, generation=max(pins, default=0), disk=DiskId(f"d-{id_}")
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def plan(*reservations: Reservation) -> Plan:
    disks = {
        r.disk: BookedDisk(
            id=r.disk,
            reservation=r.id,
            owner="ada",
            size_gib=100,
            storage="local",
            is_scratch=False,
            from_at=T,
            until_at=T + DAY_S,
        )
        for r in reservations
        if r.disk is not None
    }
    return Plan(
        version=1,
        rules=RULES,
        hosts={HOST: Host(id=HOST, profile=PROFILE, storage="local")},
        reservations={r.id: r for r in reservations},
        disks=disks,
    )


def vm(
    id_: ReservationId = R1, generation: int = 1, *, partition: str = "2g0-1", is_running: bool = True, **fields: object
) -> VmFact:
    made = VmFact(
        reservation=id_,
        generation=generation,
        partition=PartitionId(partition),
        asked_at=T,
        up_at=T + 30 if is_running else None,
        running_at=T + 60 if is_running else None,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def domain(
    id_: ReservationId = R1,
    generation: int = 1,
    *,
    partition: str = "2g0-1",
    state: DomainState = DomainState.RUNNING,
    off_reason: OffReason | None = None,
    **fields: object,
) -> ObservedDomain:
    made = ObservedDomain(
        uuid=domain_uuid(id_, generation),
        name=f"{id_}-{partition}",
        state=state,
        off_reason=off_reason,
        is_busy=False,
        reservation=id_,
        generation=generation,
        devices=frozenset(PROFILE.devices(PROFILE.partition(PartitionId(partition)))),
        is_guest_up=state is DomainState.RUNNING,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def off(reason: OffReason, id_: ReservationId = R1, generation: int = 1) -> ObservedDomain:
    return domain(id_, generation, state=DomainState.OFF, off_reason=reason)


def foreign(*gpus: int) -> ObservedDomain:
    return ObservedDomain(
        uuid=UUID(int=7),
        name="bench",
        state=DomainState.RUNNING,
        off_reason=None,
        is_busy=False,
        reservation=None,
        generation=None,
        devices=frozenset(PROFILE.gpu(gpu).address for gpu in gpus),
        is_guest_up=True,
    )


def look(
    *domains: ObservedDomain,
    boot_id: str = "boot-1",
    reset: CheckResult = CheckResult.PASSED,
    unreadable: Iterable[int] = (),
    missing: Iterable[int] = (),
    disks: tuple[ObservedDisk, ...] = (),
    dead: Iterable[str] = (),
    gone: Iterable[str] = (),
    unclean: Iterable[str] = (),
) -> ObservedHost:
    """Look at a host whose devices are all well but for those named: GPUs by index, any by address."""
    broken = {*(PROFILE.gpu(gpu).address for gpu in unreadable), *dead}
    absent = {*(PROFILE.gpu(gpu).address for gpu in missing), *gone}
    unreset = frozenset(unclean)
    holder = {address: d.uuid for d in domains if d.state is not DomainState.OFF for address in d.devices}
    addresses = sorted({address for p in PROFILE.partitions for address in PROFILE.devices(p)} - absent)

    def check(name: str, result: CheckResult) -> DeviceCheck:
        return DeviceCheck(name=name, result=result, source="test")

    devices = tuple(
        ObservedDevice(
            address=address,
            held_by=holder.get(address),
            checks=(
                check("config_readable", CheckResult.FAILED if address in broken else CheckResult.PASSED),
                check("reset_done", CheckResult.FAILED if address in holder or address in unreset else reset),
            ),
        )
        for address in addresses
    )
    return ObservedHost(host=HOST, boot_id=boot_id, domains=domains, devices=devices, disks=disks)


def failing(shown: ObservedHost, address: str, name: str, detail: str, held_by: UUID | None = None) -> ObservedHost:
    """Return a look in which one more check of a device has failed."""
    check = DeviceCheck(name=name, result=CheckResult.FAILED, source="test", detail=detail, held_by=held_by)
    devices = tuple(replace(d, checks=(*d.checks, check)) if d.address == address else d for d in shown.devices)
    return replace(shown, devices=devices)


def neighbour_held(shown: ObservedHost, address: str, by: UUID) -> ObservedHost:
    """Return a look in which a domain has another device of the IOMMU group of this one."""
    return failing(shown, address, "group_free", f"0000:f0:00.1 of its IOMMU group is held by domain {by}", by)


def mistaken(shown: ObservedHost, *addresses: str) -> ObservedHost:
    """Return a look in which other devices are at these addresses than the profile says."""
    for address in addresses:
        shown = failing(shown, address, "ids_match", "it is 10de:20b0, the profile says 10de:1db8")
    return shown


def asked(verb: Verb, subject: object, *, at_s: int = 0, until_s: int, attempt: int = 1, detail: str = "ok") -> Asked:
    return Asked(
        verb=verb, subject=str(subject), asked_at=T + at_s, until_at=T + until_s, attempt=attempt, detail=detail
    )


def facts(*vms: VmFact, **fields: object) -> HostFacts:
    return replace(FACTS, vms=vms, **fields)  # type: ignore[arg-type]


def see(
    before: HostFacts,
    shown: ObservedHost | Unreachable | str,
    of: Plan,
    at_s: int = 0,
    in_flight: InFlight | None = None,
) -> Witnessed:
    look = Unreachable(problem=shown) if isinstance(shown, str) else shown
    return witness(before, look, of, T + at_s, profile=PROFILE, settings=SETTINGS, in_flight=in_flight)


def compare(
    known: HostFacts,
    shown: ObservedHost,
    of: Plan,
    at_s: int = 0,
    in_flight: InFlight = InFlight(),
) -> Diff:
    desired = desired_host(of, HOST, T + at_s, known, SETTINGS)
    return diff(desired, shown, known, T + at_s, in_flight=in_flight, profile=PROFILE, settings=SETTINGS)
