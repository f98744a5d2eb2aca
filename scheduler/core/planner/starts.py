"""The starts of each reservation that hosts remember, by reservation: followed from one planning step to the next."""

from collections.abc import Mapping

from scheduler.core.facts import HostFacts, VmFact
from scheduler.core.requests import HostId, ReservationId

Start = tuple[HostId, VmFact]

_NONE: list[Start] = []


class Starts:
    """Mutable; not thread-safe. Costs what has changed since the last look, and a glance at each host."""

    def __init__(self) -> None:
        self._facts: dict[HostId, HostFacts] = {}
        self._of: dict[ReservationId, list[Start]] = {}
        self.silent_hosts: set[HostId] = set()
        """Hosts that do not answer."""
        self.hosts_with_news: set[HostId] = set()
        """Hosts with GPUs that are not as they should be, or of which something was asked."""

    def follow(self, facts: Mapping[HostId, HostFacts]) -> set[ReservationId]:
        """Take on what hosts remember now; return the reservations of which anything is different."""
        known = self._facts
        moved = [host for host, new in facts.items() if known.get(host) is not new]
        if len(known) + sum(host not in known for host in moved) > len(facts):
            moved += [host for host in known if host not in facts]
        changed: set[ReservationId] = set()
        for host in moved:
            new, old = facts.get(host), known.pop(host, None)
            if new is not None:
                known[host] = new
            self.silent_hosts.discard(host)
            self.hosts_with_news.discard(host)
            if new is not None and new.unreachable_since_at is not None:
                self.silent_hosts.add(host)
            if new is not None and (new.gpus or new.asked):
                self.hosts_with_news.add(host)
            before = {} if old is None else {(vm.reservation, vm.generation): vm for vm in old.vms}
            after = {} if new is None else {(vm.reservation, vm.generation): vm for vm in new.vms}
            mine = {key[0] for key in before.keys() | after.keys() if before.get(key) is not after.get(key)}
            for reservation in mine:
                self._replace(reservation, host, [vm for key, vm in after.items() if key[0] == reservation])
            changed |= mine
        return changed

    def _replace(self, reservation: ReservationId, host: HostId, vms: list[VmFact]) -> None:
        kept = [start for start in self._of.get(reservation, ()) if start[0] != host]
        starts = sorted([*kept, *((host, vm) for vm in vms)], key=lambda start: (start[1].generation, start[0]))
        if starts:
            self._of[reservation] = starts
        else:
            self._of.pop(reservation, None)

    def of(self, reservation: ReservationId) -> list[Start]:
        """Return the starts of a reservation, by generation. Not to be changed."""
        return self._of.get(reservation, _NONE)
