"""The verbs of the hypervisor on a simulated host: when they are refused, what they change, how long they take."""

import json
from collections.abc import Callable
from uuid import UUID

from scheduler.core.facts import DomainState, ObservedHost, OffReason
from scheduler.core.spans import Instant
from workers.drivers.simulated import durations, words
from workers.drivers.simulated.calls import Call, Calls
from workers.drivers.simulated.faults import RackVerb
from workers.drivers.simulated.state import (
    DOMAIN_COLUMNS,
    VFIO,
    DeviceRow,
    DiskState,
    DomainRow,
    Due,
    Operation,
    RackState,
    gpus_text,
    memory_of,
    memory_text,
)
from workers.ports import DomainSpec


class SimulatedHypervisor:
    """`workers.ports.Hypervisor` on a rack."""

    def __init__(self, calls: Calls, look: Callable[[], ObservedHost]) -> None:
        self._calls = calls
        self._look = look

    def look(self) -> ObservedHost:
        return self._look()

    def define(self, spec: DomainSpec) -> None:
        subjects = (str(spec.uuid), spec.name, spec.reservation)
        self._calls.ask(RackVerb.DEFINE, subjects, lambda call: _define(call, spec))

    def start(self, uuid: UUID, *, timeout_s: int) -> None:
        subject = str(uuid)

        def check(state: RackState) -> None:
            domain = state.domain(subject)
            if domain is None or domain.state not in (DomainState.RUNNING, DomainState.SHUTTING_DOWN):
                raise words.monitor_closed(subject)

        self._calls.block(
            RackVerb.START,
            (subject,),
            lambda call: _start(call, subject),
            timeout_s=timeout_s,
            check=check,
        )

    def ask_shutdown(self, uuid: UUID, *, through_agent: bool = False) -> None:
        subject = str(uuid)
        self._calls.ask(
            RackVerb.ASK_SHUTDOWN,
            (subject,),
            lambda call: _ask_shutdown(call, subject, through_agent=through_agent),
        )

    def destroy(self, uuid: UUID, *, timeout_s: int) -> None:
        subject = str(uuid)

        def check(state: RackState) -> None:
            domain = state.domain(subject)
            if domain is not None and not domain.is_off:
                raise words.still_there(subject)

        self._calls.block(
            RackVerb.DESTROY,
            (subject,),
            lambda call: _destroy(call, subject),
            timeout_s=timeout_s,
            check=check,
        )

    def undefine(self, uuid: UUID) -> None:
        subject = str(uuid)
        self._calls.ask(RackVerb.UNDEFINE, (subject,), lambda call: _undefine(call, subject))


def _define(call: Call, spec: DomainSpec) -> None:
    state = call.state
    new = _row(spec)
    old = state.domain(new.uuid)
    if old is not None and not old.is_off:
        raise words.already_running(new.uuid)
    namesake = state.connection.execute("SELECT uuid FROM domains WHERE name = ?", (new.name,)).fetchone()
    if namesake is not None and namesake[0] != new.uuid:
        raise words.name_taken(new.name, namesake[0])
    if old is not None:
        new = new._replace(off_reason=old.off_reason)
    if old != new:
        marks = ", ".join("?" * len(new))
        state.connection.execute(f"INSERT OR REPLACE INTO domains ({DOMAIN_COLUMNS}) VALUES ({marks})", new)
        state.log_domain("vm.defined", new, disk=spec.disk)
    if call.is_half:
        raise words.failed(call.verb, new.uuid, "")


def _row(spec: DomainSpec) -> DomainRow:
    rest = {"image": spec.image, "ssh_key": spec.ssh_key, "mac": spec.mac, "host_name": spec.host_name}
    return DomainRow(
        uuid=str(spec.uuid),
        name=spec.name,
        reservation=spec.reservation,
        generation=spec.generation,
        partition=spec.partition.id,
        gpus=gpus_text(spec.partition.gpus),
        devices=" ".join(spec.devices),
        memory=memory_text(spec.partition.share.memory_gib_by_node),
        disk=spec.disk,
        spec=json.dumps(rest, sort_keys=True),
        state=DomainState.OFF,
        off_reason=OffReason.UNKNOWN,
        operation=None,
        is_up=0,
        is_silent=0,
        ignores_acpi=0,
    )


def _start(call: Call, uuid: str) -> Instant | None:
    state = call.state
    domain = state.domain(uuid)
    if domain is None:
        raise words.no_domain(uuid)
    if domain.operation is not None:
        raise words.locked(uuid, domain.operation)
    if domain.state in (DomainState.RUNNING, DomainState.SHUTTING_DOWN):
        return None
    if not domain.is_off:
        raise words.already_running(uuid)
    devices = tuple(_free_device(state, address) for address in domain.addresses)
    _need_memory(state, domain)
    if domain.disk is not None:
        _need_disk(state, domain.disk)
        state.connection.execute("UPDATE disks SET held_by = ? WHERE id = ?", (uuid, domain.disk))
    if call.is_half:
        half = devices[: (len(devices) + 1) // 2]
        state.hold(uuid, [device.address for device in half])
        state.set_domain(uuid, DomainState.PAUSED)
        state.log_domain("vm.stuck", domain, gpus=_gpus_of(half))
        raise words.monitor_closed(uuid)
    state.hold(uuid, domain.addresses)
    # While it starts, libvirt shows a domain as paused.
    state.set_domain(uuid, DomainState.PAUSED, operation=Operation.START)
    draw = state.draw("start", uuid)
    done_at = call.ends_at(durations.start_s(draw, state.profile, gpus=len(domain.gpus.split(","))))
    state.due(done_at, Due.STARTED, uuid)
    fabric = state.connection.execute("SELECT 1 FROM fabric WHERE partition = ?", (domain.partition,)).fetchone()
    state.log_domain(
        "vm.starting",
        domain,
        devices=len(devices),
        dirty=sum(not device.is_clean for device in devices),
        disk=domain.disk,
        is_fabric_set=fabric is not None,
    )
    return done_at


def _free_device(state: RackState, address: str) -> DeviceRow:
    """Return a device that a domain may be started with; raises what is in the way."""
    device = state.device(address)
    if device is None:
        raise words.no_device(address)
    if device.held_by is not None:
        raise words.in_use(address, _name_of(state, device.held_by))
    if not device.is_alive:
        raise words.dead_device(address)
    if device.driver != VFIO:
        raise words.not_detached(address, device.driver)
    if device.is_resetting:
        raise words.resetting(address)
    return device


def _name_of(state: RackState, uuid: str) -> str:
    domain = state.domain(uuid)
    return uuid if domain is None else domain.name


def memory_free_gib(state: RackState) -> dict[int, int]:
    """Return what the running domains leave of each NUMA node.

    A node has its equal part of what is installed, or the largest partition's share of it if that is more.
    """
    nodes = sorted({gpu.numa_node for gpu in state.profile.gpus})
    free = dict.fromkeys(nodes, state.profile.memory_gib // max(1, len(nodes)))
    for partition in state.profile.partitions:
        for node, gib in partition.share.memory_gib_by_node:
            free[node] = max(free.get(node, 0), gib)
    for (memory,) in state.connection.execute("SELECT memory FROM domains WHERE state != 'off'"):
        for node, gib in memory_of(memory):
            free[node] = free.get(node, 0) - gib
    return free


def _need_memory(state: RackState, domain: DomainRow) -> None:
    free = memory_free_gib(state)
    for node, gib in memory_of(domain.memory):
        if gib > free.get(node, 0):
            raise words.no_memory(node, gib, free.get(node, 0))


def _need_disk(state: RackState, disk_id: str) -> None:
    disk = state.disk(disk_id)
    if disk is None:
        raise words.no_disk(disk_id)
    if disk.state == DiskState.PARTIAL:
        raise words.half_disk(disk_id)
    if disk.state != DiskState.READY:
        raise words.disk_locked(disk_id, disk.state)
    if disk.held_by is not None:
        raise words.disk_locked(disk_id, disk.held_by)


def _ask_shutdown(call: Call, uuid: str, *, through_agent: bool) -> None:
    state = call.state
    domain = state.domain(uuid)
    if domain is None:
        raise words.no_domain(uuid)
    if domain.is_off:
        return
    if domain.operation is not None:
        raise words.locked(uuid, domain.operation)
    if through_agent and (domain.is_silent or not domain.is_up):
        raise words.agent_silent(uuid)
    if call.is_deaf:
        state.connection.execute("UPDATE domains SET ignores_acpi = 1 WHERE uuid = ?", (uuid,))
    state.log_domain("vm.shutdown_asked", domain, through_agent=through_agent)
    is_ignored = (call.is_deaf or domain.ignores_acpi) and not through_agent
    if is_ignored or domain.state == DomainState.PAUSED:
        state.log_domain("guest.ignored_shutdown", domain)
    elif domain.state == DomainState.RUNNING and not state.is_due(Due.CLOSING, uuid):
        takes_s = state.draw("shutdown", uuid).within(*durations.SHUTDOWN_S)
        # A guest that still boots hears the button once it is up.
        hears_at = state.now if domain.is_up else max(state.now, state.due_at(Due.GUEST_UP, uuid))
        state.due(hears_at + takes_s - durations.CLOSE_S[1], Due.CLOSING, uuid)
    if call.is_half:
        raise words.failed(call.verb, uuid, "")


def _destroy(call: Call, uuid: str) -> Instant | None:
    state = call.state
    domain = state.domain(uuid)
    if domain is None:
        raise words.no_domain(uuid)
    if domain.is_off:
        return None
    if domain.operation == Operation.DESTROY:
        return state.due_at(Due.DESTROYED, uuid)
    state.stop_what_runs(uuid)
    state.log_domain("vm.destroy_asked", domain)
    if call.is_half:
        held = state.devices_held_by(uuid)
        let_go = held[: len(held) // 2]
        state.connection.executemany(
            "UPDATE devices SET held_by = NULL WHERE address = ?", [(d.address,) for d in let_go]
        )
        state.set_domain(uuid, DomainState.PAUSED)
        state.log_domain("vm.stuck", domain, gpus=_gpus_of(held[len(let_go) :]))
        raise words.still_there(uuid)
    state.set_domain(uuid, DomainState(domain.state), operation=Operation.DESTROY)
    done_at = call.ends_at(durations.destroy_s(state.draw("destroy", uuid), state.profile))
    state.due(done_at, Due.DESTROYED, uuid)
    return done_at


def _gpus_of(devices: tuple[DeviceRow, ...]) -> str:
    return gpus_text(device.gpu for device in devices if device.gpu is not None)


def _undefine(call: Call, uuid: str) -> None:
    state = call.state
    domain = state.domain(uuid)
    if domain is None:
        return
    if not domain.is_off:
        raise words.already_running(uuid)
    state.connection.execute("DELETE FROM domains WHERE uuid = ?", (uuid,))
    state.log_domain("vm.undefined", domain)
    if call.is_half:
        raise words.failed(call.verb, uuid, "")
