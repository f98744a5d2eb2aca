"""What was freed since bookings were last moved up: only whoever could use some of it is worth a look.

A booking that had no better place when it was looked at last has one now only where somebody has left since, or by a
limit that somebody has left room in.
"""

from collections.abc import Hashable, Iterable, Iterator
from operator import attrgetter

from scheduler.core.plan import BookedSpan, Reservation
from scheduler.core.spans import Instant

MOST_REMEMBERED = 1000
"""Of more than that everybody is looked at."""

Left = tuple[str, BookedSpan]
"""Whose booking it was, and the part of it that is free again."""


class Freed:
    """Mutable; not thread-safe."""

    def __init__(self) -> None:
        self._left: list[Left] | None = None
        """None: anything may have been freed."""
        self._by: Hashable = None
        self.takes = 0
        """How often it was asked what was freed."""

    def copy(self) -> "Freed":
        other = Freed()
        other._left = None if self._left is None else list(self._left)
        other._by = self._by
        return other

    def note(self, before: Reservation | None, after: Reservation | None) -> None:
        """A reservation was changed."""
        if before is None or self._left is None:
            return
        spans = () if after is None else after.spans
        if before.spans != spans:
            self._left += [(before.request.owner, part) for part in parts_freed(before.spans, spans)]
            if len(self._left) > MOST_REMEMBERED:
                self._left = None

    def note_all(self) -> None:
        """Something else was changed: windows, hosts, a policy."""
        self._left = None

    def take(self, by: Hashable) -> list[Left] | None:
        """Return what was freed since this was last asked, or None: anything may have been. `by`: what else counts."""
        left = self._left if by == self._by else None
        self._left, self._by = [], by
        self.takes += 1
        return left


_start_at = attrgetter("start_at")


def parts_freed(before: Iterable[BookedSpan], after: Iterable[BookedSpan]) -> Iterator[BookedSpan]:
    """Yield the parts of spans that no span after lies on."""
    in_order = sorted(after, key=_start_at)
    for span in before:
        start_at = span.start_at
        for kept in in_order:
            if kept.host != span.host or kept.partition != span.partition:
                continue
            if kept.end_at <= start_at or kept.start_at >= span.end_at:
                continue
            if kept.start_at > start_at:
                yield _part(span, start_at, kept.start_at)
            start_at = max(start_at, kept.end_at)
        if start_at < span.end_at:
            yield _part(span, start_at, span.end_at)


def _part(span: BookedSpan, start_at: Instant, end_at: Instant) -> BookedSpan:
    return BookedSpan(start_at=start_at, end_at=end_at, host=span.host, partition=span.partition)
