"""What is wrong with a policy file: a value with its place, what is wrong, the value seen and what to write instead.

Holds values and their one-line form only; the checks are in `loading` and `checks`.
"""

from dataclasses import dataclass
from enum import StrEnum

_LONGEST_SHOWN = 60


class Severity(StrEnum):
    ERROR = "error"
    """The policy cannot be applied."""
    WARNING = "warning"
    """It can, but it will hardly do what its author wants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something stands in a file; lines and columns count from 1."""

    file: str
    line: int
    column: int

    @property
    def source(self) -> str:
        """`file:line`: how core values name the entry they came from."""
        return f"{self.file}:{self.line}"

    @property
    def order(self) -> tuple[str, int, int]:
        """By file, line and column."""
        return (self.file, self.line, self.column)

    def told_of(self, other: "Place") -> str:
        """Name another place in a message about this one: `line 3`, or with its file if it is in another."""
        return f"line {other.line}" if other.file == self.file else other.source

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with a policy file; `str()` gives it in one line."""

    place: Place
    what: str
    value: str | None = None
    """What was seen, as written; None when something is missing."""
    instead: str | None = None
    """What to write instead."""
    severity: Severity = Severity.ERROR

    @property
    def message(self) -> str:
        """The problem without its place. Names that the file itself gives may be in it: it is always one plain line."""
        text = self.what if self.value is None else f"{self.what}: {shown(self.value)}"
        text = text if self.instead is None else f"{text}; {self.instead}"
        return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)

    def __str__(self) -> str:
        prefix = "" if self.severity is Severity.ERROR else "warning: "
        return f"{self.place}: {prefix}{self.message}"


def warning(place: Place, what: str, value: str | None, instead: str) -> Problem:
    """Make a warning."""
    return Problem(place=place, what=what, value=value, instead=instead, severity=Severity.WARNING)


def shown(value: str) -> str:
    """Quote a value for a message: cut when long, and nothing in it can break or colour the line it is shown on."""
    return repr(value) if len(value) <= _LONGEST_SHOWN else repr(value[:_LONGEST_SHOWN]) + "…"
