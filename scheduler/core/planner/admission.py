"""Admission: is an ask acceptable as it stands? Every choice left open is made here; every no has its reasons.

Checks values against the policy, the hosts and the limits. Where it would go is `placing`'s business.
"""

from scheduler.core.plan import BookedSpan, Queue, Rules
from scheduler.core.planner.booked_limits import over_limits
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.limits import check_limits, longest_run_s
from scheduler.core.reasons import Fact, Reason, ReasonCode, reason
from scheduler.core.requests import Ask, AtBoundary, Request, ReservationId
from scheduler.core.spans import FOREVER
from scheduler.core.windows import Layout

LONGEST_NAME = 64
LONGEST_SSH_KEY = 16_384
MOST_STORABLE_GPUS = 2**31 - 1
SSH_KEY_TYPES = ("ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-")
SMALLEST_DISK_GIB = 10


def check(
    draft: Draft, ask: Ask, *, reservation: ReservationId, key: str | None = None
) -> tuple[Request | None, tuple[Reason, ...]]:
    """Return the request that an ask amounts to, or all the reasons why it is not one."""
    rules = draft.rules
    if rules is None:
        return None, (
            reason(ReasonCode.POLICY_INVALID, problem="no policy is applied yet; an admin must apply one first"),
        )
    queue = rules.queue(ask.queue)
    reasons = [*_check_texts(ask), *_check_times(draft, ask)]
    if queue is None:
        known = ", ".join(q.name for q in rules.queues)
        reasons.append(reason(ReasonCode.UNKNOWN_QUEUE, queue=storable_text(ask.queue), queues=known))
    else:
        reasons += _check_size(draft, ask, queue)
        reasons += _check_boundary(draft, ask)
    image = ask.image if ask.image is not None else (rules.images[0] if rules.images else "")
    if image not in rules.images:
        reasons.append(
            reason(ReasonCode.UNKNOWN_IMAGE, image=storable_text(image), images=", ".join(rules.images) or "none")
        )
    disk_gib, disk_reasons = _disk_size(draft, rules, queue, ask)
    reasons += disk_reasons
    reasons += _check_share(draft, ask)
    reasons += check_limits(draft, ask, image=image, disk_gib=disk_gib)
    if reasons or queue is None:
        return None, tuple(reasons)
    return (
        Request(
            id=reservation,
            owner=ask.owner,
            queue=ask.queue,
            gpus=ask.gpus,
            run_s=ask.run_s,
            submitted_at=draft.now,
            not_before_at=ask.not_before_at,
            start_by_at=ask.start_by_at,
            at_boundary=ask.at_boundary if ask.at_boundary is not None else queue.at_boundary,
            image=image,
            disk_gib=disk_gib,
            memory_gib=ask.memory_gib,
            vcpus=ask.vcpus,
            ssh_key=None if ask.ssh_key is None else ask.ssh_key.strip(),
            continues=ask.continues,
            key=key,
        ),
        (),
    )


def storable_text(text: str) -> str:
    """Return a text of a refused ask as it can be kept in any database: printable, and not endless."""
    return "".join(c if c.isprintable() else "?" for c in text[: 4 * LONGEST_NAME])


def storable_number(number: int, *, most: int = FOREVER) -> int:
    """Return a number of a refused ask as it can be kept in any database."""
    return max(-most, min(number, most))


def _check_texts(ask: Ask) -> list[Reason]:
    reasons = []
    if not ask.owner or len(ask.owner) > LONGEST_NAME or not ask.owner.isprintable():
        problem = f"give 1 to {LONGEST_NAME} printable characters"
        reasons.append(
            reason(ReasonCode.BAD_TEXT, field="owner", value=storable_text(ask.owner[:LONGEST_NAME]), problem=problem)
        )
    if ask.ssh_key is not None:
        key = ask.ssh_key.strip()
        is_key = key.startswith(SSH_KEY_TYPES) and len(key.split()) >= 2 and key.isprintable()
        if not is_key or len(key) > LONGEST_SSH_KEY:
            problem = "give one line of an OpenSSH public key, such as the content of ~/.ssh/id_ed25519.pub"
            value = storable_text(ask.ssh_key[:40])
            reasons.append(reason(ReasonCode.BAD_TEXT, field="ssh_key", value=value, problem=problem))
    return reasons


def _check_times(draft: Draft, ask: Ask) -> list[Reason]:
    assert draft.rules is not None
    settings, now = draft.settings, draft.now
    longest_s = min(settings.longest_run_s, longest_run_s(draft, ask.owner))
    reasons = []
    if not settings.shortest_run_s <= ask.run_s <= longest_s:
        reasons.append(
            reason(ReasonCode.BAD_DURATION, run_s=ask.run_s, shortest_s=settings.shortest_run_s, longest_s=longest_s)
        )
    for wanted_at in {ask.not_before_at, ask.start_by_at} - {None}:
        assert wanted_at is not None
        if wanted_at < now:
            reasons.append(reason(ReasonCode.IN_THE_PAST, wanted_at=wanted_at, now_at=now))
        elif wanted_at > draft.horizon_at:
            reasons.append(reason(ReasonCode.BEYOND_HORIZON, wanted_at=wanted_at, horizon_at=draft.horizon_at))
    if ask.not_before_at is not None and ask.start_by_at is not None and ask.start_by_at < ask.not_before_at:
        reasons.append(reason(ReasonCode.END_BEFORE_START, start_at=ask.not_before_at, end_at=ask.start_by_at))
    return reasons


def _layouts(draft: Draft) -> set[Layout]:
    assert draft.rules is not None
    return {draft.rules.outside, *draft.window_book.layouts}


def _check_size(draft: Draft, ask: Ask, queue: Queue) -> list[Reason]:
    offered = draft.host_book.sizes
    sizes = {size for layout in _layouts(draft) if queue.name in layout.queues for size in layout.sizes} & offered
    if ask.gpus in sizes:
        return []
    shown = ", ".join(map(str, sorted(sizes))) or f"nothing: no layout admits queue {queue.name!r} on any host"
    return [reason(ReasonCode.UNKNOWN_SIZE, gpus=ask.gpus, sizes=shown)]


def _check_boundary(draft: Draft, ask: Ask) -> list[Reason]:
    """Keeping GPUs through a window is a promise only where some window allows it."""
    if ask.at_boundary is not AtBoundary.KEEP or not draft.windows:
        return []
    if draft.window_book.allows_keeping:
        return []
    window = draft.window_book.first
    assert window is not None
    allowed = ", ".join(sorted(window.at_boundary))
    return [
        reason(ReasonCode.BOUNDARY_NOT_ALLOWED, window=window.name, at_boundary=ask.at_boundary.value, allowed=allowed)
    ]


def _disk_size(draft: Draft, rules: Rules, queue: Queue | None, ask: Ask) -> tuple[int, list[Reason]]:
    """Return the disk's size: asked for, taken over, or the default; at most the partition's share of the pool."""
    if ask.continues is not None:
        kept = draft.reservations.get(ask.continues)
        disk = draft.disks.get(kept.disk) if kept is not None and kept.disk is not None else None
        if kept is None or disk is None or disk.reservation != kept.id or disk.until_at <= draft.now:
            return 0, [reason(ReasonCode.DISK_NOT_KEPT, reservation=ask.continues)]
        if disk.owner != ask.owner:
            return 0, [reason(ReasonCode.NOT_YOURS, reservation=ask.continues)]
        if kept.outcome is None:
            return 0, [reason(ReasonCode.WRONG_PHASE, reservation=kept.id, phase="not over", what="continued")]
        if ask.disk_gib not in (None, disk.size_gib):
            return 0, [_bad_disk(ask, least_gib=disk.size_gib, most_gib=disk.size_gib)]
        return disk.size_gib, []
    most_gib = min(
        (profile.disk_share_gib(ask.gpus) for profile in draft.host_book.profiles if ask.gpus in profile.sizes),
        default=0,
    )
    if queue is not None and queue.is_scratch:
        most_gib = min((profile.scratch_gib for profile in draft.host_book.profiles), default=0)
    default_gib = queue.default_disk_gib if queue is not None and queue.default_disk_gib else rules.default_disk_gib
    # Where a whole system disk is smaller than that, so may a disk be.
    least_gib = min((profile.os_disk_gib for profile in draft.host_book.profiles), default=SMALLEST_DISK_GIB)
    least_gib = min(least_gib, SMALLEST_DISK_GIB)
    disk_gib = ask.disk_gib if ask.disk_gib is not None else min(default_gib, max(most_gib, least_gib))
    if most_gib and not least_gib <= disk_gib <= most_gib:
        return 0, [_bad_disk(ask, least_gib=least_gib, most_gib=most_gib)]
    return disk_gib, []


def _bad_disk(ask: Ask, *, least_gib: int, most_gib: int) -> Reason:
    return reason(ReasonCode.BAD_DISK, disk_gib=ask.disk_gib, gpus=ask.gpus, least_gib=least_gib, most_gib=most_gib)


def _check_share(draft: Draft, ask: Ask) -> list[Reason]:
    """Less than a partition's share may be asked for; at most what every partition of the size has, to fit on each."""
    if ask.memory_gib is None and ask.vcpus is None:
        return []
    shares = [
        partition.share for profile in draft.host_book.profiles for partition in profile.partitions_of_size(ask.gpus)
    ]
    reasons = []
    for field, value, unit, most in (
        ("memory_gib", ask.memory_gib, "GiB of memory", min((share.memory_gib for share in shares), default=0)),
        ("vcpus", ask.vcpus, "vCPUs", min((share.vcpus for share in shares), default=0)),
    ):
        # Where no host has the size, that is what is wrong with the ask.
        if value is not None and shares and not 1 <= value <= most:
            facts: dict[str, Fact] = {"field": field, "value": storable_number(value), "unit": unit}
            reasons.append(reason(ReasonCode.BAD_SHARE, gpus=ask.gpus, least=1, most=most, **facts))
    return reasons


def check_booked_limits(draft: Draft, request: Request, spans: tuple[BookedSpan, ...]) -> tuple[Reason, ...]:
    """Return the reasons why a request may not be booked so: limits that its owner or a group would go over.

    `spans`: those that are new or changed, or all that it has.
    """
    return tuple(over.why for over in over_limits(draft, request, spans))
