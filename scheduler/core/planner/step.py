"""Planning: one step of the plan.

Facts are settled, windows decided, intents taken in order, and room that came free is used.

    (plan, intents, facts, now)  ──▶  PlanChange

Pure: the same arguments give the same change, and a step with nothing to do gives an empty one. The store commits the
change against the version that the plan was read at; a loser loads the newer plan and steps again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import assert_never

from scheduler.core.calendar.kinds import kind_of
from scheduler.core.connect import connect_problem, machine_of
from scheduler.core.errors import NightshiftError
from scheduler.core.facts import HostFacts, VmEnd
from scheduler.core.intents import (
    AddHost,
    ApplyPolicy,
    Cancel,
    ConnectHost,
    Drain,
    Extend,
    FiledIntent,
    Materialise,
    Mend,
    Restart,
    Stop,
    Submit,
    Undrain,
    reservation_id,
)
from scheduler.core.phases import phase_of
from scheduler.core.plan import Decided, Host, Outcome, Plan, PlanChange, Reservation, event
from scheduler.core.planner import admission
from scheduler.core.planner.admitting import admit, refuse
from scheduler.core.planner.alternatives import alternatives
from scheduler.core.planner.booking import end, movable, rebook
from scheduler.core.planner.deciding import add_windows, apply_policy, decide_windows
from scheduler.core.planner.draft import Draft, EndedUses, LikelyWait, UsedGpus
from scheduler.core.planner.early import start_early
from scheduler.core.planner.extending import extend
from scheduler.core.planner.intent_checks import check_intent
from scheduler.core.planner.limits import longest_run_s
from scheduler.core.planner.memory import Memory
from scheduler.core.planner.moving_up import compress
from scheduler.core.planner.owed import latest_start
from scheduler.core.planner.promising import has_started, keeps_promise
from scheduler.core.planner.settling import close_ended, settle
from scheduler.core.reasons import Reason, ReasonCode, reason
from scheduler.core.requests import AtBoundary, HostId, Request, ReservationId, Role
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant
from scheduler.core.topology import Fabric, HostProfile

MOST_ROUNDS = 16
"""How often a step may find that what it did has consequences; what is left then is found by the next step."""
_DONE = {"cancel": "cancelled", "stop": "stopped", "extend": "extended", "restart": "restarted"}


def step(
    plan: Plan,
    intents: Sequence[FiledIntent],
    facts: Mapping[HostId, HostFacts],
    now: Instant,
    *,
    settings: Settings,
    profiles: Callable[[str], HostProfile],
    awake_since_at: Instant | None = None,
    likely_wait_s: LikelyWait | None = None,
    used_gpu_s: UsedGpus | None = None,
    ended_uses: EndedUses | None = None,
    kept: Memory | None = None,
    says_instead: bool = True,
) -> PlanChange:
    """Return what one planning step changes.

    `awake_since_at`: since when planning goes on without a standstill; None: for as long as anybody knows.
    `likely_wait_s`: the wait that is likely for a size in GPUs and a wait told, in seconds; None: as long as told.
    `used_gpu_s`: how much an owner has used by now, with a half-life in seconds; None: nobody anything.
    `ended_uses`: what those held that started in a week and are not in the plan any more; None: nobody anything.
    `kept`: what the last step left, which this one goes on with, and leaves for the next.
    `says_instead`: whether a refusal says what could be had instead. It costs several placements, and decides nothing.
    """
    draft = Draft(
        plan,
        facts,
        now,
        settings,
        awake_since_at=awake_since_at,
        likely_wait_s=likely_wait_s,
        used_gpu_s=used_gpu_s,
        ended_uses=ended_uses,
        memory=kept,
    )
    _settle_all(draft)
    for filed in intents:
        draft.decided.append(_decide(draft, filed, profiles, says_instead=says_instead))
    if intents:
        _settle_all(draft)
    close_ended(draft)
    change = draft.change()
    if kept is not None:
        # What is decided is nearly always committed; if not, the board is brought back to the plan that was.
        draft.hand_over(change)
    return change


def _settle_all(draft: Draft) -> None:
    """Settle facts, decide windows and use free room, until nothing more follows: the next step finds nothing to do."""
    if draft.rules is None:
        return
    for number in range(MOST_ROUNDS):
        draft.begin_round()
        settle(draft)
        decide_windows(draft)
        if number and not draft.has_changed() and not draft.are_all_to_be_tried:
            return
        if draft.is_room_freed:
            draft.is_room_freed = False
            draft.are_all_to_be_tried = True
            compress(draft)
        start_early(draft)
        if not draft.has_changed():
            return
    if draft.are_all_to_be_tried:
        draft.memory.tried.again()


def _decide(draft: Draft, filed: FiledIntent, profiles: Callable[[str], HostProfile], *, says_instead: bool) -> Decided:
    """Take one intent; what it asks for is done whole, or refused with reasons."""
    intent = filed.intent
    match intent:
        case Submit():
            return _submit(draft, filed, intent, says_instead=says_instead)
        case Cancel() | Stop() | Extend() | Restart():
            return _change_reservation(draft, filed, intent)
        case AddHost() | ConnectHost() | Drain() | Undrain() | Mend() | ApplyPolicy() | Materialise():
            return Decided(seq=filed.seq, reasons=_administer(draft, filed, intent, profiles))
    assert_never(intent)


def _submit(draft: Draft, filed: FiledIntent, intent: Submit, *, says_instead: bool) -> Decided:
    new_id = reservation_id(filed.seq)
    is_theirs = filed.role is not Role.STUDENT or intent.ask.owner == filed.author
    if not is_theirs:
        reasons: tuple[Reason, ...] = (reason(ReasonCode.ADMIN_ONLY, what="reserve for somebody else"),)
        request = None
    else:
        request, reasons = admission.check(draft, intent.ask, reservation=new_id, key=_policys_key(filed))
    if request is not None:
        reservation, reasons = admit(draft, request)
        if reservation is not None:
            return Decided(seq=filed.seq, reservation=new_id)
    # What could be had instead, with the no.
    may_say = says_instead and is_theirs and draft.rules is not None
    instead = alternatives(draft, intent.ask, None, most=1) if may_say else ()
    reasons = (*reasons, *(other.as_reason() for other in instead))
    _keep_refused(draft, filed, intent, new_id, reasons)
    return Decided(seq=filed.seq, reservation=new_id, reasons=reasons)


def _policys_key(filed: FiledIntent) -> str | None:
    """Return the key that tells a policy's reservations; a person's key only keeps them from asking twice."""
    return filed.key if filed.role is Role.POLICY else None


def _keep_refused(
    draft: Draft, filed: FiledIntent, intent: Submit, new_id: ReservationId, reasons: tuple[Reason, ...]
) -> None:
    """Keep the record of what was refused, as it was asked for: a no is looked up later like a yes."""
    ask = intent.ask
    request = Request(
        id=new_id,
        owner=admission.storable_text(ask.owner),
        queue=admission.storable_text(ask.queue),
        gpus=admission.storable_number(ask.gpus, most=admission.MOST_STORABLE_GPUS),
        run_s=admission.storable_number(ask.run_s),
        submitted_at=draft.now,
        not_before_at=None if ask.not_before_at is None else admission.storable_number(ask.not_before_at),
        start_by_at=None if ask.start_by_at is None else admission.storable_number(ask.start_by_at),
        at_boundary=ask.at_boundary or AtBoundary.PARK,
        image=admission.storable_text(ask.image or ""),
        disk_gib=admission.storable_number(ask.disk_gib or 0),
        memory_gib=None if ask.memory_gib is None else admission.storable_number(ask.memory_gib),
        vcpus=None if ask.vcpus is None else admission.storable_number(ask.vcpus),
        ssh_key=None,
        key=_policys_key(filed),
    )
    refuse(draft, request, reasons)
    draft.tell(
        event(
            "reservation.refused",
            draft.now,
            reservation=new_id,
            actor=filed.author,
            # A person has the answer in hand; what a policy asked for by the clock has to be told to somebody.
            is_notice=filed.role is Role.POLICY,
            why=reasons[0].code.value,
            owner=request.owner,
        )
    )


def _change_reservation(draft: Draft, filed: FiledIntent, intent: Cancel | Stop | Extend | Restart) -> Decided:
    reservation = draft.reservations.get(intent.reservation)
    reasons: tuple[Reason, ...]
    if reservation is None:
        # What nobody has is not kept as a reservation's id: it may be any text.
        named = admission.storable_text(intent.reservation)
        return Decided(seq=filed.seq, reasons=(reason(ReasonCode.UNKNOWN_RESERVATION, reservation=named),))
    if filed.role is Role.STUDENT and reservation.request.owner != filed.author:
        reasons = (reason(ReasonCode.NOT_YOURS, reservation=intent.reservation),)
    elif reservation.outcome is not None:
        reasons = (_wrong_phase(draft, reservation, _DONE[intent.kind]),)
    else:
        reasons = _change_live(draft, filed, reservation, intent)
    return Decided(seq=filed.seq, reservation=intent.reservation, reasons=reasons)


def _change_live(
    draft: Draft, filed: FiledIntent, reservation: Reservation, intent: Cancel | Stop | Extend | Restart
) -> tuple[Reason, ...]:
    match intent:
        case Cancel():
            end(draft, reservation, Outcome.CANCELLED, reason(ReasonCode.CANCELLED, by=filed.author))
            return ()
        case Stop():
            if not has_started(reservation):
                return (_wrong_phase(draft, reservation, "stopped"),)
            end(draft, reservation, Outcome.STOPPED, reason(ReasonCode.STOPPED_BY_OWNER, by=filed.author))
            return ()
        case Extend():
            return _extend(draft, reservation, intent.by_s)
        case Restart():
            return _restart(draft, reservation)
    assert_never(intent)


def _extend(draft: Draft, reservation: Reservation, by_s: int) -> tuple[Reason, ...]:
    assert draft.rules is not None
    longest_s = min(draft.settings.longest_run_s, longest_run_s(draft, reservation.request.owner))
    room_s = longest_s - reservation.request.run_s
    if not 0 < by_s <= room_s:
        return (reason(ReasonCode.BAD_DURATION, run_s=by_s, shortest_s=1, longest_s=max(room_s, 0)),)
    if not reservation.spans or reservation.spans[-1].end_at <= draft.now:
        return (_wrong_phase(draft, reservation, "extended"),)
    return extend(draft, reservation, by_s)


def _restart(draft: Draft, reservation: Reservation) -> tuple[Reason, ...]:
    current = latest_start(reservation, draft.vms_of(reservation.id))
    is_ahead = any(span.end_at > draft.now for span in reservation.spans)
    if current is None or current.end is not VmEnd.SELF_SHUTDOWN or not is_ahead:
        return (_wrong_phase(draft, reservation, "restarted"),)
    draft.put(replace(reservation, restart_after=current.generation))
    return ()


def _wrong_phase(draft: Draft, reservation: Reservation, what: str) -> Reason:
    phase = phase_of(reservation, [vm for _, vm in draft.vms_of(reservation.id)], draft.now)
    return reason(ReasonCode.WRONG_PHASE, reservation=reservation.id, phase=phase.value, what=what)


def _administer(
    draft: Draft,
    filed: FiledIntent,
    intent: AddHost | ConnectHost | Drain | Undrain | Mend | ApplyPolicy | Materialise,
    profiles: Callable[[str], HostProfile],
) -> tuple[Reason, ...]:
    if filed.role is Role.STUDENT:
        return (reason(ReasonCode.ADMIN_ONLY, what=intent.kind.replace("_", " ")),)
    if isinstance(intent, AddHost | ApplyPolicy | Materialise):
        is_of_now = not isinstance(intent, ApplyPolicy) and intent.policy_version == draft.policy_version
        unsound = check_intent(intent, draft.now, rules=draft.rules if is_of_now else None)
        if unsound:
            return unsound
    match intent:
        case ApplyPolicy():
            return _missed_hosts(draft, intent.hosts) or apply_policy(draft, filed, intent)
        case Materialise():
            return _missed_hosts(draft, intent.hosts) or _materialise(draft, intent)
        case AddHost():
            return _add_host(draft, intent, profiles)
        case ConnectHost() | Drain() | Undrain() | Mend():
            host = draft.hosts.get(intent.host)
            if host is None:
                known = ", ".join(sorted(draft.hosts)) or "none"
                return (reason(ReasonCode.UNKNOWN_HOST, host=intent.host, hosts=known),)
            return _change_host(draft, host, intent)
    assert_never(intent)


def _missed_hosts(draft: Draft, hosts: frozenset[HostId]) -> tuple[Reason, ...]:
    """A host without windows would be promised to tenants at night: such windows are not taken on."""
    missed = sorted(draft.hosts.keys() - hosts)
    return (reason(ReasonCode.POLICY_MISSES_HOSTS, hosts=", ".join(missed)),) if missed else ()


def _materialise(draft: Draft, intent: Materialise) -> tuple[Reason, ...]:
    current = draft.policy_version
    if intent.policy_version != current:
        return (reason(ReasonCode.POLICY_STALE, seen=intent.policy_version, current=current),)
    if intent.horizon_at > draft.horizon_at:
        add_windows(draft, intent.windows)
        draft.set_horizon(intent.horizon_at)
    return ()


def _add_host(draft: Draft, intent: AddHost, profiles: Callable[[str], HostProfile]) -> tuple[Reason, ...]:
    if intent.host in draft.hosts:
        return (reason(ReasonCode.HOST_EXISTS, host=intent.host),)
    unsound = connect_problem(intent.connect) if intent.connect else None
    if unsound is not None:
        return (reason(ReasonCode.BAD_CONNECT, host=intent.host, problem=unsound),)
    current = draft.policy_version
    if intent.policy_version != current or intent.horizon_at < draft.horizon_at:
        return (reason(ReasonCode.POLICY_STALE, seen=intent.policy_version, current=current),)
    profile: HostProfile | None = None
    try:
        profile = profiles(intent.profile)
        kind_of(profile)
        problem = f"its profile calls itself {profile.name!r}; use that name"
    except NightshiftError as error:
        problem = error.message
    # The plan keeps the name alone: it has to lead back to this very profile after a restart.
    if profile is None or profile.name != intent.profile:
        return (reason(ReasonCode.UNKNOWN_PROFILE, host=intent.host, profile=intent.profile, problem=problem),)
    if intent.connect and profile.fabric is Fabric.SHARED:
        # Nothing here activates a fabric's sets yet: VMs would start without NVLink, or with that of others.
        problem = "its NVLink fabric is shared by Fabric Manager, which is simulated only; use a passthrough profile"
        return (reason(ReasonCode.UNKNOWN_PROFILE, host=intent.host, profile=intent.profile, problem=problem),)
    draft.put_host(Host(id=intent.host, profile=profile, storage=intent.storage, connect=intent.connect))
    add_windows(draft, intent.windows)
    draft.is_room_freed = True
    draft.tell(event("host.added", draft.now, host=intent.host, profile=intent.profile, storage=intent.storage))
    return ()


def _change_host(draft: Draft, host: Host, intent: ConnectHost | Drain | Undrain | Mend) -> tuple[Reason, ...]:
    match intent:
        case ConnectHost():
            return _connect_host(draft, host, intent.connect)
        case Drain():
            draft.put_host(replace(host, is_drained=True))
            left = _leave_host(draft, host.id)
            draft.tell(event("host.drained", draft.now, host=host.id, left=", ".join(left)))
        case Undrain():
            draft.put_host(replace(host, is_drained=False))
            draft.is_room_freed = True
            draft.tell(event("host.undrained", draft.now, host=host.id))
        case Mend():
            if intent.gpu not in range(len(host.profile.gpus)):
                return (reason(ReasonCode.UNKNOWN_GPU, host=host.id, gpu=intent.gpu),)
            mended = {**dict(host.mended), intent.gpu: draft.now}
            draft.put_host(replace(host, mended=tuple(sorted(mended.items()))))
            draft.tell(event("gpu.mended", draft.now, host=host.id, gpu=intent.gpu))
        case _:
            assert_never(intent)
    return ()


def _connect_host(draft: Draft, host: Host, connect: str) -> tuple[Reason, ...]:
    unsound = connect_problem(connect)
    if unsound is not None:
        return (reason(ReasonCode.BAD_CONNECT, host=host.id, problem=unsound),)
    if not host.connect or machine_of(host.connect) != machine_of(connect):
        # What is there would look as if it had vanished, and VMs would be started on the other machine as well.
        left = _left_on(draft, host.id)
        if left is not None:
            return (reason(ReasonCode.HOST_IN_USE, host=host.id, reservation=left),)
    draft.put_host(replace(host, connect=connect))
    draft.tell(event("host.connect_changed", draft.now, host=host.id, connect=connect))
    return ()


def _left_on(draft: Draft, host: HostId) -> ReservationId | None:
    """Return the first reservation that may have a VM or a disk on a host."""
    facts = draft.facts.get(host)
    disks = {fact.disk for fact in facts.disks if fact.deleted_at is None} if facts is not None else frozenset()
    for key, reservation in draft.reservations.items():
        if reservation.disk in disks or any(span.host == host and span.is_pinned for span in reservation.spans):
            return key
    return None


def _leave_host(draft: Draft, host: HostId) -> Iterable[ReservationId]:
    """Book elsewhere what is booked on a drained host. Returns what stays, because its promise needs it there."""
    left = []
    for key in list(draft.reservations):
        reservation = draft.reservations[key]
        if any(span.host == host for span in movable(draft, reservation)) and not rebook(
            draft, reservation, accept=keeps_promise(draft, reservation)
        ):
            left.append(key)
    return left
