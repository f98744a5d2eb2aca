"""Reads a host profile, shipped or an admin's own file, and refuses one that cannot be planned on.

Holds the profile file's shape and how its rows become topology values. Must not hold facts about any kind of host (they
are in the `.toml` files beside this module) nor the checks on the finished profile (`scheduler.core.topology_checks`).

A profile file is TOML; `dgx-2.toml` shows and explains every key, and `dgx-2-fabric.toml` those of a host with a Fabric
Manager. What a partition's row need not say is in `scheduler.profiles.partitions`.
"""

import tomllib
from collections.abc import Iterable, Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from scheduler.core.errors import NightshiftError
from scheduler.core.topology import (
    Fabric,
    Gpu,
    HandoverBounds,
    Hca,
    HostProfile,
    Nvme,
    NvSwitch,
    PciIds,
    Thread,
    VmSettings,
)
from scheduler.core.topology_checks import check_profile
from scheduler.profiles.partitions import Parts, read_partition, read_sizes
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


def _profile(table: Table) -> HostProfile:
    gpu_rows = table.tables("gpus")
    parts = Parts(
        gpus=_gpus(gpu_rows),
        cores_by_gpu={row.integer("index"): row.integers("cores") for row in gpu_rows},
        nvswitches=tuple(_nvswitch(row) for row in table.tables("nvswitches", may_be_absent=True)),
        hcas=tuple(_hca(row) for row in table.tables("hcas", may_be_absent=True)),
        threads=tuple(sorted(_threads(table.tables("sockets")), key=lambda thread: thread.id)),
        host_threads=table.integers("host_threads"),
        size_by_gpus=read_sizes(table),
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
        partitions=tuple(read_partition(row, parts) for row in table.tables("partitions")),
        host_threads=parts.host_threads,
        memory_gib=table.integer("memory_gib"),
        bounds=HandoverBounds(
            destroy_s=bounds.integer("destroy_s"),
            reset_s=bounds.integer("reset_s"),
            start_s_by_size=tuple((gpus, size.start_s) for gpus, size in parts.size_by_gpus.items()),
        ),
        pool_gib=disks.integer("pool_gib"),
        scratch_gib=disks.integer("scratch_gib"),
        os_disk_gib=disks.integer("os_disk_gib"),
        vm=_vm(table.table("vm", may_be_absent=True)),
        pci_ids=_pci_ids(table.table("pci_ids", may_be_absent=True)),
        shares_threads=parts.shares_threads,
        fabric=table.choice_or("fabric", Fabric.PASSTHROUGH),
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


def _gpus(rows: Iterable[Table]) -> tuple[Gpu, ...]:
    gpus: list[Gpu] = []
    for row in rows:
        gpu = _gpu(row)
        # Found here: the partitions that name the module which is missing then would be blamed otherwise.
        if gpu.module is not None and gpu.module in [other.module for other in gpus]:
            raise row.wrong("module", "a module that no other GPU has", gpu.module)
        gpus.append(gpu)
    return tuple(gpus)


def _gpu(row: Table) -> Gpu:
    return Gpu(
        index=row.integer("index"),
        address=row.text("address"),
        numa_node=row.integer("numa_node"),
        root=row.text("root"),
        module=row.integer_or_none("module"),
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
