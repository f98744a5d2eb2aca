"""What a policy would change if it were applied now: windows, bookings, promises. A dry run; nothing is kept.

The policy is applied to a copy of the plan by the very step that would apply it, and what comes out is held against the
plan as it is. If it would break promises, it is applied by an override: so all that would break are named, with what
they would be told then.

Made of windows and bookings, not of texts: the same text under new time zone data or holidays has a diff too.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial

from scheduler.core.facts import HostFacts
from scheduler.core.intents import ApplyPolicy, FiledIntent
from scheduler.core.plan import BookedSpan, Plan, PlanChange, Reservation, Rules, apply
from scheduler.core.planner.deciding import OVERRIDDEN_EVENT, would_break
from scheduler.core.planner.draft import EndedUses, LikelyWait, UsedGpus
from scheduler.core.planner.step import step
from scheduler.core.planner.window_changes import NEAR_S, WindowChange, window_changes
from scheduler.core.reasons import Reason
from scheduler.core.requests import HostId, Promise, ReservationId, Role, by_number
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile

MOST_BROKEN = 50
"""So many broken promises are named; nobody applies such a policy."""
_TRIED = "diff"


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingChange:
    """A reservation whose booking would be at another time or on another host; its promise holds all the same."""

    reservation: ReservationId
    owner: str
    gpus: int
    promise: Promise | None
    before: tuple[BookedSpan, ...]
    """What is left of its booking, in order of time."""
    after: tuple[BookedSpan, ...]

    @property
    def start_moves_s(self) -> int:
        """How much later it would start, or go on; negative is earlier."""
        return self.after[0].start_at - self.before[0].start_at if self.before and self.after else 0

    @property
    def end_moves_s(self) -> int:
        return self.after[-1].end_at - self.before[-1].end_at if self.before and self.after else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenPromise:
    """A promise that the policy would break, so that it would be refused."""

    reservation: ReservationId
    owner: str
    why: Reason
    promise: Promise | None
    after: Promise | None
    """What it would be told if an admin overrides it; None: no place is left for it before the horizon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDiff:
    """What would be different under a policy."""

    plan_version: int
    now: Instant
    until_at: Instant
    """Windows that start from here on are not compared: the plan does not know all of its own yet."""
    rules: tuple[str, ...] = ()
    """What of the policy's other rules would be different, by the words of the policy file."""
    windows: tuple[WindowChange, ...] = ()
    bookings: tuple[BookingChange, ...] = ()
    broken: tuple[BrokenPromise, ...] = ()
    is_broken_complete: bool = True
    """False: more promises would break than are named."""
    refusals: tuple[Reason, ...] = ()
    """Why it would be refused in any case. Nothing else is known then."""

    @property
    def is_refused(self) -> bool:
        return bool(self.broken or self.refusals)

    @property
    def is_empty(self) -> bool:
        """Whether applying it would change nothing but the version's number."""
        return not (self.rules or self.windows or self.bookings or self.is_refused)

    @property
    def owners_hit(self) -> tuple[str, ...]:
        """Whose booking would move, or whose promise would break."""
        return tuple(sorted({one.owner for one in self.bookings} | {one.owner for one in self.broken}))


def policy_diff(
    plan: Plan,
    facts: Mapping[HostId, HostFacts],
    intent: ApplyPolicy,
    now: Instant,
    *,
    settings: Settings,
    profiles: Callable[[str], HostProfile],
    likely_wait_s: LikelyWait | None = None,
    used_gpu_s: UsedGpus | None = None,
    ended_uses: EndedUses | None = None,
) -> PolicyDiff:
    """Return what applying a policy now would change. `intent` is the one that would apply it to this plan.

    `likely_wait_s`, `used_gpu_s` and `ended_uses` are those that the step would be given.
    """
    # Without a memory: what is tried here is never the plan's.
    dry_run = partial(
        step,
        facts=facts,
        now=now,
        settings=settings,
        profiles=profiles,
        likely_wait_s=likely_wait_s,
        used_gpu_s=used_gpu_s,
        ended_uses=ended_uses,
    )
    # What is due anyway is not the policy's doing.
    settled = apply(plan, dry_run(plan, ()))
    # Everything that it would break is found by the very code that would break it.
    overriding = replace(intent, note=replace(intent.note, override=_TRIED))
    filed = FiledIntent(seq=0, at=now, author=_TRIED, role=Role.ADMIN, intent=overriding)
    change = dry_run(settled, (filed,))
    reasons = change.decided[0].reasons
    if reasons:
        return PolicyDiff(plan_version=plan.version, now=now, until_at=now, refusals=reasons)
    after = apply(settled, change)
    broken = tuple(_broken_by(change, settled, after))
    names = {one.reservation for one in broken}
    moved = _booking_changes(settled.reservations, after.reservations, now)
    until_at = max(now, min(settled.horizon_at, after.horizon_at) - NEAR_S) if settled.rules else after.horizon_at
    return PolicyDiff(
        plan_version=plan.version,
        now=now,
        until_at=until_at,
        rules=_rules_that_differ(settled.rules, after.rules),
        windows=window_changes(settled.windows.values(), after.windows.values(), now=now, until_at=until_at),
        bookings=tuple(one for one in moved if one.reservation not in names),
        broken=broken[:MOST_BROKEN],
        is_broken_complete=len(broken) <= MOST_BROKEN,
    )


def _broken_by(change: PlanChange, before: Plan, after: Plan) -> Iterator[BrokenPromise]:
    for told in change.events:
        if told.kind != OVERRIDDEN_EVENT or told.reservation is None:
            continue
        was, will_be = before.reservations[told.reservation], after.reservations[told.reservation]
        yield BrokenPromise(
            reservation=was.id,
            owner=was.request.owner,
            why=would_break(was, str(dict(told.facts)["problem"])),
            promise=was.promise,
            after=will_be.promise if _left_of(will_be, change.events[0].at) else None,
        )


# Rules.

_WORD_BY_RULE = {
    "default_disk_gib": "disk",
    "retention_s": "retention",
    "grace_s": "grace",
    "min_useful_s": "min_useful",
    "warnings_s": "warnings",
    "limit_rules": "limits",
}
_NO_RULES = frozenset({"version", "source", "longest_grace_s", "zone_shifts"})
"""What names a policy, and what follows from its windows and its zone."""


def _rules_that_differ(before: Rules | None, after: Rules | None) -> tuple[str, ...]:
    if before is None or after is None:
        return ()
    old, new = _without_places(before), _without_places(after)
    differ = [
        _WORD_BY_RULE.get(one.name, one.name)
        for one in fields(Rules)
        if one.name not in _NO_RULES and getattr(old, one.name) != getattr(new, one.name)
    ]
    return tuple(dict.fromkeys(differ))


def _without_places(rules: Rules) -> Rules:
    """Return rules that do not say on which line they stand: a new comment is no new rule."""
    return replace(rules, limit_rules=tuple(replace(rule, source="") for rule in rules.limit_rules))


# Bookings.


def _booking_changes(
    before: Mapping[ReservationId, Reservation], after: Mapping[ReservationId, Reservation], now: Instant
) -> Iterator[BookingChange]:
    for key in sorted(before.keys() & after.keys(), key=by_number):
        was, will_be = _left_of(before[key], now), _left_of(after[key], now)
        if before[key].outcome is None and _places(was) != _places(will_be):
            request = before[key].request
            yield BookingChange(
                reservation=key,
                owner=request.owner,
                gpus=request.gpus,
                promise=before[key].promise,
                before=was,
                after=will_be,
            )


def _left_of(reservation: Reservation, now: Instant) -> tuple[BookedSpan, ...]:
    return tuple(span for span in reservation.spans if span.end_at > now)


def _places(spans: Iterable[BookedSpan]) -> list[tuple[Instant, Instant, HostId]]:
    """Return when and on which hosts; which of a host's GPUs they are is decided late, and nobody is told."""
    return [(span.start_at, span.end_at, span.host) for span in spans]
