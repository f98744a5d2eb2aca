"""A snapshot: plan, facts and the time of one look, for answers that fit together and name the plan's version."""

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.core.bounds import lead_s, longest_grace_s
from scheduler.core.facts import HostFacts, VmFact
from scheduler.core.plan import BookedSpan, Plan, Reservation
from scheduler.core.requests import HostId, ReservationId
from scheduler.core.spans import Instant
from scheduler.core.windows import Layout, Window
from scheduler.service.facts_cache import FactsCache
from scheduler.service.plan_cache import PlanCache
from scheduler.service.ports import Clock

Vms = list[tuple[HostId, VmFact]]
"""The remembered starts of one reservation with their hosts, by generation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What one question is answered from."""

    plan: Plan
    facts: Mapping[HostId, HostFacts]
    now: Instant

    def vms_by_reservation(self) -> dict[ReservationId, Vms]:
        """Return the starts that the facts remember: all of reservations that are not closed."""
        found: dict[ReservationId, Vms] = {}
        for host in sorted(self.facts):
            for vm in self.facts[host].vms:
                found.setdefault(vm.reservation, []).append((host, vm))
        for vms in found.values():
            vms.sort(key=lambda item: item[1].generation)
        return found

    def gpus_of(self, span: BookedSpan) -> tuple[int, ...]:
        """Return the GPUs of a span; none if its host is not in the plan."""
        host = self.plan.hosts.get(span.host)
        return () if host is None else tuple(sorted(host.profile.partition(span.partition).gpus))

    def runs_by_at(self, reservation: Reservation, span: BookedSpan) -> Instant:
        """Return by when a guest runs that is started at the begin of a span, by bounds."""
        host = self.plan.hosts.get(span.host)
        if host is None or self.plan.rules is None:
            return span.start_at
        open_windows = (window for window in self.plan.windows.values() if window.end_at > self.now)
        grace_s = longest_grace_s(self.plan.rules, open_windows)
        return span.start_at + lead_s(host.profile, gpus=reservation.request.gpus, grace_s=grace_s)

    def window_on(self, host: HostId) -> Window | None:
        """Return the window that a host is in now; None outside of windows and in time that was released."""
        for window in self.plan.windows.values():
            closed = window.closed_span
            if host in window.hosts and closed is not None and closed.covers(self.now):
                return window
        return None

    def layout_on(self, host: HostId) -> Layout | None:
        """Return the layout that holds on a host now; None before a policy is applied."""
        window = self.window_on(host)
        if window is not None:
            return window.layout
        return None if self.plan.rules is None else self.plan.rules.outside


def take_snapshot(*, plans: PlanCache, known_facts: FactsCache, clock: Clock) -> Snapshot:
    """Read plan and facts as they are now; what did not change is not read again."""
    facts, _ = known_facts.current()
    return Snapshot(plan=plans.current(), facts=facts, now=clock.now())
