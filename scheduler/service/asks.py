"""Asks: what somebody said, completed by what they left out, as far as that is for the edge to choose.

Chosen here: the queue by the size, and what is taken over from an earlier reservation. Whether it is acceptable, and
all other defaults, are planning's (`scheduler.core.planner.admission`). Pure, and the same for the same plan: who asks
again under the same key must be understood to ask for the same.
"""

from dataclasses import dataclass

from scheduler.core.plan import Plan, Reservation
from scheduler.core.requests import Ask, AtBoundary, ReservationId
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody asks for, as far as they said it; None: not said."""

    owner: str
    gpus: int | None = None
    run_s: int | None = None
    queue: str | None = None
    not_before_at: Instant | None = None
    start_by_at: Instant | None = None
    at_boundary: AtBoundary | None = None
    image: str | None = None
    disk_gib: int | None = None
    memory_gib: int | None = None
    vcpus: int | None = None
    ssh_key: str | None = None
    continues: ReservationId | None = None


def complete(wish: Wish, plan: Plan, *, like: Reservation | None = None) -> Ask | tuple[str, ...]:
    """Return the ask that a wish amounts to; the names of what is missing if it is not one.

    `like`: what is not said is taken from this reservation; its time is not, and neither is its disk.
    """
    known = None if like is None else like.request
    gpus = wish.gpus if wish.gpus is not None or known is None else known.gpus
    run_s = wish.run_s if wish.run_s is not None or known is None else known.run_s
    if gpus is None or run_s is None:
        return tuple(name for name, value in (("gpus", gpus), ("run_s", run_s)) if value is None)
    queue = wish.queue
    if queue is None:
        # What was said of another size would be refused for it: the size decides, unless it is the same.
        queue = known.queue if known is not None and known.gpus == gpus else default_queue(plan, gpus)
    is_same_queue = known is not None and known.queue == queue
    disk_gib = wish.disk_gib
    if disk_gib is None and wish.continues is None and known is not None and is_same_queue and known.gpus == gpus:
        disk_gib = known.disk_gib
    # Shares are those of a size.
    of_size = known if known is not None and known.gpus == gpus else None
    return Ask(
        owner=wish.owner,
        queue=queue,
        gpus=gpus,
        run_s=run_s,
        not_before_at=wish.not_before_at,
        start_by_at=wish.start_by_at,
        at_boundary=wish.at_boundary or (known.at_boundary if known is not None and is_same_queue else None),
        image=wish.image or (known.image if known is not None else None),
        disk_gib=disk_gib,
        memory_gib=wish.memory_gib if wish.memory_gib is not None or of_size is None else of_size.memory_gib,
        vcpus=wish.vcpus if wish.vcpus is not None or of_size is None else of_size.vcpus,
        ssh_key=wish.ssh_key or (known.ssh_key if known is not None else None),
        continues=wish.continues,
    )


def default_queue(plan: Plan, gpus: int) -> str:
    """Return the first queue of the policy that some layout admits this size in; the first of all if none does."""
    if plan.rules is None:
        return ""
    layouts = (plan.rules.outside, *(window.layout for window in plan.windows.values()))
    names = [queue.name for queue in plan.rules.queues]
    admitting = (name for name in names if any(layout.admits(gpus=gpus, queue=name) for layout in layouts))
    return next(admitting, names[0] if names else "")


def ask_to_go_on(ended: Reservation, *, run_s: int) -> Ask:
    """Return the ask for a reservation that goes on where an ended one stopped: same size, same disk."""
    request = ended.request
    return Ask(
        owner=request.owner,
        queue=request.queue,
        gpus=request.gpus,
        run_s=run_s,
        at_boundary=request.at_boundary,
        image=request.image,
        memory_gib=request.memory_gib,
        vcpus=request.vcpus,
        ssh_key=request.ssh_key,
        continues=request.id,
    )


def run_left_s(ended: Reservation, *, delivered_s: int, settings: Settings) -> int:
    """Return the hours that an ended reservation did not use, at least the shortest that can be asked for; 0: none."""
    left_s = ended.request.run_s - delivered_s
    return max(left_s, settings.shortest_run_s) if left_s > 0 else 0
