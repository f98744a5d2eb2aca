"""Free: what could be had of each size, now and by promise. Reads only; books nothing."""

from dataclasses import dataclass

from scheduler.core.disjoint_sets import heaviest_disjoint
from scheduler.core.planner.explaining import Quote
from scheduler.core.requests import Ask
from scheduler.core.settings import Settings
from scheduler.core.topology import mask_of
from scheduler.service.asks import default_queue
from scheduler.service.hosts import host_view
from scheduler.service.plan_cache import PlanCache
from scheduler.service.ports import Clock
from scheduler.service.quote import quote_ask
from scheduler.service.snapshot import Snapshot
from scheduler.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeSize:
    """One size in GPUs."""

    gpus: int
    queue: str
    free_now: int
    """How many VMs of this size could run at once on what nobody has now, on hosts whose layout admits it now."""
    quote: Quote


def free_sizes(
    *,
    owner: str,
    run_s: int,
    snapshot: Snapshot,
    store: Store,
    plans: PlanCache,
    clock: Clock,
    settings: Settings,
) -> tuple[FreeSize, ...]:
    """Return every size that some host offers, with what would be promised to `owner` for `run_s` of it."""
    sizes = sorted({size for host in snapshot.plan.hosts.values() for size in host.profile.sizes})
    found = []
    for gpus in sizes:
        queue = default_queue(snapshot.plan, gpus)
        ask = Ask(owner=owner, queue=queue, gpus=gpus, run_s=run_s)
        told = quote_ask(ask, store=store, plans=plans, clock=clock, settings=settings)
        free_now = _free_now(snapshot, gpus=gpus, queue=queue)
        found.append(FreeSize(gpus=gpus, queue=queue, free_now=free_now, quote=told))
    return tuple(found)


def _free_now(snapshot: Snapshot, *, gpus: int, queue: str) -> int:
    free = 0
    for host_id in snapshot.plan.hosts:
        view = host_view(host_id, snapshot)
        layout = snapshot.layout_on(host_id)
        if view is None or layout is None or not layout.admits(gpus=gpus, queue=queue):
            continue
        if view.host.is_drained or view.facts.unreachable_since_at is not None:
            continue
        mask = mask_of(view.gpus_free)
        unused = [part for part in view.host.profile.partitions_of_size(gpus) if part.mask & mask == part.mask]
        # Partitions of one size may cross: then fewer can be had than are unused.
        free += heaviest_disjoint([(part.mask, 1) for part in unused])[0]
    return free
