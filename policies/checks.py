"""What is wrong with a loaded policy once it meets the calendar: found by looking at more than a year of it.

Errors: windows of one host that overlap, entries that occur too often, windows that are over before their guests have
left. Warnings: what never happens, never fits or holds for nobody. Pure: the date to start from is an argument. Windows
are looked at in `checks_windows`, limits in `checks_limits`; here is the rest.
"""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import islice
from operator import attrgetter

from policies.checks_limits import check_limits
from policies.checks_windows import check_windows
from policies.format import LoadedPolicy, ReserveEntry
from policies.globs import globs_meet
from policies.occurrences import Occurrence, occurrences
from policies.problems import Place, Problem, Severity, warning
from policies.times import EntryTimes
from policies.units import duration_text
from policies.windows import WindowTime, window_times_by_rank, zone_of
from scheduler.core.plan import Host
from scheduler.core.requests import AtBoundary
from scheduler.core.spans import DAY_S, Instant
from scheduler.core.windows import Layout

CHECKED_S = 400 * DAY_S
"""How far ahead is looked: a year, with the days that move in it."""
MOST_OCCURRENCES = 10_000
"""Of one entry in that time: more than one an hour."""
MOST_OF_ALL = 250_000
"""Of all entries together: looking at more takes too long."""


def check_policy(policy: LoadedPolicy, *, from_at: Instant, hosts: Iterable[Host] = ()) -> tuple[Problem, ...]:
    """Return errors and warnings, in order of place. With `hosts`, sizes and globs are held against them too.

    A policy with an error here must not be applied. Never raises.
    """
    until_at = from_at + CHECKED_S
    known: dict[EntryTimes, tuple[Occurrence, ...]] = {}
    problems = [
        *policy.notes,
        *_too_often(policy, from_at, until_at, known),
        *_either_day(policy),
        *_unused(policy),
        *check_limits(policy, from_at=from_at),
        *_unknown_to_hosts(policy, tuple(hosts)),
    ]
    if not errors_of(problems):
        times = window_times_by_rank(policy, from_at=from_at, until_at=until_at, known=known)
        problems += check_windows(policy, times, from_at=from_at, until_at=until_at)
        room = _Room(policy, times)
        for entry in policy.reserve:
            problems += _reservations_without_time(policy, entry, room, known[entry.starts], until_at)
    return tuple(sorted(dict.fromkeys(problems), key=lambda problem: problem.place.order))


def errors_of(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return those problems that keep a policy from being applied."""
    return tuple(problem for problem in problems if problem.severity is Severity.ERROR)


def _too_often(
    policy: LoadedPolicy, from_at: Instant, until_at: Instant, known: dict[EntryTimes, tuple[Occurrence, ...]]
) -> list[Problem]:
    """Return errors; what was found of all others is added to `known`."""
    problems = []
    of_all = 0
    for where, times, place in _times(policy):
        if times not in known:
            found = occurrences(times, zone_of(policy), from_at=from_at, until_at=until_at)
            known[times] = tuple(islice(found, MOST_OCCURRENCES + 1))
        of_all += len(known[times])
        if len(known[times]) > MOST_OCCURRENCES:
            what = f"{where} occurs more than once an hour"
            problems.append(Problem(place=place, what=what, value=times.text, instead="give the minute as one number"))
        elif of_all > MOST_OF_ALL:
            what = f"all entries up to {where} occur more than {MOST_OF_ALL} times in {CHECKED_S // DAY_S} days"
            return [*problems, Problem(place=place, what=what, instead="use fewer, or name many hosts in one")]
    return problems


def _either_day(policy: LoadedPolicy) -> list[Problem]:
    return [
        warning(
            place,
            f"{where} occurs on each such day of the month and on each such weekday, as cron has it",
            times.text,
            "put * in one of the two fields if you did not mean that",
        )
        for where, times, place in _times(policy)
        if times.joins_days
    ]


def _times(policy: LoadedPolicy) -> list[tuple[str, EntryTimes, Place]]:
    windows = [(entry.what, entry.opens, entry.place) for entry in policy.windows]
    return windows + [(f"reserve {entry.name}", entry.starts, entry.place) for entry in policy.reserve]


def _unused(policy: LoadedPolicy) -> list[Problem]:
    """Warn of layouts and queues that are never in force."""
    in_force = {policy.outside, *(entry.layout for entry in policy.windows)}
    problems = [
        warning(
            policy.place_of(f"layout {layout.name}"),
            f"layout {layout.name} holds at no time",
            None,
            "name it in outside or in a window",
        )
        for layout in policy.layouts
        if layout not in in_force
    ]
    taken = {queue for layout in in_force for queue in layout.queues}
    for queue in policy.queues:
        if queue.name not in taken:
            what = f"queue {queue.name} is in no layout that ever holds: nothing in it can run"
            place = policy.place_of(f"queue {queue.name}")
            problems.append(warning(place, what, None, "add it to the queues of a layout"))
    return problems


def _unknown_to_hosts(policy: LoadedPolicy, hosts: tuple[Host, ...]) -> list[Problem]:
    """Warn of sizes that no host has and of globs that no host matches."""
    if not hosts:
        return []
    sizes = sorted(set().union(*(host.profile.sizes for host in hosts)))
    problems = []
    for layout in policy.layouts:
        for size in sorted(layout.sizes.difference(sizes)):
            place = policy.place_of(f"layout {layout.name}")
            instead = "the sizes are " + ", ".join(map(str, sizes))
            problems.append(warning(place, f"layout {layout.name} has a size that no host has", str(size), instead))
    for entry in policy.windows:
        problems += [
            warning(entry.place, f"{entry.what} names hosts that do not exist", glob, _known_hosts(hosts))
            for glob in entry.hosts
            if not any(globs_meet(glob, host.id) for host in hosts)
        ]
    return problems


def _known_hosts(hosts: tuple[Host, ...]) -> str:
    return "the hosts are " + ", ".join(sorted(host.id for host in hosts)[:10])


class _Room:
    """The openings that admit a size and queue, made once for each and searched by time."""

    def __init__(self, policy: LoadedPolicy, times_by_rank: list[list[WindowTime]]) -> None:
        self._windows = policy.windows
        self._times_by_rank = times_by_rank
        # By the clock on the wall; it may be set forward or back by some hours in between.
        self._longest_s = max((entry.for_s for entry in policy.windows), default=0) + DAY_S
        self._known: dict[tuple[int, str], tuple[list[WindowTime], list[Instant]]] = {}
        everywhere = (rank for rank, e in enumerate(policy.windows) if e.is_maintenance and "*" in e.hosts)
        self.everywhere = [time for rank in everywhere for time in times_by_rank[rank]]
        """Maintenance that leaves no host."""

    def between(self, start_at: Instant, until_at: Instant, *, gpus: int, queue: str) -> Iterable[WindowTime]:
        """Yield the openings that admit it and are open at some time in `[start_at, until_at]`."""
        if (gpus, queue) not in self._known:
            ranks = [rank for rank, e in enumerate(self._windows) if e.layout.admits(gpus=gpus, queue=queue)]
            admitting = [time for rank in ranks for time in self._times_by_rank[rank]]
            admitting.sort(key=attrgetter("start_at"))
            self._known[gpus, queue] = admitting, [time.start_at for time in admitting]
        admitting, starts = self._known[gpus, queue]
        for number in range(bisect_left(starts, start_at - self._longest_s), len(admitting)):
            if admitting[number].start_at > until_at:
                return
            if admitting[number].end_at > start_at:
                yield admitting[number]


def _reservations_without_time(
    policy: LoadedPolicy, entry: ReserveEntry, room: _Room, found: tuple[Occurrence, ...], until_at: Instant
) -> list[Problem]:
    """Warn if an occurrence falls where nothing admits it. Only the first one is told."""
    for occurrence in found:
        if occurrence.at >= until_at - entry.run_s:
            break  # The windows that it needs are not known any more.
        why = _why_no_time(policy, entry, occurrence, room)
        if why is not None:
            what = f"reserve {entry.name} cannot run on {occurrence.local:%Y-%m-%d %H:%M}: {why}"
            return [warning(entry.place, what, None, "check its times against the windows")]
    if not found:
        what = f"reserve {entry.name} does not occur in the next {CHECKED_S // DAY_S} days"
        return [warning(entry.place, what, entry.starts.text, "check its days")]
    return []


def _why_no_time(policy: LoadedPolicy, entry: ReserveEntry, occurrence: Occurrence, room: _Room) -> str | None:
    queue = next(queue for queue in policy.queues if queue.name == entry.queue)
    must_finish = (entry.at_boundary or queue.at_boundary) is AtBoundary.FINISH
    latest_at = occurrence.at + entry.run_s
    for time in room.everywhere:
        if time.start_at <= occurrence.at and latest_at <= time.end_at:
            return f"maintenance {time.entry.name} has all hosts then"

    def admits(layout: Layout) -> bool:
        return layout.admits(gpus=entry.gpus, queue=entry.queue)

    if admits(policy.outside):
        # Hosts that no window takes, and the time before and after windows, are too many cases to judge from a file.
        return None
    is_any_open = False
    for time in room.between(occurrence.at, latest_at, gpus=entry.gpus, queue=entry.queue):
        is_any_open = True
        if not must_finish or time.end_at - max(time.start_at, occurrence.at) > entry.run_s:
            return None
    if is_any_open:
        return f"its {duration_text(entry.run_s)} and the hand-over do not fit before the window closes"
    layouts = " or ".join(layout.name for layout in policy.layouts if admits(layout))
    return f"no window with layout {layouts} is open then"
