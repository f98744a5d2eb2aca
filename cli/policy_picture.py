"""A picture of coming days for a terminal: a row for each day, its hours across, windows as bars, reservations below.

Pure drawing, in wall-clock time: a window of 20:00 to 08:00 looks the same in the night in which the clock changes;
that day has a note.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta

from policies.filings import FilingTime
from policies.windows import WindowTime

_CELL = timedelta(minutes=20)
_CELLS = 72
_MARGIN = 11
_MOST_HOSTS = 12
"""Pictures, one for each set of hosts; more are not looked at."""


def draw_days(
    windows: Sequence[WindowTime],
    filings: Sequence[FilingTime],
    *,
    first: date,
    days: int,
    notes: Mapping[date, str],
) -> Iterator[str]:
    """Yield lines: for each set of hosts its days; then those of the policy's own reservations."""
    sets = list(dict.fromkeys(window.entry.hosts for window in windows))
    shown_days = [first + timedelta(days=number) for number in range(days + 1)]
    for hosts in sets[:_MOST_HOSTS]:
        mine = [window for window in windows if window.entry.hosts == hosts]
        last = max(window.local_end for window in mine)
        yield f"Windows on {', '.join(hosts)}"
        yield _axis()
        for day in shown_days:
            row = _row(mine, day)
            # The day after the last one is there only for what reaches into it.
            if day == shown_days[-1] and (not row.strip() or last <= datetime.combine(day, datetime.min.time())):
                continue
            yield f"{day:%a %m-%d}".ljust(_MARGIN) + row + _note(notes, day)
        yield ""
    if len(sets) > _MOST_HOSTS:
        yield f"and {len(sets) - _MOST_HOSTS} more sets of hosts; see the table"
    by_day: dict[date, list[FilingTime]] = {}
    for filing in filings:
        by_day.setdefault(filing.occurrence.local.date(), []).append(filing)
    if by_day:
        yield "Reservations of the policy"
        yield _axis()
    for day, filed in sorted(by_day.items()):
        label = f"{day:%a %m-%d}".ljust(_MARGIN)
        for filing in filed:
            yield label + _mark(filing) + _note(notes, day)
            label = " " * _MARGIN


def _axis() -> str:
    return " " * _MARGIN + "".join(f"{hour:02}".ljust(3 * int(timedelta(hours=1) / _CELL)) for hour in range(0, 24, 3))


def _row(windows: Sequence[WindowTime], day: date) -> str:
    midnight = datetime.combine(day, datetime.min.time())
    cells = [" "] * _CELLS
    for window in windows:
        start = max(0, (window.local_start - midnight) // _CELL)
        end = min(_CELLS, -((midnight - window.local_end) // _CELL))
        if end <= 0 or start >= _CELLS:
            continue
        opens, closes = window.local_start >= midnight, window.local_end <= midnight + timedelta(days=1)
        cells[start:end] = _bar(window.entry.name, end - start, opens=opens, closes=closes)
    return "".join(cells).rstrip()


def _bar(label: str, width: int, *, opens: bool, closes: bool) -> str:
    """Return `[night───]`; without its bracket where it comes from the day before or lasts into the next one."""
    inside = label if opens and len(label) + 2 <= width else ""
    bar = list(("[" if opens else "─") + inside.ljust(width - 1, "─"))[:width]
    if closes and width > 1:
        bar[-1] = "]"
    return "".join(bar)


def _mark(filing: FilingTime) -> str:
    local, entry = filing.occurrence.local, filing.entry
    start = (local - datetime.combine(local.date(), datetime.min.time())) // _CELL
    gpus = f"{entry.count} × {entry.gpus}" if entry.count > 1 else str(entry.gpus)
    text = f"{entry.name}, {gpus} GPUs"
    if start + 2 + len(text) <= _CELLS:
        return " " * start + "▲ " + text
    return (text + " ▲").rjust(start + 1)


def _note(notes: Mapping[date, str], day: date) -> str:
    return f"   ← clock {notes[day]}" if day in notes else ""
