"""From values to answers that several endpoints give: reasons, promises, spans, whole reservations."""

from collections.abc import Callable, Iterable

from api.instants import shower
from api.problems import facts_json
from api.schemas import DiskOut, PromiseOut, ReasonOut, ReservationOut, SpanOut, VmOut
from api.services import Services
from scheduler.core.plan import BookedSpan
from scheduler.core.reasons import Reason, sentence
from scheduler.core.requests import Promise
from scheduler.core.spans import Instant
from scheduler.service.listing import Account
from scheduler.service.outlook import outlook
from scheduler.service.snapshot import Snapshot

ShowInstant = Callable[[Instant], str]


def shown_reasons(reasons: Iterable[Reason], services: Services) -> list[ReasonOut]:
    show = shower(services.zone())
    return [
        ReasonOut.model_validate({"code": why.code.value, "sentence": sentence(why, show), "facts": facts_json(why)})
        for why in reasons
    ]


def shown_promise(promise: Promise | None) -> PromiseOut | None:
    return None if promise is None else PromiseOut(start_by_at=promise.start_by_at, end_by_at=promise.end_by_at)


def shown_spans(spans: Iterable[BookedSpan], snapshot: Snapshot) -> list[SpanOut]:
    return [
        SpanOut(
            start_at=span.start_at,
            end_at=span.end_at,
            host=span.host,
            partition=span.partition,
            gpus=list(snapshot.gpus_of(span)),
            is_pinned=span.is_pinned,
        )
        for span in spans
    ]


def shown_reservation(account: Account, snapshot: Snapshot, services: Services) -> ReservationOut:
    """Return a reservation as its owner sees it."""
    reservation, disk = account.reservation, account.disk
    request = reservation.request
    return ReservationOut(
        id=request.id,
        owner=request.owner,
        queue=request.queue,
        gpus=request.gpus,
        run_s=request.run_s,
        phase=account.phase.value,
        submitted_at=request.submitted_at,
        not_before_at=request.not_before_at,
        asked_start_by_at=request.start_by_at,
        at_boundary=request.at_boundary.value,
        image=request.image,
        disk_gib=request.disk_gib,
        memory_gib=request.memory_gib,
        vcpus=request.vcpus,
        continues=request.continues,
        by_policy=None if request.key is None else request.key.partition("@")[0],
        promise=shown_promise(reservation.promise),
        spans=shown_spans(reservation.spans, snapshot),
        delivered_s=account.delivered_s,
        vm=_shown_vm(account, snapshot),
        disk=None if disk is None else DiskOut(id=disk.id, size_gib=disk.size_gib, kept_until_at=disk.until_at),
        outcome=None if reservation.outcome is None else reservation.outcome.value,
        ended_at=reservation.ended_at,
        reasons=shown_reasons(reservation.reasons, services),
        next=outlook(account, snapshot, shower(services.zone())),
        plan_version=snapshot.plan.version,
    )


def _shown_vm(account: Account, snapshot: Snapshot) -> VmOut | None:
    if account.vm is None:
        return None
    host_id, vm = account.vm
    host = snapshot.plan.hosts.get(host_id)
    return VmOut(
        host=host_id,
        partition=vm.partition,
        gpus=[] if host is None else sorted(host.profile.partition(vm.partition).gpus),
        generation=vm.generation,
        uuid=str(vm.uuid),
        up_at=vm.up_at,
        running_at=vm.running_at,
    )
