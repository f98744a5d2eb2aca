"""From a look to facts: what one look at a host changes in what is remembered of it, and what that change is called.

    look ──▶ host (reachable, boot, troubles) ──▶ strangers ──▶ starts of VMs ──▶ GPUs ──▶ disks ──▶ asks that are done

Pure and a fixed point: the same look twice changes nothing the second time, and tells no event. A host that does not
answer changes nothing but that it does not answer, and what to do about it. Starts are in `witness_vms`, GPUs and disks
in `witness_devices`.
"""

from collections.abc import Iterable
from dataclasses import replace

from scheduler.core.converging.actions import InFlight
from scheduler.core.converging.asked import in_order, without_asked
from scheduler.core.converging.desired import Standing, standing_of
from scheduler.core.converging.witness_devices import witness_disks, witness_gpus
from scheduler.core.converging.witness_vms import witness_vms
from scheduler.core.converging.witnessing import Witnessed, Witnessing
from scheduler.core.facts import (
    UNREACHABLE,
    DomainState,
    ForeignDomain,
    HostFacts,
    HostTrouble,
    ObservedDomain,
    ObservedHost,
    TroubleKind,
    Unreachable,
    Verb,
    domain_uuid,
)
from scheduler.core.plan import Plan
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile

_OF_A_VM = (Verb.START, Verb.SHUTDOWN, Verb.DESTROY, Verb.WARN, Verb.REMOVE)


def witness(
    facts: HostFacts,
    look: ObservedHost | Unreachable,
    plan: Plan,
    now: Instant,
    *,
    profile: HostProfile,
    settings: Settings,
    in_flight: InFlight | None = None,
) -> Witnessed:
    """Return the facts after a look, or after a failure to look, with the events and measurements.

    `in_flight` must be taken before the look: a chain that ended in between then counts as under way.
    """
    seen = Witnessing(
        facts=facts, plan=plan, now=now, profile=profile, settings=settings, in_flight=in_flight or InFlight()
    )
    if isinstance(look, Unreachable):
        after = _unreachable(seen, facts, look)
    else:
        after = _host(seen, facts, look)
        after = _troubles(seen, after, look)
        after = _strangers(seen, after, look)
        after = witness_vms(seen, after, look)
        after = witness_gpus(seen, after, look)
        if look.are_disks_known:
            after = witness_disks(seen, after, look)
        after = _close_asks(seen, after, look)
        after = in_order(after)
    if after != in_order(facts):
        after = replace(after, seen_at=facts.seen_at if isinstance(look, Unreachable) else now)
    else:
        after = facts
    return Witnessed(facts=after, events=tuple(seen.events), measurements=tuple(seen.measurements))


def _unreachable(seen: Witnessing, facts: HostFacts, look: Unreachable) -> HostFacts:
    known = next((trouble.mend for trouble in facts.troubles if trouble.code == UNREACHABLE), "")
    if facts.unreachable_since_at is not None and known == look.mend:
        # The words of a failure may differ each time; it is another one when there is something else to do.
        return in_order(facts)
    if facts.unreachable_since_at is None:
        seen.tell("host.unreachable", is_notice=True, problem=look.problem)
    troubles = [trouble for trouble in facts.troubles if trouble.code != UNREACHABLE]
    if look.mend:
        problem = look.problem.removesuffix(f"; {look.mend}")
        troubles.append(HostTrouble(code=UNREACHABLE, kind=TroubleKind.WRONG, problem=problem, mend=look.mend))
    since_at = seen.now if facts.unreachable_since_at is None else facts.unreachable_since_at
    return in_order(
        replace(facts, unreachable_since_at=since_at, problem=look.problem, troubles=_by_code_and_problem(troubles))
    )


def _host(seen: Witnessing, facts: HostFacts, look: ObservedHost) -> HostFacts:
    if facts.unreachable_since_at is not None:
        seen.tell("host.back", is_notice=True, away_s=seen.now - facts.unreachable_since_at)
        facts = replace(facts, unreachable_since_at=None, problem="")
    if facts.boot_id is None:
        seen.tell("host.first_seen", boot_id=look.boot_id)
    elif facts.boot_id != look.boot_id:
        seen.is_rebooted = True
        seen.tell("host.rebooted", is_notice=True, boot_id=look.boot_id)
    problem = "the look shows no PCI devices at all; GPUs are left as they were" if not look.devices else ""
    if problem and problem != facts.problem:
        seen.tell("host.devices_unreadable", is_notice=True, problem=problem)
    return replace(facts, boot_id=look.boot_id, problem=problem)


def _troubles(seen: Witnessing, facts: HostFacts, look: ObservedHost) -> HostFacts:
    """Note what is wrong with the host itself, or cannot be checked; told when it appears, and when it goes."""
    troubles = _by_code_and_problem(look.troubles)
    # That it does not answer has events of its own.
    before = {(trouble.code, trouble.problem): trouble for trouble in facts.troubles if trouble.code != UNREACHABLE}
    for trouble in troubles:
        known = before.pop((trouble.code, trouble.problem), None)
        if known is not None and known.kind is trouble.kind:
            continue
        is_wrong = trouble.kind is TroubleKind.WRONG
        seen.tell(
            "host.trouble" if is_wrong else "host.unverified",
            is_notice=is_wrong,
            code=trouble.code,
            problem=trouble.problem,
            mend=trouble.mend,
        )
    for gone in before.values():
        if gone.kind is TroubleKind.WRONG:
            seen.tell("host.trouble_over", code=gone.code, problem=gone.problem)
    return replace(facts, troubles=troubles)


def _by_code_and_problem(troubles: Iterable[HostTrouble]) -> tuple[HostTrouble, ...]:
    by_key = {(trouble.code, trouble.problem): trouble for trouble in troubles}
    return tuple(by_key[key] for key in sorted(by_key))


def _is_ours(seen: Witnessing, domain: ObservedDomain) -> bool:
    """Whether a domain is a start that the plan knows: by its metadata, its devices, and an address only it has."""
    if domain.reservation is None or domain.generation is None:
        return False
    if domain.uuid != domain_uuid(domain.reservation, domain.generation):
        return False
    if seen.profile.partition_of(gpu.index for gpu in seen.profile.gpus if gpu.address in domain.devices) is None:
        return False
    standing = standing_of(seen.plan, seen.facts.host, seen.now, domain.reservation, domain.generation)
    return standing is not Standing.UNKNOWN


def _strangers(seen: Witnessing, facts: HostFacts, look: ObservedHost) -> HostFacts:
    """Note the domains that Nightshift did not make, or that the plan does not know: reported, never touched."""
    remembered = {vm.uuid for vm in facts.vms}
    foreign = []
    for domain in look.domains:
        if domain.uuid in remembered or _is_ours(seen, domain):
            continue
        held = {device.address for device in look.devices if device.held_by == domain.uuid}
        if domain.state is not DomainState.OFF:
            held |= domain.devices
        gpus = frozenset(gpu.index for gpu in seen.profile.gpus if gpu.address in held)
        foreign.append(ForeignDomain(uuid=domain.uuid, name=domain.name, gpus=gpus))
    before = {domain.uuid: domain for domain in facts.foreign}
    for stranger in sorted(foreign, key=lambda d: str(d.uuid)):
        if before.pop(stranger.uuid, None) != stranger:
            gpu_list = ",".join(str(gpu) for gpu in sorted(stranger.gpus))
            seen.tell("domain.foreign", is_notice=True, domain=stranger.name, uuid=str(stranger.uuid), gpus=gpu_list)
    for gone in sorted(before.values(), key=lambda d: str(d.uuid)):
        seen.tell("domain.foreign_gone", domain=gone.name, uuid=str(gone.uuid))
    return replace(facts, foreign=tuple(sorted(foreign, key=lambda d: str(d.uuid))))


def _close_asks(seen: Witnessing, facts: HostFacts, look: ObservedHost) -> HostFacts:
    """Remove the entries whose doing was seen, and those whose subject is no more."""
    vm_by_subject = {str(vm.uuid): vm for vm in facts.vms}
    shown_disks = {disk.id for disk in look.disks}
    done: list[tuple[Verb, str]] = []
    for ask in facts.asked:
        if ask.verb in _OF_A_VM:
            vm = vm_by_subject.get(ask.subject)
            if vm is None or (vm.is_gone if ask.verb is Verb.REMOVE else vm.end is not None):
                done.append((ask.verb, ask.subject))
        elif ask.verb is Verb.DELETE_DISK and ask.subject not in shown_disks:
            done.append((ask.verb, ask.subject))
    return without_asked(facts, done) if done else facts
