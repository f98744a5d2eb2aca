"""`nightshift login` and `nightshift whoami`: keep a server and a token, and see who one is."""

import sys
from typing import Annotated

import typer

from cli.address import ENV_SERVER, ENV_TOKEN, Address, Kept, checked_url, find_address, keep
from cli.client import as_text
from cli.connecting import AsJson, Connection, end_with, surroundings_of, with_server
from cli.reserve import BadOption
from scheduler.core.errors import NightshiftError

LOGIN_EXAMPLES = """Examples:

  nightshift login https://gpu.uni.edu

  nightshift login https://gpu.uni.edu < token.txt"""


def login(
    ctx: typer.Context,
    server: Annotated[
        str | None,
        typer.Argument(metavar="URL", envvar=ENV_SERVER, help="The server's address.", show_default=False),
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow http:// to another machine.")] = False,
) -> None:
    """Keep a server and your token on this machine.

    No other command asks for them then. The token is asked for, or read from stdin; the file is readable by you alone.
    """
    surroundings = surroundings_of(ctx)
    try:
        if server is None:
            address = find_address(server=None, token=None, is_insecure_allowed=insecure, environ=surroundings.environ)
            url = address.url
        else:
            url = checked_url(server)
            find_address(server=url, token="-", is_insecure_allowed=insecure, environ=surroundings.environ)
        secret = surroundings.environ.get(ENV_TOKEN) or _asked_for(url)
        connection = Connection(Address(url=url, token=secret, source="login"), surroundings)
        try:
            me = connection.me()
        finally:
            connection.client.close()
        path = keep(Kept(url=url, token=secret), surroundings.environ)
    except NightshiftError as error:
        raise typer.Exit(end_with(error)) from None
    print(f"You are {me['name']} ({me['role']}) at {url}; kept in {path}.")
    print("Next: nightshift free")


def whoami(connection: Connection, as_json: AsJson = False) -> None:
    """Say who you are, where, and what time it is there."""
    me = connection.me()
    if as_json:
        print(as_text(me))
        return
    times, address = connection.times(), connection.client.address
    speed = me.get("speed", 1)
    pace = "" if speed == 1 else f", time runs {speed:g} times as fast"
    print(f"{me['name']} ({me['role']}) at {address.url} (from {address.source})")
    print(f"It is {times.show(times.now)} there ({times.zone.key}{pace}); version {me.get('version', '?')}")


def _asked_for(url: str) -> str:
    if sys.stdin.isatty():
        secret = str(typer.prompt(f"Your token for {url}", hide_input=True)).strip()
    else:
        secret = sys.stdin.readline(1024).strip()
    if not secret:
        raise BadOption(
            "no token was given; paste it when asked, or send it on stdin: nightshift login URL < token.txt"
        )
    return secret


def mount(app: typer.Typer, *, acts: str, looks: str) -> None:
    """Add the commands to the command line."""
    app.command("login", rich_help_panel=acts, epilog=LOGIN_EXAMPLES)(login)
    app.command("whoami", rich_help_panel=looks, epilog="Example:\n\n  nightshift whoami")(with_server(whoami))
