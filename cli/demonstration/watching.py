"""Looks at an installation without touching it: what is going on on the host, and what comes next by the clock.

Reads plan, facts and the rack's file. What people were told is not read here but asked for through the API, by
`students`; what happened is read from the rack's log.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from cli.demonstration.pacing import Outlook
from cli.installation import Parts
from scheduler.core.converging.due import next_due_at
from scheduler.core.facts import GpuState, HostFacts, Verb
from scheduler.core.phases import Phase, phase_of
from scheduler.core.plan import Plan, Reservation
from scheduler.core.planner.due import next_plan_due_at
from scheduler.core.requests import HostId, ReservationId
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile
from scheduler.core.windows import Window, WindowId
from workers.drivers.simulated.log import LogLine, read_file
from workers.drivers.simulated.rack import SimulatedRack
from workers.drivers.simulated.schema import rack_path

SEEN_TO_WITHIN_S = 0.3
"""So long in machine time the installation has to see to what came due before time goes fast again."""
_CHANGING = frozenset({Phase.STARTING, Phase.PARKING, Phase.RESUMING, Phase.STOPPING})
_LASTING = frozenset({Verb.WARN})
"""Asked once and remembered to the end of the VM: nothing is under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """One look."""

    now: Instant
    outlook: Outlook
    phases: Mapping[ReservationId, Phase]
    """Of every reservation that has not ended long ago."""
    owners: Mapping[ReservationId, str]
    resetting: frozenset[int]
    """GPUs that are between two VMs."""
    layout: str
    """What may run now."""
    is_window: bool
    """A policy's window holds."""


@dataclass(slots=True)
class Watch:
    """Watches one host. What is due next is worked out anew only when plan or facts have changed, or it has come."""

    parts: Parts
    host: HostId
    profile: HostProfile
    machine_s: Callable[[], float]
    windows: dict[WindowId, Window] = field(default_factory=dict)
    """Every window that was ever seen, as it was last seen: the plan forgets them."""
    _rack: SimulatedRack | None = None
    _seen: tuple[int, int] | None = None
    _due_at: Instant | None = None
    _came_due_s: float | None = None
    _read_seq: int = 0

    def open(self) -> None:
        """Open the rack, which must be there."""
        directory = self.parts.installation.racks
        self._rack = SimulatedRack(directory, self.host, self.profile, self.parts.clock, seed=0)

    def close(self) -> None:
        if self._rack is not None:
            self._rack.close()
            self._rack = None

    def new_lines(self) -> tuple[LogLine, ...]:
        """Return what the rack's log has got since it was last read."""
        path = rack_path(self.parts.installation.data, self.host)
        lines = read_file(path, after_seq=self._read_seq)
        if lines:
            self._read_seq = lines[-1].seq
        return lines

    def look(self, *, next_act_at: Instant | None, is_asking: bool) -> Sight:
        """Look once; `next_act_at` is when a student acts next, `is_asking` that one waits for an answer."""
        plan = self.parts.plans.current()
        all_facts, revisions = self.parts.known_facts.current()
        facts = all_facts.get(self.host, HostFacts(host=self.host))
        now = self.parts.clock.now()
        due_at = self._due(plan, all_facts, facts, (plan.version, revisions.get(self.host, 0)), now)
        phases = {r.id: _phase(r, facts, now) for r in plan.reservations.values()}
        rack_due_at = None if self._rack is None else self._rack.next_due_at()
        window = _holding(plan, now)
        coming = [at for at in (due_at, rack_due_at, next_act_at) if at is not None]
        outlook = Outlook(
            now=now,
            next_due_at=min(coming, default=None),
            busy_with=self._busy_with(phases.values(), facts, is_asking=is_asking),
        )
        return Sight(
            now=now,
            outlook=outlook,
            phases=phases,
            owners={r.id: r.request.owner for r in plan.reservations.values()},
            resetting=frozenset(gpu.gpu for gpu in facts.gpus if gpu.state is GpuState.DIRTY),
            layout=window.layout.name if window is not None else plan.rules.outside.name if plan.rules else "",
            is_window=window is not None,
        )

    def _due(
        self,
        plan: Plan,
        all_facts: Mapping[HostId, HostFacts],
        facts: HostFacts,
        seen: tuple[int, int],
        now: Instant,
    ) -> Instant | None:
        """Return what comes due next by the clock alone, and note when something has."""
        if self._due_at is not None and now >= self._due_at:
            self._came_due_s = self.machine_s()
        elif seen == self._seen:
            return self._due_at
        self._seen = seen
        self.windows.update(plan.windows)
        settings = self.parts.settings
        due = [next_plan_due_at(plan, all_facts, now, settings)]
        if self.host in plan.hosts:
            due.append(next_due_at(plan, self.host, facts, now, profile=self.profile, settings=settings))
        self._due_at = min((at for at in due if at is not None), default=None)
        return self._due_at

    def _busy_with(self, phases: Iterable[Phase], facts: HostFacts, *, is_asking: bool) -> str:
        changing = next((phase.value for phase in phases if phase in _CHANGING), None)
        if changing is not None:
            return changing
        asked = next((ask.verb.value for ask in facts.asked if ask.verb not in _LASTING), None)
        if asked is not None:
            return asked
        if is_asking or self.parts.store.open_intents():
            return "asking"
        return "deciding" if self._is_just_due() else ""

    def _is_just_due(self) -> bool:
        return self._came_due_s is not None and self.machine_s() - self._came_due_s < SEEN_TO_WITHIN_S


def _phase(reservation: Reservation, facts: HostFacts, now: Instant) -> Phase:
    return phase_of(reservation, [vm for vm in facts.vms if vm.reservation == reservation.id], now)


def _holding(plan: Plan, now: Instant) -> Window | None:
    for window in plan.windows.values():
        closed = window.closed_span
        if window.is_decided and closed is not None and closed.covers(now):
            return window
    return None
