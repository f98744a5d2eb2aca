"""A policy of several files as one text, and back: what is applied, stored and shown is one text, with every line.

A policy that is a single file is its own text. Several are written one after another, each under a line of ours that
names it; that line is a comment of YAML, and a file that has one of its own is refused. Does not know YAML.
"""

from collections.abc import Iterable
from dataclasses import dataclass

_HEAD = "#%nightshift policy of several files"
_MARK = "#%file "
_CALENDAR = ".ics"
MOST_FILES = 500
LONGEST_NAME = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file of a policy."""

    name: str
    """Without a directory."""
    text: str

    @property
    def is_calendar(self) -> bool:
        return self.name.lower().endswith(_CALENDAR)


def has_own_marks(text: str) -> bool:
    """Whether a file cannot be part of a bundle: one of its lines looks like ours."""
    return any(line.startswith((_HEAD, _MARK)) for line in text.splitlines())


def pack(parts: Iterable[Part], *, is_directory: bool) -> str:
    """Write several files as one text. A policy that is one file without others beside it is that file's text."""
    found = list(parts)
    if len(found) == 1 and not is_directory:
        return found[0].text
    sections = [f"{_HEAD}, {'a directory' if is_directory else 'a file and its calendars'}\n"]
    for part in found:
        text = part.text if part.text.endswith("\n") or not part.text else part.text + "\n"
        sections.append(f"{_MARK}{part.name}\n{text}")
    return "".join(sections)


def is_bundle(text: str) -> bool:
    return text.startswith(_HEAD)


def unpack(text: str, *, source: str) -> tuple[Part, ...]:
    """Return the files of a text, each named as in messages: `source/name` for those of a directory."""
    if not is_bundle(text):
        return (Part(name=source, text=text),)
    head, _, rest = text.partition("\n")
    is_directory = head.endswith("a directory")
    parts: list[Part] = []
    name, lines = "", list[str]()
    # Not splitlines: only these are line ends to YAML and iCalendar, and every character must come back.
    for line in rest.split("\n"):
        if line.startswith(_MARK):
            if name:
                parts.append(Part(name=name, text="\n".join(lines) + "\n"))
            name, lines = _shown_name(line.removeprefix(_MARK).strip()), []
        else:
            lines.append(line)
    if name:
        parts.append(Part(name=name, text="\n".join(lines)))
    folder = source.rpartition("/")[0]
    within = source if is_directory else folder

    def named(part: Part) -> str:
        if not is_directory and not part.is_calendar:
            return source
        return f"{within}/{part.name}" if within else part.name

    return tuple(Part(name=named(part), text=part.text) for part in parts[: MOST_FILES + 1])


def _shown_name(name: str) -> str:
    """Return a name that can stand in messages, whoever wrote the text."""
    return "".join(c if c.isprintable() and c != "/" else "?" for c in name)[:LONGEST_NAME] or "?"
