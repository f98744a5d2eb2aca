"""libvirt's errors as the ports' own: by code where libvirt has one, by QEMU's words where it has none.

Only translation. The host's own words stay in the message, since people search for them; what to do follows them where
it is known.
"""

import re

import libvirt

from scheduler.core.requests import HostId
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
)

REACH_MEND = "is the host up, is libvirtd running there, does a firewall stand between?"
LOGIN_MEND = "give the worker's user access: its SSH key or TLS certificate for a remote URI, the group libvirt for qemu:///system"

_BY_CODE: dict[int, type[DriverError]] = {
    libvirt.VIR_ERR_NO_DOMAIN: NoSuchDomain,
    libvirt.VIR_ERR_NO_NODE_DEVICE: DeviceMissing,
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE: AgentSilent,
    libvirt.VIR_ERR_AGENT_UNSYNCED: AgentSilent,
    libvirt.VIR_ERR_NO_STORAGE_VOL: NoSuchDisk,
    libvirt.VIR_ERR_NO_STORAGE_POOL: NoSuchDisk,
    libvirt.VIR_ERR_OPERATION_TIMEOUT: DomainBusy,
}
_UNREACHABLE = frozenset(
    {
        libvirt.VIR_ERR_NO_CONNECT,
        libvirt.VIR_ERR_INVALID_CONN,
        libvirt.VIR_ERR_AUTH_FAILED,
        libvirt.VIR_ERR_AUTH_CANCELLED,
        libvirt.VIR_ERR_AUTH_UNAVAILABLE,
        libvirt.VIR_ERR_RPC,
    }
)
_TRANSPORT = frozenset({libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE})
_LOGIN = frozenset({libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_AUTH_CANCELLED, libvirt.VIR_ERR_AUTH_UNAVAILABLE})
_LOGIN_WORDS = re.compile(
    r"permission denied|host key verification|authentication|certificate|publickey|access denied", re.IGNORECASE
)
_QEMUS_CLOCK = re.compile(r"\b\d{4}-\d\d-\d\dT[\d:.]+Z (?=qemu)")
"""What QEMU puts before its words; with it the same refusal would be another one each time."""
_LOST_WORDS = re.compile(r"client socket is closed", re.IGNORECASE)
"""Resets and broken pipes are told by QEMU's monitor too: those of the connection are known by who says so."""

_BY_WORDS: tuple[tuple[re.Pattern[str], type[DriverError], str], ...] = tuple(
    (re.compile(words, re.IGNORECASE), kind, mend)
    for words, kind, mend in (
        (r"is in use by driver \w+, domain", DeviceInUse, ""),
        (r"must be manually detached from the host", DeviceInUse, ""),
        (r"pci device .*(not detached from|already in use|is in use)", DeviceInUse, ""),
        (r"group \d+ is not viable", DeviceInUse, "bind every device of its IOMMU group to vfio-pci"),
        (r"vfio.*device or resource busy", DeviceInUse, ""),
        (r"is already (running|active)|domain is running|still being allocated", DomainBusy, ""),
        (r"cannot acquire state change lock", DomainBusy, ""),
        (r"failed to get \"\w+\" lock", DiskInUse, ""),
        (
            r"unable to map backing store|cannot set up guest memory|cannot allocate memory|insufficient free memory"
            r"|hugepages? .*(not available|unavailable)|unable to find any usable hugetlbfs|mem_prealloc",
            NotEnoughMemory,
            "reserve hugepages on the NUMA node of its GPUs, or stop what else uses them",
        ),
        (
            r"host doesn't support passthrough|no iommu|vfio.*(no such file|not supported)"
            r"|iommu (is )?not (available|enabled|supported)"
            r"|host does not support vfio|unable to find an iommu",
            DriverError,
            "switch the IOMMU on: VT-d or AMD-Vi in the firmware, intel_iommu=on or amd_iommu=on for the kernel",
        ),
        (r"no space left on device|disk quota exceeded|not enough space", PoolFull, "make room in the pool"),
        (
            r"unknown pci header type|device .* not found: could not access|(vfio|pci device).*no such device",
            DeviceMissing,
            "",
        ),
        (r"guest agent", AgentSilent, ""),
        (
            r"cannot access (storage|backing) file .*permission denied|could not open .*permission denied",
            DriverError,
            "let the user that QEMU runs as read and write the pools' folders",
        ),
        (
            r"not in qcow2 format|cannot access (storage|backing) file .*no such file|could not open .*no such file",
            NoSuchDisk,
            "",
        ),
        (r"virtlogd", DriverError, "systemctl enable --now virtlogd.socket there"),
        (r"domain is not running", DomainBusy, ""),
    )
)


def from_libvirt(error: libvirt.libvirtError, *, host: HostId, uri: str, what: str, subject: str = "") -> DriverError:
    """Return the port's error for one of libvirt's."""
    code, words = error.get_error_code(), _QEMUS_CLOCK.sub("", (error.get_error_message() or str(error)).strip())
    if what == "open" or (is_about_the_connection(error) and not is_unexplained(error)):
        mend = LOGIN_MEND if code in _LOGIN or _LOGIN_WORDS.search(words) else REACH_MEND
        return HostUnreachable(f"{uri}: {words}; {mend}", host=host, mend=mend)
    kind = _BY_CODE.get(code)
    mend = ""
    if kind is None:
        kind, mend = next(
            ((kind, mend) for pattern, kind, mend in _BY_WORDS if pattern.search(words)), (DriverError, "")
        )
    return kind(f"{words}; {mend}" if mend else words, host=host, verb=what, subject=subject, mend=mend)


def is_unexplained(error: libvirt.libvirtError) -> bool:
    """Whether an error has lost what libvirt said.

    It is kept per thread, and freeing any object of libvirt's forgets it: Python may do that, collecting its garbage,
    between a call and the question what became of it.
    """
    return error.get_error_code() is None


def is_about_the_connection(error: libvirt.libvirtError) -> bool:
    """Whether an error says that the host was not reached, or says nothing: nothing is known about what it did."""
    if is_unexplained(error):
        return True
    words = error.get_error_message() or str(error)
    if error.get_error_code() in _UNREACHABLE or _LOST_WORDS.search(words):
        return True
    is_transport = error.get_error_domain() in _TRANSPORT
    return is_transport and error.get_error_code() in (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_INTERNAL_ERROR)


def is_code(error: libvirt.libvirtError, code: int) -> bool:
    """Whether an error of libvirt's has this code."""
    return bool(error.get_error_code() == code)


def too_old(host: HostId, found: int, oldest: int) -> HostUnreachable:
    """Return the refusal of a host whose libvirt lacks what is needed."""
    mend = f"install libvirt {version_text(oldest)} or newer there"
    return HostUnreachable(
        f"the libvirt of {host} is {version_text(found)}, which is too old; {mend}", host=host, mend=mend
    )


def version_text(number: int) -> str:
    """Write libvirt's version number: 9000000 is 9.0.0."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
