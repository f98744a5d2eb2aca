"""The problems that a server finds in a policy, a line each, as `policy check` writes them."""

from pathlib import Path

from cli.client import Json


def problem_line(problem: Json, place: str) -> str:
    """Write a problem behind the file that it is in."""
    message = str(problem["message"])
    severity = "" if problem.get("severity") == "error" or message.startswith("warning") else "warning: "
    return f"{place}:{problem['line']}:{problem['column']}: {severity}{message}"


def line_in(problem: Json, file: Path) -> str:
    """Write a problem of a policy on this machine; of a directory, the place names the file in it."""
    name, inside = str(problem.get("file") or ""), file.name or file.resolve().name
    is_inside = name.startswith(f"{inside}/")
    return problem_line(problem, str(file / name.removeprefix(f"{inside}/")) if is_inside else str(file))
