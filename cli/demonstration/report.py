"""What is shown after the two days: the picture of what really ran, the summary, and what was wrong or is missing."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Span, Text

from cli.answers import KeptAnswers
from cli.auditor import Audit
from cli.demonstration.counting import Numbers
from cli.demonstration.demand import CAP_S, TRACE, Demand
from cli.demonstration.screen import Hours
from cli.gantt import Bar, Shade, draw
from cli.runs import Run
from policies.units import duration_text
from scheduler.core.requests import by_number
from scheduler.core.windows import Window, WindowState

_MARGIN = 8
_LEAST_COLUMNS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Everything that the two days left."""

    demand: Demand
    runs: tuple[Run, ...]
    windows: tuple[Window, ...]
    kept: tuple[KeptAnswers, ...]
    audit: Audit
    numbers: Numbers
    gpus: int
    host: str
    speeds: tuple[tuple[str, float, int], ...]
    changing_s: int
    """So long in product time VMs were starting and stopping, all of them added up."""
    too_fast_s: int
    """So much of that went by at more than 120×: what the host did before anybody saw it."""
    seconds: float
    """Machine time of it all."""
    refused: tuple[str, ...]
    troubles: tuple[str, ...]


def preface(demand: Demand) -> str:
    """Say what will be asked for, before it is."""
    return (
        f"Demand: {TRACE}, its busiest two days, {demand.recorded} requests; durations are capped at"
        f" {duration_text(CAP_S)} ({demand.capped} of them ran longer); {demand.wide} requests for 8 and 16 GPUs are"
        " added by seed. One simulated DGX-2; database, queue, workers, ticker and API are the real ones."
    )


def show(ended: Ended, out: Console, show_hour: Hours) -> None:
    """Print the picture and the summary."""
    out.print()
    out.print(_title(ended, show_hour))
    out.print(_picture(ended, show_hour, columns=max(_LEAST_COLUMNS, out.width - _MARGIN)))
    out.print(_summary(ended))
    out.print(_speeds(ended))
    for line in _wrong(ended):
        out.print(Text(line, style="bold red"))


def _title(ended: Ended, show_hour: Hours) -> Text:
    demand = ended.demand
    return Text(
        f"What ran on {ended.host}, {show_hour(demand.first_at)} to {show_hour(demand.until_at)}"
        f" ({show_hour.zone.key}), by its own log:\n",
        style="bold",
    )


def _picture(ended: Ended, show_hour: Hours, *, columns: int) -> Text:
    numbers = {
        key: n for n, key in enumerate(sorted({r.reservation for r in ended.runs if r.reservation}, key=by_number))
    }
    bars = [
        Bar(
            rows=frozenset(run.gpus),
            start_at=run.held_at,
            end_at=min(run.free_at or ended.demand.until_at, ended.demand.until_at),
            label=run.reservation.removeprefix("r-"),
            colour=numbers[run.reservation],
        )
        for run in ended.runs
        if run.reservation is not None
    ]
    drawn = draw(
        bars,
        row_labels=[f"GPU {gpu}" for gpu in range(ended.gpus)],
        from_at=ended.demand.first_at,
        until_at=ended.demand.until_at,
        columns=columns,
        show_hour=show_hour,
        shades=[shade for window in ended.windows for shade in _shades(window)],
    )
    return Text(drawn.plain, spans=_joined(drawn.spans))


def _joined(spans: list[Span]) -> list[Span]:
    """Join neighbours of one style: a drawing with a style for each character is ten times as large."""
    joined: list[Span] = []
    for span in spans:
        if joined and joined[-1].end == span.start and joined[-1].style == span.style:
            joined[-1] = Span(joined[-1].start, span.end, span.style)
        else:
            joined.append(span)
    return joined


def _shades(window: Window) -> Iterable[Shade]:
    closed = window.closed_span
    if closed is not None:
        yield Shade(start_at=closed.start_at, end_at=closed.end_at, label=window.name)
    if window.state is WindowState.RELEASED and window.gift_from_at is not None:
        yield Shade(start_at=window.gift_from_at, end_at=window.end_at, label="released")


def _summary(ended: Ended) -> Table:
    numbers = ended.numbers
    late_s = numbers.late_s
    in_time = (
        "all in time" if not any(late_s) else "late " + " / ".join(f"{s} s" for s in late_s) + " (p50 / p95 / most)"
    )
    put_off = f"; {numbers.promises_told} put off by a fault, and told" if numbers.promises_told else ""
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", style="bold")
    table.add_column()
    rows = (
        (numbers.reservations, f"reservations promised; {numbers.started} started, {numbers.by_policy} for the policy"),
        (
            f"{numbers.promises_kept} of {numbers.promises}",
            f"promises kept, {in_time}{put_off}; {numbers.promises_open} more are for later than these two days",
        ),
        (
            f"{numbers.swaps_to_night} + {numbers.swaps_back}",
            "swaps: from tenants to one 16-GPU machine for the night, and back",
        ),
        (
            numbers.parkings.parked,
            f"times a guest was parked; {numbers.parkings.resumed} resumed,"
            f" {numbers.parkings.resumed_on_other_block} of them on another block",
        ),
        (numbers.gpu_conflicts, "GPUs in two VMs at once"),
        (numbers.disks_lost, "disks lost"),
        (f"{_held_share(ended):.0%}", "of all GPU time held by VMs"),
    )
    for number, what in rows:
        table.add_row(str(number), what)
    return table


def _held_share(ended: Ended) -> float:
    until_at = ended.demand.until_at
    held_s = sum(len(r.gpus) * (min(r.free_at or until_at, until_at) - r.held_at) for r in ended.runs)
    return held_s / (ended.gpus * (until_at - ended.demand.first_at))


def _speeds(ended: Ended) -> Text:
    ran_s = sum(machine_s for _, machine_s, _ in ended.speeds)
    parts = [
        f"{name} for {machine_s:.0f} s ({machine_s / max(ran_s, 0.001):.0%}; {product_s / 3600:.1f} h went by)"
        for name, machine_s, product_s in ended.speeds
    ]
    slow = 1 - ended.too_fast_s / max(ended.changing_s, 1)
    return Text(
        f"\nSpeeds: {', '.join(parts)}. Of the time in which VMs started and stopped {slow:.1%} went by at most at"
        f" 120×. {ended.seconds:.0f} s in all, start and stop included."
    )


def _wrong(ended: Ended) -> Iterable[str]:
    yield from (f"refused: {line}" for line in ended.refused)
    yield from (f"trouble: {line}" for line in ended.troubles)
    yield from (f"{finding.kind.value}: {finding.sentence}" for finding in ended.audit.findings)
