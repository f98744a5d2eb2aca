"""Which value is in which column: plan values and intents to rows, and rows back to values.

A row that is written is a dict with every column of its table; a row that is read is what a SELECT of the whole table
gives. Must not hold queries.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from sqlalchemy import Row

from scheduler.core.intents import FiledIntent
from scheduler.core.plan import (
    NO_NOTE,
    BookedDisk,
    BookedSpan,
    Decided,
    Event,
    Host,
    Outcome,
    PlanChange,
    PolicyNote,
    Reservation,
    Rules,
)
from scheduler.core.requests import AtBoundary, DiskId, HostId, Promise, Request, ReservationId, Role
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile, PartitionId
from scheduler.core.windows import Layout, Window, WindowId, WindowState
from scheduler.store.codec import Pairs, from_json, from_json_shared, intent_from_json, reasons_from_json, to_json

Columns: TypeAlias = dict[str, Any]
"""A row to write."""


def host_row(host: Host) -> Columns:
    return {
        "id": host.id,
        "profile": host.profile.name,
        "storage": host.storage,
        "connect": host.connect,
        "is_drained": host.is_drained,
        "mended": to_json(host.mended),
    }


def host_of(row: Row[Any], profile: HostProfile) -> Host:
    return Host(
        id=HostId(row.id),
        profile=profile,
        storage=row.storage,
        connect=row.connect,
        is_drained=row.is_drained,
        mended=from_json(tuple[tuple[int, Instant], ...], row.mended),
    )


def policy_row(rules: Rules, change: PlanChange, *, at: Instant, author: str) -> Columns:
    """Return the row of the policy that a change applies."""
    note = change.policy_note or NO_NOTE
    return {
        "version": rules.version,
        "text": change.policy_text or "",
        "rules": to_json(rules),
        "applied_at": at,
        "author": author,
        "message": note.message,
        "override": note.override,
        "made_with": to_json(note.made_with),
    }


def policy_note_of(row: Row[Any]) -> PolicyNote:
    made_with = from_json(tuple[tuple[str, str], ...], row.made_with)
    return PolicyNote(message=row.message, override=row.override, made_with=made_with)


def window_row(window: Window) -> Columns:
    return {
        "id": window.id,
        "name": window.name,
        "layout": to_json(window.layout),
        "hosts": to_json(window.hosts),
        "start_at": window.start_at,
        "end_at": window.end_at,
        "decide_at": window.decide_at,
        "only_if_queued": window.only_if_queued,
        "at_boundary": to_json(window.at_boundary),
        "warnings_s": to_json(window.warnings_s),
        "grace_s": window.grace_s,
        "policy_version": window.policy_version,
        "source": window.source,
        "state": window.state.value,
        "released_from_at": window.released_from_at,
    }


def window_of(row: Row[Any]) -> Window:
    return Window(
        id=WindowId(row.id),
        name=row.name,
        layout=from_json_shared(Layout, row.layout),
        hosts=from_json_shared(frozenset[HostId], row.hosts),
        start_at=row.start_at,
        end_at=row.end_at,
        decide_at=row.decide_at,
        only_if_queued=row.only_if_queued,
        at_boundary=from_json_shared(frozenset[AtBoundary], row.at_boundary),
        warnings_s=from_json_shared(tuple[int, ...], row.warnings_s),
        grace_s=row.grace_s,
        policy_version=row.policy_version,
        source=row.source,
        state=WindowState(row.state),
        released_from_at=row.released_from_at,
    )


def reservation_row(reservation: Reservation) -> Columns:
    request, promise = reservation.request, reservation.promise
    return {
        "id": request.id,
        "owner": request.owner,
        "queue": request.queue,
        "gpus": request.gpus,
        "run_s": request.run_s,
        "submitted_at": request.submitted_at,
        "not_before_at": request.not_before_at,
        "asked_start_by_at": request.start_by_at,
        "at_boundary": request.at_boundary.value,
        "image": request.image,
        "disk_gib": request.disk_gib,
        "memory_gib": request.memory_gib,
        "vcpus": request.vcpus,
        "ssh_key": request.ssh_key,
        "continues": request.continues,
        "key": request.key,
        "start_by_at": None if promise is None else promise.start_by_at,
        "end_by_at": None if promise is None else promise.end_by_at,
        "generation": reservation.generation,
        "restart_after": reservation.restart_after,
        "disk": reservation.disk,
        "outcome": None if reservation.outcome is None else reservation.outcome.value,
        "ended_at": reservation.ended_at,
        "is_closed": reservation.is_closed,
        "promise_notice": reservation.promise_notice,
        "reasons": to_json(reservation.reasons),
    }


def reservation_of(row: Row[Any], spans: Iterable[BookedSpan]) -> Reservation:
    promise = None
    if row.start_by_at is not None:
        promise = Promise(start_by_at=row.start_by_at, end_by_at=row.end_by_at)
    request = Request(
        id=ReservationId(row.id),
        owner=row.owner,
        queue=row.queue,
        gpus=row.gpus,
        run_s=row.run_s,
        submitted_at=row.submitted_at,
        not_before_at=row.not_before_at,
        start_by_at=row.asked_start_by_at,
        at_boundary=AtBoundary(row.at_boundary),
        image=row.image,
        disk_gib=row.disk_gib,
        memory_gib=row.memory_gib,
        vcpus=row.vcpus,
        ssh_key=row.ssh_key,
        continues=row.continues,
        key=row.key,
    )
    return Reservation(
        request=request,
        promise=promise,
        spans=tuple(spans),
        generation=row.generation,
        restart_after=row.restart_after,
        disk=row.disk,
        outcome=None if row.outcome is None else Outcome(row.outcome),
        ended_at=row.ended_at,
        is_closed=row.is_closed,
        promise_notice=row.promise_notice,
        reasons=reasons_from_json(row.reasons),
    )


def span_row(reservation: ReservationId, number: int, span: BookedSpan) -> Columns:
    return {
        "reservation": reservation,
        "number": number,
        "start_at": span.start_at,
        "end_at": span.end_at,
        "host": span.host,
        "partition": span.partition,
        "generation": span.generation,
    }


def span_of(row: Row[Any]) -> BookedSpan:
    return BookedSpan(
        start_at=row.start_at,
        end_at=row.end_at,
        host=HostId(row.host),
        partition=PartitionId(row.partition),
        generation=row.generation,
    )


def booked_disk_row(disk: BookedDisk) -> Columns:
    return {
        "id": disk.id,
        "reservation": disk.reservation,
        "owner": disk.owner,
        "size_gib": disk.size_gib,
        "storage": disk.storage,
        "is_scratch": disk.is_scratch,
        "from_at": disk.from_at,
        "until_at": disk.until_at,
    }


def booked_disk_of(row: Row[Any]) -> BookedDisk:
    return BookedDisk(
        id=DiskId(row.id),
        reservation=ReservationId(row.reservation),
        owner=row.owner,
        size_gib=row.size_gib,
        storage=row.storage,
        is_scratch=row.is_scratch,
        from_at=row.from_at,
        until_at=row.until_at,
    )


def event_row(event: Event) -> Columns:
    return {
        "kind": event.kind,
        "at": event.at,
        "reservation": event.reservation,
        "host": event.host,
        "actor": event.actor,
        "facts": to_json(event.facts),
        "is_notice": event.is_notice,
        "key": event.key,
    }


def event_of(row: Row[Any]) -> Event:
    return Event(
        kind=row.kind,
        at=row.at,
        reservation=row.reservation,
        host=row.host,
        actor=row.actor,
        facts=from_json(Pairs, row.facts),
        is_notice=row.is_notice,
        key=row.key,
    )


def filed_intent_of(row: Row[Any]) -> FiledIntent:
    return FiledIntent(
        seq=row.seq,
        at=row.at,
        author=row.author,
        role=Role(row.role),
        intent=intent_from_json(row.payload),
        key=row.key,
    )


def decided_of(row: Row[Any]) -> Decided | None:
    """Return what became of an intent; None while it is open."""
    if row.decided_at is None:
        return None
    return Decided(seq=row.seq, reservation=row.reservation, reasons=reasons_from_json(row.reasons))


def in_batches(keys: Sequence[Any], size: int = 500) -> Iterable[Sequence[Any]]:
    """Cut keys into lists that fit in one statement on every database."""
    return (keys[start : start + size] for start in range(0, len(keys), size))
