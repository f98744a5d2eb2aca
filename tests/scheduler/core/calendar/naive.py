"""A calendar that is slow and obviously right: a list of bookings, and every instant at which anything changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scheduler.core.calendar.bookings import ONE_PIECE, Fit, Place
from scheduler.core.calendar.kinds import Kind
from scheduler.core.spans import FOREVER, Instant

Stretch = tuple[Instant, Instant, bool]


@dataclass
class NaiveCalendar:
    kinds: Sequence[Kind]
    labels: Sequence[int]
    now: Instant = 0
    places: dict[int, Place] = field(default_factory=dict)
    pieces: dict[int, Sequence[tuple[Instant, Instant]]] = field(default_factory=dict)
    """Of those bookings that are cut."""
    begin: dict[tuple[int, int], Instant] = field(default_factory=dict)
    silent: set[int] = field(default_factory=set)
    shapes: list[Mapping[int, Sequence[Stretch]]] = field(default_factory=list)

    def is_free(self, host: int, chosen: int, start_at: Instant, end_at: Instant) -> bool:
        mask = self.kinds[host].masks[chosen]
        return not any(
            place.host == host
            and self.kinds[host].masks[place.set] & mask
            and place.start_at < end_at
            and max(start_at, self.now) < place.end_at
            for place in self._booked()
        )

    def _booked(self) -> list[Place]:
        """All pieces of all bookings."""
        return [
            place._replace(start_at=start, end_at=end)
            for key, place in self.places.items()
            for start, end in self.pieces.get(key) or [(place.start_at, place.end_at)]
        ]

    def gaps(self, host: int, chosen: int, start_at: Instant, end_at: Instant) -> list[tuple[Instant, Instant]]:
        """Return the free stretches of a set that reach into a span, those that have begun from now on."""
        mask = self.kinds[host].masks[chosen]
        busy = [p for p in self._booked() if p.host == host and self.kinds[host].masks[p.set] & mask]
        free_from, found = self.now, []
        for place in sorted(place for place in busy if place.end_at > self.now):
            if place.start_at > free_from:
                found.append((free_from, place.start_at))
            free_from = max(free_from, place.end_at)
        found.append((free_from, FOREVER))
        return [(start, end) for start, end in found if start < end_at and end > max(start_at, self.now)]

    def _instants(self, fit: Fit) -> set[Instant]:
        found = {place.end_at for place in self._booked()} | set(self.begin.values())
        if fit.shape >= 0:
            found |= {start for stretches in self.shapes[fit.shape].values() for start, _, _ in stretches}
        return found

    def _ends(self, host: int, start: Instant, fit: Fit) -> Instant | None:
        if fit.shape < 0:
            return start + fit.whole_s
        for begin, end, may_park in self.shapes[fit.shape].get(host, ()):
            if begin <= start < end:
                if start + fit.whole_s <= end:
                    return start + fit.whole_s
                if may_park and start + fit.shortest_s <= end:
                    return end
        return None

    def fits(self, fit: Fit, host: int, chosen: int, start: Instant) -> Instant | None:
        """Return the end of a place that starts there, or None when it does not fit."""
        if fit.label >= 0 and self.labels[host] != fit.label:
            return None
        if fit.kind >= 0 and self._number_of_kind(host) != fit.kind:
            return None
        if host in self.silent and not fit.may_be_silent:
            return None
        if start < self.begin.get((host, chosen), 0):
            return None
        if fit.lead_s != ONE_PIECE:
            cut = self.cut(fit, host, start)
            is_free = bool(cut) and all(self.is_free(host, chosen, *piece) for piece in cut)
            return cut[-1][1] if is_free and cut[-1][1] <= fit.end_by_at else None
        end = self._ends(host, start, fit)
        return end if end is not None and self.is_free(host, chosen, start, end) else None

    def cut(self, fit: Fit, host: int, start: Instant) -> list[tuple[Instant, Instant]]:
        """Return the pieces of a booking that starts there, as windows cut it; none if they do not let it."""
        if fit.shape < 0:
            return []
        mine = [one for one in self.shapes[fit.shape].get(host, ()) if one[1] > start]
        run_s, pieces = fit.whole_s - fit.lead_s, list[tuple[Instant, Instant]]()
        for begin, end, may_park in mine:
            if not pieces and begin > start:
                return []
            from_at = begin if pieces else start
            last_at = from_at + max(fit.lead_s + run_s, fit.shortest_s)
            if last_at <= end:
                return [*pieces, (from_at, last_at)]
            is_short = from_at + fit.shortest_s > end
            if is_short and pieces:
                continue
            if is_short or not may_park:
                return []
            pieces.append((from_at, end))
            run_s -= end - from_at - fit.lead_s
        return []

    def _number_of_kind(self, host: int) -> int:
        firsts: list[Kind] = []
        for kind in self.kinds[: host + 1]:
            if not any(known is kind for known in firsts):
                firsts.append(kind)
        return next(n for n, known in enumerate(firsts) if known is self.kinds[host])

    def _sets(self, size: int) -> list[tuple[int, int]]:
        return [(host, n) for host, kind in enumerate(self.kinds) for n in kind.by_size.get(size, ())]

    def earliest(self, fit: Fit, from_at: Instant, latest_at: Instant = FOREVER) -> Instant | None:
        from_at = max(from_at, self.now)
        for start in sorted(self._instants(fit) | {from_at}):
            if from_at <= start <= latest_at and start < FOREVER:
                if any(self.fits(fit, host, n, start) is not None for host, n in self._sets(fit.size)):
                    return start
        return None

    def latest(self, fit: Fit, from_at: Instant, latest_at: Instant) -> Instant | None:
        from_at = max(from_at, self.now)
        if fit.lead_s != ONE_PIECE:
            every = range(latest_at, from_at - 1, -1)
            sets = self._sets(fit.size)
            return next((at for at in every if any(self.fits(fit, *one, at) is not None for one in sets)), None)
        starts = {place.start_at - fit.whole_s for place in self._booked()} | {latest_at}
        if fit.shape >= 0:
            starts |= {end - fit.whole_s for stretches in self.shapes[fit.shape].values() for _, end, _ in stretches}
        for start in sorted(starts, reverse=True):
            if from_at <= start <= latest_at:
                for host, n in self._sets(fit.size):
                    if self.fits(fit, host, n, start) == start + fit.whole_s:
                        return start
        return None
