"""The calendar in Python: bookings of one set of GPUs for a span, and an index of all free gaps.

For each size there is one index of all maximal free gaps of all sets of that size, on all hosts, in order of their
start. The earliest fit is the first gap in it that is long enough, so its cost does not grow with the number of hosts.
A booking changes the gaps of the sets that share a GPU with its own (5 to 31 on aligned blocks of 16 GPUs), a few
microseconds each. The index itself is in `gaps`.

Everything is clipped at `now`: a gap that has begun starts at `BEGUN`, so what lies behind plays no part, and equal
bookings give equal answers, however they came to be. A booking may be cut at the edges of stretches, and goes on in
the next one on the same set (`Fit.lead_s`). `compiled` is the same in C; both give the same results, which
tests hold them to. Instants are whole seconds.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Mapping, Sequence

from scheduler.core.calendar.bookings import (
    FIXED,
    MOST_DISPLACED,
    MOST_EVER_DISPLACED,
    MOST_PIECES,
    ONE_PIECE,
    Booking,
    Fit,
    Place,
    Rooms,
)
from scheduler.core.calendar.gaps import BEGUN, Gaps
from scheduler.core.calendar.kinds import Kind
from scheduler.core.errors import BrokenInvariant
from scheduler.core.spans import FOREVER, Instant

MOST_TIED = 64
"""So many gaps of one earliest start are looked at for the one that breaks up least."""

MOST_FREE = 64
"""So many blocks that are free now are looked at for one that a booking could start on by displacing others."""

MOST_TRIES = 4
"""On so many of them it is tried."""


class _Host:
    """What is booked on one host."""

    __slots__ = (
        "begin",
        "ends",
        "gap_ends",
        "gap_starts",
        "is_silent",
        "keys",
        "kind",
        "label",
        "number_of_kind",
        "starts",
    )

    def __init__(self, kind: Kind, number_of_kind: int, label: int) -> None:
        self.number_of_kind = number_of_kind
        sets, gpus = range(len(kind.masks)), range(kind.gpu_count)
        self.kind = kind
        self.label = label
        self.is_silent = False
        self.begin: list[Instant] = [0 for _ in sets]
        """From when on each set may be booked; FOREVER: not at all."""
        self.gap_starts: list[list[Instant]] = [[BEGUN] for _ in sets]
        self.gap_ends: list[list[Instant]] = [[FOREVER] for _ in sets]
        self.starts: list[list[Instant]] = [[] for _ in gpus]
        self.ends: list[list[Instant]] = [[] for _ in gpus]
        self.keys: list[list[int]] = [[] for _ in gpus]


class PureCalendar:
    """The bookings of a fleet. Bookings are numbered by the caller."""

    def __init__(self, now: Instant) -> None:
        self.now = now
        self._hosts: list[_Host] = []
        self._kinds: list[Kind] = []
        self._by_size: dict[int, Gaps] = {}
        self._bookings: dict[int, Booking] = {}
        self._shapes: list[dict[int, tuple[list[Instant], list[Instant], list[bool]]]] = []

    # ---- hosts

    def add_host(self, kind: Kind, label: int = 0) -> int:
        """Add a host with nothing on it; return its number. `label` says which storage it reaches.

        Kinds are numbered from 0, in the order in which they first come.
        """
        number = len(self._hosts)
        if not any(known is kind for known in self._kinds):
            self._kinds.append(kind)
        number_of_kind = next(n for n, known in enumerate(self._kinds) if known is kind)
        self._hosts.append(_Host(kind, number_of_kind, label))
        for place, size in enumerate(kind.sizes):
            self._by_size.setdefault(size, Gaps()).add((BEGUN, number, place, FOREVER), self.now)
        return number

    def set_silent(self, host: int, *, is_silent: bool) -> None:
        self._hosts[host].is_silent = is_silent

    def set_begin(self, host: int, place: int, at: Instant) -> None:
        """Say from when on a set may be booked: 0, an instant, or FOREVER while it may not."""
        self._hosts[host].begin[place] = at

    def add_shape(self) -> int:
        """Return the number of a new set of stretches; hosts without any are closed to it."""
        self._shapes.append({})
        return len(self._shapes) - 1

    def set_stretches(
        self, shape: int, hosts: Iterable[int], stretches: Sequence[tuple[Instant, Instant, bool]]
    ) -> None:
        """Give a shape its stretches on hosts, in order: start, end, and whether it may be parked at the end."""
        mine = (
            [start for start, _, _ in stretches],
            [end for _, end, _ in stretches],
            [may_park for _, _, may_park in stretches],
        )
        # Most hosts have those of the first: what is worked out for one holds for all that share them.
        first = next(iter(self._shapes[shape].values()), None)
        mine = first if first == mine else mine
        for host in hosts:
            self._shapes[shape][host] = mine

    # ---- time

    def advance(self, now: Instant) -> None:
        """Move on to an instant; what has ended by then has to have been freed, or plays no part any more."""
        if now < self.now:
            raise BrokenInvariant(f"the calendar cannot go back from {self.now} to {now}")
        self.now = now
        for gaps in self._by_size.values():
            begun = []
            number = max(bisect_right(gaps.firsts, (0, -1, -1, -1)) - 1, 0)
            while number < len(gaps.chunks) and gaps.firsts[number][0] <= now:
                begun += [gap for gap in gaps.chunks[number] if BEGUN < gap[0] <= now]
                number += 1
            for gap in begun:
                self._begin_gap(gaps, gap)

    def _begin_gap(self, gaps: Gaps, gap: tuple[int, int, int, int]) -> None:
        start, host, place, end = gap
        mine = self._hosts[host]
        at = bisect_left(mine.gap_starts[place], start)
        gaps.remove(gap)
        # Whatever lies before it is over.
        for over in range(at):
            gaps.remove((mine.gap_starts[place][over], host, place, mine.gap_ends[place][over]))
        if end > self.now:
            mine.gap_starts[place][at] = BEGUN
            gaps.add((BEGUN, host, place, end), self.now)
        else:
            at += 1
        del mine.gap_starts[place][:at], mine.gap_ends[place][:at]

    # ---- booking

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes that there are, ascending."""
        return tuple(sorted(self._by_size))

    def booking(self, key: int) -> Booking:
        return self._bookings[key]

    def __len__(self) -> int:
        return len(self._bookings)

    def book(self, key: int, place: Place, fit: Fit, due_at: Instant = FIXED) -> None:
        """Book a place, in the pieces that its windows make of it.

        Raises BrokenInvariant when a GPU of it is booked then, or the key is in use.
        """
        pieces: tuple[tuple[Instant, Instant], ...] = ((place.start_at, place.end_at),)
        if fit.lead_s != ONE_PIECE:
            pieces = tuple(self._walk(place.host, place.set, place.start_at, fit))
            if not pieces or pieces[-1][1] != place.end_at:
                raise BrokenInvariant(f"set {place.set} of host {place.host} is already booked or closed in {place}")
        self.book_pieces(key, place.host, place.set, pieces, fit, due_at)

    def book_pieces(
        self,
        key: int,
        host: int,
        chosen: int,
        pieces: Sequence[tuple[Instant, Instant]],
        fit: Fit,
        due_at: Instant = FIXED,
    ) -> None:
        """Book pieces as they are, whatever windows there are. Raises as `book` does."""
        place = Place(pieces[0][0], pieces[-1][1], host, chosen)
        if key in self._bookings:
            raise BrokenInvariant(f"booking {key} is booked already")
        if not all(self.is_free(host, chosen, start, end) for start, end in pieces):
            raise BrokenInvariant(f"set {chosen} of host {host} is already booked in {place}")
        self._put_in(key, Booking(place, fit, due_at, tuple(pieces) if len(pieces) > 1 else ()))

    def _put_in(self, key: int, booking: Booking) -> None:
        """Enter a booking whose GPUs are free then."""
        self._bookings[key] = booking
        for piece in self._pieces(booking):
            self._take(key, piece)

    def _pieces(self, booking: Booking) -> list[Place]:
        place = booking.place
        if not booking.pieces:
            return [place]
        return [Place(start, end, place.host, place.set) for start, end in booking.pieces]

    def free(self, key: int) -> Booking:
        """Take a booking out; return it."""
        booking = self._bookings.pop(key)
        for piece in self._pieces(booking):
            self._give(key, piece, piece.start_at)
        return booking

    def drop(self, key: int) -> None:
        """Take a booking out."""
        self.free(key)

    def set_due(self, key: int, due_at: Instant) -> None:
        self._bookings[key] = self._bookings[key]._replace(due_at=due_at)

    def end_at(self, key: int, end_at: Instant) -> None:
        """Let a booking of one piece end at another instant. Raises BrokenInvariant when somebody is in the way."""
        booking = self._bookings[key]
        if booking.pieces:
            raise KeyError(key)
        place = booking.place
        if not place.start_at < end_at:
            raise BrokenInvariant(f"booking {key} of {place} cannot end at {end_at}")
        if end_at > place.end_at and not self.is_free(place.host, place.set, place.end_at, end_at):
            raise BrokenInvariant(f"booking {key} of {place} cannot go on to {end_at}: its set is booked")
        self._give(key, place, place.start_at)
        longer = place._replace(end_at=end_at)
        self._bookings[key] = booking._replace(place=longer)
        self._take(key, longer)

    def _take(self, key: int, place: Place) -> None:
        start, end, number, chosen = place
        host, now = self._hosts[number], self.now
        if end <= now:
            return
        for gpu in host.kind.gpus[chosen]:
            at = bisect_left(host.starts[gpu], start)
            host.starts[gpu].insert(at, start)
            host.ends[gpu].insert(at, end)
            host.keys[gpu].insert(at, key)
        from_at = max(start, now)
        for other in host.kind.conflicts[chosen]:
            starts, ends = host.gap_starts[other], host.gap_ends[other]
            gaps = self._by_size[host.kind.sizes[other]]
            at = bisect_right(ends, from_at)
            first = at
            pieces: list[tuple[Instant, Instant]] = []
            while at < len(starts) and starts[at] < end:
                gap_start, gap_end = starts[at], ends[at]
                gaps.remove((gap_start, number, other, gap_end))
                if gap_start < from_at and start > now:
                    pieces.append((gap_start, from_at))
                if gap_end > end:
                    pieces.append((end, gap_end))
                at += 1
            starts[first:at] = [piece[0] for piece in pieces]
            ends[first:at] = [piece[1] for piece in pieces]
            for piece_start, piece_end in pieces:
                gaps.add((piece_start, number, other, piece_end), now)

    def _give(self, key: int, place: Place, from_start: Instant) -> None:
        _, end, number, chosen = place
        host, now = self._hosts[number], self.now
        if end <= now:
            self._forget(key, place)
            return
        self._forget(key, place)
        from_at = max(from_start, now)
        mine = host.kind.masks[chosen]
        for other in host.kind.conflicts[chosen]:
            gaps = self._by_size[host.kind.sizes[other]]
            starts, ends = host.gap_starts[other], host.gap_ends[other]
            for piece_start, piece_end in self._free_pieces(host, other, mine, from_at, end):
                # What ended by now is over: it goes as soon as its set is touched.
                at = bisect_left(ends, piece_start) if piece_start > now else 0
                new_start = BEGUN if piece_start <= now else piece_start
                last = at
                if at < len(ends) and ends[at] == piece_start and piece_start > now:
                    new_start = starts[at]
                    gaps.remove((starts[at], number, other, ends[at]))
                    last = at + 1
                while last < len(ends) and ends[last] <= now:
                    gaps.remove((starts[last], number, other, ends[last]))
                    last += 1
                if last < len(starts) and starts[last] == piece_end:
                    gaps.remove((starts[last], number, other, ends[last]))
                    piece_end = ends[last]
                    last += 1
                starts[at:last] = [new_start]
                ends[at:last] = [piece_end]
                gaps.add((new_start, number, other, piece_end), now)

    def _forget(self, key: int, place: Place) -> None:
        """Take a booking off the lists of its GPUs, with what is over on them."""
        host = self._hosts[place.host]
        for gpu in host.kind.gpus[place.set]:
            starts, ends, keys = host.starts[gpu], host.ends[gpu], host.keys[gpu]
            at = bisect_left(starts, place.start_at)
            if at < len(keys) and keys[at] == key:
                del starts[at], ends[at], keys[at]

    def _free_pieces(
        self, host: _Host, chosen: int, mine: int, start: Instant, end: Instant
    ) -> list[tuple[Instant, Instant]]:
        """Return when a set is free in `[start, end)`, of whose GPUs those in `mine` are."""
        if not host.kind.masks[chosen] & ~mine:
            return [(start, end)]
        busy = []
        for gpu in host.kind.gpus[chosen]:
            if mine >> gpu & 1:
                continue
            starts, ends = host.starts[gpu], host.ends[gpu]
            at = bisect_right(ends, start)
            while at < len(starts) and starts[at] < end:
                busy.append((starts[at], ends[at]))
                at += 1
        if not busy:
            return [(start, end)]
        busy.sort()
        pieces, cursor = [], start
        for busy_start, busy_end in busy:
            if busy_start > cursor:
                pieces.append((cursor, busy_start))
            cursor = max(cursor, busy_end)
        if cursor < end:
            pieces.append((cursor, end))
        return pieces

    # ---- asking

    def is_free(self, host: int, place: int, start_at: Instant, end_at: Instant) -> bool:
        """Whether nothing is booked on a set in `[start_at, end_at)`, from now on."""
        if end_at <= self.now:
            return True
        mine = self._hosts[host]
        start_at = max(start_at, self.now)
        at = bisect_right(mine.gap_ends[place], start_at)
        return (
            at < len(mine.gap_ends[place])
            and mine.gap_starts[place][at] <= start_at
            and (mine.gap_ends[place][at] >= end_at)
        )

    def free_sizes(self, sizes: Iterable[int]) -> set[int]:
        """Return those sizes of which some set is free at this instant."""
        return {size for size in sizes if self.earliest(Fit(size, 1, 1), self.now, self.now) is not None}

    def free_hosts(self, size: int) -> list[int]:
        """Return the hosts on which some set of a size is free at this instant, in order."""
        gaps = self._by_size.get(size)
        found: list[int] = []
        for gap_start, number, chosen, gap_end in () if gaps is None else (g for chunk in gaps.chunks for g in chunk):
            if gap_start != BEGUN:
                break
            host = self._hosts[number]
            if (
                gap_end > self.now
                and not host.is_silent
                and host.begin[chosen] <= self.now
                and number not in found[-1:]
            ):
                found.append(number)
        return found

    def free_until(self, host: int, place: int, from_at: Instant) -> Instant:
        """Return until when a set is free from an instant on; that instant itself when it is not."""
        mine = self._hosts[host]
        at = bisect_right(mine.gap_ends[place], from_at)
        if at < len(mine.gap_ends[place]) and mine.gap_starts[place][at] <= from_at:
            return mine.gap_ends[place][at]
        return from_at

    def gaps(self, host: int, place: int, start_at: Instant, end_at: Instant) -> list[tuple[Instant, Instant]]:
        """Return the whole gaps of a set that have any time in common with `[start_at, end_at)`, in order."""
        mine = self._hosts[host]
        starts, ends = mine.gap_starts[place], mine.gap_ends[place]
        at = bisect_right(ends, max(start_at, self.now))
        found = []
        while at < len(starts) and starts[at] < end_at:
            found.append((starts[at], ends[at]))
            at += 1
        return found

    def conflicts(self, host: int, place: int, start_at: Instant, end_at: Instant) -> list[int]:
        """Return the bookings on any GPU of a set in `[start_at, end_at)`, by number."""
        mine = self._hosts[host]
        found: set[int] = set()
        for gpu in mine.kind.gpus[place]:
            ends = mine.ends[gpu]
            at = bisect_right(ends, start_at)
            while at < len(ends) and mine.starts[gpu][at] < end_at:
                found.add(mine.keys[gpu][at])
                at += 1
        return sorted(found)

    def earliest(
        self, fit: Fit, from_at: Instant, latest_at: Instant = FOREVER, first_at: Sequence[Instant] | None = None
    ) -> Place | None:
        """Return the earliest place that starts in `[from_at, latest_at]`; of several what breaks up least.

        `first_at`: of each host by number, when it may start there at the earliest.
        """
        return self._earliest(fit, from_at, latest_at, (), first_at)

    def _earliest(
        self,
        fit: Fit,
        from_at: Instant,
        latest_at: Instant,
        shut: Container[int],
        first_at: Sequence[Instant] | None = None,
    ) -> Place | None:
        """Return the earliest place on hosts that are not shut."""
        gaps = self._by_size.get(fit.size)
        if gaps is None:
            return None
        from_at = max(from_at, self.now)
        best: Place | None = None
        best_at, best_level, tied = latest_at + 1, 0, 0
        shortest_s, firsts = fit.shortest_s, gaps.firsts
        until_at = from_at + shortest_s
        for block, block_longest_s in enumerate(gaps.block_longest):
            start = firsts[gaps.chunks_of(block).start][0]
            if start >= best_at and start > from_at:
                break
            if block_longest_s < shortest_s or gaps.block_latest[block] < until_at:
                continue
            seen = False
            for number in gaps.chunks_of(block):
                if gaps.longest[number] < shortest_s or gaps.latest[number] < until_at:
                    continue
                start = firsts[number][0]
                if start >= best_at and start > from_at:
                    break
                seen, fitted = True, False
                for gap_start, host_number, place, gap_end in gaps.chunks[number]:
                    if gap_end < until_at:
                        continue
                    if gap_start >= best_at and gap_start > from_at:
                        break
                    start = gap_start if gap_start > from_at else from_at
                    if gap_end - start < shortest_s:
                        continue
                    fitted = True
                    host = self._hosts[host_number]
                    if host_number in shut or not self._may_use(host, fit):
                        continue
                    if first_at is not None:
                        start = max(start, first_at[host_number])
                    found = self._fit(host_number, place, host.begin[place], start, gap_end, fit, best_at)
                    if found is None:
                        continue
                    start, end = found
                    if start < best_at:
                        best, best_at, tied = Place(start, end, host_number, place), start, 1
                        best_level = self._level(host, place, start)
                    elif tied < MOST_TIED:
                        tied += 1
                        level = self._level(host, place, start)
                        if level < best_level:
                            best, best_level = Place(start, end, host_number, place), level
                    if best is not None and best_at == from_at and (best_level == 0 or tied >= MOST_TIED):
                        return best
                if not fitted:
                    gaps.tighten(number, self.now)
            if not seen:
                gaps.tighten_block(block)
        return best

    def _may_use(self, host: _Host, fit: Fit) -> bool:
        if fit.kind >= 0 and host.number_of_kind != fit.kind:
            return False
        return (fit.label < 0 or host.label == fit.label) and (not host.is_silent or fit.may_be_silent)

    def _level(self, host: _Host, place: int, at: Instant) -> int:
        """Return how many of the sets around one are free at an instant, up to the first that is not."""
        level = 0
        for other in host.kind.around[place]:
            ends = host.gap_ends[other]
            index = bisect_right(ends, at)
            if index == len(ends) or host.gap_starts[other][index] > at:
                break
            level += 1
        return level

    def _fit(
        self, host: int, place: int, begin_at: Instant, start: Instant, gap_end: Instant, fit: Fit, before_at: Instant
    ) -> tuple[Instant, Instant] | None:
        """Return the earliest place in a gap that starts no later than `before_at`."""
        start = max(start, begin_at)
        if fit.shape < 0:
            return (start, start + fit.whole_s) if start + fit.whole_s <= gap_end and start <= before_at else None
        stretches = self._shapes[fit.shape].get(host)
        if stretches is None:
            return None
        starts, ends, may_park = stretches
        at = bisect_right(ends, start)
        while at < len(starts) and starts[at] < gap_end:
            begin = max(start, starts[at])
            if begin > before_at or begin + fit.whole_s > fit.end_by_at:
                return None
            if begin + fit.whole_s <= min(gap_end, ends[at]):
                return begin, begin + fit.whole_s
            if may_park[at] and ends[at] <= gap_end and begin + fit.shortest_s <= ends[at]:
                if fit.lead_s == ONE_PIECE:
                    return begin, ends[at]
                pieces = self._walk(host, place, begin, fit)
                if pieces:
                    return begin, pieces[-1][1]
            at += 1
        return None

    def pieces(self, host: int, place: int, start: Instant, fit: Fit) -> list[tuple[Instant, Instant]]:
        """Return the pieces of a booking that starts on a set at an instant; none where it cannot start there."""
        return self._walk(host, place, start, fit)

    def _walk(self, host: int, place: int, start: Instant, fit: Fit) -> list[tuple[Instant, Instant]]:
        """Return the pieces of a booking that starts at an instant, each to its stretch's end but the last.

        None where it cannot start there, for a window, its end, or somebody in the way; with `place` < 0 nobody is.
        """
        stretches = None if fit.shape < 0 else self._shapes[fit.shape].get(host)
        if stretches is None:
            return []
        starts, ends, may_park = stretches
        run_s, shortest_s = fit.whole_s - fit.lead_s, fit.shortest_s
        pieces: list[tuple[Instant, Instant]] = []
        for at in range(bisect_right(ends, start), len(starts)):
            if len(pieces) == MOST_PIECES or (not pieces and starts[at] > start):
                return []
            begin = starts[at] if pieces else start
            end = begin + max(fit.lead_s + run_s, shortest_s)
            is_last = end <= ends[at]
            if not is_last:
                if pieces and begin + shortest_s > ends[at]:
                    continue
                if not may_park[at] or begin + shortest_s > ends[at]:
                    return []
                end = ends[at]
            if end > fit.end_by_at or not (place < 0 or self.is_free(host, place, begin, end)):
                return []
            pieces.append((begin, end))
            if is_last:
                return pieces
            run_s -= end - begin - fit.lead_s
        return []

    def _room_from(self, host: int, place: int, at: int, fit: Fit) -> int:
        """Return how much of a booking's time the stretches from one on take, to the first that is not all free."""
        starts, ends, may_park = self._shapes[fit.shape][host]
        room_s = full_s = 0
        count = 1
        while at < len(starts) and count < MOST_PIECES:
            begin = starts[at]
            if begin + fit.shortest_s <= ends[at]:
                until = min(self.free_until(host, place, begin), fit.end_by_at, ends[at])
                if until - begin >= fit.shortest_s:
                    room_s = full_s + until - begin - fit.lead_s
                if until < ends[at] or not may_park[at]:
                    break
                full_s += until - begin - fit.lead_s
                count += 1
            at += 1
        return room_s

    def latest(self, fit: Fit, from_at: Instant, latest_at: Instant) -> Place | None:
        """Return the latest place that starts in `[from_at, latest_at]`: in one piece, if that is not to be cut."""
        return self._latest(fit, from_at, latest_at, {})

    def _latest(
        self, fit: Fit, from_at: Instant, latest_at: Instant, last_by_host: Mapping[int, Instant]
    ) -> Place | None:
        """Return the latest place; on some hosts it starts no later than at an instant."""
        gaps = self._by_size.get(fit.size)
        from_at = max(from_at, self.now)
        if gaps is None or latest_at < from_at:
            return None
        whole_s = fit.whole_s if fit.lead_s == ONE_PIECE else fit.shortest_s
        best: Place | None = None
        best_at = from_at - 1
        last = bisect_right(gaps.firsts, (latest_at, 1 << 60, 0, 0)) - 1
        for block in range(gaps.block_of(last), -1, -1):
            if gaps.block_latest[block] - whole_s <= best_at or gaps.block_longest[block] < whole_s:
                continue
            seen = False
            for number in reversed(gaps.chunks_of(block)):
                if number > last or gaps.latest[number] - whole_s <= best_at or gaps.longest[number] < whole_s:
                    continue
                seen, fitted = True, False
                for gap_start, host_number, place, gap_end in reversed(gaps.chunks[number]):
                    if gap_start > latest_at:
                        fitted = True
                        continue
                    start = min(latest_at, gap_end - whole_s)
                    low = max(gap_start, from_at)
                    if gap_end - whole_s >= self.now and gap_end - max(gap_start, self.now) >= whole_s:
                        fitted = True
                    start = min(start, last_by_host.get(host_number, start))
                    if start < low or start <= best_at:
                        continue
                    host = self._hosts[host_number]
                    if not self._may_use(host, fit):
                        continue
                    found = self._fit_late(host_number, place, max(low, host.begin[place]), start, gap_end, fit)
                    if found > best_at:
                        best, best_at = Place(found, found + fit.whole_s, host_number, place), found
                        if best_at == latest_at:
                            return self._with_end(fit, best)
                if not fitted:
                    gaps.tighten(number, self.now)
            if not seen:
                gaps.tighten_block(block)
        return None if best is None else self._with_end(fit, best)

    def _with_end(self, fit: Fit, place: Place) -> Place:
        if fit.lead_s == ONE_PIECE:
            return place
        return place._replace(end_at=self._walk(place.host, place.set, place.start_at, fit)[-1][1])

    def _fit_late(self, host: int, place: int, low: Instant, start: Instant, gap_end: Instant, fit: Fit) -> Instant:
        """Return the latest start in `[low, start]` in a gap of a set, with all that it is booked for; -1: none."""
        if start < low:
            return -1
        if fit.shape < 0:
            return start
        stretches = self._shapes[fit.shape].get(host)
        if stretches is None:
            return -1
        starts, ends, may_park = stretches
        at = bisect_right(starts, start) - 1
        while at >= 0 and ends[at] > low:
            late = min(start, ends[at] - fit.whole_s)
            if fit.lead_s != ONE_PIECE:
                most = min(start, ends[at] - fit.shortest_s)
                late = min(late, gap_end - fit.whole_s, fit.end_by_at - fit.whole_s)
                if late < most and may_park[at] and ends[at] <= gap_end:
                    rest_s = fit.whole_s - self._room_from(host, place, at + 1, fit)
                    if rest_s < fit.whole_s:
                        late = max(late, min(most, ends[at] - rest_s))
            if late >= max(low, starts[at]):
                return late
            at -= 1
        return -1

    def book_all(self, key: int, asks: Sequence[tuple[int, int]], from_at: Instant) -> list[Instant]:
        """Book requests (GPUs, seconds) at their earliest places, one after the other; return their starts.

        Their keys count up from `key`. Stops at the first that finds no place.
        """
        starts = []
        for number, (size, whole_s) in enumerate(asks):
            fit = Fit(size, whole_s, whole_s)
            place = self.earliest(fit, from_at)
            if place is None:
                break
            self.book(key + number, place, fit)
            starts.append(place.start_at)
        return starts

    # ---- the plan that keeps every promise

    def compact(self, keys: Sequence[int]) -> list[int]:
        """Move bookings to their earliest place, in this order, none of them later; return those that moved."""
        moved = []
        for key in keys:
            booking = self.free(key)
            place = self.earliest(booking.fit, self.now, booking.place.start_at - 1)
            if self._book_or_back(key, booking, place):
                moved.append(key)
        return moved

    def relax(self, keys: Sequence[int]) -> list[int]:
        """Move bookings to the latest place that their promises allow, in this order; return those that moved."""
        moved = []
        for key in keys:
            booking = self.free(key)
            place = self.latest(booking.fit, booking.place.start_at + 1, booking.due_at)
            if self._book_or_back(key, booking, place):
                moved.append(key)
        return moved

    def _book_or_back(self, key: int, booking: Booking, place: Place | None) -> bool:
        """Book one that was taken out at a place, if that holds all of it, else where it was."""
        if place is None or not _is_whole(booking.fit, place):
            self._put_in(key, booking)
            return False
        self.book(key, place, booking.fit, booking.due_at)
        return True

    def rebook(self, keys: Sequence[int], most_gpu_s: int) -> int | None:
        """Book bookings anew in this order, each at its earliest place by its promise: all of them or none.

        Returns the sum of their GPUs times their waits from now on; None, and nothing has moved, when one finds no
        place, or when the sum would be over `most_gpu_s`.
        """
        before = [self.free(key) for key in keys]
        total = 0
        for number, (key, booking) in enumerate(zip(keys, before, strict=True)):
            fit = booking.fit
            place = self.earliest(fit, self.now, booking.due_at)
            if place is not None:
                total += fit.size * (place.start_at - self.now)
            if place is None or not _is_whole(fit, place) or total > most_gpu_s:
                for done in keys[:number]:
                    self.free(done)
                for moved, was in zip(keys, before, strict=True):
                    self._put_in(moved, was)
                return None
            self.book(key, place, fit, booking.due_at)
        return total

    def start_now(
        self, key: int, *, widest: int, most: int = MOST_DISPLACED, rooms: Rooms | None = None
    ) -> list[int] | None:
        """Move a booking to now, others out of its way to where their promises allow; None: it cannot, nothing moved.

        Others of more than `widest` GPUs stay. `rooms`: only where there is room for it; None: there is, everywhere.
        Returns the bookings that moved, itself first.
        """
        most = min(most, MOST_EVER_DISPLACED)
        shut = () if rooms is None else self._without_room(self._bookings[key], rooms)
        found, are_all = self._displaceable(key, widest, most, shut)
        if not found and are_all:
            return None
        mine = self.free(key)
        # Where nobody is in the way on some set, or there are more sets than were looked at.
        may_be_free = not are_all or not found[0][1]
        place = self._earliest(mine.fit, self.now, self.now, shut) if may_be_free else None
        if place is not None and _is_whole(mine.fit, place):
            self.book(key, place, mine.fit, mine.due_at)
            return [key]
        for chosen, others in found:
            moved = self._displace(key, mine, chosen, others, rooms)
            if moved is not None:
                return moved
        self._put_in(key, mine)
        return None

    def start_first(
        self, keys: Sequence[int], widest: Sequence[int], rooms: Rooms | None = None
    ) -> tuple[int, list[int]] | None:
        """Start the first of these that can start now; return its place among them, and the bookings that moved."""
        for number, key in enumerate(keys):
            moved = self.start_now(key, widest=widest[number], rooms=rooms)
            if moved is not None:
                return number, moved
        return None

    def _without_room(self, booking: Booking, rooms: Rooms) -> frozenset[int]:
        """Return the hosts that have no room for what is booked, if it starts now."""
        end_at, own = self.now + booking.fit.whole_s + rooms.kept_s, booking.place
        label = self._hosts[own.host].label
        return frozenset(
            number
            for number, until_at in enumerate(rooms.until_at)
            if until_at < end_at and (until_at < own.start_at or self._hosts[number].label != label)
        )

    def _last_by_host(self, booking: Booking, rooms: Rooms) -> dict[int, Instant]:
        """Return the latest start of what is moved later on hosts that have room only so long."""
        label, kept_s = self._hosts[booking.place.host].label, booking.fit.whole_s + rooms.kept_s
        return {
            number: until_at - kept_s
            for number, until_at in enumerate(rooms.until_at)
            if self._hosts[number].label != label
        }

    def _displaceable(
        self, key: int, widest: int, most: int, shut: Container[int]
    ) -> tuple[list[tuple[Place, list[int]]], bool]:
        """Return blocks that are free now and what is booked on them before it would be over, fewest GPUs first.

        And whether there are no more blocks than were looked at. One with nothing in the way is enough.
        """
        fit, now = self._bookings[key].fit, self.now
        gaps = self._by_size.get(fit.size)
        if gaps is None:
            return [], True
        found: list[tuple[int, int, Place, list[int]]] = []
        pieces_on: dict[int, list[tuple[Instant, Instant]]] = {}
        seen = 0
        for gap_start, host_number, chosen, gap_end in (gap for chunk in gaps.chunks for gap in chunk):
            if gap_start != BEGUN or seen == MOST_FREE or (found and not found[-1][3]):
                break
            if gap_end <= now or host_number in shut:
                continue
            seen += 1
            host = self._hosts[host_number]
            if not self._may_use(host, fit) or host.begin[chosen] > now:
                continue
            shared = id(self._shapes[fit.shape].get(host_number)) if fit.shape >= 0 else 0
            if shared not in pieces_on:
                pieces_on[shared] = self._pieces_now(host_number, fit)
            pieces = pieces_on[shared]
            if not pieces:
                continue
            others = self._giving_way(key, host_number, chosen, pieces, widest, most)
            if others is None:
                continue
            fits = [self._bookings[other].fit for other in others]
            weight = sum(fit.size * fit.whole_s for fit in fits)
            found.append((weight, len(found), Place(now, pieces[-1][1], host_number, chosen), others))
        found.sort()
        return [(place, others) for _, _, place, others in found[:MOST_TRIES]], seen < MOST_FREE

    def _giving_way(
        self, own: int, host: int, place: int, pieces: Sequence[tuple[Instant, Instant]], widest: int, most: int
    ) -> list[int] | None:
        """Return who else is in the way on a set; None if not all of them may give way to it."""
        mine, bookings = self._hosts[host], self._bookings
        found: set[int] = set()
        for start, end in pieces:
            for gpu in mine.kind.gpus[place]:
                starts, keys = mine.starts[gpu], mine.keys[gpu]
                at = bisect_right(mine.ends[gpu], start)
                while at < len(starts) and starts[at] < end:
                    key = keys[at]
                    at += 1
                    if key == own or key in found:
                        continue
                    booked, fit, due_at, _ = bookings[key]
                    if len(found) == most or due_at < booked.start_at or fit.size > widest:
                        return None
                    found.add(key)
        return sorted(found)

    def _pieces_now(self, host: int, fit: Fit) -> list[tuple[Instant, Instant]]:
        """Return the pieces of a booking that starts now, whoever is in the way; none if windows do not let it."""
        if fit.lead_s != ONE_PIECE:
            return self._walk(host, -1, self.now, fit)
        whole = self.now, self.now + fit.whole_s
        return [whole] if self._fit(host, -1, 0, self.now, FOREVER, fit, self.now) == whole else []

    def _displace(
        self, key: int, mine: Booking, place: Place, others: Sequence[int], rooms: Rooms | None
    ) -> list[int] | None:
        taken = [(other, self.free(other)) for other in others]
        self.book(key, place, mine.fit, mine.due_at)
        # Whoever has to start first chooses first, the larger before the smaller.
        taken.sort(key=lambda item: (item[1].due_at, -item[1].fit.size, item[0]))
        done = []
        for other, booking in taken:
            last_by_host = {} if rooms is None else self._last_by_host(booking, rooms)
            late = self._latest(booking.fit, self.now, booking.due_at, last_by_host)
            if late is None:
                break
            self.book(other, late, booking.fit, booking.due_at)
            done.append(other)
        if len(done) == len(taken):
            return [key, *done]
        for other in done:
            self.free(other)
        self.free(key)
        for other, booking in taken:
            self._put_in(other, booking)
        return None


def _is_whole(fit: Fit, place: Place) -> bool:
    """Whether a place holds all of a booking, not only the piece before an edge."""
    return fit.lead_s != ONE_PIECE or place.end_at - place.start_at == fit.whole_s
