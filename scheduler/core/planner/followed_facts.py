"""What hosts remember, looked up: the starts of each reservation, who does not answer, where something is amiss.

Followed from one planning step to the next, so that nobody looks through all hosts for the few that have changed.
"""

from collections.abc import Mapping

from scheduler.core.facts import HostFacts, VmFact
from scheduler.core.requests import HostId, ReservationId

Start = tuple[HostId, VmFact]

_NONE: list[Start] = []


class FollowedFacts:
    """Mutable; not thread-safe. Costs what has changed since the last look, and a glance at each host."""

    def __init__(self) -> None:
        self._facts: dict[HostId, HostFacts] = {}
        self._of: dict[ReservationId, list[Start]] = {}
        self.silent_hosts: set[HostId] = set()
        """Hosts that do not answer."""
        self.marked_hosts: set[HostId] = set()
        """Hosts with GPUs that are not as they should be, or where a verb was asked for: some may not be free."""

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
            self.marked_hosts.discard(host)
            if new is not None and new.unreachable_since_at is not None:
                self.silent_hosts.add(host)
            if new is not None and (new.gpus or new.asked):
                self.marked_hosts.add(host)
            before, after = () if old is None else old.vms, () if new is None else new.vms
            were, are = set(map(id, before)), set(map(id, after))
            mine = {vm.reservation for vm in before if id(vm) not in are}
            mine |= {vm.reservation for vm in after if id(vm) not in were}
            for reservation in mine:
                self._replace(reservation, host, [vm for vm in after if vm.reservation == reservation])
            changed |= mine
        return changed

    def _replace(self, reservation: ReservationId, host: HostId, vms: list[VmFact]) -> None:
        kept = [start for start in self._of.get(reservation, ()) if start[0] != host]
        starts = sorted([*kept, *((host, vm) for vm in vms)], key=lambda start: (start[1].generation, start[0]))
        if starts:
            self._of[reservation] = starts
        else:
            self._of.pop(reservation, None)

    def starts_of(self, reservation: ReservationId) -> list[Start]:
        """Return the starts of a reservation, by generation. Not to be changed."""
        return self._of.get(reservation, _NONE)
