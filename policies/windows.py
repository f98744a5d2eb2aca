"""The windows of a policy in a stretch of time, as core's values.

Windows of one host never overlap in what leaves this module: where two entries meet, the one that stands first in the
file has the host (`checks` reports it as an error before a policy is ever applied).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from zoneinfo import ZoneInfo

from policies.format import LoadedPolicy, WindowEntry
from policies.occurrences import instant_of, local_of, occurrences
from scheduler.core.requests import HostId
from scheduler.core.spans import DAY_S, Instant
from scheduler.core.windows import Window, WindowId


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowTime:
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
    """Return the openings with a start in `[from_at, until_at)`, by start and then by place in the file.

    An opening whose whole time falls into the hour that does not exist is left out.
    """
    zone = zone_of(policy)
    times = []
    for rank, entry in enumerate(policy.windows):
        for occurrence in occurrences(entry.opens, zone, from_at=from_at, until_at=until_at):
            local_end = occurrence.local + timedelta(seconds=entry.for_s)
            end_at = instant_of(local_end, zone)
            if end_at <= occurrence.at:
                continue
            times.append(
                WindowTime(
                    entry=entry,
                    rank=rank,
                    local_start=occurrence.local,
                    local_end=local_end,
                    start_at=occurrence.at,
                    end_at=end_at,
                )
            )
    return tuple(sorted(times, key=lambda time: (time.start_at, time.rank)))


def windows_between(
    policy: LoadedPolicy, hosts: Iterable[HostId], *, from_at: Instant, until_at: Instant, version: int
) -> tuple[Window, ...]:
    """Return the windows with a start in `[from_at, until_at)` on these hosts, by start and then by place in the file.

    The same stretch cut differently gives the same windows. A window that covers no host is left out.
    """
    known_hosts = frozenset(hosts)
    # What starts earlier may still be open at `from_at`, what starts later may begin before the last one ends.
    margin_s = max((entry.for_s for entry in policy.windows), default=0) + DAY_S
    times = window_times(policy, from_at=max(0, from_at - margin_s), until_at=until_at + margin_s)
    hosts_by_rank = [covered_hosts(entry, known_hosts) for entry in policy.windows]
    lost_by_time: dict[WindowTime, frozenset[HostId]] = {}
    for earlier, later in overlapping(times):
        loser, winner = (earlier, later) if later.rank < earlier.rank else (later, earlier)
        lost_by_time[loser] = lost_by_time.get(loser, frozenset()) | hosts_by_rank[winner.rank]
    windows = []
    for time in times:
        covered = hosts_by_rank[time.rank] - lost_by_time.get(time, frozenset())
        if covered and from_at <= time.start_at < until_at:
            windows.append(_window(time, covered, version))
    return tuple(windows)


def covered_hosts(entry: WindowEntry, hosts: Iterable[HostId]) -> frozenset[HostId]:
    """Return the hosts that an entry's globs name."""
    return frozenset(host for host in hosts if any(fnmatchcase(host, glob) for glob in entry.hosts))


def overlapping(times: Iterable[WindowTime]) -> Iterator[tuple[WindowTime, WindowTime]]:
    """Yield each pair of openings, given by start, that are open at one instant, whatever their hosts."""
    still_open: list[WindowTime] = []
    for time in times:
        still_open = [earlier for earlier in still_open if earlier.end_at > time.start_at]
        for earlier in still_open:
            yield earlier, time
        still_open.append(time)


def zone_of(policy: LoadedPolicy) -> ZoneInfo:
    """Return the zone that a policy's wall-clock times are in."""
    return ZoneInfo(policy.zone)


def local_text(instant: Instant, zone: ZoneInfo) -> str:
    """Write an instant as the wall clock shows it: `Mon 2026-03-02 20:00`."""
    return local_of(instant, zone).strftime("%a %Y-%m-%d %H:%M")


def _window(time: WindowTime, hosts: frozenset[HostId], version: int) -> Window:
    entry = time.entry
    return Window(
        id=time.id,
        name=entry.name,
        layout=entry.layout,
        hosts=hosts,
        start_at=time.start_at,
        end_at=time.end_at,
        decide_at=time.decide_at,
        only_if_queued=entry.only_if_queued,
        at_boundary=entry.at_boundary,
        warnings_s=entry.warnings_s,
        grace_s=entry.grace_s,
        policy_version=version,
        source=entry.place.source,
    )
