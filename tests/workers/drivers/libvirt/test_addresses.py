"""URIs that mean this machine, URIs that must ask nothing, and how devices are named."""

import pytest

from workers.drivers.libvirt.addresses import address_of, device_name, is_local, without_questions


@pytest.mark.parametrize("uri", ["qemu:///system", "qemu:///session", "qemu+unix:///system"])
def test_a_uri_without_a_host_is_this_machine(uri: str) -> None:
    assert is_local(uri)


@pytest.mark.parametrize(
    "uri", ["qemu+ssh://dgx2-a/system", "qemu+tls://dgx2-a/system", "qemu://localhost/system", "test:///default"]
)
def test_a_uri_with_a_host_is_not_this_machine(uri: str) -> None:
    assert not is_local(uri)


@pytest.mark.parametrize("uri", ["qemu+unix:///system?socket=/run/forwarded", "qemu:///system?mode=direct&socket="])
def test_a_socket_that_is_named_may_lead_to_another_machine_whose_devices_are_not_here(uri: str) -> None:
    assert not is_local(uri)


@pytest.mark.parametrize(
    ("uri", "opened"),
    [
        ("qemu+ssh://root@dgx2-a/system", "qemu+ssh://root@dgx2-a/system?no_tty=1"),
        ("qemu+ssh://dgx2-a:22/system?keyfile=/k", "qemu+ssh://dgx2-a:22/system?keyfile=/k&no_tty=1"),
        ("qemu+ssh://dgx2-a/system?no_tty=0", "qemu+ssh://dgx2-a/system?no_tty=0"),
        ("qemu+tls://dgx2-a/system", "qemu+tls://dgx2-a/system"),
        ("qemu:///system", "qemu:///system"),
        ("test:///default", "test:///default"),
    ],
)
def test_ssh_is_told_to_ask_nothing_at_a_terminal(uri: str, opened: str) -> None:
    assert without_questions(uri) == opened


def test_devices_are_named_as_libvirt_and_linux_do() -> None:
    assert device_name("0000:34:00.0") == "pci_0000_34_00_0"
    assert address_of(0, 0x34, 0x1F, 7) == "0000:34:1f.7"
