"""Reads the keys of one group of a policy file as typed values, and notes every problem on the way.

A reader never stops at a problem: it notes it and returns a placeholder of the right type, so that one run finds all of
them. The placeholders never get out: a file with a problem gives no policy. Knows types, not what a policy means.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import TypeVar

from policies.cron import BadCron, Cron, parse_cron
from policies.document import Entries, Items, Kind, Node, Scalar, kind_of
from policies.problems import Place, Problem
from policies.units import duration_text, parse_duration_s, parse_size_gib

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

MOST_ITEMS = 100
"""Items in one list or group."""
MOST_ENTRIES = 1000
"""Windows, reservations, groups, users: what many files of a policy may have together."""
_LONG_LISTS = frozenset({"windows", "reserve", "maintenance", "overrides", "members"})
_MOST_SHOWN = 20
_MOST_GUESSES = 300
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", re.ASCII)
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}", re.ASCII)
_OWNERS = "letters, digits and . _ @ + -, at most 64"
_GLOB = re.compile(r"[A-Za-z0-9._*?-]{1,64}", re.ASCII)
_PLAIN_WHOLE = re.compile(r"[0-9]{1,9}", re.ASCII)
_PLACEHOLDER_CRON = Cron(text="0 0 * * *", canonical="0 0 * * *")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that an unknown one is most like; None if it is like none."""
    return next(iter(difflib.get_close_matches(word[:80], list(known), n=1, cutoff=0.6)), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Say what to write instead of an unknown word: the nearest known one, or all of them."""
    words = list(known)
    near = nearest(word, words)
    if near is not None:
        return f"did you mean {near}?"
    if not words:
        return "there are none"
    if len(words) > _MOST_SHOWN:
        return "check its spelling"
    return "use " + (words[0] if len(words) == 1 else "one of " + ", ".join(words))


class Fields:
    """The keys of one group. `where` names it in messages: `windows night`."""

    def __init__(
        self,
        entries: Entries,
        *,
        where: str,
        known: tuple[str, ...],
        problems: list[Problem],
        other_names: Mapping[str, str] | None = None,
    ) -> None:
        self.where = where
        self.place = entries.place
        self.problems = problems
        self._node_by_key: dict[str, Node] = {}
        self._misspelt: set[str] = set()
        """Keys that an unknown key seems to stand for: that they are missing is not told on top."""
        for key, node in entries.entries:
            if key.text not in known:
                # Of very many nobody reads all, and looking for the nearest takes time.
                is_told = len(problems) < _MOST_GUESSES
                meant = (other_names or {}).get(key.text) or (nearest(key.text, known) if is_told else None)
                instead = (
                    did_you_mean(key.text, known if is_told else ()) if meant is None else f"did you mean {meant}?"
                )
                self.note(key.place, "has no such key", key.text, instead)
                self._misspelt.update(() if meant is None else (meant,))
                continue
            self._node_by_key[key.text] = node

    def note(self, place: Place, what: str, value: str | None = None, instead: str | None = None) -> None:
        """Note a problem of this group."""
        self.problems.append(Problem(place=place, what=f"{self.where} {what}", value=value, instead=instead))

    def has(self, key: str) -> bool:
        return key in self._node_by_key

    def place_of(self, key: str) -> Place:
        """Return where the value of a key stands, or the group if it is missing."""
        node = self._node_by_key.get(key)
        return self.place if node is None else node.place

    def is_last_told(self, key: str) -> bool:
        """Whether the problem that was noted last is of a key's value: what follows from it is none of its own."""
        return bool(self.problems) and self.problems[-1].place == self.place_of(key)

    def required(self, key: str, example: str) -> None:
        """Note a problem if the key is missing."""
        if key not in self._node_by_key and key not in self._misspelt:
            self.note(self.place, f"has no {key}", None, f"add {key}: {example}")

    def group(self, key: str) -> Entries | None:
        """Return a group of keys; None if it is absent or something else, which is noted."""
        node = self._node_by_key.get(key)
        if node is None or isinstance(node, Entries):
            return node
        self._wrong_type(key, node, "a group of keys")
        return None

    def items(self, key: str) -> tuple[Node, ...] | None:
        """Return a list; None if it is absent or something else, which is noted."""
        node = self._node_by_key.get(key)
        if node is None:
            return None
        if not isinstance(node, Items):
            self._wrong_type(key, node, "a list", hint=_as_list(node))
            return None
        most = MOST_ENTRIES if key in _LONG_LISTS else MOST_ITEMS
        if len(node.items) > most:
            self.note(node.place, f"{key} has more than {most} items", str(len(node.items)), "shorten it")
            return node.items[:most]
        return node.items

    def is_empty_list(self, key: str) -> bool:
        node = self._node_by_key.get(key)
        return isinstance(node, Items) and not node.items

    # What a value must be. Absent gives the default.

    def whole(self, key: str, default: T, *, least: int, most: int) -> int | T:
        node = self._node_by_key.get(key)
        return default if node is None else self._whole(key, node, least, most)

    def wholes(self, key: str, *, least: int, most: int) -> tuple[int, ...]:
        return tuple(self._whole(key, node, least, most) for node in self.items(key) or ())

    def truth(self, key: str, default: bool) -> bool:  # noqa: FBT001  the default is the value, not a switch
        node = self._node_by_key.get(key)
        if node is None:
            return default
        if isinstance(node, Scalar) and node.kind is Kind.TRUTH:
            return node.text.lower() == "true"
        self._wrong_type(key, node, "true or false")
        return default

    def duration_s(self, key: str, default: T, *, least_s: int, most_s: int) -> int | T:
        node = self._node_by_key.get(key)
        return default if node is None else self._duration_s(key, node, least_s, most_s)

    def durations_s(self, key: str, default: tuple[int, ...], *, least_s: int, most_s: int) -> tuple[int, ...]:
        """Return a list of durations, longest first."""
        items = self.items(key)
        if items is None:
            return default
        return tuple(sorted({self._duration_s(key, node, least_s, most_s) for node in items}, reverse=True))

    def size_gib(self, key: str, default: T, *, least_gib: int, most_gib: int) -> int | T:
        node = self._node_by_key.get(key)
        if node is None:
            return default
        text = self._scalar_text(key, node, "a size such as 100GiB", also=Kind.WHOLE)
        if text is None:
            return least_gib
        size_gib = parse_size_gib(text)
        if size_gib is None:
            number = re.match(r"[0-9]{0,6}", text)
            instead = f"write {number.group() if number and number.group() else 100}GiB"
            self.note(node.place, f"{key} is not a size in GiB or TiB", text, instead)
            return least_gib
        if not least_gib <= size_gib <= most_gib:
            self.note(node.place, f"{key} is out of range", text, f"use {least_gib}GiB to {most_gib}GiB")
        return size_gib

    def cron(self, key: str) -> Cron:
        node = self._node_by_key.get(key)
        if node is None:
            return _PLACEHOLDER_CRON
        text = self._scalar_text(key, node, 'a cron expression such as "0 20 * * mon-fri"')
        cron = None if text is None else parse_cron(text)
        if isinstance(cron, Cron):
            return cron
        if isinstance(cron, BadCron):
            self.note(node.place, f"{key}: {cron.what}", text, cron.instead)
        return _PLACEHOLDER_CRON

    def choice(self, key: str, default: T, choices: type[E]) -> E | T:
        node = self._node_by_key.get(key)
        return default if node is None else self._choice(key, node, choices)

    def choices(self, key: str, default: frozenset[E], choices: type[E]) -> frozenset[E]:
        items = self.items(key)
        return default if items is None else frozenset(self._choice(key, node, choices) for node in items)

    def known_word(self, key: str, default: T, known: Iterable[str], *, what: str) -> str | T:
        """Return a text that must be one of the known ones."""
        node = self._node_by_key.get(key)
        return default if node is None else self._known_word(key, node, tuple(known), what)

    def known_words(self, key: str, known: Iterable[str], *, what: str) -> tuple[str, ...]:
        known_words = tuple(known)
        return tuple(self._known_word(key, node, known_words, what) for node in self.items(key) or ())

    def name(self, key: str) -> str:
        """Return a name that may stand in keys and commands."""
        return self._matching(key, _NAME, "a name", "letters, digits, '.', '_', '-', at most 40, letter or digit first")

    def owner(self, key: str) -> str:
        return self._matching(key, _OWNER, "an owner", _OWNERS)

    def owners(self, key: str) -> tuple[str, ...]:
        return self._all_matching(key, _OWNER, "an owner", _OWNERS)

    def text(self, key: str, default: str) -> str:
        node = self._node_by_key.get(key)
        if node is None:
            return default
        text = self._scalar_text(key, node, "a text")
        return default if text is None else text

    def place_and_text(self, key: str, wanted: str) -> tuple[Place, str] | None:
        """Return a text with its place; None if it is absent or something else, which is noted."""
        node = self._node_by_key.get(key)
        text = None if node is None else self._scalar_text(key, node, wanted)
        return None if node is None or text is None else (node.place, text)

    def places_and_texts(self, key: str, wanted: str) -> list[tuple[Place, str]]:
        """Return the texts of a list, each with its place."""
        nodes = self.items(key) or ()
        texts = [(node.place, self._scalar_text(key, node, wanted)) for node in nodes]
        return [(place, text) for place, text in texts if text is not None]

    def keys(self) -> tuple[str, ...]:
        return tuple(self._node_by_key)

    def names(self, key: str) -> tuple[str, ...]:
        return self._all_matching(key, _NAME, "a name", "letters, digits, '.', '_', '-', at most 40")

    def globs(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        if key not in self._node_by_key:
            return default
        return self._all_matching(key, _GLOB, "a pattern of host names", "letters, digits, '.', '_', '-', '*', '?'")

    def is_name(self, text: str) -> bool:
        return _NAME.fullmatch(text) is not None

    def is_owner(self, text: str) -> bool:
        return _OWNER.fullmatch(text) is not None

    # How one value is read.

    def _matching(self, key: str, pattern: re.Pattern[str], what: str, allowed: str) -> str:
        node = self._node_by_key.get(key)
        return "" if node is None else self._match(key, node, pattern, what, allowed)

    def _all_matching(self, key: str, pattern: re.Pattern[str], what: str, allowed: str) -> tuple[str, ...]:
        return tuple(self._match(key, node, pattern, what, allowed) for node in self.items(key) or ())

    def _match(self, key: str, node: Node, pattern: re.Pattern[str], what: str, allowed: str) -> str:
        text = self._scalar_text(key, node, what)
        if text is None:
            return ""
        if pattern.fullmatch(text) is None:
            self.note(node.place, f"{key} is not {what}", text, f"use {allowed}")
        return text

    def _known_word(self, key: str, node: Node, known: tuple[str, ...], what: str) -> str:
        text = self._scalar_text(key, node, f"the name of {what}")
        if text is not None and text not in known:
            self.note(node.place, f"{key} is not {what}", text, did_you_mean(text, known))
        return text or ""

    def _choice(self, key: str, node: Node, choices: type[E]) -> E:
        members = list(choices)
        text = self._scalar_text(key, node, "one of " + ", ".join(members))
        if text is None:
            return members[0]
        for member in members:
            if member.value == text:
                return member
        self.note(node.place, f"{key} has an unknown choice", text, did_you_mean(text, [str(m) for m in members]))
        return members[0]

    def _whole(self, key: str, node: Node, least: int, most: int) -> int:
        if not isinstance(node, Scalar) or node.kind is not Kind.WHOLE or not _PLAIN_WHOLE.fullmatch(node.text):
            self._wrong_type(key, node, f"a whole number from {least} to {most}")
            return least
        number = int(node.text)
        if not least <= number <= most:
            self.note(node.place, f"{key} is out of range", node.text, f"use {least} to {most}")
            return least
        return number

    def _duration_s(self, key: str, node: Node, least_s: int, most_s: int) -> int:
        text = self._scalar_text(key, node, "a duration such as 90m, 12h or 7d", also=Kind.WHOLE)
        if text is None:
            return least_s
        seconds = parse_duration_s(text)
        if seconds is None:
            number = _PLAIN_WHOLE.fullmatch(text)
            instead = f"write {text}m or {text}h" if number else "write for instance 90m, 12h, 7d or 1h30m"
            what = f"{key} has no unit" if number else f"{key} is not a duration"
            self.note(node.place, what, text, instead)
            return least_s
        if not least_s <= seconds <= most_s:
            instead = f"use {duration_text(least_s)} to {duration_text(most_s)}"
            self.note(node.place, f"{key} is out of range", text, instead)
            return least_s
        return seconds

    def _scalar_text(self, key: str, node: Node, wanted: str, *, also: Kind | None = None) -> str | None:
        if isinstance(node, Scalar) and node.kind in (Kind.TEXT, also):
            return node.text
        self._wrong_type(key, node, wanted, hint=_as_text(node))
        return None

    def _wrong_type(self, key: str, node: Node, wanted: str, *, hint: str | None = None) -> None:
        if isinstance(node, Scalar) and node.kind is Kind.NOTHING:
            self.note(node.place, f"{key} has no value", None, f"write {wanted}, or remove the line")
            return
        value = node.text if isinstance(node, Scalar) else None
        self.note(node.place, f"{key} must be {wanted}, not {kind_of(node)}", value, hint)


def unique(
    items: Iterable[T], name: Callable[[T], str], place: Callable[[T], Place], where: str, problems: list[Problem]
) -> None:
    """Note every name that is there a second time."""
    place_by_name: dict[str, Place] = {}
    for item in items:
        first = place_by_name.get(name(item))
        if first is None:
            place_by_name[name(item)] = place(item)
        else:
            what = f"{where}: the name is taken by {place(item).told_of(first)}"
            problems.append(Problem(place=place(item), what=what, value=name(item), instead="choose another"))


def _as_list(node: Node) -> str | None:
    return f"write [{node.text}]" if isinstance(node, Scalar) and len(node.text) <= 40 else None


def _as_text(node: Node) -> str | None:
    return f'write "{node.text}"' if isinstance(node, Scalar) and len(node.text) <= 40 else None
