"""The index of free gaps of one size: what the earliest and the latest fit are found in.

Gaps lie in chunks; each chunk has an upper bound of how long its gaps are and how late they end, which is tightened
only when a scan found nothing. So has each block of chunks: of thousands a look passes by all but a few.
"""

from bisect import bisect_left, bisect_right

from scheduler.core.spans import Instant

BEGUN = -1
"""The start of what has begun."""

MOST_IN_CHUNK = 64

IN_BLOCK = 64
"""So many chunks have bounds together."""


class Gaps:
    """The gaps of all sets of one size, as (start, host, set, end), in that order."""

    __slots__ = ("block_latest", "block_longest", "chunks", "firsts", "latest", "longest")

    def __init__(self) -> None:
        self.chunks: list[list[tuple[int, int, int, int]]] = []
        self.firsts: list[tuple[int, int, int, int]] = []
        self.longest: list[int] = []
        self.latest: list[int] = []
        self.block_longest: list[int] = []
        self.block_latest: list[int] = []

    def add(self, gap: tuple[int, int, int, int], now: Instant) -> None:
        length_s = gap[3] - max(gap[0], now)
        if not self.chunks:
            self.chunks.append([gap])
            self.firsts.append(gap)
            self.longest.append(length_s)
            self.latest.append(gap[3])
            self.block_longest.append(length_s)
            self.block_latest.append(gap[3])
            return
        number = max(bisect_right(self.firsts, gap) - 1, 0)
        chunk = self.chunks[number]
        at = bisect_left(chunk, gap)
        chunk.insert(at, gap)
        if at == 0:
            self.firsts[number] = gap
        self.longest[number] = max(self.longest[number], length_s)
        self.latest[number] = max(self.latest[number], gap[3])
        self._widen(number // IN_BLOCK, number)
        if len(chunk) > MOST_IN_CHUNK:
            half = len(chunk) // 2
            self.chunks[number : number + 1] = [chunk[:half], chunk[half:]]
            self.firsts.insert(number + 1, chunk[half])
            self.longest.insert(number, self.longest[number])
            self.latest.insert(number, self.latest[number])
            self._moved_up(number + 1)

    def remove(self, gap: tuple[int, int, int, int]) -> None:
        number = bisect_right(self.firsts, gap) - 1
        chunk = self.chunks[number]
        at = bisect_left(chunk, gap)
        del chunk[at]
        if not chunk:
            del self.chunks[number], self.firsts[number], self.longest[number], self.latest[number]
            self._moved_down(number)
        elif at == 0:
            self.firsts[number] = chunk[0]

    def chunks_of(self, block: int) -> range:
        """Return the numbers of the chunks of a block."""
        return range(block * IN_BLOCK, min((block + 1) * IN_BLOCK, len(self.chunks)))

    def block_of(self, chunk: int) -> int:
        """Return the number of the block that a chunk is in."""
        return chunk // IN_BLOCK

    def tighten(self, number: int, now: Instant) -> None:
        chunk = self.chunks[number]
        self.longest[number] = max(end - (start if start > now else now) for start, _, _, end in chunk)
        self.latest[number] = max(gap[3] for gap in chunk)

    def tighten_block(self, block: int) -> None:
        chunks = slice(block * IN_BLOCK, (block + 1) * IN_BLOCK)
        self.block_longest[block] = max(self.longest[chunks])
        self.block_latest[block] = max(self.latest[chunks])

    def _widen(self, block: int, number: int) -> None:
        """Let the bounds of a block hold for one chunk more."""
        if self.longest[number] > self.block_longest[block]:
            self.block_longest[block] = self.longest[number]
        if self.latest[number] > self.block_latest[block]:
            self.block_latest[block] = self.latest[number]

    def _moved_up(self, number: int) -> None:
        """A chunk is new, and all after it are one further on: the last of each block is in the next."""
        if len(self.chunks) > IN_BLOCK * len(self.block_longest):
            self.block_longest.append(self.longest[-1])
            self.block_latest.append(self.latest[-1])
        self._widen(number // IN_BLOCK, number)
        for block in range(number // IN_BLOCK + 1, len(self.block_longest)):
            self._widen(block, block * IN_BLOCK)

    def _moved_down(self, number: int) -> None:
        """A chunk is gone, and all after it are one further back: the first of each block is in the one before."""
        last = (len(self.chunks) - 1) // IN_BLOCK
        del self.block_longest[last + 1 :], self.block_latest[last + 1 :]
        for block in range(number // IN_BLOCK, last):
            self._widen(block, (block + 1) * IN_BLOCK - 1)
