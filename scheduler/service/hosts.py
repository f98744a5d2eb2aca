"""Hosts as people look at them: what runs, what is free, what is out of the plan, and who cannot leave."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from scheduler.core.facts import HostFacts, VmFact
from scheduler.core.phases import Phase, phase_of
from scheduler.core.plan import Host, Reservation
from scheduler.core.requests import HostId, ReservationId, by_number
from scheduler.core.spans import Instant
from scheduler.core.windows import Window
from scheduler.service.snapshot import Snapshot
from scheduler.store.heartbeats import Heartbeat


@dataclass(frozen=True, slots=True, kw_only=True)
class VmOnHost:
    """A start that is on a host now."""

    vm: VmFact
    gpus: tuple[int, ...]
    reservation: Reservation | None
    """None when the plan has let go of it."""
    phase: Phase | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostView:
    """One host at one moment."""

    host: Host
    facts: HostFacts
    window: Window | None
    layout: str | None
    """The layout that holds now, by name: its window's, or the policy's outside of windows; None without a policy."""
    vms: tuple[VmOnHost, ...]
    gpus_running: frozenset[int]
    """Held by VMs of ours."""
    gpus_booked: frozenset[int]
    """Booked for now, held or not."""
    gpus_out: frozenset[int]
    stuck: tuple[ReservationId, ...]
    """What is booked on it although it is drained: no other place keeps its promise."""

    @property
    def gpus_free(self) -> frozenset[int]:
        everything = frozenset(gpu.index for gpu in self.host.profile.gpus)
        return everything - self.gpus_running - self.gpus_booked - self.gpus_out


def host_view(host_id: HostId, snapshot: Snapshot) -> HostView | None:
    """Return one host; None when it is not in the plan."""
    host = snapshot.plan.hosts.get(host_id)
    if host is None:
        return None
    facts = snapshot.facts.get(host_id, HostFacts(host=host_id))
    by_reservation = snapshot.vms_by_reservation()
    vms = []
    for vm in facts.vms:
        if vm.end is not None or vm.off_at is not None:
            continue
        reservation = snapshot.plan.reservations.get(vm.reservation)
        starts = [start for _, start in by_reservation[vm.reservation]]
        vms.append(
            VmOnHost(
                vm=vm,
                gpus=tuple(sorted(host.profile.partition(vm.partition).gpus)),
                reservation=reservation,
                phase=None if reservation is None else phase_of(reservation, starts, snapshot.now),
            )
        )
    booked = [
        span
        for reservation in snapshot.plan.reservations.values()
        if reservation.outcome is None
        for span in reservation.spans
        if span.host == host_id and span.start_at <= snapshot.now < span.end_at
    ]
    layout = snapshot.layout_on(host_id)
    return HostView(
        host=host,
        facts=facts,
        window=snapshot.window_on(host_id),
        layout=None if layout is None else layout.name,
        vms=tuple(sorted(vms, key=lambda on_host: on_host.gpus)),
        gpus_running=frozenset(gpu for on_host in vms for gpu in on_host.gpus),
        gpus_booked=frozenset(gpu for span in booked for gpu in snapshot.gpus_of(span)),
        gpus_out=facts.gpus_out_of_plan,
        stuck=_stuck(host, snapshot) if host.is_drained else (),
    )


def last_seen_at(
    facts: HostFacts, heartbeats: Iterable[Heartbeat], *, now: Instant, now_machine_s: float, speed: float
) -> Instant | None:
    """Return when a host last answered, in product time; None before its first look.

    The facts are written when a look found something new; that it was looked at is told by its heartbeat.
    """
    beats = (beat.machine_s for beat in heartbeats if (beat.kind, beat.name) == ("host", facts.host))
    last_machine_s = max(beats, default=None)
    if facts.seen_at is None or facts.unreachable_since_at is not None or last_machine_s is None:
        return facts.seen_at
    ago_s = ceil(max(0.0, now_machine_s - last_machine_s) * speed)
    return min(now, max(facts.seen_at, now - ago_s))


def _stuck(host: Host, snapshot: Snapshot) -> tuple[ReservationId, ...]:
    staying = (
        reservation.id
        for reservation in snapshot.plan.reservations.values()
        if reservation.outcome is None
        and any(span.host == host.id and span.start_at > snapshot.now for span in reservation.spans)
    )
    return tuple(sorted(staying, key=by_number))
