"""The verbs of PCI devices and of the NVSwitch fabric on a simulated host."""

from collections.abc import Iterable

from scheduler.core.topology import Partition, PartitionId
from workers.drivers.simulated import durations, words
from workers.drivers.simulated.calls import Call, Calls
from workers.drivers.simulated.faults import RackVerb
from workers.drivers.simulated.state import VFIO, DeviceRow, Due, RackState


class SimulatedPci:
    """`workers.ports.Pci` on a rack."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def bind(self, addresses: tuple[str, ...]) -> None:
        if addresses:
            self._calls.ask(RackVerb.BIND, addresses, lambda call: _bind(call, addresses))

    def ask_reset(self, addresses: tuple[str, ...]) -> None:
        if addresses:
            self._calls.ask(RackVerb.ASK_RESET, addresses, lambda call: _ask_reset(call, addresses))

    def rebind(self, addresses: tuple[str, ...]) -> None:
        if addresses:
            self._calls.ask(RackVerb.REBIND, addresses, lambda call: _rebind(call, addresses))


class SimulatedFabric:
    """`workers.ports.Fabric` on a rack.

    A partition that is still set up after its VM is gone stands in nobody's way: setting up one that overlaps it takes
    it down. It is refused only where a running domain has devices of the new one.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def activate(self, partition: Partition) -> None:
        self._calls.ask(RackVerb.ACTIVATE, (partition.id,), lambda call: _activate(call, partition))

    def deactivate(self, partition: Partition) -> None:
        self._calls.ask(RackVerb.DEACTIVATE, (partition.id,), lambda call: _deactivate(call, partition))


def _here(state: RackState, addresses: Iterable[str]) -> tuple[DeviceRow, ...]:
    devices = []
    for address in addresses:
        device = state.device(address)
        if device is None:
            raise words.no_device(address)
        devices.append(device)
    return tuple(devices)


def _need_free(state: RackState, device: DeviceRow) -> None:
    if device.held_by is not None:
        holder = state.domain(device.held_by)
        raise words.in_use(device.address, device.held_by if holder is None else holder.name)
    if not device.is_alive:
        raise words.dead_device(device.address)


def _first_half(call: Call, devices: tuple[DeviceRow, ...]) -> tuple[DeviceRow, ...]:
    return devices[: (len(devices) + 1) // 2] if call.is_half else devices


def _raise_if_half(call: Call, devices: tuple[DeviceRow, ...]) -> None:
    if call.is_half:
        raise words.failed(call.verb, devices[-1].address, "")


def _set_driver(state: RackState, device: DeviceRow, driver: str) -> None:
    state.connection.execute("UPDATE devices SET driver = ? WHERE address = ?", (driver, device.address))
    state.log_device("device.bound" if driver else "device.unbound", device, driver=driver)


def _bind(call: Call, addresses: tuple[str, ...]) -> None:
    devices = tuple(device for device in _here(call.state, addresses) if device.driver != VFIO)
    for device in devices:
        _need_free(call.state, device)
    for device in _first_half(call, devices):
        _set_driver(call.state, device, VFIO)
    if devices:
        _raise_if_half(call, devices)


def _rebind(call: Call, addresses: tuple[str, ...]) -> None:
    devices = _here(call.state, addresses)
    for device in devices:
        _need_free(call.state, device)
        if device.is_resetting:
            raise words.resetting(device.address)
    bound = _first_half(call, devices)
    for device in devices:
        _set_driver(call.state, device, "")
        if device in bound:
            _set_driver(call.state, device, VFIO)
    _raise_if_half(call, devices)


def _ask_reset(call: Call, addresses: tuple[str, ...]) -> None:
    state = call.state
    devices = _here(state, addresses)
    for device in devices:
        _need_free(state, device)
    for device in _first_half(call, devices):
        if device.is_clean or device.is_resetting:
            continue
        takes_s = durations.reset_s(state.draw("reset", device.address), state.profile)
        state.connection.execute("UPDATE devices SET is_resetting = 1 WHERE address = ?", (device.address,))
        state.due(state.now + takes_s, Due.RESET, device.address)
        state.log_device("reset.asked", device)
    _raise_if_half(call, devices)


def _activate(call: Call, partition: Partition) -> None:
    state = call.state
    active = [
        PartitionId(row[0]) for row in state.connection.execute("SELECT partition FROM fabric ORDER BY partition")
    ]
    if partition.id in active:
        return
    for device in _here(state, state.profile.devices(partition)):
        _need_free(state, device)
    for stale in active:
        if state.profile.partition(stale).overlaps(partition) or _share_switches(state, stale, partition):
            _take_down(state, stale, replaced_by=partition.id)
    state.connection.execute("INSERT INTO fabric (partition) VALUES (?)", (partition.id,))
    state.log("fabric.activated", partition=partition.id)
    if call.is_half:
        raise words.failed(call.verb, partition.id, "")


def _share_switches(state: RackState, stale: PartitionId, partition: Partition) -> bool:
    switches = frozenset(state.profile.partition(stale).share.nvswitches)
    return not switches.isdisjoint(partition.share.nvswitches)


def _deactivate(call: Call, partition: Partition) -> None:
    state = call.state
    if state.connection.execute("SELECT 1 FROM fabric WHERE partition = ?", (partition.id,)).fetchone() is None:
        return
    user = state.connection.execute(
        "SELECT name FROM domains WHERE partition = ? AND state != 'off'", (partition.id,)
    ).fetchone()
    if user is not None:
        raise words.in_use(state.profile.devices(partition)[0], user[0])
    _take_down(state, partition.id, replaced_by=None)
    if call.is_half:
        raise words.failed(call.verb, partition.id, "")


def _take_down(state: RackState, partition: PartitionId, *, replaced_by: PartitionId | None) -> None:
    state.connection.execute("DELETE FROM fabric WHERE partition = ?", (partition,))
    state.log("fabric.deactivated", partition=partition, replaced_by=replaced_by)
