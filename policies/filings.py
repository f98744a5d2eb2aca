"""The reservations that a policy asks for itself: which are due to be filed, each under the key that files it once."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from zoneinfo import ZoneInfo

from policies.format import LoadedPolicy, ReserveEntry
from policies.occurrences import Occurrence, occurrences
from scheduler.core.intents import Submit
from scheduler.core.requests import Ask
from scheduler.core.spans import Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class DueFiling:
    """A reservation to file now."""

    key: str
    """`name@local start#number`. Not the policy's version, or every apply would file everything again."""
    author: str
    submit: Submit
    occurrence: Occurrence
    is_caught_up: bool
    """Its time had begun before it could be filed."""
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FilingTime:
    """One occurrence of a `reserve` entry."""

    entry: ReserveEntry
    occurrence: Occurrence


def filing_times(policy: LoadedPolicy, *, from_at: Instant, until_at: Instant) -> tuple[FilingTime, ...]:
    """Return the occurrences of all entries with a start in `[from_at, until_at)`, by start."""
    zone = ZoneInfo(policy.zone)
    times = [
        FilingTime(entry=entry, occurrence=occurrence)
        for entry in policy.reserve
        for occurrence in occurrences(entry.starts, zone, from_at=from_at, until_at=until_at)
    ]
    return tuple(sorted(times, key=lambda time: time.occurrence.at))


def due_filings(policy: LoadedPolicy, *, now: Instant, until_at: Instant) -> tuple[DueFiling, ...]:
    """Return what is to be filed at `now`, by start; nothing at or past `until_at`, the end of what can be booked.

    A reservation is filed `ahead` of its start. One that was missed is caught up while its own time lasts.
    """
    due = [
        filing
        for entry in policy.reserve
        for occurrence in _occurrences(policy, entry, now=now, until_at=until_at)
        for filing in _filings(entry, occurrence, now)
    ]
    return tuple(sorted(due, key=lambda filing: filing.occurrence.at))


def next_filing_at(policy: LoadedPolicy, *, now: Instant, until_at: Instant) -> Instant | None:
    """Return when the next reservation falls due after `now`; None if none does before `until_at`."""
    zone = ZoneInfo(policy.zone)
    nexts: list[Instant] = []
    for entry in policy.reserve:
        following = occurrences(entry.starts, zone, from_at=now + entry.ahead_s + 1, until_at=until_at)
        nexts.extend(occurrence.at - entry.ahead_s for occurrence in islice(following, 1))
    return min(nexts, default=None)


def _occurrences(policy: LoadedPolicy, entry: ReserveEntry, *, now: Instant, until_at: Instant) -> Iterator[Occurrence]:
    ahead_at = min(now + entry.ahead_s + 1, until_at)
    return occurrences(entry.starts, ZoneInfo(policy.zone), from_at=max(0, now - entry.run_s + 1), until_at=ahead_at)


def _filings(entry: ReserveEntry, occurrence: Occurrence, now: Instant) -> Iterator[DueFiling]:
    is_caught_up = occurrence.at < now
    ask = Ask(
        owner=entry.owner,
        queue=entry.queue,
        gpus=entry.gpus,
        run_s=entry.run_s,
        # Past instants cannot be asked for; what is caught up may start as soon as there is room.
        not_before_at=occurrence.at if occurrence.at > now else None,
        # A start after its own time is over would serve nobody and be in the way of the next one.
        start_by_at=occurrence.at + entry.run_s,
        at_boundary=entry.at_boundary,
        image=entry.image,
        disk_gib=entry.disk_gib,
    )
    for number in range(1, entry.count + 1):
        yield DueFiling(
            key=f"{entry.name}@{occurrence.local_text}#{number}",
            author=f"policy:{entry.name}",
            submit=Submit(ask=ask),
            occurrence=occurrence,
            is_caught_up=is_caught_up,
            source=entry.place.source,
        )
