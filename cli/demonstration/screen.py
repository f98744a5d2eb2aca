"""The live view of the demonstration: who has which GPUs, how fast time goes, what happened last.

On a terminal one picture that changes; elsewhere plain lines. Holds no decisions and reads nothing itself.
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from zoneinfo import ZoneInfo

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cli.demonstration.telling import Happening
from scheduler.core.phases import Phase
from scheduler.core.spans import HOUR_S, Instant

LAST_SHOWN = 9
STATUS_EVERY_S = 4 * HOUR_S
"""Where nobody watches, so often in product time it is said how things stand."""
_WIDTH = 100
_CELL = 9
_COLOURS = (
    "#4e79a7",
    "#f28e2b",
    "#59a14f",
    "#b07aa1",
    "#76b7b2",
    "#e15759",
    "#d4a6c8",
    "#a0cbe8",
    "#ffbe7d",
    "#8cd17d",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who has a GPU."""

    reservation: str
    owner: str
    state: str
    """`starting`, `running` or `stopping`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One moment."""

    now: Instant
    from_at: Instant
    until_at: Instant
    speed: float
    busy_with: str
    """Why time does not go fast; empty when it does."""
    gpus: int
    holders: Mapping[int, Holder]
    resetting: frozenset[int]
    layout: str
    """What may run now."""
    is_window: bool
    """A policy's window holds."""
    phases: Mapping[Phase, int]
    started: int
    kept: int
    seconds: float


class Screen(Protocol):
    """Where the demonstration is shown."""

    def __enter__(self) -> "Screen": ...

    def __exit__(self, *_: object) -> None: ...

    def say(self, line: str) -> None:
        """Say what is being done, before and after the two days."""

    def happened(self, happening: Happening) -> None:
        """Tell one line."""

    def moved(self, picture: Picture) -> None:
        """Show how it is now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """Shows instants by the wall clock of a zone."""

    zone: ZoneInfo
    near_at: Instant

    def __call__(self, instant: Instant) -> str:
        local = datetime.fromtimestamp(instant, self.zone)
        # A weekday alone would be read as one of these days.
        return f"{local:%a %H:%M}" if abs(instant - self.near_at) < 6 * 24 * HOUR_S else f"{local:%a %d %b %H:%M}"


def screen_for(out: Console, show: Hours) -> Screen:
    """Return the screen for a console."""
    return LiveScreen(out, show) if out.is_terminal and not out.is_dumb_terminal else PlainScreen(out, show)


class PlainScreen:
    """Lines: the big things as they happen, and how it stands every few hours."""

    def __init__(self, out: Console, show: Hours) -> None:
        self._out = out
        self._show = show
        self._status_at: Instant | None = None

    def __enter__(self) -> "PlainScreen":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def say(self, line: str) -> None:
        self._out.print(Text(line), soft_wrap=True)

    def happened(self, happening: Happening) -> None:
        if happening.is_big:
            self._out.print(Text(f"{self._show(happening.at)}  {happening.text}"), soft_wrap=True)

    def moved(self, picture: Picture) -> None:
        if self._status_at is None or picture.now >= self._status_at:
            self._status_at = picture.now - picture.now % STATUS_EVERY_S + STATUS_EVERY_S
            line = Text(f"{self._show(picture.now)}  {_status(picture)}", style="dim")
            self._out.print(line, soft_wrap=True)


class LiveScreen:
    """One picture that changes, with what happened last below it."""

    def __init__(self, out: Console, show: Hours) -> None:
        self._out = out
        self._show = show
        self._last: deque[Happening] = deque(maxlen=LAST_SHOWN)
        self._live = Live(console=out, auto_refresh=False, transient=True)

    def __enter__(self) -> "LiveScreen":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        self._live.console.print(Text(line))

    def happened(self, happening: Happening) -> None:
        self._last.append(happening)

    def moved(self, picture: Picture) -> None:
        self._live.update(self._draw(picture), refresh=True)

    def _draw(self, picture: Picture) -> RenderableType:
        width = min(self._out.width, _WIDTH)
        layout = Text(f"layout {picture.layout}", style="bold magenta" if picture.is_window else "default")
        head = Table.grid(expand=True)
        head.add_column()
        head.add_column(justify="center")
        head.add_column(justify="right")
        pace = f"{picture.speed:,.0f}×" + (f" ({picture.busy_with})" if picture.busy_with else "")
        head.add_row(Text(self._show(picture.now), style="bold"), layout, Text(f"{pace} · {picture.seconds:.0f} s"))
        done = ProgressBar(
            total=picture.until_at - picture.from_at, completed=picture.now - picture.from_at, width=width - 4
        )
        cells = [_cell(gpu, picture) for gpu in range(picture.gpus)]
        per_row = max(1, min(8, (width - 4) // (_CELL + 1)))
        per_row = next(n for n in (8, 4, 2, 1) if n <= per_row)
        rows = [Columns(cells[at : at + per_row], width=_CELL, padding=(0, 1)) for at in range(0, len(cells), per_row)]
        counts = Text(f"{_counted(picture)}\n{picture.kept} of {picture.started} started in time", style="default")
        log = Text(
            "\n".join(f"{self._show(one.at)}  {one.text}" for one in self._last), overflow="ellipsis", no_wrap=True
        )
        log.append("\n" * (LAST_SHOWN - len(self._last)))
        return Panel(
            Group(head, done, Text(), *rows, Text(), counts, Text(), log),
            title="nightshift demo: one DGX-2, two days",
            width=width,
        )


def _cell(gpu: int, picture: Picture) -> Text:
    """Draw a GPU: its number, who has it, and what its VM does. Readable without colour."""
    holder = picture.holders.get(gpu)
    if holder is None:
        state, style = ("reset", "yellow") if gpu in picture.resetting else ("free", "dim")
        return Text(f"{gpu:>2}{'':{_CELL - 2}}\n {state:<{_CELL - 1}}\n{'':{_CELL}}", style=style)
    mark = {"starting": "↑", "running": " ", "stopping": "↓"}[holder.state]
    number = int(holder.reservation.rpartition("-")[2]) if holder.reservation[-1:].isdecimal() else 0
    style = f"black on {_COLOURS[number % len(_COLOURS)]}" + ("" if holder.state == "running" else " dim")
    name, owner = holder.reservation[: _CELL - 1], holder.owner[: _CELL - 1]
    return Text(f"{gpu:>2} {mark:<{_CELL - 3}}\n {name:<{_CELL - 1}}\n {owner:<{_CELL - 1}}", style=style)


def _counted(picture: Picture) -> str:
    shown = Counter(picture.phases)
    return " · ".join(f"{shown[phase]} {phase}" for phase in Phase if shown[phase]) or "nobody has asked yet"


def _status(picture: Picture) -> str:
    return (
        f"{len(picture.holders)} of {picture.gpus} GPUs held; {_counted(picture)};"
        f" {picture.kept} of {picture.started} started in time; {picture.speed:,.0f}×, {picture.seconds:.0f} s"
    )
