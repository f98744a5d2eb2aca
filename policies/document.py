"""A YAML text as a tree of plain values, each with its place; what a policy may not contain is refused here.

Refused: files over 1 MiB, more than one document, too many or too deeply nested values (also by way of aliases, which
are expanded), a key twice, keys that are not text, tags and merge keys. Knows nothing of what a policy means.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    ScalarEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.reader import ReaderError

from policies.problems import Place, Problem

MOST_BYTES = 1024 * 1024
MOST_VALUES = 20_000
"""Values in all files of a policy, aliases expanded. The reader takes about a quarter of a second for as many."""
MOST_WORDS = 100_000
"""Spaces and line ends, comments left out. The reader looks at each, also within one long text."""
MOST_LINES = 100_000
MOST_DEPTH = 16
LONGEST_LINE = 4096
"""The reader's time for a tag grows with the square of its length."""


class Kind(StrEnum):
    """What kind of value a scalar is by YAML 1.2's own rules."""

    TEXT = "text"
    WHOLE = "a whole number"
    FRACTION = "a number with a fraction"
    TRUTH = "true or false"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    place: Place
    kind: Kind
    text: str
    """As written, quotes removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    place: Place
    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    place: Place
    entries: tuple[tuple[Scalar, "Node"], ...]

    def get(self, key: str) -> "Node | None":
        return next((node for scalar, node in self.entries if scalar.text == key), None)


Node: TypeAlias = Scalar | Items | Entries

_KIND_BY_TAG = {
    "tag:yaml.org,2002:str": Kind.TEXT,
    "tag:yaml.org,2002:timestamp": Kind.TEXT,
    "tag:yaml.org,2002:int": Kind.WHOLE,
    "tag:yaml.org,2002:float": Kind.FRACTION,
    "tag:yaml.org,2002:bool": Kind.TRUTH,
    "tag:yaml.org,2002:null": Kind.NOTHING,
}
_SEQUENCE_TAG = "tag:yaml.org,2002:seq"
_MAPPING_TAG = "tag:yaml.org,2002:map"
_NO_TAG = "!"
_MERGE_KEY = "<<"


def kind_of(node: Node) -> str:
    """Name what a node is, for messages."""
    match node:
        case Scalar():
            return node.kind.value
        case Items():
            return "a list"
        case Entries():
            return "a group of keys"


def read_document(text: str, *, source: str, most_values: int = MOST_VALUES) -> Node | tuple[Problem, ...]:
    """Read one YAML document; the problems found if it cannot be accepted. Never raises."""
    start = Place(file=source, line=1, column=1)
    if len(text) > MOST_BYTES or len(text.encode(errors="replace")) > MOST_BYTES:
        return (Problem(place=start, what="the file is larger than 1 MiB", instead="a policy is a few pages long"),)
    too_much = _lines_that_are_too_much(text, source)
    if too_much is not None:
        return (too_much,)
    builder = _Builder(source, most_values)
    try:
        node = builder.document(text)
    except _Refused as refused:
        return (refused.problem,)
    except MarkedYAMLError as error:
        return (_unreadable(error, source),)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        place = Place(file=source, line=line, column=column)
        return (Problem(place=place, what="a character that YAML does not allow", value=chr(error.character)),)
    except Exception as error:  # On some malformed texts the YAML library fails with errors that are not its own.
        what = f"the file cannot be read as YAML ({type(error).__name__})"
        return (Problem(place=start, what=what, instead="check its quotes, escapes and indentation"),)
    if builder.is_empty:
        return (Problem(place=start, what="the file is empty", instead="begin with version: 1"),)
    return tuple(builder.problems) if node is None or builder.problems else node


def _lines_that_are_too_much(text: str, source: str) -> Problem | None:
    words = 0
    for number, row in enumerate(text.splitlines(), start=1):
        if len(row) > LONGEST_LINE:
            place = Place(file=source, line=number, column=LONGEST_LINE + 1)
            return Problem(place=place, what=f"a line has more than {LONGEST_LINE} characters", instead="break it")
        if not row.startswith("#"):
            words += row.count(" ") + 1
        if words > MOST_WORDS or number > MOST_LINES:
            what = f"the file has more than {MOST_WORDS} words or {MOST_LINES} lines"
            return Problem(place=Place(file=source, line=number, column=1), what=what, instead="shorten or split it")
    return None


def values_in(node: Node) -> int:
    """Count the values of a tree, aliases expanded."""
    match node:
        case Scalar():
            return 1
        case Items():
            return 1 + sum(values_in(item) for item in node.items)
        case Entries():
            return 1 + sum(values_in(value) + 1 for _, value in node.entries)


def _unreadable(error: MarkedYAMLError, source: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
    what = " ".join(part for part in (error.context, error.problem) if part) or type(error).__name__
    instead = None
    if "alias" in what:
        instead = "put quotes around a text that begins with *"
    elif "\\t" in what or "tab" in what:
        instead = "indent with spaces"
    return Problem(
        place=Place(file=source, line=line, column=column),
        what="not readable as YAML: " + " ".join(what.split())[:200],
        instead=instead,
    )


class _Refused(Exception):
    """Reading on would take too long, or make no sense."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.what)
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class _Anchored:
    """What an anchor stands for: its node (None when it was refused), how many values it has and how deep it is."""

    node: Node | None
    values: int
    height: int


class _Builder:
    """Builds our tree from the library's events as they come: what is too much is refused before it is read."""

    def __init__(self, source: str, most_values: int) -> None:
        self._source = source
        self._most_values = most_values
        self._values = 0
        self._number = 0
        self._anchored: dict[str, _Anchored | None] = {}
        """None while the value of an anchor is being read."""
        self._reader = YAML(typ="safe", pure=True)
        self._events: Iterator[Event] = iter(())
        self.problems: list[Problem] = []
        self.is_empty = False

    def document(self, text: str) -> Node | None:
        """Return the only document of a text; None when it is empty or was refused."""
        self._events = iter(self._reader.parse(text))
        event = self._next()
        while not isinstance(event, DocumentStartEvent | StreamEndEvent):
            event = self._next()
        if isinstance(event, StreamEndEvent):
            self.is_empty = True
            return None
        node, _ = self._node(self._next(), depth=1)
        event = self._next()
        while not isinstance(event, StreamEndEvent):
            if isinstance(event, DocumentStartEvent):
                what = "not readable as YAML: expected a single document, found another one"
                raise _Refused(Problem(place=self._place(event), what=what, instead="remove the line ---"))
            event = self._next()
        return node

    def _next(self) -> Event:
        event = next(self._events)
        self._number += 1
        if self._number > 2 * self._most_values or self._values > self._most_values:
            what = f"the file has more than {self._most_values} values"
            raise _Refused(Problem(place=self._place(event), what=what, instead="shorten or split it"))
        return event

    def _node(self, event: Event, *, depth: int) -> tuple[Node | None, int]:
        """Return a node, None when it was refused, and how many levels it has."""
        place = self._place(event)
        if depth > MOST_DEPTH:
            what = f"values are nested more than {MOST_DEPTH} deep"
            raise _Refused(Problem(place=place, what=what, instead="a policy needs 6"))
        if isinstance(event, AliasEvent):
            return self._alias(event, place, depth)
        self._values += 1
        assert isinstance(event, ScalarEvent | CollectionStartEvent)
        anchor, before = event.anchor, self._values - 1
        if anchor is not None:
            self._anchored[anchor] = None
        node: Node | None
        if isinstance(event, ScalarEvent):
            node, height = self._scalar(event, place), 1
        elif isinstance(event, SequenceStartEvent):
            node, height = self._items(event, place, depth)
        else:
            node, height = self._entries(event, place, depth)
        if anchor is not None:
            # An anchor defined twice means its latest definition.
            self._anchored[anchor] = _Anchored(node=node, values=self._values - before, height=height)
        return node, height

    def _alias(self, event: AliasEvent, place: Place, depth: int) -> tuple[Node | None, int]:
        if event.anchor not in self._anchored:
            what, instead = f"not readable as YAML: undefined alias {event.anchor!r}", "text that begins with *"
            raise _Refused(Problem(place=place, what=what, instead=f"put quotes around a {instead}"))
        anchored = self._anchored[event.anchor]
        if anchored is None:
            what = "an alias inside of what it stands for"
            raise _Refused(Problem(place=place, what=what, value=event.anchor, instead="write the values out"))
        self._values += anchored.values
        if self._values > self._most_values:
            raise _too_much(place)
        if depth + anchored.height - 1 > MOST_DEPTH:
            raise _too_much(place)
        return anchored.node, anchored.height

    def _scalar(self, event: ScalarEvent, place: Place) -> Scalar | None:
        tag = event.ctag
        if tag is None or str(tag) == _NO_TAG:
            tag = self._reader.resolver.resolve(ScalarNode, event.value, event.implicit)
        kind = _KIND_BY_TAG.get(str(tag))
        if kind is None:
            if event.value == _MERGE_KEY and event.ctag is None:
                self._add(place, "merge keys are not allowed", _MERGE_KEY, "write the keys out")
            else:
                self._add(place, "tags are not allowed", str(tag), "remove it")
            return None
        return Scalar(place=place, kind=kind, text=str(event.value))

    def _items(self, start: SequenceStartEvent, place: Place, depth: int) -> tuple[Items | None, int]:
        items: list[Node] = []
        height = 0
        while not isinstance(event := self._next(), CollectionEndEvent):
            item, levels = self._node(event, depth=depth + 1)
            height = max(height, levels)
            if item is not None:
                items.append(item)
        is_plain = self._is_plain(start, _SEQUENCE_TAG, place)
        return (Items(place=place, items=tuple(items)) if is_plain else None), height + 1

    def _entries(self, start: CollectionStartEvent, place: Place, depth: int) -> tuple[Entries | None, int]:
        entries: list[tuple[Scalar, Node]] = []
        line_by_key: dict[str, int] = {}
        height = 0
        while not isinstance(event := self._next(), CollectionEndEvent):
            key, key_levels = self._key(event, depth)
            value, levels = self._node(self._next(), depth=depth + 1)
            height = max(height, levels, key_levels)
            if key is None:
                continue
            if key.text in line_by_key:
                first = line_by_key[key.text]
                self._add(key.place, f"the key is there twice, first in line {first}", key.text, "keep one of them")
                continue
            line_by_key[key.text] = key.place.line
            if value is not None:
                entries.append((key, value))
        is_plain = self._is_plain(start, _MAPPING_TAG, place)
        return (Entries(place=place, entries=tuple(entries)) if is_plain else None), height + 1

    def _key(self, event: Event, depth: int) -> tuple[Scalar | None, int]:
        noted = len(self.problems)
        key, levels = self._node(event, depth=depth + 1)
        if key is None or isinstance(key, Scalar):
            return key, levels
        del self.problems[noted:]
        self._add(self._place(event), "a key must be a plain text", None, "write key: value")
        return None, levels

    def _is_plain(self, event: CollectionStartEvent, tag: str, place: Place) -> bool:
        written = event.ctag
        if written is None or str(written) in (tag, _NO_TAG):
            return True
        self._add(place, "tags are not allowed", str(written), "remove it")
        return False

    def _place(self, event: Event) -> Place:
        mark = event.start_mark
        return Place(file=self._source, line=mark.line + 1, column=mark.column + 1)

    def _add(self, place: Place, what: str, value: str | None, instead: str) -> None:
        self.problems.append(Problem(place=place, what=what, value=value, instead=instead))


def _too_much(place: Place) -> _Refused:
    return _Refused(Problem(place=place, what="aliases expand to too much", instead="write the values out"))
