"""`nightshift policy apply | show`: the policies of a server. Checking a file (`cli/policy.py`) needs none."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import policy_diff, policy_versions
from cli.client import Json, Problem, as_text
from cli.connecting import AsJson, Connection, with_server
from cli.output import EXIT_NO, complain
from cli.policy import FromDate, read_policy_text, show_file, show_text
from cli.policy_problems import line_in
from cli.waiting import decided_intent

_DAYS = 7


def apply(
    connection: Connection,
    file: Annotated[Path, typer.Argument(help="The policy file, YAML, or a directory of them.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Apply a policy. It is taken whole or not at all: not if it has errors, nor if it would break a promise."""
    read = read_policy_text(file, as_json=as_json)
    try:
        body = {"text": read.text, "source": read.name}
        answer = decided_intent(connection, connection.client.post("/policies", body))
    except Problem as problem:
        found = problem.document.get("problems")
        if not isinstance(found, list):
            raise
        _show_problems(problem.document, file, as_json=as_json)
        complain(f"{file} was not applied; `nightshift policy check {file}` says the same without a server")
        raise typer.Exit(EXIT_NO) from None
    if as_json:
        print(as_text(answer))
        return
    for one in answer.get("problems") or []:
        print(line_in(one, file))
    version = answer.get("version")
    print(f"{file} is applied{'' if version is None else f' as version {version}'}. Next: nightshift calendar --for 7d")


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
    app.command("apply", epilog="Example:\n\n  nightshift policy apply university.yaml")(with_server(apply))
    app.command(
        "show",
        epilog="Examples:\n\n  nightshift policy show --days 14\n\n  nightshift policy show 3\n\n"
        "  nightshift policy show university.yaml --from 2026-03-28 --days 2",
    )(_local_first(with_server(show)))
    policy_versions.mount(app)
    policy_diff.mount(app)
