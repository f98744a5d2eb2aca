"""Quote and why: what would become of an ask, and what holds a reservation. Questions only; nothing is changed.

Both work on a plan that was read at some version and name it, so that an answer can be told from a stale one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scheduler.core.bounds import Estimates, lead_s, longest_grace_s
from scheduler.core.facts import HostFacts, VmEnd, VmFact
from scheduler.core.phases import Phase, phase_of
from scheduler.core.plan import BookedSpan, Outcome, Plan, Reservation
from scheduler.core.planner import admission
from scheduler.core.planner.admitting import admit, likely_at, without_disk
from scheduler.core.planner.alternatives import Alternative, Change, alternatives
from scheduler.core.planner.draft import Draft, EndedUses, LikelyWait, UsedGpus
from scheduler.core.planner.early import order_text, turn_of
from scheduler.core.planner.outages import lost_gpu, outages
from scheduler.core.planner.promising import has_started
from scheduler.core.reasons import Reason, ReasonCode, reason
from scheduler.core.requests import Ask, HostId, Promise, ReservationId
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant

QUOTED = ReservationId("r-0")
"""The id that a quoted reservation would have; no real one has the number 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What would be promised if it were asked for now."""

    plan_version: int
    promise: Promise | None
    likely_start_at: Instant | None
    """When the guest will probably run: by what starts took lately, not by bounds. No promise."""
    spans: tuple[BookedSpan, ...]
    reasons: tuple[Reason, ...]
    gpu_s: int = 0
    """What it would cost: GPUs times seconds of running."""
    alternatives: tuple[Alternative, ...] = ()
    """What could be had instead of a refusal, or sooner."""


def quote(
    plan: Plan,
    facts: Mapping[HostId, HostFacts],
    ask: Ask,
    now: Instant,
    settings: Settings,
    estimates: Estimates | None = None,
    *,
    most_alternatives: int = 0,
    likely_wait_s: LikelyWait | None = None,
    ended_uses: EndedUses | None = None,
) -> Quote:
    """Return what a submit of this ask would be told, without booking it."""
    draft = Draft(plan, facts, now, settings, likely_wait_s=likely_wait_s, ended_uses=ended_uses)
    request, reasons = admission.check(draft, ask, reservation=QUOTED)
    reservation: Reservation | None = None
    if request is not None:
        with draft.attempt():
            reservation, reasons = admit(draft, request)
    promise = None if reservation is None else reservation.promise
    others = alternatives(draft, ask, promise, most=most_alternatives) if draft.rules is not None else ()
    if reservation is None:
        return Quote(
            plan_version=plan.version,
            promise=None,
            likely_start_at=None,
            spans=(),
            reasons=reasons,
            alternatives=others,
        )
    first = reservation.spans[0]
    start_s = (estimates or Estimates()).likely_start_s(plan.hosts[first.host].profile, ask.gpus)
    return Quote(
        plan_version=plan.version,
        promise=reservation.promise,
        likely_start_at=_likely_start_at(draft, reservation, first.start_at + start_s),
        spans=reservation.spans,
        reasons=reservation.reasons,
        gpu_s=ask.gpus * ask.run_s,
        alternatives=others,
    )


def _likely_start_at(draft: Draft, reservation: Reservation, booked_at: Instant) -> Instant:
    """Return when a guest will probably run: where it is booked if that is now, else as others had to wait.

    `booked_at`: when it runs where it is booked, if its start takes as long as they did lately.
    """
    request, promise = reservation.request, reservation.promise
    assert promise is not None
    from_at = max(draft.now, request.not_before_at or 0)
    if reservation.spans[0].start_at <= from_at:
        return max(booked_at, from_at)
    soonest_at = from_at + booked_at - reservation.spans[0].start_at
    return min(max(likely_at(draft, request, promise), soonest_at), max(booked_at, from_at))


def why(
    plan: Plan,
    facts: Mapping[HostId, HostFacts],
    reservation: Reservation,
    now: Instant,
    settings: Settings,
    *,
    used_gpu_s: UsedGpus | None = None,
    ended_uses: EndedUses | None = None,
) -> tuple[Reason, ...]:
    """Return what keeps a reservation from running now; empty only while it runs."""
    vms = [vm for host in sorted(facts) for vm in facts[host].vms if vm.reservation == reservation.id]
    phase = phase_of(reservation, vms, now)
    if phase is Phase.RUNNING:
        return ()
    if reservation.outcome is not None:
        return reservation.reasons
    told = tuple(r for r in reservation.reasons if r.code is ReasonCode.PROMISE_BROKEN)[-1:]
    ahead = next((span for span in reservation.spans if span.end_at > now), None)
    if ahead is None:
        return (*told, *_no_place(plan, facts, reservation))
    if ahead.start_at <= now:
        return (*told, *_hand_over(plan, facts, reservation, ahead, vms, now, settings))
    return (
        *told,
        *_booked_later(plan, reservation, ahead),
        *_out_of_plan(plan, facts, ahead),
        *_pool_is_full(plan, facts, reservation, now, settings),
        *_its_turn(reservation, Draft(plan, facts, now, settings, used_gpu_s=used_gpu_s, ended_uses=ended_uses)),
    )


def _its_turn(reservation: Reservation, draft: Draft) -> list[Reason]:
    """Who is tried for an early start before it, by which order; and what would run sooner."""
    if has_started(reservation) or reservation.promise is None:
        return []
    found = []
    turn = turn_of(draft, reservation)
    if turn is not None:
        found.append(reason(ReasonCode.WAITS_FOR_TURN, ahead=turn, order=order_text(draft, reservation.request.queue)))
    request = reservation.request
    ask = Ask(
        owner=request.owner,
        queue=request.queue,
        gpus=request.gpus,
        run_s=request.run_s,
        not_before_at=request.not_before_at if (request.not_before_at or 0) > draft.now else None,
        at_boundary=request.at_boundary,
        image=request.image,
    )
    draft.put(replace(reservation, spans=(), outcome=Outcome.CANCELLED))
    for other in alternatives(draft, ask, reservation.promise, most=1):
        code = ReasonCode.SOONER_IN_PIECES if other.change is Change.SPLIT else ReasonCode.SOONER_WITH
        found.append(reason(code, **dict(other.as_reason().facts)))
    return found


def _out_of_plan(plan: Plan, facts: Mapping[HostId, HostFacts], span: BookedSpan) -> list[Reason]:
    """Which of its GPUs are in no hands to be given now: told before its time too, while somebody can still help."""
    host = facts.get(span.host, HostFacts(host=span.host))
    gpus = plan.hosts[span.host].profile.partition(span.partition).gpus
    return [lost_gpu(span.host, fact) for fact in host.gpus if fact.gpu in gpus & host.gpus_out_of_plan]


def _pool_is_full(
    plan: Plan, facts: Mapping[HostId, HostFacts], reservation: Reservation, now: Instant, settings: Settings
) -> list[Reason]:
    """Whether it is the disk, not the GPUs, that a first start waits for."""
    if reservation.disk is None or reservation.disk not in plan.disks or has_started(reservation):
        return []
    draft = Draft(plan, facts, now, settings)
    draft.put(replace(reservation, spans=()))
    disk = draft.disks[reservation.disk]
    del draft.disks[reservation.disk]
    spans = without_disk(draft, reservation.request)
    if spans is None or spans[0].start_at >= reservation.spans[0].start_at:
        return []
    return [
        reason(
            ReasonCode.WAITS_FOR_DISK,
            storage=disk.storage,
            disk_gib=disk.size_gib,
            until_at=reservation.spans[0].start_at,
        )
    ]


def _no_place(plan: Plan, facts: Mapping[HostId, HostFacts], reservation: Reservation) -> tuple[Reason, ...]:
    return outages(plan.hosts.values(), facts) or (
        reason(
            ReasonCode.NEVER_FITS,
            gpus=reservation.request.gpus,
            run_s=reservation.request.run_s,
            queue=reservation.request.queue,
            horizon_at=plan.horizon_at,
            remedy="it is placed as soon as there is room; cancel it and ask for less to start sooner",
        ),
    )


def _hand_over(
    plan: Plan,
    facts: Mapping[HostId, HostFacts],
    reservation: Reservation,
    span: BookedSpan,
    vms: Sequence[VmFact],
    now: Instant,
    settings: Settings,
) -> list[Reason]:
    """Its time has come: who or what is still on its GPUs, or what became of its start."""
    host = facts.get(span.host, HostFacts(host=span.host))
    profile = plan.hosts[span.host].profile
    partition = profile.partition(span.partition)
    gpus = ", ".join(map(str, sorted(partition.gpus)))
    found = []
    if host.unreachable_since_at is not None:
        found.append(
            reason(
                ReasonCode.HOST_UNREACHABLE,
                host=span.host,
                since_at=host.unreachable_since_at,
                problem=host.problem,
            )
        )
    for vm in host.vms:
        if vm.end is None and vm.reservation != reservation.id and profile.partition(vm.partition).overlaps(partition):
            found.append(reason(ReasonCode.WAITS_FOR_HAND_OVER, host=span.host, gpus=gpus, holder=str(vm.reservation)))
    found.extend(_out_of_plan(plan, facts, span))
    last = max(vms, key=lambda vm: vm.generation, default=None)
    if last is not None and last.end is VmEnd.START_FAILED:
        times = sum(1 for vm in vms if vm.end is VmEnd.START_FAILED)
        found.append(
            reason(
                ReasonCode.START_FAILED,
                host=span.host,
                partition=span.partition,
                times=times,
                problem=last.problem,
            )
        )
    if last is not None and last.end is VmEnd.UNKNOWN:
        found.append(reason(ReasonCode.UNKNOWN_STATE, host=span.host, subject=str(last.uuid), problem=last.problem))
    if last is not None and last.end is VmEnd.SELF_SHUTDOWN and reservation.restart_after < last.generation:
        until_at = (last.off_at or now) + settings.self_shutdown_ends_after_s
        found.append(reason(ReasonCode.WAITS_FOR_OWNER, until_at=until_at))
    return found or [_being_handed_over(plan, reservation, span, vms, gpus, now)]


def _being_handed_over(
    plan: Plan, reservation: Reservation, span: BookedSpan, vms: Sequence[VmFact], gpus: str, now: Instant
) -> Reason:
    """Nothing is known to be in the way: the hand-over takes its time, or longer than it may."""
    assert plan.rules is not None
    grace_s = longest_grace_s(plan.rules, (window for window in plan.windows.values() if window.end_at > now))
    bound_s = lead_s(plan.hosts[span.host].profile, gpus=reservation.request.gpus, grace_s=grace_s)
    took_s = now - max([span.start_at, *(vm.off_at for vm in vms if vm.off_at is not None)])
    if took_s > bound_s:
        what = f"the hand-over of GPUs {gpus} on {span.host}"
        return reason(ReasonCode.BOUND_EXCEEDED, what=what, took_s=took_s, bound_s=bound_s)
    return reason(ReasonCode.WAITS_FOR_GPUS, host=span.host, gpus=gpus, problem="they are made ready and the VM starts")


def _booked_later(plan: Plan, reservation: Reservation, span: BookedSpan) -> list[Reason]:
    """Its time has not come: until when, behind whom, behind which window."""
    found = [reason(ReasonCode.WAITS_FOR_TIME, host=span.host, partition=span.partition, start_at=span.start_at)]
    for window in sorted(plan.windows.values(), key=lambda w: (w.start_at, w.id)):
        if span.host in window.hosts and window.start_at == span.start_at:
            found.append(reason(ReasonCode.WAITS_FOR_WINDOW, window=window.name, start_at=window.start_at))
        elif span.host in window.hosts and window.end_at == span.start_at:
            found.append(reason(ReasonCode.WAITS_FOR_WINDOW_END, window=window.name, end_at=window.end_at))
    partition = plan.hosts[span.host].profile.partition(span.partition)
    for key in sorted(plan.reservations):
        other = plan.reservations[key]
        for held in other.spans:
            if (
                key != reservation.id
                and held.host == span.host
                and held.end_at == span.start_at
                and plan.hosts[held.host].profile.partition(held.partition).overlaps(partition)
            ):
                found.append(
                    reason(
                        ReasonCode.HELD_BY, holder=key, host=held.host, partition=held.partition, until_at=held.end_at
                    )
                )
    return found
