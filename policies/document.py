"""A YAML text as a tree of plain values, each with its place; what a policy may not contain is refused here.

Refused: files over 1 MiB, more than one document, too many or too deeply nested values (also by way of aliases, which
are expanded), a key twice, keys that are not text, tags and merge keys. Knows nothing of what a policy means.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.nodes import Node as YamlNode
from ruamel.yaml.reader import ReaderError

from policies.problems import Place, Problem

MOST_BYTES = 1024 * 1024
MOST_VALUES = 20_000
"""Values in a file, aliases expanded. The reader takes about half a second for as many."""
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


def read_document(text: str, *, source: str) -> Node | tuple[Problem, ...]:
    """Read one YAML document; the problems found if it cannot be accepted. Never raises."""
    start = Place(file=source, line=1, column=1)
    if len(text) > MOST_BYTES or len(text.encode(errors="replace")) > MOST_BYTES:
        return (Problem(place=start, what="the file is larger than 1 MiB", instead="a policy is a few pages long"),)
    for number, row in enumerate(text.splitlines(), start=1):
        if len(row) > LONGEST_LINE:
            place = Place(file=source, line=number, column=LONGEST_LINE + 1)
            return (Problem(place=place, what=f"a line has more than {LONGEST_LINE} characters", instead="break it"),)
    try:
        root = _compose(text, start)
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
    if isinstance(root, Problem):
        return (root,)
    if root is None:
        return (Problem(place=start, what="the file is empty", instead="begin with version: 1"),)
    walk = _Walk(source)
    node = walk.node(root, depth=1)
    return tuple(walk.problems) if node is None or walk.problems else node


def _compose(text: str, start: Place) -> YamlNode | Problem | None:
    """Return the root node. The events are counted first: reading them stops early, composing them does not."""
    depth = 0
    for number, event in enumerate(_reader().parse(text)):
        depth += isinstance(event, CollectionStartEvent)
        depth -= isinstance(event, CollectionEndEvent)
        mark = event.start_mark
        place = Place(file=start.file, line=mark.line + 1, column=mark.column + 1)
        if depth > MOST_DEPTH:
            return Problem(
                place=place, what=f"values are nested more than {MOST_DEPTH} deep", instead="a policy needs 4"
            )
        if number > 2 * MOST_VALUES:
            return Problem(
                place=place, what=f"the file has more than {MOST_VALUES} values", instead="shorten or split it"
            )
    root: YamlNode | None = _reader().compose(text)
    return root


def _reader() -> YAML:
    reader = YAML(typ="safe", pure=True)
    # An anchor defined twice means its latest definition; a warning on standard error would reach nobody.
    reader.composer.warn_double_anchors = False
    return reader


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


class _Walk:
    """Turns the library's nodes into ours, collecting every problem."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._left = MOST_VALUES
        self.problems: list[Problem] = []

    def node(self, node: YamlNode, *, depth: int) -> Node | None:
        """Return our node; None when it was refused."""
        place = Place(file=self._source, line=node.start_mark.line + 1, column=node.start_mark.column + 1)
        self._left -= 1
        if self._left <= 0 or depth > MOST_DEPTH:
            # Only aliases lead here: what is written out was counted before. Said once, and nothing more is expanded.
            if self._left > -MOST_VALUES:
                self._left = -MOST_VALUES
                self._add(place, "aliases expand to too much", None, "write the values out")
            return None
        if isinstance(node, ScalarNode):
            return self._scalar(node, place)
        if isinstance(node, SequenceNode):
            if not self._is_plain(node, _SEQUENCE_TAG, place):
                return None
            items = [self.node(item, depth=depth + 1) for item in node.value]
            return Items(place=place, items=tuple(item for item in items if item is not None))
        if not isinstance(node, MappingNode) or not self._is_plain(node, _MAPPING_TAG, place):
            return None
        return self._entries(node, place, depth)

    def _scalar(self, node: ScalarNode, place: Place) -> Scalar | None:
        kind = _KIND_BY_TAG.get(str(node.tag))
        if kind is None:
            self._add(place, "tags are not allowed", str(node.tag), "remove it")
            return None
        return Scalar(place=place, kind=kind, text=str(node.value))

    def _entries(self, node: MappingNode, place: Place, depth: int) -> Entries:
        entries: list[tuple[Scalar, Node]] = []
        line_by_key: dict[str, int] = {}
        for key_node, value_node in node.value:
            if self._left <= 0:
                break
            key = self._key(key_node)
            value = self.node(value_node, depth=depth + 1)
            if key is None:
                continue
            if key.text in line_by_key:
                first = line_by_key[key.text]
                self._add(key.place, f"the key is there twice, first in line {first}", key.text, "keep one of them")
                continue
            line_by_key[key.text] = key.place.line
            if value is not None:
                entries.append((key, value))
        return Entries(place=place, entries=tuple(entries))

    def _key(self, node: YamlNode) -> Scalar | None:
        place = Place(file=self._source, line=node.start_mark.line + 1, column=node.start_mark.column + 1)
        if not isinstance(node, ScalarNode):
            self._add(place, "a key must be a plain text", None, "write key: value")
            return None
        if node.value == _MERGE_KEY:
            self._add(place, "merge keys are not allowed", _MERGE_KEY, "write the keys out")
            return None
        return self._scalar(node, place)

    def _is_plain(self, node: YamlNode, tag: str, place: Place) -> bool:
        if str(node.tag) == tag:
            return True
        self._add(place, "tags are not allowed", str(node.tag), "remove it")
        return False

    def _add(self, place: Place, what: str, value: str | None, instead: str) -> None:
        self.problems.append(Problem(place=place, what=what, value=value, instead=instead))
