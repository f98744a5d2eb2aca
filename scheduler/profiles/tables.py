"""Reads typed values out of parsed TOML and says by its path what is missing, of the wrong type or not known.

Holds the reading of any TOML document. Must not hold what a profile is made of (`loading`).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeGuard, TypeVar

from scheduler.core.errors import NightshiftError

Choice = TypeVar("Choice", bound=StrEnum)


class BadTable(NightshiftError):
    """A value in the document is missing, of the wrong type, or a key nobody knows."""

    code = "profile.bad"


class Table:
    """One table of a document. Remembers which keys were read, so that a mistyped one is not passed over in silence."""

    def __init__(self, values: Mapping[str, object], path: str) -> None:
        self._values = values
        self._path = path
        self._read: set[str] = set()
        self._children: list[Table] = []

    @classmethod
    def of(cls, document: Mapping[str, object]) -> "Table":
        """Return the whole document as a table."""
        return cls(document, "")

    def where(self, key: str) -> str:
        """Return the path of a key from the top of the document, as `gpus[3].address`."""
        return f"{self._path}.{key}" if self._path else key

    def text(self, key: str) -> str:
        value = self._value(key)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, "a text that is not empty", value)
        return value

    def text_or(self, key: str, default: str, *, may_be_empty: bool = False) -> str:
        """Return the text of a key, or `default` if the key is absent."""
        value = self._value_or(key, default)
        if not isinstance(value, str) or not (value or may_be_empty):
            raise self.wrong(key, "a text" if may_be_empty else "a text that is not empty", value)
        return value

    def texts_or(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """Return the texts of a list, or `default` if the key is absent."""
        value = self._value_or(key, list(default))
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "a list of texts", value)
        return tuple(value)

    def choice_or(self, key: str, default: Choice) -> Choice:
        """Return one of the values that `default` is one of, or `default` if the key is absent."""
        value = self._value_or(key, default.value)
        for choice in type(default):
            if choice.value == value:
                return choice
        raise self.wrong(key, "one of " + ", ".join(choice.value for choice in type(default)), value)

    def boolean_or(self, key: str, *, default: bool) -> bool:
        """Return the boolean of a key, or `default` if the key is absent."""
        value = self._value_or(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false", value)
        return value

    def integer(self, key: str) -> int:
        value = self._value(key)
        if not _is_count(value):
            raise self.wrong(key, "a whole number, 0 or more", value)
        return value

    def integer_or(self, key: str, default: int) -> int:
        """Return the number of a key, or `default` if the key is absent."""
        value = self._value_or(key, default)
        if not _is_count(value):
            raise self.wrong(key, "a whole number, 0 or more", value)
        return value

    def integer_or_none(self, key: str) -> int | None:
        """Return the number of a key, or None if the key is absent."""
        return self.integer(key) if self.has(key) else None

    def has(self, key: str) -> bool:
        """Whether the key is there; this does not count as having read it."""
        return key in self._values

    def integers(self, key: str) -> tuple[int, ...]:
        value = self._value(key)
        if not isinstance(value, list) or not all(_is_count(item) for item in value):
            raise self.wrong(key, "a list of whole numbers, 0 or more", value)
        return tuple(value)

    def table(self, key: str, *, may_be_absent: bool = False) -> "Table":
        value = self._value_or(key, {}) if may_be_absent else self._value(key)
        if not isinstance(value, dict):
            raise self.wrong(key, "a table", value)
        return self._child(value, self.where(key))

    def tables(self, key: str, *, may_be_absent: bool = False) -> "tuple[Table, ...]":
        if may_be_absent and key not in self._values:
            return ()
        value = self._value(key)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.wrong(key, "a list of tables", value)
        return tuple(self._child(item, f"{self.where(key)}[{place}]") for place, item in enumerate(value))

    def wrong(self, key: str, wanted: str, seen: object) -> BadTable:
        """Return the error that says a key's value is not what it should be."""
        where = self.where(key)
        return BadTable(f"{where} must be {wanted}, it is {seen!r}", key=where)

    def refuse_unread(self) -> None:
        """Raise if the document has a key, at any depth, that nothing has read."""
        for key in self._values:
            if key not in self._read:
                where = self.where(key)
                known = ", ".join(sorted(self._read))
                raise BadTable(f"{where} is not a known key; known here are {known}", key=where)
        for child in self._children:
            child.refuse_unread()

    def _value(self, key: str) -> object:
        self._read.add(key)
        if key not in self._values:
            where = self.where(key)
            raise BadTable(f"{where} is missing", key=where)
        return self._values[key]

    def _value_or(self, key: str, default: object) -> object:
        self._read.add(key)
        return self._values.get(key, default)

    def _child(self, values: Mapping[str, object], path: str) -> "Table":
        child = Table(values, path)
        self._children.append(child)
        return child


def _is_count(value: object) -> TypeGuard[int]:
    # TOML's true is Python's True, which is an int; it is no number here.
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
