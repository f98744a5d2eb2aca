"""Limits: what the policy lets one owner have, and a group together.

Counted in the step that decides, one request after another: two at once cannot pass a limit together.

What is said of a user comes before what is said of each member of a group, and that before what is said of each owner,
key by key; an override before what it overrides, within its dates. What holds for a group together holds besides. Not
held yet: limits by hour; GPU-hours; GPUs at once of a group together or within dates. `policy check` says so.
"""

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace

from scheduler.core.plan import LimitRule, Limits, Rules
from scheduler.core.planner.draft import Draft
from scheduler.core.reasons import Reason, ReasonCode, reason
from scheduler.core.requests import Ask
from scheduler.core.rules import Group, LimitScope
from scheduler.core.spans import DAY_S, Instant

_KEYS = tuple(field.name for field in fields(Limits))


def personal_limits(rules: Rules, owner: str, at: Instant) -> Limits:
    """Return the limits of one owner at an instant."""
    if not rules.limit_rules:
        return rules.limits
    groups = {group.name for group in rules.groups if owner in group.members}
    ranked = sorted(
        (rank, number, rule)
        for number, rule in enumerate(rules.limit_rules)
        if (rank := _rank(rule, owner, groups, at)) is not None
    )
    merged = Limits()
    for limits in (*(rule.limits for _, _, rule in ranked), rules.limits):
        missing = {key: getattr(limits, key) for key in _KEYS if getattr(merged, key) is None}
        merged = replace(merged, **missing)
    return merged


def _rank(rule: LimitRule, owner: str, groups: set[str], at: Instant) -> int | None:
    """Return how early a rule comes for an owner; None: it says nothing of them now."""
    if rule.hours or not _holds(rule, at):
        return None
    match rule.scope:
        case LimitScope.USER:
            rank = 0 if rule.name == owner else None
        case LimitScope.EACH_OF_GROUP:
            rank = 2 if rule.name in groups else None
        case LimitScope.EACH:
            rank = 4
        case _:
            rank = None
    return None if rank is None else rank + (rule.span is None)


def _holds(rule: LimitRule, at: Instant) -> bool:
    return rule.span is None or rule.span.covers(at)


def limits_together(rules: Rules, owner: str, at: Instant) -> Iterator[tuple[Group, Limits]]:
    """Yield the groups of an owner with what holds for all their members together."""
    for group in rules.groups:
        if owner not in group.members:
            continue
        mine = [r for r in rules.limit_rules if r.scope is LimitScope.GROUP and r.name == group.name and not r.hours]
        merged = Limits()
        for rule in sorted(mine, key=lambda r: r.span is None):
            if _holds(rule, at):
                missing = {key: getattr(rule.limits, key) for key in _KEYS if getattr(merged, key) is None}
                merged = replace(merged, **missing)
        if merged != Limits():
            yield group, merged


def longest_run_s(draft: Draft, owner: str) -> int:
    """Return for how long an owner may run at most."""
    assert draft.rules is not None
    limits = [personal_limits(draft.rules, owner, draft.now)]
    limits += [together for _, together in limits_together(draft.rules, owner, draft.now)]
    stated = [one.longest_run_s for one in limits if one.longest_run_s is not None]
    return min(stated, default=draft.settings.longest_run_s)


def check_limits(draft: Draft, ask: Ask, *, image: str, disk_gib: int) -> list[Reason]:
    """Return what in an ask goes over a limit; how many GPUs at once is seen once its place is."""
    assert draft.rules is not None
    owner = ask.owner
    mine = personal_limits(draft.rules, owner, draft.now)
    found = _over(draft, ask, mine, image, disk_gib, who=owner, members=frozenset({owner}))
    for group, limits in limits_together(draft.rules, owner, draft.now):
        found += _over(draft, ask, limits, image, disk_gib, who=f"group {group.name}", members=group.members)
    return found


def _over(
    draft: Draft, ask: Ask, limits: Limits, image: str, disk_gib: int, *, who: str, members: frozenset[str]
) -> list[Reason]:
    found = [
        *_not_among(who, "GPUs of one VM", ask.gpus, limits.sizes),
        *_not_among(who, "queue", ask.queue, limits.queues),
        *_not_among(who, "image", image, limits.images),
    ]
    live = [r for r in draft.reservations.values() if r.outcome is None and r.request.owner in members]
    if limits.open_reservations is not None and len(live) >= limits.open_reservations:
        remedy = "cancel one or wait until one ends"
        found.append(_limit(who, "open reservations", len(live) + 1, limits.open_reservations, remedy))
    if limits.waiting is not None:
        waiting = sum(1 for r in live if r.generation == 0)
        if waiting >= limits.waiting:
            remedy = "cancel one or wait until one starts"
            found.append(_limit(who, "requests that wait", waiting + 1, limits.waiting, remedy))
    if limits.disk_gib is not None and disk_gib > limits.disk_gib:
        found.append(_limit(who, "GiB of one disk", disk_gib, limits.disk_gib, "ask for a smaller disk"))
    if limits.furthest_ahead_s is not None and ask.not_before_at is not None:
        ahead_s = ask.not_before_at - draft.now
        if ahead_s > limits.furthest_ahead_s:
            days, most = -(-ahead_s // DAY_S), limits.furthest_ahead_s // DAY_S
            found.append(_limit(who, "days ahead", days, most, "ask for an earlier start, or later"))
    return found


def _not_among(who: str, what: str, value: int | str, allowed: Iterable[int | str] | None) -> list[Reason]:
    if allowed is None or value in allowed:
        return []
    shown = ", ".join(map(str, sorted(allowed, key=lambda one: (isinstance(one, str), one)))) or "none"
    return [reason(ReasonCode.LIMIT_CHOICE, owner=who, what=what, value=str(value), allowed=shown)]


def _limit(who: str, name: str, would_be: int, limit: int, remedy: str) -> Reason:
    return reason(ReasonCode.LIMIT, owner=who, name=name, would_be=would_be, limit=limit, remedy=remedy)


def gpus_at_once(rules: Rules, owner: str) -> int | None:
    """Return how many GPUs an owner may have at one instant; overrides within dates do not change it yet."""
    if not rules.limit_rules:
        return rules.limits.gpus_at_once
    undated = tuple(rule for rule in rules.limit_rules if rule.span is None)
    return personal_limits(replace(rules, limit_rules=undated), owner, 0).gpus_at_once
