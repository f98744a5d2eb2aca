"""What people, admins and fate do in a history: asks, policies and faults, drawn from one seeded source.

Draws values only; who files them when is in `histories`.
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from policies.format import LoadedPolicy
from policies.loading import load_policy
from scheduler.core.plan import Plan, Reservation
from scheduler.core.requests import Ask, AtBoundary, HostId, ReservationId
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S, Instant
from workers.drivers.simulated.faults import Fault, FaultKind, RackVerb

OWNERS = ("ada", "ben", "cyd", "dee", "eva", "fay", "gus", "hal")
GPUS = 16

_POLICY = """\
version: 1
zone: {zone}
layouts:
  day: {{sizes: {day_sizes}, queues: [interactive]}}
  night: {{sizes: [{night_sizes}], queues: [hpc]}}
outside: day
queues:
  interactive: {{at_boundary: {at_boundary}, default_disk: 100GiB}}
  hpc: {{at_boundary: finish, scratch: true, default_disk: 500GiB}}
images: [ubuntu-22.04-cuda, ubuntu-24.04-cuda]
defaults: {{disk: 100GiB, retention: {retention}, grace: {grace}, min_useful: {min_useful}, warnings: [60m, 15m]}}
limits: {{open_reservations: {open_reservations}, gpus_at_once: 32, longest: 14d}}
windows:
  - {{name: {name}, layout: night, hosts: ["{hosts}"], opens: "0 {opens} * * {days}", for: {length}h,
     only_if_queued: {only_if_queued}, at_boundary: [{allowed}], grace: {window_grace}}}
reserve: {reserve}
"""
_RESERVE = """
  - {name: climate-nightly, cron: "0 23 * * *", for: 2h, gpus: 16, queue: hpc, owner: climate-group}
  - {name: course, cron: "0 10 * * *", for: 2h, gpus: 2, count: 4, queue: interactive, owner: course,
     at_boundary: finish, disk: 50GiB, ahead: 2d}
"""
_QUIET_POLICY = """\
version: 1
zone: UTC
layouts:
  any: {sizes: [1, 2, 4, 8, 16], queues: [interactive, hpc]}
outside: any
queues:
  interactive: {at_boundary: park}
  hpc: {at_boundary: finish, scratch: true, default_disk: 500GiB}
images: [ubuntu-22.04-cuda]
defaults: {disk: 100GiB, retention: 1d}
"""


def _loaded(text: str, source: str) -> LoadedPolicy:
    policy = load_policy(text, source=source)
    assert isinstance(policy, LoadedPolicy), f"{policy}\n{text}"
    return policy


_TERMS: dict[str, Sequence[object]] = {
    "zone": ["Europe/Berlin", "America/New_York", "UTC"],
    "day_sizes": [[1, 2, 4, 8], [1, 2, 4, 8], [1, 2, 4, 8, 16]],
    "night_sizes": ["16", "16", "8, 16"],
    "at_boundary": ["park", "park", "park", "finish"],
    "retention": ["12h", "1d"],
    "grace": ["5m", "5m", "2m", "10m"],
    "min_useful": ["30m", "30m", "10m"],
    "open_reservations": [12, 20],
    "name": ["night", "late"],
    "hosts": ["*", "*", "dgx2-a"],
    "opens": [18, 20, 22],
    "days": ["*", "*", "mon-fri"],
    "length": [4, 10, 12],
    "only_if_queued": ["true", "true", "true", "false"],
    "allowed": ["park, finish", "park, finish", "park, finish, keep", "finish"],
    "window_grace": ["5m", "8m"],
    "reserve": ["[]", _RESERVE],
}
_SMALL_TERMS = ("at_boundary", "retention", "grace", "min_useful", "open_reservations", "only_if_queued", "reserve")
"""Terms that may mostly be changed while people are promised time."""

Terms = dict[str, object]


def random_terms(random: Random) -> Terms:
    """Draw the terms of a policy with nights of some kind."""
    return {name: random.choice(choices) for name, choices in _TERMS.items()}


def changed_terms(random: Random, terms: Terms) -> Terms:
    """Change a few small things about a policy."""
    return {**terms, **{name: random.choice(_TERMS[name]) for name in random.sample(_SMALL_TERMS, 2)}}


def policy_of(terms: Terms, *, number: int) -> LoadedPolicy:
    return _loaded(_POLICY.format(**terms), f"policy-{number}.yaml")


def policy_without_hpc(random: Random, *, number: int) -> LoadedPolicy:
    """Make a policy under which no whole-host work ever runs: to be refused while some is promised."""
    text = _POLICY.format(
        zone="UTC",
        day_sizes=[1, 2, 4, 8],
        night_sizes="8",
        at_boundary="park",
        retention="1d",
        grace="5m",
        min_useful="30m",
        open_reservations=20,
        name=random.choice(["night", "late"]),
        hosts="*",
        opens=random.choice([19, 21]),
        days="*",
        length=4,
        only_if_queued="true",
        allowed="park, finish",
        window_grace="5m",
        reserve="[]",
    )
    return _loaded(text, f"policy-{number}.yaml")


def quiet_policy() -> LoadedPolicy:
    """Make the policy under which a history comes to its end: everything may run at any time, nothing is filed."""
    return _loaded(_QUIET_POLICY, "quiet.yaml")


def random_ask(random: Random, plan: Plan, now: Instant) -> Ask:
    """Ask for something that a person might: mostly possible, sometimes not."""
    is_hpc = random.random() < 0.08
    hours = (
        [HOUR_S, 2 * HOUR_S, 3 * HOUR_S, 5 * HOUR_S]
        if is_hpc
        else [60, 20 * MINUTE_S, HOUR_S, HOUR_S, 2 * HOUR_S, 3 * HOUR_S, 5 * HOUR_S, 9 * HOUR_S, 26 * HOUR_S]
    )
    ask = Ask(
        owner=random.choice(OWNERS),
        queue="hpc" if is_hpc else "interactive",
        gpus=GPUS if is_hpc else random.choice([1, 1, 1, 1, 2, 2, 2, 4, 4, 8]),
        run_s=random.choice(hours) + random.choice([0, 0, 1, 1234]),
        at_boundary=random.choice([None, None, None, None, *AtBoundary]),
        disk_gib=random.choice([None, None, None, 10, 400]),
    )
    later_at = now + random.choice([0, 61, HOUR_S, 7 * HOUR_S, DAY_S, 2 * DAY_S]) + random.randint(0, HOUR_S)
    match random.randrange(14):
        case 0:
            return replace(ask, not_before_at=later_at, start_by_at=later_at)
        case 1:
            return replace(ask, not_before_at=later_at)
        case 2:
            return replace(ask, start_by_at=later_at)
        case 3:
            return replace(ask, not_before_at=later_at, start_by_at=later_at + random.randint(0, DAY_S))
        case 4 | 5:
            over = [r for r in known(plan) if r.outcome is not None and r.disk in plan.disks]
            if over:
                kept = random.choice(over)
                return replace(ask, owner=kept.request.owner, disk_gib=None, continues=kept.id)
        case 6:
            return _invalid(random, ask, plan, now)
        case _:
            pass
    return ask


def _invalid(random: Random, ask: Ask, plan: Plan, now: Instant) -> Ask:
    """Spoil an ask: whatever else is in it, it must be refused."""
    return random.choice(
        [
            replace(ask, gpus=random.choice([0, 3, 5, 17, -1])),
            replace(ask, run_s=random.choice([0, -5, 59, 15 * DAY_S])),
            replace(ask, not_before_at=now - HOUR_S, start_by_at=now - 60),
            replace(ask, not_before_at=plan.horizon_at + 1),
            replace(ask, queue="batch"),
            replace(ask, image="windows-3.11"),
            replace(ask, disk_gib=random.choice([0, 9, 10**6])),
            replace(ask, ssh_key="not-a-key"),
            replace(ask, continues=ReservationId("r-999999")),
            replace(ask, not_before_at=now + DAY_S, start_by_at=now + HOUR_S),
        ]
    )


def is_invalid(ask: Ask, plan: Plan, now: Instant) -> bool:
    """Whether an ask may under no policy here be accepted."""
    return (
        ask.gpus not in (1, 2, 4, 8, 16)
        or not 60 <= ask.run_s <= 14 * DAY_S
        or (ask.start_by_at is not None and ask.start_by_at < now)
        or (ask.not_before_at or 0) > plan.horizon_at
        or ask.queue not in ("interactive", "hpc")
        or ask.image == "windows-3.11"
        or (ask.disk_gib is not None and ask.continues is None and not 10 <= ask.disk_gib <= 30_000)
        or ask.ssh_key is not None
        or ask.continues == "r-999999"
        or (ask.start_by_at is not None and (ask.not_before_at or 0) > ask.start_by_at)
    )


def known(plan: Plan) -> list[Reservation]:
    return [reservation for _, reservation in sorted(plan.reservations.items())]


# Fate.

_CALLS = (
    RackVerb.DEFINE,
    RackVerb.START,
    RackVerb.START,
    RackVerb.ASK_SHUTDOWN,
    RackVerb.DESTROY,
    RackVerb.UNDEFINE,
    RackVerb.BIND,
    RackVerb.ASK_RESET,
    RackVerb.REBIND,
    RackVerb.ACTIVATE,
    RackVerb.DEACTIVATE,
    RackVerb.CREATE_DISK,
    RackVerb.DELETE_DISK,
    RackVerb.WARN,
)
_KINDS = (
    FaultKind.FAIL,
    FaultKind.FAIL,
    FaultKind.HANG,
    FaultKind.ACT_HALF,
    FaultKind.LIE,
    FaultKind.IGNORE_SHUTDOWN,
    FaultKind.IGNORE_SHUTDOWN,
    FaultKind.VANISH,
    FaultKind.REBOOT,
    FaultKind.UNREACHABLE,
    FaultKind.GPU_DIES,
    FaultKind.AGENT_SILENT,
    FaultKind.GUEST_CRASH,
    FaultKind.GUEST_CRASH,
    FaultKind.GUEST_SHUTDOWN,
    FaultKind.GUEST_SHUTDOWN,
    FaultKind.FOREIGN,
)


def random_fault(random: Random, now: Instant, running: Sequence[ReservationId]) -> Fault:
    """Let something go wrong now, or at one of the next calls."""
    kind = random.choice(_KINDS)
    whom = random.choice(running) if running else None
    until_at = now + random.choice([MINUTE_S, 10 * MINUTE_S, HOUR_S, 5 * HOUR_S])
    match kind:
        case FaultKind.FAIL | FaultKind.HANG | FaultKind.ACT_HALF | FaultKind.LIE:
            verb = random.choice((*_CALLS, RackVerb.LOOK)) if kind is FaultKind.FAIL else random.choice(_CALLS)
            is_hang = kind is FaultKind.HANG
            return Fault(
                kind=kind,
                verb=verb,
                nth=random.choice([1, 1, 2]),
                times=random.choice([1, 1, 2, 4]),
                until_at=until_at if is_hang and random.random() < 0.8 else None,
            )
        case FaultKind.IGNORE_SHUTDOWN:
            return Fault(kind=kind, verb=RackVerb.ASK_SHUTDOWN, times=random.choice([1, 3]))
        case FaultKind.REBOOT | FaultKind.UNREACHABLE:
            return Fault(kind=kind, at=now, until_at=now + random.choice([180, 600, HOUR_S]))
        case FaultKind.GPU_DIES:
            until = random.choice([None, until_at])
            return Fault(kind=kind, at=now, gpus=(random.randrange(GPUS),), until_at=until)
        case FaultKind.FOREIGN:
            size = random.choice([1, 2])
            first = random.randrange(GPUS // size) * size
            return Fault(
                kind=kind, at=now, gpus=tuple(range(first, first + size)), subject=f"by-hand-{now}", until_at=until_at
            )
        case FaultKind.AGENT_SILENT:
            return Fault(kind=kind, at=now, subject=whom, until_at=random.choice([None, until_at]))
        case FaultKind.VANISH | FaultKind.GUEST_CRASH | FaultKind.GUEST_SHUTDOWN:
            return Fault(kind=kind, at=now, subject=whom)


def is_guests_own(fault: Fault) -> bool:
    """Whether it is the guest's own doing, which breaks nobody's promise."""
    return fault.kind in (FaultKind.GUEST_CRASH, FaultKind.GUEST_SHUTDOWN, FaultKind.IGNORE_SHUTDOWN)


def hosts_named(number: int) -> tuple[HostId, ...]:
    return tuple(HostId(f"dgx2-{letter}") for letter in "abc"[:number])
