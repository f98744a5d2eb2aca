"""What is measured on the virtual DGX-2: starts by Nightshift and by bare calls, a swap of eight, its steps in turn."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from uuid import uuid4
from xml.etree import ElementTree

import libvirt

from benchmarks.driver_calls import WOKEN, chain_of, first, last_specs
from benchmarks.lab_figures import Start, Swap
from benchmarks.lab_home import IMAGE, Home
from scheduler.core.facts import Verb
from scheduler.core.requests import DiskId, ReservationId
from scheduler.profiles.loading import load_profile
from tests.contract.libvirt_bench import put_image
from tests.lab.site import PROFILE
from workers.chains import Ticket, check_hand_over
from workers.drivers.libvirt.reading import read_domain
from workers.ports import DomainSpec

WHOLE, PAIR, PAIRS = 16, 2, 8
RUN_S = 3600
POLL_S = 0.1
UP_WITHIN_S = 300.0
GONE_WITHIN_S = 60.0
REST_S = 3.0
"""Before each measurement: nothing is left to do of the one before."""
STEP_WITHIN_S = 60


class NotSo(AssertionError):
    """Something did not come about in time."""


class Eye:
    """A connection of its own, which sees what becomes of domains."""

    def __init__(self, uri: str) -> None:
        self.conn: Any = libvirt.open(uri)

    def wait_until_up(self, prefixes: Iterable[str], *, within_s: float = UP_WITHIN_S) -> dict[str, float]:
        """Wait until domains with names that begin so have guests whose agents are connected; return when each had."""
        wanted, up_s, ends_s = set(prefixes), dict[str, float](), monotonic() + within_s
        while wanted:
            for handle in self.conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
                prefix = next((prefix for prefix in wanted if handle.name().startswith(prefix)), None)
                if prefix is not None and self._is_up(handle):
                    up_s[prefix] = monotonic()
                    wanted.remove(prefix)
            if wanted and monotonic() > ends_s:
                raise NotSo(f"not up after {within_s:g} s: {', '.join(sorted(wanted))}")
            if wanted:
                sleep(POLL_S)
        return up_s

    def wait_until_gone(self, prefix: str, flags: int = 0) -> float:
        """Wait until no domain has a name that begins so; return when that was. `flags`: of which domains."""
        ends_s = monotonic() + GONE_WITHIN_S
        while any(handle.name().startswith(prefix) for handle in self.conn.listAllDomains(flags)):
            if monotonic() > ends_s:
                raise NotSo(f"{prefix} is still there after {GONE_WITHIN_S:g} s")
            sleep(POLL_S)
        return monotonic()

    def wait_until_off(self, prefix: str) -> float:
        return self.wait_until_gone(prefix, libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)

    def domain(self, prefix: str) -> Any:
        return next(handle for handle in self.conn.listAllDomains(0) if handle.name().startswith(prefix))

    def _is_up(self, handle: Any) -> bool:
        try:
            return read_domain(handle.XMLDesc(0)).is_agent_connected
        except libvirt.libvirtError:
            # It went off meanwhile.
            return False


class Bench:
    """One virtual DGX-2, Nightshift on it, and a hand beside it."""

    def __init__(self, uri: str, database: Path, guest_image: Path) -> None:
        self._eye = Eye(uri)
        self._hand: Any = libvirt.open(uri)
        put_image(self._hand, load_profile(PROFILE).vm.image_pool, IMAGE, guest_image)
        self._home = Home(uri, database)
        self._made = 0

    def close(self) -> None:
        """End Nightshift; the host goes on."""
        self._home.close()

    # A start.

    def starts(self, rounds: int) -> tuple[list[Start], list[Start]]:
        """Start by Nightshift and by bare calls, in turn; the very first start warms the host up and does not count."""
        _, xml = self.start()
        ours, bare = [], []
        for _ in range(rounds):
            bare.append(self.start_by_hand(xml))
            ours.append(self.start()[0])
        return ours, bare

    def start(self) -> tuple[Start, str]:
        """Let Nightshift start a VM with all GPUs and end it; return also how the VM was defined."""
        sleep(REST_S)
        asked_s = monotonic()
        reservation = self._home.submit(WHOLE, run_s=RUN_S)
        up_s = self._up(reservation)
        calls = self._home.calls.since(asked_s)
        woken_s = first(calls, WOKEN).began_s
        chain = chain_of(calls, *last_specs(calls))
        part_s = {
            "plan": woken_s - asked_s,
            "look": chain.began_s - woken_s,
            **chain.step_s,
            "between": chain.between_s,
            "boot": up_s - chain.created_s,
        }
        xml = self._eye.domain(f"{reservation}-").XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        self._end(reservation)
        return Start(took_s=up_s - asked_s, part_s=part_s), xml

    def start_by_hand(self, xml: str) -> Start:
        """Start a VM like the one that is defined so, by bare calls, while Nightshift looks away; then end it."""
        self._home.pause()
        self._made += 1
        name = f"bare-{self._made}-"
        pool = self._hand.storagePoolLookupByName(self._home.profile.vm.pool)
        disk, defined = self._renamed(xml, name, pool)
        sleep(REST_S)
        at_s = {"asked": monotonic()}

        def call() -> None:
            pool.createXML(disk, 0)
            at_s["disk"] = monotonic()
            domain = self._hand.defineXML(defined)
            at_s["define"] = monotonic()
            domain.create()
            at_s["create"] = monotonic()

        with ThreadPoolExecutor(1) as script:
            called = script.submit(call)
            up_s = self._eye.wait_until_up([name])[name]
            called.result()
        before = ("asked", "disk", "define", "create")
        part_s = {step: at_s[step] - at_s[last] for last, step in pairwise(before)}
        domain = self._eye.domain(name)
        domain.destroy()
        domain.undefine()
        pool.storageVolLookupByName(f"{name}.qcow2").delete(0)
        self._home.resume()
        return Start(took_s=up_s - at_s["asked"], part_s={**part_s, "boot": up_s - at_s["create"]})

    def _renamed(self, xml: str, name: str, pool: Any) -> tuple[str, str]:
        """Return a disk and a domain like another's, under another name."""
        domain = ElementTree.fromstring(xml)
        folder = ElementTree.fromstring(pool.XMLDesc(0)).findtext("./target/path", "")
        source = domain.find("./devices/disk/source")
        assert source is not None
        old = pool.storageVolLookupByName(source.get("file", "").rpartition("/")[2])
        old_name, old_uuid = domain.findtext("name", ""), domain.findtext("uuid", "")
        source.set("file", f"{folder}/{name}.qcow2")
        text = ElementTree.tostring(domain, encoding="unicode").replace(old_name, name).replace(old_uuid, str(uuid4()))
        like = ElementTree.fromstring(old.XMLDesc(0))
        volume = ElementTree.Element("volume")
        ElementTree.SubElement(volume, "name").text = f"{name}.qcow2"
        ElementTree.SubElement(volume, "capacity", unit="bytes").text = like.findtext("capacity", "")
        ElementTree.SubElement(ElementTree.SubElement(volume, "target"), "format", type="qcow2")
        backing = ElementTree.SubElement(volume, "backingStore")
        ElementTree.SubElement(backing, "path").text = like.findtext("./backingStore/path", "")
        ElementTree.SubElement(backing, "format", type="raw")
        return ElementTree.tostring(volume, encoding="unicode"), text

    # A swap.

    def swap(self) -> tuple[Swap, tuple[DomainSpec, ...]]:
        """Let Nightshift swap a VM with all GPUs for eight with two each, and end these; return also what they were."""
        whole = self._home.submit(WHOLE, run_s=RUN_S)
        self._up(whole)
        pairs = [self._home.submit(PAIR, run_s=RUN_S) for _ in range(PAIRS)]
        sleep(REST_S)
        asked_s = monotonic()
        self._home.stop(whole)
        off_s = self._eye.wait_until_off(f"{whole}-")
        up_s = self._eye.wait_until_up(f"{pair}-" for pair in pairs)
        calls = self._home.calls.since(asked_s)
        stopped_s = first(calls, "ask_shutdown").began_s
        started = last_specs(calls)
        chains = [chain_of(calls, spec) for spec in started]
        swap = Swap(
            took_s=max(up_s.values()) - stopped_s,
            stop_s=off_s - stopped_s,
            waited_s=first(calls, "create_disk").began_s - off_s,
            by_rule_s=self._home.profile.bounds.reset_s,
            again=sum(call.verb == "create_disk" for call in calls) - PAIRS,
            chains=tuple(
                Start(
                    took_s=up_s[f"{chain.spec.reservation}-"] - chain.began_s,
                    part_s={
                        **chain.step_s,
                        "between": chain.between_s,
                        "boot": up_s[f"{chain.spec.reservation}-"] - chain.created_s,
                    },
                )
                for chain in chains
            ),
        )
        for pair in pairs:
            self._home.stop(pair)
        for pair in pairs:
            self._eye.wait_until_gone(f"{pair}-")
        return swap, started

    def one_after_the_other(self, wanted: Iterable[DomainSpec]) -> float:
        """Do the same swap step by step, each start when the one before is up. Nightshift looks away from here on."""
        whole = self._home.submit(WHOLE, run_s=RUN_S)
        self._up(whole)
        sleep(REST_S)
        self._home.pause()
        began_s = monotonic()
        self._eye.domain(f"{whole}-").shutdown()
        self._eye.wait_until_off(f"{whole}-")
        for number, spec in enumerate(wanted, start=1):
            name = f"turn-{number}-"
            self._start_now(replace(spec, uuid=uuid4(), name=name, disk=DiskId(name)))
            self._eye.wait_until_up([name])
        return monotonic() - began_s

    def _start_now(self, spec: DomainSpec) -> None:
        """Take the steps of a start: the product's own."""
        drivers, profile = self._home.drivers, self._home.profile
        drivers.images.create_disk(spec.disk, image=spec.image, size_gib=1, timeout_s=STEP_WITHIN_S)
        drivers.pci.bind(spec.devices)
        check_hand_over(drivers, spec, Ticket(verb=Verb.START, subject=spec.name, token=""), profile)
        drivers.fabric.activate(spec.partition)
        drivers.hypervisor.define(spec)
        drivers.hypervisor.start(spec.uuid, timeout_s=STEP_WITHIN_S)

    def _up(self, reservation: ReservationId) -> float:
        return self._eye.wait_until_up([f"{reservation}-"])[f"{reservation}-"]

    def _end(self, reservation: ReservationId) -> None:
        self._home.stop(reservation)
        self._eye.wait_until_gone(f"{reservation}-")
