"""`nightshift policy check | show FILE | schema`: what authors run on their own machine, without a server."""

import json
import time
from datetime import date
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cli.policy_calendar import as_json as coming_as_json
from cli.policy_calendar import coming, first_instant, show_coming
from policies.checks import check_policy, errors_of
from policies.files import PolicyText, Unreadable, read_policy
from policies.loading import load_policy
from policies.problems import Problem
from policies.schema import schema_text

FOUND_ERRORS = 1
UNREADABLE = 2

app = typer.Typer(name="policy", help="Check policy files, apply them, see what holds.", no_args_is_help=True)

Days = Annotated[int, typer.Option(min=1, max=366, help="How many days to show.")]
FromDate = Annotated[
    str, typer.Option("--from", metavar="YYYY-MM-DD", help="Show and check from this day on; today by default.")
]


@app.callback()
def policy_commands() -> None:
    """Check policy files, apply them, see what holds."""


@app.command(
    "check",
    epilog="Examples:\n\n  nightshift policy check university.yaml\n\n"
    "  nightshift policy check policies.d --strict --json",
)
def check(
    file: Annotated[Path, typer.Argument(help="The policy file, YAML, or a directory of them.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="End with 1 for warnings too.")] = False,
    days: Days = 7,
    from_date: FromDate = "",
) -> None:
    """Print every problem in a policy, or what it would do in the next days.

    Ends with 0 if the policy is fine, 1 if it has errors (with --strict also warnings), 2 if it cannot be read.
    """
    read = read_policy_text(file, as_json=as_json)
    first_day = read_date(from_date, as_json)
    policy = load_policy(read.text, source=read.source)
    if isinstance(policy, tuple):
        finish_with(policy, file, as_json)
    from_at = int(time.time()) if first_day is None else first_instant(first_day, policy)
    problems = check_policy(policy, from_at=from_at)
    if errors_of(problems):
        finish_with(problems, file, as_json)
    found = coming(policy, from_at=from_at, days=days)
    if as_json:
        shown = {"file": str(file), "ok": True, "problems": [_problem_as_json(problem) for problem in problems]}
        print(json.dumps({**shown, **coming_as_json(found)}, indent=2))
    else:
        for problem in problems:
            print(problem)
        show_coming(found, f"{file}: no errors.", with_picture=False)
    if strict and problems:
        raise typer.Exit(FOUND_ERRORS)


@app.command("schema", epilog="Example:\n\n  nightshift policy schema > policy.schema.json")
def schema() -> None:
    """Print the JSON Schema of policy files, for editors."""
    print(schema_text(), end="")


def show_file(file: Path, *, days: int, from_date: str, as_json: bool) -> None:
    """Print what a policy on this machine will do in the coming days."""
    read = read_policy_text(file, as_json=as_json)
    show_text(read.text, source=read.source, days=days, from_date=from_date, as_json=as_json)


def show_text(text: str, *, source: str, days: int, from_date: str, as_json: bool) -> None:
    """Print what a policy will do in the coming days, as tables and a picture."""
    first_day = read_date(from_date, as_json)
    policy = load_policy(text, source=source)
    if isinstance(policy, tuple):
        finish_with(policy, Path(source), as_json)
    from_at = int(time.time()) if first_day is None else first_instant(first_day, policy)
    errors = errors_of(check_policy(policy, from_at=from_at))
    if errors:
        finish_with(errors, Path(source), as_json)
    found = coming(policy, from_at=from_at, days=days)
    if as_json:
        print(json.dumps({"file": source, **coming_as_json(found)}, indent=2))
    else:
        show_coming(found, f"{source}:", with_picture=True)


def read_policy_text(file: Path, *, as_json: bool) -> PolicyText:
    """Return the text of a policy; ends the command with one line if it cannot be read."""
    read = read_policy(file)
    if isinstance(read, Unreadable):
        _unreadable(read.path, read.what, as_json)
    return read


def read_date(text: str, as_json: bool) -> date | None:
    """Return the day that `--from` names, None if it names none; ends the command with one line if it is not one."""
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        _unreadable(Path("--from"), f"{text!r} is not a date; write YYYY-MM-DD", as_json)
    if not 1971 <= day.year <= 9000:
        _unreadable(Path("--from"), f"{text!r} is out of range; use a year from 1971 to 9000", as_json)
    return day


def _unreadable(file: Path, what: str, as_json: bool) -> NoReturn:
    if as_json:
        print(json.dumps({"file": str(file), "ok": False, "unreadable": what, "problems": []}, indent=2))
    else:
        typer.echo(f"{file if str(file).isprintable() else repr(str(file))}: {what}", err=True)
    raise typer.Exit(UNREADABLE)


def finish_with(problems: tuple[Problem, ...], file: Path, as_json: bool) -> NoReturn:
    """Print every problem and end the command: the policy has errors."""
    if as_json:
        report = {"file": str(file), "ok": False, "problems": [_problem_as_json(problem) for problem in problems]}
        print(json.dumps(report, indent=2))
    else:
        for problem in problems:
            print(problem)
    raise typer.Exit(FOUND_ERRORS)


def _problem_as_json(problem: Problem) -> dict[str, object]:
    return {
        "severity": problem.severity.value,
        "file": problem.place.file,
        "line": problem.place.line,
        "column": problem.place.column,
        "what": problem.what,
        "value": problem.value,
        "instead": problem.instead,
        "message": problem.message,
    }
