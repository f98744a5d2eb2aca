"""Reads a host profile, shipped or an admin's own file, and refuses one that cannot be planned on.

Holds the profile file's shape and how its rows become topology values. Must not hold facts about any kind of host (they
are in the `.toml` files beside this module) nor the checks on the finished profile (`scheduler.core.topology_checks`).

A profile file is TOML; `dgx-2.toml` shows and explains every key. What is derived and therefore not in the file: a
VM's vCPUs are pinned to all threads of its GPUs' cores that are neither `emulator_threads` nor `host_threads`, siblings
next to each other; its memory is split over NUMA nodes by the number of its GPUs on each. On a host that
`shares_threads` a VM's vCPUs are pinned to as many of its GPUs' threads as its size says, split over NUMA nodes as its
memory is, whoever else is on them. `dgx-2-lab.toml` is such a host.
"""

import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from scheduler.core.errors import NightshiftError
from scheduler.core.topology import (
    Gpu,
    HandoverBounds,
    Hca,
    HostProfile,
    Nvme,
    NvSwitch,
    Partition,
    PartitionId,
    PciIds,
    Share,
    Thread,
    VmSettings,
    mask_of,
)
from scheduler.core.topology_checks import check_profile, shared_cores
from scheduler.profiles.tables import BadTable, Table


class UnknownProfile(NightshiftError):
    """No profile of this name is shipped, or no file is at this path."""

    code = "profile.unknown"


class BadProfile(NightshiftError):
    """The profile file cannot be read, or describes a host that cannot be planned on."""

    code = "profile.bad"


def known_profiles() -> tuple[str, ...]:
    """Return the names of the profiles that are shipped, sorted."""
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in _shipped() if entry.name.endswith(".toml")))


def load_profile(name_or_path: str | Path) -> HostProfile:
    """Return the shipped profile of this name, or the one in this file; a string with `/` or `.toml` is a path."""
    source = _find(name_or_path)
    try:
        profile = _profile(Table.of(tomllib.loads(source.read_text(encoding="utf-8"))))
    except tomllib.TOMLDecodeError as error:
        raise BadProfile(f"{source}: not valid TOML: {error}; correct the file", file=str(source)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadProfile(
            f"{source}: cannot be read as UTF-8 text: {error}; correct the file", file=str(source)
        ) from error
    except BadTable as error:
        raise BadProfile(f"{source}: {error.message}; correct the file", file=str(source), **error.facts) from error
    problems = check_profile(profile)
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        message = f"{source}: no host can be planned by this profile; correct it:\n{lines}"
        raise BadProfile(message, file=str(source), problems=len(problems))
    return profile


def _find(name_or_path: str | Path) -> Traversable:
    if isinstance(name_or_path, Path) or "/" in name_or_path or name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        if not path.is_file():
            raise UnknownProfile(f"no profile file at {path}; give the path of a .toml file", file=str(path))
        return path
    known = known_profiles()
    if name_or_path not in known:
        message = (
            f"no profile is named {name_or_path!r}; name one of {', '.join(known)}, or give the path of a .toml file"
        )
        raise UnknownProfile(message, profile=name_or_path, known=", ".join(known))
    return resources.files("scheduler.profiles").joinpath(f"{name_or_path}.toml")


def _shipped() -> Iterable[Traversable]:
    return resources.files("scheduler.profiles").iterdir()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What the rows of partitions refer to."""

    gpus: tuple[Gpu, ...]
    cores_by_gpu: Mapping[int, tuple[int, ...]]
    nvswitches: tuple[NvSwitch, ...]
    hcas: tuple[Hca, ...]
    threads: tuple[Thread, ...]
    host_threads: tuple[int, ...]
    size_by_gpus: Mapping[int, Table]
    shares_threads: bool


def _profile(table: Table) -> HostProfile:
    gpu_rows = table.tables("gpus")
    parts = _Parts(
        gpus=tuple(_gpu(row) for row in gpu_rows),
        cores_by_gpu={row.integer("index"): row.integers("cores") for row in gpu_rows},
        nvswitches=tuple(_nvswitch(row) for row in table.tables("nvswitches", may_be_absent=True)),
        hcas=tuple(_hca(row) for row in table.tables("hcas", may_be_absent=True)),
        threads=tuple(sorted(_threads(table.tables("sockets")), key=lambda thread: thread.id)),
        host_threads=table.integers("host_threads"),
        size_by_gpus=_sizes(table),
        shares_threads=table.boolean_or("shares_threads", default=False),
    )
    bounds = table.table("bounds")
    disks = table.table("disks")
    profile = HostProfile(
        name=table.text("name"),
        gpus=parts.gpus,
        nvswitches=parts.nvswitches,
        hcas=parts.hcas,
        nvmes=tuple(_nvme(row) for row in table.tables("nvmes", may_be_absent=True)),
        threads=parts.threads,
        partitions=tuple(_partition(row, parts) for row in table.tables("partitions")),
        host_threads=parts.host_threads,
        memory_gib=table.integer("memory_gib"),
        bounds=HandoverBounds(
            destroy_s=bounds.integer("destroy_s"),
            reset_s=bounds.integer("reset_s"),
            start_s_by_size=tuple((gpus, row.integer("start_s")) for gpus, row in parts.size_by_gpus.items()),
        ),
        pool_gib=disks.integer("pool_gib"),
        scratch_gib=disks.integer("scratch_gib"),
        os_disk_gib=disks.integer("os_disk_gib"),
        vm=_vm(table.table("vm", may_be_absent=True)),
        pci_ids=_pci_ids(table.table("pci_ids", may_be_absent=True)),
        shares_threads=parts.shares_threads,
    )
    table.refuse_unread()
    return profile


def _vm(table: Table) -> VmSettings:
    plain = VmSettings()
    return VmSettings(
        accelerator=table.choice_or("accelerator", plain.accelerator),
        firmware=table.choice_or("firmware", plain.firmware),
        hugepage_kib=table.integer_or("hugepage_kib", plain.hugepage_kib),
        pool=table.text_or("pool", plain.pool),
        image_pool=table.text_or("image_pool", plain.image_pool),
        network=table.text_or("network", plain.network, may_be_empty=True),
        network_filter=table.text_or("network_filter", plain.network_filter, may_be_empty=True),
    )


def _pci_ids(table: Table) -> PciIds:
    return PciIds(
        gpus=table.texts_or("gpus", ()),
        nvswitches=table.texts_or("nvswitches", ()),
        hcas=table.texts_or("hcas", ()),
    )


def _gpu(row: Table) -> Gpu:
    return Gpu(
        index=row.integer("index"),
        address=row.text("address"),
        numa_node=row.integer("numa_node"),
        root=row.text("root"),
    )


def _nvswitch(row: Table) -> NvSwitch:
    return NvSwitch(
        index=row.integer("index"),
        address=row.text("address"),
        numa_node=row.integer("numa_node"),
        root=row.text("root"),
    )


def _hca(row: Table) -> Hca:
    return Hca(
        index=row.integer("index"),
        address=row.text("address"),
        numa_node=row.integer("numa_node"),
        root=row.text("root"),
        gpus=frozenset(row.integers("gpus")),
    )


def _nvme(row: Table) -> Nvme:
    return Nvme(
        name=row.text("name"),
        address=row.text("address"),
        numa_node=row.integer("numa_node"),
        root=row.text("root"),
        use=row.text("use"),
    )


def _threads(sockets: Iterable[Table]) -> Iterator[Thread]:
    """Yield each socket's threads: a core's first has the core's number; with `sibling_offset` 0 there is no second."""
    for row in sockets:
        socket, first, offset = row.integer("socket"), row.integer("first_core"), row.integer("sibling_offset")
        for core in range(first, first + row.integer("cores")):
            yield Thread(id=core, core=core, socket=socket, sibling=core + offset)
            if offset:
                yield Thread(id=core + offset, core=core, socket=socket, sibling=core)


def _sizes(table: Table) -> Mapping[int, Table]:
    row_by_gpus: dict[int, Table] = {}
    for row in table.tables("sizes"):
        gpus = row.integer("gpus")
        if gpus in row_by_gpus:
            raise row.wrong("gpus", "a size that no other row has", gpus)
        row_by_gpus[gpus] = row
    return row_by_gpus


def _partition(row: Table, parts: _Parts) -> Partition:
    id_ = row.text("id")
    gpu_list = row.integers("gpus")
    gpus = frozenset(gpu_list)
    if len(gpus) != len(gpu_list):
        raise row.wrong("gpus", f"a list of different GPUs (partition {id_})", list(gpu_list))
    for gpu in gpu_list:
        if gpu not in parts.cores_by_gpu:
            raise row.wrong(
                "gpus", f"a list of the host's GPUs (partition {id_} names unknown GPU {gpu})", list(gpu_list)
            )
    size = parts.size_by_gpus.get(len(gpus))
    if size is None:
        known = ", ".join(str(known_size) for known_size in parts.size_by_gpus)
        wanted = f"of a size that has a row in sizes ({known}; partition {id_} has size {len(gpus)})"
        raise row.wrong("gpus", wanted, list(gpu_list))
    return Partition(
        id=PartitionId(id_), gpus=gpus, mask=mask_of(gpus), share=_share(row, size=size, gpus=gpus, parts=parts)
    )


def _share(row: Table, *, size: Table, gpus: frozenset[int], parts: _Parts) -> Share:
    emulator_threads = row.integers("emulator_threads")
    gpu_nodes = [gpu.numa_node for gpu in parts.gpus if gpu.index in gpus]
    cores = {core for gpu in gpus for core in parts.cores_by_gpu[gpu]}
    left_out = {*parts.host_threads} if parts.shares_threads else {*emulator_threads, *parts.host_threads}
    threads = [
        thread
        for thread in sorted(parts.threads, key=lambda thread: (thread.core, thread.id))
        if thread.core in cores and thread.id not in left_out
    ]
    if parts.shares_threads:
        threads = _first_threads(threads, _over_nodes(size.integer("vcpus"), gpu_nodes))
    vcpu_threads = tuple(thread.id for thread in threads)
    nvswitch_by_index = {switch.index: switch.address for switch in parts.nvswitches}
    hca_by_index = {hca.index: hca.address for hca in parts.hcas}
    return Share(
        vcpus=size.integer("vcpus"),
        memory_gib=size.integer("memory_gib"),
        memory_gib_by_node=_over_nodes(size.integer("memory_gib"), gpu_nodes),
        hcas=_addresses(row, "hcas", address_by_index=hca_by_index, count=size.integer("hcas")),
        nvswitches=_addresses(row, "nvswitches", address_by_index=nvswitch_by_index, count=size.integer("nvswitches")),
        nvlinks_per_gpu=size.integer("nvlinks_per_gpu"),
        vcpu_threads=vcpu_threads,
        emulator_threads=emulator_threads,
        shared_cores=shared_cores(
            threads=parts.threads,
            vcpu_threads=vcpu_threads,
            emulator_threads=emulator_threads,
            host_threads=parts.host_threads,
        ),
    )


def _over_nodes(total: int, gpu_nodes: list[int]) -> tuple[tuple[int, int], ...]:
    """Split GiB or vCPUs over NUMA nodes by the GPUs on each; what does not divide goes to the first nodes."""
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


def _addresses(row: Table, key: str, *, address_by_index: Mapping[int, str], count: int) -> tuple[str, ...]:
    indices = row.integers(key)
    if len(indices) != count:
        raise row.wrong(key, f"{count} of them for partition {row.text('id')}, by its size's row", list(indices))
    for index in indices:
        if index not in address_by_index:
            raise row.wrong(key, f"indices of {key} (partition {row.text('id')} names unknown {index})", list(indices))
    return tuple(address_by_index[index] for index in indices)
