"""`nightshift doctor`: is everything alive that should be, and what to do about what is not."""

import typer
from rich.table import Table
from rich.text import Text

from cli.client import Json, as_text
from cli.connecting import AsJson, Connection, tables, with_server
from cli.output import EXIT_NO
from cli.times import Times

EXAMPLES = "Example:\n\n  nightshift doctor"


def doctor(connection: Connection, as_json: AsJson = False) -> None:
    """Check that everything is alive, and say what to do.

    Database, Redis, planning, worker, ticker, clock, policy and every host. Ends with 1 if something is wrong.
    """
    answer = connection.client.get("/doctor")
    checks: list[Json] = list(answer["checks"])
    wrong = [check for check in checks if not check["ok"]]
    if as_json:
        print(as_text(answer))
    else:
        address = connection.client.address
        print(f"{address.url} (from {address.source}) answers.")
        tables().print(_table(checks, connection.times()))
        print("All is well." if not wrong else f"{len(wrong)} of {len(checks)} checks failed.")
    if wrong:
        raise typer.Exit(EXIT_NO)


def _table(checks: list[Json], times: Times) -> Table:
    shown = Table.grid(padding=(0, 2))
    shown.add_column(no_wrap=True)
    shown.add_column(no_wrap=True)
    shown.add_column()
    for check in checks:
        is_ok = bool(check["ok"])
        detail = Text(times.in_text(str(check.get("detail") or "")))
        if not is_ok and check.get("remedy"):
            detail.append(f"\n→ {check['remedy']}", style="bold")
        mark = Text("ok", style="green") if is_ok else Text("FAILED", style="bold red")
        shown.add_row(mark, Text(str(check["name"])), detail)
    return shown


def mount(app: typer.Typer, panel: str) -> None:
    """Add the command to the command line."""
    app.command("doctor", rich_help_panel=panel, epilog=EXAMPLES)(with_server(doctor))
