"""The difference between what a host should look like and what it looks like, as actions; and why the rest waits.

    ended VM:  ask to shut down ─half the grace─▶ ask the agent ─grace over─▶ destroy, a few times ─▶ quarantine
               (paused: the same, without the agent; in a state that is not understood: left, whatever was asked)
    off VM:    remove (routing, definition) ─▶ reset its devices ─▶ again ─▶ rebind and reset ─▶ quarantine
    due VM:    every GPU clean, free, in nobody's hands, and nothing older left ─▶ start

Ends come before starts. Pure and without memory: what was done is in the facts' book of asks, what is being done by
this process in `InFlight`. What a start needs is in `diff_starts`.
"""

from scheduler.core.converging.actions import (
    Action,
    AskShutdown,
    DeleteDisk,
    DestroyVm,
    Diff,
    Finding,
    InFlight,
    QuarantineGpu,
    RemoveVm,
    ResetGpu,
    WarnGuest,
)
from scheduler.core.converging.asked import asked_of, is_reset_given_up, reset_again_at, retry_at, was_refused
from scheduler.core.converging.desired import DesiredHost
from scheduler.core.converging.diff_starts import diff_starts
from scheduler.core.converging.diffing import Diffing
from scheduler.core.facts import (
    Asked,
    CheckResult,
    DomainState,
    GpuState,
    HostFacts,
    ObservedDomain,
    ObservedHost,
    Verb,
    VmEnd,
    VmFact,
)
from scheduler.core.reasons import ReasonCode, reason
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile

STUCK = "its VM could not be stopped: {times} attempts to destroy it failed ({problem})"


def diff(
    desired: DesiredHost,
    look: ObservedHost,
    facts: HostFacts,
    now: Instant,
    *,
    in_flight: InFlight,
    profile: HostProfile,
    settings: Settings,
) -> Diff:
    """Return what is to be done now, in order, and why the rest waits. `facts` must have witnessed this very look."""
    work = Diffing(
        desired=desired, look=look, facts=facts, now=now, in_flight=in_flight, profile=profile, settings=settings
    )
    stops: list[Action] = []
    for vm in facts.vms:
        if vm.end is None:
            stops.extend(_stop(work, vm))
        elif not vm.is_gone:
            stops.extend(_remove(work, vm))
    resets = _resets(work)
    starts = diff_starts(work)
    rest = [*_warnings(work), *_deletes(work)]
    _note_strangers(work)
    return Diff(actions=(*stops, *resets, *starts, *rest), findings=tuple(work.findings))


# Stops.


def _stop(work: Diffing, vm: VmFact) -> list[Action]:
    """Return the next rung of the ladder for a start that is on the host and has ended by the plan."""
    domain = work.domain(vm)
    ended = work.ended(vm)
    start = asked_of(work.facts, Verb.START, str(vm.uuid))
    if (
        domain is not None
        and start is not None
        and (ended or work.is_wanted(vm))
        and _is_stuck(work, vm, domain, start)
    ):
        return _destroy(work, vm, domain, start.until_at)
    if ended is None:
        if not work.is_wanted(vm) and domain is not None:
            work.left_alone(vm, "the plan does not know this start")
        return []
    if domain is None or vm.uuid in work.in_flight.vms:
        return []
    if domain.state is DomainState.UNKNOWN:
        work.left_alone(vm, "its time is over, and what it does cannot be told; its GPUs are out of the plan")
        return []
    shutdown = asked_of(work.facts, Verb.SHUTDOWN, str(vm.uuid))
    if shutdown is None:
        if domain.is_busy:
            return []
        is_paused = domain.state is DomainState.PAUSED
        return [_ask_shutdown(vm, work.now + ended.grace_s, attempt=1, is_paused=is_paused)]
    if work.now < shutdown.until_at:
        return _within_grace(work, vm, domain, shutdown)
    return _destroy(work, vm, domain, shutdown.until_at)


def _is_stuck(work: Diffing, vm: VmFact, domain: ObservedDomain, start: Asked) -> bool:
    """Whether a start got stuck half-way: no guest has ever run in it, so clearing it away stops nobody."""
    if vm.up_at is not None or domain.state is not DomainState.PAUSED or vm.uuid in work.in_flight.vms:
        return False
    return (was_refused(start) and not domain.is_busy) or work.now >= start.until_at


def _ask_shutdown(
    vm: VmFact, until_at: Instant, *, attempt: int, is_again: bool = False, is_paused: bool = False
) -> AskShutdown:
    return AskShutdown(
        reservation=vm.reservation,
        uuid=vm.uuid,
        until_at=until_at,
        attempt=attempt,
        is_again=is_again,
        is_paused=is_paused,
    )


def half_way_at(vm: VmFact, shutdown: Asked) -> Instant:
    """Return when a guest that does not follow the button is asked through its agent: half-way through its grace."""
    asked_at = vm.stop_asked_at if vm.stop_asked_at is not None else shutdown.asked_at
    return (asked_at + shutdown.until_at) // 2


def _within_grace(work: Diffing, vm: VmFact, domain: ObservedDomain, shutdown: Asked) -> list[Action]:
    if domain.state in (DomainState.OFF, DomainState.PAUSED) or domain.is_busy:
        # One that is paused cannot answer; it has its grace, in which somebody may let it go on.
        return []
    if shutdown.attempt == 1 and work.now >= half_way_at(vm, shutdown):
        return [_ask_shutdown(vm, shutdown.until_at, attempt=2)]
    was_lost = shutdown.detail == ""
    may_retry = was_refused(shutdown) and work.now >= shutdown.asked_at + work.settings.retry_after_s
    if was_lost or (may_retry and shutdown.attempt == 1):
        return [_ask_shutdown(vm, shutdown.until_at, attempt=shutdown.attempt, is_again=True)]
    return []


def _destroy(work: Diffing, vm: VmFact, domain: ObservedDomain, over_at: Instant) -> list[Action]:
    """Return the end of the ladder: what is due is not stopped by silence, nor by a pause. The disk is kept."""
    destroy_s = work.profile.bounds.destroy_s
    gpus = work.gpus_of(vm)
    if domain.state is DomainState.OFF or gpus & work.in_flight.gpus:
        return []
    destroy = asked_of(work.facts, Verb.DESTROY, str(vm.uuid))
    last_until_at = over_at if destroy is None else destroy.until_at
    if domain.is_busy and work.now < last_until_at + destroy_s:
        # Somebody's operation has not ended; it gets the bound of one destroy, then its end is not waited for.
        return []
    if destroy is None or destroy.detail == "":
        attempt = 1 if destroy is None else destroy.attempt
        return [DestroyVm(reservation=vm.reservation, uuid=vm.uuid, gpus=gpus, attempt=attempt)]
    has_failed = was_refused(destroy) or work.now >= destroy.until_at
    if has_failed and destroy.attempt < work.settings.destroy_attempts:
        if work.now < destroy.asked_at + work.settings.retry_after_s:
            return []
        return [DestroyVm(reservation=vm.reservation, uuid=vm.uuid, gpus=gpus, attempt=destroy.attempt + 1)]
    if not has_failed:
        return []
    if work.are_mended_since(gpus, destroy.asked_at):
        # An admin looked after it: whatever kept it from ending may be gone.
        return [DestroyVm(reservation=vm.reservation, uuid=vm.uuid, gpus=gpus, attempt=1)]
    problem = STUCK.format(times=destroy.attempt, problem=destroy.detail)
    work.refused(vm.reservation, "destroy", str(vm.uuid), problem)
    return [QuarantineGpu(gpu=gpu, problem=problem) for gpu in sorted(gpus) if not work.is_quarantined(gpu)]


def _remove(work: Diffing, vm: VmFact) -> list[Action]:
    """Clear away what an ended start left; an end that is not understood keeps everything while the plan wants it."""
    domain = work.domain(vm)
    if vm.end is VmEnd.UNKNOWN and work.ended(vm) is None:
        work.left_alone(vm, vm.problem)
        return []
    if work.ended(vm) is None and not work.is_wanted(vm) and domain is not None:
        work.left_alone(vm, "the plan does not know this start")
        return []
    if domain is not None and (domain.state is not DomainState.OFF or domain.is_busy):
        return []
    gpus = work.gpus_of(vm)
    if vm.uuid in work.in_flight.vms:
        return []
    ask = asked_of(work.facts, Verb.REMOVE, str(vm.uuid))
    if ask is not None and ask.detail != "" and work.now < retry_at(ask, work.settings.retry_after_s):
        return []
    return [
        RemoveVm(
            reservation=vm.reservation,
            uuid=vm.uuid,
            partition=None if gpus & work.gpus_in_use_by_others(vm) else vm.partition,
            attempt=1 if ask is None else ask.attempt + (ask.detail != ""),
        )
    ]


# Resets.


def _resets(work: Diffing) -> list[Action]:
    """Return the next step for every device that a VM had and that nobody holds."""
    device_by_address = {device.address: device for device in work.look.devices}
    held = work.addresses_in_use()
    actions: list[Action] = []
    for fact in work.facts.gpus:
        address = work.profile.gpu(fact.gpu).address
        device = device_by_address.get(address)
        if fact.state is GpuState.DIRTY and device is not None and device.held_by is None and address not in held:
            actions.extend(_reset(work, address, fact.gpu, fact.since_at))
    gpu_addresses = {gpu.address for gpu in work.profile.gpus}
    for address in sorted({*work.profile_addresses()} - gpu_addresses - held):
        device = device_by_address.get(address)
        if device is None or device.held_by is not None:
            continue
        if device.result_of("config_readable") is CheckResult.FAILED:
            # Dead, and out of the plan by a GPU that stands in for it; there is nothing to reset.
            continue
        if device.mistaken_for:
            # Whatever it is, it is not the device that a VM had.
            continue
        if device.result_of("reset_done") is CheckResult.FAILED:
            actions.extend(_reset(work, address, None, None))
    return actions


def _reset(work: Diffing, address: str, gpu: int | None, since_at: Instant | None) -> list[Action]:
    settings = work.settings
    ask = asked_of(work.facts, Verb.RESET, address)
    if ask is None or (since_at is not None and ask.asked_at < since_at):
        return [ResetGpu(gpu=gpu, address=address, attempt=1, rebind=False)]
    if ask.detail == "":
        return [ResetGpu(gpu=gpu, address=address, attempt=ask.attempt, rebind=ask.attempt > settings.reset_attempts)]
    if work.now < reset_again_at(ask, settings):
        return []
    if not is_reset_given_up(ask, work.now, settings):
        attempt = ask.attempt + 1
        return [ResetGpu(gpu=gpu, address=address, attempt=attempt, rebind=attempt > settings.reset_attempts)]
    problem = f"{ask.attempt} resets, the last {settings.reset_attempts} after a rebind, did not help: {ask.detail}"
    work.refused(None, "reset", address, problem)
    # For a switch or an adapter a GPU stands in: the look itself has quarantined it.
    return [QuarantineGpu(gpu=gpu, problem=problem)] if gpu is not None else []


# Warnings, disks, strangers.


def _warnings(work: Diffing) -> list[Action]:
    """Return a warning for each guest whose latest warning instant has passed unwarned; several at once are one."""
    actions: list[Action] = []
    for wanted in work.desired.vms:
        vm = work.current(wanted)
        due_at = max((at for at in wanted.warn_at if at <= work.now), default=None)
        if vm is None or vm.end is not None or vm.running_at is None or due_at is None:
            continue
        ask = asked_of(work.facts, Verb.WARN, str(vm.uuid))
        is_done = ask is not None and ask.until_at == wanted.end_at and ask.asked_at >= due_at
        if is_done and ask is not None and ask.detail != "":
            continue
        owner = wanted.reservation.request.owner
        actions.append(
            WarnGuest(reservation=vm.reservation, uuid=vm.uuid, end_at=wanted.end_at, owner=owner, is_again=is_done)
        )
    return actions


def _deletes(work: Diffing) -> list[Action]:
    disk_by_id = {disk.id: disk for disk in work.look.disks}
    actions: list[Action] = []
    for booked in work.desired.expired_disks:
        disk = disk_by_id.get(booked.id)
        if disk is None or disk.held_by is not None or disk.is_busy or booked.id in work.in_flight.disks:
            continue
        ask = asked_of(work.facts, Verb.DELETE_DISK, booked.id)
        if ask is not None and was_refused(ask):
            work.refused(booked.reservation, "delete_disk", booked.id, ask.detail)
        if ask is not None and ask.detail != "" and work.now < retry_at(ask, work.settings.retry_after_s):
            continue
        attempt = 1 if ask is None else ask.attempt + (ask.detail != "")
        actions.append(DeleteDisk(disk=booked, attempt=attempt))
    return actions


def _note_strangers(work: Diffing) -> None:
    for domain in work.facts.foreign:
        for gpu in sorted(domain.gpus):
            why = reason(ReasonCode.GPU_HELD_BY_FOREIGN, gpu=gpu, host=work.facts.host, domain=domain.name)
            work.findings.append(Finding(reservation=None, why=why))
