"""What libvirt says becomes the ports' own errors, with what to do where that is known."""

from typing import Any

import pytest

libvirt = pytest.importorskip(
    "libvirt", reason="libvirt-python is not installed: it is built where libvirt's headers are"
)

from scheduler.core.requests import HostId
from workers.drivers.libvirt.refusals import from_libvirt, version_text
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

MONITOR = "internal error: process exited while connecting to monitor: qemu-system-x86_64:"


def error_of(code: int, words: str, *, domain: int = libvirt.VIR_FROM_QEMU) -> Any:
    error = libvirt.libvirtError(words)
    error.err = (code, domain, words, 2, words, None, None, -1, -1)
    return error


def translated(code: int, words: str, *, what: str = "start", domain: int = libvirt.VIR_FROM_QEMU) -> DriverError:
    return from_libvirt(
        error_of(code, words, domain=domain), host=HostId("dgx2-a"), uri="qemu+tls://dgx2-a/system", what=what
    )


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        (libvirt.VIR_ERR_NO_DOMAIN, "Domain not found: no domain with matching uuid 'x'", NoSuchDomain),
        (
            libvirt.VIR_ERR_OPERATION_INVALID,
            "Requested operation is not valid: PCI device 0000:34:00.0 is in use by driver QEMU, domain by-hand",
            DeviceInUse,
        ),
        (
            libvirt.VIR_ERR_OPERATION_INVALID,
            "Requested operation is not valid: Unmanaged PCI device 0000:34:00.0 must be manually detached from the"
            " host",
            DeviceInUse,
        ),
        (libvirt.VIR_ERR_INTERNAL_ERROR, f"{MONITOR} vfio 0000:34:00.0: group 7 is not viable", DeviceInUse),
        (libvirt.VIR_ERR_OPERATION_INVALID, "Requested operation is not valid: domain is already running", DomainBusy),
        (
            libvirt.VIR_ERR_OPERATION_TIMEOUT,
            "Timed out during operation: cannot acquire state change lock (held by monitor=remoteDispatchDomainCreate)",
            DomainBusy,
        ),
        (
            libvirt.VIR_ERR_INTERNAL_ERROR,
            f'{MONITOR} -device virtio-blk-pci: Failed to get "write" lock',
            DiskInUse,
        ),
        (
            libvirt.VIR_ERR_INTERNAL_ERROR,
            f"{MONITOR} unable to map backing store for guest RAM: Cannot allocate memory",
            NotEnoughMemory,
        ),
        (
            libvirt.VIR_ERR_SYSTEM_ERROR,
            "cannot allocate 53687091200 bytes in file '/x': No space left on device",
            PoolFull,
        ),
        (libvirt.VIR_ERR_NO_STORAGE_VOL, "Storage volume not found: no storage vol with matching name 'x'", NoSuchDisk),
        (libvirt.VIR_ERR_SYSTEM_ERROR, "Cannot access storage file '/x.qcow2': No such file or directory", NoSuchDisk),
        (libvirt.VIR_ERR_NO_NODE_DEVICE, "Node device not found: no node device with matching name 'x'", DeviceMissing),
        (
            libvirt.VIR_ERR_INTERNAL_ERROR,
            "internal error: Unknown PCI header type '127' for device '0000:34:00.0'",
            DeviceMissing,
        ),
        (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, "Guest agent is not responding: not connected", AgentSilent),
        (
            libvirt.VIR_ERR_INTERNAL_ERROR,
            "internal error: qemu unexpectedly closed the monitor: Unable to read from monitor: Connection reset by"
            " peer",
            DriverError,
        ),
        (libvirt.VIR_ERR_SYSTEM_ERROR, "Cannot get interface MTU on 'virbr1': No such device", DriverError),
        (
            libvirt.VIR_ERR_SYSTEM_ERROR,
            "Cannot access storage file '/p/d-1.qcow2' (as uid:64055, gid:108): Permission denied",
            DriverError,
        ),
        (
            libvirt.VIR_ERR_SYSTEM_ERROR,
            "Cannot access backing file '/i/ubuntu' of storage file '/p/d-1.qcow2': No such file or directory",
            NoSuchDisk,
        ),
        (
            libvirt.VIR_ERR_INTERNAL_ERROR,
            f"{MONITOR} Failed to find an available port: Address already in use",
            DriverError,
        ),
        (libvirt.VIR_ERR_OPERATION_INVALID, "Requested operation is not valid: domain is not running", DomainBusy),
        (
            libvirt.VIR_ERR_SYSTEM_ERROR,
            "Failed to connect socket to '/run/libvirt/virtlogd-sock': No such file or directory",
            DriverError,
        ),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "something nobody has seen before", DriverError),
    ],
)
def test_a_refusal_is_recognised_and_keeps_the_hosts_words(code: int, words: str, kind: type[DriverError]) -> None:
    error = translated(code, words)
    assert type(error) is kind
    assert error.message.startswith(words)


@pytest.mark.parametrize(
    ("code", "words", "domain", "mend"),
    [
        (
            libvirt.VIR_ERR_SYSTEM_ERROR,
            "unable to connect to server at 'dgx2-a:16514'",
            libvirt.VIR_FROM_RPC,
            "libvirtd",
        ),
        (libvirt.VIR_ERR_AUTH_FAILED, "authentication failed", libvirt.VIR_FROM_RPC, "SSH key or TLS certificate"),
        (
            libvirt.VIR_ERR_SYSTEM_ERROR,
            "Cannot recv data: Permission denied (publickey).: Connection reset by peer",
            libvirt.VIR_FROM_RPC,
            "SSH key or TLS certificate",
        ),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "internal error: client socket is closed", libvirt.VIR_FROM_RPC, "libvirtd"),
    ],
)
def test_a_host_that_cannot_be_reached_says_what_to_look_at(code: int, words: str, domain: int, mend: str) -> None:
    error = translated(code, words, what="look", domain=domain)
    assert type(error) is HostUnreachable
    assert mend in error.message
    assert mend in str(error.facts["mend"])
    assert "qemu+tls://dgx2-a/system" in error.message


def test_a_pool_that_is_full_while_a_volume_is_written_is_no_host_that_is_lost() -> None:
    error = translated(
        libvirt.VIR_ERR_SYSTEM_ERROR,
        "cannot write to stream: No space left on device",
        what="define",
        domain=libvirt.VIR_FROM_STREAMS,
    )
    assert type(error) is PoolFull


@pytest.mark.parametrize(
    ("words", "mend"),
    [
        ("Failed to connect socket to '/run/libvirt/virtlogd-sock': No such file or directory", "virtlogd.socket"),
        (
            "Cannot access storage file '/p/d-1.qcow2' (as uid:64055, gid:108): Permission denied",
            "user that QEMU runs as",
        ),
    ],
)
def test_what_to_do_is_said_where_it_is_known(words: str, mend: str) -> None:
    assert mend in translated(libvirt.VIR_ERR_SYSTEM_ERROR, words).message


def test_a_word_about_an_iommu_is_no_advice_to_switch_it_on() -> None:
    error = translated(
        libvirt.VIR_ERR_INTERNAL_ERROR, f"{MONITOR} intel-iommu: interrupt remapping is not allowed here"
    )
    assert "intel_iommu=on" not in error.message


def test_a_host_without_an_iommu_is_told_how_to_switch_it_on() -> None:
    error = translated(
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        "unsupported configuration: host doesn't support passthrough of host PCI devices",
    )
    assert "intel_iommu=on" in error.message


def test_the_same_refusal_has_the_same_words_each_time() -> None:
    said = [f"internal error: monitor: 2026-03-02T19:0{n}:11.9Z qemu-system-x86_64: no room" for n in (1, 2)]
    assert {translated(libvirt.VIR_ERR_INTERNAL_ERROR, words).message for words in said} == {
        "internal error: monitor: qemu-system-x86_64: no room"
    }


def test_a_version_is_written_as_libvirt_does() -> None:
    assert version_text(9_000_000) == "9.0.0"
    assert version_text(12_008_001) == "12.8.1"
