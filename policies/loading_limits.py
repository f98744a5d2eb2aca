"""Reads groups, limits, dated overrides, the order of queues and what becomes of unused GPUs.

What the core does not enforce yet is noted with its line: `check` must not let anybody believe that it holds. What has
no meaning by the hour is an error.
"""

from datetime import datetime
from zoneinfo import ZoneInfo

from policies.fields import MOST_ENTRIES, Fields
from policies.loading_entries import MOST_DISK_GIB, MOST_GPUS
from policies.occurrences import instant_of
from policies.reader import Reader
from policies.time_fields import read_hours, read_moment
from scheduler.core.plan import LimitRule, Limits, Queue
from scheduler.core.rules import ClockHours, Group, LimitScope, OrderKind, QueueOrder, Unused, UnusedAction
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S, Span
from scheduler.core.windows import Layout

LIMIT_KEYS = (
    "open_reservations", "gpus_at_once", "longest", "gpu_hours_per_week", "furthest_ahead", "far_ahead_gpu_hours",
    "waiting", "disk", "sizes", "queues", "images",
)  # fmt: skip
NOT_BY_HOUR = {
    "gpu_hours_per_week": "GPU-hours are counted over a whole week; give it for all hours, or limit gpus_at_once",
    "far_ahead_gpu_hours": "what is held for later days is held at all hours; give it for all hours",
    "disk": "a disk is kept at all hours; give it for all hours",
}
"""Limits that mean nothing by the hour, and why; and what to write."""
HOURS_KEYS = ("hours", "days", *(key for key in LIMIT_KEYS if key not in NOT_BY_HOUR))
USER_KEYS = (*LIMIT_KEYS, "by_hour")
GROUP_KEYS = (*LIMIT_KEYS, "by_hour", "each")
TOP_LIMIT_KEYS = (*LIMIT_KEYS, "by_hour", "groups", "users")
OVERRIDE_KEYS = ("name", "from", "until", "limits")
UNUSED_KEYS = ("no_show_after", "idle_after", "idle_below_percent", "then")
MOST_OF_A_LIMIT = 1_000_000
_DEFAULT_HALF_LIFE_S = 14 * DAY_S
_LONGEST_OF_AN_ORDER_S = 365 * DAY_S


class LimitReader:
    """Reads limits, which refer to what was read of the policy before."""

    def __init__(
        self,
        reader: Reader,
        layouts: tuple[Layout, ...],
        queues: tuple[Queue, ...],
        images: tuple[str, ...],
        *,
        zone: ZoneInfo,
    ) -> None:
        self._reader = reader
        self._sizes = sorted(set().union(*(layout.sizes for layout in layouts)))
        self._queues = tuple(queue.name for queue in queues)
        self._images = images
        self._zone = zone
        self._groups: tuple[Group, ...] = ()

    def groups(self, top: Fields) -> tuple[Group, ...]:
        """Read who belongs to which group."""
        groups = []
        for name, fields in self._reader.named_groups(top, "groups", "group", ("members",), most=MOST_ENTRIES):
            fields.required("members", "[ada, bela]")
            groups.append(Group(name=name, members=frozenset(fields.owners("members"))))
        self._groups = tuple(groups)
        return self._groups

    def limits(self, top: Fields) -> tuple[Limits, tuple[LimitRule, ...]]:
        """Read `limits`: those of each owner at all times, and all others."""
        fields = self._reader.group(top, "limits", "limits", TOP_LIMIT_KEYS)
        if fields is None:
            return Limits(), ()
        self._reader.place_by_part["limits"] = fields.place
        return self._limits(fields), self._rules_below(fields, None)

    def overrides(self, entries: list[Fields]) -> tuple[LimitRule, ...]:
        """Read what holds instead within some dates."""
        rules: list[LimitRule] = []
        for fields in entries:
            for key, example in (("name", "deadline-week"), ("from", "2026-05-04"), ("until", "2026-05-10")):
                fields.required(key, example)
            fields.required("limits", "{gpus_at_once: 16}")
            name = fields.name("name")
            begins, ends = read_moment(fields, "from", is_end=False), read_moment(fields, "until", is_end=True)
            if begins is not None and ends is not None and begins >= ends:
                what = "ends before it begins: until"
                fields.note(fields.place_of("until"), what, f"{ends:%Y-%m-%d %H:%M}", "write from and until in order")
            self._reader.place_by_part[f"override {name}"] = fields.place
            inside = self._reader.group(fields, "limits", f"{fields.where} limits", TOP_LIMIT_KEYS)
            if inside is None:
                continue
            span = self._span(begins, ends)
            own = self._limits(inside)
            if own != Limits():
                rules.append(LimitRule(scope=LimitScope.EACH, limits=own, span=span, source=fields.place.source))
            rules += self._rules_below(inside, span)
        return tuple(rules)

    def _span(self, begins: datetime | None, ends: datetime | None) -> Span | None:
        if begins is None or ends is None or begins >= ends:
            return None
        start_at, end_at = instant_of(begins, self._zone), instant_of(ends, self._zone)
        return Span(start_at=start_at, end_at=end_at) if start_at < end_at else None

    def _rules_below(self, fields: Fields, span: Span | None) -> tuple[LimitRule, ...]:
        """Read what stands in a group of limits besides its own: by hour, of groups, of users."""
        rules = self._by_hour(fields, LimitScope.EACH, "", span)
        known_groups = [group.name for group in self._groups]
        for name, group in self._reader.named_groups(
            fields, "groups", "limits of group", GROUP_KEYS, most=MOST_ENTRIES
        ):
            if name not in known_groups:
                near = ", ".join(known_groups[:10])
                instead = f"name it in groups at the top, or use one of {near}" if near else "add groups at the top"
                group.note(group.place, "are of a group that this policy does not name", name, instead)
            rules += self._rules_of(group, LimitScope.GROUP, name, span)
            each = self._reader.group(group, "each", f"{group.where} each", USER_KEYS)
            if each is not None:
                rules += self._rules_of(each, LimitScope.EACH_OF_GROUP, name, span)
        for name, user in self._reader.named_groups(
            fields, "users", "limits of user", USER_KEYS, is_owner=True, most=MOST_ENTRIES
        ):
            rules += self._rules_of(user, LimitScope.USER, name, span)
        return tuple(rules)

    def _rules_of(self, fields: Fields, scope: LimitScope, name: str, span: Span | None) -> list[LimitRule]:
        limits = self._limits(fields)
        own = LimitRule(scope=scope, name=name, limits=limits, span=span, source=fields.place.source)
        return [*([own] if limits != Limits() else []), *self._by_hour(fields, scope, name, span)]

    def _by_hour(self, fields: Fields, scope: LimitScope, name: str, span: Span | None) -> list[LimitRule]:
        rules = []
        for number, entry in enumerate(
            self._reader.list_of_groups(fields, "by_hour", f"{fields.where} by_hour", (*HOURS_KEYS, *NOT_BY_HOUR)),
            start=1,
        ):
            if not entry.has("hours") and not entry.has("days"):
                entry.note(entry.place, "says no hours", None, "add hours: 08:00-20:00 or days: mon-fri")
            hours: ClockHours = read_hours(entry)
            for key, why in NOT_BY_HOUR.items():
                if entry.has(key):
                    entry.note(entry.place_of(key), f"{key} cannot be given by the hour", None, why)
            limits = self._limits(entry)
            if limits == Limits():
                entry.note(entry.place, f"number {number} limits nothing", None, "add for instance gpus_at_once: 4")
            rules.append(
                LimitRule(scope=scope, name=name, limits=limits, hours=(hours,), span=span, source=entry.place.source)
            )
        return rules

    def _limits(self, fields: Fields) -> Limits:
        """Read the keys that limit something."""
        settings = self._reader.settings
        return Limits(
            open_reservations=fields.whole("open_reservations", None, least=1, most=MOST_OF_A_LIMIT),
            gpus_at_once=fields.whole("gpus_at_once", None, least=1, most=MOST_OF_A_LIMIT),
            longest_run_s=fields.duration_s(
                "longest", None, least_s=settings.shortest_run_s, most_s=settings.longest_run_s
            ),
            gpu_h_per_week=fields.whole("gpu_hours_per_week", None, least=0, most=MOST_OF_A_LIMIT),
            furthest_ahead_s=fields.duration_s("furthest_ahead", None, least_s=MINUTE_S, most_s=settings.horizon_s),
            far_ahead_gpu_h=fields.whole("far_ahead_gpu_hours", None, least=0, most=MOST_OF_A_LIMIT),
            waiting=fields.whole("waiting", None, least=0, most=MOST_OF_A_LIMIT),
            disk_gib=fields.size_gib("disk", None, least_gib=1, most_gib=MOST_DISK_GIB),
            sizes=self._known_sizes(fields) if fields.has("sizes") else None,
            queues=self._words(fields, "queues", self._queues, "a queue of this policy"),
            images=self._words(fields, "images", self._images, "an image of this policy"),
        )

    def _known_sizes(self, fields: Fields) -> frozenset[int]:
        sizes = fields.wholes("sizes", least=1, most=MOST_GPUS)
        for size in sizes:
            if self._sizes and size not in self._sizes:
                instead = "use " + ", ".join(map(str, self._sizes))
                fields.note(fields.place_of("sizes"), "sizes has one that no layout has", str(size), instead)
        return frozenset(sizes)

    def _words(self, fields: Fields, key: str, known: tuple[str, ...], what: str) -> frozenset[str] | None:
        return frozenset(fields.known_words(key, known, what=what)) if fields.has(key) else None


def read_order(fields: Fields) -> QueueOrder | None:
    """Read who of a queue is next; None: the planner's own order."""
    kind = fields.choice("order", None, OrderKind)
    for key, needed in (("age_cap", OrderKind.SHORTEST_FIRST), ("half_life", OrderKind.FAIR_SHARE)):
        if fields.has(key) and kind is not needed:
            fields.note(fields.place_of(key), f"has {key} without its order", None, f"add order: {needed}")
    age_cap_s = fields.duration_s("age_cap", None, least_s=HOUR_S, most_s=_LONGEST_OF_AN_ORDER_S)
    half_life_s = fields.duration_s("half_life", _DEFAULT_HALF_LIFE_S, least_s=HOUR_S, most_s=_LONGEST_OF_AN_ORDER_S)
    if kind is None:
        return None
    return QueueOrder(
        kind=kind,
        age_cap_s=age_cap_s if kind is OrderKind.SHORTEST_FIRST else None,
        half_life_s=half_life_s if kind is OrderKind.FAIR_SHARE else None,
    )


def read_unused(reader: Reader, fields: Fields | None) -> Unused | None:
    """Read what becomes of GPUs that are reserved and not used."""
    if fields is None:
        return None
    if not fields.has("no_show_after") and not fields.has("idle_after"):
        fields.note(fields.place, "says nothing", None, "add no_show_after: 30m or idle_after: 4h")
    reader.not_enforced(fields.place, "unused")
    return Unused(
        no_show_after_s=fields.duration_s("no_show_after", None, least_s=5 * MINUTE_S, most_s=30 * DAY_S),
        idle_after_s=fields.duration_s("idle_after", None, least_s=5 * MINUTE_S, most_s=30 * DAY_S),
        idle_below_percent=fields.whole("idle_below_percent", 5, least=1, most=100),
        action=fields.choice("then", UnusedAction.TELL, UnusedAction),
    )
