"""Times and durations as people write and read them, by the server's clock and in the server's zone.

A time that could be read in two ways is refused rather than guessed: what is asked for here is promised.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from zoneinfo import ZoneInfo

from cli.client import Json, ServerAway
from policies.occurrences import instant_of, local_of
from policies.units import duration_text, parse_duration_s
from scheduler.core.errors import NightshiftError
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S, Instant

FIRST_YEAR, LAST_YEAR = 1971, 2900
_LONGEST_TEXT = 60
_NEAR_S = 6 * DAY_S
"""Within this a weekday names one day only."""

_UNITS = {"d": ("d", "day", "days"), "h": ("h", "hr", "hrs", "hour", "hours")} | {
    "m": ("m", "min", "mins", "minute", "minutes"),
    "s": ("s", "sec", "secs", "second", "seconds"),
}
_UNIT_BY_WORD = {word: unit for unit, words in _UNITS.items() for word in words}
_DURATION_PART = re.compile(r"(\d{1,7}) ?([a-z]+)(?: and |, | )?", re.ASCII)

_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?(?: ?(am|pm))?", re.ASCII)
_HOUR = re.compile(r"(\d{1,2}) ?(am|pm)", re.ASCII)
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_WEEKDAY = re.compile(r"(?:(this|next) )?(mon|tue|tues|wed|thu|thur|thurs|fri|sat|sun|{})".format("|".join(_WEEKDAYS)))
_MONTH = "|".join((*(month[:3] for month in _MONTHS), "sept", *_MONTHS))
_DAY = re.compile(
    rf"\d{{1,2}}(?:st|nd|rd|th)?(?: of)? (?:{_MONTH})(?: \d{{4}})?"
    rf"|(?:{_MONTH}) \d{{1,2}}(?:st|nd|rd|th)?(?: \d{{4}})?"
    r"|\d{1,2}\.\d{1,2}\.\d{4}|in \d{1,3} (?:days?|weeks?)",
    re.ASCII,
)
_PAST_DAY = re.compile(
    rf"last (?:night|week|month|year|{'|'.join(_WEEKDAYS)}|mon|tue|tues|wed|thu|thur|thurs|fri|sat|sun)"
    r"|(?:\d{1,3}|an?|one|two|three) (?:minute|hour|day|week|month|year)s? ago",
    re.ASCII,
)
_UTC_IN_TEXT = re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\dZ")
_LOCAL_IN_TEXT = re.compile(r"\b[A-Z][a-z]{2} (\d{4}-\d\d-\d\d \d\d:\d\d)(?::\d\d)?\b")
"""How the server writes an instant in a sentence: the wall clock of its zone."""
_SECONDS_IN_TEXT = re.compile(r"\b(\d{3,9}) s\b")

FORMS = 'write it like "tomorrow 09:00", "fri 18:00", "30 nov 10:00", "in 2h" or 2026-11-24T09:00'


class BadTime(NightshiftError):
    """A time or duration that is not one, or not one thing only."""

    code = "time.bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """The server's now and zone; reads and shows times by them."""

    now: Instant
    zone: ZoneInfo

    def read(self, text: str, *, option: str, is_past_allowed: bool = False) -> Instant:
        """Return the instant that a person wrote; raises BadTime naming the option."""
        at = self._read(text, option, needs_clock=not is_past_allowed)
        if at < self.now - MINUTE_S and not is_past_allowed:
            raise BadTime(
                f"{option} {text!r} is {self.show(at)}, which is past: it is {self.show(self.now)} there; {FORMS}"
            )
        return at

    def show(self, at: Instant) -> str:
        """Write an instant shortly: `Mon 09:12`, or with its date where a weekday would not be clear."""
        local = self._local(at)
        if local is None:
            return f"{at} s"
        if abs(at - self.now) < _NEAR_S:
            return f"{local:%a %H:%M}"
        here = self._local(self.now)
        year = "" if here is not None and here.year == local.year else f" {local.year}"
        return f"{local:%a} {local.day} {local:%b}{year} {local:%H:%M}"

    def show_near(self, at: Instant) -> str:
        """Write an instant with how far it is: `Mon 09:12 (in 4 minutes)`."""
        return f"{self.show(at)} ({self.distance(at)})"

    def distance(self, at: Instant) -> str:
        """Say how far an instant is from now: `in 4 minutes`, `2 days ago`."""
        away_s = abs(at - self.now)
        if away_s < MINUTE_S // 2:
            return "now"
        shown = _rough(away_s)
        return f"in {shown}" if at > self.now else f"{shown} ago"

    def in_text(self, text: str) -> str:
        """Show the instants and the long seconds in a sentence of the server as they are shown elsewhere."""
        shown = _UTC_IN_TEXT.sub(lambda match: self._shown(datetime.fromisoformat, match[0]), text)
        shown = _LOCAL_IN_TEXT.sub(lambda match: self._shown(self._local_of_text, match[1], match[0]), shown)
        return durations_in_text(shown)

    def _shown(self, read: Callable[[str], datetime], text: str, otherwise: str | None = None) -> str:
        try:
            return self.show(int(read(text).timestamp()))
        except (ValueError, OverflowError):
            return text if otherwise is None else otherwise

    def _local_of_text(self, text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=self.zone)

    def _local(self, at: Instant) -> datetime | None:
        try:
            return datetime.fromtimestamp(at, self.zone)
        except (OverflowError, ValueError, OSError):
            return None

    def _read(self, text: str, option: str, *, needs_clock: bool) -> Instant:
        written = " ".join(text.lower().replace(",", " ").split())
        bad = BadTime(f"{option} {text!r} is not a time; {FORMS}")
        if not written or len(written) > _LONGEST_TEXT:
            raise bad
        if written == "now":
            return self.now
        later_s = _duration_s(written.removeprefix("in ")) if written.startswith("in ") else None
        if later_s is not None:
            return self.now + later_s
        if re.match(r"\d{4}-\d\d-\d\d", written):
            return self._iso(written.upper(), text, option, needs_clock=needs_clock)
        clock, day_text = _clock(written)
        if needs_clock and _PAST_DAY.fullmatch(day_text):
            raise self._past(text, option)
        if clock is None and needs_clock and day_text:
            self._refuse_bare_day(day_text, text, option)
        if clock is None and (needs_clock or written != day_text):
            raise bad
        if clock is None:
            clock = (0, 0, 0)
        here = local_of(self.now, self.zone)
        day = self._day(day_text, here, clock)
        if day is None:
            raise bad
        return self._instant(datetime.combine(day, clock_time(*clock)), text, option)

    def _past(self, text: str, option: str) -> BadTime:
        return BadTime(f"{option} {text!r} is past: it is {self.show(self.now)} there; {FORMS}")

    def _refuse_bare_day(self, day_text: str, text: str, option: str) -> None:
        """Raise BadTime where a text is a day without an hour: one that is past, or one that lacks its hour."""
        here = local_of(self.now, self.zone)
        day = self._day(day_text, here, (23, 59, 59))
        if day is None:
            return
        if day < here.date():
            raise self._past(text, option)
        hour = "09:00" if day > here.date() else "23:00"
        raise BadTime(f'{option} {text!r} names a day and no time; write it like "{day_text} {hour}"')

    def _iso(self, written: str, text: str, option: str, *, needs_clock: bool) -> Instant:
        has_clock = len(written) > len("2026-11-24")
        try:
            value = datetime.fromisoformat(written)
        except ValueError:
            raise BadTime(f"{option} {text!r} is not a time; {FORMS}") from None
        if needs_clock and not has_clock:
            if value.date() < local_of(self.now, self.zone).date():
                raise self._past(text, option)
            raise BadTime(f"{option} {text!r} names a day and no time; write it like {text.strip()}T09:00")
        if value.tzinfo is None:
            return self._instant(value, text, option)
        _check_year(value.year, text, option)
        return int(value.timestamp())

    def _day(self, text: str, here: datetime, clock: tuple[int, int, int]) -> date | None:
        """Read the day; a bare time is today's if it is still to come, else tomorrow's."""
        is_to_come = clock > (here.hour, here.minute, here.second)
        if text == "":
            return here.date() if is_to_come else here.date() + timedelta(days=1)
        if text in ("today", "tonight"):
            return here.date()
        weekday = _WEEKDAY.fullmatch(text)
        if weekday is not None:
            number = next(n for n, name in enumerate(_WEEKDAYS) if name.startswith(weekday[2][:3]))
            ahead = (number - here.weekday()) % 7
            if ahead == 0 and (weekday[1] == "next" or not is_to_come):
                ahead = 7
            return here.date() + timedelta(days=ahead)
        if text not in ("tomorrow", "yesterday") and _DAY.fullmatch(text) is None:
            # It reads much more, and drops what it does not understand: "30 nov 10:00" became a day in 2030.
            return None
        import dateparser

        try:
            found = dateparser.parse(
                text.replace(" of ", " "),
                languages=["en"],
                settings={"RELATIVE_BASE": here, "PREFER_DATES_FROM": "future", "DATE_ORDER": "DMY"},
            )
        except (ValueError, OverflowError):
            return None
        return found.date() if isinstance(found, datetime) else None

    def _instant(self, local: datetime, text: str, option: str) -> Instant:
        """Map a wall-clock time to UTC; what the clock skips is refused, what it shows twice is the first."""
        _check_year(local.year, text, option)
        local = local.replace(microsecond=0)
        at = instant_of(local, self.zone)
        if local_of(at, self.zone) != local:
            raise BadTime(
                f"{option} {text!r} does not exist in {self.zone.key}: the clock is set forward over it;"
                f" write {local_of(at, self.zone):%Y-%m-%dT%H:%M} or later"
            )
        return at


def read_duration_s(text: str, *, option: str) -> int:
    """Return the seconds that a person wrote, as `3h`, `1h30m` or `3 hours`; raises BadTime naming the option."""
    seconds = _duration_s(" ".join(text.lower().split()))
    if seconds is None:
        raise BadTime(f"{option} {text!r} is not a duration; write it like 3h, 90m, 1h30m or 2 days")
    if seconds == 0:
        raise BadTime(f"{option} {text!r} is no time at all; write it like 3h or 90m")
    return seconds


def hours_text(seconds: int) -> str:
    """Write a duration for a sentence, from an hour on in whole minutes: `3 h`, `1 h 30 min`, `2 days`."""
    if seconds >= 2 * DAY_S and seconds % DAY_S == 0:
        return f"{seconds // DAY_S} days"
    if seconds >= HOUR_S:
        seconds -= seconds % MINUTE_S
    hours, rest = divmod(seconds, HOUR_S)
    minutes, rest = divmod(rest, MINUTE_S)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


def durations_in_text(text: str) -> str:
    """Show the long seconds in a sentence of the server as durations: `7200 s` as `2h`."""
    return _SECONDS_IN_TEXT.sub(lambda match: duration_text(int(match[1])), text)


def instant(text: str) -> Instant:
    """Read an instant of the API; raises ServerAway when it is none."""
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except (ValueError, TypeError, OverflowError) as error:
        raise ServerAway(f"the server says {text!r} where a time belongs; is it of another version?") from error


def instant_in(document: Json, name: str) -> Instant | None:
    """Return an instant of an answer; None where it has none."""
    value = document.get(name)
    return None if value is None else instant(value)


def api_text(at: Instant) -> str:
    """Write an instant for the API."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _check_year(year: int, text: str, option: str) -> None:
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise BadTime(f"{option} {text!r} is out of range; use a year from {FIRST_YEAR} to {LAST_YEAR}")


def _duration_s(written: str) -> int | None:
    if len(written) > _LONGEST_TEXT:
        return None
    short, end = "", 0
    for found in _DURATION_PART.finditer(written):
        unit = _UNIT_BY_WORD.get(found[2])
        if found.start() != end or unit is None:
            return None
        short += found[1] + unit
        end = found.end()
    return parse_duration_s(short) if end == len(written) and written else None


def _clock(written: str) -> tuple[tuple[int, int, int] | None, str]:
    """Take the time of the day out of a text; what is left names the day."""
    words = written.replace(" at ", " ").removeprefix("at ")
    if re.search(r"\bnoon\b", words):
        return (12, 0, 0), _rest(re.sub(r"\bnoon\b", "", words, count=1))
    match = re.search(rf"(?<![\w.:]){_CLOCK.pattern}(?![\w:.])", words, re.ASCII)
    if match is not None:
        hour, minute, second = int(match[1]), int(match[2]), int(match[3] or 0)
        half = match[4]
    else:
        match = re.search(rf"(?<![\w.:]){_HOUR.pattern}(?![\w:.])", words, re.ASCII)
        if match is None:
            return None, words
        hour, minute, second, half = int(match[1]), 0, 0, match[2]
    if half is not None:
        if not 1 <= hour <= 12:
            return None, "?"
        hour = hour % 12 + (12 if half == "pm" else 0)
    if hour > 23 or minute > 59 or second > 59:
        return None, "?"
    return (hour, minute, second), _rest(words[: match.start()] + " " + words[match.end() :])


def _rest(text: str) -> str:
    words = text.split()
    while words and words[0] in ("on", "at"):
        words = words[1:]
    while words and words[-1] in ("on", "at"):
        words = words[:-1]
    return " ".join(words).replace(" on ", " ")


def _rough(seconds: int) -> str:
    """Say about how long: exact to the minute below two days."""
    if seconds < 90 or seconds >= 2 * DAY_S:
        import humanize

        return humanize.naturaldelta(timedelta(seconds=seconds), months=False)
    hours, minutes = divmod(seconds // MINUTE_S, 60)
    if hours == 0:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
