"""Values to JSON text and back. Equal values give equal bytes: keys in order, sets sorted, no spaces.

Holds the two directions for frozen dataclasses made of tuples, frozensets, enums and plain values. Must not know any
table; which value is in which column is in `rows`.
"""

import json
from collections.abc import Hashable
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import lru_cache
from typing import Annotated, Any, TypeAlias, TypeVar, cast
from uuid import UUID

from pydantic import Discriminator, TypeAdapter

from scheduler.core.intents import Intent
from scheduler.core.reasons import Reason

V = TypeVar("V")

Pairs: TypeAlias = tuple[tuple[str, str | int | None], ...]
"""The facts of an event, sorted by name."""

_Plain: TypeAlias = str | int | float | bool | list["_Plain"] | dict[str, "_Plain"] | None


def to_json(value: object) -> str:
    """Write a value as JSON text."""
    if value == ():
        return "[]"
    return json.dumps(_plain(value), separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def from_json(kind: type[V], text: str) -> V:
    """Read a value of this type; a text that is not one is an error of the database's content."""
    return cast(V, _adapter(cast(Hashable, kind)).validate_json(text))


@lru_cache(maxsize=1024)
def from_json_shared(kind: type[V], text: str) -> V:
    """Read a value that many rows have in common (layouts, hosts, warnings), once."""
    return from_json(kind, text)


def reasons_from_json(text: str) -> tuple[Reason, ...]:
    """Read reasons; most rows have none."""
    return () if text == "[]" else from_json(tuple[Reason, ...], text)


def intent_from_json(text: str) -> Intent:
    """Read an intent; its `kind` says which."""
    return cast(Intent, _adapter(Annotated[Intent, Discriminator("kind")]).validate_json(text))


@lru_cache(maxsize=64)
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(Any, kind))


def _plain(value: object) -> _Plain:
    if isinstance(value, Enum):
        return cast(str, value.value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, frozenset):
        return sorted((_plain(item) for item in value), key=json.dumps)
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value) if each.init}
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"cannot store a {type(value).__name__}: {value!r}")
