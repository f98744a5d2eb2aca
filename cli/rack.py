"""`nightshift rack`: what really happened on an installation's simulated hosts. Reads their files, changes nothing."""

import json
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from cli.output import complain
from scheduler.core.errors import NightshiftError
from scheduler.core.spans import utc_text
from workers.drivers.simulated.log import LogLine, read_file
from workers.drivers.simulated.schema import rack_path

app = typer.Typer(help="Look at the simulated hosts of an installation.", no_args_is_help=True)

_SUFFIX = ".rack.sqlite"


@app.callback()
def rack() -> None:
    """Look at the simulated hosts of an installation."""


@app.command(
    "log",
    epilog="Examples: `nightshift rack log --data ./night --host dgx2-a` · "
    "`nightshift rack log --data ./night --json | jq -r .what | sort | uniq -c`",
)
def show_log(
    data: Annotated[Path, typer.Option(help="The data directory of the installation.", envvar="NIGHTSHIFT_DATA")],
    host: Annotated[str | None, typer.Option(help="Only this host; all of them if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    after: Annotated[int, typer.Option(help="Only lines with a greater number.", min=0)] = 0,
) -> None:
    """Show what happened on the hosts, oldest first: who held which GPUs and when, whatever anyone believed."""
    try:
        lines = _lines(data, host, after)
    except NightshiftError as error:
        _fail(error.message)
    if as_json:
        for name, line in lines:
            typer.echo(json.dumps({"host": name, **json.loads(line.as_json())}))
        return
    table = Table("host", "#", "at", "what", "vm", "gpus", "detail", box=None, header_style="bold")
    for name, line in lines:
        table.add_row(
            name,
            str(line.seq),
            utc_text(line.at),
            line.what,
            "" if line.name is None else f"{line.name} g{line.generation}" if line.generation else line.name,
            _gpus_text(line.gpus),
            " ".join(f"{key}={value}" for key, value in line.detail),
        )
    Console().print(table)


def _lines(data: Path, host: str | None, after: int) -> list[tuple[str, LogLine]]:
    """Return the lines of one host or of all, in order of time."""
    if not data.is_dir():
        _fail(f"no such directory: {data}; give the data directory of an installation with --data")
    known = sorted(path.name.removesuffix(_SUFFIX) for path in (data / "racks").glob(f"*{_SUFFIX}"))
    if host is not None and host not in known:
        _fail(f"no simulated host {host} in {data}; there are: {', '.join(known) or 'none'}")
    if not known:
        _fail(f"no simulated hosts in {data}")
    hosts = known if host is None else [host]
    lines = [(name, line) for name in hosts for line in read_file(rack_path(data, name), after_seq=after)]
    return sorted(lines, key=lambda row: (row[1].at, row[0], row[1].seq))


def _gpus_text(gpus: tuple[int, ...]) -> str:
    """Write GPU indices shortly: `0-3`, or `0,2`."""
    if len(gpus) > 1 and gpus == tuple(range(gpus[0], gpus[-1] + 1)):
        return f"{gpus[0]}-{gpus[-1]}"
    return ",".join(str(gpu) for gpu in gpus)


def _fail(message: str) -> NoReturn:
    complain(message)
    raise typer.Exit(2)
