"""A host as it is looked at, on libvirt's own test driver: in this process, without a daemon."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

libvirt = pytest.importorskip(
    "libvirt", reason="libvirt-python is not installed: it is built where libvirt's headers are"
)

from scheduler.core.facts import DomainState, HostTrouble, OffReason, TroubleKind
from scheduler.core.requests import DiskId, HostId, ReservationId
from tests.contract.plain_host import plain_host
from workers.drivers.libvirt import host as module
from workers.drivers.libvirt import hypervisor as hypervisor_module
from workers.drivers.libvirt.host import BOOT_UNKNOWN, LibvirtHost
from workers.drivers.libvirt.look import _observed
from workers.drivers.libvirt.reading import read_domain
from workers.ports import DomainSpec, HostUnreachable

RUNS, OFF = UUID(int=1), UUID(int=2)
GPU = "0000:f0:00.0"


def domain(uuid: UUID, name: str, *, state: int, gpu: str = "00") -> str:
    return f"""
      <domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>
        <test:runstate>{state}</test:runstate>
        <name>{name}</name><uuid>{uuid}</uuid><memory>1024</memory><os><type>hvm</type></os>
        <devices>
          <disk type='file' device='disk'><source file='/nightshift/d-1.qcow2'/><target dev='vda'/></disk>
          <hostdev mode='subsystem' type='pci' managed='no'>
            <source><address domain='0' bus='0xf0' slot='0x{gpu}' function='0'/></source>
          </hostdev>
        </devices>
      </domain>"""


def device(slot: str) -> str:
    place = f"domain='0' bus='0xf0' slot='0x{slot}' function='0'"
    return f"""
      <device>
        <name>pci_0000_f0_{slot}_0</name><parent>computer</parent>
        <capability type='pci'>
          <domain>0</domain><bus>240</bus><slot>{int(slot, 16)}</slot><function>0</function>
          <product id='0x1db8'/><vendor id='0x10de'/>
          <iommuGroup number='7'><address {place}/></iommuGroup>
        </capability>
      </device>"""


def volume(name: str, backing: str) -> str:
    return f"""
      <volume type='file'><name>{name}</name><capacity unit='GiB'>10</capacity>
        <target><path>/nightshift/{name}</path><format type='qcow2'/></target>{backing}
      </volume>"""


@pytest.fixture
def uri(tmp_path: Path) -> str:
    backing = "<backingStore><path>/images/ubuntu</path><format type='raw'/></backingStore>"
    computer = """
      <device><name>computer</name><capability type='system'><hardware><vendor>x</vendor><version/><serial>1</serial>
        <uuid>6f14a8d0-8c4b-4d1c-ae8e-9cd7d37ed9e2</uuid></hardware><firmware><vendor>x</vendor><version>1</version>
        <release_date>1</release_date></firmware></capability></device>"""
    (tmp_path / "node.xml").write_text(
        f"""<node>
          {domain(RUNS, "runs", state=1)}{domain(OFF, "off", state=5, gpu="01")}
          {computer}{device("00")}{device("01")}
          <pool type='dir'><name>nightshift</name><target><path>/nightshift</path></target>
            {volume("d-1.qcow2", backing)}
          </pool>
        </node>"""
    )
    return f"test://{tmp_path}/node.xml"


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def host(uri: str, told: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[LibvirtHost]:
    monkeypatch.setattr(module, "read_boot_id", lambda _conn: "boot-1")
    plain = plain_host()
    profile = replace(
        plain, gpus=plain.gpus[:2], vm=replace(plain.vm, network="nightshift", network_filter="clean-traffic")
    )
    host = LibvirtHost(HostId("dgx2-a"), profile, uri, on_change=lambda: told.append("changed"))
    yield host
    host.close()


def troubles(host: LibvirtHost) -> dict[str, HostTrouble]:
    return {trouble.code: trouble for trouble in host.drivers().hypervisor.look().troubles}


def test_a_look_shows_domains_devices_and_disks_that_agree(host: LibvirtHost) -> None:
    seen = host.drivers().hypervisor.look()
    assert [(domain.uuid, domain.state) for domain in seen.domains] == [
        (RUNS, DomainState.RUNNING),
        (OFF, DomainState.OFF),
    ]
    assert [(device.address, device.held_by) for device in seen.devices] == [(GPU, RUNS), ("0000:f0:01.0", None)]
    assert [(disk.id, disk.is_ready, disk.held_by) for disk in seen.disks] == [("d-1", True, RUNS)]
    assert seen.boot_id == "boot-1"


def test_what_a_host_has_no_driver_for_is_unverified_and_hides_nothing(host: LibvirtHost) -> None:
    found = troubles(host)
    assert found["check.network"].kind is TroubleKind.UNVERIFIED
    assert "virNWFilterLookupByName" in found["check.network"].problem
    assert {"host.no_iommu", "host.no_network", "host.no_pool", "check.reset_done"} <= {*found}


def test_a_host_that_keeps_its_boot_id_to_itself_is_looked_at_and_says_so(
    host: LibvirtHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_conn: Any) -> str:
        error = libvirt.libvirtError("x")
        words = "cannot open volume '/proc/sys/kernel/random/boot_id': Permission denied"
        error.err = (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_STORAGE, words, 2, words, None, None, -1, -1)
        raise error

    monkeypatch.setattr(module, "read_boot_id", refused)
    assert host.drivers().hypervisor.look().boot_id == BOOT_UNKNOWN
    assert "Permission denied" in troubles(host)["check.boot_id"].problem


def test_a_host_that_is_lost_while_its_boot_id_is_read_is_not_reached(
    host: LibvirtHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_conn: Any) -> str:
        error = libvirt.libvirtError("x")
        words = "internal error: client socket is closed"
        error.err = (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC, words, 2, words, None, None, -1, -1)
        raise error

    monkeypatch.setattr(module, "read_boot_id", lost)
    with pytest.raises(HostUnreachable):
        host.drivers().hypervisor.look()


def test_whoever_waits_for_a_host_is_told_when_a_domain_starts_and_not_after_the_end(
    host: LibvirtHost, told: list[str]
) -> None:
    host.drivers().hypervisor.look()
    hand = host._connection._opened()
    hand.lookupByUUIDString(str(OFF)).create()
    _wait_until(lambda: bool(told))
    told.clear()
    host._connection._happened(hand, None, 0, 0, host._on_change)
    assert told == ["changed"]
    host.close()
    host._connection._happened(hand, None, 0, 0, host._on_change)
    assert told == ["changed"]


def test_the_devices_of_a_start_are_used_whether_anybody_looks_meanwhile_or_not(host: LibvirtHost) -> None:
    drivers = host.drivers()
    drivers.hypervisor.start(OFF, timeout_s=10)
    assert host._resets._known["0000:f0:01.0"].state.value == "used since its last reset"


def test_a_definition_that_an_older_libvirt_does_not_know_all_of_is_taken_without_its_schema(
    host: LibvirtHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class OlderLibvirt:
        def lookupByUUIDString(self, _uuid: str) -> Any:  # noqa: N802
            error = libvirt.libvirtError("x")
            error.err = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_FROM_QEMU, "x", 2, "x", None, None, -1, -1)
            raise error

        def defineXMLFlags(self, _xml: str, flags: int) -> None:  # noqa: N802
            asked.append(flags)
            if flags:
                words = "XML document failed to validate against schema: Extra element maxphysaddr"
                error = libvirt.libvirtError(words)
                error.err = (libvirt.VIR_ERR_XML_INVALID_SCHEMA, 0, words, 2, words, None, None, -1, -1)
                raise error

    partition = host.profile.partitions[0]
    spec = DomainSpec(
        uuid=OFF,
        name="r-1-1g0",
        reservation=ReservationId("r-1"),
        generation=1,
        partition=partition,
        devices=(),
        disk=DiskId("d-1"),
        image="ubuntu",
        ssh_key=None,
        mac="52:54:00:12:34:56",
        host_name="r-1",
    )
    monkeypatch.setattr(host._connection, "_opened", OlderLibvirt)
    monkeypatch.setattr(host._images, "paths_of", lambda _spec: ("/p/d-1.qcow2", "/p/d-1.seed.iso"))
    monkeypatch.setattr(hypervisor_module, "domain_xml", lambda *_, **__: "<domain/>")
    host.drivers().hypervisor.define(spec)
    assert asked == [libvirt.VIR_DOMAIN_DEFINE_VALIDATE, 0]


@pytest.mark.parametrize(
    ("state", "why", "is_active", "shown", "is_busy", "off_reason"),
    [
        (libvirt.VIR_DOMAIN_RUNNING, 1, True, DomainState.RUNNING, False, None),
        (libvirt.VIR_DOMAIN_BLOCKED, 0, True, DomainState.RUNNING, False, None),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER, True, DomainState.PAUSED, False, None),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR, True, DomainState.PAUSED, False, None),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP, True, DomainState.PAUSED, True, None),
        (libvirt.VIR_DOMAIN_PMSUSPENDED, 0, True, DomainState.PAUSED, False, None),
        (libvirt.VIR_DOMAIN_SHUTDOWN, 0, True, DomainState.SHUTTING_DOWN, False, None),
        (libvirt.VIR_DOMAIN_SHUTOFF, 0, True, DomainState.PAUSED, True, None),
        (libvirt.VIR_DOMAIN_CRASHED, 0, True, DomainState.PAUSED, False, None),
        (libvirt.VIR_DOMAIN_NOSTATE, 0, True, DomainState.UNKNOWN, False, None),
        (99, 0, True, DomainState.UNKNOWN, False, None),
        (libvirt.VIR_DOMAIN_SHUTOFF, 1, False, DomainState.OFF, False, OffReason.SHUTDOWN),
        (libvirt.VIR_DOMAIN_SHUTOFF, 2, False, DomainState.OFF, False, OffReason.DESTROYED),
        (libvirt.VIR_DOMAIN_SHUTOFF, 3, False, DomainState.OFF, False, OffReason.CRASHED),
        (libvirt.VIR_DOMAIN_SHUTOFF, 4, False, DomainState.OFF, False, OffReason.UNKNOWN),
        (libvirt.VIR_DOMAIN_SHUTOFF, 5, False, DomainState.OFF, False, OffReason.UNKNOWN),
        (libvirt.VIR_DOMAIN_SHUTOFF, 6, False, DomainState.OFF, False, OffReason.FAILED),
        (libvirt.VIR_DOMAIN_SHUTOFF, 8, False, DomainState.OFF, False, OffReason.UNKNOWN),
        (libvirt.VIR_DOMAIN_CRASHED, 0, False, DomainState.OFF, False, OffReason.CRASHED),
    ],
)
def test_a_state_is_what_converging_knows_it_as(
    state: int, why: int, is_active: bool, shown: DomainState, is_busy: bool, off_reason: OffReason | None
) -> None:
    described = read_domain(f"<domain><uuid>{RUNS}</uuid><name>runs</name></domain>")
    seen = _observed(described, {"state.state": state, "state.reason": why}, is_active=is_active, is_busy=False)
    assert (seen.state, seen.is_busy, seen.off_reason) == (shown, is_busy, off_reason)


def _wait_until(is_so: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.01)
