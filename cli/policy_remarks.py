"""What an admin says with a policy: why it is applied, and why it may break promises. And whom that hit, as text."""

from typing import Annotated

import typer

from cli.client import Json, Unsendable
from cli.times import Times, instant

MOST_CHARACTERS = 500

Message = Annotated[
    str, typer.Option("--message", "-m", metavar="TEXT", help="Why it is applied; kept with the version.")
]
Override = Annotated[
    str | None,
    typer.Option(
        "--override",
        metavar="REASON",
        show_default=False,
        help="Apply it although it breaks promises. Whom it hits is told, with this reason.",
    ),
]


def remarks_of(message: str, override: str | None) -> Json:
    """Return what is sent of an admin's remarks; raises Unsendable."""
    remarks: Json = {}
    if message.strip():
        remarks["message"] = _one_line("--message", message)
    if override is not None:
        if not override.strip():
            raise Unsendable("--override needs a reason: it is told to everybody whose promise breaks")
        remarks["override"] = _one_line("--override", override)
    return remarks


def _one_line(option: str, text: str) -> str:
    said = " ".join(text.split())
    if len(said) > MOST_CHARACTERS:
        raise Unsendable(f"{option} has {len(said)} characters; give at most {MOST_CHARACTERS}")
    return said


def overridden_lines(answer: Json, times: Times) -> list[str]:
    """Write whose promises an override broke, a line each."""
    hit = list(answer.get("overridden") or [])
    if not hit:
        return []
    return ["Promises that it broke; each was told:", *(f"  {_hit_text(one, times)}" for one in hit)]


def _hit_text(one: Json, times: Times) -> str:
    who = f"{one['reservation']} ({one['owner']})"
    if not one["has_place"]:
        return f"{who}: no place is left for it; its record and its disk are kept, it is booked when there is one"
    promise = one["promise"]
    start, end = times.show(instant(promise["start_by_at"])), times.show(instant(promise["end_by_at"]))
    return f"{who}: now promised to start by {start} and to end by {end}"
