"""A day on the virtual DGX-2, with Nightshift as its users have it, and what of it was proven.

Tenants with 1, 2 and 4 GPUs by day, a job with all 16 at night, the tenants again, some on another block; a worker that
is killed amid the swap, a host that is booted anew, and domains that somebody made by hand. What happened is read from
the guests' own consoles and from libvirt, never from what Nightshift believes. What is waited for is given as long as
Nightshift itself gives it: an emulated host on a busy machine is slow.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt

from scheduler.core.bounds import lead_s
from scheduler.core.errors import NightshiftError
from scheduler.profiles.loading import load_profile
from tests.contract.libvirt_bench import foreign_xml, put_image
from tests.lab.guest.reading import GuestReport, read_console
from tests.lab.machine import LabError, VirtualDgx2
from tests.lab.machine import gpus as gpu_stand_ins
from tests.lab.proof import NIGHT_GPUS, Proof
from tests.lab.site import HOST, PROFILE, LabSite, NotSo, starts_within_s
from workers.drivers.libvirt.reading import DescribedDomain, read_domain

IMAGE = "guest"
NIGHT_JOB = "nightly"
TENANTS = (("ada", 1), ("bela", 2), ("chen", 4))
"""The smallest first: at the swap they come back largest first, and find other blocks."""
TENANTS_RUN_S = 60 * 60
GRACE_S, MIN_USEFUL_S = 10, 60
LEAD_S = lead_s(load_profile(PROFILE), gpus=NIGHT_GPUS, grace_s=GRACE_S)
NIGHT_RUNS_MIN = -(-LEAD_S // 60)
"""No shorter than the lead: a policy's job that cannot run by its own length after its time is refused."""
NIGHT_LASTS_MIN = -(-LEAD_S // 60) + NIGHT_RUNS_MIN
NIGHT_IS_AHEAD_S = LEAD_S + MIN_USEFUL_S + 10
"""At least so long from the tenants' asking to the night: nobody is started for less than the bounds and a minute."""
STARTED_WITHIN_S = starts_within_s(NIGHT_GPUS)
SWAPPED_WITHIN_S = LEAD_S + STARTED_WITHIN_S
WRITTEN_WITHIN_S = 60.0

POLICY = """\
version: 1
zone: UTC
layouts:
  day: {{sizes: [1, 2, 4, 8], queues: [interactive]}}
  night: {{sizes: [16], queues: [hpc]}}
outside: day
queues:
  interactive: {{at_boundary: park, default_disk: 1GiB}}
  hpc: {{at_boundary: finish, scratch: true, default_disk: 1GiB}}
images: [{image}]
defaults: {{disk: 1GiB, grace: {grace}s, min_useful: {useful}s, warnings: [1m]}}
windows:
  - {{name: night, layout: night, opens: "{minute} {hour} * * *", for: {minutes}m, decide: 1m10s, only_if_queued: true}}
reserve:
  - {{name: {job}, cron: "{minute} {hour} * * *", for: {runs}m, gpus: 16, queue: hpc, owner: climate, ahead: 10m}}
"""


@dataclass(slots=True)
class Day:
    """One day. `live` goes through it; what fails leaves the rest unproven."""

    machine: VirtualDgx2
    guest_image: Path
    data: Path
    say: Callable[[str], None]
    proof: Proof = field(default_factory=Proof)
    failures: list[str] = field(default_factory=list)
    _began_s: float = field(default_factory=time.monotonic)
    _tenants: dict[str, int] = field(default_factory=dict)
    _blocks: dict[str, str] = field(default_factory=dict)
    _boots_before: dict[str, int] = field(default_factory=dict)

    def live(self) -> Proof:
        """Live through the day and return what was proven."""
        # What is refused is told by the day itself.
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        self.data.parent.mkdir(parents=True, exist_ok=True)
        site = LabSite(self.data, {HOST: self.machine.uri})
        try:
            put_image(self._hand(), "nightshift-images", IMAGE, self.guest_image)
            site.start()
            night_at = self._morning(site)
            self._meddle(site)
            self._evening(site, night_at)
            self._next_morning(site)
            self._reboot(site)
        except (AssertionError, NightshiftError, LabError, libvirt.libvirtError) as error:
            self.failures.append(str(error))
        finally:
            site.stop()
        self.proof.seconds = round(time.monotonic() - self._began_s, 1)
        return self.proof

    # The parts of the day.

    def _morning(self, site: LabSite) -> datetime:
        night_at = _minute_after(datetime.now(UTC) + timedelta(seconds=NIGHT_IS_AHEAD_S))
        site.apply_policy(
            POLICY.format(
                image=IMAGE,
                job=NIGHT_JOB,
                minute=night_at.minute,
                hour=night_at.hour,
                runs=NIGHT_RUNS_MIN,
                minutes=NIGHT_LASTS_MIN,
                grace=GRACE_S,
                useful=MIN_USEFUL_S,
            )
        )
        for owner, gpus in TENANTS:
            site.enrol(owner)
            self._tenants[site.reserve(owner, gpus, run_s=TENANTS_RUN_S, queue="interactive")] = gpus
        self._say(f"three tenants asked; the night is at {night_at:%H:%M:%S} UTC")
        self._wait_until_tenants_run(site)
        for tenant, gpus in self._tenants.items():
            domain = self._domain_of(tenant)
            assert domain is not None, f"{tenant} runs, and libvirt shows no domain of it"
            self._blocks[tenant] = domain.partition or ""
            report = self._last_report(domain)
            if len(report.gpus) == gpus and report.dma_ok == gpus:
                self.proof.tenants += 1
            self._say(f"{tenant} runs on {domain.partition}: {len(report.gpus)} GPUs seen, DMA on {report.dma_ok}")
        return night_at

    def _meddle(self, site: LabSite) -> None:
        """Be somebody at a `virsh` prompt: start a second VM on a held GPU, and have one beside Nightshift's."""
        hand = self._hand()
        largest = self._domain_of(max(self._tenants, key=lambda tenant: self._tenants[tenant]))
        assert largest is not None
        held = min(largest.devices)
        try:
            hand.createXML(foreign_xml("thief", "qemu", [held]), 0)
        except libvirt.libvirtError as error:
            refused = f"is in use by driver QEMU, domain {largest.name}" in str(error)
            self._say(f"a second VM on {held} is refused by libvirt: {error}")
        else:
            raise NotSo(f"libvirt started a second VM on {held}")
        free = next(gpu for gpu in range(NIGHT_GPUS - 1, 0, -1) if self._address(gpu) not in self._held())
        hand.nodeDeviceLookupByName(_node_name(self._address(free))).detachFlags("vfio", 0)
        squatter = hand.createXML(foreign_xml("squatter", "qemu", [self._address(free)]), 0)
        night = self._night(site)

        def is_told() -> bool:
            return "squatter" in json.dumps(site.why(night)) and "squatter" in json.dumps(site.host()["foreign"])

        took_s = site.wait_for("the foreign domain is a reason of the night's job", is_told)
        self._say(f"GPU {free} in foreign hands is a reason of {night} after {took_s:.1f} s")
        assert squatter.isActive(), "the foreign domain was touched"
        squatter.destroy()
        self.proof.foreign_refused = refused

    def _evening(self, site: LabSite, night_at: datetime) -> None:
        night, self._boots_before = self._night(site), self._boots()
        time.sleep(max(0.0, night_at.timestamp() - time.time()))
        self._say("the night begins")
        began_s = time.monotonic()
        site.wait_for("the first tenant is off", lambda: self._running() < len(TENANTS), within_s=LEAD_S)
        pid = site.worker_pid()
        site.kill_worker()
        self._say(f"the worker (pid {pid}) is killed with -9, {self._running()} tenants still on")
        site.wait_for("another worker is at work", lambda: site.worker_pid() not in (None, pid))
        site.wait_for("the night's job runs", lambda: site.phase(night) == "running", within_s=SWAPPED_WITHIN_S)
        took_s = time.monotonic() - began_s
        domain = self._domain_of(night)
        assert domain is not None
        report = self._last_report(domain)
        self.proof.gpus_seen, self.proof.switches_seen = len(report.gpus), len(report.switches)
        self.proof.dma_ok = report.dma_ok
        xml = ElementTree.fromstring(self._handle(domain).XMLDesc(0))
        cells = xml.findall("./cpu/numa/cell")
        assert len(cells) == 2, f"the night's guest has {len(cells)} NUMA cells"
        assert xml.find("./memoryBacking/hugepages") is not None, "the night's guest has no hugepages"
        starts = {d.generation for d in self._domains() if d.reservation == night}
        self.proof.survived_kill = starts == {domain.generation}
        self._say(
            f"{night} runs {took_s:.1f} s after the start of the night: {len(report.gpus)} GPUs, {len(report.switches)}"
            f" NVSwitches, DMA on {report.dma_ok}, two NUMA cells on hugepages"
        )

    def _next_morning(self, site: LabSite) -> None:
        night, largest = self._night(site), max(self._tenants, key=lambda tenant: self._tenants[tenant])
        site.wait_for("the night's job is over", lambda: self._domain_of(night) is None, within_s=NIGHT_LASTS_MIN * 60)
        # While nobody has them, somebody takes a GPU of the block that the largest tenant had.
        taken = self._address(int(self._blocks[largest].partition("g")[2].partition("-")[0]))
        by_hand = self._hand().createXML(foreign_xml("by-hand", "qemu", [taken]), 0)
        self._say(f"somebody starts a domain by hand on {taken}, which {largest} had")
        self._wait_until_tenants_run(site, within_s=NIGHT_LASTS_MIN * 60 + SWAPPED_WITHIN_S)
        after = self._boots()
        assert after == {t: n + 1 for t, n in self._boots_before.items()}, f"disks: {self._boots_before}, {after}"
        for tenant, gpus in self._tenants.items():
            domain = self._domain_of(tenant)
            assert domain is not None
            report = self._last_report(domain)
            assert len(report.gpus) == gpus == report.dma_ok, f"{tenant} sees {len(report.gpus)} GPUs"
            if domain.partition != self._blocks[tenant]:
                self.proof.resumed_on_other_block += 1
            self._say(f"{tenant} is back with its disk: {self._blocks[tenant]} -> {domain.partition}")
        assert by_hand.isActive(), "the domain made by hand was touched"
        self._say("the domain made by hand runs on, untouched")

    def _reboot(self, site: LabSite) -> None:
        boots = self._boots()
        before = {tenant: domain.generation for tenant in self._tenants if (domain := self._domain_of(tenant))}
        self._say("the host is booted anew, with all of them on it")
        self.machine.reboot()
        self._say("its libvirt answers again")

        def are_back() -> bool:
            return all(
                (domain := self._domain_of(tenant)) is not None
                and domain.generation != before[tenant]
                and site.phase(tenant) == "running"
                for tenant in self._tenants
            )

        site.wait_for("all tenants run again after the reboot", are_back, within_s=SWAPPED_WITHIN_S)
        after = self._boots()
        assert after == {tenant: boots[tenant] + 1 for tenant in self._tenants}, f"disks: {boots}, {after}"
        self.proof.survived_reboot = True
        self._say("all tenants run again, each with its disk")

    # What is seen.

    def _wait_until_tenants_run(self, site: LabSite, *, within_s: float = STARTED_WITHIN_S) -> None:
        def do_run() -> bool:
            return all(site.phase(tenant) == "running" for tenant in self._tenants)

        site.wait_for("all tenants run", do_run, within_s=within_s)

    def _night(self, site: LabSite) -> str:
        found: list[str] = []

        def is_filed() -> bool:
            answer = site.client.get("/reservations", all=True, limit=200)
            found[:] = [str(r["id"]) for r in answer["reservations"] if r["by_policy"] == NIGHT_JOB and r["promise"]]
            return bool(found)

        site.wait_for("the policy's own job is booked", is_filed)
        return found[0]

    def _hand(self) -> Any:
        """Return a connection of our own, beside the driver's."""
        return libvirt.open(self.machine.uri)

    def _domains(self) -> list[DescribedDomain]:
        active = self._hand().listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        described = []
        for handle in active:
            with suppress(libvirt.libvirtError):
                described.append(read_domain(handle.XMLDesc(0)))
        return described

    def _domain_of(self, reservation: str) -> DescribedDomain | None:
        return next((domain for domain in self._domains() if domain.reservation == reservation), None)

    def _boots(self) -> dict[str, int]:
        """Return how often each tenant's disk was booted from, as the disk itself counts."""
        found: dict[str, int] = {}
        for tenant in self._tenants:
            domain = self._domain_of(tenant)
            assert domain is not None, f"{tenant} has no domain"
            found[tenant] = self._last_report(domain).boots or 0
        return found

    def _handle(self, domain: DescribedDomain) -> Any:
        return self._hand().lookupByUUIDString(str(domain.uuid))

    def _held(self) -> frozenset[str]:
        return frozenset(address for domain in self._domains() for address in domain.devices)

    def _running(self) -> int:
        return sum(1 for domain in self._domains() if domain.reservation in self._tenants)

    def _address(self, gpu: int) -> str:
        return gpu_stand_ins()[gpu].address

    def _last_report(self, domain: DescribedDomain) -> GuestReport:
        """Return what a guest wrote since its last boot; the host takes a moment to write it down."""
        until_s = time.monotonic() + WRITTEN_WITHIN_S
        while True:
            text = self.machine.guest_console(f"{domain.name}.console.log")
            reports = read_console(text)
            if reports and reports[-1].is_ready:
                return reports[-1]
            if time.monotonic() > until_s:
                raise NotSo(f"the guest of {domain.name} does not say that it is ready:\n{text[-2000:]!r}")
            time.sleep(0.5)

    def _say(self, text: str) -> None:
        self.say(f"{time.monotonic() - self._began_s:6.1f} s  {text}")


def _minute_after(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0) + timedelta(minutes=1)


def _node_name(address: str) -> str:
    return "pci_" + address.replace(":", "_").replace(".", "_")
