"""How a guest's vCPUs and memory lie on the host's NUMA nodes: its cells, and the sockets, cores and threads it sees.

Holds the sizes of one VM, from its partition's share and what was asked for instead. Pure. Must not hold XML
(`definition`) nor devices (`guest_pcie`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.core.topology import HostProfile
from workers.ports import DomainSpec, DriverError


class DefinitionError(DriverError):
    """No domain can be made of these values."""

    code = "driver.bad_definition"
    retryable = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The part of a guest that lies on one NUMA node of the host.

    `threads` are the host's, in the order of the vCPUs pinned to them; the first of these is number `first_vcpu`.
    """

    id: int
    host_node: int
    first_vcpu: int
    threads: tuple[int, ...]
    memory_gib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTopology:
    """What a guest sees of its vCPUs: sockets, cores of each, threads of each core."""

    sockets: int
    cores: int
    threads: int


def guest_cells(spec: DomainSpec, profile: HostProfile) -> tuple[Cell, ...]:
    """Return a VM's cells, one for each NUMA node of its partition, in the order of nodes.

    Less than the share is spread over the nodes as the share is. Raises DefinitionError for more than the share, for
    nothing, and for vCPUs or memory that do not reach every node evenly.
    """
    socket_by_thread = {thread.id: thread.socket for thread in profile.threads}
    threads_by_node: dict[int, tuple[int, ...]] = {node: () for node, _ in spec.partition.share.memory_gib_by_node}
    for thread in spec.partition.share.vcpu_threads:
        node = socket_by_thread[thread]
        threads_by_node[node] = (*threads_by_node.get(node, ()), thread)
    vcpus_by_node = _vcpus_by_node(spec, {node: len(threads) for node, threads in threads_by_node.items()})
    memory_gib_by_node = _memory_gib_by_node(spec)
    cells: list[Cell] = []
    first_vcpu = 0
    for id_, node in enumerate(sorted(threads_by_node)):
        threads = threads_by_node[node][: vcpus_by_node[node]]
        memory_gib = memory_gib_by_node[node]
        cells.append(Cell(id=id_, host_node=node, first_vcpu=first_vcpu, threads=threads, memory_gib=memory_gib))
        first_vcpu += len(threads)
    return tuple(cells)


def cpu_topology(cells: tuple[Cell, ...], profile: HostProfile) -> CpuTopology:
    """Return the topology that a guest of these cells sees: a socket for each cell, and cores of two threads each if
    its vCPUs run on whole cores of the host, siblings next to each other; otherwise of one."""
    sibling_by_thread = {thread.id: thread.sibling for thread in profile.threads}
    threads = 2 if all(_in_pairs(cell.threads, sibling_by_thread) for cell in cells) else 1
    # Sockets must be equal: cells that are not are seen as one.
    sockets = len(cells) if len({len(cell.threads) for cell in cells}) == 1 else 1
    vcpus = sum(len(cell.threads) for cell in cells)
    return CpuTopology(sockets=sockets, cores=vcpus // sockets // threads, threads=threads)


def _in_pairs(threads: tuple[int, ...], sibling_by_thread: Mapping[int, int]) -> bool:
    return len(threads) % 2 == 0 and all(
        one != other and sibling_by_thread[one] == other for one, other in zip(threads[::2], threads[1::2], strict=True)
    )


def _vcpus_by_node(spec: DomainSpec, share_by_node: Mapping[int, int]) -> Mapping[int, int]:
    share = sum(share_by_node.values())
    wanted = share if spec.vcpus is None else spec.vcpus
    _refuse_beyond(spec, "vCPUs", wanted=wanted, share=share)
    by_node = {node: wanted * of_node // share for node, of_node in share_by_node.items()}
    if sum(by_node.values()) != wanted or not all(by_node.values()):
        nodes = len(share_by_node)
        raise DefinitionError(
            f"{spec.name}: {wanted} vCPUs cannot be spread evenly over the {nodes} NUMA nodes of partition "
            f"{spec.partition.id}; ask for a multiple of {nodes}",
            domain=spec.name,
            vcpus=wanted,
        )
    return by_node


def _memory_gib_by_node(spec: DomainSpec) -> Mapping[int, int]:
    share_by_node = dict(spec.partition.share.memory_gib_by_node)
    share = sum(share_by_node.values())
    wanted = share if spec.memory_gib is None else spec.memory_gib
    _refuse_beyond(spec, "GiB of memory", wanted=wanted, share=share)
    by_node = {node: wanted * of_node // share for node, of_node in share_by_node.items()}
    # What does not divide goes to the first nodes, as in the share.
    for node in list(by_node)[: wanted - sum(by_node.values())]:
        by_node[node] += 1
    if not all(by_node.values()):
        nodes = len(share_by_node)
        raise DefinitionError(
            f"{spec.name}: {wanted} GiB of memory do not reach all {nodes} NUMA nodes of partition "
            f"{spec.partition.id}; ask for at least {nodes}",
            domain=spec.name,
            memory_gib=wanted,
        )
    return by_node


def _refuse_beyond(spec: DomainSpec, what: str, *, wanted: int, share: int) -> None:
    if not 1 <= wanted <= share:
        raise DefinitionError(
            f"{spec.name}: {wanted} {what} asked for; partition {spec.partition.id} has {share}: ask for 1 to {share}",
            domain=spec.name,
            wanted=wanted,
            share=share,
        )
