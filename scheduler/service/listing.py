"""Listing: reservations as people look at them, with what plan, facts and history tell of each.

Reads only. Who may see what is for the edge.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scheduler.core.facts import VmEnd, VmFact
from scheduler.core.phases import Phase, phase_of
from scheduler.core.plan import BookedDisk, Reservation
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.owed import delivered_s
from scheduler.core.requests import HostId, ReservationId, by_number
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, Instant
from scheduler.service.snapshot import Snapshot, Vms
from scheduler.store.store import Store

SHOWN_AFTER_END_S = DAY_S
"""How long those that ended are listed without being asked for."""
_READ_FOR_ONE_SHOWN = 10
_PHASES_OF_CLOSED = frozenset({Phase.ENDED, Phase.CANCELLED, Phase.REFUSED, Phase.FAILED})
"""Nothing of what is closed is on any host: it is in none of the other phases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One reservation, and what is known of it at one moment."""

    reservation: Reservation
    phase: Phase
    delivered_s: int
    """Running time that its guests have had."""
    vm: tuple[HostId, VmFact] | None
    """The start that is on a host now, with its host."""
    disk: BookedDisk | None
    """Its disk, as long as it is the one that has it."""
    starts: tuple[VmFact, ...] = ()
    """All its starts that are remembered, by generation."""
    restart_by_at: Instant | None = None
    """Its guest shut itself down, and by then its owner may start it again; None: there is nothing to restart."""


def account_of(
    reservation_id: ReservationId, *, snapshot: Snapshot, store: Store, settings: Settings
) -> Account | None:
    """Return one reservation, closed or not; None when there is none of that id."""
    reservation = snapshot.plan.reservations.get(reservation_id) or store.reservation(reservation_id)
    if reservation is None:
        return None
    return next(iter(_accounts([reservation], snapshot, store, settings)))


def accounts(
    *,
    snapshot: Snapshot,
    store: Store,
    settings: Settings,
    owner: str | None,
    is_all: bool,
    phase: Phase | None,
    limit: int,
) -> list[Account]:
    """Return reservations, newest first; without `is_all` those that are open or ended within a day."""
    since_at = snapshot.now - SHOWN_AFTER_END_S
    found = {
        key: reservation
        for key, reservation in snapshot.plan.reservations.items()
        if owner is None or reservation.request.owner == owner
    }
    if phase is None or phase in _PHASES_OF_CLOSED:
        # The plan forgets what is closed; a phase is not a column, so with one more is read than is shown.
        most = limit if phase is None else _READ_FOR_ONE_SHOWN * limit
        for reservation in store.reservations(
            owner=owner, is_closed=True, ended_since_at=None if is_all else since_at, limit=most
        ):
            found.setdefault(reservation.id, reservation)
    shown = [
        reservation
        for reservation in found.values()
        if is_all or reservation.ended_at is None or reservation.ended_at >= since_at
    ]
    shown.sort(key=lambda reservation: by_number(reservation.id), reverse=True)
    told = _accounts(shown if phase is not None else shown[:limit], snapshot, store, settings)
    return [account for account in told if phase is None or account.phase is phase][:limit]


def asked_since(
    since_at: Instant,
    *,
    snapshot: Snapshot,
    store: Store,
    settings: Settings,
    after: ReservationId | None,
    limit: int,
) -> list[Account]:
    """Return all that was asked for from an instant on, oldest first; `after`: only what came after this one."""
    return list(_accounts(store.asked_since(since_at, after=after, limit=limit), snapshot, store, settings))


def _accounts(
    reservations: Iterable[Reservation], snapshot: Snapshot, store: Store, settings: Settings
) -> Iterable[Account]:
    reservations = tuple(reservations)
    draft = Draft(snapshot.plan, snapshot.facts, snapshot.now, settings)
    vms_by_reservation: Mapping[ReservationId, Vms] = snapshot.vms_by_reservation()
    closed = [reservation.id for reservation in reservations if reservation.is_closed]
    if closed:
        vms_by_reservation = {**vms_by_reservation, **store.reservation_vms(closed)}
    for reservation in reservations:
        yield _account(reservation, vms_by_reservation.get(reservation.id, []), snapshot, draft, settings)


def _account(reservation: Reservation, vms: Vms, snapshot: Snapshot, draft: Draft, settings: Settings) -> Account:
    until_at: Instant = snapshot.now if reservation.ended_at is None else reservation.ended_at
    disk = snapshot.plan.disks.get(reservation.disk) if reservation.disk is not None else None
    known = [(host, vm) for host, vm in vms if host in draft.hosts]
    return Account(
        reservation=reservation,
        phase=phase_of(reservation, [vm for _, vm in vms], snapshot.now),
        delivered_s=min(delivered_s(draft, reservation, known, until_at), reservation.request.run_s),
        vm=next(((host, vm) for host, vm in reversed(vms) if vm.end is None and vm.off_at is None), None),
        disk=disk if disk is not None and disk.reservation == reservation.id else None,
        starts=tuple(vm for _, vm in vms),
        restart_by_at=_restart_by_at(reservation, vms, snapshot.now, settings),
    )


def _restart_by_at(reservation: Reservation, vms: Vms, now: Instant, settings: Settings) -> Instant | None:
    """Return by when a guest that shut itself down may be started again; None when there is none, or no need."""
    last = vms[-1][1] if vms else None
    if reservation.outcome is not None or last is None or last.off_at is None or last.end is not VmEnd.SELF_SHUTDOWN:
        return None
    span = reservation.span_at(now)
    if span is None or reservation.restart_after >= last.generation:
        return None
    by_at = last.off_at + settings.self_shutdown_ends_after_s
    if by_at <= span.end_at:
        return by_at
    # Who leaves so shortly before being parked has heeded the warning, and goes on in the next span.
    is_parked_soon = any(later.start_at >= span.end_at for later in reservation.spans)
    return None if is_parked_soon else span.end_at
