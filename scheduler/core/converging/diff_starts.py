"""What a start needs: whether this VM is to be started again at all, and whether its devices are free and clean.

| how the last start ended | what follows |
| --- | --- |
| stopped, destroyed, gpu_lost, host_reboot, vanished | start again |
| crashed | start again, a limited number of times |
| self_shutdown | start again once its owner asks; the plan ends the booking otherwise |
| start_failed | start again after a while, a limited number of times; then the plan places it elsewhere |
| unknown | leave it and say so |

Each start is a new generation. A start that could not be up before the end of its span is not begun: it could not be
stopped while it starts, and whoever comes next was promised the devices.
"""

from typing import assert_never
from uuid import UUID

from scheduler.core.converging.actions import Action, StartVm
from scheduler.core.converging.desired import DesiredVm
from scheduler.core.converging.diffing import Diffing
from scheduler.core.facts import CheckResult, DomainState, GpuState, VmEnd, VmFact
from scheduler.core.reasons import ReasonCode
from scheduler.core.spans import utc_text


def diff_starts(work: Diffing) -> list[Action]:
    """Return the starts that may begin now, in turn; the others' reasons go to the findings."""
    actions: list[Action] = []
    taken: set[int] = set(work.in_flight.gpus)
    for wanted in work.desired.vms:
        current = work.current(wanted)
        if current is not None and current.end is None:
            _look_after(work, wanted, current)
            continue
        if current is not None and not _may_start_again(work, wanted, current):
            continue
        if _is_held_up(work, wanted, current, taken):
            continue
        taken |= wanted.partition.gpus
        actions.append(StartVm(vm=wanted, is_disk_used=_is_disk_used(work, wanted)))
    return actions


def _is_disk_used(work: Diffing, wanted: DesiredVm) -> bool:
    """Whether a guest has run from the disk, as far as this host tells: of this reservation, or the one before."""
    has_run = any(vm.reservation == wanted.id and vm.up_at is not None for vm in work.facts.vms)
    return has_run or wanted.reservation.request.continues is not None


def _look_after(work: Diffing, wanted: DesiredVm, vm: VmFact) -> None:
    """Say what is odd about a VM that should run and has not ended."""
    domain = work.domain(vm)
    if domain is None or vm.uuid in work.in_flight.vms:
        return
    # A hypervisor shows a domain as paused while it starts it; that is nothing odd.
    is_paused = domain.state is DomainState.PAUSED and vm.up_at is not None
    if is_paused or domain.state is DomainState.UNKNOWN:
        work.left_alone(vm, f"the domain is {domain.state.value}")
    if vm.is_agent_silent:
        work.waits(wanted, ReasonCode.AGENT_SILENT, reservation=wanted.id)


def _may_start_again(work: Diffing, wanted: DesiredVm, last: VmFact) -> bool:
    assert last.end is not None
    match last.end:
        case VmEnd.STOPPED | VmEnd.DESTROYED | VmEnd.GPU_LOST | VmEnd.HOST_REBOOT | VmEnd.VANISHED:
            return True
        case VmEnd.UNKNOWN:
            # `diff` has said so where it decided not to clear it away.
            return False
        case VmEnd.SELF_SHUTDOWN:
            if wanted.reservation.restart_after >= last.generation:
                return True
            until_at = (last.off_at or work.now) + work.settings.self_shutdown_ends_after_s
            work.waits(wanted, ReasonCode.WAITS_FOR_OWNER, until_at=until_at)
            return False
        case VmEnd.CRASHED:
            crashes = _count(work, wanted, VmEnd.CRASHED)
            if crashes <= work.settings.crash_restarts:
                return True
            work.waits(wanted, ReasonCode.CRASHED_TOO_OFTEN, times=crashes)
            return False
        case VmEnd.START_FAILED:
            return _may_try_again(work, wanted, last)
        case _:
            assert_never(last.end)


def _may_try_again(work: Diffing, wanted: DesiredVm, last: VmFact) -> bool:
    times = failed_starts(work.facts.vms, wanted)
    assert last.off_at is not None
    if times < work.settings.start_attempts and work.now >= last.off_at + work.settings.retry_after_s:
        return True
    work.waits(wanted, ReasonCode.START_FAILED, times=times, problem=last.problem)
    return False


def failed_starts(vms: tuple[VmFact, ...], wanted: DesiredVm) -> int:
    """Return how many of the last starts on this partition failed one after the other."""
    times = 0
    for vm in sorted((vm for vm in vms if vm.reservation == wanted.id), key=lambda vm: -vm.generation):
        if vm.partition != wanted.partition.id or vm.asked_at < wanted.span.start_at:
            break
        if vm.end is VmEnd.START_FAILED:
            times += 1
        elif vm.end is not VmEnd.VANISHED or vm.up_at is not None:
            break
    return times


def _count(work: Diffing, wanted: DesiredVm, end: VmEnd) -> int:
    return sum(1 for vm in work.facts.vms if vm.reservation == wanted.id and vm.end is end)


def _is_held_up(work: Diffing, wanted: DesiredVm, last: VmFact | None, taken: set[int]) -> bool:
    """Whether something stands in the way of a start; each thing is said."""
    before = len(work.findings)
    _check_time(work, wanted)
    _check_disk(work, wanted, last)
    _check_holders(work, wanted, taken)
    _check_groups(work, wanted)
    if len(work.findings) == before:
        _check_devices(work, wanted)
    return len(work.findings) > before


def _check_time(work: Diffing, wanted: DesiredVm) -> None:
    start_s = work.profile.bounds.start_s(wanted.partition.size)
    if work.now + start_s > wanted.end_at:
        problem = f"a start may take {start_s} s, and its span ends at {utc_text(wanted.end_at)}"
        work.waits(wanted, ReasonCode.WAITS_FOR_GPUS, gpus=_text(wanted.partition.gpus), problem=problem)


def _check_disk(work: Diffing, wanted: DesiredVm, last: VmFact | None) -> None:
    """Say why the disk cannot be used now. A copy is waited for once: the next start joins one that does not end."""
    gpus = _text(wanted.partition.gpus)
    if wanted.disk is None:
        work.waits(wanted, ReasonCode.WAITS_FOR_GPUS, gpus=gpus, problem="the plan has no disk for it")
        return
    disk = next((disk for disk in work.look.disks if disk.id == wanted.disk.id), None)
    if wanted.disk.id in work.in_flight.disks or (disk is not None and disk.is_busy and last is None):
        problem = f"disk {wanted.disk.id} is being worked on"
        work.waits(wanted, ReasonCode.WAITS_FOR_GPUS, gpus=gpus, problem=problem)
    elif disk is not None and disk.held_by is not None:
        holder = next((d.name for d in work.look.domains if d.uuid == disk.held_by), str(disk.held_by))
        work.waits(wanted, ReasonCode.WAITS_FOR_HAND_OVER, gpus=gpus, holder=holder)


def _check_holders(work: Diffing, wanted: DesiredVm, taken: set[int]) -> None:
    """Say which starts, domains and chains still have the devices, or the identity, of this VM."""
    partition = wanted.partition
    addresses = frozenset(work.profile.devices(partition))
    strangers = _check_strangers(work, wanted)
    holders: set[str] = set()
    for vm in work.facts.vms:
        is_left = vm.end is None or not vm.is_gone
        if is_left and (vm.reservation == wanted.id or work.gpus_of(vm) & partition.gpus):
            holders.add(_name(work, vm))
    for domain in work.look.domains:
        is_on = domain.state is not DomainState.OFF or domain.is_busy
        if domain.devices & addresses and is_on and domain.uuid not in strangers:
            holders.add(domain.name)
    name_by_uuid = {domain.uuid: domain.name for domain in work.look.domains}
    for device in work.look.devices:
        if device.address in addresses and device.held_by is not None and device.held_by not in strangers:
            holders.add(name_by_uuid.get(device.held_by, str(device.held_by)))
    if not holders and taken & partition.gpus:
        holders.add("another start or stop")
    for holder in sorted(holders):
        work.waits(wanted, ReasonCode.WAITS_FOR_HAND_OVER, gpus=_text(partition.gpus), holder=holder)


def _check_groups(work: Diffing, wanted: DesiredVm) -> None:
    """Say who has a device that shares an IOMMU group with one of this VM: both go to one VM, or to none."""
    addresses = frozenset(work.profile.devices(wanted.partition))
    name_by_uuid = {domain.uuid: domain.name for domain in work.look.domains}
    device_by_holder: dict[str, str] = {}
    for device in work.look.devices:
        holder = device.group_held_by
        if device.address in addresses and device.held_by is None and holder is not None:
            device_by_holder.setdefault(name_by_uuid.get(holder, str(holder)), device.address)
    for name, address in sorted(device_by_holder.items()):
        gpus = _text(wanted.partition.gpus)
        work.waits(wanted, ReasonCode.WAITS_FOR_GROUP, gpus=gpus, holder=name, device=address)


def _check_strangers(work: Diffing, wanted: DesiredVm) -> frozenset[UUID]:
    """Say which GPUs are in foreign hands, and return whose: nobody stops those, so it is no hand-over to wait for."""
    found = [domain for domain in work.facts.foreign if domain.gpus & wanted.partition.gpus]
    for domain in found:
        for gpu in sorted(domain.gpus & wanted.partition.gpus):
            work.waits(wanted, ReasonCode.GPU_HELD_BY_FOREIGN, gpu=gpu, domain=domain.name)
    return frozenset(domain.uuid for domain in found)


def _check_devices(work: Diffing, wanted: DesiredVm) -> None:
    fact_by_gpu = {fact.gpu: fact for fact in work.facts.gpus}
    unclean: list[str] = []
    for gpu in sorted(wanted.partition.gpus):
        fact = fact_by_gpu.get(gpu)
        if fact is None or fact.state is GpuState.CLEAN:
            continue
        match fact.state:
            case GpuState.QUARANTINED:
                work.waits(wanted, ReasonCode.GPU_QUARANTINED, gpu=gpu, since_at=fact.since_at, problem=fact.problem)
            case GpuState.FOREIGN:
                work.waits(wanted, ReasonCode.GPU_HELD_BY_FOREIGN, gpu=gpu, domain=fact.problem)
            case GpuState.UNCLEAR:
                work.waits(wanted, ReasonCode.WAITS_FOR_GPUS, gpus=str(gpu), problem=fact.problem)
            case GpuState.DIRTY:
                unclean.append(work.profile.gpu(gpu).address)
            case _:
                assert_never(fact.state)
    device_by_address = {device.address: device for device in work.look.devices}
    for address in work.profile.devices(wanted.partition):
        device = device_by_address.get(address)
        if device is None:
            problem = f"{address} is not on the bus"
            work.waits(wanted, ReasonCode.WAITS_FOR_GPUS, gpus=_text(wanted.partition.gpus), problem=problem)
        elif device.result_of("reset_done") is CheckResult.FAILED and address not in unclean:
            unclean.append(address)
    if unclean:
        problem = f"a reset is to be seen first on {', '.join(unclean)}"
        work.waits(wanted, ReasonCode.WAITS_FOR_GPUS, gpus=_text(wanted.partition.gpus), problem=problem)


def _name(work: Diffing, vm: VmFact) -> str:
    domain = work.domain(vm)
    return domain.name if domain is not None else f"{vm.reservation} (start {vm.generation})"


def _text(gpus: frozenset[int]) -> str:
    return ",".join(str(gpu) for gpu in sorted(gpus))
