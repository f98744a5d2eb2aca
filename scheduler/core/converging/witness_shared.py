"""The devices that partitions need besides GPUs, NVSwitches and adapters: which of them are dead, and what follows.

A dead one makes every partition that needs it unusable. The plan counts GPUs, so one GPU of those partitions *stands
in* for the device: it is quarantined with a problem that names the device, and all of them leave the plan with it. As
few GPUs as possible stand in, so that partitions that do without the device stay in the plan. An admin's `mended` for
that GPU has the device checked again. For a device that is merely another than the profile says, they stand in too, and
are not quarantined.
"""

from collections.abc import Callable

from scheduler.core.converging.asked import asked_of, is_reset_given_up
from scheduler.core.converging.witnessing import Witnessing
from scheduler.core.facts import Asked, CheckResult, GpuState, HostFacts, ObservedDevice, ObservedHost, Verb
from scheduler.core.topology import HostProfile, Partition


def partitions_with(profile: HostProfile, address: str) -> tuple[Partition, ...]:
    """Return the partitions whose VMs are given a device."""
    return tuple(p for p in profile.partitions if address in p.share.nvswitches or address in p.share.hcas)


def stand_ins(profile: HostProfile, address: str, rank: Callable[[int], tuple[bool, ...]]) -> tuple[int, ...]:
    """Return few GPUs that meet every partition that needs a device; of equal ones the first by `rank`, then index."""
    left = partitions_with(profile, address)
    chosen: list[int] = []
    while left:
        met_by = {gpu: sum(gpu in p.gpus for p in left) for p in left for gpu in p.gpus}
        gpu = min(met_by, key=lambda gpu: (-met_by[gpu], rank(gpu), gpu))
        chosen.append(gpu)
        left = tuple(p for p in left if gpu not in p.gpus)
    return tuple(sorted(chosen))


def problem_of(profile: HostProfile, address: str, what: str) -> str:
    """Say of a GPU that it stands in for a device, and what is wrong with that one."""
    kind = "NVSwitch" if any(switch.address == address for switch in profile.nvswitches) else "adapter"
    needed_by = ", ".join(partition.id for partition in partitions_with(profile, address))
    return f"{kind} {address} {what}: this GPU keeps {needed_by}, which need it, out of the plan"


def problems_by_stand_in(seen: Witnessing, facts: HostFacts, look: ObservedHost) -> dict[int, tuple[str, ...]]:
    """Return the GPUs that stand in for dead devices, and for which; those that do already go on doing so."""
    device_by_address = {device.address: device for device in look.devices}
    return _by_stand_in(
        seen,
        facts,
        lambda address: _what_is_wrong(seen, facts, address, device_by_address.get(address)),
        standing={fact.gpu for fact in facts.gpus if fact.state is GpuState.QUARANTINED},
    )


def mistakes_by_stand_in(seen: Witnessing, facts: HostFacts, look: ObservedHost) -> dict[int, tuple[str, ...]]:
    """Return the GPUs that stand in for devices which are not what the profile says, and for which.

    For as long as that is so: nothing is wrong with a device, and nobody has to say that it is mended.
    """
    mistaken = {d.address: what_profile_says(seen.profile, d) for d in look.devices if d.mistaken_for}
    gpu_by_address = {gpu.address: gpu.index for gpu in seen.profile.gpus}
    standing = {fact.gpu for fact in facts.gpus if fact.state is GpuState.UNCLEAR}
    standing |= {gpu_by_address[address] for address in mistaken if address in gpu_by_address}
    return _by_stand_in(seen, facts, lambda address: mistaken.get(address, ""), standing=standing)


def what_profile_says(profile: HostProfile, device: ObservedDevice) -> str:
    """Say of a device that it is another than the profile says."""
    return f"is not what profile {profile.name} says: {device.mistaken_for}"


def _by_stand_in(
    seen: Witnessing, facts: HostFacts, what_of: Callable[[str], str], *, standing: set[int]
) -> dict[int, tuple[str, ...]]:
    """Return the GPUs that stand in for the devices of which there is something to say, those that do already first."""
    found: dict[int, tuple[str, ...]] = {}
    for address in _shared_addresses(seen.profile):
        what = what_of(address)
        if what:
            # Guests that do without the device go on, and so do the GPUs they have, if there is a choice.
            spared = _gpus_of_guests_without(seen, facts, address)
            for gpu in stand_ins(seen.profile, address, _preferring(frozenset(standing), spared)):
                standing.add(gpu)
                found[gpu] = (*found.get(gpu, ()), problem_of(seen.profile, address, what))
    return found


def is_to_be_reset_anew(seen: Witnessing, ask: Asked) -> bool:
    """Whether the resets of a device were given up, and an admin has said `mended` of a GPU that may need it since."""
    host = seen.plan.hosts.get(seen.facts.host)
    if host is None or not is_reset_given_up(ask, seen.now, seen.settings):
        return False
    gpus = frozenset(gpu for partition in partitions_with(seen.profile, ask.subject) for gpu in partition.gpus)
    return any(gpu in gpus and at > ask.asked_at for gpu, at in host.mended)


def _preferring(standing: frozenset[int], spared: frozenset[int]) -> Callable[[int], tuple[bool, ...]]:
    return lambda gpu: (gpu not in standing, gpu in spared)


def _shared_addresses(profile: HostProfile) -> list[str]:
    return sorted({*(switch.address for switch in profile.nvswitches), *(hca.address for hca in profile.hcas)})


def _what_is_wrong(seen: Witnessing, facts: HostFacts, address: str, device: ObservedDevice | None) -> str:
    if device is None:
        return "is not on the bus"
    if device.result_of("config_readable") is CheckResult.FAILED:
        return "cannot be read"
    ask = asked_of(facts, Verb.RESET, address)
    if ask is None or device.held_by is not None or device.result_of("reset_done") is not CheckResult.FAILED:
        return ""
    if not is_reset_given_up(ask, seen.now, seen.settings) or is_to_be_reset_anew(seen, ask):
        return ""
    return f"was not clean after {ask.attempt} resets"


def _gpus_of_guests_without(seen: Witnessing, facts: HostFacts, address: str) -> frozenset[int]:
    """Return the GPUs of the starts that do not have a device."""
    partitions = (seen.profile.partition(vm.partition) for vm in facts.vms if vm.end is None)
    return frozenset(gpu for p in partitions if address not in seen.profile.devices(p) for gpu in p.gpus)
