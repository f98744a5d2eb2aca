"""How GPUs and disks are judged by a look.

    CLEAN ──held or started──▶ DIRTY ──reset seen──▶ CLEAN
      any ──unreadable, or off the bus──▶ QUARANTINED ──an admin says mended──▶ DIRTY
      any ──a stranger holds it, or another of its IOMMU group──▶ FOREIGN ──it let go──▶ DIRTY
      any ──the state of its start is not understood, or it is not what the profile says──▶ UNCLEAR ──it is──▶ DIRTY

A GPU goes from one tenant to the next only over a reset that was asked after the last one had it. It is quarantined
for a fault of its own, or in place of a switch or an adapter that is dead (`witness_shared`). A profile that is wrong
about what it is says nothing about the GPU: it comes back by itself once the profile is right.
"""

from dataclasses import replace

from scheduler.core.converging.asked import asked_of, was_refused, with_gpus, without_asked
from scheduler.core.converging.witness_shared import (
    is_to_be_reset_anew,
    mistakes_by_stand_in,
    problems_by_stand_in,
    what_profile_says,
)
from scheduler.core.converging.witnessing import Witnessing
from scheduler.core.facts import (
    OUT_OF_PLAN,
    Asked,
    CheckResult,
    DiskFact,
    DomainState,
    GpuFact,
    GpuState,
    HostFacts,
    ObservedDevice,
    ObservedDisk,
    ObservedHost,
    Verb,
)
from scheduler.core.requests import DiskId
from scheduler.core.spans import Instant
from scheduler.core.topology import Gpu

RESET_UNVERIFIED = "the reset was asked, and whether it was done cannot be told from here"


def witness_gpus(seen: Witnessing, facts: HostFacts, look: ObservedHost) -> HostFacts:
    """Return the facts with every GPU as the look shows it; a look without any devices judges none."""
    if not look.devices:
        return facts
    device_by_address = {device.address: device for device in look.devices}
    holder_by_gpu = _foreign_holders(seen, facts, device_by_address)
    unclear_by_gpu = {**_mistaken(seen, facts, look, device_by_address), **_unclear(seen, facts, look)}
    stands_in = problems_by_stand_in(seen, facts, look)
    fact_by_gpu = {fact.gpu: fact for fact in facts.gpus}
    in_use = frozenset(gpu for vm in facts.vms if vm.end is None for gpu in seen.profile.partition(vm.partition).gpus)
    changed: list[GpuFact] = []
    for gpu in seen.profile.gpus:
        before = fact_by_gpu.get(gpu.index)
        device = device_by_address.get(gpu.address)
        after: GpuFact | None
        problems = (*_problems(gpu, device), *stands_in.get(gpu.index, ()))
        if problems:
            after = _quarantined(seen, gpu, before, problems)
        else:
            assert device is not None, "a GPU that is not on the bus has a problem"
            out = _out(gpu, holder_by_gpu, unclear_by_gpu)
            after = _judge(seen, facts, device, before, gpu.index, out, is_in_use=gpu.index in in_use)
        if after is not None and after != before:
            changed.append(after)
    _tell(seen, fact_by_gpu, changed)
    _measure_resets(seen, facts, changed)
    facts = with_gpus(facts, changed) if changed else facts
    return _close_resets(seen, facts, device_by_address)


def _foreign_holders(
    seen: Witnessing, facts: HostFacts, device_by_address: dict[str, ObservedDevice]
) -> dict[int, str]:
    """Return the GPUs that strangers have, themselves or by another device of their IOMMU group, and who it is."""
    name_by_stranger = {domain.uuid: domain.name for domain in facts.foreign}
    holder_by_gpu: dict[int, str] = {}
    for gpu in seen.profile.gpus:
        device = device_by_address.get(gpu.address)
        holder = None if device is None else device.group_held_by
        if holder in name_by_stranger:
            holder_by_gpu[gpu.index] = name_by_stranger[holder]
    return {**holder_by_gpu, **{gpu: domain.name for domain in facts.foreign for gpu in sorted(domain.gpus)}}


def _mistaken(
    seen: Witnessing, facts: HostFacts, look: ObservedHost, device_by_address: dict[str, ObservedDevice]
) -> dict[int, str]:
    """Return the GPUs that are not what the profile says, or stand in for a device that is not; and what is found."""
    by_gpu = {gpu: "; ".join(mistakes) for gpu, mistakes in mistakes_by_stand_in(seen, facts, look).items()}
    for gpu in seen.profile.gpus:
        device = device_by_address.get(gpu.address)
        if device is not None and device.mistaken_for:
            by_gpu[gpu.index] = f"{gpu.address} {what_profile_says(seen.profile, device)}"
    return by_gpu


def _unclear(seen: Witnessing, facts: HostFacts, look: ObservedHost) -> dict[int, str]:
    """Return the GPUs of our own starts whose state is not understood, and which start it is."""
    unknown = {domain.uuid: domain.name for domain in look.domains if domain.state is DomainState.UNKNOWN}
    return {
        gpu: f"the state of {unknown[vm.uuid]}, which has it, is not understood"
        for vm in facts.vms
        if not vm.is_gone and vm.uuid in unknown and vm.uuid not in seen.in_flight.vms
        for gpu in seen.profile.partition(vm.partition).gpus
    }


def _out(gpu: Gpu, holder_by_gpu: dict[int, str], unclear_by_gpu: dict[int, str]) -> tuple[GpuState, str] | None:
    """Return the state of a GPU that is in no hands we know of, and why."""
    if gpu.index in holder_by_gpu:
        return GpuState.FOREIGN, f"held by {holder_by_gpu[gpu.index]}"
    if gpu.index in unclear_by_gpu:
        return GpuState.UNCLEAR, unclear_by_gpu[gpu.index]
    return None


def _problems(gpu: Gpu, device: ObservedDevice | None) -> tuple[str, ...]:
    if device is None:
        return (f"{gpu.address} is not on the bus",)
    unreadable = next((check for check in device.failed if check.name == "config_readable"), None)
    if unreadable is None:
        return ()
    text = f"the config space of {gpu.address} cannot be read ({unreadable.source}): {unreadable.detail}"
    return (text.rstrip(": "),)


def _quarantined(seen: Witnessing, gpu: Gpu, before: GpuFact | None, problems: tuple[str, ...]) -> GpuFact:
    """Return the fact of a GPU that leaves the plan; of one that has left it, what has come to it since is added."""
    if before is None or before.state is not GpuState.QUARANTINED:
        return GpuFact(gpu=gpu.index, state=GpuState.QUARANTINED, since_at=seen.now, problem="; ".join(problems))
    new = [problem for problem in problems if problem not in before.problem]
    return replace(before, problem="; ".join((before.problem, *new))) if new else before


def _judge(
    seen: Witnessing,
    facts: HostFacts,
    device: ObservedDevice,
    before: GpuFact | None,
    gpu: int,
    out: tuple[GpuState, str] | None,
    *,
    is_in_use: bool,
) -> GpuFact | None:
    """Return what is to be remembered of a GPU without a problem; None: nothing, it is clean as it always was."""
    state = GpuState.CLEAN if before is None else before.state

    def become(new: GpuState, problem: str = "") -> GpuFact | None:
        return before if state is new else GpuFact(gpu=gpu, state=new, since_at=seen.now, problem=problem)

    if state is GpuState.QUARANTINED:
        assert before is not None
        return become(GpuState.DIRTY, "mended, to be checked") if _is_mended(seen, before) else before
    if out is not None:
        return become(*out)
    if state in OUT_OF_PLAN or device.held_by is not None or is_in_use:
        return become(GpuState.DIRTY)
    if state is GpuState.DIRTY:
        assert before is not None
        return _after_reset(seen, facts, device, before)
    if device.result_of("reset_done") is CheckResult.FAILED:
        return become(GpuState.DIRTY)
    return before


def _is_mended(seen: Witnessing, fact: GpuFact) -> bool:
    host = seen.plan.hosts.get(seen.facts.host)
    return host is not None and any(gpu == fact.gpu and at > fact.since_at for gpu, at in host.mended)


def _after_reset(seen: Witnessing, facts: HostFacts, device: ObservedDevice, before: GpuFact) -> GpuFact:
    """Return the fact of a free GPU that is waiting for its reset."""
    ask = asked_of(facts, Verb.RESET, device.address)
    if ask is None or was_refused(ask) or ask.asked_at < before.since_at:
        return before
    match device.result_of("reset_done"):
        case CheckResult.PASSED:
            return GpuFact(gpu=before.gpu, state=GpuState.CLEAN, since_at=seen.now)
        case CheckResult.UNVERIFIED:
            # It had the whole bound to be done in; it is used, and shown as what it is.
            if ask.detail and seen.now >= ask.until_at:
                return GpuFact(gpu=before.gpu, state=GpuState.CLEAN, since_at=seen.now, problem=RESET_UNVERIFIED)
            return before
        case CheckResult.FAILED:
            return before


def _tell(seen: Witnessing, fact_by_gpu: dict[int, GpuFact], changed: list[GpuFact]) -> None:
    """Tell what became of GPUs: each fault by itself, the rest as one event for each kind of change.

    Of a start that is not understood its owner is told by what the diff finds.
    """
    gpus_by_kind: dict[str, list[str]] = {}
    for after in changed:
        before = fact_by_gpu.get(after.gpu)
        if after.state in (GpuState.QUARANTINED, GpuState.FOREIGN):
            seen.tell(f"gpu.{after.state.value}", is_notice=True, gpu=after.gpu, problem=after.problem)
        elif before is not None and before.state is GpuState.QUARANTINED:
            seen.tell("gpu.mended", gpu=after.gpu)
        elif after.state is GpuState.CLEAN and after.problem:
            gpus_by_kind.setdefault("gpu.reset_unverified", []).append(str(after.gpu))
        else:
            gpus_by_kind.setdefault(f"gpu.{after.state.value}", []).append(str(after.gpu))
    for kind, gpus in gpus_by_kind.items():
        seen.tell(kind, gpus=",".join(gpus))


def _measure_resets(seen: Witnessing, facts: HostFacts, changed: list[GpuFact]) -> None:
    """Measure the resets that were seen done, GPUs that were asked together as one."""
    asked_at_of: list[Instant] = []
    for fact in changed:
        ask = asked_of(facts, Verb.RESET, seen.profile.gpu(fact.gpu).address)
        if fact.state is GpuState.CLEAN and not fact.problem and ask is not None:
            asked_at_of.append(ask.asked_at)
    for asked_at in sorted(set(asked_at_of)):
        seen.measure(
            "reset",
            gpus=asked_at_of.count(asked_at),
            took_s=seen.now - asked_at,
            bound_s=seen.profile.bounds.reset_s,
        )


def _close_resets(seen: Witnessing, facts: HostFacts, device_by_address: dict[str, ObservedDevice]) -> HostFacts:
    """Remove asks for resets that are done, or whose device is nobody's to reset any more."""
    gpu_by_address = {gpu.address: gpu.index for gpu in seen.profile.gpus}
    dirty = {fact.gpu for fact in facts.gpus if fact.state is GpuState.DIRTY}

    def is_done(ask: Asked) -> bool:
        device = device_by_address.get(ask.subject)
        if device is None or device.held_by is not None:
            return True
        if ask.subject in gpu_by_address:
            return gpu_by_address[ask.subject] not in dirty
        if is_to_be_reset_anew(seen, ask):
            return True
        return device.result_of("reset_done") is not CheckResult.FAILED

    done = [(a.verb, a.subject) for a in facts.asked if a.verb in (Verb.RESET, Verb.REBIND) and is_done(a)]
    return without_asked(facts, done) if done else facts


def witness_disks(seen: Witnessing, facts: HostFacts, look: ObservedHost) -> HostFacts:
    """Return the facts with every disk of ours as the look shows it; volumes of others are no concern.

    What a copy left that was cut off, or goes on for a reservation that has ended, is remembered too: it takes its room
    until it is deleted.
    """
    lasting = {DiskId(disk.id): disk for disk in look.disks if _is_lasting(seen, disk)}
    shown = {disk.id for disk in look.disks}
    fact_by_disk = {fact.disk: fact for fact in facts.disks}
    for disk_id in sorted(lasting):
        fact = fact_by_disk.get(disk_id)
        if fact is None or fact.deleted_at is not None:
            disk = lasting[disk_id]
            seen.tell("disk.made" if disk.is_ready else "disk.half_made", disk=disk_id, size_gib=disk.size_gib)
            fact_by_disk[disk_id] = DiskFact(disk=disk_id, size_gib=disk.size_gib, made_at=seen.now)
    for disk_id, fact in sorted(fact_by_disk.items()):
        if disk_id not in shown and fact.deleted_at is None:
            fact_by_disk[disk_id] = _gone(seen, facts, fact, seen.now)
    return replace(facts, disks=tuple(fact_by_disk[disk_id] for disk_id in sorted(fact_by_disk)))


def _is_lasting(seen: Witnessing, disk: ObservedDisk) -> bool:
    """Whether a volume is a disk of ours, and more than a copy under way that somebody waits for."""
    booked = seen.plan.disks.get(DiskId(disk.id))
    if booked is None:
        return False
    owner = seen.plan.reservations.get(booked.reservation)
    return disk.is_ready or not disk.is_busy or owner is None or owner.outcome is not None


def _gone(seen: Witnessing, facts: HostFacts, fact: DiskFact, now: Instant) -> DiskFact:
    if asked_of(facts, Verb.DELETE_DISK, fact.disk) is not None:
        seen.tell("disk.deleted", disk=fact.disk)
    else:
        seen.tell("disk.vanished", disk=fact.disk, is_notice=True)
    return replace(fact, deleted_at=now)
