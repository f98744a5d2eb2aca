"""What is written before anything is asked: actions as facts, so that whoever follows a killed worker knows of them.

Pure. Holds no driver calls; those follow in `workers.converge` once these facts are committed.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import assert_never
from uuid import UUID

from scheduler.core.converging.actions import (
    Action,
    AskShutdown,
    DeleteDisk,
    DestroyVm,
    QuarantineGpu,
    RemoveVm,
    ResetGpu,
    StartVm,
    WarnGuest,
)
from scheduler.core.converging.asked import with_asked, with_gpus, with_vm
from scheduler.core.facts import Asked, GpuFact, GpuState, HostFacts, Verb, VmFact
from scheduler.core.plan import Event, event
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile

PAUSED = "it is paused and cannot answer: unless it is let go on, it is destroyed after its grace, its disk is kept"


def write_asks(
    facts: HostFacts, actions: Iterable[Action], now: Instant, *, profile: HostProfile, settings: Settings
) -> tuple[HostFacts, tuple[Event, ...]]:
    """Return the facts with every action written down as asked now, and the events that tell of them."""
    events: list[Event] = []
    for action in actions:
        facts, told = _write(facts, action, now, profile, settings)
        events.extend(told)
    return facts, tuple(events)


def ask_key(action: Action) -> tuple[Verb, str] | None:
    """Return which entry of the book an action's answer belongs to; None for one that asks nobody."""
    match action:
        case AskShutdown():
            return Verb.SHUTDOWN, str(action.uuid)
        case DestroyVm():
            return Verb.DESTROY, str(action.uuid)
        case RemoveVm():
            return Verb.REMOVE, str(action.uuid)
        case ResetGpu():
            return Verb.RESET, action.address
        case StartVm():
            return Verb.START, str(new_start(action, 0).uuid)
        case WarnGuest():
            return Verb.WARN, str(action.uuid)
        case DeleteDisk():
            return Verb.DELETE_DISK, action.disk.id
        case QuarantineGpu():
            return None
        case _:
            assert_never(action)


def new_start(action: StartVm, now: Instant) -> VmFact:
    """Return the fact of a start that is about to be asked: the generation after the last one handed out."""
    return VmFact(
        reservation=action.vm.id,
        generation=action.vm.reservation.generation + 1,
        partition=action.vm.partition.id,
        asked_at=now,
    )


def _write(
    facts: HostFacts, action: Action, now: Instant, profile: HostProfile, settings: Settings
) -> tuple[HostFacts, list[Event]]:
    key = ask_key(action)

    def asked(until_at: Instant, attempt: int = 1) -> HostFacts:
        assert key is not None
        entry = Asked(verb=key[0], subject=key[1], asked_at=now, until_at=until_at, attempt=attempt)
        return with_asked(facts, [entry])

    match action:
        case AskShutdown():
            return _with_stop(asked(action.until_at, action.attempt), action.uuid, now), _told_of_stop(
                facts, action, now
            )
        case DestroyVm():
            told = event(
                "vm.destroy_asked",
                now,
                reservation=action.reservation,
                host=facts.host,
                is_notice=action.attempt == 1,
                attempt=action.attempt,
                disk="kept",
            )
            return asked(now + profile.bounds.destroy_s, action.attempt), [told]
        case RemoveVm():
            return asked(now + settings.retry_after_s, action.attempt), []
        case ResetGpu():
            return asked(now + profile.bounds.reset_s, action.attempt), []
        case StartVm():
            return _with_start(asked(now + profile.bounds.start_s(action.vm.partition.size)), action, now)
        case WarnGuest():
            return asked(action.end_at), _told_of_end(facts, action, now)
        case DeleteDisk():
            return asked(now + settings.delete_disk_s, action.attempt), []
        case QuarantineGpu():
            return quarantined(facts, action.gpu, action.problem, now)
        case _:
            assert_never(action)


def quarantined(facts: HostFacts, gpu: int, problem: str, now: Instant) -> tuple[HostFacts, list[Event]]:
    """Return the facts with a GPU taken out of the plan."""
    told = event("gpu.quarantined", now, host=facts.host, is_notice=True, gpu=gpu, problem=problem)
    return with_gpus(facts, [GpuFact(gpu=gpu, state=GpuState.QUARANTINED, since_at=now, problem=problem)]), [told]


def _with_stop(facts: HostFacts, uuid: UUID, now: Instant) -> HostFacts:
    for vm in facts.vms:
        if vm.uuid == uuid and vm.stop_asked_at is None:
            return with_vm(facts, replace(vm, stop_asked_at=now))
    return facts


def _told_of_stop(facts: HostFacts, action: AskShutdown, now: Instant) -> list[Event]:
    if action.is_again:
        return []
    return [
        event(
            "vm.stop_asked",
            now,
            reservation=action.reservation,
            host=facts.host,
            is_notice=action.is_paused,
            until_at=action.until_at,
            through="agent" if action.through_agent else "acpi",
            **({"problem": PAUSED} if action.is_paused else {}),
        )
    ]


def _with_start(facts: HostFacts, action: StartVm, now: Instant) -> tuple[HostFacts, list[Event]]:
    vm = new_start(action, now)
    # From here on the devices may have been a tenant's, whatever becomes of the start.
    dirty = [GpuFact(gpu=gpu, state=GpuState.DIRTY, since_at=now) for gpu in sorted(action.vm.partition.gpus)]
    told = event(
        "vm.start_asked",
        now,
        reservation=vm.reservation,
        host=facts.host,
        generation=vm.generation,
        partition=vm.partition,
    )
    return with_gpus(with_vm(facts, vm), dirty), [told]


def _told_of_end(facts: HostFacts, action: WarnGuest, now: Instant) -> list[Event]:
    if action.is_again:
        return []
    return [
        event("vm.warned", now, reservation=action.reservation, host=facts.host, is_notice=True, end_at=action.end_at)
    ]
