"""What a policy would change if it were applied now: windows, bookings, promises. A dry run; nothing is kept.

The policy is applied to a copy of the plan by the very step that would apply it, and what comes out is held against the
plan as it is. If it would break promises, it is tried again without the reservations that are in its way, one after the
other: so all of them are named, and what it would do to the others is shown as if those were not there.

Made of windows and bookings, not of texts: the same text under new time zone data or holidays has a diff too.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from scheduler.core.facts import HostFacts
from scheduler.core.intents import ApplyPolicy, FiledIntent
from scheduler.core.plan import BookedSpan, Plan, Reservation, Rules, apply
from scheduler.core.planner.step import step
from scheduler.core.reasons import Reason, ReasonCode
from scheduler.core.requests import HostId, Promise, ReservationId, Role, by_number
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, Instant, Span
from scheduler.core.topology import HostProfile
from scheduler.core.windows import Window

MOST_BROKEN = 50
"""So many broken promises are named; nobody applies such a policy."""

NEAR_S = DAY_S
"""A window that starts this much earlier or later is another one, not one that moved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowChange:
    """A window that would move, appear, vanish or be another one at its time, on hosts to which the same happens."""

    name: str
    hosts: tuple[HostId, ...]
    before: Span | None
    """None: it would appear."""
    after: Span | None
    """None: it would vanish."""
    differs: tuple[str, ...] = ()
    """What else would be different, by the words of the policy file: `layout`, `grace`, …"""


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
    """Why it would be refused besides. Nothing else is known then."""

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
) -> PolicyDiff:
    """Return what applying a policy now would change. `intent` is the one that would apply it to this plan."""
    # What is due anyway is not the policy's doing.
    settled = apply(plan, step(plan, (), facts, now, settings=settings, profiles=profiles))
    filed = FiledIntent(seq=0, at=now, author="diff", role=Role.ADMIN, intent=intent)
    tried = settled
    broken: dict[ReservationId, BrokenPromise] = {}
    while True:
        change = step(tried, (filed,), facts, now, settings=settings, profiles=profiles)
        reasons = change.decided[0].reasons
        if not reasons:
            break
        found = list(_broken_by(reasons, tried))
        if not found:
            return PolicyDiff(
                plan_version=plan.version, now=now, until_at=now, broken=tuple(broken.values()), refusals=reasons
            )
        broken |= {one.reservation: one for one in found}
        is_enough = len(broken) > MOST_BROKEN
        left = {} if is_enough else {key: r for key, r in tried.reservations.items() if key not in broken}
        tried = replace(tried, reservations=left)
    after = apply(tried, change)
    until_at = max(now, min(settled.horizon_at, after.horizon_at) - NEAR_S) if settled.rules else after.horizon_at
    return PolicyDiff(
        plan_version=plan.version,
        now=now,
        until_at=until_at,
        rules=_rules_that_differ(settled.rules, after.rules),
        windows=_window_changes(settled.windows.values(), after.windows.values(), now=now, until_at=until_at),
        bookings=tuple(_booking_changes(tried.reservations, after.reservations, now)),
        broken=tuple(broken.values())[:MOST_BROKEN],
        is_broken_complete=len(broken) <= MOST_BROKEN,
    )


def _broken_by(reasons: Iterable[Reason], plan: Plan) -> Iterator[BrokenPromise]:
    for why in reasons:
        named = dict(why.facts).get("reservation")
        if why.code is ReasonCode.POLICY_BREAKS_PROMISE and isinstance(named, str):
            key = ReservationId(named)
            yield BrokenPromise(reservation=key, owner=plan.reservations[key].request.owner, why=why)


# Rules.

_WORD_BY_RULE = {
    "default_disk_gib": "disk",
    "retention_s": "retention",
    "grace_s": "grace",
    "min_useful_s": "min_useful",
    "warnings_s": "warnings",
    "limit_rules": "limits",
}
_NO_RULES = frozenset({"version", "source", "longest_grace_s"})
"""What names a policy, and what follows from its windows."""


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


# Windows.


def _window_changes(
    before: Iterable[Window], after: Iterable[Window], *, now: Instant, until_at: Instant
) -> tuple[WindowChange, ...]:
    hosts_by_change: dict[WindowChange, list[HostId]] = defaultdict(list)
    old, new = _by_host_and_name(before, now), _by_host_and_name(after, now)
    for host, name in sorted(old.keys() | new.keys()):
        for was, will_be in _pairs(old.get((host, name), []), new.get((host, name), [])):
            differs = () if was is None or will_be is None else _that_differs(was, will_be)
            starts_at = min(window.start_at for window in (was, will_be) if window is not None)
            is_same = was is not None and will_be is not None and was.span == will_be.span and not differs
            if is_same or starts_at >= until_at:
                continue
            change = WindowChange(
                name=name,
                hosts=(),
                before=None if was is None else was.span,
                after=None if will_be is None else will_be.span,
                differs=differs,
            )
            hosts_by_change[change].append(host)
    found = [replace(change, hosts=tuple(hosts)) for change, hosts in hosts_by_change.items()]
    return tuple(sorted(found, key=lambda change: (_first_at(change), change.name, change.hosts)))


def _first_at(change: WindowChange) -> Instant:
    return min(span.start_at for span in (change.before, change.after) if span is not None)


def _by_host_and_name(windows: Iterable[Window], now: Instant) -> dict[tuple[HostId, str], list[Window]]:
    found: dict[tuple[HostId, str], list[Window]] = defaultdict(list)
    for window in sorted(windows, key=lambda window: window.start_at):
        for host in window.hosts:
            if window.end_at > now:
                found[host, window.name].append(window)
    return found


def _pairs(before: Sequence[Window], after: Sequence[Window]) -> Iterator[tuple[Window | None, Window | None]]:
    """Pair the windows of one name on one host: the same local start, else the nearest one within a day; by start."""
    new_by_id = {window.id: window for window in after}
    known = [window for window in before if window.id in new_by_id]
    yield from ((window, new_by_id[window.id]) for window in known)
    paired = {window.id for window in known}
    old = [window for window in before if window.id not in paired]
    new = [window for window in after if window.id not in paired]
    i = j = 0
    while i < len(old) and j < len(new):
        away_s = abs(old[i].start_at - new[j].start_at)
        if i + 1 < len(old) and abs(old[i + 1].start_at - new[j].start_at) < away_s:
            yield old[i], None
            i += 1
        elif j + 1 < len(new) and abs(old[i].start_at - new[j + 1].start_at) < away_s:
            yield None, new[j]
            j += 1
        elif away_s < NEAR_S:
            yield old[i], new[j]
            i, j = i + 1, j + 1
        elif old[i].start_at < new[j].start_at:
            yield old[i], None
            i += 1
        else:
            yield None, new[j]
            j += 1
    yield from ((window, None) for window in old[i:])
    yield from ((None, window) for window in new[j:])


def _that_differs(before: Window, after: Window) -> tuple[str, ...]:
    pairs = (
        ("layout", before.layout, after.layout),
        ("at_boundary", before.at_boundary, after.at_boundary),
        ("warnings", before.warnings_s, after.warnings_s),
        ("grace", before.grace_s, after.grace_s),
        ("decide", before.start_at - before.decide_at, after.start_at - after.decide_at),
        ("only_if_queued", before.only_if_queued, after.only_if_queued),
    )
    return tuple(word for word, was, will_be in pairs if was != will_be)


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
