"""Reads the sizes and partitions of a profile file, and derives what their rows need not say.

Holds how a row becomes a partition and its share of the host. Must not hold the rest of the file (`loading`) nor the
checks on the finished profile (`scheduler.core.topology_checks`).

What is derived and therefore in no file: a VM's vCPUs are pinned to all threads of its GPUs' cores that are neither
emulator threads nor `host_threads`, siblings next to each other; its memory is split over NUMA nodes by the number of
its GPUs on each. On a host that `shares_threads` a VM's vCPUs are pinned to as many of its GPUs' threads as its size
says, split over NUMA nodes as its memory is, whoever else is on them; `dgx-2-lab.toml` is such a host.

What a row may leave out:
  gpus              it names `modules` then, which the rows of GPUs give to GPUs. So Fabric Manager's table stands in
                    the file as it is printed, and only a GPU's `module` differs from host to host.
  emulator_threads  as many as its size says, from its GPUs' cores on: split over NUMA nodes as its memory is, of each
                    core the second thread first.
  hcas              all adapters of which every GPU is in the set.
  nvswitches        none.
  nvlinks_per_gpu   as its size says.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scheduler.core.topology import Gpu, Hca, NvSwitch, Partition, PartitionId, Share, Thread, mask_of
from scheduler.core.topology_checks import shared_cores
from scheduler.profiles.tables import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the rows of partitions refer to."""

    gpus: tuple[Gpu, ...]
    cores_by_gpu: Mapping[int, tuple[int, ...]]
    nvswitches: tuple[NvSwitch, ...]
    hcas: tuple[Hca, ...]
    threads: tuple[Thread, ...]
    host_threads: tuple[int, ...]
    size_by_gpus: Mapping[int, "Size"]
    shares_threads: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A row of `sizes`; None where every partition's row says it."""

    start_s: int
    vcpus: int
    memory_gib: int
    nvlinks_per_gpu: int
    nvswitches: int
    hcas: int | None
    emulator_threads: int | None


def read_sizes(table: Table) -> Mapping[int, Size]:
    """Return the rows of `sizes` by their number of GPUs. Raises BadTable for a size that has two rows."""
    size_by_gpus: dict[int, Size] = {}
    for row in table.tables("sizes"):
        gpus = row.integer("gpus")
        if gpus in size_by_gpus:
            raise row.wrong("gpus", "a size that no other row has", gpus)
        size_by_gpus[gpus] = Size(
            start_s=row.integer("start_s"),
            vcpus=row.integer("vcpus"),
            memory_gib=row.integer("memory_gib"),
            nvlinks_per_gpu=row.integer("nvlinks_per_gpu"),
            nvswitches=row.integer_or("nvswitches", 0),
            hcas=row.integer_or_none("hcas"),
            emulator_threads=row.integer_or_none("emulator_threads"),
        )
    return size_by_gpus


def read_partition(row: Table, parts: Parts) -> Partition:
    """Return the partition of a row. Raises BadTable, naming the partition, for what does not fit the host's parts."""
    id_ = row.text("id")
    key = "modules" if row.has("modules") else "gpus"
    gpu_list = _gpus_of_modules(row, parts, id_) if key == "modules" else _gpus(row, parts, id_)
    gpus = frozenset(gpu_list)
    if len(gpus) != len(gpu_list):
        raise row.wrong(key, f"a list of different GPUs (partition {id_})", list(row.integers(key)))
    size = parts.size_by_gpus.get(len(gpus))
    if size is None:
        known = ", ".join(str(known_size) for known_size in parts.size_by_gpus)
        wanted = f"of a size that has a row in sizes ({known}; partition {id_} has size {len(gpus)})"
        raise row.wrong(key, wanted, list(row.integers(key)))
    return Partition(
        id=PartitionId(id_),
        gpus=gpus,
        mask=mask_of(gpus),
        share=_share(row, size=size, gpus=gpus, parts=parts),
        fabric_id=row.integer_or_none("fabric_id"),
    )


def _gpus(row: Table, parts: Parts, id_: str) -> tuple[int, ...]:
    gpus = row.integers("gpus")
    for gpu in gpus:
        if gpu not in parts.cores_by_gpu:
            raise row.wrong("gpus", f"a list of the host's GPUs (partition {id_} names unknown GPU {gpu})", list(gpus))
    return gpus


def _gpus_of_modules(row: Table, parts: Parts, id_: str) -> tuple[int, ...]:
    modules = row.integers("modules")
    if row.has("gpus"):
        raise row.wrong("modules", f"left out where gpus are named (partition {id_})", list(modules))
    gpu_by_module = {gpu.module: gpu.index for gpu in parts.gpus}
    for module in modules:
        if module not in gpu_by_module:
            wanted = f"a list of the modules that GPUs have (partition {id_} names unknown module {module})"
            raise row.wrong("modules", wanted, list(modules))
    return tuple(gpu_by_module[module] for module in modules)


def _share(row: Table, *, size: Size, gpus: frozenset[int], parts: Parts) -> Share:
    gpu_nodes = [gpu.numa_node for gpu in parts.gpus if gpu.index in gpus]
    cores = {core for gpu in gpus for core in parts.cores_by_gpu[gpu]}
    own_threads = [thread for thread in parts.threads if thread.core in cores]
    emulator_threads = _emulator_threads(row, size, own_threads, gpu_nodes)
    left_out = {*parts.host_threads} if parts.shares_threads else {*emulator_threads, *parts.host_threads}
    threads = [
        thread
        for thread in sorted(own_threads, key=lambda thread: (thread.core, thread.id))
        if thread.id not in left_out
    ]
    if parts.shares_threads:
        threads = _first_threads(threads, _over_nodes(size.vcpus, gpu_nodes))
    vcpu_threads = tuple(thread.id for thread in threads)
    return Share(
        vcpus=size.vcpus,
        memory_gib=size.memory_gib,
        memory_gib_by_node=_over_nodes(size.memory_gib, gpu_nodes),
        hcas=_hcas(row, size, gpus, parts),
        nvswitches=_nvswitches(row, size, parts),
        nvlinks_per_gpu=row.integer_or("nvlinks_per_gpu", size.nvlinks_per_gpu),
        vcpu_threads=vcpu_threads,
        emulator_threads=emulator_threads,
        shared_cores=shared_cores(
            threads=parts.threads,
            vcpu_threads=vcpu_threads,
            emulator_threads=emulator_threads,
            host_threads=parts.host_threads,
        ),
    )


def _emulator_threads(row: Table, size: Size, own_threads: Iterable[Thread], gpu_nodes: list[int]) -> tuple[int, ...]:
    if size.emulator_threads is None or row.has("emulator_threads"):
        return row.integers("emulator_threads")
    second_first = sorted(own_threads, key=lambda thread: (thread.core, -thread.id))
    taken = _first_threads(second_first, _over_nodes(size.emulator_threads, gpu_nodes))
    return tuple(sorted(thread.id for thread in taken))


def _over_nodes(total: int, gpu_nodes: list[int]) -> tuple[tuple[int, int], ...]:
    """Split GiB or threads over NUMA nodes by the GPUs on each; what does not divide goes to the first nodes."""
    gpus_by_node = sorted(Counter(gpu_nodes).items())
    by_node = {node: total * gpus // len(gpu_nodes) for node, gpus in gpus_by_node}
    for node in list(by_node)[: total - sum(by_node.values())]:
        by_node[node] += 1
    return tuple(by_node.items())


def _first_threads(threads: Iterable[Thread], count_by_node: Iterable[tuple[int, int]]) -> list[Thread]:
    """Return the first of the threads on each NUMA node, as many as are wanted there, in the order given."""
    left_by_node = dict(count_by_node)
    taken = []
    for thread in threads:
        if left_by_node.get(thread.socket, 0) > 0:
            left_by_node[thread.socket] -= 1
            taken.append(thread)
    return taken


def _hcas(row: Table, size: Size, gpus: frozenset[int], parts: Parts) -> tuple[str, ...]:
    whole = tuple(hca.index for hca in parts.hcas if hca.gpus and hca.gpus <= gpus)
    listed = row.integers("hcas") if row.has("hcas") else whole
    return _addresses(row, "hcas", listed, {hca.index: hca.address for hca in parts.hcas}, count=size.hcas)


def _nvswitches(row: Table, size: Size, parts: Parts) -> tuple[str, ...]:
    listed = row.integers("nvswitches") if row.has("nvswitches") else ()
    address_by_index = {switch.index: switch.address for switch in parts.nvswitches}
    return _addresses(row, "nvswitches", listed, address_by_index, count=size.nvswitches)


def _addresses(
    row: Table, key: str, indices: tuple[int, ...], address_by_index: Mapping[int, str], *, count: int | None
) -> tuple[str, ...]:
    if count is not None and len(indices) != count:
        raise row.wrong(key, f"{count} of them for partition {row.text('id')}, by its size's row", list(indices))
    for index in indices:
        if index not in address_by_index:
            raise row.wrong(key, f"indices of {key} (partition {row.text('id')} names unknown {index})", list(indices))
    return tuple(address_by_index[index] for index in indices)
