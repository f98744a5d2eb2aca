"""Reads the entries of `windows`, `maintenance` and `reserve`: what each key means and what must fit together."""

from datetime import timedelta

from policies.fields import Fields, unique
from policies.format import HAND_OVER_BOUND_S, MAINTENANCE, ReserveEntry, WindowEntry
from policies.holiday_days import HolidayDays
from policies.reader import Reader
from policies.time_fields import read_dates, read_local_times, read_moment
from policies.times import EntryTimes, OnHolidays
from policies.units import duration_text
from scheduler.core.plan import Queue
from scheduler.core.requests import AtBoundary
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S
from scheduler.core.windows import Layout

WINDOW_KEYS = (
    "name", "layout", "opens", "at", "except", "holidays", "for", "hosts", "at_boundary", "warnings", "grace", "decide",
    "only_if_queued",
)  # fmt: skip
MAINTENANCE_KEYS = (
    "name", "from", "until", "opens", "at", "except", "holidays", "for", "hosts", "warnings", "grace", "decide",
)  # fmt: skip
RESERVE_KEYS = (
    "name", "cron", "at", "except", "holidays", "for", "gpus", "count", "queue", "owner", "image", "at_boundary",
    "disk", "ahead",
)  # fmt: skip
# What people write who know other tools' words.
OTHER_WINDOW = {"cron": "opens", "start": "opens", "duration": "for", "length": "for", "boundary": "at_boundary"}
OTHER_MAINTENANCE = {"form": "from", "start": "from", "begin": "from", "end": "until", "to": "until", "cron": "opens"}
OTHER_RESERVE = {"opens": "cron", "duration": "for", "user": "owner", "boundary": "at_boundary"}

MOST_GPUS = 1024
MOST_DISK_GIB = 1 << 20
LONGEST_WINDOW_S = 31 * DAY_S
LONGEST_GRACE_S = HOUR_S
LONGEST_WARNING_S = DAY_S
LONGEST_LEAD_S = 7 * DAY_S
MOST_COPIES = 64
_NO_LAYOUT = Layout(name="", sizes=frozenset(), queues=frozenset())


class EntryReader:
    """Reads entries that refer to what was read of the policy before."""

    def __init__(
        self,
        reader: Reader,
        layouts: tuple[Layout, ...],
        queues: tuple[Queue, ...],
        images: tuple[str, ...],
        holidays: HolidayDays,
        *,
        warnings_s: tuple[int, ...],
        grace_s: int,
    ) -> None:
        self._reader = reader
        self._layouts = layouts
        self._queues = queues
        self._images = images
        self._holidays = holidays
        self._warnings_s = warnings_s
        self._grace_s = grace_s

    def windows(self, entries: list[Fields]) -> tuple[WindowEntry, ...]:
        windows = tuple(self._window(fields) for fields in entries)
        unique(windows, lambda w: w.name, lambda w: w.place, "windows", self._reader.problems)
        return windows

    def maintenance(self, entries: list[Fields]) -> tuple[WindowEntry, ...]:
        windows = tuple(self._maintenance(fields) for fields in entries)
        unique(windows, lambda w: w.name, lambda w: w.place, "maintenance", self._reader.problems)
        return windows

    def reserve(self, entries: list[Fields]) -> tuple[ReserveEntry, ...]:
        reserve = tuple(self._reserve(fields) for fields in entries)
        unique(reserve, lambda r: r.name, lambda r: r.place, "reserve", self._reader.problems)
        return reserve

    def _window(self, fields: Fields) -> WindowEntry:
        for key, example in (("name", "night"), ("layout", "night"), ("for", "12h")):
            fields.required(key, example)
        by_name = {layout.name: layout for layout in self._layouts}
        layout = by_name.get(fields.known_word("layout", "", by_name, what="a layout of this policy"), _NO_LAYOUT)
        warnings_s, grace_s, lead_s = self._leads(fields)
        return WindowEntry(
            name=fields.name("name"),
            layout=layout,
            opens=self._times(fields, "opens"),
            for_s=self._length_s(fields),
            hosts=fields.globs("hosts", ("*",)),
            at_boundary=fields.choices("at_boundary", self._allowed_by_default(layout), AtBoundary),
            warnings_s=warnings_s,
            grace_s=grace_s,
            decide_lead_s=lead_s,
            only_if_queued=fields.truth("only_if_queued", default=False),
            place=fields.place,
        )

    def _maintenance(self, fields: Fields) -> WindowEntry:
        fields.required("name", "power-work")
        begins, ends = read_moment(fields, "from", is_end=False), read_moment(fields, "until", is_end=True)
        if fields.has("from"):
            if not fields.has("until") and not fields.has("for"):
                fields.required("until", '"2026-12-01 18:00"')
            times = EntryTimes(at=() if begins is None else (begins,))
            for key in ("opens", "at", "except", "holidays"):
                if fields.has(key):
                    fields.note(fields.place_of(key), f"has from and {key}", None, "keep one of them")
        elif fields.has("opens") or fields.has("at"):
            fields.required("for", "4h")
            times = self._times(fields, "opens")
        else:
            fields.required("from", '"2026-12-01 08:00"')
            times = EntryTimes()
        for_s = self._length_s(fields)
        if begins is not None and ends is not None:
            for_s = int((ends - begins).total_seconds())
            if not timedelta(minutes=1) <= ends - begins <= timedelta(seconds=LONGEST_WINDOW_S):
                what = f"must end 1m to {duration_text(LONGEST_WINDOW_S)} after it begins: until"
                fields.note(fields.place_of("until"), what, f"{ends:%Y-%m-%d %H:%M}", "write from and until in order")
        warnings_s, grace_s, lead_s = self._leads(fields)
        return WindowEntry(
            name=fields.name("name"),
            layout=MAINTENANCE,
            opens=times,
            for_s=for_s,
            hosts=fields.globs("hosts", ("*",)),
            at_boundary=frozenset({AtBoundary.PARK, AtBoundary.FINISH}),
            warnings_s=warnings_s,
            grace_s=grace_s,
            decide_lead_s=lead_s,
            only_if_queued=False,
            is_maintenance=True,
            place=fields.place,
        )

    def _reserve(self, fields: Fields) -> ReserveEntry:
        for key, example in (
            ("name", "nightly"),
            ("for", "8h"),
            ("gpus", "16"),
            ("queue", "hpc"),
            ("owner", "group-a"),
        ):
            fields.required(key, example)
        settings = self._reader.settings
        gpus = fields.whole("gpus", 1, least=1, most=MOST_GPUS)
        is_number = fields.has("gpus") and not fields.is_last_told("gpus")
        queue_names = [queue.name for queue in self._queues]
        queue = fields.known_word("queue", "", queue_names, what="a queue of this policy")
        takes = [layout for layout in self._layouts if queue in layout.queues]
        if queue in queue_names and is_number:
            sizes = sorted(set().union(*(layout.sizes for layout in takes)))
            if gpus not in sizes:
                instead = "use " + ", ".join(map(str, sizes)) if sizes else f"add queue {queue} to a layout"
                what = f"wants GPUs that no layout gives to queue {queue}"
                fields.note(fields.place_of("gpus"), what, str(gpus), instead)
        return ReserveEntry(
            name=fields.name("name"),
            starts=self._times(fields, "cron"),
            run_s=fields.duration_s(
                "for", settings.shortest_run_s, least_s=settings.shortest_run_s, most_s=settings.longest_run_s
            ),
            gpus=gpus,
            count=fields.whole("count", 1, least=1, most=MOST_COPIES),
            queue=queue,
            owner=fields.owner("owner"),
            image=fields.known_word("image", None, self._images, what="an image of this policy"),
            at_boundary=fields.choice("at_boundary", None, AtBoundary),
            disk_gib=fields.size_gib("disk", None, least_gib=1, most_gib=MOST_DISK_GIB),
            ahead_s=fields.duration_s(
                "ahead", settings.policy_files_ahead_s, least_s=MINUTE_S, most_s=settings.horizon_s - DAY_S
            ),
            place=fields.place,
        )

    def _times(self, fields: Fields, cron_key: str) -> EntryTimes:
        """Read when an entry begins: by cron, at single times, or both."""
        if not fields.has("at"):
            fields.required(cron_key, '"0 20 * * mon-fri"')
        on_holidays = fields.choice("holidays", None, OnHolidays)
        if on_holidays is not None and self._holidays == HolidayDays():
            what = "asks for holidays, and the policy names none: holidays"
            fields.note(fields.place_of("holidays"), what, on_holidays.value, "add holidays: {country: DE} at the top")
        for key in ("except", "holidays"):
            if fields.has(key) and not fields.has(cron_key) and fields.has("at"):
                fields.note(fields.place_of(key), f"has {key} without {cron_key}", None, "take the times out of at")
        return EntryTimes(
            cron=fields.cron(cron_key) if fields.has(cron_key) else None,
            at=read_local_times(fields, "at"),
            but_not=read_dates(fields, "except"),
            on_holidays=on_holidays,
            holidays=self._holidays,
        )

    def _length_s(self, fields: Fields) -> int:
        return fields.duration_s("for", MINUTE_S, least_s=MINUTE_S, most_s=LONGEST_WINDOW_S)

    def _leads(self, fields: Fields) -> tuple[tuple[int, ...], int, int]:
        """Return warnings, grace and how long before its start a window is decided."""
        warnings_s = read_warnings_s(fields, self._warnings_s)
        grace_s = fields.duration_s("grace", self._grace_s, least_s=10, most_s=LONGEST_GRACE_S)
        least_lead_s = max(warnings_s, default=0) + grace_s
        lead_s = fields.duration_s("decide", least_lead_s + HAND_OVER_BOUND_S, least_s=1, most_s=LONGEST_LEAD_S)
        if lead_s < least_lead_s:
            what = "is decided too late to warn its guests and give them their grace: decide"
            instead = f"use at least {duration_text(least_lead_s)}: the longest warning and the grace"
            fields.note(fields.place_of("decide"), what, duration_text(lead_s), instead)
        return warnings_s, grace_s, lead_s

    def _allowed_by_default(self, layout: Layout) -> frozenset[AtBoundary]:
        """Park and finish; keep too, unless the layout has the whole-host size: a kept VM would be in the way of it.

        The whole-host size is the largest of any layout: the file does not know the hosts.
        """
        whole_host = max((max(other.sizes, default=0) for other in self._layouts), default=0)
        allowed = {AtBoundary.PARK, AtBoundary.FINISH}
        if whole_host not in layout.sizes:
            allowed.add(AtBoundary.KEEP)
        return frozenset(allowed)


def read_warnings_s(fields: Fields, default: tuple[int, ...]) -> tuple[int, ...]:
    return fields.durations_s("warnings", default, least_s=MINUTE_S, most_s=LONGEST_WARNING_S)
