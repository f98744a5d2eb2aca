"""`nightshift user`: who may reserve, and the tokens that they speak with."""

from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cli.client import Json, as_text, part
from cli.connecting import AsJson, Connection, tables, with_server
from cli.output import console
from cli.times import Times, instant_in

app = typer.Typer(name="user", help="Say who may reserve, and make their tokens.", no_args_is_help=True)


class UserRole(StrEnum):
    """What a person may do."""

    STUDENT = "student"
    ADMIN = "admin"


Name = Annotated[str, typer.Argument(metavar="NAME", help="The person's name.", show_default=False)]


@app.command("add", epilog="Examples:\n\n  nightshift user add ada\n\n  nightshift user add grace --role admin")
@with_server
def add(
    connection: Connection,
    name: Name,
    role: Annotated[UserRole, typer.Option(help="What the person may do.")] = UserRole.STUDENT,
    as_json: AsJson = False,
) -> None:
    """Add a person. Give them a token with `nightshift user token NAME`."""
    answer = connection.client.post_once("/users", {"name": name, "role": role.value})
    print(as_text(answer) if as_json else f"{name} is added as {role.value}. Next: nightshift user token {name}")


@app.command("ls", epilog="Example:\n\n  nightshift user ls")
@with_server
def ls(connection: Connection, as_json: AsJson = False) -> None:
    """List the people."""
    answer = connection.client.get("/users")
    if as_json:
        print(as_text(answer))
        return
    times = connection.times()
    shown = _table("name", "role", "added", "")
    for user in answer["users"]:
        is_off = bool(user.get("is_disabled"))
        shown.add_row(
            Text(str(user["name"])),
            str(user["role"]),
            _when(user, "created_at", times),
            "disabled" if is_off else "",
            style="dim" if is_off else "",
        )
    tables().print(shown)


@app.command("token", epilog='Example:\n\n  nightshift user token ada --label "her laptop"')
@with_server
def token(
    connection: Connection,
    name: Name,
    label: Annotated[str, typer.Option(help="What the token is for.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a token; it is shown this once and kept nowhere. You may make your own."""
    answer = connection.client.post_once(f"/users/{part(name)}/tokens", {"label": label})
    if as_json:
        print(as_text(answer))
        return
    print(answer["secret"])
    if console().is_terminal:
        print(f"\nThis is shown only now. With it {name} runs: nightshift login {connection.client.address.url}")
        print(f"It is taken back with: nightshift user revoke {answer['id']}")


@app.command("tokens", epilog="Example:\n\n  nightshift user tokens ada")
@with_server
def tokens(connection: Connection, name: Name, as_json: AsJson = False) -> None:
    """List a person's tokens, without their secrets."""
    answer = connection.client.get(f"/users/{part(name)}/tokens")
    if as_json:
        print(as_text(answer))
        return
    times = connection.times()
    shown = _table("id", "label", "made", "used", "")
    for one in answer["tokens"]:
        is_revoked = one.get("revoked_at") is not None
        shown.add_row(
            Text(str(one["id"])),
            Text(str(one["label"])),
            _when(one, "created_at", times),
            _when(one, "last_used_at", times) or "never",
            f"revoked {_when(one, 'revoked_at', times)}" if is_revoked else "",
            style="dim" if is_revoked else "",
        )
    tables().print(shown)


@app.command("revoke", epilog="Example:\n\n  nightshift user revoke t-3")
@with_server
def revoke(
    connection: Connection,
    token_id: Annotated[
        str, typer.Argument(metavar="TOKEN_ID", help="As `user tokens` lists it; not the secret.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Take a token back at once; the person's other tokens stay."""
    answer = connection.client.delete(f"/tokens/{part(token_id)}")
    print(as_text(answer) if as_json else f"Token {token_id} is revoked.")


@app.command("disable", epilog="Example:\n\n  nightshift user disable ada")
@with_server
def disable(connection: Connection, name: Name, as_json: AsJson = False) -> None:
    """Let none of a person's tokens work any more; reservations stay as they are."""
    answer = connection.client.post(f"/users/{part(name)}/disable")
    print(as_text(answer) if as_json else f"{name} is disabled. Undo it with: nightshift user enable {name}")


@app.command("enable", epilog="Example:\n\n  nightshift user enable ada")
@with_server
def enable(connection: Connection, name: Name, as_json: AsJson = False) -> None:
    """Let a disabled person's tokens work again."""
    answer = connection.client.post(f"/users/{part(name)}/enable")
    print(as_text(answer) if as_json else f"{name} is enabled again.")


def _table(*columns: str) -> Table:
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        shown.add_column(column)
    return shown


def _when(document: Json, name: str, times: Times) -> str:
    at = instant_in(document, name)
    return "" if at is None else times.show(at)
