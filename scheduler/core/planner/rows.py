"""Rows that are being changed, with a journal: what was changed since when is told, or undone, at that cost."""

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Rows(dict[K, V]):
    """A dict that remembers what was there. Changed by `rows[key] = value` and `del rows[key]` alone."""

    def __init__(self, rows: dict[K, V]) -> None:
        super().__init__(rows)
        self._journal: list[tuple[K, V | None]] = []

    def __setitem__(self, key: K, value: V) -> None:
        self._journal.append((key, self.get(key)))
        super().__setitem__(key, value)

    def __delitem__(self, key: K) -> None:
        self._journal.append((key, self[key]))
        super().__delitem__(key)

    def mark(self) -> int:
        """Return where the journal is now."""
        return len(self._journal)

    def before(self, mark: int = 0) -> dict[K, V | None]:
        """Return what was written since a mark as it was then; None: it was not there. Some may be there again."""
        found: dict[K, V | None] = {}
        for key, value in self._journal[mark:]:
            found.setdefault(key, value)
        return found

    def differs_from(self, mark: int) -> bool:
        """Whether any row is different from what it was at a mark."""
        return any(self.get(key) != was for key, was in self.before(mark).items())

    def undo(self, mark: int) -> None:
        """Bring everything back to what it was at a mark."""
        for key, value in self.before(mark).items():
            if value is None:
                super().pop(key, None)
            else:
                super().__setitem__(key, value)
        del self._journal[mark:]
