"""Shows the result of a simulation: the picture of what ran, a table of who was told what and got what, a summary."""

from collections.abc import Callable
from datetime import datetime
from typing import TypeAlias
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.gantt import Bar, Shade, draw
from cli.simulation import Result, Story
from policies.units import duration_text
from scheduler.core.bounds import percentile
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S, Instant
from scheduler.core.windows import Window, WindowState

_MARGIN = 8

ShowHour: TypeAlias = Callable[[Instant], str]


def show(result: Result, out: Console, *, zone: ZoneInfo, cap: str, trace: str) -> None:
    """Print everything."""

    def hour(instant: Instant) -> str:
        local = datetime.fromtimestamp(instant, zone)
        # A weekday alone would be read as one of these days.
        is_near = abs(instant - result.from_at) < 6 * DAY_S
        return f"{local:%a %H:%M}" if is_near else f"{local:%a %d %b %H:%M}"

    out.print(
        Text(
            f"{hour(result.from_at)} to {hour(result.until_at)} ({zone.key}) on one DGX-2. Demand: {trace}, its busiest"
            f" 36 hours, running times capped at {cap}; 8- and 16-GPU requests added by seed.\n"
        )
    )
    out.print(_picture(result, hour, columns=max(40, out.width - _MARGIN)))
    out.print(_table(result, hour))
    out.print(_summary(result))


def _picture(result: Result, hour: ShowHour, *, columns: int) -> Text:
    bars = [
        Bar(
            rows=frozenset(ran.gpus),
            start_at=max(ran.held_at, result.from_at),
            end_at=ran.free_at or result.until_at,
            label=story.id.removeprefix("r-"),
            colour=number,
        )
        for number, story in enumerate(result.stories)
        for ran in story.ran
    ]
    return draw(
        bars,
        row_labels=[f"GPU {gpu}" for gpu in range(result.gpus)],
        from_at=result.from_at,
        until_at=result.until_at,
        columns=columns,
        show_hour=hour,
        shades=[shade for window in result.windows for shade in _shades(window)],
    )


def _shades(window: Window) -> list[Shade]:
    closed = window.closed_span
    shades = []
    if closed is not None:
        shades.append(Shade(start_at=closed.start_at, end_at=closed.end_at, label=window.name))
    if window.state is WindowState.RELEASED and window.gift_from_at is not None:
        shades.append(Shade(start_at=window.gift_from_at, end_at=window.end_at, label="released"))
    return shades


def _table(result: Result, hour: ShowHour) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", row_styles=["", "on grey7"])
    for name in ("id", "who"):
        table.add_column(name, no_wrap=True)
    table.add_column("GPUs", justify="right")
    table.add_column("for", justify="right")
    for name in ("asked", "promised by", "running", "blocks"):
        table.add_column(name, no_wrap=name != "blocks")
    table.add_column("end", no_wrap=True)
    for story in result.stories:
        table.add_row(
            story.id,
            story.owner + (" *" if story.is_by_policy else ""),
            str(story.gpus),
            duration_text(story.run_s),
            hour(story.submitted_at),
            hour(story.promise.start_by_at) if story.promise else "-",
            _running(story, hour),
            " → ".join(story.blocks),
            _end(story, hour),
        )
    return table


def _running(story: Story, hour: ShowHour) -> Text:
    if story.started_at is None:
        return Text("-", style="dim")
    is_late = story.promise is not None and story.started_at > story.promise.start_by_at
    return Text(hour(story.started_at), style="bold red" if is_late else "green")


def _end(story: Story, hour: ShowHour) -> str:
    last = max((r.free_at for r in story.ran if r.free_at is not None), default=None)
    if story.outcome:
        how = "done" if story.outcome == "completed" else story.outcome
        return how if last is None else f"{how} {hour(last)}"
    if story.ran and story.ran[-1].free_at is None:
        return "runs on"
    return "parked" if story.ran else "waits"


def _summary(result: Result) -> Text:
    stories = result.stories
    promised = [s for s in stories if s.promise is not None]
    waits = [s.started_at - s.submitted_at for s in stories if s.started_at is not None and not s.is_by_policy]
    waiting = [s for s in promised if s.started_at is None and not s.outcome]
    early = [
        s.promise.start_by_at - s.started_at for s in promised if s.promise is not None and s.started_at is not None
    ]
    busy_s = sum(
        len(r.gpus) * (min(r.free_at or result.until_at, result.until_at) - r.held_at) for s in stories for r in s.ran
    )
    share = busy_s / (result.gpus * (result.until_at - result.from_at))
    moved = sum(1 for s in stories for a, b in zip(s.blocks, s.blocks[1:], strict=False) if a != b)
    lines = [
        f"{len(stories)} reservations, {len(promised)} promised, {sum(1 for s in stories if s.started_at)} started,"
        f" {sum(1 for s in stories if s.is_by_policy)} of them (*) asked for by the policy.",
        f"Promises broken: {result.broken}. Guests ran {_minutes(percentile(early, 0.5))} before what was promised"
        " (median).",
        f"Waits of those who started: {_minutes(percentile(waits, 0.5))} median,"
        f" {_minutes(percentile(waits, 0.95))} 95th percentile. {len(waiting)} wait with a promise for later.",
        f"Parked and resumed: {sum(s.parkings for s in stories)} times, {moved} of them on another block."
        f" GPUs held {share:.0%} of the time.",
    ]
    return Text("\n" + "\n".join(lines))


def _minutes(seconds: int | None) -> str:
    if seconds is None:
        return "-"
    if seconds >= 3 * HOUR_S:
        return f"{seconds / HOUR_S:.1f} h"
    return f"{seconds / MINUTE_S:.0f} min"
