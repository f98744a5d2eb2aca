"""`nightshift policy diff`: what a policy would change on a server, before it is applied."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cli.client import Json, Problem, as_text, reasons_of
from cli.connecting import AsJson, Connection, tables, with_server
from cli.output import EXIT_NO, EXIT_USAGE, complain
from cli.policy import read_policy_text
from cli.policy_problems import line_in
from cli.policy_server import policy_on_server
from cli.times import Times, instant, instant_in
from scheduler.core.spans import MINUTE_S

MOST_ROWS = 40
"""So many rows of a table are printed; `--json` has them all."""


def diff(
    connection: Connection,
    file: Annotated[
        Path | None,
        typer.Argument(
            help="The policy file, YAML, or a directory of them; otherwise the policy that holds.", show_default=False
        ),
    ] = None,
    applied: Annotated[
        bool, typer.Option("--applied", help="The policy that holds: what new time zone or holiday data would move.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a policy would change if it were applied now: windows, bookings, promises. Nothing is changed.

    Ends with 0 if nothing would change, 1 if something would, if it would break a promise, or if it has errors.
    """
    if file is not None and applied:
        complain("give a policy file, or --applied for the policy that holds, not both")
        raise typer.Exit(EXIT_USAGE)
    read = policy_on_server(connection) if file is None else read_policy_text(file, as_json=as_json)
    named = file or Path(read.name)
    try:
        answer = connection.client.post("/policies/diff", {"text": read.text, "source": read.name})
    except Problem as problem:
        found = problem.document.get("problems")
        if not isinstance(found, list):
            raise
        if as_json:
            print(as_text(problem.document))
        else:
            for one in found:
                print(line_in(one, named))
        remedy = "" if file is None else f"; `nightshift policy check {file}` says the same without a server"
        complain(f"{named} has errors{remedy}")
        raise typer.Exit(EXIT_NO) from None
    if as_json:
        print(as_text(answer))
    else:
        for one in answer["problems"]:
            print(line_in(one, named))
        _show(answer, connection.times(answer), str(named), "--applied" if file is None else str(file))
    if not answer["is_empty"]:
        raise typer.Exit(EXIT_NO)


def _show(answer: Json, times: Times, named: str, argument: str) -> None:
    current = answer["current"]
    until = times.show(instant(answer["until_at"]))
    if answer["is_empty"]:
        print(f"{named} would change nothing of version {current}; windows were compared until {until}.")
        return
    against = "No policy is applied" if current is None else f"Compared with version {current}"
    print(f"{against}; windows until {until}. Nothing is changed.")
    if answer["rules"]:
        print(f"\nOther rules that differ: {', '.join(answer['rules'])}")
    if answer["windows"]:
        print("\nWindows")
        _print_rows(_window_table(), _window_rows(answer["windows"], times))
    if answer["bookings"]:
        print("\nBookings that move within their promise")
        _print_rows(_booking_table(), _booking_rows(answer["bookings"], times))
    if answer["broken"]:
        print("\nPromises that would break")
        shown = _table("reservation", "owner", "promised", "by an override", "why")
        _print_rows(shown, [_broken_row(one, times) for one in answer["broken"]])
        if not answer["is_broken_complete"]:
            print("… and more")
    if answer["owners_hit"]:
        print(f"\nTo be told: {', '.join(answer['owners_hit'])}")
    for reason in reasons_of(answer):
        print(f"\nRefused: {times.in_text(str(reason['sentence']))}")
    if reasons_of(answer):
        print("\nIt would not be applied.")
    elif answer["is_refused"]:
        print(
            f"\nIt would not be applied. Against those promises: nightshift policy apply {argument} --override REASON"
        )
    else:
        print(f"\nEvery promise holds. Next: nightshift policy apply {argument}")


def _table(*names: str) -> Table:
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in names:
        shown.add_column(name, justify="right" if name in ("start", "end", "times") else "left")
    return shown


def _print_rows(shown: Table, rows: list[list[str]]) -> None:
    for row in rows[:MOST_ROWS]:
        shown.add_row(*(Text(cell) for cell in row))
    tables().print(shown)
    if len(rows) > MOST_ROWS:
        print(f"… and {len(rows) - MOST_ROWS} more; --json has them all")


def _window_table() -> Table:
    return _table("window", "hosts", "", "times", "first before", "first after", "start", "end", "differs")


def _window_rows(changes: Iterable[Json], times: Times) -> list[list[str]]:
    """Return a row for all occurrences to which the same happens: a policy of nights has ninety of them."""
    rows: dict[tuple[object, ...], list[str]] = {}
    counts: dict[tuple[object, ...], int] = {}
    for one in changes:
        moves = (one["start_moves_s"], one["end_moves_s"])
        kind = _kind(one)
        key = (one["name"], tuple(one["hosts"]), kind, moves, tuple(one["differs"]))
        counts[key] = counts.get(key, 0) + 1
        rows.setdefault(
            key,
            [
                str(one["name"]),
                ", ".join(one["hosts"]),
                kind,
                "",
                _span(one, "before", times),
                _span(one, "after", times),
                _moved(moves[0]),
                _moved(moves[1]),
                ", ".join(one["differs"]),
            ],
        )
    return [[*row[:3], str(counts[key]), *row[4:]] for key, row in rows.items()]


def _kind(change: Json) -> str:
    if change["before_start_at"] is None:
        return "appears"
    if change["after_start_at"] is None:
        return "vanishes"
    return "moves" if change["start_moves_s"] or change["end_moves_s"] else "differs"


def _span(change: Json, side: str, times: Times) -> str:
    start_at, end_at = instant_in(change, f"{side}_start_at"), instant_in(change, f"{side}_end_at")
    return "" if start_at is None or end_at is None else f"{times.show(start_at)} to {times.show(end_at)}"


def _booking_table() -> Table:
    return _table("reservation", "owner", "GPUs", "before", "after", "start", "end", "host", "parts", "promised by")


def _booking_rows(changes: Iterable[Json], times: Times) -> list[list[str]]:
    return [
        [
            str(one["reservation"]),
            str(one["owner"]),
            str(one["gpus"]),
            _booking(one["before"], times),
            _booking(one["after"], times),
            _moved(one["start_moves_s"]),
            _moved(one["end_moves_s"]),
            _became(_hosts(one["before"]), _hosts(one["after"])),
            _became(str(len(one["before"])), str(len(one["after"]))),
            "" if one["promise"] is None else times.show(instant(one["promise"]["end_by_at"])),
        ]
        for one in changes
    ]


def _booking(spans: list[Json], times: Times) -> str:
    if not spans:
        return "nothing"
    return f"{times.show(instant(spans[0]['start_at']))} to {times.show(instant(spans[-1]['end_at']))}"


def _hosts(spans: list[Json]) -> str:
    return ", ".join(dict.fromkeys(str(span["host"]) for span in spans))


def _became(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"


def _broken_row(broken: Json, times: Times) -> list[str]:
    return [
        str(broken["reservation"]),
        str(broken["owner"]),
        _promise_text(broken["promise"], times),
        _promise_text(broken["after"], times) or "no place",
        times.in_text(str(broken["reason"]["sentence"])),
    ]


def _promise_text(promise: Json | None, times: Times) -> str:
    if promise is None:
        return ""
    return f"{times.show(instant(promise['start_by_at']))} to {times.show(instant(promise['end_by_at']))}"


def _moved(seconds: int | None) -> str:
    if not seconds:
        return ""
    return f"{seconds / MINUTE_S:+.0f} min" if abs(seconds) >= MINUTE_S else f"{seconds:+d} s"


def mount(app: typer.Typer) -> None:
    """Add the command to `nightshift policy`."""
    app.command(
        "diff",
        epilog="Examples:\n\n  nightshift policy diff university.yaml\n\n  nightshift policy diff policies.d --json"
        "\n\n  nightshift policy diff --applied",
    )(with_server(diff))
