"""From the text of a policy to a `LoadedPolicy`, or to every problem in it: never to half a policy.

Holds what the keys at the top mean; those of windows and reservations are in `loading_entries`, those of limits in
`loading_limits`. What depends on the calendar (windows that overlap, that never open) is in `checks`, since it needs a
date.
"""

from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from policies.bundle import MOST_FILES, Part, unpack
from policies.document import MOST_VALUES, Entries, kind_of, read_document, values_in
from policies.fields import Fields, did_you_mean
from policies.format import LoadedPolicy
from policies.holiday_days import HolidayDays, YearlyDays, countries
from policies.icalendar_file import read_calendar
from policies.loading_entries import (
    LONGEST_GRACE_S,
    MAINTENANCE_KEYS,
    MOST_DISK_GIB,
    MOST_GPUS,
    OTHER_MAINTENANCE,
    OTHER_RESERVE,
    OTHER_WINDOW,
    RESERVE_KEYS,
    WINDOW_KEYS,
    EntryReader,
    read_warnings_s,
)
from policies.loading_limits import OVERRIDE_KEYS, UNUSED_KEYS, LimitReader, read_order, read_unused
from policies.merging import merge
from policies.problems import Place, Problem
from policies.reader import Reader, nothing_in
from policies.time_fields import read_dates
from scheduler.core.plan import Queue
from scheduler.core.requests import AtBoundary
from scheduler.core.rules import Slack
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S
from scheduler.core.windows import Layout

TOP_KEYS = (
    "version", "zone", "outside", "layouts", "queues", "images", "defaults", "groups", "limits", "overrides",
    "holidays", "windows", "maintenance", "reserve", "unused",
)  # fmt: skip
DEFAULT_KEYS = ("disk", "retention", "grace", "min_useful", "warnings", "slack", "slack_percent")
LONGEST_SLACK_S = 7 * DAY_S
MOST_SLACK_PERCENT = 100
QUEUE_KEYS = ("at_boundary", "default_disk", "scratch", "order", "age_cap", "half_life")
LAYOUT_KEYS = ("sizes", "queues")
HOLIDAY_KEYS = ("country", "region", "calendars", "also", "except")
# What people write who know other tools' words.
_OTHER_TOP = {"timezone": "zone", "tz": "zone", "reservations": "reserve", "limit": "limits", "default": "defaults"}
_REQUIRED = (
    ("version", "1"),
    ("zone", "Europe/Berlin"),
    ("outside", "day"),
    ("layouts", "{day: {sizes: [1, 2, 4, 8], queues: [interactive]}}"),
    ("queues", "{interactive: {at_boundary: park}}"),
    ("images", "[ubuntu-22.04]"),
)

MOST_PROBLEMS = 200
"""Problems that are told of one policy; nobody reads more at once."""
LONGEST_RETENTION_S = 3650 * DAY_S
_DEFAULT_DISK_GIB = 100
_DEFAULT_WARNINGS_S = (HOUR_S, 15 * MINUTE_S)


def load_policy(text: str, *, source: str, settings: Settings | None = None) -> LoadedPolicy | tuple[Problem, ...]:
    """Read a policy; every problem in it, in order of place, if it has any. Never raises.

    `source` names its file or directory. A policy of several files is one text (`bundle`).
    """
    parts = unpack(text, source=source)
    start = Place(file=source, line=1, column=1)
    if len(parts) > MOST_FILES:
        return (Problem(place=start, what=f"the policy has more than {MOST_FILES} files", instead="join some"),)
    read = _read_files([part for part in parts if not part.is_calendar], start)
    if isinstance(read, tuple):
        return _in_order(read)
    reader = Reader(settings or Settings())
    root = merge(read, reader.problems)
    calendars = {part.name.rpartition("/")[2]: part for part in parts if part.is_calendar}
    policy = _Loader(reader, calendars).policy(root, text, source)
    return _in_order(reader.problems) if reader.problems else policy


def _read_files(parts: list[Part], start: Place) -> list[Entries] | tuple[Problem, ...]:
    if not parts:
        return (Problem(place=start, what="the policy has no file", instead="name at least one, as policy.yaml"),)
    roots: list[Entries] = []
    problems: list[Problem] = []
    values_left = MOST_VALUES
    for part in parts:
        root = read_document(part.text, source=part.name, most_values=max(1, values_left))
        if isinstance(root, tuple):
            problems += root
        elif not isinstance(root, Entries):
            what = f"a policy is a group of keys, not {kind_of(root)}"
            problems.append(Problem(place=root.place, what=what, instead="begin with version: 1"))
        else:
            roots.append(root)
            values_left -= values_in(root)
    return tuple(problems) if problems else roots


def _in_order(problems: tuple[Problem, ...] | list[Problem]) -> tuple[Problem, ...]:
    # A value that an alias repeats is wrong in every place it stands for, but said once.
    ordered = sorted(dict.fromkeys(problems), key=lambda problem: problem.place.order)
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

    def __init__(self, reader: Reader, calendars: dict[str, Part]) -> None:
        self._reader = reader
        self._calendars = calendars

    def policy(self, root: Entries, text: str, source: str) -> LoadedPolicy:
        reader, settings = self._reader, self._reader.settings
        top = reader.fields(root, "policy", TOP_KEYS, _OTHER_TOP)
        for key, example in _REQUIRED:
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
        defaults = reader.fields(top.group("defaults") or nothing_in(root), "defaults", DEFAULT_KEYS)
        grace_s = defaults.duration_s("grace", settings.grace_s, least_s=10, most_s=LONGEST_GRACE_S)
        warnings_s = read_warnings_s(defaults, _DEFAULT_WARNINGS_S)
        holidays = self._holidays(top)
        entries = EntryReader(reader, layouts, queues, images, holidays, warnings_s=warnings_s, grace_s=grace_s)
        windows = (
            *entries.maintenance(
                reader.list_of_groups(top, "maintenance", "maintenance", MAINTENANCE_KEYS, OTHER_MAINTENANCE)
            ),
            *entries.windows(reader.list_of_groups(top, "windows", "window", WINDOW_KEYS, OTHER_WINDOW)),
        )
        reserve = entries.reserve(reader.list_of_groups(top, "reserve", "reserve", RESERVE_KEYS, OTHER_RESERVE))
        limits = LimitReader(
            reader, layouts, queues, images, zone=ZoneInfo(zone if zone in _zones() else "UTC")
        )  # fmt: skip
        groups = limits.groups(top)
        base, rules = limits.limits(top)
        rules += limits.overrides(reader.list_of_groups(top, "overrides", "override", OVERRIDE_KEYS))
        return LoadedPolicy(
            source=source,
            text=text,
            zone=zone,
            outside=layout_by_name.get(outside_name, Layout(name="", sizes=frozenset(), queues=frozenset())),
            layouts=layouts,
            queues=queues,
            images=images,
            default_disk_gib=defaults.size_gib("disk", _DEFAULT_DISK_GIB, least_gib=1, most_gib=MOST_DISK_GIB),
            retention_s=defaults.duration_s(
                "retention", settings.retention_s, least_s=HOUR_S, most_s=LONGEST_RETENTION_S
            ),
            grace_s=grace_s,
            min_useful_s=defaults.duration_s("min_useful", settings.min_useful_s, least_s=MINUTE_S, most_s=DAY_S),
            warnings_s=warnings_s,
            slack=Slack(
                least_s=defaults.duration_s("slack", 0, least_s=0, most_s=LONGEST_SLACK_S),
                share=defaults.whole("slack_percent", 0, least=0, most=MOST_SLACK_PERCENT) / 100,
            ),
            limits=base,
            limit_rules=rules,
            groups=groups,
            unused=read_unused(reader, reader.group(top, "unused", "unused", UNUSED_KEYS)),
            holidays=holidays,
            windows=windows,
            reserve=reserve,
            place_by_part=reader.place_by_part,
            notes=tuple(reader.notes),
        )

    def _queues(self, top: Fields) -> tuple[Queue, ...]:
        return tuple(
            Queue(
                name=name,
                at_boundary=fields.choice("at_boundary", AtBoundary.PARK, AtBoundary),
                is_scratch=fields.truth("scratch", default=False),
                default_disk_gib=fields.size_gib("default_disk", None, least_gib=1, most_gib=MOST_DISK_GIB),
                order=read_order(fields),
            )
            for name, fields in self._reader.named_groups(top, "queues", "queue", QUEUE_KEYS)
        )

    def _layouts(self, top: Fields, queues: tuple[Queue, ...]) -> tuple[Layout, ...]:
        layouts = []
        queue_names = tuple(queue.name for queue in queues)
        for name, fields in self._reader.named_groups(top, "layouts", "layout", LAYOUT_KEYS):
            fields.required("sizes", "[1, 2, 4, 8]")
            fields.required("queues", "[interactive]")
            sizes = fields.wholes("sizes", least=1, most=MOST_GPUS)
            taken = fields.known_words("queues", queue_names, what="a queue of this policy")
            layouts.append(Layout(name=name, sizes=frozenset(sizes), queues=frozenset(taken)))
        return tuple(layouts)

    def _holidays(self, top: Fields) -> HolidayDays:
        fields = self._reader.group(top, "holidays", "holidays", HOLIDAY_KEYS)
        if fields is None:
            return HolidayDays()
        country = region = None
        if fields.has("country"):
            country = fields.known_word("country", None, countries(), what="a country of the holidays library")
        if fields.has("region"):
            if country is None:
                fields.note(fields.place_of("region"), "has a region and no country", None, "add country: DE")
            regions = countries().get(country or "", ())
            region = fields.known_word("region", None, regions, what=f"a region of {country}")
        listed = list(read_dates(fields, "also"))
        yearly: list[YearlyDays] = []
        for place, name in fields.places_and_texts("calendars", "the name of an iCalendar file"):
            part = self._calendars.get(name)
            if part is None:
                what = "names a calendar that is not beside the policy"
                fields.note(place, what, name, did_you_mean(name, sorted(self._calendars)) + "; its name ends in .ics")
                continue
            days = read_calendar(part.text, source=part.name)
            if isinstance(days, tuple):
                self._reader.problems += days
            else:
                listed += days.listed
                yearly += days.yearly
        return HolidayDays(
            country=country,
            region=region,
            listed=tuple(listed),
            yearly=tuple(yearly),
            but_not=read_dates(fields, "except"),
        )
