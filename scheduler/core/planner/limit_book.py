"""The book of limits: whose limits a policy states, and what holds of each at an instant.

What is said of a user comes before what is said of each member of a group, and that before what is said of each owner,
key by key. Of the same people an override comes before what it overrides, what is said for some hours before what is
said for all, and of two that still hold at once the one that begins later, or stands later in the file. What holds for
a group together holds besides. Knows nothing of bookings.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import fields
from functools import lru_cache
from typing import Literal, TypeAlias, cast

from scheduler.core.plan import LimitRule, Limits, Rules
from scheduler.core.rules import LimitScope
from scheduler.core.spans import DAY_S, Instant
from scheduler.core.wall_clock import WEEK_DAYS, Shifts, day_at, day_of, stretches_of, week_of

NumberKey: TypeAlias = Literal[
    "open_reservations", "gpus_at_once", "longest_run_s", "gpu_h_per_week", "furthest_ahead_s", "far_ahead_gpu_h",
    "waiting", "disk_gib",
]  # fmt: skip
ChoiceKey: TypeAlias = Literal["sizes", "queues", "images"]
Value: TypeAlias = int | frozenset[int] | frozenset[str] | None
Step: TypeAlias = tuple[Instant, Value]

KEYS = tuple(field.name for field in fields(Limits))
OF_BOOKINGS: tuple[NumberKey, ...] = ("gpus_at_once", "gpu_h_per_week", "far_ahead_gpu_h")
"""Limits that depend on where a request is booked, whenever they hold."""
OF_STARTS: tuple[NumberKey | ChoiceKey, ...] = ("longest_run_s", "disk_gib", "sizes", "queues", "images")
"""Limits that depend on when it starts, where they do not hold at all times."""


class Limited:
    """Somebody with limits: an owner, or the members of a group together."""

    def __init__(
        self, who: str, members: frozenset[str], rules: tuple[LimitRule, ...], base: Limits, shifts: Shifts
    ) -> None:
        """`rules`: what is said besides `base`, in the order in which it counts."""
        self.who = who
        self.members = members
        self._shifts = shifts
        self._base = base
        self._rules = {key: tuple(r for r in rules if getattr(r.limits, key) is not None) for key in KEYS}
        self._steps: dict[str, tuple[Step, ...]] = {}
        self.is_bound_by_bookings = any(map(self.is_stated, OF_BOOKINGS)) or any(map(self.is_timed, OF_STARTS))
        """Whether some limit depends on where requests are booked."""

    def is_stated(self, key: NumberKey | ChoiceKey) -> bool:
        """Whether a limit is stated, at any time."""
        return bool(self._rules[key]) or getattr(self._base, key) is not None

    def is_timed(self, key: NumberKey | ChoiceKey) -> bool:
        """Whether a limit depends on the time."""
        return any(rule.hours or rule.span is not None for rule in self._rules[key])

    def number(self, key: NumberKey, at: Instant) -> int | None:
        """Return a limit as it is at an instant; None: there is none."""
        return cast("int | None", self._value(key, at))

    def choice(self, key: ChoiceKey, at: Instant) -> frozenset[int] | frozenset[str] | None:
        """Return what may be chosen at an instant; None: anything."""
        return cast("frozenset[int] | frozenset[str] | None", self._value(key, at))

    def _value(self, key: NumberKey | ChoiceKey, at: Instant) -> Value:
        return _value_at(self._shifts, self._rules[key], key, getattr(self._base, key), at)

    def most(self, key: NumberKey) -> int | None:
        """Return the most that a limit ever allows; None: at some time there may be no limit."""
        stated = [cast(int, getattr(rule.limits, key)) for rule in self._rules[key]]
        always = next((n for n, rule in enumerate(self._rules[key]) if not rule.hours and rule.span is None), None)
        if always is not None:
            return max(stated[: always + 1])
        base = cast("int | None", getattr(self._base, key))
        return None if base is None else max([*stated, base])

    def steps(self, key: NumberKey | ChoiceKey, from_at: Instant, until_at: Instant) -> tuple[Step, ...]:
        """Return what a limit is from an instant on, and each instant at which that changes, up to some days later."""
        if not self.is_timed(key):
            return ((from_at, self._value(key, from_at)),)
        if key not in self._steps or self._steps[key][-1][0] < until_at or self._steps[key][0][0] > from_at:
            days = day_of(self._shifts, from_at), day_of(self._shifts, until_at) + 1
            self._steps[key] = _steps(self._shifts, self._rules[key], key, getattr(self._base, key), *days)
        known = self._steps[key]
        first = bisect_right(known, from_at, key=lambda step: step[0]) - 1
        return ((from_at, known[first][1]), *known[first + 1 :])


def _value_at(shifts: Shifts, rules: tuple[LimitRule, ...], key: str, base: Value, at: Instant) -> Value:
    for rule in rules:
        if _holds(shifts, rule, at):
            return cast(Value, getattr(rule.limits, key))
    return base


def _holds(shifts: Shifts, rule: LimitRule, at: Instant) -> bool:
    if rule.span is not None and not rule.span.covers(at):
        return False
    if not rule.hours:
        return True
    day = day_of(shifts, at)
    return any(span.covers(at) for hours in rule.hours for span in stretches_of(shifts, hours, day - 1, day))


@lru_cache(maxsize=256)
def _steps(
    shifts: Shifts, rules: tuple[LimitRule, ...], key: str, base: Value, first_day: int, last_day: int
) -> tuple[Step, ...]:
    """Return the steps of a limit over some days, the last one at the end of the last day or after it."""
    from_at, until_at = (first_day - 1) * DAY_S, (last_day + 2) * DAY_S
    edges = {from_at, until_at}
    edges.update(at for rule in rules for at in _edges(shifts, rule, first_day - 2, last_day + 2))
    found: list[Step] = []
    for at in sorted(edge for edge in edges if from_at <= edge <= until_at):
        value = _value_at(shifts, rules, key, base, at)
        if not found or found[-1][1] != value or at == until_at:
            found.append((at, value))
    return tuple(found)


def _edges(shifts: Shifts, rule: LimitRule, first_day: int, last_day: int) -> Iterator[Instant]:
    """Yield when a rule begins and ceases to hold."""
    spans = [span for hours in rule.hours for span in stretches_of(shifts, hours, first_day, last_day)]
    for span in (*spans, rule.span):
        if span is not None:
            yield span.start_at
            yield span.end_at


class LimitBook:
    """The limits of one policy, and whose reservations count together; worked out for those that anybody asks for."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.shifts = rules.zone_shifts
        always = any(getattr(rules.limits, key) is not None for key in OF_BOOKINGS)
        self.may_bind_bookings = always or bool(rules.limit_rules)
        """Whether anybody may have a limit that depends on where requests are booked."""
        self.is_empty = not rules.limit_rules and rules.limits == Limits()
        self._limited: dict[str, tuple[Limited, ...]] = {}

    def limited(self, owner: str) -> tuple[Limited, ...]:
        """Return an owner and his groups, as far as anything limits them."""
        if owner not in self._limited:
            self._limited[owner] = (self._alone(owner), *self._groups(owner))
        return self._limited[owner]

    def _alone(self, owner: str) -> Limited:
        groups = {group.name for group in self.rules.groups if owner in group.members}
        ranked = sorted(
            (rank, _order(rule, number), rule)
            for number, rule in enumerate(self.rules.limit_rules)
            if (rank := _rank(rule, owner, groups)) is not None
        )
        mine = tuple(rule for _, _, rule in ranked)
        return Limited(owner, frozenset({owner}), mine, self.rules.limits, self.shifts)

    def _groups(self, owner: str) -> Iterator[Limited]:
        for group in self.rules.groups:
            if owner not in group.members:
                continue
            ranked = sorted(
                (_order(rule, number), rule)
                for number, rule in enumerate(self.rules.limit_rules)
                if rule.scope is LimitScope.GROUP and rule.name == group.name
            )
            if ranked:
                mine = tuple(rule for _, rule in ranked)
                yield Limited(f"group {group.name}", group.members, mine, Limits(), self.shifts)


def _rank(rule: LimitRule, owner: str, groups: set[str]) -> int | None:
    """Return how early a rule comes for an owner; None: it says nothing of them."""
    match rule.scope:
        case LimitScope.USER:
            return 0 if rule.name == owner else None
        case LimitScope.EACH_OF_GROUP:
            return 1 if rule.name in groups else None
        case LimitScope.EACH:
            return 2
        case LimitScope.GROUP:
            return None


def _order(rule: LimitRule, number: int) -> tuple[bool, Instant, bool, int]:
    """Return the order of what is said of the same people; `number`: where it stands in the file."""
    return rule.span is None, 0 if rule.span is None else -rule.span.start_at, not rule.hours, -number


def go_by_clock(limits: Limits, rules: Collection[LimitRule]) -> bool:
    """Whether limits depend on what the clock on the wall shows: on hours, days or weeks."""
    stated = [limits, *(rule.limits for rule in rules)]
    return any(rule.hours for rule in rules) or any(
        one.gpu_h_per_week is not None or one.far_ahead_gpu_h is not None for one in stated
    )


def next_change_at(rules: Rules, now: Instant) -> Instant | None:
    """Return when the clock next changes what limits allow; None: it never does."""
    return min((at for at in _changes(rules, now) if at > now), default=None)


def last_change_at(rules: Rules, now: Instant) -> Instant:
    """Return when the clock last changed what limits allow; 0: it never did."""
    return max((at for at in _changes(rules, now) if at <= now), default=0)


def _changes(rules: Rules, now: Instant) -> Iterator[Instant]:
    """Yield instants at which the clock changes what limits allow, the last and the next one among them."""
    stated = [rules.limits, *(rule.limits for rule in rules.limit_rules)]
    day = day_of(rules.zone_shifts, now) if go_by_clock(rules.limits, rules.limit_rules) else 0
    for rule in rules.limit_rules:
        # Hours of some weekdays come again within a week.
        yield from _edges(rules.zone_shifts, rule, day - WEEK_DAYS, day + WEEK_DAYS)
    if any(limits.far_ahead_gpu_h is not None for limits in stated):
        yield day_at(rules.zone_shifts, day)
        yield day_at(rules.zone_shifts, day + 1)
    if any(limits.gpu_h_per_week is not None for limits in stated):
        week = week_of(rules.zone_shifts, now)
        yield week.start_at
        yield week.end_at
