"""A picture of who had which GPUs when, for a terminal: GPUs down, time across, windows shaded.

Pure drawing: takes bars and shades, returns text. Readable without colour: a bar is bracketed and carries its label.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.style import Style
from rich.text import Text

from scheduler.core.spans import HOUR_S, Instant

_COLOURS = (
    "#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#76b7b2", "#e15759", "#9c755f", "#d4a6c8", "#86bcb6", "#a0cbe8",
    "#ffbe7d", "#8cd17d",
)  # fmt: skip
_SHADE = "grey19"
_TAKEN = "grey54"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """These rows were taken for `[start_at, end_at)`."""

    rows: frozenset[int]
    start_at: Instant
    end_at: Instant
    label: str
    colour: int | None
    """Bars with the same number have the same colour; None: grey, taken by somebody else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shade:
    """A window behind the bars."""

    start_at: Instant
    end_at: Instant
    label: str


def draw(
    bars: Sequence[Bar],
    *,
    row_labels: Sequence[str],
    from_at: Instant,
    until_at: Instant,
    columns: int,
    show_hour: Callable[[Instant], str],
    shades: Sequence[Shade] = (),
    now: Instant | None = None,
    hours_from_at: Instant | None = None,
) -> Text:
    """Draw rows over time; `columns` cells for the time, `show_hour` writes an instant on the axis (`Mon 20:00`).

    `hours_from_at`: an instant up to `from_at` that the hours on the axis are counted from, as the midnight before.
    """
    margin = max((len(label) for label in row_labels), default=0) + 1
    step_s = max(1, -(-(until_at - from_at) // columns))
    cells = -(-(until_at - from_at) // step_s)

    def column(instant: Instant) -> int:
        return min(max((instant - from_at) // step_s, 0), cells)

    hours_from_at = -(-from_at // HOUR_S) * HOUR_S if hours_from_at is None else hours_from_at
    picture = _axis(hours_from_at, from_at, until_at, step_s=step_s, margin=margin, cells=cells, show_hour=show_hour)
    picture.append(_bands(shades, margin=margin, cells=cells, column=column))
    shaded = [False] * cells
    for shade in shades:
        for cell in range(column(shade.start_at), column(shade.end_at)):
            shaded[cell] = True
    mark = column(now) if now is not None and from_at <= now < until_at else None
    for row, row_label in enumerate(row_labels):
        picture.append(row_label.rjust(margin - 1) + " ", style="bold")
        picture.append(_row(bars, row, column=column, shaded=shaded, mark=mark))
        picture.append("\n")
    return picture


def _axis(
    hours_from_at: Instant,
    from_at: Instant,
    until_at: Instant,
    *,
    step_s: int,
    margin: int,
    cells: int,
    show_hour: Callable[[Instant], str],
) -> Text:
    """Write the hours; as many as fit without touching."""
    width = max(len(show_hour(from_at)), 1) + 2
    every_h = next((h for h in (1, 2, 3, 4, 6, 12, 24, 48, 96) if h * HOUR_S >= width * step_s), 168)
    line = [" "] * (cells + width)
    instant = hours_from_at + max(0, -(-(from_at - hours_from_at) // (every_h * HOUR_S))) * every_h * HOUR_S
    while instant < until_at:
        cell = (instant - from_at) // step_s
        text = show_hour(instant)
        if cell + len(text) <= cells:
            line[cell : cell + len(text)] = text
        instant += every_h * HOUR_S
    return Text(" " * margin + "".join(line).rstrip() + "\n", style="dim")


def _bands(shades: Sequence[Shade], *, margin: int, cells: int, column: Callable[[Instant], int]) -> Text:
    """Write the windows' names over their time; nothing when there is none."""
    if not shades:
        return Text()
    line = [" "] * cells
    for shade in shades:
        start, end = column(shade.start_at), column(shade.end_at)
        if end > start:
            line[start:end] = _bracketed(shade.label, end - start, fill="─")
    return Text(" " * margin + "".join(line).rstrip() + "\n", style="bold cyan")


def _row(
    bars: Sequence[Bar],
    row: int,
    *,
    column: Callable[[Instant], int],
    shaded: Sequence[bool],
    mark: int | None,
) -> Text:
    characters = [" "] * len(shaded)
    styles = [Style(bgcolor=_SHADE) if is_shaded else Style() for is_shaded in shaded]
    for bar in sorted(bars, key=lambda bar: bar.start_at):
        if row not in bar.rows:
            continue
        start = column(bar.start_at)
        end = max(column(bar.end_at), min(start + 1, len(shaded)))
        label = bar.label if row == min(bar.rows) else ""
        characters[start:end] = _bracketed(label, end - start, fill="·")
        colour = _TAKEN if bar.colour is None else _COLOURS[bar.colour % len(_COLOURS)]
        style = Style(color="black", bgcolor=colour)
        styles[start:end] = [style] * (end - start)
    if mark is not None and mark < len(characters):
        characters[mark] = "│"
        styles[mark] = styles[mark] + Style(color="red", bold=True)
    text = Text()
    for character, style in zip(characters, styles, strict=True):
        text.append(character, style=style)
    return text


def _bracketed(label: str, width: int, *, fill: str) -> list[str]:
    """Return `[label···]` of exactly this width; what does not fit is left out."""
    if width == 1:
        return ["▪"]
    inside = width - 2
    shown = label if len(label) <= inside else ""
    return ["[", *shown.ljust(inside, fill), "]"]
