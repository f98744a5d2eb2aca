"""Displacing: who waits starts now though others are in the way, if each of those has another place by its promise.

The calendar does this for bookings on one partition, many times faster. Here are those that it cannot move, as the one
that starts and as those that are in the way: what goes on elsewhere after a boundary, and what may not start before a
later instant. All of it or nothing.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from scheduler.core.calendar.bookings import Fit
from scheduler.core.plan import BookedSpan, Reservation
from scheduler.core.planner.booking import follow_disk, rebook, want_of
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.moving import is_well, unmovable
from scheduler.core.planner.placing import Want, fits_of, may_park_at, stretches_for, with_tail
from scheduler.core.planner.promising import has_started, keeps_promise
from scheduler.core.requests import HostId, ReservationId, by_number
from scheduler.core.spans import FOREVER, Instant
from scheduler.core.topology import PartitionId

MOST_TRIED = 4
"""So many are tried in one step: each costs a few placements."""

MOST_LOOKED_FOR = 16
"""For so many it is looked who is in the way."""

MOST_DISPLACED = 4
"""So many give way to one."""

WIDE = 8
"""From so many GPUs on a booking gives way only to its like: it finds another place least often."""

Option = tuple[int, BookedSpan, list[ReservationId]]
"""How much is in the way in GPU-seconds, the first span, and whose bookings give way."""


class Displacer:
    """For one pass over those that wait."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._looks_left, self._tries_left = MOST_LOOKED_FOR, MOST_TRIED
        self._stuck_on: dict[HostId, list[BookedSpan]] | None = None
        """Bookings that may give way and that the calendar cannot move."""
        self._from_at: dict[HostId, Instant] = {}
        self._free: dict[tuple[HostId, int], list[PartitionId]] = {}

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
        for reservation in waiting:
            if not self.goes_on:
                return
            known = draft.board.movable.get(reservation.id)
            # Where nobody else is in its way than whom the calendar can move, it has tried that.
            stuck_from_at = draft.now if known is None else min(self._stuck().values(), default=FOREVER)
            if known is None or stuck_from_at < draft.now + known.whole_s:
                yield reservation

    def forget(self) -> None:
        """Something was booked: what was free need not be so any more."""
        self._free.clear()

    def start(self, key: ReservationId) -> bool:
        """Start one now, others out of its way; False: nothing has changed."""
        draft = self._draft
        reservation = draft.reservations[key]
        if not self.goes_on or has_started(reservation) or not self._hosts(reservation):
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
            spans = with_tail(draft, _want(draft, reservation), first)
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

    def _hosts(self, reservation: Reservation) -> Collection[HostId]:
        """Return the hosts on which there is anything to try that the calendar has not tried."""
        draft, known = self._draft, self._draft.board.movable.get(reservation.id)
        if not draft.windows:
            # Then the calendar moves all that may be moved.
            return ()
        if known is None:
            return draft.hosts
        # Where none of those begins before it would be over, the calendar has tried all there is.
        over_at = draft.now + known.whole_s
        return [host for host, first_at in self._stuck().items() if first_at < over_at]

    def _stuck(self) -> Mapping[HostId, Instant]:
        """Return when the first booking on each host begins that may give way and that the calendar cannot move."""
        if self._stuck_on is None:
            self._stuck_on = {}
            for one in unmovable(self._draft):
                if one.spans and _may_give_way(self._draft, one):
                    for span in one.spans:
                        self._stuck_on.setdefault(span.host, []).append(span)
            self._from_at = {host: min(span.start_at for span in spans) for host, spans in self._stuck_on.items()}
        return self._from_at

    def _is_tried(self, reservation: Reservation, first: BookedSpan) -> bool:
        """Whether the calendar has tried a place: nobody is in the way that it cannot move itself."""
        if reservation.id not in self._draft.board.movable or self._stuck_on is None:
            return False
        spans = self._stuck_on.get(first.host, ())
        return not any(span.start_at < first.end_at and first.start_at < span.end_at for span in spans)

    def _options(self, reservation: Reservation) -> Iterator[Option]:
        """Yield the partitions on which one could begin now if those that are booked there gave way."""
        draft, gpus = self._draft, reservation.request.gpus
        to_try = self._hosts(reservation)
        hosts = [host for host in draft.hosts if host in to_try]
        places = [(host, partition) for host in hosts for partition in self._free_now(host, gpus)]
        if not places:
            return
        want = _want(draft, reservation)
        fits = dict(zip(_profiles(draft, gpus), fits_of(draft, want), strict=True))
        for host, partition in places:
            if want.storage is not None and draft.hosts[host].storage != want.storage:
                continue
            first = _first_span(draft, want, fits[id(draft.hosts[host].profile)], host, partition)
            if first is None or self._is_tried(reservation, first):
                continue
            others = self._in_the_way(reservation, first)
            if others:
                weight = sum(_gpu_s(draft.reservations[other]) for other in others)
                yield weight, first, others

    def _free_now(self, host: HostId, gpus: int) -> list[PartitionId]:
        """Return the partitions of a size on a host on which nothing is booked at this instant."""
        draft, now = self._draft, self._draft.now
        profile = draft.hosts[host].profile
        if host in draft.silent_hosts or gpus not in profile.sizes:
            return []
        if (host, gpus) not in self._free:
            self._free[host, gpus] = [
                partition.id
                for partition in profile.partitions_of_size(gpus)
                if draft.board.free_until(host, partition.id, now) > now
                and draft.board.begins_at(host, partition.id) <= now
            ]
        return self._free[host, gpus]

    def _in_the_way(self, reservation: Reservation, first: BookedSpan) -> list[ReservationId]:
        """Return whose bookings lie where a span would, if all of them may give way; else none."""
        draft, gpus = self._draft, reservation.request.gpus
        way = draft.board.in_the_way(first.host, first.partition, first.start_at, first.end_at)
        others = sorted({*way} - {reservation.id}, key=by_number)
        if len(others) > MOST_DISPLACED:
            return []
        bookings = [draft.reservations[other] for other in others]
        if not all(_may_give_way(draft, one) and (gpus >= WIDE or one.request.gpus <= gpus) for one in bookings):
            return []
        is_known = reservation.id in draft.board.movable and all(other in draft.board.movable for other in others)
        # All in one piece: the calendar has tried that.
        return [] if is_known else others


def _want(draft: Draft, reservation: Reservation) -> Want:
    want = want_of(draft, reservation.request, run_s=reservation.request.run_s, with_gifts=True)
    disk = draft.disks.get(reservation.disk) if reservation.request.continues and reservation.disk else None
    if disk is not None:
        want = replace(want, storage=disk.storage)
    return want


def _profiles(draft: Draft, gpus: int) -> Iterable[int]:
    return [id(profile) for _, profile in draft.board.profiles_by_kind if gpus in profile.sizes]


def _first_span(draft: Draft, want: Want, fit: Fit, host: HostId, partition: PartitionId) -> BookedSpan | None:
    """Return the piece that begins now on a partition, whatever else is booked there; None: no window lets it."""
    now = draft.now
    stretch = next(iter(stretches_for(draft, want, host)), None)
    if stretch is None or stretch.start_at > now:
        return None
    end_at = now + fit.whole_s
    if end_at > stretch.end_at:
        if not may_park_at(want, stretch) or now + fit.shortest_s > stretch.end_at:
            return None
        end_at = stretch.end_at
    return BookedSpan(start_at=now, end_at=end_at, host=host, partition=partition)


def _may_give_way(draft: Draft, reservation: Reservation) -> bool:
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
