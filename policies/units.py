"""Durations as people write them (`90m`, `12h`, `7d`, `1h30m`) and sizes of disks (`100GiB`): to numbers and back.

Durations have a grammar of our own, in one expression. The kept libraries for it accept far more than a policy should:
`1:30` (minutes or hours?), `2mm` and `1y` (months and years have no fixed length), signs, fractions and bare numbers.
What they would take over is the one line that adds up the parts.
"""

import re

from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S

_DURATION = re.compile(r"(?:(\d{1,5})d)?(?:(\d{1,5})h)?(?:(\d{1,6})m)?(?:(\d{1,7})s)?", re.ASCII)
_SIZE = re.compile(r"(\d{1,7}) ?(GiB|TiB)", re.ASCII)
_UNIT_S = (DAY_S, HOUR_S, MINUTE_S, 1)


def parse_duration_s(text: str) -> int | None:
    """Return the seconds of a duration, its parts in falling order; None if it is not one."""
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        return None
    return sum(int(part) * unit_s for part, unit_s in zip(match.groups(), _UNIT_S, strict=True) if part is not None)


def parse_size_gib(text: str) -> int | None:
    """Return the GiB of a size written in GiB or TiB; None if it is not one."""
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    number = int(match.group(1))
    return number * 1024 if match.group(2) == "TiB" else number


def duration_text(seconds: int) -> str:
    """Write seconds as a policy file would: `1h30m`, `7d`, `36h`."""
    days, rest = divmod(seconds, DAY_S)
    if days and rest and seconds < 3 * DAY_S:
        days, rest = 0, seconds
    hours, rest = divmod(rest, HOUR_S)
    minutes, rest = divmod(rest, MINUTE_S)
    parts = ((days, "d"), (hours, "h"), (minutes, "m"), (rest, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0s"
