"""The wall-clock times of one entry of a policy: by cron, on single dates, not on some dates, with or without holidays.

Holds values; when a wall-clock time is in UTC is `occurrences`' matter, which days are holidays that of `holiday_days`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from heapq import merge

from policies.cron import Cron
from policies.holiday_days import NO_HOLIDAYS, DateRange, HolidayDays


class OnHolidays(StrEnum):
    """What an entry does on days that start on a holiday."""

    SKIP = "skip"
    ONLY = "only"


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryTimes:
    """When an entry begins. `at` are single times: neither `but_not` nor holidays take them away."""

    cron: Cron | None = None
    at: tuple[datetime, ...] = ()
    """In order of time."""
    but_not: tuple[DateRange, ...] = ()
    on_holidays: OnHolidays | None = None
    holidays: HolidayDays = NO_HOLIDAYS

    @property
    def text(self) -> str:
        """What was written, for messages."""
        parts = [] if self.cron is None else [self.cron.text]
        return ", ".join(parts + [f"{local:%Y-%m-%d %H:%M}" for local in self.at[:3]])

    @property
    def joins_days(self) -> bool:
        return self.cron is not None and self.cron.joins_days

    def local_times(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Yield the wall-clock times after a wall-clock time and before another one, in order, each once."""
        if not self.at:
            yield from self._by_cron(after, until)
            return
        single = (local for local in self.at if after < local < until)
        latest: datetime | None = None
        for local in merge(self._by_cron(after, until), single):
            if local != latest:
                yield local
            latest = local

    def is_left_out(self, day: date) -> bool:
        """Whether exceptions or holidays take a day away from what cron says."""
        if any(day in dates for dates in self.but_not):
            return True
        match self.on_holidays:
            case None:
                return False
            case OnHolidays.SKIP:
                return day in self.holidays
            case OnHolidays.ONLY:
                return day not in self.holidays

    def _by_cron(self, after: datetime, until: datetime) -> Iterator[datetime]:
        if self.cron is None:
            return
        if not self.but_not and self.on_holidays is None:
            yield from self.cron.local_times(after, until)
            return
        for local in self.cron.local_times(after, until):
            if not self.is_left_out(local.date()):
                yield local
