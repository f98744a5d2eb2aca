"""The commands that need the server parts, named here and imported when they are called.

So the light client starts without them, lists them in its help, and says what to install. Each takes its own options.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import typer

from cli.output import fail, missing_server_parts
from scheduler.core.errors import NightshiftError

OWN_PACKAGES = frozenset({"api", "cli", "policies", "scheduler", "workers"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCommand:
    """A command of ours that is imported when it is called."""

    name: str
    module: str
    function: str
    help: str


RUN = (
    ServerCommand(name="up", module="cli.up", function="up", help="Run a whole Nightshift on this machine."),
    ServerCommand(
        name="init",
        module="cli.first_start",
        function="init",
        help="Prepare the database, first admin and policy.",
    ),
    ServerCommand(name="api", module="cli.api_process", function="api", help="Run the HTTP API alone."),
    ServerCommand(name="ticker", module="cli.ticker", function="ticker", help="Run a ticker alone."),
    ServerCommand(name="worker", module="cli.worker", function="worker", help="Run a worker alone."),
)
TRY = (
    ServerCommand(
        name="demo",
        module="cli.demo",
        function="demo",
        help="Two days on a simulated DGX-2, in a few minutes.",
    ),
)


def mount(app: typer.Typer, commands: tuple[ServerCommand, ...], panel: str) -> None:
    """Add commands to the command line under a panel of its help."""
    for command in commands:
        app.command(
            command.name,
            help=command.help,
            rich_help_panel=panel,
            add_help_option=False,
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
        )(_passing_on(command))


def _passing_on(command: ServerCommand) -> Callable[..., None]:
    def run(ctx: typer.Context) -> None:
        try:
            function = getattr(importlib.import_module(command.module), command.function)
            _run(function, command, ctx)
        except ImportError as error:
            if error.name is None or error.name.split(".")[0] in OWN_PACKAGES:
                raise
            raise typer.Exit(missing_server_parts(error)) from None
        except NightshiftError as error:
            raise typer.Exit(fail(error)) from None

    return run


def _run(function: Callable[..., Any], command: ServerCommand, ctx: typer.Context) -> None:
    own = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    own.command(command.name)(function)
    parsed = typer.main.get_command(own)
    with parsed.make_context(command.name, list(ctx.args), parent=ctx.parent) as inner:
        parsed.invoke(inner)
