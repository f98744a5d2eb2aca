"""Shows two simulated policies beside each other: a table, waits as bars, and use over the hours of the day."""

import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.policy_demand import AllWanted
from policies.occurrences import local_of
from policies.simulated_figures import NO_GROUP, Figures, OwnReservations, Waits, WaitsOf
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S, Instant

OLD, NEW = "#4e79a7", "#f28e2b"
_BAR = 44
_ROWS = 8
_MANY_TIMES = 3
"""What became more than so many times as much is told as a multiple."""
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_LEFT = "▏▎▍▌▋▊▉█"
_DRAWN_COLUMNS = 100
_FETCHED_FONT = re.compile(r"@font-face\s*\{.*?\}\s*", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Two policies on one demand."""

    demand: AllWanted
    demand_from: str
    """A trace or a server, for people."""
    hosts: str
    """`17 × dgx-2`."""
    from_at: Instant
    until_at: Instant
    zone: str
    old_name: str
    new_name: str
    old: Figures
    new: Figures

    def as_json(self) -> dict[str, object]:
        """Return plain data; instants are seconds since 1970 UTC."""
        return {
            "demand": {
                "from": self.demand_from,
                "requests": len(self.demand.requests),
                "dropped": self.demand.dropped,
                "never_ran": self.demand.never_ran,
                "from_at": self.from_at,
                "until_at": self.until_at,
                "zone": self.zone,
            },
            "hosts": self.hosts,
            "old": {"policy": self.old_name, **self.old.as_json()},
            "new": {"policy": self.new_name, **self.new.as_json()},
        }


def show(found: Compared, out: Console) -> None:
    """Print everything."""
    out.print(Text(_heading(found)))
    out.print(_table(found))
    if found.old.started != found.new.started:
        out.print(Text("\nWaits are those of whoever started under that policy.", style="dim"))
    if found.old.waits is not None or found.new.waits is not None:
        out.print(_bars(found))
    out.print(_hours(found))


def as_svg(found: Compared) -> str:
    """Return what is shown as a drawing."""
    paper = Console(
        width=_DRAWN_COLUMNS,
        file=io.StringIO(),
        record=True,
        highlight=False,
        color_system="truecolor",
        force_terminal=True,
    )
    show(found, paper)
    # The drawing would fetch its font from elsewhere whenever somebody looks at it.
    drawn = _FETCHED_FONT.sub("", paper.export_svg(title=f"nightshift policy simulate {found.new_name}"))
    return drawn.replace("Fira Code", "DejaVu Sans Mono")


def _heading(found: Compared) -> str:
    zone = ZoneInfo(found.zone)
    demand = found.demand
    first, last = _day(found.from_at, zone), _day(found.until_at - 1, zone)
    until = "" if first == last else f" to {last:%a %Y-%m-%d}"
    lines = [
        f"{len(demand.requests):,} requests of {found.demand_from} on {found.hosts}.",
        f"{first:%a %Y-%m-%d}{until}, {found.zone}. Nothing is changed.",
    ]
    if demand.dropped:
        lines.append(f"Left out: {demand.dropped:,} larger than any VM of these hosts.")
    if demand.never_ran:
        lines.append(f"Left out: {demand.never_ran:,} given up before they ran.")
    return "\n".join(lines) + "\n"


def _day(at: Instant, zone: ZoneInfo) -> date:
    return local_of(at, zone).date()


# ---- the table


def _table(found: Compared) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("")
    for name, colour in ((f"old: {found.old_name}", OLD), (f"new: {found.new_name}", NEW)):
        table.add_column(Text(name, style=colour), justify="right", overflow="fold")
    table.add_column("change", justify="right")
    for label, old, new, change in _rows(found.old, found.new):
        style = "bold" if not label.startswith(" ") else ""
        table.add_row(Text(label, style=style), old, new, change)
    return table


Row = tuple[str, str, str, str]


def _rows(old: Figures, new: Figures) -> Iterable[Row]:
    yield _counts("Started", old.started, new.started)
    yield from _wait_rows(old.waits, new.waits)
    yield from _parts("Wait by size", old.waits_by_size, new.waits_by_size, _size)
    yield from _parts("Wait by group", old.waits_by_group, new.waits_by_group, _group)
    yield _shares("GPUs held", old.utilisation, new.utilisation)
    yield _counts("Windows that opened", old.windows_opened, new.windows_opened)
    yield _counts("  hosts that changed layout", old.swaps, new.swaps)
    yield _counts("  hosts that were not wanted", old.given_back, new.given_back)
    yield _counts("Parked", old.parkings, new.parkings)
    yield _lengths("  hours parked", old.parked_s, new.parked_s, _hours_text)
    yield _counts("Refused", sum(n for _, n in old.refused), sum(n for _, n in new.refused))
    yield from _refusals("  ", old.refused, new.refused)
    yield _counts("Broken promises", old.promises_broken, new.promises_broken)
    yield from _own_rows(old, new)


def _wait_rows(old: Waits | None, new: Waits | None) -> Iterable[Row]:
    yield _waits("Wait, weighted by GPUs", old, new, lambda waits: waits.wait_s)
    yield _waits("  told at first", old, new, lambda waits: waits.told_s)
    yield _waits("  of half the requests at most", old, new, lambda waits: waits.median_s)
    yield _waits("  of 95 in 100 at most", old, new, lambda waits: waits.p95_s)


def _waits(label: str, old: Waits | None, new: Waits | None, which: Callable[[Waits], int]) -> Row:
    if old is None or new is None:
        return label, "-" if old is None else _time(which(old)), "-" if new is None else _time(which(new)), ""
    longest_s = max(which(old), which(new))
    return _lengths(label, which(old), which(new), lambda seconds: _time(seconds, like_s=longest_s))


def _parts(heading: str, old: Sequence[WaitsOf], new: Sequence[WaitsOf], named: Callable[[str], str]) -> Iterable[Row]:
    old_by_name, new_by_name = {one.name: one for one in old}, {one.name: one for one in new}
    names = list(dict.fromkeys([*old_by_name, *new_by_name]))
    if names:
        yield heading, "", "", ""
    for name in names:
        before, after = old_by_name[name], new_by_name[name]
        yield _waits(f"  {named(name)} ({before.asked:,})", before.waits, after.waits, lambda waits: waits.wait_s)


def _own_rows(old: Figures, new: Figures) -> Iterable[Row]:
    before, after = {one.name: one for one in old.own}, {one.name: one for one in new.own}
    names = dict.fromkeys([*before, *after])
    if names:
        yield "The policy's own reservations", "", "", ""
    for name in names:
        one, other = before.get(name), after.get(name)
        yield f"  {name}", _got(one), _got(other), ""
        yield from _refusals("    ", () if one is None else one.refused, () if other is None else other.refused)


def _refusals(indent: str, old: Sequence[tuple[str, int]], new: Sequence[tuple[str, int]]) -> Iterable[Row]:
    before, after = dict(old), dict(new)
    for code in dict.fromkeys([*before, *after]):
        yield _counts(f"{indent}{code}", before.get(code, 0), after.get(code, 0))


def _got(own: OwnReservations | None) -> str:
    if own is None:
        return "-"
    if own.due == 0:
        return "none was due"
    return f"{own.ran:,} of {own.due:,} ran" + (f", {_time(own.late_s)} late" if own.ran else "")


def _size(name: str) -> str:
    return "1 GPU" if name == "1" else f"{name} GPUs"


def _group(name: str) -> str:
    return "in no group" if name == NO_GROUP else name


def _counts(label: str, old: int, new: int) -> Row:
    return label, f"{old:,}", f"{new:,}", f"{new - old:+,}" if new != old else ""


def _shares(label: str, old: float, new: float) -> Row:
    return label, f"{old:.1%}", f"{new:.1%}", f"{100 * (new - old):+.1f} points" if f"{new:.1%}" != f"{old:.1%}" else ""


def _lengths(label: str, old: int, new: int, shown: Callable[[int], str]) -> Row:
    change = ""
    if shown(old) != shown(new):
        if not old:
            change = f"+{shown(new)}"
        elif new > _MANY_TIMES * old:
            change = f"× {new / old:,.0f}"
        else:
            change = f"{new / old - 1:+.0%}"
    return label, shown(old), shown(new), change


def _hours_text(seconds: int) -> str:
    return f"{seconds / HOUR_S:,.0f} h"


def _time(seconds: int, *, like_s: int | None = None) -> str:
    """Write a length of time, in the unit of another one."""
    like_s = seconds if like_s is None else like_s
    if like_s < 2 * HOUR_S:
        return f"{seconds / MINUTE_S:.0f} min"
    return f"{seconds / HOUR_S:,.1f} h" if like_s < 10 * DAY_S else f"{seconds / DAY_S:,.1f} days"


# ---- the pictures


def _bars(found: Compared) -> Text:
    """Draw the wait of each size under both policies."""
    picture = Text().append("\nWait by size\n", style="bold")
    new_by_name = {one.name: one.waits for one in found.new.waits_by_size}
    sizes = [(one.name, one.waits, new_by_name[one.name]) for one in found.old.waits_by_size]
    most_s = max((waits.wait_s for _, *both in sizes for waits in both if waits is not None), default=0)
    for name, old, new in sizes:
        for label, policy, waits, colour in ((_size(name), "old", old, OLD), ("", "new", new, NEW)):
            picture.append(f"{label:>8}")
            picture.append(f" {policy} ", style=colour)
            if waits is None:
                picture.append("nobody started\n", style="dim")
                continue
            picture.append(_bar(waits.wait_s, most_s), style=colour)
            picture.append(f" {_time(waits.wait_s)}\n")
    picture.rstrip()
    return picture


def _bar(value: int, most: int) -> str:
    eighths = round(8 * _BAR * value / most) if most else 0
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_LEFT[rest - 1] if rest else "" if whole else _LEFT[0])


def _hours(found: Compared) -> Text:
    """Draw how many of the GPUs are held at each hour of the day, both policies side by side."""
    picture = Text().append("\nGPUs held by the hour of the day, ", style="bold")
    picture.append("old", style=OLD).append(" and ").append("new", style=NEW).append("\n")
    pairs = list(zip(found.old.utilisation_by_hour, found.new.utilisation_by_hour, strict=True))
    for row in reversed(range(_ROWS)):
        label = {_ROWS - 1: "100 %", _ROWS // 2 - 1: "50 %"}.get(row, "")
        picture.append(f"{label:>8} ")
        for old, new in pairs:
            picture.append(_column(old, row), style=OLD)
            picture.append(_column(new, row) + " ", style=NEW)
        picture.append("\n")
    picture.append(" " * 9 + "".join(f"{hour:02} " for hour in range(len(pairs))), style="dim")
    return picture


def _column(share: float, row: int) -> str:
    eighths = min(8, max(0, round(8 * _ROWS * share) - 8 * row))
    return _EIGHTHS[eighths]
