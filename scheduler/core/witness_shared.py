"""The devices that partitions need besides GPUs, NVSwitches and adapters: which of them are dead, and what follows.

A dead one makes every partition that needs it unusable. The plan counts GPUs, so one GPU of those partitions *stands in*
for the device: it is quarantined with a problem that names the device, and all of them leave the plan with it. As few
GPUs as possible stand in, so that partitions that do without the device stay in the plan. An admin's `mended` for that
GPU has the device checked again.
"""

from collections.abc import Callable

from scheduler.core.asked import asked_of, is_reset_ladder_over
from scheduler.core.facts import CheckResult, GpuState, HostFacts, ObservedDevice, ObservedHost, Verb
from scheduler.core.topology import HostProfile, Partition
from scheduler.core.witnessing import Witnessing


def partitions_with(profile: HostProfile, address: str) -> tuple[Partition, ...]:
    """Return the partitions whose VMs are given a device."""
    return tuple(p for p in profile.partitions if address in p.share.nvswitches or address in p.share.hcas)


def stand_ins(profile: HostProfile, address: str, rank: Callable[[int], tuple[bool, ...]]) -> tuple[int, ...]:
    """Return as few GPUs as meet every partition that needs a device; of equal ones the lowest by `rank`, then index."""
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
    quarantined = {fact.gpu for fact in facts.gpus if fact.state is GpuState.QUARANTINED}
    found: dict[int, tuple[str, ...]] = {}
    for address in sorted(shared.address for shared in (*seen.profile.nvswitches, *seen.profile.hcas)):
        what = _what_is_wrong(seen, facts, address, device_by_address.get(address))
        if not what:
            continue
        spared = _gpus_of_unconcerned_guests(seen, facts, address)
        standing = quarantined | found.keys()

        def rank(
            gpu: int, standing: set[int] = standing, spared: frozenset[int] = spared
        ) -> tuple[bool, ...]:
            return gpu not in standing, gpu in spared

        gpus = stand_ins(seen.profile, address, rank)
        if device_by_address.get(address) is not None and _is_to_be_tried_again(seen, facts, address, gpus):
            continue
        for gpu in gpus:
            found[gpu] = (*found.get(gpu, ()), problem_of(seen.profile, address, what))
    return found


def mended_asks(seen: Witnessing, facts: HostFacts) -> frozenset[str]:
    """Return the devices whose resets begin anew, since an admin said `mended` of a GPU that stood in for them."""
    gpu_addresses = {gpu.address for gpu in seen.profile.gpus}
    return frozenset(
        ask.subject
        for ask in facts.asked
        if ask.verb is Verb.RESET and ask.subject not in gpu_addresses and _mended_since(seen, ask.subject, ask.asked_at)
    )
