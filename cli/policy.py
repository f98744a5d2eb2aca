"""`nightshift policy check`: what authors of policy files run on their own machine; no server is asked."""

import json
import time
from datetime import UTC, date, datetime
from datetime import time as clock_time
from pathlib import Path
from typing import Annotated, NoReturn
from zoneinfo import ZoneInfo

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from policies.checks import check_policy, errors_of
from policies.document import MOST_BYTES
from policies.filings import FilingTime, filing_times
from policies.format import LoadedPolicy
from policies.loading import load_policy
from policies.occurrences import instant_of
from policies.problems import Problem
from policies.units import duration_text
from policies.windows import WindowTime, local_text, window_times, zone_of
from scheduler.core.spans import DAY_S, Instant

FOUND_ERRORS = 1
UNREADABLE = 2
MIDNIGHT = clock_time()
_WIDTH_OF_FILES = 140

app = typer.Typer(name="policy", help="Check policy files, apply them, see what holds.", no_args_is_help=True)


@app.callback()
def policy_commands() -> None:
    """Check policy files, apply them, see what holds."""


@app.command(
    "check",
    epilog="Examples:\n\n  nightshift policy check university.yaml\n\n"
    "  nightshift policy check university.yaml --days 30",
)
def check(
    file: Annotated[Path, typer.Argument(help="The policy file, YAML.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    days: Annotated[int, typer.Option(min=1, max=366, help="How many days to show.")] = 7,
    from_date: Annotated[
        str, typer.Option("--from", metavar="YYYY-MM-DD", help="Show and check from this day on; today by default.")
    ] = "",
) -> None:
    """Print every problem in a policy file, or what it would do in the next days.

    Ends with 0 if the file is fine, 1 if it has errors, 2 if it cannot be read.
    """
    text = read_policy_text(file, as_json=as_json)
    first_day = _date(from_date, as_json)
    policy = load_policy(text, source=str(file))
    if isinstance(policy, tuple):
        _finish_with(policy, file, as_json)
    zone = zone_of(policy)
    from_at = int(time.time()) if first_day is None else instant_of(datetime.combine(first_day, MIDNIGHT), zone)
    problems = check_policy(policy, from_at=from_at)
    if errors_of(problems):
        _finish_with(problems, file, as_json)
    until_at = from_at + days * DAY_S
    windows = window_times(policy, from_at=from_at, until_at=until_at)
    filings = filing_times(policy, from_at=from_at, until_at=until_at)
    if as_json:
        print(json.dumps(_as_json(file, problems, windows, filings), indent=2))
        return
    for problem in problems:
        print(problem)
    _show(policy, file, days, windows, filings)


def read_policy_text(file: Path, *, as_json: bool) -> str:
    """Return the text of a policy file; ends the command with one line if that cannot be."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except FileNotFoundError:
        _unreadable(file, "there is no such file", as_json)
    except IsADirectoryError:
        _unreadable(file, "this is a directory; name a policy file in it", as_json)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        _unreadable(file, f"cannot be read: {reason}", as_json)
    if len(content) > MOST_BYTES:
        _unreadable(file, "the file is larger than 1 MiB; a policy is a few pages long", as_json)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _unreadable(file, f"this is not a text file: byte {error.start} is not UTF-8", as_json)
    if "\0" in text:
        _unreadable(file, f"this is not a text file: byte {content.index(0)} is zero", as_json)
    return text


def _date(text: str, as_json: bool) -> date | None:
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        _unreadable(Path("--from"), f"{text!r} is not a date; write YYYY-MM-DD", as_json)
    if not 1971 <= day.year <= 9000:
        _unreadable(Path("--from"), f"{text!r} is out of range; use a year from 1971 to 9000", as_json)
    return day


def _unreadable(file: Path, what: str, as_json: bool) -> NoReturn:
    if as_json:
        print(json.dumps({"file": str(file), "ok": False, "unreadable": what, "problems": []}, indent=2))
    else:
        typer.echo(f"{file if str(file).isprintable() else repr(str(file))}: {what}", err=True)
    raise typer.Exit(UNREADABLE)


def _finish_with(problems: tuple[Problem, ...], file: Path, as_json: bool) -> NoReturn:
    if as_json:
        report = {"file": str(file), "ok": False, "problems": [_problem_as_json(problem) for problem in problems]}
        print(json.dumps(report, indent=2))
    else:
        for problem in problems:
            print(problem)
    raise typer.Exit(FOUND_ERRORS)


def _show(
    policy: LoadedPolicy, file: Path, days: int, windows: tuple[WindowTime, ...], filings: tuple[FilingTime, ...]
) -> None:
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        # What goes into a file or a pipe is not folded at 80 columns.
        console = Console(highlight=False, markup=False, width=_WIDTH_OF_FILES)
    console.print(f"{file}: no errors. Times below are {policy.zone} and UTC, for {days} days.", soft_wrap=True)
    console.print(_windows_table(windows, zone_of(policy)) if windows else "No window opens.")
    console.print(_filings_table(filings, zone_of(policy)) if filings else "The policy itself reserves nothing.")


def _windows_table(windows: tuple[WindowTime, ...], zone: ZoneInfo) -> Table:
    table = _table("Windows", ("window", "opens", "closes", "UTC", "decided", "hosts"))
    for window in windows:
        table.add_row(
            window.entry.name,
            local_text(window.start_at, zone),
            local_text(window.end_at, zone),
            f"{_utc(window.start_at)} – {_utc(window.end_at)}",
            local_text(window.decide_at, zone),
            ", ".join(window.entry.hosts),
        )
    return table


def _filings_table(filings: tuple[FilingTime, ...], zone: ZoneInfo) -> Table:
    table = _table("Reservations of the policy", ("name", "starts", "UTC", "for", "GPUs", "queue", "owner", "filed"))
    for filing in filings:
        entry, at = filing.entry, filing.occurrence.at
        table.add_row(
            entry.name,
            local_text(at, zone),
            _utc(at),
            duration_text(entry.run_s),
            f"{entry.count} × {entry.gpus}" if entry.count > 1 else str(entry.gpus),
            entry.queue,
            entry.owner,
            local_text(at - entry.ahead_s, zone),
        )
    return table


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _utc(instant: Instant) -> str:
    return f"{datetime.fromtimestamp(instant, UTC):%m-%d %H:%MZ}"


def _as_json(
    file: Path, problems: tuple[Problem, ...], windows: tuple[WindowTime, ...], filings: tuple[FilingTime, ...]
) -> dict[str, object]:
    return {
        "file": str(file),
        "ok": True,
        "problems": [_problem_as_json(problem) for problem in problems],
        "windows": [
            {
                "id": window.id,
                "layout": window.entry.layout.name,
                "hosts": list(window.entry.hosts),
                "start_at": _iso(window.start_at),
                "end_at": _iso(window.end_at),
                "decide_at": _iso(window.decide_at),
                "local_start": window.local_start.isoformat(timespec="minutes"),
                "local_end": window.local_end.isoformat(timespec="minutes"),
            }
            for window in windows
        ],
        "reservations": [
            {
                "name": filing.entry.name,
                "start_at": _iso(filing.occurrence.at),
                "local_start": filing.occurrence.local_text,
                "run_s": filing.entry.run_s,
                "count": filing.entry.count,
                "gpus": filing.entry.gpus,
                "queue": filing.entry.queue,
                "owner": filing.entry.owner,
            }
            for filing in filings
        ],
    }


def _problem_as_json(problem: Problem) -> dict[str, object]:
    return {
        "severity": problem.severity.value,
        "file": problem.place.file,
        "line": problem.place.line,
        "column": problem.place.column,
        "what": problem.what,
        "value": problem.value,
        "instead": problem.instead,
        "message": problem.message,
    }


def _iso(instant: Instant) -> str:
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
