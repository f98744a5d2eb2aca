"""What can be wrong with a host profile, found before anyone plans on it.

Holds the checks of a `HostProfile` as pure functions that return sentences, each naming its offender. Must not hold the
values themselves (`topology`), nor how profile files are read (`scheduler.profiles.loading`).

The claim behind a profile: partitions without a GPU in common can run at once, whatever the mix, and no two tenants
then share a hardware thread, a core, an NVSwitch, an HCA or memory. Threads and devices have one owner, so for them it
is enough that every two such partitions are disjoint; memory adds up, so there the heaviest mix is looked for.
A profile that `shares_threads` makes no claim about threads and cores; all else is held to it as well.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import combinations

from scheduler.core.disjoint_sets import heaviest_disjoint
from scheduler.core.topology import (
    CoreShare,
    Fabric,
    Gpu,
    Hca,
    HostProfile,
    Nvme,
    NvSwitch,
    Partition,
    Share,
    Thread,
    mask_of,
)

KIB_PER_GIB = 1024 * 1024

PCI_ID = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")

MAX_PARTITIONS = 64
"""Fabric Manager's limit on the partitions of one host; it also keeps the planner's work per host bounded."""

MAX_GPUS = 64
"""A mask of a host's GPUs is one machine word. (Fabric Manager's own limit is 16.)"""


def check_profile(profile: HostProfile) -> tuple[str, ...]:
    """Return what is wrong with a profile, one sentence per offender; nothing if it can be planned on."""
    problems = [*_repeated(profile), *_host(profile), *_numbering(profile), *_vm(profile), *_fabric(profile)]
    for partition in profile.partitions:
        problems += _gpus(profile, partition)
        problems += _share(profile, partition)
        problems += _numa(profile, partition)
    core_by_thread = {thread.id: thread.core for thread in profile.threads}
    for one, other in combinations(profile.partitions, 2):
        if not one.gpus & other.gpus:
            if not profile.shares_threads:
                problems += _threads_taken_twice(core_by_thread, profile.host_threads, one, other)
            problems += _devices_taken_twice(one, other)
    if len(profile.partitions) > MAX_PARTITIONS:
        first_past = profile.partitions[MAX_PARTITIONS].id
        problems.append(f"{len(profile.partitions)} partitions, at most {MAX_PARTITIONS}: {first_past} is one too many")
    else:
        problems += _memory(profile)
    return tuple(problems)


def shared_cores(
    *,
    threads: Iterable[Thread],
    vcpu_threads: Sequence[int],
    emulator_threads: Sequence[int],
    host_threads: Sequence[int],
) -> tuple[CoreShare, ...]:
    """Return the cores on which vCPU threads meet threads reserved for the host or the VM's emulator, in core order."""
    reserved = {*emulator_threads, *host_threads}
    by_core: dict[int, list[int]] = {}
    for thread in threads:
        by_core.setdefault(thread.core, []).append(thread.id)
    shares = []
    for core, ids in sorted(by_core.items()):
        tenant_threads = tuple(sorted(id_ for id_ in ids if id_ in vcpu_threads))
        reserved_threads = tuple(sorted(id_ for id_ in ids if id_ in reserved))
        if tenant_threads and reserved_threads:
            reserved_for = "host" if set(reserved_threads) <= set(host_threads) else "emulator"
            share = CoreShare(
                core=core,
                tenant_threads=tenant_threads,
                reserved_threads=reserved_threads,
                reserved_for=reserved_for,
            )
            shares.append(share)
    return tuple(shares)


def heaviest_mix(partitions: Sequence[Partition], weight: Callable[[Share], int]) -> tuple[int, tuple[Partition, ...]]:
    """Return the greatest sum of `weight` over partitions without a GPU in common, and one mix that reaches it."""
    with_gpus = [partition for partition in partitions if partition.mask]
    total, places = heaviest_disjoint([(partition.mask, weight(partition.share)) for partition in with_gpus])
    mix = (with_gpus[place] for place in places)
    return total, tuple(sorted(mix, key=lambda partition: partition.mask & -partition.mask))


def _repeated(profile: HostProfile) -> Iterator[str]:
    devices: tuple[Gpu | NvSwitch | Hca | Nvme, ...] = (
        *profile.gpus,
        *profile.nvswitches,
        *profile.hcas,
        *profile.nvmes,
    )
    for kind, values in (
        ("GPU index", [gpu.index for gpu in profile.gpus]),
        ("NVSwitch index", [switch.index for switch in profile.nvswitches]),
        ("HCA index", [hca.index for hca in profile.hcas]),
        ("PCI address", [device.address for device in devices]),
        ("thread", [thread.id for thread in profile.threads]),
        ("partition id", [partition.id for partition in profile.partitions]),
        ("GPU module", [gpu.module for gpu in profile.gpus if gpu.module is not None]),
        ("fabric_id", [partition.fabric_id for partition in profile.partitions if partition.fabric_id is not None]),
    ):
        for value, times in Counter[int | str](values).items():
            if times > 1:
                yield f"{kind} {value} is listed {times} times"
    first_by_gpus: dict[frozenset[int], Partition] = {}
    for partition in profile.partitions:
        first = first_by_gpus.setdefault(partition.gpus, partition)
        if first is not partition:
            yield f"partitions {first.id} and {partition.id} are the same set of GPUs: {_listed(partition.gpus)}"


def _host(profile: HostProfile) -> Iterator[str]:
    if not profile.gpus:
        yield "the profile has no GPUs"
    if not profile.partitions:
        yield "the profile has no partitions"
    thread_by_id = {thread.id: thread for thread in profile.threads}
    for thread in profile.threads:
        sibling = thread_by_id.get(thread.sibling)
        if sibling is None or sibling.sibling != thread.id or sibling.core != thread.core:
            yield f"thread {thread.id} and its sibling {thread.sibling} do not name each other on core {thread.core}"
    for id_ in profile.host_threads:
        if id_ not in thread_by_id:
            yield f"host thread {id_} is not a thread of the host"
    known_gpus = {gpu.index for gpu in profile.gpus}
    for hca in profile.hcas:
        for index in sorted(hca.gpus - known_gpus):
            yield f"HCA {hca.address} names unknown GPU {index}"
    if not 0 <= profile.scratch_gib <= profile.pool_gib:
        yield f"scratch of {profile.scratch_gib} GiB is not a part of the pool of {profile.pool_gib} GiB"
    bounds = profile.bounds
    for what, seconds in (
        ("destroy_s", bounds.destroy_s),
        ("reset_s", bounds.reset_s),
        *((f"start_s of size {size}", start_s) for size, start_s in bounds.start_s_by_size),
    ):
        if seconds <= 0:
            yield f"bound {what} is {seconds}; a bound is at least 1 second"
    bounded = {size for size, _ in bounds.start_s_by_size}
    for size in profile.sizes:
        if size not in bounded:
            yield f"size {size} has no start bound"


def _numbering(profile: HostProfile) -> Iterator[str]:
    gpus = profile.gpus
    if len(gpus) > MAX_GPUS:
        first_past = gpus[MAX_GPUS]
        yield f"{len(gpus)} GPUs, at most {MAX_GPUS}: GPU {first_past.index} ({first_past.address}) is one too many"
    for gpu in gpus:
        if not 0 <= gpu.index < len(gpus):
            yield f"GPU {gpu.index} has no place among {len(gpus)} GPUs, which are numbered from 0 to {len(gpus) - 1}"


def _fabric(profile: HostProfile) -> Iterator[str]:
    if profile.fabric is Fabric.PASSTHROUGH:
        for partition in profile.partitions:
            if partition.fabric_id is not None:
                yield f"partition {partition.id} has fabric_id {partition.fabric_id}, but the fabric is not shared"
        return
    for switch in profile.nvswitches:
        yield f"NVSwitch {switch.address} is listed, but where the fabric is shared no VM is given one"
    for gpu in profile.gpus:
        if gpu.module is None:
            yield f"GPU {gpu.index} has no module, by which a shared fabric knows it"
    for partition in profile.partitions:
        if partition.fabric_id is None:
            yield f"partition {partition.id} has no fabric_id, by which a shared fabric knows it"


def _vm(profile: HostProfile) -> Iterator[str]:
    page_kib = profile.vm.hugepage_kib
    if page_kib < 0 or (page_kib and KIB_PER_GIB % page_kib):
        yield f"huge pages of {page_kib} KiB do not make up a GiB; x86 has pages of 2048 and 1048576 KiB, 0 means none"
    ids = profile.pci_ids
    for kind, listed in (("gpus", ids.gpus), ("nvswitches", ids.nvswitches), ("hcas", ids.hcas)):
        for id_ in listed:
            if not PCI_ID.fullmatch(id_):
                yield f"pci_ids.{kind} has {id_!r}; an id is vendor:product in lower-case hex, as 10de:1db8"


def _gpus(profile: HostProfile, partition: Partition) -> Iterator[str]:
    known = {gpu.index for gpu in profile.gpus}
    if not partition.gpus:
        yield f"partition {partition.id} has no GPUs"
    for index in sorted(partition.gpus - known):
        yield f"partition {partition.id} names unknown GPU {index}"
    if min(partition.gpus, default=0) >= 0 and partition.mask != mask_of(partition.gpus):
        yield f"partition {partition.id} has mask {partition.mask:#x}, its GPUs {_listed(partition.gpus)} say otherwise"


def _share(profile: HostProfile, partition: Partition) -> Iterator[str]:
    share = partition.share
    if share.vcpus <= 0 or share.memory_gib <= 0:
        yield f"partition {partition.id} has {share.vcpus} vCPUs and {share.memory_gib} GiB; a VM needs both"
    if share.vcpus != len(share.vcpu_threads):
        yield f"partition {partition.id} has {share.vcpus} vCPUs and {len(share.vcpu_threads)} threads for them"
    by_node_gib = sum(gib for _, gib in share.memory_gib_by_node)
    if share.memory_gib != by_node_gib:
        yield f"partition {partition.id} has {share.memory_gib} GiB of memory, {by_node_gib} GiB over its NUMA nodes"
    # Where threads are shared, a VM's emulator may be on its vCPUs' threads too.
    also_vcpus = share.vcpu_threads if profile.shares_threads else ()
    emulator_only = tuple(id_ for id_ in share.emulator_threads if id_ not in also_vcpus)
    for kind, given, known in (
        ("thread", share.vcpu_threads + emulator_only, {thread.id for thread in profile.threads}),
        ("NVSwitch", share.nvswitches, {switch.address for switch in profile.nvswitches}),
        ("HCA", share.hcas, {hca.address for hca in profile.hcas}),
    ):
        for value, times in Counter[int | str](given).items():
            if value not in known:
                yield f"partition {partition.id} names unknown {kind} {value}"
            if times > 1:
                yield f"partition {partition.id} is given {kind} {value} {times} times"
    if not share.emulator_threads:
        yield f"partition {partition.id} has no thread for its emulator"
    for id_ in share.vcpu_threads:
        if id_ in profile.host_threads:
            yield f"partition {partition.id} is given thread {id_}, which is the host's"
    met = shared_cores(
        threads=profile.threads,
        vcpu_threads=share.vcpu_threads,
        emulator_threads=share.emulator_threads,
        host_threads=profile.host_threads,
    )
    if share.shared_cores != met:
        said = _listed(core.core for core in share.shared_cores)
        yield f"partition {partition.id} says it shares cores {said}, its threads say {_listed(c.core for c in met)}"
    for hca in profile.hcas:
        if hca.address in share.hcas and not hca.gpus <= partition.gpus:
            outside = _listed(hca.gpus - partition.gpus)
            yield f"partition {partition.id} is given HCA {hca.address}, which also serves GPUs {outside}"


def _numa(profile: HostProfile, partition: Partition) -> Iterator[str]:
    share = partition.share
    nodes = {gpu.numa_node for gpu in profile.gpus if gpu.index in partition.gpus}
    for what, found in (
        ("vCPU threads", {thread.socket for thread in profile.threads if thread.id in share.vcpu_threads}),
        ("memory", {node for node, _ in share.memory_gib_by_node}),
    ):
        if found != nodes:
            where = f"on NUMA nodes {_listed(found)}, its GPUs on {_listed(nodes)}"
            yield f"partition {partition.id} has its {what} {where}"
    given = {*share.nvswitches, *share.hcas}
    devices: tuple[NvSwitch | Hca, ...] = (*profile.nvswitches, *profile.hcas)
    for device in devices:
        if device.address in given and device.numa_node not in nodes:
            where = f"on NUMA node {device.numa_node}, its GPUs are on {_listed(nodes)}"
            yield f"partition {partition.id} is given {device.address} {where}"


def _threads_taken_twice(
    core_by_thread: dict[int, int], host_threads: Sequence[int], one: Partition, other: Partition
) -> Iterator[str]:
    mine, theirs = one.share, other.share
    threads = {*mine.vcpu_threads, *mine.emulator_threads} & {*theirs.vcpu_threads, *theirs.emulator_threads}
    # Emulators may meet on the host's own threads: that is the host's work, and no tenant runs there.
    threads -= {*mine.emulator_threads} & {*theirs.emulator_threads} & {*host_threads}
    cores = _cores_where_one_disturbs_the_other(core_by_thread, mine, theirs)
    cores -= {core_by_thread[id_] for id_ in threads if id_ in core_by_thread}
    for kind, values in (("thread", sorted(threads)), ("core", sorted(cores))):
        for value in values:
            yield _given_to_both(f"{kind} {value}", one, other)


def _devices_taken_twice(one: Partition, other: Partition) -> Iterator[str]:
    mine, theirs = one.share, other.share
    for kind, addresses in (
        ("NVSwitch", {*mine.nvswitches} & {*theirs.nvswitches}),
        ("HCA", {*mine.hcas} & {*theirs.hcas}),
    ):
        for address in sorted(addresses):
            yield _given_to_both(f"{kind} {address}", one, other)


def _given_to_both(what: str, one: Partition, other: Partition) -> str:
    return f"{what} is given to both {one.id} and {other.id}, which may run at once"


def _cores_where_one_disturbs_the_other(core_by_thread: dict[int, int], mine: Share, theirs: Share) -> set[int]:
    """Return the cores on which one tenant's vCPUs meet the other's vCPUs or emulator."""
    my_vcpus, their_vcpus, my_all, their_all = (
        {core_by_thread[id_] for id_ in ids if id_ in core_by_thread}
        for ids in (
            mine.vcpu_threads,
            theirs.vcpu_threads,
            (*mine.vcpu_threads, *mine.emulator_threads),
            (*theirs.vcpu_threads, *theirs.emulator_threads),
        )
    )
    return (my_vcpus & their_all) | (their_vcpus & my_all)


def _memory(profile: HostProfile) -> Iterator[str]:
    nodes = sorted({thread.socket for thread in profile.threads})
    if not nodes:
        yield "the profile has no threads"
        return
    node_gib = profile.memory_gib // len(nodes)
    for node in nodes:
        total_gib, mix = heaviest_mix(profile.partitions, partial(_memory_on, node=node))
        if total_gib > node_gib:
            ids = ", ".join(partition.id for partition in mix)
            yield f"{ids} at once take {total_gib} GiB of NUMA node {node}, which has {node_gib} GiB"


def _memory_on(share: Share, *, node: int) -> int:
    return sum(gib for share_node, gib in share.memory_gib_by_node if share_node == node)


def _listed(values: Iterable[int]) -> str:
    return ", ".join(str(value) for value in sorted(values)) or "none"
