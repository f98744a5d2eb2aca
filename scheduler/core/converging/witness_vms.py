"""How the starts of VMs are judged by a look: up, running, off and why, gone; and starts that facts have forgotten.

    asked ──▶ up ──▶ running ──▶ off (end: why) ──▶ gone
      │                           ▲    │
      └── never came up ──────────┘    └── seen running again: no end after all

An end is given by what the host shows and what was asked: the same "shut off" is `stopped` after a shutdown was asked
and `self_shutdown` when nobody asked. What fits no rule ends as `unknown`, and is left as it is.
"""

from dataclasses import replace

from scheduler.core.converging.asked import ANSWERED, asked_of, was_refused, with_vm, without_asked
from scheduler.core.converging.desired import Standing, standing_of
from scheduler.core.converging.witnessing import Witnessing
from scheduler.core.facts import (
    Asked,
    CheckResult,
    DomainState,
    HostFacts,
    ObservedDomain,
    ObservedHost,
    OffReason,
    Verb,
    VmEnd,
    VmFact,
    domain_uuid,
)
from scheduler.core.spans import Instant
from scheduler.core.topology import Partition

_UP = (DomainState.RUNNING, DomainState.SHUTTING_DOWN)
_QUIET_ENDS = (VmEnd.STOPPED, VmEnd.START_FAILED)
"""Ends that nobody needs to be told of: expected, or told by whoever places the booking anew."""

CUT_OFF = "its start was cut off: the worker that began it went away"


def witness_vms(seen: Witnessing, facts: HostFacts, look: ObservedHost) -> HostFacts:
    """Return the facts with every start as the look shows it."""
    domain_by_uuid = {domain.uuid: domain for domain in look.domains}
    for vm in facts.vms:
        if vm.end is None:
            facts = with_vm(facts, _judge(seen, facts, look, vm, domain_by_uuid.get(vm.uuid)))
    # After the ends: a start may only hold GPUs that no other one holds.
    for vm in facts.vms:
        domain = domain_by_uuid.get(vm.uuid)
        if vm.end is None:
            facts = _withdraw_stop(seen, _close_start(seen, facts, vm, domain), vm, domain)
        elif domain is not None and domain.state in _UP:
            facts = _revive(seen, facts, vm)
        elif domain is None and not vm.is_gone and _was_removed(facts, vm):
            seen.tell("vm.removed", reservation=vm.reservation, generation=vm.generation)
            facts = with_vm(facts, replace(vm, is_gone=True))
        elif domain is not None and vm.is_gone:
            # Defined by a call that came through late: cleared away once more, or its name stays taken.
            seen.tell("vm.redefined", reservation=vm.reservation, generation=vm.generation)
            facts = with_vm(facts, replace(vm, is_gone=False))
    return _adopt(seen, facts, look)


def _judge(seen: Witnessing, facts: HostFacts, look: ObservedHost, vm: VmFact, domain: ObservedDomain | None) -> VmFact:
    if domain is None:
        return _missing(seen, facts, look, vm)
    match domain.state:
        case DomainState.RUNNING | DomainState.PAUSED | DomainState.SHUTTING_DOWN:
            return _up(seen, facts, vm, domain)
        case DomainState.OFF:
            return vm if domain.is_busy else _off(seen, facts, look, vm, domain)
        case DomainState.UNKNOWN:
            return vm


# Up.


def _up(seen: Witnessing, facts: HostFacts, vm: VmFact, domain: ObservedDomain) -> VmFact:
    if vm.up_at is None:
        if domain.state is DomainState.PAUSED:
            # So a hypervisor shows a domain that it is still starting.
            return vm
        vm = replace(vm, up_at=seen.now)
        seen.tell("vm.up", reservation=vm.reservation, generation=vm.generation, partition=vm.partition)
    if vm.running_at is None:
        return _running(seen, vm, domain)
    is_silent = domain.is_guest_up is None
    if domain.state is not DomainState.RUNNING or vm.stop_asked_at is not None or is_silent == vm.is_agent_silent:
        return vm
    kind = "vm.agent_silent" if is_silent else "vm.agent_answers"
    seen.tell(kind, reservation=vm.reservation, is_notice=is_silent, generation=vm.generation)
    return replace(vm, is_agent_silent=is_silent)


def _running(seen: Witnessing, vm: VmFact, domain: ObservedDomain) -> VmFact:
    if domain.state is not DomainState.RUNNING:
        return vm
    size, bound_s = _partition(seen, vm).size, _start_bound_s(seen, vm)
    if domain.is_guest_up:
        seen.tell("vm.running", reservation=vm.reservation, generation=vm.generation, took_s=seen.now - vm.asked_at)
        seen.measure("start", gpus=size, took_s=seen.now - vm.asked_at, bound_s=bound_s, reservation=vm.reservation)
        return replace(vm, running_at=seen.now)
    if domain.is_guest_up is None and seen.now >= vm.asked_at + bound_s:
        # The guest has had its time to boot; that its agent is silent does not make it less of a VM.
        seen.tell("vm.agent_silent", reservation=vm.reservation, generation=vm.generation, is_notice=True)
        return replace(vm, running_at=vm.up_at, is_agent_silent=True)
    return vm


def _close_start(seen: Witnessing, facts: HostFacts, vm: VmFact, domain: ObservedDomain | None) -> HostFacts:
    """Close the asking of a start that was seen to its end, or that has outlived its bound and is told once."""
    ask = asked_of(facts, Verb.START, str(vm.uuid))
    if ask is None or domain is None:
        return facts
    if vm.running_at is None:
        if vm.up_at is None or seen.now < ask.until_at:
            return facts
        seen.tell(
            "bound.exceeded",
            reservation=vm.reservation,
            is_notice=True,
            what="start",
            took_s=seen.now - vm.asked_at,
            bound_s=ask.until_at - ask.asked_at,
        )
    return without_asked(facts, [(Verb.START, str(vm.uuid))])


def _withdraw_stop(seen: Witnessing, facts: HostFacts, vm: VmFact, domain: ObservedDomain | None) -> HostFacts:
    """Forget a stop that was asked, if the plan wants the VM again and its guest did not follow.

    Otherwise its next end would find the old grace used up.
    """
    ask = asked_of(facts, Verb.SHUTDOWN, str(vm.uuid))
    if ask is None or domain is None or domain.state is not DomainState.RUNNING or seen.now < ask.until_at:
        return facts
    if standing_of(seen.plan, facts.host, seen.now, vm.reservation, vm.generation) is not Standing.WANTED:
        return facts
    seen.tell("vm.stop_withdrawn", reservation=vm.reservation, generation=vm.generation)
    facts = without_asked(facts, [(Verb.SHUTDOWN, str(vm.uuid)), (Verb.DESTROY, str(vm.uuid))])
    return with_vm(facts, replace(vm, stop_asked_at=None))


# Off.


def _missing(seen: Witnessing, facts: HostFacts, look: ObservedHost, vm: VmFact) -> VmFact:
    """Judge a start whose domain is not on the host."""
    if vm.uuid in seen.in_flight.vms:
        return vm
    if vm.up_at is not None:
        if seen.is_rebooted:
            return _ended(seen, facts, vm, VmEnd.HOST_REBOOT)
        return _ended(seen, facts, vm, VmEnd.VANISHED, "its domain is not defined on the host any more")
    ask = asked_of(facts, Verb.START, str(vm.uuid))
    if ask is not None and ask.detail == "" and seen.now < ask.until_at and _is_disk_busy(seen, look, vm):
        # A copy that a worker began which is gone: its end is waited for, as long as the start might take.
        return vm
    return _never_came_up(seen, facts, vm)


def _never_came_up(seen: Witnessing, facts: HostFacts, vm: VmFact) -> VmFact:
    ask = asked_of(facts, Verb.START, str(vm.uuid))
    if ask is not None and was_refused(ask):
        return _ended(seen, facts, vm, VmEnd.START_FAILED, ask.detail)
    if seen.is_rebooted:
        return _ended(seen, facts, vm, VmEnd.HOST_REBOOT)
    if ask is not None and ask.detail == ANSWERED:
        return _ended(seen, facts, vm, VmEnd.VANISHED, "it was started and is not defined on the host any more")
    return _ended(seen, facts, vm, VmEnd.VANISHED, CUT_OFF)


def _off(seen: Witnessing, facts: HostFacts, look: ObservedHost, vm: VmFact, domain: ObservedDomain) -> VmFact:
    """Judge a start whose domain is off and at rest."""
    ask = asked_of(facts, Verb.START, str(vm.uuid))
    if vm.up_at is None:
        if vm.uuid in seen.in_flight.vms:
            return vm
        if ask is not None and was_refused(ask):
            return _ended(seen, facts, vm, VmEnd.START_FAILED, ask.detail)
        if domain.off_reason in (OffReason.UNKNOWN, None):
            if ask is not None and ask.detail == ANSWERED and not seen.is_rebooted:
                return _ended(seen, facts, vm, VmEnd.START_FAILED, "its start was reported done, and it is off")
            return _never_came_up(seen, facts, vm)
    match domain.off_reason:
        case OffReason.SHUTDOWN:
            end = VmEnd.STOPPED if vm.stop_asked_at is not None else VmEnd.SELF_SHUTDOWN
            return _ended(seen, facts, vm, end)
        case OffReason.DESTROYED:
            if asked_of(facts, Verb.DESTROY, str(vm.uuid)) is not None:
                return _ended(seen, facts, vm, VmEnd.DESTROYED, "it did not shut down within its grace")
            return _ended(seen, facts, vm, VmEnd.UNKNOWN, "it was destroyed, and not by Nightshift")
        case OffReason.CRASHED:
            lost = _unreadable(seen, look, vm)
            if lost:
                return _ended(seen, facts, vm, VmEnd.GPU_LOST, f"{', '.join(lost)} cannot be read any more")
            return _ended(seen, facts, vm, VmEnd.CRASHED)
        case OffReason.FAILED:
            return _ended(seen, facts, vm, VmEnd.START_FAILED, "the hypervisor could not start it")
        case OffReason.UNKNOWN | None:
            if seen.is_rebooted:
                return _ended(seen, facts, vm, VmEnd.HOST_REBOOT)
            return _ended(seen, facts, vm, VmEnd.UNKNOWN, "it is off, and the host does not say why")


def _ended(seen: Witnessing, facts: HostFacts, vm: VmFact, end: VmEnd, problem: str = "") -> VmFact:
    seen.tell(
        "vm.vanished" if end is VmEnd.VANISHED else "vm.off",
        reservation=vm.reservation,
        is_notice=end not in _QUIET_ENDS,
        generation=vm.generation,
        end=end.value,
        problem=problem or None,
    )
    if end in (VmEnd.STOPPED, VmEnd.DESTROYED) and vm.stop_asked_at is not None:
        shutdown = asked_of(facts, Verb.SHUTDOWN, str(vm.uuid))
        grace_s = seen.settings.grace_s if shutdown is None else shutdown.until_at - vm.stop_asked_at
        seen.measure(
            "stop",
            gpus=_partition(seen, vm).size,
            took_s=seen.now - vm.stop_asked_at,
            bound_s=grace_s + seen.profile.bounds.destroy_s,
            reservation=vm.reservation,
        )
    return replace(vm, off_at=seen.now, end=end, problem=problem)


def _unreadable(seen: Witnessing, look: ObservedHost, vm: VmFact) -> list[str]:
    """Return the devices of a start whose config space cannot be read, or that are off the bus."""
    readable = {d.address for d in look.devices if d.result_of("config_readable") is not CheckResult.FAILED}
    if not look.devices:
        return []
    return sorted({*seen.profile.devices(_partition(seen, vm))} - readable)


def _was_removed(facts: HostFacts, vm: VmFact) -> bool:
    ask: Asked | None = asked_of(facts, Verb.REMOVE, str(vm.uuid))
    return ask is not None and ask.detail == ANSWERED


# Back, and found.


def _revive(seen: Witnessing, facts: HostFacts, vm: VmFact) -> HostFacts:
    """Take an end back: the start runs after all, as when a killed worker's call came through late."""
    if _others_hold(seen, facts, _partition(seen, vm), vm):
        return facts
    seen.tell("vm.returned", reservation=vm.reservation, generation=vm.generation, is_notice=True)
    back = replace(vm, end=None, off_at=None, problem="", is_gone=False, stop_asked_at=None, up_at=vm.up_at or seen.now)
    return with_vm(without_asked(facts, [(Verb.REMOVE, str(vm.uuid))]), back)


def _adopt(seen: Witnessing, facts: HostFacts, look: ObservedHost) -> HostFacts:
    """Remember starts that the plan knows and the facts do not: the facts were lost, the VMs were not."""
    remembered = {vm.uuid for vm in facts.vms}
    strangers = {domain.uuid for domain in facts.foreign}
    for domain in sorted(look.domains, key=lambda d: str(d.uuid)):
        if domain.uuid in remembered | strangers or domain.reservation is None or domain.generation is None:
            continue
        assert domain.uuid == domain_uuid(domain.reservation, domain.generation)
        partition = seen.profile.partition_of(gpu.index for gpu in seen.profile.gpus if gpu.address in domain.devices)
        assert partition is not None, "a domain whose GPUs are no partition is a stranger"
        is_off = domain.state is DomainState.OFF
        vm = VmFact(
            reservation=domain.reservation,
            generation=domain.generation,
            partition=partition.id,
            asked_at=seen.now,
            up_at=seen.now if domain.state in _UP else None,
        )
        if (is_off and domain.is_busy) or (not is_off and _others_hold(seen, facts, partition, vm)):
            continue
        seen.tell("vm.adopted", reservation=vm.reservation, generation=vm.generation, partition=partition.id)
        if is_off:
            # Whether it was asked to stop is forgotten, so only what the host itself knows is believed.
            end = VmEnd.CRASHED if domain.off_reason is OffReason.CRASHED else VmEnd.UNKNOWN
            vm = _ended(seen, facts, vm, end, "it was found off")
        elif domain.state in _UP:
            vm = _running(seen, vm, domain) if domain.is_guest_up is None else _found_running(vm, domain, seen.now)
        facts = with_vm(facts, vm)
    return facts


def _found_running(vm: VmFact, domain: ObservedDomain, now: Instant) -> VmFact:
    """Say that a found guest runs, without a measurement: when it was started is forgotten."""
    return replace(vm, running_at=now) if domain.is_guest_up and domain.state is DomainState.RUNNING else vm


def _others_hold(seen: Witnessing, facts: HostFacts, partition: Partition, vm: VmFact) -> bool:
    """Whether another start that has not ended holds some of these GPUs."""
    return any(
        other.end is None
        and (other.reservation, other.generation) != (vm.reservation, vm.generation)
        and _partition(seen, other).overlaps(partition)
        for other in facts.vms
    )


def _partition(seen: Witnessing, vm: VmFact) -> Partition:
    return seen.profile.partition(vm.partition)


def _start_bound_s(seen: Witnessing, vm: VmFact) -> int:
    return seen.profile.bounds.start_s(_partition(seen, vm).size)


def _is_disk_busy(seen: Witnessing, look: ObservedHost, vm: VmFact) -> bool:
    """Whether somebody still copies the disk of a start."""
    reservation = seen.plan.reservations.get(vm.reservation)
    return reservation is not None and any(disk.id == reservation.disk and disk.is_busy for disk in look.disks)
