"""The workspace of one look: what is needed to judge it, and the events and measurements found so far."""

from dataclasses import dataclass, field

from scheduler.core.converging.actions import InFlight
from scheduler.core.facts import HostFacts, Measurement
from scheduler.core.plan import Event, Plan
from scheduler.core.reasons import Fact
from scheduler.core.requests import ReservationId
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnessed:
    """What one look came to."""

    facts: HostFacts
    """The very object that was given when nothing changed."""
    events: tuple[Event, ...]
    measurements: tuple[Measurement, ...]


@dataclass(slots=True, kw_only=True)
class Witnessing:
    """Not kept beyond one look."""

    facts: HostFacts
    """As they were before."""
    plan: Plan
    now: Instant
    profile: HostProfile
    settings: Settings
    in_flight: InFlight
    is_rebooted: bool = False
    events: list[Event] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)

    def tell(
        self, kind: str, *, reservation: ReservationId | None = None, is_notice: bool = False, **facts: Fact
    ) -> None:
        """Note a change of state."""
        self.events.append(
            Event(
                kind=kind,
                at=self.now,
                reservation=reservation,
                host=self.facts.host,
                facts=tuple(sorted(facts.items())),
                is_notice=is_notice,
            )
        )

    def measure(
        self, what: str, *, gpus: int, took_s: int, bound_s: int, reservation: ReservationId | None = None
    ) -> None:
        """Note how long something took; over its bound it is a fault, and told."""
        self.measurements.append(Measurement(host=self.facts.host, what=what, gpus=gpus, took_s=took_s, at=self.now))
        if took_s > bound_s:
            self.tell(
                "bound.exceeded", reservation=reservation, is_notice=True, what=what, took_s=took_s, bound_s=bound_s
            )
