"""`nightshift policy history | rollback`: which policies held, and going back to one."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cli.client import Problem, as_text
from cli.connecting import AsJson, Connection, tables, with_server
from cli.output import EXIT_NO, complain
from cli.policy_problems import problem_line
from cli.policy_remarks import Message, Override, overridden_lines, remarks_of
from cli.times import instant_in
from cli.waiting import decided_intent


def history(
    connection: Connection,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many, the newest.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the policies that were applied: when, by whom, from which file, and why."""
    answer = connection.client.get("/policies", limit=limit)
    if as_json:
        print(as_text(answer))
        return
    found = list(answer["policies"])
    if not found:
        print("No policy is applied; try `nightshift policy apply FILE`.")
        return
    times = connection.times()
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("version", "applied", "by", "file", "message", ""):
        shown.add_column(name, justify="right" if name == "version" else "left")
    for one in found:
        at = instant_in(one, "applied_at")
        notes = ["holds now"] if one["is_current"] else []
        if one["same_text_as"] is not None:
            notes.append(f"the text of version {one['same_text_as']}")
        if one["override"] is not None:
            notes.append(f"an override: {one['override']}")
        shown.add_row(
            str(one["version"]),
            "" if at is None else times.show(at),
            Text(str(one["author"])),
            Text(str(one["source"])),
            Text(str(one["message"])),
            Text(", ".join(notes)),
            style="bold" if one["is_current"] else "dim",
        )
    tables().print(shown)


def rollback(
    connection: Connection,
    version: Annotated[
        int, typer.Argument(metavar="VERSION", min=1, help="The earlier version to go back to.", show_default=False)
    ],
    message: Message = "",
    override: Override = None,
    as_json: AsJson = False,
) -> None:
    """Apply the text of an earlier version as a new one: whole or not at all, as `apply` does.

    It is refused if that version has errors today, or would break a promise that was made since; with --override it
    may break promises.
    """
    remarks = remarks_of(message, override)
    try:
        answer = decided_intent(connection, connection.client.post(f"/policies/{version}/rollback", remarks))
    except Problem as problem:
        found = problem.document.get("problems")
        if not isinstance(found, list):
            raise
        if as_json:
            print(as_text(problem.document))
        else:
            for one in found:
                print(problem_line(one, str(one["file"])))
        complain(f"version {version} was not applied again: it has errors today")
        raise typer.Exit(EXIT_NO) from None
    if as_json:
        print(as_text(answer))
        return
    for one in answer.get("problems") or []:
        print(problem_line(one, str(one["file"])))
    new = answer.get("version")
    print(f"The text of version {version} is applied{'' if new is None else f' as version {new}'}.")
    for line in overridden_lines(answer, connection.times()):
        print(line)


def mount(app: typer.Typer) -> None:
    """Add the commands to `nightshift policy`."""
    app.command(
        "history", epilog="Examples:\n\n  nightshift policy history\n\n  nightshift policy history --limit 5 --json"
    )(with_server(history))
    app.command("rollback", epilog="Example:\n\n  nightshift policy rollback 3 --message 'the nights were too long'")(
        with_server(rollback)
    )
