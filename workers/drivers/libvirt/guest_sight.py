"""What a running guest itself sees of the devices that were passed to it: asked once, when its agent first answers.

The host's own checks end where the guest begins. A guest that does not see a GPU that it was given was given nothing.
Asked in a thread of its own, since guests may take their time; looks take what is known. A guest's word is about
itself alone: it may lie, and nothing is taken from anybody for it.
"""

import logging
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from scheduler.core.facts import CheckResult, DeviceCheck, HostTrouble, TroubleKind
from workers.ports import DriverError

_log = logging.getLogger(__name__)

GUEST = "guest"
SEEN = "seen_by_guest"
NOT_ASKED = "its guest has not answered yet"
_ID = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A start of a domain that is on, and what was passed to it."""

    uuid: UUID
    name: str
    boot: int
    """libvirt's number of this run."""
    does_answer: bool
    devices: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sight:
    boot: int
    ids: tuple[str, ...] | None = None
    """`10de:1db8` for each device; None: not known."""
    problem: str = ""
    """Why it is not known, once it was asked."""


class GuestSight:
    """What the guests of one host see. Safe to use from several threads."""

    def __init__(self, ask: Callable[[UUID], tuple[str, ...]], on_change: Callable[[], None]) -> None:
        """`ask` returns the vendor:product of every device that a guest sees; raises DriverError."""
        self._ask = ask
        self._on_change = on_change
        self._lock = threading.Lock()
        self._sight_by_uuid: dict[UUID, _Sight] = {}
        self._troubles: tuple[HostTrouble, ...] = ()

    def look(self, running: Iterable[Running], pci_id_by_address: Mapping[str, str]) -> Mapping[str, DeviceCheck]:
        """Return a check of each device that a guest was given, and have those asked whose agents answer now."""
        checks: dict[str, DeviceCheck] = {}
        troubles: set[HostTrouble] = set()
        known: dict[UUID, _Sight] = {}
        for domain in running:
            sight = self._sight_of(domain)
            known[domain.uuid] = sight
            id_by_address = {a: pci_id_by_address[a] for a in domain.devices if a in pci_id_by_address}
            given = Counter(id_by_address.values())
            seen = None if sight.ids is None else Counter(sight.ids)
            checks.update((a, _check(id, given[id], seen, sight.problem)) for a, id in id_by_address.items())
            troubles.update(_troubles(domain, given, seen, sight.problem))
        with self._lock:
            for uuid in self._sight_by_uuid.keys() - known.keys():
                del self._sight_by_uuid[uuid]
            self._troubles = tuple(troubles)
        return checks

    def troubles(self) -> tuple[HostTrouble, ...]:
        """Return what the last look found wrong, and what it could not tell."""
        with self._lock:
            return self._troubles

    def _sight_of(self, domain: Running) -> _Sight:
        with self._lock:
            known = self._sight_by_uuid.get(domain.uuid)
            if known is not None and known.boot == domain.boot:
                return known
            sight = _Sight(boot=domain.boot)
            if not domain.does_answer:
                return sight
            self._sight_by_uuid[domain.uuid] = sight
        threading.Thread(target=self._see, args=(domain, sight), name="libvirt.sight", daemon=True).start()
        return sight

    def _see(self, domain: Running, asked: _Sight) -> None:
        try:
            sight = replace(asked, ids=self._ask(domain.uuid))
        except DriverError as error:
            sight = replace(asked, problem=error.message)
            _log.debug("guest.not_seen domain=%s error=%s", domain.name, error.message)
        with self._lock:
            if self._sight_by_uuid.get(domain.uuid) is not asked:
                # It went off meanwhile, or was started anew.
                return
            self._sight_by_uuid[domain.uuid] = sight
        self._on_change()


def read_devices(text: str) -> tuple[str, ...]:
    """Read what Linux writes in /proc/bus/pci/devices: the vendor:product of each; lines that are none are left out."""
    columns = (line.split() for line in text.splitlines())
    ids = (found[1].lower() for found in columns if len(found) > 1)
    return tuple(f"{id[:4]}:{id[4:]}" for id in ids if _ID.fullmatch(id))


def _check(id: str, given: int, seen: Counter[str] | None, problem: str) -> DeviceCheck:
    if seen is None:
        return DeviceCheck(name=SEEN, result=CheckResult.UNVERIFIED, source=GUEST, detail=problem or NOT_ASKED)
    if seen[id] < given:
        detail = f"it sees {seen[id]} of {given} {id}"
        return DeviceCheck(name=SEEN, result=CheckResult.FAILED, source=GUEST, detail=detail)
    return DeviceCheck(name=SEEN, result=CheckResult.PASSED, source=GUEST, detail="")


def _troubles(domain: Running, given: Counter[str], seen: Counter[str] | None, problem: str) -> Iterator[HostTrouble]:
    if seen is None:
        if problem and given:
            # The same for all of them: it is about images, and guests come and go.
            yield HostTrouble(
                code=f"check.{SEEN}",
                kind=TroubleKind.UNVERIFIED,
                problem="whether guests see the devices that they were given is not told by the agents of some",
                mend="have qemu-guest-agent in the images, with guest-file-open and guest-file-read allowed",
            )
        return
    for id in sorted(id for id in given if seen[id] < given[id]):
        yield HostTrouble(
            code="host.unseen_by_guest",
            kind=TroubleKind.WRONG,
            problem=f"the guest of {domain.name} sees {seen[id]} of the {given[id]} devices {id} that it was given",
            mend="compare `lspci` in the guest with `dmesg` of the host, and restart the guest; drain the host if it"
            " comes again",
        )
