"""Placing: the earliest booking for some running hours, on the calendar as it stands.

A booking is one span, or several where its hours cross a boundary and it may be parked there: it runs to the edge and
goes on, perhaps on another block or host, when its time comes again. Every span holds its lead (the hand-over and the
start, by bounds) and at least the minimum useful length. The first planner takes the earliest start, then the place
that breaks up least. Changes nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from scheduler.core.plan import BookedDisk, BookedSpan, Host
from scheduler.core.planner.draft import Draft
from scheduler.core.requests import AtBoundary, HostId
from scheduler.core.spans import FOREVER, Instant
from scheduler.core.topology import Partition, PartitionId
from scheduler.core.windows import Stretch, Stretches

MOST_PARKINGS = 128
"""A booking is never cut into more spans than this."""

MOST_DISK_WAITS = 32
"""How many ends of disks are tried before a placement gives up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """What is to be placed."""

    gpus: int
    queue: str
    at_boundary: AtBoundary
    run_s: int
    """Running time still to deliver."""
    from_at: Instant
    """Not before: the earliest start of the first span."""
    only_at: bool = False
    """The first span starts exactly at `from_at`, or not at all."""
    with_gifts: bool = True
    storage: str | None = None
    """Where its disk is; None while it has none: any host will do."""
    disk_gib: int = 0
    """Room to be found for a new disk; 0 when it has one."""
    kept_disk: BookedDisk | None = None
    """The disk that it has: room is to be found for as long as it is kept longer than it is booked for now."""
    is_scratch: bool = False
    avoid: frozenset[tuple[HostId, PartitionId]] = frozenset()
    """Places that just failed: taken only when there is no other."""
    stay: tuple[HostId, PartitionId] | None = None
    """Where it runs until then: preferred, since its guest just runs on."""
    may_use_silent: bool = False
    """Also on hosts that do not answer."""


@dataclass(frozen=True, slots=True)
class _First:
    """A candidate for the first span."""

    start_at: Instant
    end_at: Instant
    host: Host
    partition: Partition
    stretch: Stretch


def place(draft: Draft, want: Want) -> tuple[BookedSpan, ...] | None:
    """Return the earliest booking, or None when there is none before the horizon."""
    first = _earliest(draft, want)
    from_at = want.from_at
    for _ in range(MOST_DISK_WAITS):
        if first is None:
            return None
        spans = _with_tail(draft, want, first)
        if spans is None:
            return None
        room_at = _disk_room_at(draft, want, spans, first.host.storage)
        if room_at is None:
            return spans
        if want.only_at or room_at >= draft.horizon_at:
            return None
        from_at = max(room_at, from_at + 1)
        first = _earliest(draft, replace(want, from_at=from_at))
    return None


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
    peak = draft.pool_peak_gib(storage, is_scratch=want.is_scratch, start_at=spans[0].start_at, end_at=until_at)
    if peak + want.disk_gib <= room:
        return None
    return draft.next_disk_end(storage, is_scratch=want.is_scratch, after_at=spans[0].start_at)


def _may_keep(draft: Draft, disk: BookedDisk, until_at: Instant) -> bool:
    """Whether the pool has room for a disk up to an instant; what it is booked for already is its own."""
    if until_at <= disk.until_at:
        return True
    room = draft.pool_room_gib(disk.storage, is_scratch=disk.is_scratch)
    peak = draft.pool_peak_gib(disk.storage, is_scratch=disk.is_scratch, start_at=disk.until_at, end_at=until_at)
    return peak + disk.size_gib <= room


def _with_tail(draft: Draft, want: Want, first: _First) -> tuple[BookedSpan, ...] | None:
    """Return the first span with those that follow its parkings."""
    spans = [_booked(first)]
    current, run_s = first, want.run_s
    while True:
        run_s -= current.end_at - current.start_at - draft.lead_s(current.host.profile, want.gpus)
        if run_s <= 0:
            return tuple(spans)
        if len(spans) == MOST_PARKINGS:
            return None
        following = _earliest(
            draft,
            Want(
                gpus=want.gpus,
                queue=want.queue,
                at_boundary=want.at_boundary,
                run_s=run_s,
                from_at=current.end_at,
                with_gifts=want.with_gifts,
                storage=first.host.storage,
                may_use_silent=want.may_use_silent,
            ),
        )
        if following is None:
            return None
        spans.append(_booked(following))
        current = following


def _booked(first: _First) -> BookedSpan:
    return BookedSpan(start_at=first.start_at, end_at=first.end_at, host=first.host.id, partition=first.partition.id)


def _earliest(draft: Draft, want: Want) -> _First | None:
    """Return the earliest first span; among equally early ones where least is broken up, then host and block order."""
    candidates: list[_First] = []
    earliest = FOREVER
    for host in _hosts(draft, want):
        stretches = draft.stretches_of(
            host.id, gpus=want.gpus, queue=want.queue, at_boundary=want.at_boundary, with_gifts=want.with_gifts
        )
        out, late = draft.mask_out(host.id), draft.late_stops_on(host.id)
        for partition in host.profile.partitions_of_size(want.gpus):
            if partition.mask & out:
                continue
            from_at = max([want.from_at, *(at for mask, at in late if mask & partition.mask)]) if late else want.from_at
            fit = _fit(draft, want, host, partition, stretches, from_at=from_at, latest_at=earliest)
            if fit is not None:
                earliest = min(earliest, fit.start_at)
                candidates.append(fit)
    tied = [fit for fit in candidates if fit.start_at == earliest]
    if len(tied) <= 1:
        return tied[0] if tied else None
    busy = {host: draft.calendar.by_host[host].busy_mask(earliest) for host in {fit.host.id for fit in tied}}
    return min(tied, key=lambda fit: _preference(draft, want, fit, busy[fit.host.id]))


def _preference(draft: Draft, want: Want, fit: _First, busy: int) -> tuple[bool, bool, tuple[int, ...], HostId, int]:
    crowding = draft.calendar.by_host[fit.host.id].crowding(fit.partition, busy)
    place = (fit.host.id, fit.partition.id)
    is_elsewhere = fit.start_at == want.from_at and place != want.stay
    return place in want.avoid, is_elsewhere, tuple(-busy for busy in crowding), fit.host.id, min(fit.partition.gpus)


def _hosts(draft: Draft, want: Want) -> Iterable[Host]:
    for _, host in sorted(draft.hosts.items()):
        if host.is_drained or (host.id in draft.silent_hosts and not want.may_use_silent):
            continue
        if want.storage is None or host.storage == want.storage:
            yield host


def _fit(
    draft: Draft,
    want: Want,
    host: Host,
    partition: Partition,
    stretches: Stretches,
    *,
    from_at: Instant,
    latest_at: Instant,
) -> _First | None:
    """Return the earliest first span on one partition that starts in `[from_at, latest_at]`."""
    assert draft.rules is not None
    calendar = draft.calendar.by_host[host.id]
    lead_s = draft.lead_s(host.profile, want.gpus)
    shortest_s = lead_s + draft.rules.min_useful_s
    whole_s = max(lead_s + want.run_s, shortest_s)
    for stretch in stretches:
        if stretch.end_at <= from_at:
            continue
        start_at = max(stretch.start_at, from_at)
        if want.only_at and start_at != want.from_at:
            return None
        may_park = (
            want.at_boundary is AtBoundary.PARK
            and stretch.closed_by is not None
            and AtBoundary.PARK in stretch.closed_by.at_boundary
        )
        while start_at <= latest_at:
            if start_at + whole_s <= stretch.end_at:
                end_at = start_at + whole_s
            elif may_park and start_at + shortest_s <= stretch.end_at:
                end_at = stretch.end_at
            else:
                break
            conflict = calendar.conflict(partition, start_at, end_at)
            if conflict is None:
                return _First(start_at, end_at, host, partition, stretch)
            if want.only_at:
                return None
            start_at = conflict
        if start_at > latest_at or want.only_at:
            return None
    return None
