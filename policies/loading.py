"""From the text of a policy file to a `LoadedPolicy`, or to every problem in it: never to half a policy.

Holds what each key means and what must fit together at any time. What depends on the calendar (windows that overlap,
that never open) is in `checks`, since it needs a date.
"""

from collections.abc import Mapping
from functools import lru_cache
from zoneinfo import available_timezones

from policies.document import Entries, Kind, Node, Scalar, kind_of, read_document
from policies.fields import MOST_ITEMS, Fields, unique
from policies.format import HAND_OVER_BOUND_S, LoadedPolicy, ReserveEntry, WindowEntry
from policies.problems import Problem
from policies.units import duration_text
from scheduler.core.plan import Limits, Queue
from scheduler.core.requests import AtBoundary
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S
from scheduler.core.windows import Layout

_TOP_KEYS = (
    "version", "zone", "outside", "layouts", "queues", "images", "defaults", "limits", "windows", "reserve",
)  # fmt: skip
_WINDOW_KEYS = (
    "name", "layout", "opens", "for", "hosts", "at_boundary", "warnings", "grace", "decide", "only_if_queued",
)  # fmt: skip
_RESERVE_KEYS = (
    "name", "cron", "for", "gpus", "count", "queue", "owner", "image", "at_boundary", "disk", "ahead",
)  # fmt: skip
# What people write who know other tools' words.
_OTHER_TOP = {"timezone": "zone", "tz": "zone", "reservations": "reserve", "limit": "limits", "default": "defaults"}
_OTHER_WINDOW = {"cron": "opens", "start": "opens", "duration": "for", "length": "for", "boundary": "at_boundary"}
_OTHER_RESERVE = {"opens": "cron", "at": "cron", "duration": "for", "user": "owner", "boundary": "at_boundary"}

MOST_PROBLEMS = 200
"""Problems that are told of one file; nobody reads more at once."""
_MOST_GPUS = 1024
_MOST_DISK_GIB = 1 << 20
_LONGEST_WINDOW_S = 31 * DAY_S
_LONGEST_RETENTION_S = 3650 * DAY_S
_LONGEST_GRACE_S = HOUR_S
_LONGEST_WARNING_S = DAY_S
_LONGEST_LEAD_S = 7 * DAY_S
_MOST_COPIES = 64
_DEFAULT_DISK_GIB = 100
_DEFAULT_WARNINGS_S = (HOUR_S, 15 * MINUTE_S)


def load_policy(text: str, *, source: str, settings: Settings | None = None) -> LoadedPolicy | tuple[Problem, ...]:
    """Read a policy; every problem in it, in order of place, if it has any. `source` names the file. Never raises."""
    root = read_document(text, source=source)
    if isinstance(root, tuple):
        return _in_order(root)
    if not isinstance(root, Entries):
        what = f"a policy is a group of keys, not {kind_of(root)}"
        return (Problem(place=root.place, what=what, instead="begin with version: 1"),)
    problems: list[Problem] = []
    policy = _Loader(settings or Settings(), problems).policy(root, text, source)
    return _in_order(problems) if problems else policy


def _in_order(problems: tuple[Problem, ...] | list[Problem]) -> tuple[Problem, ...]:
    # A value that an alias repeats is wrong in every place it stands for, but said once.
    ordered = sorted(dict.fromkeys(problems), key=lambda problem: (problem.place.line, problem.place.column))
    if len(ordered) > MOST_PROBLEMS:
        left_out = len(ordered) - MOST_PROBLEMS
        del ordered[MOST_PROBLEMS:]
        ordered.append(
            Problem(place=ordered[-1].place, what=f"and {left_out} more problems", instead="mend these first")
        )
    return tuple(ordered)


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    """The zones of the IANA database; looked up once, since it means reading hundreds of files."""
    return frozenset(available_timezones())


class _Loader:
    """Reads the parts of one policy in the order in which they refer to each other."""

    def __init__(self, settings: Settings, problems: list[Problem]) -> None:
        self._settings = settings
        self._problems = problems

    def policy(self, root: Entries, text: str, source: str) -> LoadedPolicy:
        top = self._fields(root, "policy", _TOP_KEYS, _OTHER_TOP)
        for key, example in (
            ("version", "1"),
            ("zone", "Europe/Berlin"),
            ("outside", "day"),
            ("layouts", "{day: {sizes: [1, 2, 4, 8], queues: [interactive]}}"),
            ("queues", "{interactive: {at_boundary: park}}"),
            ("images", "[ubuntu-22.04]"),
        ):
            top.required(key, example)
        top.whole("version", 1, least=1, most=1)
        zone = top.known_word("zone", "UTC", _zones(), what="a zone of the IANA database")
        queues = self._queues(top)
        layouts = self._layouts(top, queues)
        layout_by_name = {layout.name: layout for layout in layouts}
        outside_name = top.known_word("outside", "", layout_by_name, what="a layout of this policy")
        images = top.names("images")
        if top.is_empty_list("images"):
            top.note(top.place_of("images"), "has no images", None, "name at least one; the first is the default")
        defaults = self._fields(
            top.group("defaults") or _nothing(root),
            "defaults",
            ("disk", "retention", "grace", "min_useful", "warnings"),
        )
        grace_s = defaults.duration_s("grace", self._settings.grace_s, least_s=10, most_s=_LONGEST_GRACE_S)
        warnings_s = self._warnings_s(defaults, _DEFAULT_WARNINGS_S)
        windows = tuple(
            self._window(fields, layout_by_name, warnings_s, grace_s)
            for fields in self._list(top, "windows", "window", _WINDOW_KEYS, _OTHER_WINDOW)
        )
        unique(windows, lambda w: w.name, lambda w: w.place, "windows", self._problems)
        reserve = tuple(
            self._reserve(fields, layouts, queues, images)
            for fields in self._list(top, "reserve", "reserve", _RESERVE_KEYS, _OTHER_RESERVE)
        )
        unique(reserve, lambda r: r.name, lambda r: r.place, "reserve", self._problems)
        no_layout = Layout(name="", sizes=frozenset(), queues=frozenset())
        return LoadedPolicy(
            source=source,
            text=text,
            zone=zone,
            outside=layout_by_name.get(outside_name, no_layout),
            layouts=layouts,
            queues=queues,
            images=images,
            default_disk_gib=defaults.size_gib("disk", _DEFAULT_DISK_GIB, least_gib=1, most_gib=_MOST_DISK_GIB),
            retention_s=defaults.duration_s(
                "retention", self._settings.retention_s, least_s=HOUR_S, most_s=_LONGEST_RETENTION_S
            ),
            grace_s=grace_s,
            min_useful_s=defaults.duration_s("min_useful", self._settings.min_useful_s, least_s=MINUTE_S, most_s=DAY_S),
            warnings_s=warnings_s,
            limits=self._limits(top),
            windows=windows,
            reserve=reserve,
        )

    def _queues(self, top: Fields) -> tuple[Queue, ...]:
        queues = []
        for name, fields in self._named_groups(top, "queues", "queue", ("at_boundary", "default_disk", "scratch")):
            queues.append(
                Queue(
                    name=name,
                    at_boundary=fields.choice("at_boundary", AtBoundary.PARK, AtBoundary),
                    is_scratch=fields.truth("scratch", default=False),
                    default_disk_gib=fields.size_gib("default_disk", None, least_gib=1, most_gib=_MOST_DISK_GIB),
                )
            )
        return tuple(queues)

    def _layouts(self, top: Fields, queues: tuple[Queue, ...]) -> tuple[Layout, ...]:
        layouts = []
        queue_names = tuple(queue.name for queue in queues)
        for name, fields in self._named_groups(top, "layouts", "layout", ("sizes", "queues")):
            fields.required("sizes", "[1, 2, 4, 8]")
            fields.required("queues", "[interactive]")
            sizes = fields.wholes("sizes", least=1, most=_MOST_GPUS)
            taken = fields.known_words("queues", queue_names, what="a queue of this policy")
            layouts.append(Layout(name=name, sizes=frozenset(sizes), queues=frozenset(taken)))
        return tuple(layouts)

    def _window(
        self,
        fields: Fields,
        layout_by_name: Mapping[str, Layout],
        default_warnings_s: tuple[int, ...],
        default_grace_s: int,
    ) -> WindowEntry:
        for key, example in (("name", "night"), ("layout", "night"), ("opens", '"0 20 * * mon-fri"'), ("for", "12h")):
            fields.required(key, example)
        layout_name = fields.known_word("layout", "", layout_by_name, what="a layout of this policy")
        layout = layout_by_name.get(layout_name, Layout(name="", sizes=frozenset(), queues=frozenset()))
        warnings_s = self._warnings_s(fields, default_warnings_s)
        grace_s = fields.duration_s("grace", default_grace_s, least_s=10, most_s=_LONGEST_GRACE_S)
        least_lead_s = max(warnings_s, default=0) + grace_s
        lead_s = fields.duration_s("decide", least_lead_s + HAND_OVER_BOUND_S, least_s=1, most_s=_LONGEST_LEAD_S)
        if lead_s < least_lead_s:
            what = "is decided too late to warn its guests and give them their grace: decide"
            instead = f"use at least {duration_text(least_lead_s)}: the longest warning and the grace"
            fields.note(fields.place_of("decide"), what, duration_text(lead_s), instead)
        return WindowEntry(
            name=fields.name("name"),
            layout=layout,
            opens=fields.cron("opens"),
            for_s=fields.duration_s("for", MINUTE_S, least_s=MINUTE_S, most_s=_LONGEST_WINDOW_S),
            hosts=fields.globs("hosts", ("*",)),
            at_boundary=fields.choices("at_boundary", _allowed_by_default(layout, layout_by_name), AtBoundary),
            warnings_s=warnings_s,
            grace_s=grace_s,
            decide_lead_s=lead_s,
            only_if_queued=fields.truth("only_if_queued", default=False),
            place=fields.place,
        )

    def _reserve(
        self, fields: Fields, layouts: tuple[Layout, ...], queues: tuple[Queue, ...], images: tuple[str, ...]
    ) -> ReserveEntry:
        for key, example in (
            ("name", "nightly"), ("cron", '"0 20 * * mon-fri"'), ("for", "8h"), ("gpus", "16"), ("queue", "hpc"),
            ("owner", "group-a"),
        ):  # fmt: skip
            fields.required(key, example)
        settings = self._settings
        gpus = fields.whole("gpus", 1, least=1, most=_MOST_GPUS)
        queue = fields.known_word("queue", "", (queue.name for queue in queues), what="a queue of this policy")
        takes = [layout for layout in layouts if queue in layout.queues]
        if queue in {queue.name for queue in queues} and fields.has("gpus"):
            sizes = sorted(set().union(*(layout.sizes for layout in takes)))
            if gpus not in sizes:
                instead = "use " + ", ".join(map(str, sizes)) if sizes else f"add queue {queue} to a layout"
                what = f"wants GPUs that no layout gives to queue {queue}"
                fields.note(fields.place_of("gpus"), what, str(gpus), instead)
        return ReserveEntry(
            name=fields.name("name"),
            cron=fields.cron("cron"),
            run_s=fields.duration_s(
                "for", settings.shortest_run_s, least_s=settings.shortest_run_s, most_s=settings.longest_run_s
            ),
            gpus=gpus,
            count=fields.whole("count", 1, least=1, most=_MOST_COPIES),
            queue=queue,
            owner=fields.owner("owner"),
            image=fields.known_word("image", None, images, what="an image of this policy"),
            at_boundary=fields.choice("at_boundary", None, AtBoundary),
            disk_gib=fields.size_gib("disk", None, least_gib=1, most_gib=_MOST_DISK_GIB),
            ahead_s=fields.duration_s(
                "ahead", settings.policy_files_ahead_s, least_s=MINUTE_S, most_s=settings.horizon_s - DAY_S
            ),
            place=fields.place,
        )

    def _limits(self, top: Fields) -> Limits:
        group = top.group("limits")
        if group is None:
            return Limits()
        fields = self._fields(group, "limits", ("open_reservations", "gpus_at_once", "longest"))
        return Limits(
            open_reservations=fields.whole("open_reservations", None, least=1, most=1_000_000),
            gpus_at_once=fields.whole("gpus_at_once", None, least=1, most=1_000_000),
            longest_run_s=fields.duration_s(
                "longest", None, least_s=self._settings.shortest_run_s, most_s=self._settings.longest_run_s
            ),
        )

    def _warnings_s(self, fields: Fields, default: tuple[int, ...]) -> tuple[int, ...]:
        return fields.durations_s("warnings", default, least_s=MINUTE_S, most_s=_LONGEST_WARNING_S)

    # How groups and lists of groups are taken apart.

    def _fields(
        self, entries: Entries, where: str, known: tuple[str, ...], other_names: Mapping[str, str] | None = None
    ) -> Fields:
        return Fields(entries, where=where, known=known, problems=self._problems, other_names=other_names)

    def _named_groups(self, top: Fields, key: str, what: str, known: tuple[str, ...]) -> list[tuple[str, Fields]]:
        """Return the groups in a group, such as the queues; a group without keys (`hpc:`) takes every default."""
        group = top.group(key)
        if group is None:
            return []
        if not group.entries:
            top.note(group.place, f"has no {key}", None, f"name at least one {what}")
        groups = []
        for name, node in group.entries[:MOST_ITEMS]:
            entries = _entries(node)
            if not top.is_name(name.text):
                instead = "use letters, digits, '.', '_', '-', at most 40"
                top.note(name.place, f"gives a {what} a name that cannot be used", name.text, instead)
            if entries is None:
                top.note(node.place, f"{what} {name.text[:40]!r} must be a group of keys, not {kind_of(node)}")
                continue
            groups.append((name.text, self._fields(entries, f"{what} {name.text[:40]}", known)))
        if len(group.entries) > MOST_ITEMS:
            top.note(group.place, f"has more than {MOST_ITEMS} {key}", str(len(group.entries)), "shorten the list")
        return groups

    def _list(
        self, top: Fields, key: str, what: str, known: tuple[str, ...], other_names: Mapping[str, str]
    ) -> list[Fields]:
        """Return the groups in a list, each named in messages by its name if it has one, else by its number."""
        found = []
        for number, node in enumerate(top.items(key) or (), start=1):
            if not isinstance(node, Entries):
                top.note(node.place, f"{key} item {number} must be a group of keys, not {kind_of(node)}")
                continue
            names = [value.text for k, value in node.entries if k.text == "name" and isinstance(value, Scalar)]
            name = names[0][:40] if names and top.is_name(names[0]) else f"number {number}"
            found.append(self._fields(node, f"{what} {name}", known, other_names))
        return found


def _entries(node: Node) -> Entries | None:
    if isinstance(node, Scalar) and node.kind is Kind.NOTHING:
        return _nothing(node)
    return node if isinstance(node, Entries) else None


def _nothing(node: Node) -> Entries:
    return Entries(place=node.place, entries=())


def _allowed_by_default(layout: Layout, layout_by_name: Mapping[str, Layout]) -> frozenset[AtBoundary]:
    """Park and finish; keep too, unless the layout has the whole-host size: a kept VM would be in the way of all of it.

    The whole-host size is the largest of any layout: the file does not know the hosts.
    """
    whole_host = max((max(other.sizes, default=0) for other in layout_by_name.values()), default=0)
    allowed = {AtBoundary.PARK, AtBoundary.FINISH}
    if whole_host not in layout.sizes:
        allowed.add(AtBoundary.KEEP)
    return frozenset(allowed)
