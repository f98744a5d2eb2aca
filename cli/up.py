"""`nightshift up`: a whole Nightshift on this machine, in the foreground. Puts its parts together, and tells of it.

What is kept running, and how, is in `stack`.
"""

import os
import shlex
import signal
import sys
import time
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.first_start import parse_host, parse_rack
from cli.installation import DATA, DEFAULT_PORT, Installation
from cli.stack import TEND_EVERY_S, Stack, StartStopped, installed_version

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def up(
    data: Annotated[
        Path | None,
        typer.Option(envvar=DATA, help="The data directory; your user's own if not given.", show_default=False),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port of the API; 0 takes a free one.")
    ] = DEFAULT_PORT,
    speed: Annotated[float, typer.Option(help="How many seconds pass in one; not for real hosts.")] = 1.0,
    rack: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PROFILE", help="Have this simulated host. May be repeated; dgx2-a=dgx-2 at first."),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PROFILE@URI", help="Have this host, reached over libvirt. May be repeated."),
    ] = None,
) -> None:
    """Run database, Redis, worker, ticker and API on this machine until Ctrl-C. Everything is kept for the next start.

    Listens on this machine only. A second Ctrl-C ends it at once.
    """
    racks = tuple(parse_rack(text) for text in rack or ())
    real = tuple(parse_host(text) for text in host or ())
    screen = _Screen(_LastingConsole(highlight=False))
    stack = Stack(Installation.found(data), port=port, speed=speed, racks=racks, real=real, on_line=screen.tell)

    def asked(_number: int, _frame: FrameType | None) -> None:
        stack.ask_to_stop()

    before = {number: signal.signal(number, asked) for number in _SIGNALS}
    try:
        _run(stack, screen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(stack: Stack, screen: "_Screen") -> None:
    screen.tell("starting; this takes a few seconds")
    try:
        stack.start()
    except StartStopped as stopped:
        screen.tell(stopped.message)
        return
    try:
        screen.show(stack)
        while not stack.is_stop_asked:
            stack.tend()
            time.sleep(TEND_EVERY_S)
        screen.tell("stopping; Ctrl-C again ends it at once")
    finally:
        stack.stop()
    screen.tell("stopped; everything is kept for the next start")


class _LastingConsole(Console):
    """Writes nowhere once its reader has gone: what runs must not end because nobody watches."""

    def on_broken_pipe(self) -> None:
        mute()


def mute() -> None:
    """Let what is still printed go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


class _Screen:
    """What people see: who is up and where, then one line for each thing that happens."""

    def __init__(self, out: Console) -> None:
        self._out = out

    def tell(self, line: str) -> None:
        """Write one line, with the time of the day."""
        at = datetime.now().astimezone().strftime("%H:%M:%S")
        self._print(f"[dim]{at}[/dim] {escape(line)}")

    def show(self, stack: Stack) -> None:
        """Show where everything is, and what to type next."""
        for line in stack.first_start_lines:
            self.tell(line)
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for name, value in facts_of(stack):
            table.add_row(name, escape(value))
        commands = next_commands(stack.installation, os.environ.get(DATA))
        self._print(f"\n[bold]Nightshift {installed_version()}[/bold] is up at [bold]{stack.url}[/bold]\n")
        self._print(table)
        self._print("\n[bold]try[/bold]  " + escape("\n     ".join(commands)))
        self._print("\nCtrl-C stops it.\n")

    def _print(self, what: str | Table) -> None:
        try:
            self._out.print(what, soft_wrap=True)
            self._out.file.flush()
        except OSError:
            # The terminal went away, as with SIGHUP; what runs is ended in order all the same.
            mute()


def facts_of(stack: Stack) -> tuple[tuple[str, str], ...]:
    """Return what to know of a Nightshift that is up, as names and values."""
    plan = stack.parts.plans.current()
    hosts = ", ".join(
        f"{host.id} ({host.profile.name}, {host.connect or 'simulated'})" for _, host in sorted(plan.hosts.items())
    )
    rules = plan.rules
    token = stack.installation.admin_token_file
    redis = stack.redis_program
    return (
        ("data", str(stack.installation.data)),
        ("admin token", str(token) if token.exists() else "taken away; who has it uses it with NIGHTSHIFT_TOKEN"),
        ("hosts", hosts or "none; add one with --rack NAME=PROFILE"),
        ("policy", "none" if rules is None else f"version {rules.version}, {rules.source}, zone {rules.zone}"),
        ("time", "real" if stack.speed == 1 else f"{stack.speed:g} seconds in one; stands still while this is down"),
        ("redis", stack.installation.redis_url if redis is None else f"by {redis.source}"),
        ("logs", str(stack.installation.logs)),
    )


def next_commands(installation: Installation, named_data: str | None) -> tuple[str, ...]:
    """Return commands to try in another terminal, which find this installation as they stand."""
    is_default = named_data is None and Installation.found().data == installation.data
    first = () if is_default else (f"export {DATA}={shlex.quote(str(installation.data))}",)
    return (*first, "nightshift free", "nightshift reserve --gpus 2 --for 3h", "nightshift calendar")
