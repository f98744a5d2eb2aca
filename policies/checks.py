"""What is wrong with a loaded policy once it meets the calendar: found by looking at more than a year of it.

Errors: windows of one host that overlap, entries that occur too often. Warnings: what never happens or never fits.
Pure: the date to start from is an argument.
"""

from collections.abc import Iterable
from functools import lru_cache
from itertools import islice

from policies.cron import Cron
from policies.format import LoadedPolicy, ReserveEntry, WindowEntry
from policies.occurrences import Occurrence, occurrences
from policies.problems import Place, Problem, Severity
from policies.units import duration_text
from policies.windows import WindowTime, local_text, overlapping, window_times, zone_of
from scheduler.core.plan import Host
from scheduler.core.requests import AtBoundary
from scheduler.core.spans import DAY_S, Instant
from scheduler.core.windows import Layout

CHECKED_S = 400 * DAY_S
"""How far ahead is looked: a year, with the days that move in it."""
MOST_OCCURRENCES = 10_000
"""Of one entry in that time: more than one an hour."""
MOST_PAIRS = 5_000_000
"""Pairs of windows that are open at one instant, over that time: looking at more takes too long."""


def check_policy(policy: LoadedPolicy, *, from_at: Instant, hosts: Iterable[Host] = ()) -> tuple[Problem, ...]:
    """Return errors and warnings, in order of place. With `hosts`, sizes and globs are held against them too.

    A policy with an error here must not be applied.
    """
    until_at = from_at + CHECKED_S
    problems = [
        *_too_often(policy, from_at, until_at),
        *_either_day(policy),
        *_unused(policy),
        *_over_the_limits(policy),
        *_unknown_to_hosts(policy, tuple(hosts)),
    ]
    if not any(problem.severity is Severity.ERROR for problem in problems):
        times = window_times(policy, from_at=from_at, until_at=until_at)
        problems += _overlaps(policy, times)
        problems += _windows_that_do_nothing(policy, times)
        for entry in policy.reserve:
            problems += _reservations_without_time(policy, entry, times, from_at, until_at)
    return tuple(sorted(problems, key=lambda problem: (problem.place.line, problem.place.column)))


def errors_of(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return those problems that keep a policy from being applied."""
    return tuple(problem for problem in problems if problem.severity is Severity.ERROR)


def _too_often(policy: LoadedPolicy, from_at: Instant, until_at: Instant) -> list[Problem]:
    problems = []
    for where, cron, place in _crons(policy):
        times = occurrences(cron, zone_of(policy), from_at=from_at, until_at=until_at)
        if sum(1 for _ in islice(times, MOST_OCCURRENCES + 1)) > MOST_OCCURRENCES:
            what = f"{where} occurs more than once an hour"
            problems.append(Problem(place=place, what=what, value=cron.text, instead="give the minute as one number"))
    return problems


def _either_day(policy: LoadedPolicy) -> list[Problem]:
    return [
        _warning(
            place,
            f"{where} occurs on each such day of the month and on each such weekday, as cron has it",
            cron.text,
            "put * in one of the two fields if you did not mean that",
        )
        for where, cron, place in _crons(policy)
        if cron.joins_days
    ]


def _crons(policy: LoadedPolicy) -> list[tuple[str, Cron, Place]]:
    windows = [(f"window {entry.name}", entry.opens, entry.place) for entry in policy.windows]
    return windows + [(f"reserve {entry.name}", entry.cron, entry.place) for entry in policy.reserve]


def _unused(policy: LoadedPolicy) -> list[Problem]:
    """Warn of layouts and queues that are never in force."""
    place = Place(file=policy.source, line=1, column=1)
    in_force = {policy.outside, *(entry.layout for entry in policy.windows)}
    problems = [
        _warning(place, f"layout {layout.name} holds at no time", None, "name it in outside or in a window")
        for layout in policy.layouts
        if layout not in in_force
    ]
    taken = {queue for layout in in_force for queue in layout.queues}
    for queue in policy.queues:
        if queue.name not in taken:
            what = f"queue {queue.name} is in no layout that ever holds: nothing in it can run"
            problems.append(_warning(place, what, None, "add it to the queues of a layout"))
    return problems


def _over_the_limits(policy: LoadedPolicy) -> list[Problem]:
    """Warn of reservations that the policy's own limits refuse."""
    limits = policy.limits
    problems = []
    for entry in policy.reserve:
        where = f"reserve {entry.name}"
        if limits.longest_run_s is not None and entry.run_s > limits.longest_run_s:
            instead = f"limits.longest is {duration_text(limits.longest_run_s)}"
            what = f"{where} runs longer than the limits allow"
            problems.append(_warning(entry.place, what, duration_text(entry.run_s), instead))
        gpus = entry.gpus * entry.count
        if limits.gpus_at_once is not None and gpus > limits.gpus_at_once:
            what = f"{where} wants more GPUs at once than the limits allow one owner"
            problems.append(_warning(entry.place, what, str(gpus), f"limits.gpus_at_once is {limits.gpus_at_once}"))
        if limits.open_reservations is not None and entry.count > limits.open_reservations:
            what = f"{where} makes more reservations than the limits allow one owner"
            instead = f"limits.open_reservations is {limits.open_reservations}"
            problems.append(_warning(entry.place, what, str(entry.count), instead))
    return problems


def _unknown_to_hosts(policy: LoadedPolicy, hosts: tuple[Host, ...]) -> list[Problem]:
    """Warn of sizes that no host has and of globs that no host matches."""
    if not hosts:
        return []
    place = Place(file=policy.source, line=1, column=1)
    sizes = sorted(set().union(*(host.profile.sizes for host in hosts)))
    problems = []
    for layout in policy.layouts:
        for size in sorted(layout.sizes.difference(sizes)):
            instead = "the sizes are " + ", ".join(map(str, sizes))
            problems.append(_warning(place, f"layout {layout.name} has a size that no host has", str(size), instead))
    for entry in policy.windows:
        problems += [
            _warning(entry.place, f"window {entry.name} names hosts that do not exist", glob, _known_hosts(hosts))
            for glob in entry.hosts
            if not any(globs_meet(glob, host.id) for host in hosts)
        ]
    return problems


def _known_hosts(hosts: tuple[Host, ...]) -> str:
    return "the hosts are " + ", ".join(sorted(host.id for host in hosts)[:10])


def _overlaps(policy: LoadedPolicy, times: tuple[WindowTime, ...]) -> list[Problem]:
    """Report each pair of entries once, at its first overlap.

    Also where no host that exists today is in both: one that is added tomorrow might be.
    """
    zone = zone_of(policy)
    reported: set[tuple[int, int]] = set()
    problems: list[Problem] = []
    for number, (earlier, later) in enumerate(overlapping(times)):
        if number == MOST_PAIRS:
            what = "too many windows are open at once to look for overlaps"
            return [*problems, Problem(place=policy.windows[0].place, what=what, instead="use fewer or shorter ones")]
        first, second = sorted((earlier, later), key=lambda time: time.rank)
        pair = (first.rank, second.rank)
        if pair in reported or not _share_a_host(first.entry, second.entry):
            continue
        reported.add(pair)
        when = f"{local_text(later.start_at, zone)} to {local_text(min(earlier.end_at, later.end_at), zone)}"
        if first.rank == second.rank:
            what = f"window {first.entry.name} opens again before it has closed, from {when}"
            instead = "shorten its for, or open it less often"
        else:
            where = f"line {first.entry.place.line}"
            what = f"window {second.entry.name} overlaps window {first.entry.name} ({where}), from {when}"
            instead = "give them different hosts or times"
        problems.append(Problem(place=second.entry.place, what=what, instead=instead))
    return problems


def _share_a_host(one: WindowEntry, other: WindowEntry) -> bool:
    return any(globs_meet(glob, another) for glob in one.hosts for another in other.hosts)


@lru_cache(maxsize=4096)
def globs_meet(one: str, other: str) -> bool:
    """Whether some name matches both globs, made of plain characters, `?` and `*`."""
    # reach[j]: what was read of `one` and the first j characters of `other` can match the same beginning of a name.
    reach = [True] + [False] * len(other)
    for j, character in enumerate(other):
        reach[j + 1] = reach[j] and character == "*"
    for mine in one:
        row = [reach[0] and mine == "*"]
        for j, theirs in enumerate(other):
            if mine == "*" or theirs == "*":
                # A star takes nothing, or one more of what stands opposite and stays.
                row.append(reach[j + 1] or row[j])
            else:
                row.append(reach[j] and (mine == theirs or "?" in (mine, theirs)))
        reach = row
    return reach[-1]


def _windows_that_do_nothing(policy: LoadedPolicy, times: tuple[WindowTime, ...]) -> list[Problem]:
    problems = []
    shortest_by_rank: dict[int, WindowTime] = {}
    for time in times:
        known = shortest_by_rank.get(time.rank)
        if known is None or time.end_at - time.start_at < known.end_at - known.start_at:
            shortest_by_rank[time.rank] = time
    for rank, entry in enumerate(policy.windows):
        shortest = shortest_by_rank.get(rank)
        if shortest is None:
            what = f"window {entry.name} does not open in the next {CHECKED_S // DAY_S} days"
            problems.append(_warning(entry.place, what, entry.opens.text, "check its days"))
            continue
        least_s = entry.grace_s + policy.min_useful_s
        if shortest.end_at - shortest.start_at < least_s:
            length = duration_text(shortest.end_at - shortest.start_at)
            what = f"window {entry.name} is too short for its hand-over and the minimum useful length"
            instead = f"make it longer than {duration_text(least_s)} (see {shortest.local_start:%Y-%m-%d %H:%M})"
            problems.append(_warning(entry.place, what, length, instead))
    return problems


def _reservations_without_time(
    policy: LoadedPolicy, entry: ReserveEntry, times: tuple[WindowTime, ...], from_at: Instant, until_at: Instant
) -> list[Problem]:
    """Warn if an occurrence falls where nothing admits it. Only the first one is told."""
    zone = zone_of(policy)
    found = False
    for occurrence in occurrences(entry.cron, zone, from_at=from_at, until_at=until_at - entry.run_s):
        found = True
        why = _why_no_time(policy, entry, occurrence, times)
        if why is not None:
            what = f"reserve {entry.name} cannot run on {occurrence.local:%Y-%m-%d %H:%M}: {why}"
            return [_warning(entry.place, what, None, "check its times against the windows")]
    if not found:
        what = f"reserve {entry.name} does not occur in the next {CHECKED_S // DAY_S} days"
        return [_warning(entry.place, what, entry.cron.text, "check its days")]
    return []


def _why_no_time(
    policy: LoadedPolicy, entry: ReserveEntry, occurrence: Occurrence, times: tuple[WindowTime, ...]
) -> str | None:
    queue = next(queue for queue in policy.queues if queue.name == entry.queue)
    must_finish = (entry.at_boundary or queue.at_boundary) is AtBoundary.FINISH
    latest_at = occurrence.at + entry.run_s
    needed_s = entry.run_s if must_finish else 1

    def admits(layout: Layout) -> bool:
        return layout.admits(gpus=entry.gpus, queue=entry.queue)

    if admits(policy.outside):
        # Hosts that no window takes, and the time before and after windows, are too many cases to judge from a file.
        return None
    room_s = [
        time.end_at - max(time.start_at, occurrence.at)
        for time in times
        if time.start_at <= latest_at and time.end_at > occurrence.at and admits(time.entry.layout)
    ]
    if not room_s:
        layouts = " or ".join(layout.name for layout in policy.layouts if admits(layout))
        return f"no window with layout {layouts} is open then"
    if max(room_s) <= needed_s and must_finish:
        return f"its {duration_text(entry.run_s)} and the hand-over do not fit before the window closes"
    return None


def _warning(place: Place, what: str, value: str | None, instead: str) -> Problem:
    return Problem(place=place, what=what, value=value, instead=instead, severity=Severity.WARNING)
