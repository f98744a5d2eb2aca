"""The windows of a policy in a stretch of time, as core's values.

Windows of one host never overlap in what leaves this module. Maintenance has its hosts, and other windows are cut to
what it leaves of them; where two others meet, the one that stands first in the file has the host (`checks` reports it
as an error before a policy is ever applied).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from itertools import chain
from operator import attrgetter
from typing import NamedTuple
from zoneinfo import ZoneInfo

from policies.format import LoadedPolicy, WindowEntry
from policies.occurrences import Occurrence, instant_of, local_of, occurrences
from policies.times import EntryTimes
from scheduler.core.requests import HostId
from scheduler.core.spans import DAY_S, Instant, Span
from scheduler.core.windows import Window, WindowId


class WindowTime(NamedTuple):
    """One opening of a window entry: `rank` is the entry's place in the file."""

    entry: WindowEntry
    rank: int
    local_start: datetime
    local_end: datetime
    start_at: Instant
    end_at: Instant

    @property
    def id(self) -> WindowId:
        return WindowId(f"{self.entry.name}@{self.local_start.strftime('%Y-%m-%dT%H:%M')}")

    @property
    def decide_at(self) -> Instant:
        return self.start_at - self.entry.decide_lead_s


def window_times(policy: LoadedPolicy, *, from_at: Instant, until_at: Instant) -> tuple[WindowTime, ...]:
    """Return the openings with a start in `[from_at, until_at)`, by start and then by place in the file."""
    openings = window_times_by_rank(policy, from_at=from_at, until_at=until_at)
    return tuple(sorted(chain.from_iterable(openings), key=attrgetter("start_at", "rank")))


def window_times_by_rank(
    policy: LoadedPolicy,
    *,
    from_at: Instant,
    until_at: Instant,
    known: Mapping[EntryTimes, tuple[Occurrence, ...]] | None = None,
) -> list[list[WindowTime]]:
    """Return the openings of each entry with a start in `[from_at, until_at)`, by start.

    An opening whose whole time falls into the hour that does not exist is left out. `known`: what was found of entries
    in this stretch of time before.
    """
    zone = zone_of(policy)
    times: list[list[WindowTime]] = []
    # Of many files, most say the same times.
    openings: dict[tuple[EntryTimes, int], list[tuple[Occurrence, datetime, Instant]]] = {}
    for rank, entry in enumerate(policy.windows):
        key = (entry.opens, entry.for_s)
        if key not in openings:
            found = None if known is None else known.get(entry.opens)
            if found is None:
                found = tuple(occurrences(entry.opens, zone, from_at=from_at, until_at=until_at))
            ends = [one.local + timedelta(seconds=entry.for_s) for one in found]
            openings[key] = [(one, end, instant_of(end, zone)) for one, end in zip(found, ends, strict=True)]
        times.append(
            [
                # By place: there may be a hundred thousand of them.
                WindowTime(entry, rank, occurrence.local, local_end, occurrence.at, end_at)
                for occurrence, local_end, end_at in openings[key]
                if end_at > occurrence.at
            ]
        )
    return times


def windows_between(
    policy: LoadedPolicy, hosts: Iterable[HostId], *, from_at: Instant, until_at: Instant, version: int
) -> tuple[Window, ...]:
    """Return the windows with a start in `[from_at, until_at)` on these hosts, by start and then by place in the file.

    The same stretch cut differently gives the same windows, whatever other hosts there are. A window that covers no
    host is left out.
    """
    # What starts earlier may still be open at `from_at`, what starts later may begin before the last one ends.
    margin_s = max((entry.for_s for entry in policy.windows), default=0) + DAY_S
    times = window_times_by_rank(policy, from_at=max(0, from_at - margin_s), until_at=until_at + margin_s)
    hosts_by_rank = _hosts_by_rank(policy, frozenset(hosts))
    rivals = _rivals(policy, times, hosts_by_rank)
    windows = []
    for time in sorted(chain.from_iterable(times), key=attrgetter("start_at", "rank")):
        covered = hosts_by_rank[time.rank]
        if not covered:
            continue
        for piece, on_hosts in _pieces(
            policy, time, covered, rivals.get((time.rank, time.start_at), ()), hosts_by_rank
        ):
            if from_at <= piece.start_at < until_at:
                windows.append(_window(time, piece, on_hosts, zone_of(policy), version))
    # Pieces of one opening may start after another window does.
    return tuple(sorted(windows, key=lambda window: window.start_at))


def covered_hosts(entry: WindowEntry, hosts: Iterable[HostId]) -> frozenset[HostId]:
    """Return the hosts that an entry's globs name."""
    return frozenset(host for host in hosts if any(fnmatchcase(host, glob) for glob in entry.hosts))


def overlaps(one: Sequence[WindowTime], other: Sequence[WindowTime]) -> Iterator[tuple[WindowTime, WindowTime]]:
    """Yield the pairs of openings of two entries, or of one with itself, that are open at one instant.

    Both are given by start. Two sweeps side by side: the openings of one entry end in the order in which they start.
    """
    first = 0
    for number, time in enumerate(one):
        if one is other:
            first = number + 1
        else:
            while first < len(other) and other[first].end_at <= time.start_at:
                first += 1
        for following in range(first, len(other)):
            if other[following].start_at >= time.end_at:
                break
            if other[following].end_at > time.start_at:
                yield time, other[following]


def _hosts_by_rank(policy: LoadedPolicy, hosts: frozenset[HostId]) -> list[frozenset[HostId]]:
    known: dict[tuple[str, ...], frozenset[HostId]] = {}
    for entry in policy.windows:
        if entry.hosts not in known:
            known[entry.hosts] = covered_hosts(entry, hosts)
    return [known[entry.hosts] for entry in policy.windows]


def _rivals(
    policy: LoadedPolicy, times: list[list[WindowTime]], hosts_by_rank: list[frozenset[HostId]]
) -> dict[tuple[int, Instant], list[WindowTime]]:
    """Return for each opening, by rank and start, those before it in the file that it has to give way to somewhere."""
    ranks_by_host: dict[HostId, list[int]] = defaultdict(list)
    for rank, hosts in enumerate(hosts_by_rank):
        for host in hosts:
            ranks_by_host[host].append(rank)
    pairs = {(one, other) for ranks in ranks_by_host.values() for one in ranks for other in ranks if one < other}
    pairs |= {(rank, rank) for rank in range(len(policy.windows))}
    found: dict[tuple[int, Instant], list[WindowTime]] = defaultdict(list)
    for one, other in sorted(pairs):
        for before, after in overlaps(times[one], times[other]):
            found[after.rank, after.start_at].append(before)
    return found


def _pieces(
    policy: LoadedPolicy,
    time: WindowTime,
    covered: frozenset[HostId],
    rivals: Iterable[WindowTime],
    hosts_by_rank: list[frozenset[HostId]],
) -> Iterator[tuple[Span, frozenset[HostId]]]:
    """Yield what an opening has on which hosts."""
    cutters: list[WindowTime] = []
    for rival in rivals:
        if rival.entry.is_maintenance:
            cutters.append(rival)
        else:
            covered -= hosts_by_rank[rival.rank]
    whole = Span(start_at=time.start_at, end_at=time.end_at)
    if not cutters:
        if covered:
            yield whole, covered
        return
    # Nothing could be done in less; and a window that is over before its guests have left is refused.
    least_s = time.entry.grace_s + (0 if time.entry.is_maintenance else policy.min_useful_s)
    hosts_by_cutters: dict[tuple[Span, ...], set[HostId]] = defaultdict(set)
    for host in covered:
        cuts = sorted((cut.start_at, cut.end_at) for cut in cutters if host in hosts_by_rank[cut.rank])
        hosts_by_cutters[tuple(Span(start_at=start, end_at=end) for start, end in cuts)].add(host)
    hosts_by_piece: dict[Span, set[HostId]] = defaultdict(set)
    for cuts_of_hosts, on_hosts in hosts_by_cutters.items():
        for piece in _left(whole, cuts_of_hosts):
            if piece == whole or piece.length_s >= least_s:
                hosts_by_piece[piece] |= on_hosts
    for piece in sorted(hosts_by_piece, key=lambda span: (span.start_at, span.end_at)):
        yield piece, frozenset(hosts_by_piece[piece])


def _left(whole: Span, cuts: Iterable[Span]) -> Iterator[Span]:
    """Yield what cuts, given by start, leave of a span."""
    cursor = whole.start_at
    for cut in cuts:
        if cut.start_at > cursor:
            yield Span(start_at=cursor, end_at=min(cut.start_at, whole.end_at))
        cursor = max(cursor, cut.end_at)
    if cursor < whole.end_at:
        yield Span(start_at=cursor, end_at=whole.end_at)


def zone_of(policy: LoadedPolicy) -> ZoneInfo:
    """Return the zone that a policy's wall-clock times are in."""
    return ZoneInfo(policy.zone)


def local_text(instant: Instant, zone: ZoneInfo) -> str:
    """Write an instant as the wall clock shows it: `Mon 2026-03-02 20:00`."""
    return local_of(instant, zone).strftime("%a %Y-%m-%d %H:%M")


def _window(time: WindowTime, piece: Span, hosts: frozenset[HostId], zone: ZoneInfo, version: int) -> Window:
    entry = time.entry
    is_whole = (piece.start_at, piece.end_at) == (time.start_at, time.end_at)
    return Window(
        id=time.id if is_whole else _id_of_piece(time, piece, zone),
        name=entry.name,
        layout=entry.layout,
        hosts=hosts,
        start_at=piece.start_at,
        end_at=piece.end_at,
        decide_at=piece.start_at - entry.decide_lead_s,
        only_if_queued=entry.only_if_queued,
        at_boundary=entry.at_boundary,
        warnings_s=entry.warnings_s,
        grace_s=entry.grace_s,
        policy_version=version,
        source=entry.place.source,
    )


def _id_of_piece(time: WindowTime, piece: Span, zone: ZoneInfo) -> WindowId:
    """`night@2026-03-02T20:00#02T20:00-02T22:00`: the same whatever hosts there are."""
    start, end = local_of(piece.start_at, zone), local_of(piece.end_at, zone)
    return WindowId(f"{time.id}#{start:%dT%H:%M}-{end:%dT%H:%M}")
