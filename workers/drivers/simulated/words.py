"""Refusals in libvirt's and QEMU's own words, as the ports' exceptions.

Only texts: when to refuse is decided by the verbs. The texts are those that real hosts show, so that what reads them
(people, and code that recognises a cause) meets the same words here and there.
"""

from scheduler.core.errors import FactValue
from scheduler.core.requests import DiskId
from scheduler.core.spans import Instant
from workers.ports import (
    AgentSilent,
    DeviceInUse,
    DeviceMissing,
    DiskInUse,
    DomainBusy,
    DriverError,
    HostUnreachable,
    NoSuchDisk,
    NoSuchDomain,
    NotEnoughMemory,
    PoolFull,
    VerbTimeout,
)

_MONITOR = "internal error: process exited while connecting to monitor: qemu-system-x86_64:"


def disk_file(disk: str) -> str:
    """Return where a disk would be on a real host."""
    return f"/var/lib/nightshift/disks/{disk}.qcow2"


def unreachable(host: str, until_at: Instant) -> HostUnreachable:
    return HostUnreachable(
        f"unable to connect to server at '{host}:16514': No route to host", host=host, until_at=until_at
    )


def connection_lost(host: str) -> HostUnreachable:
    return HostUnreachable("Cannot recv data: Connection reset by peer", host=host)


def silent_host(host: str) -> HostUnreachable:
    return HostUnreachable("internal error: connection closed due to keepalive timeout", host=host)


def timed_out(verb: str, subject: str, timeout_s: int) -> VerbTimeout:
    return VerbTimeout(
        f"{verb} of {subject} did not end within {timeout_s} s; it goes on",
        verb=verb,
        subject=subject,
        limit_s=timeout_s,
    )


def no_domain(uuid: str) -> NoSuchDomain:
    return NoSuchDomain(f"Domain not found: no domain with matching uuid '{uuid}'", domain=uuid)


def name_taken(name: str, uuid: str) -> DriverError:
    return DriverError(f"operation failed: domain '{name}' already exists with uuid {uuid}", name=name, domain=uuid)


def already_running(uuid: str) -> DomainBusy:
    return DomainBusy("Requested operation is not valid: domain is already running", domain=uuid)


def locked(uuid: str, operation: str) -> DomainBusy:
    holder = {"start": "remoteDispatchDomainCreate", "destroy": "remoteDispatchDomainDestroy"}[operation]
    return DomainBusy(
        f"Timed out during operation: cannot acquire state change lock (held by monitor={holder})", domain=uuid
    )


def monitor_closed(uuid: str) -> DriverError:
    return DriverError("internal error: qemu unexpectedly closed the monitor", domain=uuid)


def still_there(uuid: str) -> DriverError:
    return DriverError("Failed to terminate process with SIGKILL: Device or resource busy", domain=uuid)


def in_use(address: str, domain: str) -> DeviceInUse:
    return DeviceInUse(
        f"Requested operation is not valid: PCI device {address} is in use by driver QEMU, domain {domain}",
        device=address,
        domain=domain,
    )


def resetting(address: str) -> DeviceInUse:
    return DeviceInUse(
        f"{_MONITOR} -device vfio-pci,host={address}: vfio {address}: failed to open group: Device or resource busy",
        device=address,
    )


def not_detached(address: str, driver: str) -> DeviceInUse:
    return DeviceInUse(
        f"Requested operation is not valid: Unmanaged PCI device {address} must be manually detached from the host",
        device=address,
        driver=driver,
    )


def no_device(address: str) -> DeviceMissing:
    return DeviceMissing(
        f"Device {address} not found: could not access /sys/bus/pci/devices/{address}/config:"
        " No such file or directory",
        device=address,
    )


def dead_device(address: str) -> DeviceMissing:
    return DeviceMissing(f"internal error: Unknown PCI header type '127' for device '{address}'", device=address)


def no_memory(node: int, wanted_gib: int, free_gib: int) -> NotEnoughMemory:
    return NotEnoughMemory(
        f"{_MONITOR} cannot set up guest memory 'ram-node{node}': Cannot allocate memory",
        numa_node=node,
        wanted_gib=wanted_gib,
        free_gib=free_gib,
    )


def no_disk(disk: str) -> NoSuchDisk:
    return NoSuchDisk(f"Cannot access storage file '{disk_file(disk)}': No such file or directory", disk=disk)


def half_disk(disk: str) -> NoSuchDisk:
    return NoSuchDisk(f"{_MONITOR} Image is not in qcow2 format: {disk_file(disk)}", disk=disk)


def disk_locked(disk: str, by: str) -> DiskInUse:
    return DiskInUse(
        f'{_MONITOR} Failed to get "write" lock. Is another process using the image [{disk_file(disk)}]?',
        disk=disk,
        by=by,
    )


def no_image(image: str, disk: DiskId) -> NoSuchDisk:
    return NoSuchDisk(f"Storage volume not found: no storage vol with matching name '{image}'", image=image, disk=disk)


def pool_full(disk: DiskId, size_gib: int, free_gib: int) -> PoolFull:
    return PoolFull(
        f"cannot allocate {size_gib << 30} bytes in file '{disk_file(disk)}': No space left on device",
        disk=disk,
        size_gib=size_gib,
        free_gib=free_gib,
    )


def copy_failed(disk: DiskId) -> DriverError:
    return DriverError(
        f"internal error: Child process (/usr/bin/qemu-img convert -O qcow2 {disk_file(disk)})"
        " unexpected exit status 1",
        disk=disk,
    )


def not_deleted(disk: DiskId) -> DriverError:
    return DriverError(f"cannot unlink file '{disk_file(disk)}': Input/output error", disk=disk)


def agent_silent(uuid: str) -> AgentSilent:
    return AgentSilent("Guest agent is not responding: QEMU guest agent is not connected", domain=uuid)


def failed(verb: str, subject: str, message: str) -> DriverError:
    """Return the failure of a `fail` fault: its own words, or what a host says of such a verb."""
    facts: dict[str, FactValue] = {"verb": verb, "subject": subject}
    if verb == "look":
        return HostUnreachable(
            message or f"unable to connect to server at '{subject}:16514': Connection refused", **facts
        )
    words = message or {
        "start": f"{_MONITOR} -device vfio-pci: vfio: error getting device from group: Input/output error",
        "destroy": "Failed to terminate process with SIGKILL: Device or resource busy",
        "ask_reset": f"internal error: Unable to reset PCI device {subject}: no FLR, PM reset or bus reset available",
        "bind": f"Failed to bind PCI device '{subject}' to vfio-pci: Device or resource busy",
        "rebind": f"Failed to bind PCI device '{subject}' to vfio-pci: Device or resource busy",
        "create_disk": "internal error: Child process (/usr/bin/qemu-img convert) unexpected exit status 1",
        "delete_disk": f"cannot unlink file '{disk_file(subject)}': Input/output error",
    }.get(verb, "internal error: client socket is closed")
    return DriverError(words, **facts)
