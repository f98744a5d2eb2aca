"""Limits on what is asked for: what the policy lets one owner ask for, and a group together.

Counted in the step that decides, one request after another: two at once cannot pass a limit together. How many are open
or wait, and how far ahead one may ask, is limited by what holds when one asks; what may be asked for by what holds when
it starts. So those limits that hold at some hours or dates only are looked at once a request has a place, in
`booked_limits`, with those that are about bookings in the first place. Whose limits come first is in `limit_book`.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum

from scheduler.core.plan import Reservation
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.limit_book import LimitBook, Limited, last_change_at
from scheduler.core.reasons import Fact, Reason, ReasonCode, reason
from scheduler.core.requests import Ask
from scheduler.core.spans import DAY_S, Instant


class LimitName(StrEnum):
    """How reasons name a limit: what is counted, or what may be chosen."""

    OPEN = "open reservations"
    WAITING = "requests that wait"
    DISK = "GiB of one disk"
    AHEAD = "days ahead"
    SIZES = "GPUs of one VM"
    QUEUES = "queue"
    IMAGES = "image"
    AT_ONCE = "GPUs at once"
    PER_WEEK = "GPU-hours that start in one week"
    FAR_AHEAD = "GPU-hours held for later days"
    LONGEST_THEN = "hours of one reservation that starts then"
    DISK_THEN = "GiB of one disk of a reservation that starts then"


def book_of(draft: Draft) -> LimitBook:
    """Return the limits of the policy that a draft has now."""
    assert draft.rules is not None
    return draft.memory.limit_book(draft.rules)


def reservations_of(draft: Draft, members: Iterable[str]) -> Iterator[Reservation]:
    """Yield the reservations of some owners, ended ones too as long as the plan has them."""
    planned = draft.plan.reservations
    wanted = frozenset(members)
    for owner in sorted(wanted):
        for key in draft.planned_of(owner):
            yield draft.reservations[key]
    if len(draft.reservations) == len(planned):
        return
    # What this step has added came last.
    for key in reversed(draft.reservations):
        if key in planned:
            return
        if draft.reservations[key].request.owner in wanted:
            yield draft.reservations[key]


def limits_changed_at(draft: Draft) -> Instant:
    """Return when the clock last changed what limits allow: whoever waits may start from then on."""
    book = book_of(draft)
    return 0 if book.is_empty else last_change_at(book.rules, draft.now)


def longest_run_s(draft: Draft, owner: str) -> int:
    """Return for how long an owner may run at most, whenever it starts."""
    stated = [one.most("longest_run_s") for one in book_of(draft).limited(owner)]
    return min((longest_s for longest_s in stated if longest_s is not None), default=draft.settings.longest_run_s)


def check_limits(draft: Draft, ask: Ask, *, image: str, disk_gib: int) -> list[Reason]:
    """Return what in an ask goes over a limit, wherever it would be booked."""
    found: list[Reason] = []
    for one in book_of(draft).limited(ask.owner):
        found += _over(draft, ask, one, image, disk_gib)
    return found


def _over(draft: Draft, ask: Ask, one: Limited, image: str, disk_gib: int) -> list[Reason]:
    who, now = one.who, draft.now
    found = []
    if not one.is_timed("sizes"):
        found += not_among(who, LimitName.SIZES, ask.gpus, one.choice("sizes", now))
    if not one.is_timed("queues"):
        found += not_among(who, LimitName.QUEUES, ask.queue, one.choice("queues", now))
    if not one.is_timed("images"):
        found += not_among(who, LimitName.IMAGES, image, one.choice("images", now))
    most_open, most_waiting = one.number("open_reservations", now), one.number("waiting", now)
    if most_open is not None or most_waiting is not None:
        live = [r for r in reservations_of(draft, one.members) if r.outcome is None]
        if most_open is not None and len(live) >= most_open:
            remedy = "cancel one or wait until one ends"
            found.append(over_limit(who, LimitName.OPEN, len(live) + 1, most_open, remedy))
        waiting = sum(1 for r in live if r.generation == 0)
        if most_waiting is not None and waiting >= most_waiting:
            remedy = "cancel one or wait until one starts"
            found.append(over_limit(who, LimitName.WAITING, waiting + 1, most_waiting, remedy))
    largest_gib = None if one.is_timed("disk_gib") else one.number("disk_gib", now)
    if largest_gib is not None and disk_gib > largest_gib:
        found.append(over_limit(who, LimitName.DISK, disk_gib, largest_gib, "ask for a smaller disk"))
    furthest_s = one.number("furthest_ahead_s", now)
    if furthest_s is not None and ask.not_before_at is not None:
        ahead_s = ask.not_before_at - now
        if ahead_s > furthest_s:
            days, most = -(-ahead_s // DAY_S), furthest_s // DAY_S
            found.append(over_limit(who, LimitName.AHEAD, days, most, "ask for an earlier start, or later"))
    return found


def not_among(
    who: str, what: LimitName, value: int | str, allowed: Iterable[int | str] | None, *, when: str = ""
) -> list[Reason]:
    """Return a reason when something is not among what may be chosen; `when`: at which time, if not at all."""
    if allowed is None or value in allowed:
        return []
    shown = ", ".join(map(str, sorted(allowed, key=lambda one: (isinstance(one, str), one)))) or "none"
    return [reason(ReasonCode.LIMIT_CHOICE, owner=who, what=what.value, value=str(value), allowed=shown + when)]


def over_limit(who: str, name: LimitName, would_be: int, limit: int, remedy: str, **more: Fact) -> Reason:
    """Return the reason that names a limit, whose it is, what it is and what to do."""
    return reason(ReasonCode.LIMIT, owner=who, name=name.value, would_be=would_be, limit=limit, remedy=remedy, **more)
