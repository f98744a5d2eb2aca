"""Intents: what the edges and the policies want, numbered in the order in which they came.

An edge writes an intent and never a plan row; the `plan` task takes all open intents in order and decides them.
Holds values only.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from scheduler.core.plan import NO_NOTE, PolicyNote, Rules
from scheduler.core.requests import Ask, HostId, ReservationId, Role
from scheduler.core.spans import Instant
from scheduler.core.windows import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    ask: Ask
    kind: Literal["submit"] = "submit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Give a reservation up: a waiting one leaves the plan, a running one is stopped with grace; disks are kept."""

    reservation: ReservationId
    kind: Literal["cancel"] = "cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """End a running reservation at once; disks are kept, and a new reservation may continue with them."""

    reservation: ReservationId
    kind: Literal["stop"] = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extend:
    reservation: ReservationId
    by_s: int
    kind: Literal["extend"] = "extend"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """Start again a guest that shut itself down, inside its own time."""

    reservation: ReservationId
    kind: Literal["restart"] = "restart"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddHost:
    host: HostId
    profile: str
    storage: str
    connect: str = ""
    """The libvirt URI at which it is reached; empty for a simulated rack."""
    windows: tuple[Window, ...] = ()
    """Its windows under the applied policy, up to the plan's horizon."""
    policy_version: int = 0
    """The policy that its windows are of; 0 before any is applied."""
    horizon_at: Instant = 0
    """How far its windows reach."""
    kind: Literal["add_host"] = "add_host"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectHost:
    """Reach a host elsewhere, or in another way; refused where something of ours could be on another machine then."""

    host: HostId
    connect: str
    kind: Literal["connect_host"] = "connect_host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """No new spans; running ones finish; booked ones are re-placed where that is possible."""

    host: HostId
    kind: Literal["drain"] = "drain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Undrain:
    host: HostId
    kind: Literal["undrain"] = "undrain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mend:
    """An admin says that a quarantined GPU is mended: check it and take it back."""

    host: HostId
    gpu: int
    kind: Literal["mend"] = "mend"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyPolicy:
    """A checked policy with its windows up to the horizon.

    Refused whole if it would break a promise, unless its note says why an admin wants that.
    """

    rules: Rules
    windows: tuple[Window, ...]
    hosts: frozenset[HostId]
    """The hosts that its windows were made for: refused when the plan has another one by now."""
    horizon_at: Instant
    text: str
    note: PolicyNote = NO_NOTE
    kind: Literal["apply_policy"] = "apply_policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Materialise:
    """The windows of the applied policy between the old horizon and a new one."""

    policy_version: int
    windows: tuple[Window, ...]
    hosts: frozenset[HostId]
    """The hosts that its windows were made for: refused when the plan has another one by now."""
    horizon_at: Instant
    kind: Literal["materialise"] = "materialise"


Intent: TypeAlias = (
    Submit
    | Cancel
    | Stop
    | Extend
    | Restart
    | AddHost
    | ConnectHost
    | Drain
    | Undrain
    | Mend
    | ApplyPolicy
    | Materialise
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FiledIntent:
    """An intent as it stands in the database."""

    seq: int
    at: Instant
    author: str
    role: Role
    intent: Intent
    key: str | None = None
    """At most one intent with this key is ever filed: what fires once by the clock."""


def reservation_id(seq: int) -> ReservationId:
    """Return the id of the reservation that the submit intent numbered `seq` asks for."""
    return ReservationId(f"r-{seq}")
