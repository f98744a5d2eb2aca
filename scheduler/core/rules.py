"""Parts of a policy's rules: whom and when a limit is about, the order of a queue, what becomes of unused GPUs.

Holds values only. `plan.Rules` puts them together; what of them is enforced is said where it is.
"""

from dataclasses import dataclass
from enum import StrEnum


class LimitScope(StrEnum):
    """Whom a limit is about."""

    EACH = "each"
    """Every owner by himself."""
    GROUP = "group"
    """The members of a group together."""
    EACH_OF_GROUP = "each of group"
    USER = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockHours:
    """Hours of the day on some weekdays, in the policy's zone."""

    weekdays: frozenset[int]
    """Monday is 0."""
    from_minute: int
    until_minute: int
    """Minutes after midnight, `[from, until)`; over midnight if `until` is not later. The weekday is that of `from`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Owners whom a policy counts together."""

    name: str
    members: frozenset[str]


class OrderKind(StrEnum):
    RESPONSE_RATIO = "response-ratio"
    """Short ones first, and who has waited long; also where nothing is said."""
    FIRST_COME = "first-come"
    SHORTEST_FIRST = "shortest-first"
    FAIR_SHARE = "fair-share"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOrder:
    """Who of a queue is next."""

    kind: OrderKind
    age_cap_s: int | None = None
    """Shortest first: who has waited so long comes before all shorter ones."""
    half_life_s: int | None = None
    """Fair share: after this time use counts half."""


class UnusedAction(StrEnum):
    TELL = "tell"
    PARK = "park"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unused:
    """What becomes of GPUs that are reserved and not used."""

    no_show_after_s: int | None = None
    """Nobody has logged in for so long after the start."""
    idle_after_s: int | None = None
    """No GPU of the VM was busier than `idle_below_percent` for so long."""
    idle_below_percent: int = 5
    action: UnusedAction = UnusedAction.TELL


@dataclass(frozen=True, slots=True, kw_only=True)
class Slack:
    """How much later than its earliest place a request is told: a policy's value, 0 by default."""

    least_s: int = 0
    share: float = 0.0
    """Of the wait that it is told."""

    def of(self, wait_s: int) -> int:
        """Return the slack of a wait; who need not wait is given none."""
        return 0 if wait_s <= 0 else max(self.least_s, int(self.share * wait_s))


NO_SLACK = Slack()
