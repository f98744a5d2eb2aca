"""Alternatives: what could be had instead, each of which can be booked as it stands. Questions only.

Each is the ask with one thing changed, tried on the plan as it is: fewer GPUs now, the same later, parked over the
night, begun at once and gone on with elsewhere, shorter, a smaller disk, a fresh disk on another host, or the nearest
value that is allowed at all.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from scheduler.core.planner import admission
from scheduler.core.planner.admitting import admit
from scheduler.core.planner.booking import want_of
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.limits import LimitName
from scheduler.core.planner.placing import earliest_piece
from scheduler.core.planner.promising import running_by_at
from scheduler.core.reasons import Fact, Reason, ReasonCode, reason
from scheduler.core.requests import Ask, AtBoundary, Promise, ReservationId
from scheduler.core.spans import MINUTE_S, Instant

MOST = 5
"""So many are offered."""

WORTH_S = 15 * MINUTE_S
"""Fewer GPUs or hours are offered only where they start earlier by this."""

DECIDES_IN_S = 15 * MINUTE_S
"""So long somebody may think about a start that is offered for now."""

TRIED = ReservationId("r-0")


class Change(StrEnum):
    """What is changed."""

    FEWER_GPUS = "fewer_gpus"
    MORE_GPUS = "more_gpus"
    LATER = "later"
    PARKED = "parked"
    SPLIT = "split"
    SHORTER = "shorter"
    SMALLER_DISK = "smaller_disk"
    FRESH_DISK = "fresh_disk"
    NEAREST = "nearest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """Something that can be had."""

    change: Change
    ask: Ask
    promise: Promise
    start_at: Instant
    """Where it would be booked."""

    @property
    def gpu_s(self) -> int:
        return self.ask.gpus * self.ask.run_s

    def as_reason(self) -> Reason:
        """Return what is told beside a refusal or a wait."""
        return reason(
            ReasonCode.INSTEAD,
            gpus=self.ask.gpus,
            run_s=self.ask.run_s,
            hours=_hours(self.ask.run_s),
            change=self.change.value,
            start_by_at=self.promise.start_by_at,
            end_by_at=self.promise.end_by_at,
        )


def _hours(run_s: int) -> str:
    hours, minutes = divmod(-(-run_s // MINUTE_S), 60)
    return " ".join(f"{number} {unit}" for number, unit in ((hours, "h"), (minutes, "min")) if number)


def alternatives(draft: Draft, ask: Ask, promise: Promise | None, *, most: int = MOST) -> tuple[Alternative, ...]:
    """Return what could be had instead of an ask that is refused, or beside one that is promised. Changes nothing."""
    found: list[Alternative] = []
    seen = {ask}
    for change, other in _changes(draft, ask):
        if other in seen or len(found) == most:
            continue
        seen.add(other)
        tried = _tried(draft, change, other)
        if tried is None:
            continue
        is_sooner = promise is None or tried.promise.start_by_at + WORTH_S <= promise.start_by_at
        # Beside a promise only what starts sooner is of any use.
        if is_sooner:
            found.append(tried)
    return tuple(found)


def _tried(draft: Draft, change: Change, ask: Ask) -> Alternative | None:
    request, _ = admission.check(draft, ask, reservation=TRIED)
    if request is None:
        return None
    with draft.attempt():
        reservation, _ = admit(draft, request)
        if reservation is None or reservation.promise is None:
            return None
        return Alternative(change=change, ask=ask, promise=reservation.promise, start_at=reservation.spans[0].start_at)


def _changes(draft: Draft, ask: Ask) -> Iterator[tuple[Change, Ask]]:
    """Yield asks with one thing changed, the nearest first."""
    allowed = _allowed(draft, ask)
    if allowed != ask:
        yield Change.NEAREST, allowed
    ask = allowed
    sizes = sorted(draft.host_book.sizes)
    is_timed = ask.start_by_at is not None
    if is_timed:
        yield Change.LATER, replace(ask, start_by_at=None)
    if ask.at_boundary is AtBoundary.FINISH:
        yield Change.PARKED, replace(ask, at_boundary=AtBoundary.PARK)
    split = _split(draft, ask)
    if split is not None:
        yield Change.SPLIT, split
    for size in reversed([size for size in sizes if size < ask.gpus]):
        yield Change.FEWER_GPUS, replace(ask, gpus=size, memory_gib=None, vcpus=None)
    for part in (2, 4):
        shorter_s = ask.run_s // part // (15 * MINUTE_S) * (15 * MINUTE_S)
        if shorter_s >= max(draft.settings.shortest_run_s, 15 * MINUTE_S):
            yield Change.SHORTER, replace(ask, run_s=shorter_s)
    if ask.continues is not None:
        yield Change.FRESH_DISK, replace(ask, continues=None, disk_gib=None)
    for disk_gib in _smaller_disks(draft, ask):
        yield Change.SMALLER_DISK, replace(ask, disk_gib=disk_gib)
    for size in [size for size in sizes if size > ask.gpus][:1]:
        yield Change.MORE_GPUS, replace(ask, gpus=size, memory_gib=None, vcpus=None)


def _split(draft: Draft, ask: Ask) -> Ask | None:
    """Return the ask with a deadline that only pieces on several partitions may keep; None: it needs no pieces."""
    request, _ = admission.check(draft, ask, reservation=TRIED)
    if request is None or ask.continues is not None or (ask.not_before_at, ask.start_by_at) != (None, None):
        return None
    first = earliest_piece(draft, want_of(draft, request, run_s=request.run_s, with_gifts=False))
    if first is None or draft.hours_s(first, request.gpus) >= request.run_s:
        return None
    return replace(ask, start_by_at=running_by_at(draft, request, first) + DECIDES_IN_S)


def _smaller_disks(draft: Draft, ask: Ask) -> Iterator[int]:
    request, _ = admission.check(draft, ask, reservation=TRIED)
    if request is None or ask.continues is not None:
        return
    disk_gib = request.disk_gib // 2
    while disk_gib >= admission.SMALLEST_DISK_GIB:
        yield disk_gib
        disk_gib //= 2


def _allowed(draft: Draft, ask: Ask) -> Ask:
    """Return the ask with each value that is refused as such in place of the nearest that is not."""
    changed = ask
    _, reasons = admission.check(draft, ask, reservation=TRIED)
    for why in reasons:
        match why.code:
            case ReasonCode.BAD_DURATION:
                shortest_s, longest_s = why.fact("shortest_s"), why.fact("longest_s")
                if isinstance(shortest_s, int) and isinstance(longest_s, int) and shortest_s <= longest_s:
                    changed = replace(changed, run_s=min(max(ask.run_s, shortest_s), longest_s))
            case ReasonCode.UNKNOWN_SIZE:
                changed = _nearest_size(changed, why.fact("sizes"))
            case ReasonCode.IN_THE_PAST | ReasonCode.BEYOND_HORIZON | ReasonCode.END_BEFORE_START:
                changed = replace(changed, not_before_at=None, start_by_at=None)
            case ReasonCode.BAD_DISK:
                least, most = why.fact("least_gib"), why.fact("most_gib")
                if isinstance(least, int) and isinstance(most, int) and ask.disk_gib is not None:
                    changed = replace(changed, disk_gib=min(max(ask.disk_gib, least), most))
            case ReasonCode.BAD_SHARE:
                changed = replace(changed, memory_gib=None, vcpus=None)
            case ReasonCode.UNKNOWN_IMAGE:
                changed = replace(changed, image=None)
            case ReasonCode.BOUNDARY_NOT_ALLOWED:
                changed = replace(changed, at_boundary=None)
            case ReasonCode.DISK_NOT_KEPT:
                changed = replace(changed, continues=None)
            case ReasonCode.LIMIT | ReasonCode.LIMIT_CHOICE:
                changed = _within_limit(changed, why)
            case _:
                pass
    return changed


def _within_limit(ask: Ask, why: Reason) -> Ask:
    """Return an ask with the nearest value that a limit allows, where it refuses one value as such."""
    limit = why.fact("limit")
    match why.fact("what") or why.fact("name"):
        case LimitName.SIZES:
            return _nearest_size(ask, why.fact("allowed"))
        case LimitName.IMAGES:
            allowed = str(why.fact("allowed")).split(", ")
            return replace(ask, image=allowed[0])
        case LimitName.DISK if isinstance(limit, int):
            return replace(ask, disk_gib=limit)
        case LimitName.AHEAD:
            return replace(ask, not_before_at=None, start_by_at=None)
        case _:
            return ask


def _nearest_size(ask: Ask, allowed: Fact) -> Ask:
    sizes = [int(size) for size in str(allowed).split(", ") if size.isdecimal()]
    if not sizes:
        return ask
    nearest = min(sizes, key=lambda size: (abs(size - ask.gpus), size))
    return replace(ask, gpus=nearest, memory_gib=None, vcpus=None)
