"""An independent judge of limits: who has more than the policy lets him have, all worked out anew, slowly and plainly.

Who has more already, under a policy that allowed it or by a fault, never gets more still. Nothing here comes from the
planner: days, weeks and hours are those of Python's zones.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from scheduler.core.plan import LimitRule, Plan, Reservation, Rules
from scheduler.core.rules import ClockHours, LimitScope
from scheduler.core.spans import HOUR_S, Instant

if TYPE_CHECKING:
    from tests.property.checker import Scene

CHOICES = {"sizes": "gpus", "queues": "queue", "images": "image"}
MOST = {"longest_run_s": "run_s", "disk_gib": "disk_gib"}


def limited_people(plan: Plan) -> dict[str, frozenset[str]]:
    """Return whom the policy limits: each owner, and each group together."""
    assert plan.rules is not None
    people = {f"group {group.name}": group.members for group in plan.rules.groups}
    return people | {r.request.owner: frozenset({r.request.owner}) for r in plan.reservations.values()}


def limit_of(rules: Rules, who: str, key: str, at: Instant) -> Any:
    """Return what a limit of somebody is at an instant; None: there is none."""
    found = []
    for number, rule in enumerate(rules.limit_rules):
        rank = _rank(rules, rule, who)
        value = getattr(rule.limits, key)
        if rank is None or value is None or not _is_on(rules, rule, at):
            continue
        dated = (0, -rule.span.start_at) if rule.span is not None else (1, 0)
        found.append(((rank, *dated, 0 if rule.hours else 1, -number), value))
    if found:
        return min(found, key=lambda item: item[0])[1]
    return None if who.startswith("group ") else getattr(rules.limits, key)


def _rank(rules: Rules, rule: LimitRule, who: str) -> int | None:
    if rule.scope is LimitScope.GROUP:
        return 0 if who == f"group {rule.name}" else None
    if who.startswith("group "):
        return None
    if rule.scope is LimitScope.USER:
        return 1 if rule.name == who else None
    if rule.scope is LimitScope.EACH_OF_GROUP:
        return 2 if any(group.name == rule.name and who in group.members for group in rules.groups) else None
    return 3


def _is_on(rules: Rules, rule: LimitRule, at: Instant) -> bool:
    if rule.span is not None and not rule.span.start_at <= at < rule.span.end_at:
        return False
    return not rule.hours or any(_shows(rules.zone, hours, at) for hours in rule.hours)


@lru_cache(maxsize=100_000)
def _shows(zone: str, hours: ClockHours, at: Instant) -> bool:
    local = _local(zone, at)
    minute = local.hour * 60 + local.minute
    if hours.from_minute < hours.until_minute:
        return local.weekday() in hours.weekdays and hours.from_minute <= minute < hours.until_minute
    began_today = minute >= hours.from_minute and local.weekday() in hours.weekdays
    return began_today or (minute < hours.until_minute and (local.weekday() - 1) % 7 in hours.weekdays)


def _local(zone: str, at: Instant) -> datetime:
    return datetime.fromtimestamp(at, ZoneInfo(zone))


def _edges(rules: Rules, from_at: Instant, until_at: Instant) -> Iterator[Instant]:
    """Yield when limits may change."""
    for rule in rules.limit_rules:
        if rule.span is not None:
            yield rule.span.start_at
            yield rule.span.end_at
        for hours in rule.hours:
            day = _local(rules.zone, from_at).replace(hour=0, minute=0, second=0, tzinfo=None) - timedelta(days=1)
            while day.replace(tzinfo=UTC).timestamp() < until_at + 48 * HOUR_S:
                for minutes in (hours.from_minute, hours.until_minute):
                    local = day + timedelta(minutes=minutes)
                    yield int(local.replace(tzinfo=ZoneInfo(rules.zone)).timestamp())
                day += timedelta(days=1)


def over_limits(scene: "Scene", who: str, members: frozenset[str]) -> Iterator[str]:
    """Yield what a step gave somebody over a limit."""
    changed = [r for r in scene.change.reservations if r.request.owner in members and r.outcome is None]
    if not changed:
        return
    yield from _gpus_at_once(scene, who, members)
    for r in changed:
        before = scene.before.reservations.get(r.id)
        start_at, was_at = _start_at(r, scene.now), None if before is None else _start_at(before, scene.now)
        has_begun = before is not None and any(span.is_pinned for span in before.spans)
        is_same = before is not None and before.request.run_s == r.request.run_s
        if start_at is None or (is_same and (has_begun or start_at == was_at)):
            continue
        yield from _gpu_hours(scene, who, members, r, start_at)
        yield from _at_its_start(scene, who, r, start_at, before, was_at)


def _gpus_at_once(scene: "Scene", who: str, members: frozenset[str]) -> Iterator[str]:
    (used, limit, at), (was, _, _) = (_most_over(scene, plan, who, members) for plan in (scene.after, scene.before))
    if used - limit > max(0, was):
        yield f"{who} has {used} GPUs at {at}, at most {limit} are allowed"


def _most_over(scene: "Scene", plan: Plan, who: str, members: frozenset[str]) -> tuple[int, int, Instant]:
    """Return the GPUs, the limit and the instant where somebody is furthest over it; of `before` by how much."""
    rules = scene.after.rules
    assert rules is not None
    spans = [
        (r.request.gpus, s.start_at, s.end_at)
        for r in plan.reservations.values()
        if r.request.owner in members and r.outcome is None
        for s in r.spans
        if s.end_at > scene.now
    ]
    until_at = max((end_at for _, _, end_at in spans), default=scene.now)
    instants = {max(start_at, scene.now) for _, start_at, _ in spans}
    instants |= {at for at in _edges(rules, scene.now, until_at) if scene.now <= at < until_at}
    most = (0, 0, 0, scene.now)
    for at in sorted(instants):
        limit = limit_of(rules, who, "gpus_at_once", at)
        used = sum(gpus for gpus, start_at, end_at in spans if start_at <= at < end_at)
        if limit is not None and used - limit > most[0]:
            most = (used - limit, used, limit, at)
    if plan is scene.before:
        return most[0], 0, most[3]
    return most[1], most[2], most[3]


def _gpu_hours(scene: "Scene", who: str, members: frozenset[str], r: Reservation, start_at: Instant) -> Iterator[str]:
    rules = scene.after.rules
    assert rules is not None
    limit_h = limit_of(rules, who, "gpu_h_per_week", start_at)
    if limit_h is not None:
        monday = _monday(rules.zone, start_at)
        after_s, before_s = (
            sum(_counted_s(o) for o, at in _starts(scene, plan, members) if _monday(rules.zone, at) == monday)
            for plan in (scene.after, scene.before)
        )
        if after_s > max(limit_h * HOUR_S, before_s):
            yield f"{who} has {after_s} GPU-seconds in the week of {monday}, at most {limit_h} h; {r.id} came to it"
    limit_h = limit_of(rules, who, "far_ahead_gpu_h", scene.now)
    today = _local(rules.zone, scene.now).date()
    if limit_h is not None and _local(rules.zone, start_at).date() > today:
        after_s, before_s = (
            sum(
                _counted_s(o)
                for o, at in _starts(scene, plan, members)
                if o.outcome is None and _local(rules.zone, at).date() > today
            )
            for plan in (scene.after, scene.before)
        )
        if after_s > max(limit_h * HOUR_S, before_s):
            yield f"{who} holds {after_s} GPU-seconds for later days, at most {limit_h} h; {r.id} came to it"


def _monday(zone: str, at: Instant) -> str:
    local = _local(zone, at)
    return f"{local.date() - timedelta(days=local.weekday())}"


def _starts(scene: "Scene", plan: Plan, members: Iterable[str]) -> Iterator[tuple[Reservation, Instant]]:
    for r in ({**scene.gone, **plan.reservations}).values():
        at = _start_at(r, scene.now)
        if r.request.owner in members and at is not None and (r.id in plan.reservations or r.outcome is not None):
            yield r, at


def _start_at(r: Reservation, now: Instant) -> Instant | None:
    for span in r.spans:
        if span.is_pinned or (r.outcome is None and span.end_at > now):
            return max(span.start_at, r.request.not_before_at or 0)
    return None


def _counted_s(r: Reservation) -> int:
    if r.outcome is None:
        return r.request.gpus * r.request.run_s
    held_s = sum(s.end_at - s.start_at for s in r.spans if s.is_pinned)
    return r.request.gpus * min(held_s, r.request.run_s)


def _at_its_start(
    scene: "Scene", who: str, r: Reservation, start_at: Instant, before: Reservation | None, was_at: Instant | None
) -> Iterator[str]:
    rules = scene.after.rules
    assert rules is not None
    for key in (*CHOICES, *MOST):
        was_bad = before is not None and was_at is not None and _is_bad(rules, who, key, before, was_at)
        if _is_bad(rules, who, key, r, start_at) and not was_bad:
            yield f"{r.id} starts at {start_at}, when {who} may have {key} {limit_of(rules, who, key, start_at)} only"


def _is_bad(rules: Rules, who: str, key: str, r: Reservation, at: Instant) -> bool:
    limit = limit_of(rules, who, key, at)
    if limit is None:
        return False
    if key in CHOICES:
        return getattr(r.request, CHOICES[key]) not in limit
    return bool(getattr(r.request, MOST[key]) > limit)
