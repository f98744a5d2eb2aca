"""What may be wrong with a real host, seen on real ones: `make lab-troubles`.

A fleet of virtual DGX-2s, each with something wrong, and Nightshift on them. Whatever it is must be a reason on the
reservation that it hits and a line of doctor with the mend, and must leave nothing behind; whoever was hit runs in the
end: elsewhere, or where it was booked once that is mended as doctor says.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("libvirt", reason="libvirt-python is not installed: it is built where libvirt's headers are")

import libvirt

from cli.client import Json, Problem
from scheduler.core.bounds import lead_s
from scheduler.core.requests import HostId
from scheduler.core.settings import Settings
from scheduler.profiles.loading import load_profile
from tests.contract.libvirt_bench import put_image
from tests.lab.guest.build import build_guest
from tests.lab.guest.reading import GuestReport, read_console
from tests.lab.host_image import build_host_image, default_cache
from tests.lab.machine import BOOT_LIMIT_S, Build, VirtualDgx2, begin_boot, gpus
from tests.lab.site import LOOK_EVERY_S, PROFILE, LabSite, starts_within_s
from tests.lab.ssh import SshWay
from workers.drivers.libvirt import connection
from workers.drivers.libvirt.connection import REFUSED_FOR_S
from workers.drivers.libvirt.host import LibvirtHost
from workers.ports import HostUnreachable

DARK, FULL, LOCKED, GONE = "a-dark", "b-full", "c-locked", "d-gone"
"""No IOMMU; no room for a disk; a login that is refused until its key is known there; nobody there, until it is back
with a GPU less."""
MISSING = "missing"
"""Of the reservation that is booked on the host which is gone, and hit when that is back."""
ABSENT_GPU = 13
IMAGE, OWNER = "guest", "ada"
RUN_S = 30 * 60
TOLD_WITHIN_S = 60.0
GRACE_S = 10
LEAD_S = lead_s(load_profile(PROFILE), gpus=16, grace_s=GRACE_S)
RETRY_S = Settings().retry_after_s
RUNS_WITHIN_S = LEAD_S + REFUSED_FOR_S + starts_within_s(16)
"""Its place is left when its time there is over, a host is asked again, and it starts."""
MOVED_WITHIN_S = 3 * RETRY_S + starts_within_s(8)
"""Three attempts to start that fail at once, and a start."""
DIAGNOSES = (
    (f"host:{DARK}:host.no_iommu", "the host has no IOMMU", "intel_iommu=on"),
    (f"host:{DARK}:host.device_missing", f"not on the bus: {gpus()[ABSENT_GPU].address}", "lspci -D"),
    (f"host:{FULL}:host.pool_full", "less than 2 %", "make room"),
    (f"host:{LOCKED}", "ermission denied", "its SSH key"),
    (f"host:{GONE}", "onnection refused", "is libvirtd running there"),
)
DIAGNOSIS_OF_MISSING = (f"host:{GONE}:host.device_missing", f"not on the bus: {gpus()[ABSENT_GPU].address}", "lspci -D")
"""Checks of doctor, words of what it says, and of what to do."""
REASONS = {
    DARK: "has no IOMMU group",
    FULL: "No space left on device",
    LOCKED: "ermission denied",
    GONE: "onnection refused",
    MISSING: f"GPU {ABSENT_GPU} of {GONE} is quarantined",
}
"""Words of a reason on the reservation that each of them hits."""
POLICY = f"""\
version: 1
zone: UTC
layouts:
  all: {{sizes: [1, 2, 4, 8, 16], queues: [interactive]}}
outside: all
queues:
  interactive: {{at_boundary: finish, default_disk: 1GiB}}
images: [{IMAGE}]
defaults: {{disk: 1GiB, grace: {GRACE_S}s, min_useful: 1m}}
"""
FILL = """\
cd /var/lib/nightshift/disks
fallocate -l $(($(stat -f -c '%a * %S' .) - (16 << 20))) ../of-somebody-else
cat /dev/zero > ../of-somebody-else-too
[ $(stat -f -c %a .) = 0 ]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Three virtual DGX-2s, and a port at which nobody listens."""

    dark: VirtualDgx2
    full: VirtualDgx2
    sound: VirtualDgx2
    way: SshWay
    nobody: socket.socket
    """Has the port, and never listens."""

    @property
    def uri_of_nobody(self) -> str:
        return f"qemu+tcp://127.0.0.1:{self.nobody.getsockname()[1]}/system"

    def come_back(self) -> None:
        """Have somebody there at last: a machine that lacks a GPU, and on which nothing runs."""
        port = self.nobody.getsockname()[1]
        self.nobody.close()
        self.dark.answer_at(port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """Where a reservation that was hit ran in the end."""

    host: str
    report: GuestReport
    """What its guest saw there."""


@dataclass(slots=True, kw_only=True)
class Told:
    """What was told while everything was wrong, and what came of those that were hit."""

    doctor: dict[str, Json] = field(default_factory=dict)
    refused: str = ""
    """What is said to whoever asks for more GPUs than any host has left."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Of the reservation that each trouble hit."""
    ran: dict[str, Ran] = field(default_factory=dict)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    if "NIGHTSHIFT_LAB" not in os.environ:
        pytest.skip("no virtual DGX-2s are booted here: make lab-troubles does that")
    image, folder = build_host_image(default_cache()), tmp_path_factory.mktemp("fleet")
    guest_image = build_guest(folder / "guest.img")
    absent = frozenset({ABSENT_GPU})
    with ExitStack() as stack:
        dark, full, sound = (
            stack.enter_context(begin_boot(image, folder / name, build=build))
            for name, build in (
                (DARK, Build(has_iommu=False, absent_gpus=absent)),
                (FULL, Build(absent_gpus=absent)),
                (LOCKED, Build()),
            )
        )
        for machine in (dark, full, sound):
            machine.wait_until_ready(BOOT_LIMIT_S)
            hand = libvirt.open(machine.uri)
            put_image(hand, "nightshift-images", IMAGE, guest_image)
            hand.close()
        full.run(FILL)
        with socket.socket() as taken:
            # Bound, and never listening: nobody else is given the port meanwhile.
            taken.bind(("127.0.0.1", 0))
            yield Fleet(
                dark=dark,
                full=full,
                sound=sound,
                way=SshWay.open(sound, folder / "ssh"),
                nobody=taken,
            )


class TestLogins:
    """`qemu+ssh`, with the real `ssh` and a real server."""

    @pytest.fixture(autouse=True)
    def own_ssh(self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", fleet.way.path)

    def look(self, uri: str) -> Any:
        host = LibvirtHost(HostId("lab"), load_profile(PROFILE), uri, on_change=lambda: None)
        try:
            return host.drivers().hypervisor.look()
        finally:
            host.close()

    def test_only_a_key_that_is_known_on_a_host_that_is_known_is_let_in(self, fleet: Fleet) -> None:
        key = fleet.way.make_key("of-the-test")
        with pytest.raises(HostUnreachable, match=r"(?i)host key verification failed.*; give the worker's user access"):
            self.look(fleet.way.uri(key))
        fleet.way.become_known()
        with pytest.raises(HostUnreachable, match=r"(?i)permission denied.*; give the worker's user access"):
            self.look(fleet.way.uri(key))
        fleet.way.let_in(key)
        by_ssh, by_tcp = self.look(fleet.way.uri(key)), self.look(fleet.sound.uri)
        assert by_ssh == by_tcp
        assert len(by_ssh.devices) == len(load_profile(PROFILE).devices(load_profile(PROFILE).partitions[-1]))

    def test_a_libvirt_that_is_older_than_what_is_needed_is_refused(
        self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connection, "OLDEST", 99_000_000)
        with pytest.raises(HostUnreachable, match=r"is too old; install libvirt 99\.0\.0 or newer there"):
            self.look(fleet.sound.uri)


@pytest.fixture(scope="module")
def told(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Reserve on hosts that are no good, mend what can be mended, and note what is told and what comes of it."""
    fleet.way.become_known()
    key = fleet.way.make_key("of-the-worker")
    data = tmp_path_factory.mktemp("nightshift") / "data"
    uris = {DARK: fleet.dark.uri, FULL: fleet.full.uri, LOCKED: fleet.way.uri(key), GONE: fleet.uri_of_nobody}
    site = LabSite(data, uris, path=fleet.way.path)
    try:
        site.start()
        site.apply_policy(POLICY)
        site.enrol(OWNER)
        told = Told()
        _wait_for_diagnoses(site, told, DIAGNOSES)
        _be_silent(fleet, site, told, key)
        _lack_a_gpu(fleet, site, told)
        _fail_to_start(fleet, site, told)
        site.wait_for("nobody is left where all of them ran", lambda: not _has_domains(fleet.sound), within_s=LEAD_S)
        yield told
    finally:
        site.stop()


def _be_silent(fleet: Fleet, site: LabSite, told: Told, key: Path) -> None:
    """Reserve on the hosts that do not answer, and let the worker in where it was not, as doctor says."""
    # Only these two may have all 16 GPUs; hosts are taken in the order of their names.
    whole = {host: _reserve(site, 16) for host in (LOCKED, GONE)}
    _wait_for_reasons(site, told, whole)
    fleet.way.let_in(key)
    for host, reservation in whole.items():
        # The second as soon as the first has left, and on the same host: its own stays silent.
        told.ran[host] = _see_it_run(fleet, site, reservation, RUNS_WITHIN_S)


def _lack_a_gpu(fleet: Fleet, site: LabSite, told: Told) -> None:
    """Reserve on a host that is gone, have it back without one of its GPUs, and then have a place that is sound."""
    site.drain(LOCKED)
    hit = _reserve(site, 16)
    fleet.come_back()
    _wait_for_reasons(site, told, {MISSING: hit})
    _wait_for_diagnoses(site, told, (DIAGNOSIS_OF_MISSING,))
    site.undrain(LOCKED)
    told.ran[MISSING] = _see_it_run(fleet, site, hit, RUNS_WITHIN_S)


def _fail_to_start(fleet: Fleet, site: LabSite, told: Told) -> None:
    """Reserve where nothing can start, and have a place that is sound, too, once that is told."""
    for host in (LOCKED, GONE):
        site.drain(host)
    with pytest.raises(Problem) as refused:
        _reserve(site, 16)
    told.refused = str(refused.value)
    # Each of the others has eight in one block.
    hit = {host: _reserve(site, 8) for host in (DARK, FULL)}
    _wait_for_reasons(site, told, hit)
    site.undrain(LOCKED)
    for host, reservation in hit.items():
        told.ran[host] = _see_it_run(fleet, site, reservation, MOVED_WITHIN_S)


def _reserve(site: LabSite, size: int) -> str:
    return site.reserve(OWNER, size, run_s=RUN_S, queue="interactive")


def _wait_for_diagnoses(site: LabSite, told: Told, diagnoses: tuple[tuple[str, str, str], ...]) -> None:
    doctor: dict[str, Json] = {}

    def is_diagnosed() -> bool:
        doctor.update(site.doctor())
        return all(name in doctor and words in str(doctor[name]["detail"]) for name, words, _ in diagnoses)

    site.wait_for("doctor knows what is wrong", is_diagnosed, within_s=TOLD_WITHIN_S)
    told.doctor |= {name: doctor[name] for name, _, _ in diagnoses}


def _wait_for_reasons(site: LabSite, told: Told, hit: dict[str, str]) -> None:
    """Wait until each reservation that is hit has the reason of what hits it."""

    def are_told() -> bool:
        for what, reservation in hit.items():
            said = json.dumps(site.why(reservation)["reasons"])
            if REASONS[what] in said:
                told.reasons[what] = said
        return hit.keys() <= told.reasons.keys()

    site.wait_for(f"the reasons of {' and '.join(hit)} are told", are_told, within_s=TOLD_WITHIN_S)


def _see_it_run(fleet: Fleet, site: LabSite, reservation: str, within_s: float) -> Ran:
    """Wait until a reservation runs, note where and what its guest sees, and let it go for the next."""
    site.wait_for(f"{reservation} runs", lambda: site.phase(reservation) == "running", within_s=within_s)
    ran = Ran(host=site.reservation(reservation)["spans"][-1]["host"], report=_report(fleet.sound, reservation))
    site.cancel(reservation)
    return ran


def _has_domains(machine: VirtualDgx2) -> bool:
    hand = libvirt.open(machine.uri)
    try:
        return bool(hand.listAllDomains(0))
    finally:
        hand.close()


def _report(machine: VirtualDgx2, reservation: str) -> GuestReport:
    """Return what the guest of a reservation wrote; its host takes a moment to write it down."""
    hand = libvirt.open(machine.uri)
    (name,) = (domain.name() for domain in hand.listAllDomains(0) if domain.name().startswith(f"{reservation}-"))
    hand.close()
    until_s = time.monotonic() + TOLD_WITHIN_S
    while True:
        reports = read_console(machine.guest_console(f"{name}.console.log"))
        if reports and reports[-1].is_ready:
            return reports[-1]
        assert time.monotonic() < until_s, f"the guest of {name} is not ready: {reports}"
        time.sleep(LOOK_EVERY_S)


class TestTroubles:
    """One for each thing that may be wrong with a host."""

    @pytest.mark.parametrize(("check", "detail", "remedy"), [*DIAGNOSES, DIAGNOSIS_OF_MISSING])
    def test_doctor_says_what_is_wrong_and_what_to_do(self, told: Told, check: str, detail: str, remedy: str) -> None:
        line = told.doctor[check]
        assert not line["ok"]
        assert detail in line["detail"]
        assert remedy in line["remedy"]

    @pytest.mark.parametrize(("what", "words"), REASONS.items())
    def test_it_is_a_reason_on_the_reservation_that_it_hits(self, told: Told, what: str, words: str) -> None:
        assert words in told.reasons[what]
        assert (GONE if what == MISSING else what) in told.reasons[what]

    def test_a_missing_device_is_a_reason_against_what_would_need_it(self, told: Told) -> None:
        address = gpus()[ABSENT_GPU].address
        assert f"{address} is not on the bus" in told.refused
        assert f"{address} is not on the bus" in told.reasons[MISSING]

    @pytest.mark.parametrize(("what", "size"), [(LOCKED, 16), (GONE, 16), (MISSING, 16), (DARK, 8), (FULL, 8)])
    def test_whoever_is_hit_runs_on_the_host_that_is_mended(self, told: Told, what: str, size: int) -> None:
        ran = told.ran[what]
        assert ran.host == LOCKED
        assert len(ran.report.gpus) == ran.report.dma_ok == size

    @pytest.mark.parametrize("host", [DARK, FULL])
    def test_nothing_is_left_where_nothing_could_be_started(self, fleet: Fleet, told: Told, host: str) -> None:
        assert told.ran[host].host != host
        hand = libvirt.open({DARK: fleet.dark, FULL: fleet.full}[host].uri)
        pool = hand.storagePoolLookupByName("nightshift")
        pool.refresh(0)
        assert (hand.listAllDomains(0), pool.listVolumes()) == ([], [])
        hand.close()
