"""What a simulated policy came to, in figures: waits, use, parkings, refusals. Pure; holds no texts for people."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from policies.format import LoadedPolicy
from policies.occurrences import local_of
from scheduler.core.bounds import percentile
from scheduler.core.plan import Outcome
from scheduler.core.reasons import Reason, ReasonCode
from scheduler.core.rehearsal import Rehearsal, Story
from scheduler.core.rules import Group
from scheduler.core.spans import HOUR_S, Instant

HOURS_OF_DAY = 24
NO_GROUP = ""
"""Whoever is in no group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How long those waited that started, and how long they had been told. Means are weighted by GPUs."""

    requests: int
    wait_s: int
    told_s: int
    median_s: int
    p95_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitsOf:
    """Waits of a size in GPUs, or of a group."""

    name: str
    asked: int
    """Requests, those among them that never started."""
    waits: Waits | None
    """None: nobody started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnReservations:
    """What became of an entry of `reserve`."""

    name: str
    due: int
    ran: int
    gpu_s: int
    """That they ran, altogether."""
    late_s: int
    """How long after their time they began, on average."""
    refused: tuple[tuple[str, int], ...]
    """By the code of the reason; most first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one policy came to."""

    asked: int
    started: int
    waits: Waits | None
    waits_by_size: tuple[WaitsOf, ...]
    waits_by_group: tuple[WaitsOf, ...]
    utilisation: float
    """0..1, of the GPUs' time that guests held them, from the first day to the last, both whole."""
    utilisation_by_hour: tuple[float, ...]
    """By the hour of the day, from 0 to 23."""
    windows_opened: int
    """On whatever hosts."""
    swaps: int
    """How often a host changed its layout for a window."""
    given_back: int
    """How often a host was not wanted for a window, and kept the layout that it had."""
    parkings: int
    parked_s: int
    """How long those together waited parked."""
    refused: tuple[tuple[str, int], ...]
    """By the code of the reason; most first."""
    promises_broken: int
    own: tuple[OwnReservations, ...]

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        own = [{**asdict(one), "refused": dict(one.refused)} for one in self.own]
        return {**asdict(self), "refused": dict(self.refused), "own": own}


def figures(
    policy: LoadedPolicy,
    run: Rehearsal,
    *,
    from_at: Instant,
    until_at: Instant,
    zone: ZoneInfo,
    groups: Sequence[Group],
) -> Figures:
    """Count what became of a run.

    Use, windows and own reservations are those of `[from_at, until_at)`, waits and parkings those of all that was asked
    for. Hours of the day are those of `zone`; `groups` say who is counted together.
    """
    stories = run.stories
    opened = [window for window in run.opened.values() if from_at <= window.start_at < until_at]
    back = [window for window in run.given_back.values() if from_at <= window.start_at < until_at]
    slots = _held_by_slot([*stories, *run.policys], from_at, until_at)
    gpus = sum(len(host.profile.gpus) for host in run.plan.hosts.values())
    parked = [after.up_at - before.off_at for story in stories for before, after in pairwise(story.ran)]
    return Figures(
        asked=len(stories),
        started=sum(1 for story in stories if story.ran),
        waits=_waits(stories),
        waits_by_size=_by_size(stories),
        waits_by_group=_by_group(stories, groups),
        utilisation=_share(sum(slots), gpus * (until_at - from_at)),
        utilisation_by_hour=_by_hour(slots, gpus=gpus, from_at=from_at, zone=zone),
        windows_opened=len({(window.name, window.start_at) for window in opened}),
        swaps=sum(1 for window in opened if window.layout != policy.outside),
        given_back=sum(1 for window in back if window.layout != policy.outside),
        parkings=len(parked),
        parked_s=sum(parked),
        refused=_refused(stories),
        promises_broken=sum(1 for story in stories if is_broken(story)),
        own=_own(policy, run.policys, from_at, until_at),
    )


def is_broken(story: Story) -> bool:
    """Whether a request did not get what it was told first: a start by then, and all its hours by then."""
    promise = story.promise
    if promise is None:
        return False
    if story.started_at is None or story.times_put_off:
        return True
    is_late = story.outcome is Outcome.COMPLETED and story.ran[-1].off_at > promise.end_by_at
    return story.started_at > promise.start_by_at or is_late or story.outcome is Outcome.FAILED


def _waits(stories: Iterable[Story]) -> Waits | None:
    found = []
    for story in stories:
        if story.started_at is not None and story.promise is not None:
            told_s = story.promise.start_by_at - story.wanted_at
            found.append((story.demand.ask.gpus, story.started_at - story.wanted_at, told_s))
    if not found:
        return None
    gpus = sum(one[0] for one in found)
    waited = [one[1] for one in found]
    median_s, p95_s = percentile(waited, 0.5), percentile(waited, 0.95)
    assert median_s is not None
    assert p95_s is not None
    return Waits(
        requests=len(found),
        wait_s=round(sum(one[0] * one[1] for one in found) / gpus),
        told_s=round(sum(one[0] * one[2] for one in found) / gpus),
        median_s=median_s,
        p95_s=p95_s,
    )


def _by_size(stories: Sequence[Story]) -> tuple[WaitsOf, ...]:
    by_size: dict[int, list[Story]] = {}
    for story in stories:
        by_size.setdefault(story.demand.ask.gpus, []).append(story)
    return tuple(WaitsOf(name=str(size), asked=len(mine), waits=_waits(mine)) for size, mine in sorted(by_size.items()))


def _by_group(stories: Sequence[Story], groups: Sequence[Group]) -> tuple[WaitsOf, ...]:
    """Return the waits of each group of whose members anybody asked, and of everybody else."""
    found = []
    for group in groups:
        mine = [story for story in stories if story.demand.ask.owner in group.members]
        found.append(WaitsOf(name=group.name, asked=len(mine), waits=_waits(mine)))
    if groups:
        members = frozenset().union(*(group.members for group in groups))
        others = [story for story in stories if story.demand.ask.owner not in members]
        found.append(WaitsOf(name=NO_GROUP, asked=len(others), waits=_waits(others)))
    return tuple(one for one in found if one.asked)


def _held_by_slot(stories: Iterable[Story], from_at: Instant, until_at: Instant) -> list[int]:
    """Return the GPU-seconds held in each hour from `from_at` on."""
    slots = [0] * -(-(until_at - from_at) // HOUR_S)
    for story in stories:
        gpus = story.demand.ask.gpus
        for ran in story.ran:
            at, end_at = max(ran.held_at, from_at), min(ran.off_at, until_at)
            while at < end_at:
                slot = (at - from_at) // HOUR_S
                next_at = min(from_at + (slot + 1) * HOUR_S, end_at)
                slots[slot] += gpus * (next_at - at)
                at = next_at
    return slots


def _by_hour(slots: Sequence[int], *, gpus: int, from_at: Instant, zone: ZoneInfo) -> tuple[float, ...]:
    held, there = [0] * HOURS_OF_DAY, [0] * HOURS_OF_DAY
    for number, gpu_s in enumerate(slots):
        hour = local_of(from_at + number * HOUR_S, zone).hour
        held[hour] += gpu_s
        there[hour] += gpus * HOUR_S
    return tuple(_share(one, most) for one, most in zip(held, there, strict=True))


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _refused(stories: Iterable[Story]) -> tuple[tuple[str, int], ...]:
    counted = Counter(
        _code(story.reasons[0]) for story in stories if story.outcome is Outcome.REFUSED and story.reasons
    )
    return tuple(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _code(why: Reason) -> str:
    """Return the code of a reason; of a limit, also which one."""
    limit = dict(why.facts).get("name") if why.code in (ReasonCode.LIMIT, ReasonCode.LIMIT_CHOICE) else None
    return why.code.value if limit is None else f"{why.code.value}: {limit}"


def _own(
    policy: LoadedPolicy, stories: Iterable[Story], from_at: Instant, until_at: Instant
) -> tuple[OwnReservations, ...]:
    by_name: dict[str, list[Story]] = {entry.name: [] for entry in policy.reserve}
    for story in stories:
        if from_at <= _due_at(story) < until_at:
            by_name[str(story.key).partition("@")[0]].append(story)
    found = []
    for name, mine in by_name.items():
        late = [max(0, story.started_at - _due_at(story)) for story in mine if story.started_at is not None]
        gpu_s = sum(story.demand.ask.gpus * (ran.off_at - ran.up_at) for story in mine for ran in story.ran)
        found.append(
            OwnReservations(
                name=name,
                due=len(mine),
                ran=len(late),
                gpu_s=gpu_s,
                late_s=round(sum(late) / len(late)) if late else 0,
                refused=_refused(mine),
            )
        )
    return tuple(found)


def _due_at(story: Story) -> Instant:
    """Return when a reservation of the policy's is to begin: it is never begun later than its own length after that."""
    ask = story.demand.ask
    assert ask.start_by_at is not None
    return ask.start_by_at - ask.run_s
