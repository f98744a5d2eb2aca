"""Rows that change a little at a time: a mapping made from another by a few changes, at the cost of these.

What was made from one mapping shares its rows, and has what is different in a small layer over them. So many versions
of a plan may be held, and what is different in two of them is found without a look at all rows. A value: neither the
rows nor the layer are ever changed.
"""

from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView
from enum import Enum, auto
from math import isqrt
from typing import Final, TypeVar, cast, overload

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

LEAST_LAYER = 16
"""A layer grows to so many rows at least, and to the root of how many there are below, before all are copied."""


class _Mark(Enum):
    """What a layer has instead of a row."""

    GONE = auto()


_GONE: Final = _Mark.GONE


class Layered(Mapping[K, V]):
    """Rows with a layer of changes over them. Made by `changed`; iterates as a dict does that was changed alike.

    But for one thing: a row that was taken out by one change and set again by a later one may keep its first place.
    """

    __slots__ = ("_base", "_layer", "_length")

    def __init__(self, base: dict[K, V], layer: dict[K, V | _Mark], length: int) -> None:
        self._base = base
        self._layer = layer
        self._length = length

    def __getitem__(self, key: K) -> V:
        value = self._layer.get(key)
        if value is None:
            return self._base[key]
        if value is _GONE:
            raise KeyError(key)
        return value

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, /, default: V | D) -> V | D: ...
    def get(self, key: K, /, default: object = None) -> object:
        value = self._layer.get(key)
        if value is None:
            return self._base.get(key, default)
        return default if value is _GONE else value

    def __contains__(self, key: object) -> bool:
        value = self._layer.get(key)  # type: ignore[arg-type]  # whatever it is, it may be looked for
        return key in self._base if value is None else value is not _GONE

    def __iter__(self) -> Iterator[K]:
        return iter(self.copied())

    def items(self) -> ItemsView[K, V]:
        return self.copied().items()

    def values(self) -> ValuesView[V]:
        return self.copied().values()

    def copied(self) -> dict[K, V]:
        """Return the same as a dict of one's own; costs a look at all rows, as iterating does."""
        rows: dict[K, V] = dict(self._base)
        for key, value in self._layer.items():
            if value is _GONE:
                rows.pop(key, None)
            else:
                rows[key] = value
        return rows

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"Layered({self.copied()!r})"


def changed(rows: Mapping[K, V], new: Mapping[K, V], gone: Sequence[K] = ()) -> Mapping[K, V]:
    """Return rows with some set and some taken out; what is both is set. No row is None.

    Costs what is changed, and once in a while a copy of all.
    """
    if not new and not gone:
        return rows
    dropped = dict.fromkeys([key for key in gone if key in rows and key not in new])
    if not new and not dropped:
        return rows
    base, layer = _parts(rows)
    layer = {**layer, **new}
    length = len(rows) - len(dropped) + len([key for key in new if key not in rows])
    for key in dropped:
        if key in base:
            layer[key] = _GONE
        else:
            del layer[key]
    made = Layered(base, layer, length)
    return made.copied() if len(layer) > LEAST_LAYER + isqrt(len(base)) else made


def different(before: Mapping[K, V], after: Mapping[K, V]) -> list[K]:
    """Return the keys whose rows are not the very same in two mappings, in no order.

    Costs what is different where one was made from the other, or both from a third; else a look at all.
    """
    base, layer = _parts(before)
    other_base, other_layer = _parts(after)
    if base is other_base:
        keys: Iterable[K] = layer.keys() | other_layer.keys()
        # Most of what is in both layers is the very same.
        apart = [key for key in keys if layer.get(key) is not other_layer.get(key)]
        return [key for key in apart if before.get(key) is not after.get(key)]
    found = [key for key, row in after.items() if before.get(key) is not row]
    if len(before) + sum(key not in before for key in found) > len(after):
        found += [key for key in before if key not in after]
    return found


def _parts(rows: Mapping[K, V]) -> tuple[dict[K, V], dict[K, V | _Mark]]:
    if isinstance(rows, Layered):
        return rows._base, rows._layer
    return cast(dict[K, V], rows) if isinstance(rows, dict) else dict(rows), {}
