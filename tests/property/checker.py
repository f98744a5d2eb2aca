"""An independent judge of plans: it sees the plan before and after a step and lists what must never be so.

Knows the design's promises and nothing of how the planner keeps them: all arithmetic (who may run when, how long a
hand-over may take, what is booked when) is done anew here, slowly and plainly. Holds no faults of its own: who was hit
by a fault, and may therefore be told a later promise, is an argument.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from scheduler.core.facts import HostFacts, VmEnd, VmFact
from scheduler.core.intents import Extend, FiledIntent, Submit
from scheduler.core.plan import BookedSpan, Outcome, Plan, PlanChange, Reservation
from scheduler.core.requests import AtBoundary, HostId, ReservationId
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant
from scheduler.core.windows import Window, WindowState
from tests.property.limit_checks import limited_people, over_limits

TOLERATED_S = 60
"""Fewer hours missing than this are not worth another start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One committed change: what was, what was asked, what became of it."""

    before: Plan
    after: Plan
    change: PlanChange
    intents: Sequence[FiledIntent]
    facts: Mapping[HostId, HostFacts]
    now: Instant
    settings: Settings
    excused: Collection[ReservationId] = frozenset()
    """Whoever was hit by a fault: a promise of theirs may be broken, and then has to be told."""
    gone: Mapping[ReservationId, Reservation] = field(default_factory=dict)
    """Reservations that have left the plan, by this change or before."""


def violations(scene: Scene) -> list[str]:
    """Return everything that is wrong with a step, as sentences."""
    found: list[str] = []
    if scene.after.rules is not None:
        found += _double_bookings(scene)
        found += _wrong_partitions(scene)
        found += _spans_too_short(scene)
        found += _outside_of_windows(scene)
        found += _hours_missing(scene)
        found += _promises_out_of_reach(scene)
        found += _disks(scene)
        found += _limits(scene)
    found += _promises_raised(scene)
    found += _pinned_moved(scene)
    found += _windows(scene)
    found += _records(scene)
    found += _events(scene)
    return found


def live(plan: Plan) -> list[Reservation]:
    return [r for _, r in sorted(plan.reservations.items()) if r.outcome is None and r.promise is not None]


def lead_s(plan: Plan, span: BookedSpan, gpus: int, *, now: Instant) -> int:
    """Return by how much a guest may be late on a span: the longest stop before it, and its own start.

    A window gives its grace at its start, so one that is over has none left to give; the policy may still file others.
    """
    assert plan.rules is not None
    bounds = plan.hosts[span.host].profile.bounds
    grace_s = max(plan.rules.grace_s, plan.rules.longest_grace_s)
    for window in plan.windows.values():
        if window.end_at > now:
            grace_s = max(grace_s, window.grace_s)
    return grace_s + bounds.destroy_s + bounds.reset_s + dict(bounds.start_s_by_size)[gpus]


def _vms(scene: Scene, reservation: ReservationId) -> list[VmFact]:
    return [vm for host in scene.facts.values() for vm in host.vms if vm.reservation == reservation]


# What holds of a plan at any instant.


def _double_bookings(scene: Scene) -> Iterable[str]:
    held: dict[tuple[HostId, int], list[tuple[Instant, Instant, ReservationId]]] = {}
    for r in scene.after.reservations.values():
        for span in r.spans:
            for gpu in scene.after.hosts[span.host].profile.partition(span.partition).gpus:
                held.setdefault((span.host, gpu), []).append((span.start_at, span.end_at, r.id))
    for (host, gpu), spans in held.items():
        spans.sort()
        for one, other in pairwise(spans):
            if other[0] < one[1]:
                yield f"GPU {gpu} of {host} is booked twice: {one} and {other}"


def _wrong_partitions(scene: Scene) -> Iterable[str]:
    for r in scene.after.reservations.values():
        for span in r.spans:
            gpus = scene.after.hosts[span.host].profile.partition(span.partition).gpus
            if len(gpus) != r.request.gpus:
                yield f"{r.id} asked for {r.request.gpus} GPUs and is booked on {span.partition}"
        for one, other in zip(r.spans, r.spans[1:], strict=False):
            if other.start_at < one.end_at:
                yield f"{r.id} has spans out of order or overlapping: {one} {other}"


def _new_spans(scene: Scene, reservation: Reservation) -> list[BookedSpan]:
    before = scene.before.reservations.get(reservation.id)
    known = {(s.start_at, s.end_at, s.host, s.partition) for s in before.spans} if before else set()
    return [s for s in reservation.spans if (s.start_at, s.end_at, s.host, s.partition) not in known]


def _spans_too_short(scene: Scene) -> Iterable[str]:
    assert scene.after.rules is not None
    for r in live(scene.after):
        for span in _new_spans(scene, r):
            least_s = lead_s(scene.after, span, r.request.gpus, now=scene.now) + scene.after.rules.min_useful_s
            if span.start_at >= scene.now and not span.is_pinned and span.end_at - span.start_at < least_s:
                yield f"{r.id} has a span of {span.end_at - span.start_at} s, less than {least_s} s: {span}"
            if span.end_at > scene.after.horizon_at:
                yield f"{r.id} is booked past the horizon: {span}"
            if span.start_at < scene.now and not span.is_pinned and _start_is_new(scene, r, span):
                yield f"{r.id} is newly booked in the past: {span} at {scene.now}"


def _start_is_new(scene: Scene, reservation: Reservation, span: BookedSpan) -> bool:
    before = scene.before.reservations.get(reservation.id)
    return before is None or span.start_at not in {s.start_at for s in before.spans}


def _allowed(plan: Plan, reservation: Reservation, host: HostId, start_at: Instant, end_at: Instant) -> str | None:
    """Return what forbids a reservation to run on a host in `[start_at, end_at)`; None when nothing does."""
    assert plan.rules is not None
    request = reservation.request
    is_for_outside = request.gpus in plan.rules.outside.sizes and request.queue in plan.rules.outside.queues
    edges = {start_at, end_at}
    for window in plan.windows.values():
        if host in window.hosts:
            edges |= {at for at in (window.start_at, window.end_at, _gift_at(window)) if start_at < at < end_at}
    ordered = sorted(edges)
    for from_at, _until_at in pairwise(ordered):
        window_now = next(
            (w for w in plan.windows.values() if host in w.hosts and w.start_at <= from_at < w.end_at), None
        )
        if window_now is None or from_at >= _gift_at(window_now):
            if not is_for_outside:
                return (
                    f"nothing of queue {request.queue} with {request.gpus} GPUs runs at {from_at}, outside of windows"
                )
            continue
        layout = window_now.layout
        if request.gpus in layout.sizes and request.queue in layout.queues:
            continue
        if is_for_outside and request.at_boundary is AtBoundary.KEEP and AtBoundary.KEEP in window_now.at_boundary:
            continue
        return f"window {window_now.id} is closed for it at {from_at}"
    return None


def _gift_at(window: Window) -> Instant:
    if window.state is not WindowState.RELEASED:
        return window.end_at
    return window.start_at if window.released_from_at is None else max(window.start_at, window.released_from_at)


def _outside_of_windows(scene: Scene) -> Iterable[str]:
    for r in live(scene.after):
        for span in r.spans:
            if span.end_at > scene.now:
                wrong = _allowed(scene.after, r, span.host, max(span.start_at, scene.now), span.end_at)
                if wrong is not None and not _is_running_out(scene, r, span):
                    yield f"{r.id} is booked where it may not run: {wrong}; {span}"


def _is_running_out(scene: Scene, reservation: Reservation, span: BookedSpan) -> bool:
    """Whether it runs where a new policy admits it at no hour, and has no more left than the longest warning."""
    rules, request = scene.after.rules, reservation.request
    assert rules is not None
    is_admitted = request.gpus in rules.outside.sizes and request.queue in rules.outside.queues
    meets_window = any(
        span.host in w.hosts and scene.now < w.start_at < span.end_at for w in scene.after.windows.values()
    )
    ends_soon = span.end_at <= scene.now + max(rules.warnings_s, default=rules.grace_s)
    return span.start_at <= scene.now and not is_admitted and not meets_window and ends_soon


def delivered_s(reservation: Reservation, vms: Iterable[VmFact], now: Instant) -> int:
    total = 0
    for vm in vms:
        if vm.running_at is not None:
            from_at = max(vm.running_at, reservation.request.not_before_at or 0)
            total += max(0, min(vm.off_at or now, now) - from_at)
    return total


def booked_s(scene: Scene, reservation: Reservation) -> int:
    """Return the hours that are still to come by the bookings, at the least."""
    total = 0
    for span in reservation.spans:
        if span.end_at <= scene.now:
            continue
        # A span that has begun runs or is being handed over, by bounds that may have been others when it was booked.
        has_begun = span.start_at <= scene.now
        late_s = lead_s(scene.after, span, reservation.request.gpus, now=scene.now)
        ready_at = scene.now if has_begun else span.start_at + late_s
        # With `--at T` the guest may be up before T; only what comes after is counted.
        ready_at = max(ready_at, min(reservation.request.not_before_at or 0, span.end_at))
        total += max(0, span.end_at - max(ready_at, scene.now))
    return total


def _hours_missing(scene: Scene) -> Iterable[str]:
    for r in live(scene.after):
        vms = _vms(scene, r.id)
        if r.id in scene.excused or any(vm.end in (VmEnd.CRASHED, VmEnd.SELF_SHUTDOWN) for vm in vms):
            continue
        has_s = delivered_s(r, vms, scene.now) + booked_s(scene, r)
        if has_s < r.request.run_s - TOLERATED_S:
            yield f"{r.id} was promised {r.request.run_s} s and is delivered or booked only {has_s} s"


def _promises_out_of_reach(scene: Scene) -> Iterable[str]:
    for r in live(scene.after):
        assert r.promise is not None
        ahead = [s for s in r.spans if s.end_at > scene.now]
        if not ahead:
            continue
        if r.generation == 0 and ahead[0].start_at > scene.now and not _is_lost(scene, r):
            # Also of whoever was hit by a fault: what it was told then is a promise like the first.
            by_at = ahead[0].start_at + lead_s(scene.after, ahead[0], r.request.gpus, now=scene.now)
            if by_at > r.promise.start_by_at:
                yield f"{r.id} may run only at {by_at}, promised by {r.promise.start_by_at}"
        if r.id in scene.excused:
            continue
        if ahead[-1].end_at > r.promise.end_by_at:
            yield f"{r.id} is booked to {ahead[-1].end_at}, promised by {r.promise.end_by_at}"
        first = r.spans[0]
        if r.request.start_by_at is not None and r.promise.start_by_at > r.request.start_by_at:
            yield f"{r.id} was to start by {r.request.start_by_at} and is promised {r.promise.start_by_at}"
        if r.request.not_before_at is not None and r.request.start_by_at != r.request.not_before_at:
            if first.start_at < r.request.not_before_at:
                yield f"{r.id} is booked before {r.request.not_before_at}: {first}"


def _is_lost(scene: Scene, reservation: Reservation) -> bool:
    """Whether a booking is kept on lost GPUs for want of another place."""
    for span in reservation.spans:
        facts = scene.facts.get(span.host)
        gpus = scene.after.hosts[span.host].profile.partition(span.partition).gpus
        if facts is not None and span.end_at > scene.now and gpus & facts.gpus_out_of_plan:
            return True
    return False


def _disks(scene: Scene) -> Iterable[str]:
    plan = scene.after
    assert plan.rules is not None
    for r in live(plan):
        if r.disk is None or r.disk not in plan.disks:
            yield f"{r.id} is booked and has no disk"
            continue
        disk = plan.disks[r.disk]
        if disk.reservation != r.id:
            yield f"the disk of {r.id} is held by {disk.reservation}"
        ahead = [s for s in r.spans if s.end_at > scene.now]
        if any(plan.hosts[s.host].storage != disk.storage for s in ahead):
            yield f"{r.id} is booked on a host that does not reach its disk on {disk.storage}"
        if ahead and disk.from_at > ahead[0].start_at:
            yield f"{r.id} starts at {ahead[0].start_at}, its disk is only booked from {disk.from_at}"
        if ahead and disk.until_at < ahead[-1].end_at:
            yield f"{r.id} ends at {ahead[-1].end_at}, its disk is only booked until {disk.until_at}"
    pools: dict[tuple[str, bool], list[tuple[Instant, Instant, int]]] = {}
    for disk in plan.disks.values():
        pools.setdefault((disk.storage, disk.is_scratch), []).append((disk.from_at, disk.until_at, disk.size_gib))
    for (storage, is_scratch), booked in pools.items():
        profile = next(h.profile for h in plan.hosts.values() if h.storage == storage)
        room_gib = profile.scratch_gib if is_scratch else profile.pool_gib - profile.scratch_gib
        for from_at, _, _ in booked:
            at = max(from_at, scene.now)
            used_gib = sum(size for start_at, end_at, size in booked if start_at <= at < end_at)
            if used_gib > room_gib and not scene.excused:
                yield f"disks of {used_gib} GiB are booked at {at} on {storage}, which has {room_gib}"


def _limits(scene: Scene) -> Iterable[str]:
    assert scene.after.rules is not None
    limits = scene.after.rules.limits
    admitted = {
        decided.reservation
        for decided, filed in zip(scene.change.decided, scene.intents, strict=True)
        if isinstance(filed.intent, Submit) and decided.is_accepted
    }
    for r in live(scene.after):
        if r.id not in admitted or scene.after.rules.limit_rules:
            continue
        mine = [o for o in live(scene.after) if o.request.owner == r.request.owner]
        if limits.open_reservations is not None and len(mine) > limits.open_reservations:
            yield f"{r.request.owner} has {len(mine)} reservations, at most {limits.open_reservations} are allowed"
        if limits.longest_run_s is not None and r.request.run_s > limits.longest_run_s:
            yield f"{r.id} runs {r.request.run_s} s, at most {limits.longest_run_s} are allowed"
    for who, members in sorted(limited_people(scene.after).items()):
        if not any(r.id in scene.excused for r in live(scene.after) if r.request.owner in members):
            yield from over_limits(scene, who, members)


# What holds between a plan and the next.


def _promises_raised(scene: Scene) -> Iterable[str]:
    extended = {
        filed.intent.reservation
        for filed, decided in zip(scene.intents, scene.change.decided, strict=True)
        if isinstance(filed.intent, Extend) and decided.is_accepted
    }
    told = {e.reservation for e in scene.change.events if e.kind == "promise.raised" and e.is_notice}
    for r in scene.change.reservations:
        before = scene.before.reservations.get(r.id)
        if before is None or before.promise is None:
            continue
        if r.promise is None:
            yield f"{r.id} lost its promise"
            continue
        starts_later = r.promise.start_by_at > before.promise.start_by_at
        ends_later = r.promise.end_by_at > before.promise.end_by_at
        if (starts_later or (ends_later and r.id not in extended)) and (
            r.promise_notice <= before.promise_notice or r.id not in told
        ):
            yield f"{r.id} had its promise raised without a notice: {before.promise} to {r.promise}"
        if r.promise_notice > before.promise_notice and r.id not in told:
            yield f"{r.id} has a notice counted and none written"
        if r.promise_notice > before.promise_notice and r.id not in scene.excused:
            yield f"{r.id} had its promise broken by no fault: {before.promise} to {r.promise}, {r.reasons}"
        if r.request != before.request and r.id not in extended:
            yield f"the request of {r.id} changed"


def _pinned_moved(scene: Scene) -> Iterable[str]:
    for key, before in scene.before.reservations.items():
        after = next((r for r in scene.change.reservations if r.id == key), before)
        places = {(s.start_at, s.host, s.partition, s.generation) for s in after.spans}
        for span in before.spans:
            is_cut_off = after.outcome is not None and span.start_at >= scene.now
            if (
                span.is_pinned
                and not is_cut_off
                and (span.start_at, span.host, span.partition, span.generation) not in places
            ):
                yield f"{key}: a pinned span moved or vanished: {span}; now {after.spans}"
        if after.generation != before.generation:
            yield f"{key}: the plan changed its generation from {before.generation} to {after.generation}"
        if before.outcome is not None and (after.outcome, after.ended_at) != (before.outcome, before.ended_at):
            yield f"{key} had ended and its end changed: {before.outcome} to {after.outcome}"
    for disk_id, disk in scene.before.disks.items():
        now_disk = scene.after.disks.get(disk_id)
        holder = scene.before.reservations.get(disk.reservation)
        may_exist = any(f.disk == disk_id and f.deleted_at is None for h in scene.facts.values() for f in h.disks)
        if now_disk is None:
            if may_exist:
                yield f"disk {disk_id} left the plan while it is on a host"
            continue
        if now_disk.until_at < disk.until_at and (may_exist or (holder is not None and holder.generation > 0)):
            yield f"the retention of disk {disk_id} was shortened from {disk.until_at} to {now_disk.until_at}"
        if may_exist and (now_disk.storage, now_disk.size_gib) != (disk.storage, disk.size_gib):
            yield f"disk {disk_id} changed its place or size"


_NEXT_STATES = {
    WindowState.PLANNED: {WindowState.PLANNED, WindowState.OPEN, WindowState.RELEASED},
    WindowState.OPEN: {WindowState.OPEN, WindowState.RELEASED},
    WindowState.RELEASED: {WindowState.RELEASED},
}


def _windows(scene: Scene) -> Iterable[str]:
    for key, before in scene.before.windows.items():
        after = scene.after.windows.get(key)
        if after is None:
            if before.is_decided:
                yield f"window {key} was decided and is dropped"
            continue
        if after.state not in _NEXT_STATES[before.state]:
            yield f"window {key} went from {before.state} to {after.state}"
        if before.is_decided:
            fixed = (before.policy_version, before.start_at, before.end_at, before.layout, before.at_boundary)
            if fixed != (after.policy_version, after.start_at, after.end_at, after.layout, after.at_boundary):
                yield f"window {key} was decided and changed"
        if before.state is WindowState.RELEASED and before != after:
            yield f"window {key} was released and changed"
        if after.state is WindowState.RELEASED and before.state is not WindowState.RELEASED:
            if after.released_from_at is None or after.released_from_at < min(scene.now, after.start_at):
                yield f"window {key} is released from {after.released_from_at}, before now"
    by_host: dict[HostId, list[Window]] = {}
    for window in scene.after.windows.values():
        for host in window.hosts:
            by_host.setdefault(host, []).append(window)
    for host, windows in by_host.items():
        windows.sort(key=lambda w: w.start_at)
        for one, other in pairwise(windows):
            if other.start_at < one.end_at:
                yield f"windows {one.id} and {other.id} overlap on {host}"


def _records(scene: Scene) -> Iterable[str]:
    """Intents are each decided once, in order; what ends has a time, a reason, and no time ahead."""
    if [d.seq for d in scene.change.decided] != [f.seq for f in scene.intents]:
        yield "the intents were not decided each once and in order"
    for r in scene.change.reservations:
        if r.is_closed and r.outcome is None:
            yield f"{r.id} is closed and has not ended"
        if r.outcome is None:
            continue
        if r.ended_at is None or not r.reasons:
            yield f"{r.id} has ended as {r.outcome} and does not say when or why"
        if r.outcome is not Outcome.REFUSED and any(s.end_at > scene.now for s in r.spans):
            yield f"{r.id} has ended and still has time booked"
        if any(vm.off_at is None for vm in _vms(scene, r.id)) and r.is_closed:
            yield f"{r.id} is closed and its VM still runs"
    if scene.after.version != scene.before.version + 1:
        yield "the version did not go up by one"


def _events(scene: Scene) -> Iterable[str]:
    for event in scene.change.events:
        if event.at != scene.now:
            yield f"event {event.kind} is dated {event.at}, not {scene.now}"
        names = [name for name, _ in event.facts]
        if names != sorted(set(names)):
            yield f"event {event.kind} has its facts out of order or twice: {names}"
        if event.reservation is None and event.host is None and event.kind != "policy.applied":
            yield f"event {event.kind} names no subject"
    for window in scene.change.windows:
        before = scene.before.windows.get(window.id)
        if (before is None or before.state is not window.state) and window.is_decided:
            if not any(e.kind == "window.decided" and e.host in window.hosts for e in scene.change.events):
                yield f"window {window.id} was decided and nobody is told"
    for r in scene.change.reservations:
        before_r = scene.before.reservations.get(r.id)
        if (before_r is None or before_r.outcome is None) and r.outcome is not None:
            if not any(e.reservation == r.id for e in scene.change.events):
                yield f"{r.id} has ended and nobody is told"
