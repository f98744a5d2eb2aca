"""Which days are holidays: those of a country by the library `holidays`, those of an iCalendar file, and single ones.

Holds values and the one question about them. Reading an iCalendar file is in `icalendar_file`.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

_COUNTRY_YEARS = range(1971, 2101)
"""Before and after it the library knows too little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DateRange:
    """Days from the first to the last, both included."""

    first: date
    last: date

    def __contains__(self, day: date) -> bool:
        return self.first <= day <= self.last

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first}..{self.last}"


@dataclass(frozen=True, slots=True, kw_only=True)
class YearlyDays:
    """Days that come every so many years, as 24 December and the eight days after it."""

    first: DateRange
    every_years: int = 1
    last_year: int | None = None
    """The last year in which they begin."""

    def __contains__(self, day: date) -> bool:
        length = self.first.last - self.first.first
        # What began late in the year before may last into this one.
        return any(self._began(year, day, length) for year in (day.year, day.year - 1))

    def _began(self, year: int, day: date, length: timedelta) -> bool:
        since = year - self.first.first.year
        if since < 0 or since % self.every_years or (self.last_year is not None and year > self.last_year):
            return False
        try:
            first = self.first.first.replace(year=year)
        except ValueError:
            return False  # 29 February in a year without one
        return first <= day <= first + length


@dataclass(frozen=True, slots=True, kw_only=True)
class HolidayDays:
    """The holidays of a policy: `if day in holidays`."""

    country: str | None = None
    region: str | None = None
    listed: tuple[DateRange, ...] = ()
    yearly: tuple[YearlyDays, ...] = ()
    but_not: tuple[DateRange, ...] = ()
    """Days on which work goes on all the same."""

    def __contains__(self, day: date) -> bool:
        if any(day in dates for dates in self.but_not):
            return False
        if any(day in dates for dates in self.listed) or any(day in dates for dates in self.yearly):
            return True
        return self.country is not None and day in _days_of_country(self.country, self.region, day.year)


NO_HOLIDAYS = HolidayDays()


@lru_cache(maxsize=1)
def countries() -> dict[str, tuple[str, ...]]:
    """Return the countries that are known, by their ISO 3166 codes, each with its regions."""
    import holidays

    return {country: tuple(regions) for country, regions in holidays.list_supported_countries().items()}


@lru_cache(maxsize=1024)
def _days_of_country(country: str, region: str | None, year: int) -> frozenset[date]:
    import holidays

    if year not in _COUNTRY_YEARS:
        return frozenset()
    return frozenset(holidays.country_holidays(country, subdiv=region, years=year, expand=False))
