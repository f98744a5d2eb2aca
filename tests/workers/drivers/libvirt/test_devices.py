"""Binding, resets and partitions, where domains come and go."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest

libvirt = pytest.importorskip(
    "libvirt", reason="libvirt-python is not installed: it is built where libvirt's headers are"
)

from scheduler.core.requests import HostId
from tests.contract.plain_host import plain_host
from workers.drivers.libvirt.connection import CALL_WITHIN_S, Connection
from workers.drivers.libvirt.devices import LibvirtPci, PassthroughFabric
from workers.drivers.libvirt.node_devices import NodeDevices
from workers.drivers.libvirt.resets import Resets
from workers.ports import DeviceInUse

FIRST = plain_host().partitions_of_size(1)[0]
BOTH = plain_host().partitions_of_size(2)[0]


class FakeDomain:
    def __init__(self, partition: str, slot: str) -> None:
        self._partition, self._slot = partition, slot

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802
        if not self._slot:
            error = libvirt.libvirtError("gone")
            error.err = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_FROM_QEMU, "gone", 2, "gone", None, None, -1, -1)
            raise error
        return (
            f"<domain><uuid>{UUID(int=1)}</uuid><name>runs</name><metadata><n:start xmlns:n='urn:nightshift:domain:1'"
            f" reservation='r-1' generation='1' partition='{self._partition}'/></metadata><devices>"
            f"<hostdev type='pci'><source><address domain='0' bus='0xf0' slot='{self._slot}' function='0'/></source>"
            "</hostdev></devices></domain>"
        )


class FakeHost:
    def __init__(self) -> None:
        self.domains: list[FakeDomain] = []

    def listAllDomains(self, _flags: int) -> list[FakeDomain]:  # noqa: N802
        return self.domains


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def connection(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    connection = Connection(HostId("dgx2-a"), "test:///default")
    monkeypatch.setattr(connection, "_opened", lambda: host)
    yield connection
    connection.close()


def test_binding_waits_as_long_as_the_drivers_of_so_many_devices_may_take(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits_s: list[float] = []

    def block(_call: Callable[[Any], None], *, limit_s: float, **_: Any) -> None:
        limits_s.append(limit_s)

    monkeypatch.setattr(connection, "block", block)
    resets = Resets(None)
    pci = LibvirtPci(connection, NodeDevices(plain_host(), resets, None), resets, lambda: None)
    pci.bind(tuple(gpu.address for gpu in plain_host().gpus))
    assert limits_s[0] >= CALL_WITHIN_S + 16 * 5


def test_a_domain_that_goes_while_it_is_read_is_in_nobodys_way(connection: Connection, host: FakeHost) -> None:
    host.domains = [FakeDomain("", "")]
    fabric = PassthroughFabric(connection, plain_host())
    fabric.activate(FIRST)
    fabric.deactivate(FIRST)


def test_a_partition_across_a_running_one_is_refused_and_its_own_is_not(connection: Connection, host: FakeHost) -> None:
    host.domains = [FakeDomain("", ""), FakeDomain(FIRST.id, "0x00")]
    fabric = PassthroughFabric(connection, plain_host())
    fabric.activate(FIRST)
    with pytest.raises(DeviceInUse, match=r"0000:f0:00\.0 is in use by driver QEMU, domain runs"):
        fabric.activate(BOTH)
    with pytest.raises(DeviceInUse):
        fabric.deactivate(FIRST)
    fabric.deactivate(BOTH)
