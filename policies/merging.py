"""Several policy files as one: their trees become one tree, in which each value keeps its own file and line.

    version                      stands in every file
    windows, reserve,            lists of entries: one after another, in the order of the files' names
      maintenance, overrides
    images                       one after another, each once
    every group of keys          key by key: what stands in two files must be the same in both
    everything else              must be the same wherever it stands

A value that is not is a conflict, told at the later place with the earlier one. Knows no more of what keys mean.
"""

from collections.abc import Sequence

from policies.document import Entries, Items, Node, Scalar
from policies.problems import Problem

_JOINED = ("windows", "reserve", "maintenance", "overrides")
_UNITED = ("images",)


def merge(roots: Sequence[Entries], problems: list[Problem]) -> Entries:
    """Return one tree; conflicts are added to `problems`, and the earlier value is kept."""
    for root in roots[1:]:
        if root.get("version") is None:
            instead = "every file of a policy begins with version: 1"
            problems.append(Problem(place=root.place, what="policy has no version", instead=instead))
    merged = roots[0]
    for root in roots[1:]:
        merged = _groups(merged, root, (), problems)
    return merged


def _groups(one: Entries, other: Entries, path: tuple[str, ...], problems: list[Problem]) -> Entries:
    entries = {key.text: (key, node) for key, node in one.entries}
    for key, node in other.entries:
        if key.text not in entries:
            entries[key.text] = (key, node)
            continue
        first_key, first = entries[key.text]
        entries[key.text] = (first_key, _nodes(first, node, (*path, key.text), problems))
    return Entries(place=one.place, entries=tuple(entries.values()))


def _nodes(one: Node, other: Node, path: tuple[str, ...], problems: list[Problem]) -> Node:
    if isinstance(one, Entries) and isinstance(other, Entries):
        return _groups(one, other, path, problems)
    if isinstance(one, Items) and isinstance(other, Items) and len(path) == 1:
        if path[0] in _JOINED:
            return Items(place=one.place, items=(*one.items, *other.items))
        if path[0] in _UNITED:
            known = {_content(item) for item in one.items}
            more = tuple(item for item in other.items if _content(item) not in known)
            return Items(place=one.place, items=(*one.items, *more))
    if _content(one) != _content(other):
        what = f"{'.'.join(path)[:80]} is something else in {one.place}"
        value = f"{_text(other)} here, {_text(one)} there"
        problems.append(Problem(place=other.place, what=what, value=value, instead="keep one of them"))
    return one


def _content(node: Node) -> object:
    """Return what a node says, without its place; comparable."""
    match node:
        case Scalar():
            return (node.kind, node.text)
        case Items():
            return tuple(_content(item) for item in node.items)
        case Entries():
            return frozenset((key.text, _content(value)) for key, value in node.entries)


def _text(node: Node) -> str:
    match node:
        case Scalar():
            return node.text[:20]
        case Items():
            return f"a list of {len(node.items)}"
        case Entries():
            return f"a group of {len(node.entries)} keys"
