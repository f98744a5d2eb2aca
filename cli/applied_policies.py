"""`nightshift policy apply | ls | show`: the policies of a server. Checking a file (`cli/policy.py`) needs none."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cli.client import Json, Problem, as_text
from cli.connecting import AsJson, Connection, tables, with_server
from cli.output import EXIT_NO, complain
from cli.policy import read_policy_text
from cli.times import instant_in
from cli.waiting import decided_intent


def apply(
    connection: Connection,
    file: Annotated[Path, typer.Argument(help="The policy file, YAML.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Apply a policy file. It is taken whole or not at all: not if it has errors, nor if it would break a promise."""
    text = read_policy_text(file, as_json=as_json)
    try:
        answer = decided_intent(connection, connection.client.post("/policies", {"text": text, "source": file.name}))
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
    for problem_line in answer.get("problems") or []:
        print(_line(problem_line, file))
    version = answer.get("version")
    print(f"{file} is applied{'' if version is None else f' as version {version}'}. Next: nightshift calendar --for 7d")


def ls(connection: Connection, as_json: AsJson = False) -> None:
    """List the policies that were applied; the newest holds."""
    answer = connection.client.get("/policies")
    if as_json:
        print(as_text(answer))
        return
    found = list(answer["policies"])
    if not found:
        print("No policy is applied; try `nightshift policy apply FILE`.")
        return
    times = connection.times()
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("version", "applied", "by", ""):
        shown.add_column(name, justify="right" if name == "version" else "left")
    for one in found:
        at = instant_in(one, "applied_at")
        is_current = bool(one["is_current"])
        shown.add_row(
            str(one["version"]),
            "" if at is None else times.show(at),
            Text(str(one["author"])),
            "holds now" if is_current else "",
            style="bold" if is_current else "dim",
        )
    tables().print(shown)


def show(
    connection: Connection,
    version: Annotated[
        int | None, typer.Argument(min=1, help="Which; otherwise the one that holds.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the text of an applied policy, as it was applied."""
    number = version if version is not None else connection.client.get("/policies").get("current")
    if number is None:
        print("No policy is applied; try `nightshift policy apply FILE`.")
        raise typer.Exit(EXIT_NO)
    answer = connection.client.get(f"/policies/{number}")
    print(as_text(answer) if as_json else str(answer["text"]), end="\n" if as_json else "")


def _show_problems(document: Json, file: Path, *, as_json: bool) -> None:
    if as_json:
        print(as_text(document))
        return
    for problem in document["problems"]:
        print(_line(problem, file))


def _line(problem: Json, file: Path) -> str:
    message = str(problem["message"])
    severity = "" if problem.get("severity") == "error" or message.startswith("warning") else "warning: "
    return f"{file}:{problem['line']}:{problem['column']}: {severity}{message}"


def mount(app: typer.Typer) -> None:
    """Add the commands to `nightshift policy`."""
    app.command("apply", epilog="Example:\n\n  nightshift policy apply university.yaml")(with_server(apply))
    app.command("ls", epilog="Example:\n\n  nightshift policy ls")(with_server(ls))
    app.command("show", epilog="Examples:\n\n  nightshift policy show\n\n  nightshift policy show 3")(with_server(show))
