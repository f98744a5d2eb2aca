"""Patterns of host names: whether two of them can name one host. No host needs to exist for that."""

import re
from collections.abc import Iterable
from functools import lru_cache

_WILD = re.compile(r"[*?]")


def share_a_host(one: Iterable[str], other: Iterable[str]) -> bool:
    """Whether some host name matches a glob of both."""
    others = tuple(other)
    return any(globs_meet(glob, another) for glob in one for another in others)


@lru_cache(maxsize=65536)
def globs_meet(one: str, other: str) -> bool:
    """Whether some name matches both globs, made of plain characters, `?` and `*`."""
    begins, other_begins = _beginning(one), _beginning(other)
    if not begins.startswith(other_begins) and not other_begins.startswith(begins):
        return False
    # reach[j]: what was read of `one` and the first j characters of `other` can match the same beginning of a name.
    reach = [True] + [False] * len(other)
    for j, character in enumerate(other):
        reach[j + 1] = reach[j] and character == "*"
    for mine in one:
        row = [reach[0] and mine == "*"]
        for j, theirs in enumerate(other):
            if mine == "*" or theirs == "*":
                # A star takes nothing, or one more of what stands opposite and stays.
                row.append(reach[j + 1] or row[j])
            else:
                row.append(reach[j] and (mine == theirs or "?" in (mine, theirs)))
        reach = row
    return reach[-1]


def _beginning(glob: str) -> str:
    """Return what every name that matches begins with."""
    return _WILD.split(glob, maxsplit=1)[0]
