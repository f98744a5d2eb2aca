"""Domains that somebody made by hand on a simulated host: without our metadata, running at once, theirs to remove."""

import json
from uuid import NAMESPACE_URL, uuid5

from scheduler.core.facts import DomainState
from scheduler.core.spans import Instant
from workers.drivers.simulated import words
from workers.drivers.simulated.state import DOMAIN_COLUMNS, VFIO, DomainRow, Due, RackState, gpus_text, memory_text


def make_foreign(
    state: RackState,
    name: str,
    gpus: tuple[int, ...],
    *,
    leaves_at: Instant | None = None,
    memory_gib_by_node: tuple[tuple[int, int], ...] | None = None,
    disk: str | None = None,
    disk_gib: int = 100,
) -> str:
    """Let somebody make a domain by hand, running at once, and return its UUID; it has none of our metadata.

    `memory_gib_by_node` None: what our own VM of these GPUs would have, if there is one. Raises DeviceInUse.
    """
    addresses = tuple(state.profile.gpu(gpu).address for gpu in gpus)
    for address in addresses:
        device = state.device(address)
        assert device is not None
        if device.held_by is not None:
            raise words.in_use(address, _name_of(state, device.held_by))
        if not device.is_alive:
            raise words.dead_device(address)
    (number,) = state.connection.execute("SELECT count(*) FROM log WHERE what = 'vm.foreign'").fetchone()
    uuid = str(uuid5(NAMESPACE_URL, f"nightshift:foreign:{state.seed}/{state.host}/{name}/{number}"))
    partition = state.profile.partition_of(gpus)
    if memory_gib_by_node is None:
        memory_gib_by_node = () if partition is None else partition.share.memory_gib_by_node
    if (row := state.connection.execute("SELECT uuid FROM domains WHERE name = ?", (name,)).fetchone()) is not None:
        raise words.name_taken(name, row[0])
    if disk is not None:
        state.connection.execute(
            "INSERT INTO disks (id, size_gib, state) VALUES (?, ?, 'ready') ON CONFLICT (id) DO NOTHING",
            (disk, disk_gib),
        )
    marks = ", ".join("?" * len(DomainRow._fields))
    domain = DomainRow(
        uuid=uuid,
        name=name,
        reservation=None,
        generation=None,
        partition=None,
        gpus=gpus_text(gpus),
        devices=" ".join(addresses),
        memory=memory_text(memory_gib_by_node),
        disk=disk,
        spec=json.dumps({}),
        state=DomainState.RUNNING,
        off_reason=None,
        operation=None,
        is_up=1,
        is_silent=0,
        ignores_acpi=0,
    )
    state.connection.execute(f"INSERT INTO domains ({DOMAIN_COLUMNS}) VALUES ({marks})", domain)
    for address in addresses:
        state.cancel(address, Due.RESET)
    state.connection.executemany(
        "UPDATE devices SET is_resetting = 0, driver = ? WHERE address = ?", [(VFIO, address) for address in addresses]
    )
    state.hold(uuid, addresses)
    if disk is not None:
        state.connection.execute("UPDATE disks SET held_by = ? WHERE id = ? AND held_by IS NULL", (uuid, disk))
    state.log_domain("vm.foreign", domain)
    if leaves_at is not None:
        state.due(leaves_at, Due.LEAVES, uuid)
    return uuid


def _name_of(state: RackState, uuid: str) -> str:
    domain = state.domain(uuid)
    return uuid if domain is None else domain.name
