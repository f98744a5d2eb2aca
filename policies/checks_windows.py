"""What is wrong with windows over more than a year: overlaps, gaps, what never opens or is too short."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from itertools import chain
from operator import attrgetter

from policies.format import HAND_OVER_BOUND_S, LoadedPolicy
from policies.globs import share_a_host
from policies.holiday_days import DateRange
from policies.occurrences import local_of
from policies.problems import Problem, warning
from policies.times import EntryTimes
from policies.units import duration_text
from policies.windows import WindowTime, local_text, overlaps, zone_of
from scheduler.core.spans import DAY_S, Instant, Span

MOST_STEPS = 5_000_000
"""Openings that are held against each other; more takes too long."""
LONG_GAP_S = 14 * DAY_S
"""A queue that nothing admits for so long is worth a warning."""


def check_windows(
    policy: LoadedPolicy, times_by_rank: list[list[WindowTime]], *, from_at: Instant, until_at: Instant
) -> list[Problem]:
    """Return what is wrong with windows, given the openings of each in `[from_at, until_at)`."""
    meeting = _meeting(policy)
    found = _overlaps(policy, times_by_rank, meeting)
    return [
        *found,
        *_never_or_too_short(policy, times_by_rank, from_at, until_at),
        *_exceptions_that_do_nothing(policy, from_at, until_at),
        *([] if found else _short_gaps(policy, times_by_rank, meeting)),
        *_long_gaps(policy, times_by_rank, from_at, until_at),
    ]


def _meeting(policy: LoadedPolicy) -> list[tuple[int, int]]:
    """Return the pairs of entries, by rank, that may have a host in common.

    Also where no host that exists today is in both: one that is added tomorrow might be.
    """
    ranks_by_hosts: dict[tuple[str, ...], list[int]] = {}
    for rank, entry in enumerate(policy.windows):
        ranks_by_hosts.setdefault(entry.hosts, []).append(rank)
    sets = list(ranks_by_hosts)
    pairs = {
        (min(rank, other), max(rank, other))
        for number, hosts in enumerate(sets)
        for others in sets[number:]
        if hosts == others or share_a_host(hosts, others)
        for rank in ranks_by_hosts[hosts]
        for other in ranks_by_hosts[others]
    }
    return sorted(pairs)


def _overlaps(
    policy: LoadedPolicy, times_by_rank: list[list[WindowTime]], meeting: list[tuple[int, int]]
) -> list[Problem]:
    """Report each pair of entries once, at its first overlap. Maintenance may lie over anything."""
    problems: list[Problem] = []
    steps = 0
    for one, other in meeting:
        first, second = policy.windows[one], policy.windows[other]
        if first.is_maintenance and one != other:
            continue
        ones, others = times_by_rank[one], times_by_rank[other]
        steps += len(ones) + len(others)
        if steps > MOST_STEPS:
            what = "there are too many windows to look for overlaps"
            return [*problems, Problem(place=second.place, what=what, instead="name many hosts in one window")]
        pair = next(overlaps(ones, others), None)
        if pair is None:
            continue
        start_at, end_at = max(pair[0].start_at, pair[1].start_at), min(pair[0].end_at, pair[1].end_at)
        zone = zone_of(policy)
        when = f"from {local_text(start_at, zone)} to {local_text(end_at, zone)}"
        if one == other:
            what = f"{first.what} opens again before it has closed, {when}"
            instead = "shorten its for, or open it less often"
        else:
            where = second.place.told_of(first.place)
            what = f"{second.what} overlaps {first.what} ({where}), {when}"
            instead = "give them different hosts or times"
            if first.opens.cron is not None and second.opens.at:
                instead += f", or add except: [{pair[0].local_start:%Y-%m-%d}] to {first.what}"
        problems.append(Problem(place=second.place, what=what, instead=instead))
    return problems


def _never_or_too_short(
    policy: LoadedPolicy, times_by_rank: list[list[WindowTime]], from_at: Instant, until_at: Instant
) -> list[Problem]:
    problems = []
    days = (until_at - from_at) // DAY_S
    today = local_of(from_at, zone_of(policy))
    for rank, entry in enumerate(policy.windows):
        times = times_by_rank[rank]
        if not times:
            if entry.opens.cron is None and entry.opens.at and entry.opens.at[-1] < today:
                # One that is open just now is of use; what is over is not.
                if entry.opens.at[-1] + timedelta(seconds=entry.for_s) <= today:
                    problems.append(warning(entry.place, f"{entry.what} is past", entry.opens.text, "remove it"))
                continue
            what = f"{entry.what} does not open in the next {days} days"
            problems.append(warning(entry.place, what, entry.opens.text, "check its days"))
            continue
        shortest = min(times, key=lambda time: time.end_at - time.start_at)
        length_s = shortest.end_at - shortest.start_at
        see = f"(see {shortest.local_start:%Y-%m-%d %H:%M})"
        least_s = entry.grace_s + HAND_OVER_BOUND_S + policy.min_useful_s
        if length_s < entry.grace_s:
            what = f"{entry.what} is over before its guests have had their grace of {duration_text(entry.grace_s)}"
            instead = f"make it longer, or its grace shorter {see}"
            problems.append(Problem(place=entry.place, what=what, value=duration_text(length_s), instead=instead))
        elif length_s < least_s and not entry.is_maintenance:
            what = f"{entry.what} is too short for its hand-over and the minimum useful length"
            instead = f"make it longer than {duration_text(least_s)} {see}"
            problems.append(warning(entry.place, what, duration_text(length_s), instead))
    return problems


def _exceptions_that_do_nothing(policy: LoadedPolicy, from_at: Instant, until_at: Instant) -> list[Problem]:
    """Warn of dates in `except` on which the entry would not begin anyway."""
    zone = zone_of(policy)
    first, last = local_of(from_at, zone), local_of(until_at, zone)
    problems = []
    for what, times, place in (
        *((entry.what, entry.opens, entry.place) for entry in policy.windows),
        *((f"reserve {entry.name}", entry.starts, entry.place) for entry in policy.reserve),
    ):
        if times.cron is None or not times.but_not:
            continue
        for dates in times.but_not:
            if dates.last < first.date():
                problems.append(warning(place, f"{what}: an exception is past", str(dates), "remove it"))
            elif dates.last < last.date() and not _would_begin(times, dates, first.date()):
                said = f"{what} does not begin then anyway: except"
                problems.append(warning(place, said, str(dates), "check the date; it is that of the start"))
    return problems


def _would_begin(times: EntryTimes, dates: DateRange, today: date) -> bool:
    assert times.cron is not None
    midnight = _midnight(max(dates.first, today))
    until = _midnight(dates.last + timedelta(days=1))
    return next(times.cron.local_times(midnight - timedelta(minutes=1), until), None) is not None


def _midnight(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time())


def _short_gaps(
    policy: LoadedPolicy, times_by_rank: list[list[WindowTime]], meeting: list[tuple[int, int]]
) -> list[Problem]:
    """Warn once for each pair of windows that leave time between them in which nothing can be started."""
    least_s = policy.min_useful_s + policy.grace_s
    neighbours: dict[int, set[int]] = {}
    for one, other in meeting:
        if policy.windows[one].is_maintenance or policy.windows[other].is_maintenance:
            continue
        neighbours.setdefault(one, set()).add(other)
        neighbours.setdefault(other, set()).add(one)
    problems = []
    told: set[tuple[int, int]] = set()
    for rank, others in neighbours.items():
        for other in others:
            gap = _first_gap(times_by_rank[rank], times_by_rank[other], least_s)
            if gap is None or (other, rank) in told:
                continue
            closed, opened = gap
            # Another window of these hosts may open right there.
            if any(time.start_at == closed.end_at for third in others for time in times_by_rank[third]):
                continue
            told.add((rank, other))
            what = f"{opened.entry.what} opens {duration_text(opened.start_at - closed.end_at)} after"
            what += f" {closed.entry.what} has closed: too short a gap for anything else"
            instead = f"let them touch, or leave {duration_text(least_s)} (see {opened.local_start:%Y-%m-%d %H:%M})"
            problems.append(warning(opened.entry.place, what, None, instead))
    return problems


def _first_gap(
    closing: list[WindowTime], opening: list[WindowTime], least_s: int
) -> tuple[WindowTime, WindowTime] | None:
    number = 0
    for time in closing:
        while number < len(opening) and opening[number].start_at < time.end_at:
            number += 1
        if number == len(opening):
            return None
        if 0 < opening[number].start_at - time.end_at < least_s:
            return time, opening[number]
    return None


def _long_gaps(
    policy: LoadedPolicy, times_by_rank: list[list[WindowTime]], from_at: Instant, until_at: Instant
) -> list[Problem]:
    """Warn of the first long stretch in which no window takes a queue that only windows take."""
    zone = zone_of(policy)
    problems = []
    for queue in policy.queues:
        if queue.name in policy.outside.queues and policy.outside.sizes:
            continue
        taking = [times for times in times_by_rank if times and queue.name in times[0].entry.layout.queues]
        # Of none at all it is said already, of the layout or the windows; mostly one of them alone has no long gap.
        if not taking or any(_first_long_gap(times, from_at, until_at) is None for times in taking):
            continue
        gap = _first_long_gap(sorted(chain.from_iterable(taking), key=attrgetter("start_at")), from_at, until_at)
        if gap is not None:
            stretch = f"{local_text(gap.start_at, zone)} to {local_text(gap.end_at, zone)}"
            what = f"queue {queue.name} has no window for {gap.length_s // DAY_S} days, from {stretch}"
            place = policy.place_of(f"queue {queue.name}")
            problems.append(warning(place, what, None, "open a window with it in between if that is not meant"))
    return problems


def _first_long_gap(times: Iterable[WindowTime], from_at: Instant, until_at: Instant) -> Span | None:
    free_from_at = from_at
    for time in times:
        if time.start_at - free_from_at > LONG_GAP_S:
            return Span(start_at=free_from_at, end_at=time.start_at)
        free_from_at = max(free_from_at, time.end_at)
    return Span(start_at=free_from_at, end_at=until_at) if until_at - free_from_at > LONG_GAP_S else None
