"""Displacing: who waits starts now though others are in the way, if each of those has another place by its promise.

The calendar does this for bookings on one partition, many times faster. Here are those that it cannot move, as the one
that starts and as those that are in the way: what goes on elsewhere after a boundary, and what may not start before a
later instant. All of it or nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from scheduler.core.calendar.bookings import Fit
from scheduler.core.plan import BookedSpan, Reservation
from scheduler.core.planner.booking import follow_disk, rebook
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.moving import is_well, unmovable, want_of_one
from scheduler.core.planner.placing import Want, fits_of, may_park_at, stretches_for, with_tail
from scheduler.core.planner.promising import has_started, keeps_promise
from scheduler.core.requests import HostId, ReservationId, by_number
from scheduler.core.spans import FOREVER, Instant
from scheduler.core.topology import Partition, PartitionId

MOST_TRIED = 4
"""So many are tried in one step: each costs a few placements."""

MOST_LOOKED_FOR = 16
"""For so many it is looked who is in the way."""

MOST_DISPLACED = 4
"""So many give way to one."""

WIDE = 8
"""From so many GPUs on a booking gives way only to its like: it finds another place least often."""

Place = tuple[HostId, PartitionId]

Option = tuple[int, BookedSpan, list[ReservationId]]
"""How much is in the way in GPU-seconds, the first span, and whose bookings give way."""


class Displacer:
    """For one pass over those that wait."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._looks_left, self._tries_left = MOST_LOOKED_FOR, MOST_TRIED
        self._stuck_on: dict[int, Mapping[HostId, list[tuple[Instant, int]]]] = {}
        self._first_stuck_at: dict[int, Instant] = {}
        self._free_and_stuck: dict[int, list[tuple[Instant, Place]]] = {}

    @property
    def goes_on(self) -> bool:
        """Whether it has not tried enough yet."""
        return self._tries_left > 0 and self._looks_left > 0

    def worth_a_look(self, waiting: Iterable[Reservation]) -> Iterator[Reservation]:
        """Yield those for whom the calendar has not tried all there is, until enough has been tried."""
        draft = self._draft
        if not draft.windows:
            # Then the calendar moves all that may be moved.
            return
        movable, now = draft.board.movable, draft.now
        for reservation in waiting:
            request = reservation.request
            known = movable.get(request.id)
            # Where nobody else is in its way than whom the calendar can move, it has tried that.
            if known is None or self._stuck_from_at(request.gpus) < now + known.whole_s:
                if not self.goes_on:
                    return
                yield reservation

    def forget(self) -> None:
        """Something was booked: what was free need not be so any more."""
        self._free_and_stuck.clear()

    def start(self, key: ReservationId) -> bool:
        """Start one now, others out of its way; False: nothing has changed."""
        draft = self._draft
        reservation = draft.reservations[key]
        if not self.goes_on or has_started(reservation):
            return False
        self._looks_left -= 1
        option = min(self._options(reservation), default=None, key=lambda option: option[0])
        if option is None:
            return False
        self._tries_left -= 1
        _, first, others = option
        with draft.attempt() as attempt:
            displaced = [draft.reservations[other] for other in others]
            hours_s = {one.id: sum(draft.hours_s(s, one.request.gpus) for s in one.spans) for one in displaced}
            for one in (reservation, *displaced):
                draft.put(replace(one, spans=()))
            spans = with_tail(draft, want_of_one(draft, reservation), first)
            if spans is None:
                return False
            draft.put(replace(reservation, spans=spans))
            follow_disk(draft, key)
            if not is_well(draft, draft.reservations[key]):
                return False
            for one in sorted(displaced, key=_urgency):
                bare = draft.reservations[one.id]
                if not rebook(draft, bare, run_s=hours_s[one.id], accept=keeps_promise(draft, one)):
                    return False
            attempt.keep()
        return True

    def _stuck(self, gpus: int) -> Mapping[HostId, list[tuple[Instant, int]]]:
        """Return what is booked on each host that may give way to a size and that the calendar cannot move.

        When it begins, the first first, and on which GPUs.
        """
        if gpus not in self._stuck_on:
            found: dict[HostId, list[tuple[Instant, int]]] = {}
            for one in unmovable(self._draft, with_resting=True):
                if one.spans and _may_give_way_to(self._draft, one, gpus):
                    for span in one.spans:
                        found.setdefault(span.host, []).append((span.start_at, self._draft.partition_of(span).mask))
            for spans in found.values():
                spans.sort()
            self._stuck_on[gpus] = found
        return self._stuck_on[gpus]

    def _stuck_from_at(self, gpus: int) -> Instant:
        """Return when the first of them begins."""
        if gpus not in self._first_stuck_at:
            first_at = min((spans[0][0] for spans in self._stuck(gpus).values()), default=FOREVER)
            self._first_stuck_at[gpus] = first_at
        return self._first_stuck_at[gpus]

    def _options(self, reservation: Reservation) -> Iterator[Option]:
        """Yield the partitions on which one could begin now if those that are booked there gave way."""
        draft, places = self._draft, self._places(reservation)
        if not places:
            return
        want = want_of_one(draft, reservation)
        fits = dict(zip(_profiles(draft, want.gpus), fits_of(draft, want), strict=True))
        for host, partition in places:
            if want.storage is not None and draft.hosts[host].storage != want.storage:
                continue
            first = _first_span(draft, want, fits[id(draft.hosts[host].profile)], host, partition)
            others = () if first is None else self._in_the_way(reservation, first)
            if first is not None and others:
                weight = sum(_gpu_s(draft.reservations[other]) for other in others)
                yield weight, first, others

    def _places(self, reservation: Reservation) -> list[Place]:
        """Return the partitions on which one could begin now, and where the calendar has not tried all there is."""
        draft, gpus, known = self._draft, reservation.request.gpus, self._draft.board.movable.get(reservation.id)
        if known is not None:
            if gpus not in self._free_and_stuck:
                self._free_and_stuck[gpus] = list(self._find_free_and_stuck(gpus))
            over_at = draft.now + known.whole_s
            return [place for stuck_from_at, place in self._free_and_stuck[gpus] if stuck_from_at < over_at]
        partitions = ((host, partition) for host in draft.hosts for partition in self._partitions(host, gpus))
        return [(host, partition.id) for host, partition in partitions if self._is_free(host, partition)]

    def _find_free_and_stuck(self, gpus: int) -> Iterator[tuple[Instant, Place]]:
        """Yield the partitions of a size that are free now, and when the first begins there that is stuck."""
        for host, spans in sorted(self._stuck(gpus).items()):
            for partition in self._partitions(host, gpus):
                stuck_from_at = next((at for at, mask in spans if mask & partition.mask), None)
                if stuck_from_at is not None and self._is_free(host, partition):
                    yield stuck_from_at, (host, partition.id)

    def _partitions(self, host: HostId, gpus: int) -> Sequence[Partition]:
        return () if host in self._draft.silent_hosts else self._draft.hosts[host].profile.partitions_of_size(gpus)

    def _is_free(self, host: HostId, partition: Partition) -> bool:
        """Whether nothing is booked on a partition at this instant."""
        board, now = self._draft.board, self._draft.now
        return board.free_until(host, partition.id, now) > now and board.begins_at(host, partition.id) <= now

    def _in_the_way(self, reservation: Reservation, first: BookedSpan) -> list[ReservationId]:
        """Return whose bookings lie where a span would, if all of them may give way; else none."""
        draft, gpus = self._draft, reservation.request.gpus
        way = draft.board.in_the_way(first.host, first.partition, first.start_at, first.end_at)
        others = sorted({*way} - {reservation.id}, key=by_number)
        if len(others) > MOST_DISPLACED:
            return []
        bookings = [draft.reservations[other] for other in others]
        if not all(_may_give_way_to(draft, one, gpus) for one in bookings):
            return []
        is_known = reservation.id in draft.board.movable and all(other in draft.board.movable for other in others)
        # All of one partition each: the calendar has tried that.
        return [] if is_known else others


def _profiles(draft: Draft, gpus: int) -> Iterable[int]:
    return [id(profile) for profile in draft.board.profiles_by_kind.values() if gpus in profile.sizes]


def _first_span(draft: Draft, want: Want, fit: Fit, host: HostId, partition: PartitionId) -> BookedSpan | None:
    """Return the piece that begins now on a partition, whatever else is booked there; None: no window lets it."""
    now = draft.now
    stretch = next(iter(stretches_for(draft, want, host)), None)
    if stretch is None or stretch.start_at > now:
        return None
    end_at = now + fit.whole_s
    if end_at > stretch.end_at:
        if not may_park_at(want.at_boundary, stretch) or now + fit.shortest_s > stretch.end_at:
            return None
        end_at = stretch.end_at
    return BookedSpan(start_at=now, end_at=end_at, host=host, partition=partition)


def _may_give_way_to(draft: Draft, reservation: Reservation, gpus: int) -> bool:
    """Whether a booking may give way to one of so many GPUs."""
    if gpus < WIDE and reservation.request.gpus > gpus:
        return False
    if has_started(reservation) or reservation.outcome is not None or reservation.promise is None:
        return False
    if reservation.request.is_at_fixed_time:
        return False
    return reservation.spans[0].start_at > draft.now and not any(map(draft.is_lost, reservation.spans))


def _gpu_s(reservation: Reservation) -> int:
    return reservation.request.gpus * reservation.request.run_s


def _urgency(reservation: Reservation) -> tuple[int, int, tuple[int, str]]:
    """Whoever has to start first chooses first, the larger before the smaller."""
    due_at = reservation.promise.start_by_at if reservation.promise is not None else 0
    return due_at, -reservation.request.gpus, by_number(reservation.id)
