"""How many GPUs are free from now on, for schedulers to whom any GPU is as good as another. Must not know requests."""

from bisect import bisect_left, bisect_right

NEVER = 1 << 62
"""After all instants."""


class Profile:
    """Free GPUs from now on, as steps."""

    def __init__(self, gpus: int, now: int = 0) -> None:
        self._at = [now]
        self._free = [gpus]

    def copy(self) -> "Profile":
        twin = Profile(0)
        twin._at, twin._free = self._at.copy(), self._free.copy()
        return twin

    def advance(self, now: int) -> None:
        """Forget what lies before now."""
        past = bisect_right(self._at, now) - 1
        if past > 0:
            del self._at[:past], self._free[:past]
        self._at[0] = now

    def take(self, gpus: int, start_at: int, end_at: int) -> None:
        """Take GPUs for [start, end); give them back with a negative number."""
        if start_at >= end_at:
            return
        first, last = self._split(start_at), self._split(end_at)
        free = self._free
        for step in range(first, last):
            free[step] -= gpus
        # What lies between differs as it did; only the two edges may have vanished.
        for edge in (last, first):
            if edge and free[edge] == free[edge - 1]:
                del self._at[edge], free[edge]

    def move(self, gpus: int, length_s: int, from_at: int, to_at: int) -> None:
        """Move what is taken from `from_at` on to an earlier instant."""
        self.take(gpus, to_at, min(from_at, to_at + length_s))
        self.take(-gpus, max(from_at, to_at + length_s), from_at + length_s)

    def earliest(self, gpus: int, length_s: int, from_at: int) -> int:
        """Return the first instant from which on the GPUs are free for that long. The last step is free of all."""
        at, free = self._at, self._free
        step, last = bisect_right(at, from_at) - 1, len(at) - 1
        start_at = from_at
        while True:
            if free[step] < gpus:
                step += 1
                while free[step] < gpus:
                    step += 1
                start_at = at[step]
            if step == last or at[step + 1] - start_at >= length_s:
                return start_at
            step += 1

    def earlier(self, gpus: int, length_s: int, before_at: int, until_at: int) -> int | None:
        """Return the first instant at which a booking that now starts at `before_at` would fit, if there is one.

        Only starts before `until_at` are looked at. What the booking itself holds is free to it.
        """
        at, free = self._at, self._free
        last = len(at) - 1
        step, start_at = 0, at[0]
        while start_at < until_at:
            if free[step] < gpus:
                step += 1
                while free[step] < gpus:
                    step += 1
                start_at = at[step]
                if start_at >= until_at:
                    return None
            next_at = at[step + 1] if step < last else NEVER
            if next_at - start_at >= length_s or next_at >= before_at:
                return start_at
            step += 1
        return None

    def _split(self, at: int) -> int:
        """Return the step that begins then."""
        step = bisect_left(self._at, at)
        if step == len(self._at) or self._at[step] != at:
            self._at.insert(step, at)
            self._free.insert(step, self._free[step - 1])
        return step


class Bounds:
    """What is known while a plan only fills up: as many GPUs for as long are not free before."""

    def __init__(self, now: int) -> None:
        self._now = now
        self._by_gpus: dict[int, tuple[list[int], list[int]]] = {}
        """Lengths and instants, both growing."""

    def of(self, gpus: int, length_s: int) -> int:
        """Return an instant before which they are not."""
        bound_at = self._now
        for fewer, (lengths, ats) in self._by_gpus.items():
            if fewer <= gpus:
                known = bisect_right(lengths, length_s)
                if known and ats[known - 1] > bound_at:
                    bound_at = ats[known - 1]
        return bound_at

    def add(self, gpus: int, length_s: int, at: int) -> None:
        """Note where a search ended."""
        lengths, ats = self._by_gpus.setdefault(gpus, ([], []))
        place = bisect_left(lengths, length_s)
        worse = place
        while worse < len(ats) and ats[worse] <= at:
            worse += 1
        lengths[place:worse], ats[place:worse] = [length_s], [at]
