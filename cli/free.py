"""`nightshift free`: which sizes one could have now, or by when."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cli.client import Json, as_text, reasons_of
from cli.connecting import AsJson, Connection, tables, with_server
from cli.times import Times, hours_text, instant, instant_in, read_duration_s

EXAMPLES = "Examples:\n\n  nightshift free\n\n  nightshift free --for 8h"


def free(
    connection: Connection,
    run_for: Annotated[str, typer.Option("--for", "-f", metavar="TIME", help="For how many hours.")] = "1h",
    as_json: AsJson = False,
) -> None:
    """Show what is free now, and what by when.

    For each size: how many are free now, and by when one would be promised to run.
    """
    run_s = read_duration_s(run_for, option="--for")
    answer = connection.client.get("/free", run_s=run_s)
    if as_json:
        print(as_text(answer))
        return
    times = connection.times(answer)
    print(f"For {hours_text(run_s)}, asked for at {times.show(times.now)}:\n")
    sizes = list(answer["sizes"])
    tables().print(_table(sizes, times))
    shared = _shared_cause(sizes)
    if shared:
        print(f"\nNo size can be promised: {times.in_text(shared)}")
    for size in sizes:
        said = [times.in_text(str(reason.get("sentence", ""))) for reason in reasons_of(size)]
        if not shared and not size.get("promise") and said:
            print(f"\n{size['gpus']} GPU{'' if size['gpus'] == 1 else 's'}: {'; '.join(said)}")
    best = next((size for size in sizes if size.get("promise")), None)
    if best is not None:
        print(f"\nNext: nightshift reserve --gpus {best['gpus']} --for {run_for}")


def _shared_cause(sizes: list[Json]) -> str:
    """Return what keeps every size from being promised; empty where one is, or where they differ in it.

    A reason that names a number of GPUs tells of one size that it fits nowhere, and not what is in its way.
    """
    if len(sizes) < 2 or any(size.get("promise") for size in sizes):
        return ""
    causes = {
        "; ".join(str(why.get("sentence", "")) for why in reasons_of(size) if "gpus" not in (why.get("facts") or {}))
        for size in sizes
    }
    return causes.pop() if len(causes) == 1 else ""


def _table(sizes: list[Json], times: Times) -> Table:
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    shown.add_column("GPUs", justify="right")
    shown.add_column("queue", no_wrap=True)
    shown.add_column("free now", justify="right")
    shown.add_column("running by", no_wrap=True)
    shown.add_column("likely", no_wrap=True)
    for size in sizes:
        promise = size.get("promise")
        likely_at = instant_in(size, "likely_start_at")
        free_now = int(size.get("free_now") or 0)
        by = times.show_near(instant(promise["start_by_at"])) if isinstance(promise, dict) else "-"
        shown.add_row(
            str(size["gpus"]),
            Text(str(size.get("queue") or "")),
            Text(str(free_now), style="green" if free_now else "dim"),
            Text(by, style="green" if free_now and promise else ""),
            Text("" if likely_at is None else times.show(likely_at)),
        )
    return shown


def mount(app: typer.Typer, panel: str) -> None:
    """Add the command to the command line."""
    app.command("free", rich_help_panel=panel, epilog=EXAMPLES)(with_server(free))
