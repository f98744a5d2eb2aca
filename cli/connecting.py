"""Gives a command its connection: adds `--server`, `--token` and `--insecure` to it, and ends it with our exit codes.

A command is written as a function whose first parameter is a `Connection`; Typer sees the three options instead.
"""

import functools
import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, Concatenate, ParamSpec
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer
from rich.console import Console

from cli.address import ENV_SERVER, ENV_TOKEN, Address, find_address
from cli.client import Client, Json, Problem, Surroundings, as_text
from cli.output import complain, console, fail
from cli.times import Times, durations_in_text, instant
from scheduler.core.errors import NightshiftError

P = ParamSpec("P")

_PANEL = "Which server"
_WIDTH_OF_FILES = 140
COMPLETION_S = 1.0
"""How long a shell waits for names before it goes without."""

AsJson = Annotated[bool, typer.Option("--json", help="Print the server's answer as JSON.")]


class Connection:
    """The server that a command speaks to, its clock, and how the command was called."""

    def __init__(self, address: Address, surroundings: Surroundings, *, answer_s: float | None = None) -> None:
        self.surroundings = surroundings
        self.client = (
            Client(address, surroundings) if answer_s is None else Client(address, surroundings, answer_s=answer_s)
        )
        self._me: Json | None = None

    def me(self) -> Json:
        """Return who speaks, and the server's now and zone; asked once."""
        if self._me is None:
            self._me = self.client.get("/me")
        return self._me

    @property
    def is_admin(self) -> bool:
        return self.me().get("role") == "admin"

    def times(self, answer: Json | None = None) -> Times:
        """Return the server's now and zone; `answer`: one that names a newer now."""
        me = self.me()
        try:
            zone = ZoneInfo(str(me["zone"]))
        except (KeyError, ValueError, OSError, ZoneInfoNotFoundError):
            zone = ZoneInfo("UTC")
        return Times(now=instant((answer if answer is not None and "now" in answer else me)["now"]), zone=zone)


def with_server(function: Callable[Concatenate[Connection, P], None]) -> Callable[..., None]:
    """Turn a function of a connection into a command."""

    @functools.wraps(function)
    def command(ctx: typer.Context, *, server: str | None, token: str | None, insecure: bool, **rest: Any) -> None:
        surroundings = surroundings_of(ctx)
        try:
            address = find_address(
                server=server, token=token, is_insecure_allowed=insecure, environ=surroundings.environ
            )
            connection = Connection(address, surroundings)
            try:
                function(connection, **rest)  # type: ignore[call-arg]  # Typer hands in what the signature names
            finally:
                connection.client.close()
        except NightshiftError as error:
            raise typer.Exit(end_with(error, as_json=bool(rest.get("as_json")))) from None

    own = list(inspect.signature(function).parameters.values())[1:]
    parameters = [
        inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own),
        *_options(),
    ]
    command.__signature__ = inspect.Signature(parameters, return_annotation=None)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    del command.__wrapped__
    return command


def end_with(error: NightshiftError, *, as_json: bool = False) -> int:
    """Say in one line what failed, for machines as the server said it, and return the exit code."""
    if isinstance(error, Problem):
        if as_json:
            print(as_text(error.document))
        complain(durations_in_text(error.message))
        return error.exit_code
    return fail(error)


def surroundings_of(ctx: typer.Context) -> Surroundings:
    """Return what this command takes from its process."""
    found = ctx.find_root().obj
    return found if isinstance(found, Surroundings) else Surroundings()


def complete_reservation(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Name one's open reservations for the shell; silent and short where that fails."""
    with suppress(Exception):
        surroundings = surroundings_of(ctx)
        address = find_address(
            server=ctx.params.get("server"),
            token=ctx.params.get("token"),
            is_insecure_allowed=bool(ctx.params.get("insecure")),
            environ=surroundings.environ,
        )
        connection = Connection(address, surroundings, answer_s=COMPLETION_S / 2)
        found = connection.client.get_once("/reservations")["reservations"]
        return [
            (str(one["id"]), f"{one['gpus']} GPUs, {one['phase']}")
            for one in found
            if str(one["id"]).startswith(incomplete)
        ]
    return []


def tables() -> Console:
    """Return where tables go: as wide as the terminal, and not folded in a file or a pipe."""
    out = console()
    return out if out.is_terminal else console(width=max(out.width, _WIDTH_OF_FILES))


def _options() -> list[inspect.Parameter]:
    kinds = (
        (
            "server",
            Annotated[
                str | None,
                typer.Option(
                    "--server", metavar="URL", envvar=ENV_SERVER, show_envvar=True, show_default=False,
                    rich_help_panel=_PANEL, help="The server; otherwise that of `login`, or the one that runs here.",
                ),
            ],
            None,
        ),
        (
            "token",
            Annotated[
                str | None,
                typer.Option(
                    "--token", metavar="NS_…", envvar=ENV_TOKEN, show_envvar=True, show_default=False,
                    rich_help_panel=_PANEL, help="Who speaks; better in the environment, where `ps` does not show it.",
                ),
            ],
            None,
        ),
        (
            "insecure",
            Annotated[
                bool,
                typer.Option(
                    "--insecure", rich_help_panel=_PANEL, help="Send the token over http:// to another machine."
                ),
            ],
            False,
        ),
    )  # fmt: skip
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, annotation, default in kinds
    ]
