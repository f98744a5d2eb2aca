"""Policy files on a disk, as one text: a file with the calendars that it names, or a directory.

Of a directory: what ends in `.yaml`, `.yml` or `.ics` and does not begin with a dot, by name; not what lies deeper.
Says in one line why something cannot be read; what the text means is `loading`'s matter.
"""

from dataclasses import dataclass
from pathlib import Path

from policies.bundle import LONGEST_NAME, MOST_FILES, Part, has_own_marks, pack
from policies.document import MOST_BYTES, Entries, Items, Scalar, read_document

_YAML = (".yaml", ".yml")
_CALENDAR = ".ics"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyText:
    """A policy as it is loaded, applied and stored."""

    text: str
    source: str
    """The path as it was given: the beginning of every place in messages."""
    name: str
    """Without directories, for where the path means nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """Why there is no text."""

    path: Path
    what: str


def read_policy(path: Path) -> PolicyText | Unreadable:
    """Read a policy file or a directory of them. Never raises."""
    try:
        is_directory = path.is_dir()
        name = path.name or path.resolve().name
        found = _directory(path) if is_directory else _file(path)
    except (OSError, ValueError) as error:
        return _unreadable(path, error)
    if isinstance(found, Unreadable):
        return found
    text = pack(found, is_directory=is_directory)
    if len(text) > MOST_BYTES or len(text.encode(errors="replace")) > MOST_BYTES:
        return Unreadable(path=path, what="all files together are larger than 1 MiB; a policy is a few pages long")
    return PolicyText(text=text, source=str(path), name=name)


def _directory(path: Path) -> list[Part] | Unreadable:
    names = sorted(
        entry.name
        for entry in path.iterdir()
        if entry.name.lower().endswith((*_YAML, _CALENDAR)) and not entry.name.startswith(".")
    )
    if not any(name.lower().endswith(_YAML) for name in names):
        return Unreadable(path=path, what="this is a directory without a policy file; name them *.yaml")
    if len(names) > MOST_FILES:
        return Unreadable(path=path, what=f"there are more than {MOST_FILES} files in this directory; join some")
    parts = []
    for name in names:
        if not name.isprintable() or len(name) > LONGEST_NAME or name != name.strip():
            return Unreadable(path=path, what=f"the file name {name[:LONGEST_NAME]!r} is too long or cannot be shown")
        text = _text(path / name)
        if isinstance(text, Unreadable):
            return text
        parts.append(Part(name=name, text=text))
    return parts


def _file(path: Path) -> list[Part] | Unreadable:
    text = _text(path)
    if isinstance(text, Unreadable):
        return text
    parts = [Part(name=path.name, text=text)]
    for name in _calendars_named(text):
        calendar = path.parent / name
        # One that is not there is told with its line by whoever loads the policy.
        if calendar.is_file():
            beside = _text(calendar)
            if isinstance(beside, Unreadable):
                return beside
            parts.append(Part(name=name, text=beside))
    return parts


def _calendars_named(text: str) -> list[str]:
    """Return the calendars that a policy names, if they lie beside it."""
    if _CALENDAR not in text.lower():
        return []
    root = read_document(text, source="")
    holidays = root.get("holidays") if isinstance(root, Entries) else None
    calendars = holidays.get("calendars") if isinstance(holidays, Entries) else None
    items = calendars.items if isinstance(calendars, Items) else ()
    names = [item.text for item in items if isinstance(item, Scalar)]
    plain = [name for name in names if Path(name).name == name and name.lower().endswith(_CALENDAR)]
    return sorted({name for name in plain if name.isprintable()})[:MOST_FILES]


def _text(path: Path) -> str | Unreadable:
    try:
        with path.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        return _unreadable(path, error)
    if len(content) > MOST_BYTES:
        return Unreadable(path=path, what="the file is larger than 1 MiB; a policy is a few pages long")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Unreadable(path=path, what=f"this is not a text file: byte {error.start} is not UTF-8")
    if "\0" in text:
        return Unreadable(path=path, what=f"this is not a text file: byte {content.index(0)} is zero")
    if has_own_marks(text):
        return Unreadable(path=path, what="a line begins with #%file or #%nightshift; change it")
    return text


def _unreadable(path: Path, error: OSError | ValueError) -> Unreadable:
    if isinstance(error, FileNotFoundError):
        return Unreadable(path=path, what="there is no such file")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return Unreadable(path=path, what=f"cannot be read: {reason}")
