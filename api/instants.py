"""Instants as text: UTC with a Z in JSON, the wall clock of the policy's zone in sentences.

A time without a zone is refused: whoever asks means one instant, and a guess would be promised.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from scheduler.core.spans import Instant, utc_text

LAST_AT: Instant = 253_402_300_799
"""The last instant that a calendar has."""

_TEXT = re.compile(
    r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.0{1,9})?(?:(Z)|([+-]\d\d:\d\d))", re.ASCII
)  # Whole seconds: what is finer could not be kept.


def instant_text(instant: Instant) -> str:
    """Write an instant as `2026-11-23T09:00:00Z`; one that no calendar has as its number."""
    if not 0 <= instant <= LAST_AT:
        return str(instant)
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_instant(text: object) -> Instant:
    """Read an instant; raises what pydantic makes an error of the field."""
    match = _TEXT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise _bad("write it with its zone and whole seconds, as 2026-11-23T09:00:00Z")
    offset = match[4] or "+00:00"
    try:
        read = datetime.fromisoformat(f"{match[1]}T{match[2]}{offset}")
        at = int(read.timestamp())
    except (ValueError, OverflowError):
        raise _bad("there is no such day or time") from None
    if not 0 <= at <= LAST_AT:
        raise _bad("use a year from 1970 to 9999")
    return at


def _bad(problem: str) -> PydanticCustomError:
    return PydanticCustomError("instant", "{problem}", {"problem": problem})


def shower(zone: ZoneInfo) -> Callable[[Instant], str]:
    """Return what writes instants for people: `Mon 2026-11-23 09:00`, with seconds where there are any."""

    def show(instant: Instant) -> str:
        if not 0 <= instant <= LAST_AT - 86_400:
            return utc_text(instant)
        local = datetime.fromtimestamp(instant, zone)
        return local.strftime("%a %Y-%m-%d %H:%M:%S" if local.second else "%a %Y-%m-%d %H:%M")

    return show


_SCHEMA = WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-23T09:00:00Z"]})

InstantIn = Annotated[int, BeforeValidator(read_instant), _SCHEMA]
"""An instant that somebody sends."""

InstantOut = Annotated[int, PlainSerializer(instant_text, return_type=str), _SCHEMA]
"""An instant that is sent."""
