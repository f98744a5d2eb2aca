"""`nightshift demo`: two days on one simulated DGX-2, on the real processes, in a few minutes.

Holds the command. What it runs is in `demonstration`, which needs the server's parts.
"""

import io
import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from cli.output import EXIT_NO, EXIT_USAGE, complain, console, missing_server_parts
from cli.written import check_writable, write

if TYPE_CHECKING:
    from cli.demonstration.report import Ended
    from cli.demonstration.running import Demonstration
    from cli.demonstration.screen import Hours

ZONE = "Europe/Berlin"
"""Of the policy that ships."""
EXIT_INTERRUPTED = 130
_DRAWN_COLUMNS = 160
_FETCHED_FONT = re.compile(r"@font-face\s*\{.*?\}\s*", re.DOTALL)


def demo(
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the numbers as JSON to this file.", show_default=False)
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Write picture and summary as an SVG to this file.", show_default=False)
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="Run in this new directory and keep it: database, rack, logs.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed: other owners, asks and durations.")] = 1,
) -> None:
    """Run two days on one simulated DGX-2 with the real processes, in about three minutes, and audit them.

    A dozen students ask through the API for what people asked for in the busiest two days of a recorded trace; a policy
    asks for the nights. Time goes fast through quiet stretches, at most 120 times while anything happens. At the end an
    auditor holds the host's own log against what the students were told.

    Examples:

      nightshift demo

      nightshift demo --json demo.json --picture demo.svg

      nightshift demo --keep ./two-days && nightshift rack log --data ./two-days
    """
    for path in (json_file, picture):
        if path is not None:
            check_writable(path)
    try:
        from cli.demonstration.demand import two_days
        from cli.demonstration.report import preface, show
        from cli.demonstration.running import Demonstration
        from cli.demonstration.screen import Hours, screen_for
    except ImportError as error:
        if error.name and error.name.split(".")[0] in ("cli", "scheduler", "workers", "policies"):
            raise
        raise typer.Exit(missing_server_parts(error)) from None
    demand = two_days(seed=seed, zone=ZoneInfo(ZONE))
    hours = Hours(zone=ZoneInfo(ZONE), near_at=demand.first_at)
    out = console()
    screen = screen_for(out, hours)
    screen.say(preface(demand))
    data, is_kept = _made_directory(keep), True
    try:
        with _own_umask():
            demonstration = Demonstration(data=data, demand=demand, screen=screen, show=hours)
            with _stopping(demonstration), screen:
                ended = demonstration.run()
        wrong = [] if ended is None else _failures(ended)
        is_kept = keep is not None or bool(wrong)
    finally:
        # What went wrong is looked for in the logs.
        if not is_kept:
            shutil.rmtree(data, ignore_errors=True)
    if ended is None:
        complain("stopped before the two days were over; nothing runs on")
        raise typer.Exit(EXIT_INTERRUPTED)
    show(ended, out, hours)
    if json_file is not None:
        write(json_file, json.dumps(ended.numbers.as_json(seconds=ended.seconds), indent=1) + "\n")
    if picture is not None:
        _draw(picture, ended, hours)
    if wrong:
        for line in wrong:
            complain(line)
        complain(f"what the two days left, logs and all, is in {data}")
        raise typer.Exit(EXIT_NO)


def _failures(ended: "Ended") -> list[str]:
    """Return why the demonstration failed, a line each; nothing when it did not."""
    from cli.demonstration.counting import missing

    return [*(finding.sentence for finding in ended.audit.findings), *missing(ended.numbers)]


def _made_directory(keep: Path | None) -> Path:
    """Make the data directory: the one that was named, which must be new, or a temporary one."""
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="nightshift-demo-"))
    try:
        keep.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        complain(f"--keep {keep} is there already; name a directory that is not, so that no earlier run is mixed in")
    except OSError as error:
        complain(f"--keep {keep} cannot be made: {error.strerror}")
    else:
        return keep.absolute()
    raise typer.Exit(EXIT_USAGE)


@contextmanager
def _own_umask() -> Iterator[None]:
    """Undo what the supervisor does to the mode of new files: what we write afterwards is the user's to share."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def _stopping(demonstration: "Demonstration") -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end it in order."""

    def asked(_: int, __: Any) -> None:
        demonstration.ask_to_stop()

    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _draw(path: Path, ended: "Ended", hours: "Hours") -> None:
    from rich.console import Console

    from cli.demonstration.report import show

    paper = Console(
        width=_DRAWN_COLUMNS,
        file=io.StringIO(),
        record=True,
        highlight=False,
        color_system="truecolor",
        force_terminal=True,
    )
    show(ended, paper, hours)
    # The drawing would fetch its font from elsewhere whenever somebody looks at it.
    drawn = _FETCHED_FONT.sub("", paper.export_svg(title="nightshift demo"))
    write(path, drawn.replace("Fira Code", "DejaVu Sans Mono"))
