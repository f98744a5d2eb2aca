"""The book of asks: finding, adding, answering and closing `Asked` entries; and how a host's facts are kept in order.

An entry is written before the asking. Its `detail` stays empty until the driver has answered, so an entry without an
answer that nobody is working on tells of an asker that was killed. Asking again is safe then, and nobody is destroyed
who was never asked. Holds no rules about what to ask.
"""

from collections.abc import Iterable
from dataclasses import replace

from scheduler.core.facts import Asked, GpuFact, HostFacts, Verb, VmFact
from scheduler.core.plan import Plan
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant

ANSWERED = "ok"
"""`Asked.detail` of a verb that the driver took; anything else that is not empty is why it did not."""

LONGEST_BACKOFF_STEPS = 7
"""Waits between attempts double this many times and then stay: 30 s becomes 64 minutes."""


def asked_of(facts: HostFacts, verb: Verb, subject: str) -> Asked | None:
    """Return what was asked of a subject with a verb, if anything is open."""
    return next((ask for ask in facts.asked if ask.verb is verb and ask.subject == subject), None)


def was_refused(ask: Asked) -> bool:
    """Whether the driver answered, and the answer was a failure."""
    return ask.detail not in ("", ANSWERED)


def retry_at(ask: Asked, retry_after_s: int) -> int:
    """Return when a failed ask may be tried again; the wait doubles with each attempt, up to a limit."""
    return ask.asked_at + (retry_after_s << min(ask.attempt - 1, LONGEST_BACKOFF_STEPS))


def reset_again_at(ask: Asked, settings: Settings) -> int:
    """Return until when a reset that was answered is waited for."""
    return ask.asked_at + settings.retry_after_s if was_refused(ask) else ask.until_at


def is_reset_given_up(ask: Asked, now: Instant, settings: Settings) -> bool:
    """Whether a device had all its resets, half of them after a rebind, and the last one has had its time."""
    return ask.detail != "" and ask.attempt >= 2 * settings.reset_attempts and now >= reset_again_at(ask, settings)


def with_asked(facts: HostFacts, asks: Iterable[Asked]) -> HostFacts:
    """Return the facts with these entries, each in place of the one of the same verb and subject."""
    by_key = {(ask.verb, ask.subject): ask for ask in facts.asked}
    by_key.update({(ask.verb, ask.subject): ask for ask in asks})
    return replace(facts, asked=tuple(by_key[key] for key in sorted(by_key)))


def answered(facts: HostFacts, verb: Verb, subject: str, detail: str) -> HostFacts:
    """Return the facts with a driver's answer; an entry that was closed meanwhile stays closed."""
    ask = asked_of(facts, verb, subject)
    return facts if ask is None else with_asked(facts, [replace(ask, detail=detail)])


def without_asked(facts: HostFacts, done: Iterable[tuple[Verb, str]]) -> HostFacts:
    """Return the facts without these entries."""
    closed = frozenset(done)
    return replace(facts, asked=tuple(ask for ask in facts.asked if (ask.verb, ask.subject) not in closed))


def with_vm(facts: HostFacts, vm: VmFact) -> HostFacts:
    """Return the facts with a VM's fact, in place of the one of the same start."""
    others = tuple(v for v in facts.vms if (v.reservation, v.generation) != (vm.reservation, vm.generation))
    return replace(facts, vms=tuple(sorted((*others, vm), key=lambda v: (v.reservation, v.generation))))


def with_gpus(facts: HostFacts, gpus: Iterable[GpuFact]) -> HostFacts:
    """Return the facts with these GPUs' facts."""
    by_gpu = {fact.gpu: fact for fact in facts.gpus}
    by_gpu.update({fact.gpu: fact for fact in gpus})
    return replace(facts, gpus=tuple(by_gpu[gpu] for gpu in sorted(by_gpu)))


def in_order(facts: HostFacts) -> HostFacts:
    """Return the facts with every part in its one order: equal facts are then equal values, whoever loaded them."""
    return replace(
        facts,
        vms=tuple(sorted(facts.vms, key=lambda vm: (vm.reservation, vm.generation))),
        gpus=tuple(sorted(facts.gpus, key=lambda gpu: gpu.gpu)),
        disks=tuple(sorted(facts.disks, key=lambda disk: disk.disk)),
        asked=tuple(sorted(facts.asked, key=lambda ask: (ask.verb, ask.subject))),
        foreign=tuple(sorted(facts.foreign, key=lambda domain: str(domain.uuid))),
        troubles=tuple(sorted(facts.troubles, key=lambda trouble: (trouble.code, trouble.problem))),
    )


def forget_closed(facts: HostFacts, plan: Plan) -> HostFacts:
    """Return the facts without what the store does not load any more: the history of what the plan has closed.

    For a process that keeps facts in memory; the store keeps the rows.
    """
    return replace(
        facts,
        vms=tuple(vm for vm in facts.vms if vm.off_at is None or vm.reservation in plan.reservations),
        disks=tuple(disk for disk in facts.disks if disk.deleted_at is None or disk.disk in plan.disks),
    )
