"""`nightshift simulate`: two days and a night of recorded demand on one simulated host, in virtual time, in seconds.

The real plan task, converge, store and rack; only time is virtual. What is shown is what the rack's log says ran.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
from rich.progress import BarColumn, Progress, TextColumn

from cli.output import EXIT_USAGE, complain, console, missing_server_parts
from cli.recorded import Arrival, arrivals, busiest, read_trace, wide_arrivals
from policies.units import parse_duration_s
from scheduler.core.spans import DAY_S, HOUR_S, Instant

STRETCH_S = 36 * HOUR_S
"""Two days and the night between: 08:00 to 20:00 of the next day."""

FIRST_YEAR, LAST_YEAR = 1971, 2900

WIDE_SIZES = (8, 8, 16, 16)
"""What the trace lacks, added by seed: tenants with half a machine, and batch work for the night."""


def simulate(
    policy: Annotated[
        Path | None, typer.Option(help="A policy file; by default the example that ships.", show_default=False)
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Another trace: CSV with submit_s,gpus,duration_s,user.", show_default=False)
    ] = None,
    start: Annotated[str, typer.Option(help="The first day, in the policy's zone.")] = "2026-03-02",
    cap: Annotated[str, typer.Option(help="The longest running time that anybody asks for.")] = "4h",
    seed: Annotated[int, typer.Option(help="Another seed: other owners, asks and durations.")] = 1,
    data: Annotated[
        Path | None,
        typer.Option(help="Keep database and rack in this new directory, for `rack log`.", show_default=False),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write everything as JSON to this file.", show_default=False)
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Also write what is shown as an SVG to this file.", show_default=False)
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Columns to draw in; by default the terminal's.", min=60, max=400)
    ] = None,
) -> None:
    """Run two days and a night of recorded demand on one simulated DGX-2, in virtual time.

    Everything that decides and acts is real: plan, database, converge, policy. Time and the hardware are simulated.

    Examples:

      nightshift simulate

      nightshift simulate --seed 7 --cap 8h --picture night.svg
    """
    try:
        from cli.simulation import Simulation, load_checked_policy
        from cli.simulation_report import show
    except ImportError as error:
        if error.name and error.name.split(".")[0] in ("cli", "scheduler", "workers", "policies"):
            raise
        raise typer.Exit(missing_server_parts(error)) from None
    loaded = load_checked_policy(policy)
    zone = ZoneInfo(loaded.zone)
    first_at = _first_instant(start, zone)
    cap_s = _duration(cap)
    jobs = busiest(read_trace(trace), STRETCH_S)
    demand = _demand(jobs_start_at=first_at, jobs=jobs, cap_s=cap_s, seed=seed)
    if data is not None:
        _make_directory(data)
    simulation = Simulation(policy=loaded, demand=demand, first_at=first_at, seed=seed, data=data)
    until_at = first_at + STRETCH_S
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[clock]}"), transient=True
    ) as progress:
        bar = progress.add_task("virtual time", total=until_at - first_at, clock="")

        def moved(now: Instant) -> None:
            progress.update(bar, completed=now - first_at, clock=f"{datetime.fromtimestamp(now, zone):%a %H:%M}")

        result = simulation.run(until_at, moved)
    out = console(width=width)
    out.record = picture is not None
    show(result, out, zone=zone, cap=cap, trace=str(trace) if trace else "Microsoft Philly trace")
    if json_file is not None:
        _write(json_file, json.dumps(result.as_json(), indent=1) + "\n")
    if picture is not None:
        _write(picture, out.export_svg(title=f"nightshift simulate --seed {seed}"))


def _demand(*, jobs_start_at: Instant, jobs: Any, cap_s: int, seed: int) -> tuple[Arrival, ...]:
    recorded = arrivals(jobs, start_at=jobs_start_at, length_s=STRETCH_S, cap_s=cap_s, largest=8, seed=seed)
    added = wide_arrivals(start_at=jobs_start_at, length_s=STRETCH_S, sizes=WIDE_SIZES, seed=seed)
    return tuple(sorted((*recorded, *added), key=lambda a: (a.at, a.gpus, a.owner)))


def _first_instant(start: str, zone: ZoneInfo) -> Instant:
    try:
        day = datetime.strptime(start, "%Y-%m-%d").replace(hour=8, tzinfo=zone)
        if not FIRST_YEAR <= day.year <= LAST_YEAR:
            raise ValueError(f"{day.year} is out of range")
        return int(day.timestamp())
    except (ValueError, OverflowError):
        years = f"{FIRST_YEAR} to {LAST_YEAR}"
        complain(f"--start {start!r} is not a day of the years {years}; write it like 2026-03-02")
        raise typer.Exit(EXIT_USAGE) from None


def _duration(text: str) -> int:
    seconds = parse_duration_s(text)
    if seconds is None or not HOUR_S // 4 <= seconds <= 10 * DAY_S:
        complain(f"--cap {text!r} is not a duration from 15m to 10d; write it like 4h or 90m")
        raise typer.Exit(EXIT_USAGE)
    return seconds


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        complain(f"--data {path} is there already; name a directory that is not, so that no earlier run is mixed in")
        raise typer.Exit(EXIT_USAGE) from None
    except OSError as error:
        complain(f"--data {path} cannot be made: {error.strerror}")
        raise typer.Exit(EXIT_USAGE) from None


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        complain(f"cannot write {path}: {error.strerror}; give a path in a directory that exists and is yours")
        raise typer.Exit(EXIT_USAGE) from None
