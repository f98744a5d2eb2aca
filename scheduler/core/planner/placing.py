"""Placing: the earliest booking for some running hours, on the calendar as it stands.

A booking is one span, or several where its hours cross a boundary and it may be parked there: it runs to the edge and
goes on when its time comes again. All of them lie on one partition, if one is free for all; else each is wherever it
can be soonest. Every span holds its lead (the hand-over and the start, by bounds) and at least the minimum useful
length. Changes nothing.
"""

from bisect import bisect_right, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter

from scheduler.core.calendar.bookings import Fit
from scheduler.core.plan import BookedDisk, BookedSpan, Host
from scheduler.core.planner.board import RunTimes
from scheduler.core.planner.draft import Draft
from scheduler.core.requests import AtBoundary, HostId, Request, ReservationId
from scheduler.core.spans import FOREVER, HOUR_S, Instant
from scheduler.core.topology import HostProfile, PartitionId
from scheduler.core.windows import Stretch, Stretches

MOST_PARKINGS = 128
"""A booking is never cut into more spans than this."""

LATER_S, LATER_PART = 2 * HOUR_S, 4
"""Where long ones could start at once and nobody else waits, or the policy's own reservations stand in their way, they
begin no more than so much later for being on one partition: two hours, or this part of their wait."""

MOST_STORAGES = 16
"""So many storages are looked at for one that has room for a disk."""

MOST_DISK_WAITS = 32
"""At so many instants it is looked whether a disk has room from then on, before a placement gives up."""

_since_at, _first_two = itemgetter(0), itemgetter(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """What is to be placed."""

    of: ReservationId | None = None
    """The reservation that it is for, if that is in the plan."""
    gpus: int
    queue: str
    at_boundary: AtBoundary
    run_s: int
    """Running time still to deliver."""
    from_at: Instant
    """Not before: the earliest start of the first span."""
    only_at: bool = False
    """The first span starts exactly at `from_at`, or not at all."""
    latest_at: Instant = FOREVER
    """The first span starts no later than that."""
    with_gifts: bool = True
    storage: str | None = None
    """Where its disk is; None while it has none: any host will do."""
    disk_gib: int = 0
    """Room to be found for a new disk; 0 when it has one."""
    kept_disk: BookedDisk | None = None
    """The disk that it has: room is to be found for as long as it is kept longer than it is booked for now."""
    is_scratch: bool = False
    goes_on: bool = False
    """It has started before, and goes on as soon as it can."""
    avoid: frozenset[tuple[HostId, PartitionId]] = frozenset()
    """Places that just failed: taken only when there is no other."""
    stay: tuple[HostId, PartitionId] | None = None
    """Where it runs until then: preferred, since its guest just runs on."""
    may_use_silent: bool = False
    """Also on hosts that do not answer."""


def place(draft: Draft, want: Want) -> tuple[BookedSpan, ...] | None:
    """Return the earliest booking, or None when there is none before the horizon."""
    first = earliest_piece(draft, want)
    from_at = want.from_at
    for _ in range(MOST_DISK_WAITS):
        if first is None:
            return None
        spans = _from_first(draft, want, first)
        if spans is None:
            return None
        room_at = _disk_room_at(draft, want, spans, draft.hosts[spans[0].host].storage)
        if room_at is None:
            return spans
        if want.storage is None:
            return _where_disks_have_room(draft, want)
        if want.only_at or room_at >= min(draft.horizon_at, want.latest_at + 1):
            return None
        from_at = max(room_at, from_at + 1)
        first = earliest_piece(draft, replace(want, from_at=from_at))
    return None


def _from_first(draft: Draft, want: Want, first: BookedSpan) -> tuple[BookedSpan, ...] | None:
    """Return the booking whose earliest piece is known: on one partition, if that is not too late, else in pieces.

    All its hours on one partition can be moved whole, and break up nothing. For one that goes on that is too late if it
    begins or ends any later than pieces do; else if it begins much later, where the first could start at once and no
    others wait, or where the policy's own reservations stand in the way.
    """
    if draft.hours_s(first, want.gpus) >= want.run_s:
        return (first,)
    first_at = first.start_at
    runs_on = want.stay == (first.host, first.partition) and first_at == want.from_at
    if want.avoid or runs_on:
        return with_tail(draft, want, first)
    if want.goes_on:
        pieces = with_tail(draft, want, first)
        end_by_at = FOREVER if pieces is None else pieces[-1].end_at
        return _on_one_partition(draft, want, first_at, first_at, end_by_at) or pieces
    if want.kept_disk is not None:
        return with_tail(draft, want, first)
    latest_at = want.from_at if want.only_at else want.latest_at
    if (first_at <= draft.now and not _do_others_wait(draft, want)) or is_crossed(draft, want):
        latest_at = min(latest_at, first_at + max(LATER_S, (first_at - draft.now) // LATER_PART))
    return _on_one_partition(draft, want, first_at, latest_at) or with_tail(draft, want, first)


def _on_one_partition(
    draft: Draft, want: Want, from_at: Instant, latest_at: Instant, end_by_at: Instant = FOREVER
) -> tuple[BookedSpan, ...] | None:
    """Return the earliest booking with all its hours on one partition that starts and ends in time, with its disk."""
    found: tuple[BookedSpan, ...] | None = None
    for fit in fits_of(draft, want):
        latest_at = latest_at if found is None else found[0].start_at - 1
        fit = cut_fit(draft, want, fit, end_by_at=end_by_at)
        found = draft.board.earliest(fit, from_at, latest_at, times_of(draft, want)) or found
    if found is None or _disk_room_at(draft, want, found, draft.hosts[found[0].host].storage) is not None:
        return None
    return found


def _do_others_wait(draft: Draft, want: Want) -> bool:
    """Whether others wait, for as many GPUs or more, who could start as soon as there is room."""
    now = draft.now
    longest_s: dict[tuple[int, str, AtBoundary], int] = {}
    for one in draft.unstarted().values():
        request = one.request
        if request.gpus < want.gpus or one.id == want.of:
            continue
        if request.is_at_fixed_time or (request.not_before_at or 0) > now or one.span_at(now) is not None:
            continue
        sort = request.gpus, request.queue, request.at_boundary
        if sort not in longest_s:
            longest_s[sort] = _longest_now_s(draft, request)
        if request.run_s <= longest_s[sort]:
            return True
    return False


def _longest_now_s(draft: Draft, request: Request) -> int:
    """Return how long such a request could run as far as windows go, if it began now on any host.

    FOREVER if it may be parked then; 0 if none lets it in.
    """
    assert draft.rules is not None
    if opens_at(draft, request, draft.now) > draft.now:
        return 0
    found = 0
    for host in draft.hosts_of_a_kind():
        of_host = draft.stretches_of(
            host, gpus=request.gpus, queue=request.queue, at_boundary=request.at_boundary, with_gifts=True
        )
        stretch = of_host.not_over_at(draft.now)
        if stretch is None or stretch.start_at > draft.now:
            continue
        run_s = stretch.end_at - draft.now - shortest_lead_s(draft, request.gpus)
        if run_s >= draft.rules.min_useful_s:
            may_be_parked = may_park_at(request.at_boundary, stretch)
            found = max(found, FOREVER if may_be_parked else run_s)
    return found


def shortest_lead_s(draft: Draft, gpus: int) -> int:
    """Return the lead of a size on the hosts on which it is shortest."""
    return min((draft.lead_s(one, gpus) for one in draft.host_book.profiles if gpus in one.sizes), default=0)


def latest(draft: Draft, want: Want, like: BookedSpan, *, from_at: Instant) -> BookedSpan | None:
    """Return the latest place up to the want's latest start, in one piece as long as another, on the same kind of host.

    Its disk has room there. None where there is none after `from_at`.
    """
    profile, length_s = draft.hosts[like.host].profile, like.end_at - like.start_at
    fit = fit_on(draft, want, draft.ready_board().kind_of(like.host), profile)
    fit = fit._replace(whole_s=length_s, shortest_s=length_s)
    span = draft.board.latest(fit, from_at, want.latest_at, times_of(draft, want))
    if span is None or _disk_room_at(draft, want, (span,), draft.hosts[span.host].storage) is not None:
        return None
    return span


def _where_disks_have_room(draft: Draft, want: Want) -> tuple[BookedSpan, ...] | None:
    """Return the earliest booking on any storage, where the one that was looked at has no room."""
    rooms = {storage: _first_disk_room_at(draft, want, storage) for storage in draft.host_book.by_storage}
    first = _earliest_anywhere(draft, want, [rooms[draft.hosts[host].storage] for host in draft.ready_board().hosts])
    if first is None:
        return None
    storage = draft.hosts[first.host].storage
    spans = place(draft, replace(want, storage=storage, from_at=rooms[storage]))
    if spans is not None and spans[0].start_at == first.start_at:
        return spans
    # There is less room by then, or the whole of it begins later.
    return _on_any_storage(draft, want, rooms)


def _on_any_storage(draft: Draft, want: Want, rooms: Mapping[str, Instant]) -> tuple[BookedSpan, ...] | None:
    """Return the earliest booking on any storage, on each no earlier than at an instant.

    No more than a few storages are looked at, those that have room first; where GPUs are free first, a booking is made.
    """
    latest_at = want.from_at if want.only_at else min(want.latest_at, draft.horizon_at)
    firsts: list[tuple[Instant, str, Want]] = []
    for room_at, storage in sorted((room_at, storage) for storage, room_at in rooms.items())[:MOST_STORAGES]:
        if room_at > latest_at:
            break
        there = replace(want, storage=storage, from_at=room_at)
        first = earliest_piece(draft, there)
        if first is not None:
            firsts.append((first.start_at, storage, there))
    found: tuple[BookedSpan, ...] | None = None
    for first_at, _, there in sorted(firsts, key=_first_two):
        if found is not None and first_at > found[0].start_at:
            break
        spans = place(draft, there)
        if spans is not None and (found is None or _when(spans) < _when(found)):
            found = spans
    return found


def _when(spans: Sequence[BookedSpan]) -> tuple[Instant, Instant]:
    return spans[0].start_at, spans[-1].end_at


def _first_disk_room_at(draft: Draft, want: Want, storage: str) -> Instant:
    """Return the first instant at which a storage's pool has room for a new disk, if it runs without a break."""
    assert draft.rules is not None
    most_gib = draft.pool_room_gib(storage, is_scratch=want.is_scratch) - want.disk_gib
    if draft.disks.booked_gib(storage, is_scratch=want.is_scratch) <= most_gib:
        return want.from_at
    levels = draft.disks.levels(storage, is_scratch=want.is_scratch)
    return levels.first_room(most_gib, want.from_at, want.run_s + draft.rules.retention_s)


def _disk_room_at(draft: Draft, want: Want, spans: Sequence[BookedSpan], storage: str) -> Instant | None:
    """Return None when the pool has room for the disk, else an instant from which it may have."""
    assert draft.rules is not None
    until_at = spans[-1].end_at + draft.rules.retention_s
    if want.kept_disk is not None:
        return None if _may_keep(draft, want.kept_disk, until_at) else FOREVER
    if want.disk_gib == 0:
        return None
    room = draft.pool_room_gib(storage, is_scratch=want.is_scratch)
    if want.disk_gib > room:
        return FOREVER
    start_at = spans[0].start_at
    if draft.has_pool_room(
        storage, is_scratch=want.is_scratch, start_at=start_at, end_at=until_at, more_gib=want.disk_gib
    ):
        return None
    return _next_disk_room_at(draft, want, spans, storage)


def _next_disk_room_at(draft: Draft, want: Want, spans: Sequence[BookedSpan], storage: str) -> Instant:
    """Return the next start at which a pool may have room, where it has none for the disk of some spans."""
    assert draft.rules is not None
    start_at, kept_s = spans[0].start_at, draft.rules.retention_s
    levels = draft.disks.levels(storage, is_scratch=want.is_scratch)
    most_gib = draft.pool_room_gib(storage, is_scratch=want.is_scratch) - want.disk_gib
    is_whole = len(spans) == 1
    room_at = levels.first_room(
        most_gib, start_at, spans[0].end_at - start_at + kept_s if is_whole else want.run_s + kept_s
    )
    if is_whole or room_at > start_at:
        return room_at
    # With its breaks it needs room for longer: until it starts after the next one, or after what is in its way.
    over_at = levels.first_over(most_gib, start_at)
    return min(spans[1].start_at, levels.first_room(most_gib, over_at, 1))


def _may_keep(draft: Draft, disk: BookedDisk, until_at: Instant) -> bool:
    """Whether the pool has room for a disk up to an instant; what it is booked for already is its own."""
    if until_at <= disk.until_at:
        return True
    return draft.has_pool_room(
        disk.storage, is_scratch=disk.is_scratch, start_at=disk.until_at, end_at=until_at, more_gib=disk.size_gib
    )


def with_tail(draft: Draft, want: Want, first: BookedSpan) -> tuple[BookedSpan, ...] | None:
    """Return the first span with those that follow its parkings."""
    spans = [first]
    run_s = want.run_s
    while True:
        current = spans[-1]
        run_s -= draft.hours_s(current, want.gpus)
        if run_s <= 0:
            return tuple(spans)
        if len(spans) == MOST_PARKINGS:
            return None
        following = earliest_piece(
            draft,
            Want(
                gpus=want.gpus,
                queue=want.queue,
                at_boundary=want.at_boundary,
                run_s=run_s,
                from_at=current.end_at,
                with_gifts=want.with_gifts,
                storage=draft.hosts[first.host].storage,
                may_use_silent=want.may_use_silent,
            ),
        )
        if following is None:
            return None
        spans.append(following)


def earliest_piece(draft: Draft, want: Want) -> BookedSpan | None:
    """Return the earliest first span; of equally early ones where it stays, then where least is broken up."""
    draft.ready_board()
    found = _earliest_anywhere(draft, want)
    if found is None or (want.stay is None and found.host not in {host for host, _ in want.avoid}):
        return found
    return _preferred(draft, want, found)


def _earliest_anywhere(draft: Draft, want: Want, first_at: Sequence[Instant] | None = None) -> BookedSpan | None:
    """Return the earliest first span, on each host of the board no earlier than at its instant, if these are told."""
    latest_at = want.from_at if want.only_at else want.latest_at
    found: BookedSpan | None = None
    for fit in fits_of(draft, want):
        latest_at = latest_at if found is None else found.start_at - 1
        earlier = draft.board.earliest(fit, want.from_at, latest_at, times_of(draft, want), first_at)
        found = earlier[0] if earlier else found
    return found


def fits_of(draft: Draft, want: Want) -> Iterator[Fit]:
    """Yield the piece that is looked for on each kind of host: kinds differ in their leads."""
    for kind, profile in draft.board.profiles_by_kind.items():
        if want.gpus in profile.sizes:
            yield fit_on(draft, want, kind, profile)


def fit_on(draft: Draft, want: Want, kind: int, profile: HostProfile) -> Fit:
    """Return the piece that is looked for on one kind of host, which has such partitions."""
    assert draft.rules is not None
    label = -1 if want.storage is None else draft.board.label_of(want.storage)
    lead_s = draft.lead_s(profile, want.gpus)
    shortest_s = lead_s + draft.rules.min_useful_s
    return Fit(want.gpus, max(lead_s + want.run_s, shortest_s), shortest_s, -1, label, want.may_use_silent, kind)


def cut_fit(draft: Draft, want: Want, fit: Fit, *, end_by_at: Instant = FOREVER) -> Fit:
    """Return a fit that the calendar may cut at boundaries, each piece on the same partition; if that may be at all."""
    if not draft.windows or want.at_boundary is not AtBoundary.PARK:
        return fit._replace(shortest_s=fit.whole_s)
    lead_s = draft.lead_s(draft.board.profiles_by_kind[fit.kind], want.gpus)
    return fit._replace(lead_s=lead_s, end_by_at=end_by_at)


def is_crossed(draft: Draft, want: Want) -> bool:
    """Whether the policy's own reservations stand where such a request may run: what is long cannot pass by them."""
    shape = _shape_of(want)
    if shape not in draft.crossed:
        draft.crossed[shape] = any(
            _lies_in(stretches_for(draft, want, span.host), span.start_at)
            for one in draft.live_of_policy()
            for span in one.spans
            if span.start_at > draft.now
        )
    return draft.crossed[shape]


def _lies_in(stretches: Stretches, at: Instant) -> bool:
    """Whether an instant lies in any of some stretches."""
    stretch = stretches.not_over_at(at)
    return stretch is not None and stretch.start_at <= at


def is_of_one_partition(spans: Sequence[BookedSpan]) -> bool:
    return bool(spans) and len({(span.host, span.partition) for span in spans}) == 1


def times_of(draft: Draft, want: Want) -> RunTimes:
    """Return when a request may run."""
    return RunTimes(
        _shape_of(want), partial(stretches_for, draft, want), partial(may_park_at, want.at_boundary), draft.horizon_at
    )


def _shape_of(want: Want) -> tuple[int, str, AtBoundary, bool]:
    """Return what tells requests apart that may run at other times."""
    return want.gpus, want.queue, want.at_boundary, want.with_gifts


def stretches_for(draft: Draft, want: Want, host: HostId) -> Stretches:
    """Return when a request may run on a host."""
    return draft.stretches_of(
        host, gpus=want.gpus, queue=want.queue, at_boundary=want.at_boundary, with_gifts=want.with_gifts
    )


def opens_at(draft: Draft, request: Request, from_at: Instant, storage: str | None = None) -> Instant:
    """Return from when on any host, or any with a storage, lets a request in; if none ever does, the instant itself."""
    key = request.gpus, request.queue, request.at_boundary, storage
    known = draft.openings.ranges.setdefault(key, [])
    number = bisect_right(known, from_at, key=_since_at) - 1
    if number >= 0 and from_at < known[number][1]:
        return max(known[number][2], from_at)
    of_hosts = {
        alike: draft.stretches_of(
            alike, gpus=request.gpus, queue=request.queue, at_boundary=request.at_boundary, with_gifts=True
        )
        for alike in draft.hosts_of_a_kind(storage)
    }
    ahead = [found for stretches in of_hosts.values() if (found := stretches.not_over_at(from_at)) is not None]
    first = min(ahead, key=lambda stretch: (max(stretch.start_at, from_at), -stretch.end_at), default=None)
    if first is None:
        return from_at
    # It is the same for all instants up to the end of this stretch.
    insort(known, (min(from_at, first.start_at), first.end_at, first.start_at))
    return max(first.start_at, from_at)


def may_park_at(at_boundary: AtBoundary, stretch: Stretch) -> bool:
    """Whether a request may be parked at the end of a stretch."""
    return (
        at_boundary is AtBoundary.PARK
        and stretch.closed_by is not None
        and AtBoundary.PARK in stretch.closed_by.at_boundary
    )


def _preferred(draft: Draft, want: Want, found: BookedSpan) -> BookedSpan:
    """Return where it stays if that is as early, else a host on which nothing just failed, else another place."""
    fit_by_profile = dict(
        zip(
            (p for p in draft.board.profiles_by_kind.values() if want.gpus in p.sizes),
            fits_of(draft, want),
            strict=True,
        )
    )
    failed = {host for host, _ in want.avoid}
    best, best_rank = found, _rank(want, failed, found)
    for host, partition in _places(draft, want):
        is_out = host.id in draft.silent_hosts and not want.may_use_silent
        fit = fit_by_profile.get(host.profile)
        if fit is None or is_out or (want.storage is not None and host.storage != want.storage):
            continue
        other = BookedSpan(start_at=found.start_at, end_at=found.end_at, host=host.id, partition=partition)
        if _rank(want, failed, other) >= best_rank:
            continue
        span = _piece_at(draft, want, fit, host.id, partition, found.start_at)
        if span is not None:
            best, best_rank = span, _rank(want, failed, span)
    return best


def _places(draft: Draft, want: Want) -> Iterator[tuple[Host, PartitionId]]:
    """Yield the places that may suit better than another that is as early."""
    if want.stay is not None and not want.avoid:
        # No other is better.
        yield draft.hosts[want.stay[0]], want.stay[1]
        return
    for host in draft.hosts.values():
        for partition in host.profile.partitions_of_size(want.gpus):
            yield host, partition.id


def _rank(want: Want, failed: set[HostId], span: BookedSpan) -> tuple[bool, bool, bool]:
    """Return how well a place suits of those that are equally early; the least is best."""
    place = (span.host, span.partition)
    is_elsewhere = want.stay is not None and (place != want.stay or span.start_at != want.from_at)
    return place in want.avoid, is_elsewhere, span.host in failed


def _piece_at(
    draft: Draft, want: Want, fit: Fit, host: HostId, partition: PartitionId, start_at: Instant
) -> BookedSpan | None:
    """Return the piece that starts on a partition at an instant, if it fits there."""
    if draft.board.begins_at(host, partition) > start_at:
        return None
    for stretch in stretches_for(draft, want, host):
        if stretch.start_at > start_at:
            return None
        if start_at >= stretch.end_at:
            continue
        end_at = start_at + fit.whole_s
        if end_at > stretch.end_at:
            if not may_park_at(want.at_boundary, stretch) or start_at + fit.shortest_s > stretch.end_at:
                return None
            end_at = stretch.end_at
        if not draft.board.is_free(host, partition, start_at, end_at):
            return None
        return BookedSpan(start_at=start_at, end_at=end_at, host=host, partition=partition)
    return None
