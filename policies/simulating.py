"""A policy in simulated time: the same planner on hosts that are free at first, and what is asked of them.

The rehearsal is the core's; here are a policy's windows, its own reservations and its queues. A run depends on its
arguments alone. What came of it is counted in `simulated_figures`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from policies.format import LoadedPolicy
from policies.ticker import Ticker, apply_intent
from scheduler.core.errors import NightshiftError
from scheduler.core.intents import AddHost, FiledIntent, Intent, Materialise
from scheduler.core.plan import Plan, apply
from scheduler.core.planner.step import step
from scheduler.core.reasons import sentence
from scheduler.core.rehearsal import Demand, Rehearsal
from scheduler.core.requests import Ask, HostId, Role
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, Instant
from scheduler.core.topology import HostProfile

_AUTHOR = "simulation"
_VERSION = 1
BEFORE_S = DAY_S
"""So long before the first request the policy is applied: the night before has its window."""

Profiles = Callable[[str], HostProfile]


class PolicyRefused(NightshiftError):
    """The planner does not take a policy on, or a host."""

    code = "simulation.refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One request, whatever policy it meets."""

    at: Instant
    owner: str
    gpus: int
    run_s: int
    """As long as it asks for."""
    used_s: int
    """How long its guest has work for."""
    queue: str | None = None
    """None, or one that the policy does not have: see `queue_for`."""
    not_before_at: Instant | None = None
    start_by_at: Instant | None = None
    disk_gib: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedHost:
    """A host of the fleet."""

    id: HostId
    profile: str
    storage: str


def simulate(
    policy: LoadedPolicy,
    wanted: Sequence[Wanted],
    hosts: Iterable[SimulatedHost],
    *,
    from_at: Instant,
    until_at: Instant,
    settings: Settings,
    profiles: Profiles,
    may_be_compiled: bool = True,
    moved: Callable[[int], None] | None = None,
) -> Rehearsal:
    """Live through all that is wanted, in order of time, and until the last of it is over; return what became of it.

    `[from_at, until_at)`: the days, which are lived to their end. `moved` is told now and then how many requests were
    made. Raises PolicyRefused.
    """
    begin_at = from_at - BEFORE_S
    plan = _first_plan(policy, tuple(hosts), begin_at, settings=settings, profiles=profiles)
    rehearsal = Rehearsal(
        plan,
        [_demand(policy, one) for one in wanted],
        at=begin_at,
        settings=settings,
        profiles=profiles,
        filings=_Clockwork(policy, settings),
        whole_until_at=until_at,
        may_be_compiled=may_be_compiled,
    )
    # Nothing is booked past the horizon.
    rehearsal.run(until_at + 2 * settings.horizon_s, moved=moved)
    return rehearsal


def queue_for(policy: LoadedPolicy, *, gpus: int, asked: str | None = None) -> str:
    """Return the queue that a request goes to.

    The one it asked for, if any layout gives its size to it; else the first in the policy that the layout outside of
    windows gives its size to, else the first that a window's does, in the order of the file. A size that no queue has
    goes to the first one, and is refused there.
    """
    layouts = (policy.outside, *(entry.layout for entry in policy.windows))
    names = [queue.name for queue in policy.queues]
    if asked in names and any(layout.admits(gpus=gpus, queue=asked) for layout in layouts):
        return asked
    found = (name for layout in layouts for name in names if layout.admits(gpus=gpus, queue=name))
    return next(found, names[0])


def _demand(policy: LoadedPolicy, wanted: Wanted) -> Demand:
    ask = Ask(
        owner=wanted.owner,
        queue=queue_for(policy, gpus=wanted.gpus, asked=wanted.queue),
        gpus=wanted.gpus,
        run_s=wanted.run_s,
        not_before_at=wanted.not_before_at,
        start_by_at=wanted.start_by_at,
        disk_gib=wanted.disk_gib,
    )
    return Demand(at=wanted.at, ask=ask, used_s=wanted.used_s)


def _first_plan(
    policy: LoadedPolicy,
    hosts: tuple[SimulatedHost, ...],
    now: Instant,
    *,
    settings: Settings,
    profiles: Profiles,
) -> Plan:
    """Return the plan of these hosts under a policy, with nobody on them."""
    intents: list[Intent] = [AddHost(host=host.id, profile=host.profile, storage=host.storage) for host in hosts]
    intents.append(apply_intent(policy, [host.id for host in hosts], now=now, version=_VERSION, settings=settings))
    filed = [
        FiledIntent(seq=seq, at=now, author=_AUTHOR, role=Role.ADMIN, intent=intent)
        for seq, intent in enumerate(intents, start=1)
    ]
    change = step(Plan(), filed, {}, now, settings=settings, profiles=profiles)
    for decided in change.decided:
        if not decided.is_accepted:
            raise PolicyRefused(f"{policy.source} cannot be simulated: {sentence(decided.reasons[0])}")
    return apply(Plan(), change)


class _Clockwork:
    """What the clock files under a policy, as its ticker does."""

    def __init__(self, policy: LoadedPolicy, settings: Settings) -> None:
        self._policy = policy
        self._ticker = Ticker(self._file, settings)
        self._filed: list[FiledIntent] = []

    def __call__(self, plan: Plan, now: Instant) -> tuple[Sequence[FiledIntent], Instant]:
        self._filed = []
        self._ticker.tick(
            now,
            policy=self._policy,
            policy_version=_VERSION,
            horizon_at=plan.horizon_at,
            hosts=frozenset(plan.hosts),
        )
        # Once windows reach further, more of the policy's own reservations may be due.
        is_moved = any(isinstance(filed.intent, Materialise) for filed in self._filed)
        return self._filed, now + 1 if is_moved else max(self._ticker.quiet_until, now + 1)

    def _file(self, intent: Intent, *, at: Instant, author: str, role: Role, key: str) -> tuple[FiledIntent, bool]:
        filed = FiledIntent(seq=0, at=at, author=author, role=role, intent=intent, key=key)
        self._filed.append(filed)
        return filed, True
