"""`nightshift policy apply | show`: the policies of a server. Checking a file (`cli/policy.py`) needs none."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import policy_diff, policy_simulate, policy_versions, policy_watch
from cli.client import Json, Problem, as_text
from cli.connecting import AsJson, Connection, with_server
from cli.output import EXIT_NO, EXIT_USAGE, complain
from cli.policy import FromDate, read_policy_text, show_file, show_text
from cli.policy_problems import line_in
from cli.policy_remarks import Message, Override, overridden_lines, remarks_of
from cli.policy_server import policy_on_server
from cli.waiting import decided_intent

_DAYS = 7


def apply(
    connection: Connection,
    file: Annotated[
        Path | None, typer.Argument(help="The policy file, YAML, or a directory of them.", show_default=False)
    ] = None,
    message: Message = "",
    override: Override = None,
    applied: Annotated[
        bool, typer.Option("--applied", help="Apply the policy that holds again: after new time zone or holiday data.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Apply a policy. It is taken whole or not at all: not if it has errors, nor if it would break a promise.

    With --override it may break promises: `nightshift policy diff` says before whose. They are told.
    """
    if (file is None) != applied:
        complain("give a policy file, or --applied for the policy that holds")
        raise typer.Exit(EXIT_USAGE)
    remarks = remarks_of(message, override)
    read = policy_on_server(connection) if file is None else read_policy_text(file, as_json=as_json)
    named = file or Path(read.name)
    try:
        body = {"text": read.text, "source": read.name, **remarks}
        answer = decided_intent(connection, connection.client.post("/policies", body))
    except Problem as problem:
        found = problem.document.get("problems")
        if not isinstance(found, list):
            raise
        _show_problems(problem.document, named, as_json=as_json)
        remedy = "" if file is None else f"; `nightshift policy check {file}` says the same without a server"
        complain(f"{named} was not applied{remedy}")
        raise typer.Exit(EXIT_NO) from None
    if as_json:
        print(as_text(answer))
        return
    for one in answer.get("problems") or []:
        print(line_in(one, named))
    version = answer.get("version")
    print(
        f"{named} is applied{'' if version is None else f' as version {version}'}. Next: nightshift calendar --for 7d"
    )
    for line in overridden_lines(answer, connection.times()):
        print(line)


def show(
    connection: Connection,
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="VERSION|FILE",
            help="An applied version, otherwise the one that holds; or a policy on this machine.",
            show_default=False,
        ),
    ] = None,
    days: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=366,
            show_default=False,
            help="Show what it does in so many days; 7 for a policy on this machine.",
        ),
    ] = None,
    from_date: FromDate = "",
    as_json: AsJson = False,
) -> None:
    """Show the coming windows and the policy's own reservations, or the text of an applied policy."""
    number = what if what is not None else connection.client.get("/policies", limit=1).get("current")
    if number is None:
        print("No policy is applied; try `nightshift policy apply FILE`.")
        raise typer.Exit(EXIT_NO)
    answer = connection.client.get(f"/policies/{number}")
    if days is not None or from_date:
        source = f"policy version {answer['version']}"
        show_text(str(answer["text"]), source=source, days=days or _DAYS, from_date=from_date, as_json=as_json)
        return
    print(as_text(answer) if as_json else str(answer["text"]), end="\n" if as_json else "")


def _local_first(on_server: Callable[..., None]) -> Callable[..., None]:
    """Ask no server where a policy on this machine is to be shown."""

    def command(ctx: typer.Context, **given: Any) -> None:
        what = given.get("what")
        if what is None or what.isdecimal():
            on_server(ctx, **given)
            return
        days = given["days"] or _DAYS
        show_file(Path(what), days=days, from_date=given["from_date"], as_json=given["as_json"])

    command.__doc__ = on_server.__doc__
    command.__signature__ = inspect.signature(on_server)  # type: ignore[attr-defined]
    command.__annotations__ = on_server.__annotations__
    return command


def _show_problems(document: Json, file: Path, *, as_json: bool) -> None:
    if as_json:
        print(as_text(document))
        return
    for problem in document["problems"]:
        print(line_in(problem, file))


def mount(app: typer.Typer) -> None:
    """Add the commands to `nightshift policy`."""
    app.command(
        "apply",
        epilog="Examples:\n\n  nightshift policy apply university.yaml --message 'longer nights'\n\n"
        "  nightshift policy apply university.yaml --override 'power work on Tuesday'\n\n"
        "  nightshift policy apply --applied",
    )(with_server(apply))
    app.command(
        "show",
        epilog="Examples:\n\n  nightshift policy show --days 14\n\n  nightshift policy show 3\n\n"
        "  nightshift policy show university.yaml --from 2026-03-28 --days 2",
    )(_local_first(with_server(show)))
    policy_versions.mount(app)
    policy_diff.mount(app)
    policy_watch.mount(app)
    policy_simulate.mount(app)
