"""Reservations: asked for, listed, explained, changed. For a student another's reservation is not there."""

import re
from typing import Annotated, TypeAlias

from fastapi import APIRouter, Query, Response

from api.asking import ask_of, may_see, unknown_reservation
from api.identity import Caller, is_admin
from api.problems import Problem, forbidden, refused, unknown
from api.schemas import (
    OWNER_PATTERN,
    RESERVATION_PATTERN,
    AskIn,
    ExtendIn,
    IntentOut,
    Nothing,
    ReservationOut,
    ReservationsOut,
    StartIn,
    WaitOut,
    WhyOut,
)
from api.services import Given, Services
from api.showing import shown_promise, shown_reasons, shown_reservation
from api.writing import ACCEPTED, PREFIX, Key, file_and_wait
from scheduler.core.intents import Cancel, Extend, Restart, Stop, Submit, reservation_id
from scheduler.core.phases import Phase
from scheduler.core.planner.explaining import why
from scheduler.core.reasons import Reason, ReasonCode, reason
from scheduler.core.requests import Ask, ReservationId
from scheduler.service.asks import ask_to_go_on, run_left_s
from scheduler.service.listing import Account, account_of, accounts
from scheduler.service.outlook import taker_of_disk
from scheduler.service.snapshot import Snapshot
from scheduler.service.waits import score
from scheduler.store.accounts import User

router = APIRouter(tags=["reservations"])

MOST_LISTED = 1000
_SEQ = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_DONE = {"cancel": "cancelled", "stop": "stopped", "extend": "extended", "restart": "restarted"}

Change: TypeAlias = Cancel | Stop | Extend | Restart


@router.post("/reservations", status_code=201, responses=ACCEPTED)
def reserve(body: AskIn, user: Caller, services: Given, answer: Response, key: Key = None) -> ReservationOut:
    """Ask for GPUs; the answer is the promise."""
    made = _submit(services, user, ask_of(body, user, services), key)
    answer.headers["Location"] = f"{PREFIX}/reservations/{made.id}"
    return made


@router.get("/reservations")
def list_reservations(
    user: Caller,
    services: Given,
    *,
    is_all: Annotated[bool, Query(alias="all", description="Those that ended long ago, too.")] = False,
    owner: Annotated[str | None, Query(pattern=OWNER_PATTERN, description="Only this owner's; for admins.")] = None,
    phase: Annotated[Phase | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 200,
) -> ReservationsOut:
    """List one's own reservations, newest first; for admins everybody's."""
    if not is_admin(user):
        if owner not in (None, user.name):
            raise forbidden("list the reservations of others")
        owner = user.name
    snapshot = services.snapshot()
    found = accounts(
        snapshot=snapshot,
        store=services.store,
        settings=services.settings,
        owner=owner,
        is_all=is_all,
        phase=phase,
        limit=limit,
    )
    return ReservationsOut(
        reservations=[shown_reservation(account, snapshot, services) for account in found],
        plan_version=snapshot.plan.version,
        now=snapshot.now,
    )


@router.get("/reservations/{id}")
def show_reservation(id: str, user: Caller, services: Given) -> ReservationOut:
    """Show one reservation."""
    snapshot = services.snapshot()
    return shown_reservation(_account(id, user, services, snapshot), snapshot, services)


@router.get("/reservations/{id}/why")
def explain_reservation(id: str, user: Caller, services: Given) -> WhyOut:
    """Say what keeps a reservation from running now; no reasons while it runs."""
    snapshot = services.snapshot()
    account = _account(id, user, services, snapshot)
    reasons = why(
        snapshot.plan,
        snapshot.facts,
        account.reservation,
        snapshot.now,
        services.settings,
        used_gpu_s=services.plans.shares.used_gpu_s,
        ended_uses=services.plans.ended.seen_from(snapshot.plan),
    )
    return WhyOut(
        id=account.reservation.id,
        phase=account.phase.value,
        promise=shown_promise(account.reservation.promise),
        reasons=shown_reasons(reasons, services),
        wait=_wait(account.reservation.id, services),
        plan_version=snapshot.plan.version,
        now=snapshot.now,
    )


def _wait(reservation: ReservationId, services: Services) -> WaitOut | None:
    told = score(services.store, reservation)
    if told is None:
        return None
    return WaitOut(told_s=told.told_s, likely_s=told.likely_s, waited_s=told.waited_s)


@router.get("/intents/{seq}")
def show_intent(seq: str, user: Caller, services: Given) -> IntentOut:
    """Say what became of what was asked for, when the answer was 202."""
    found = services.store.intent(int(seq)) if _SEQ.fullmatch(seq) else None
    if found is None or not (is_admin(user) or found[0].author == user.name):
        raise unknown("intent", seq, code="intent.unknown", remedy="ask with the number that a 202 answered")
    filed, decided = found
    if decided is None:
        reservation = reservation_id(filed.seq) if filed.intent.kind == "submit" else None
        return IntentOut(intent=filed.seq, status="open", reservation=reservation, reasons=[])
    return IntentOut(
        intent=filed.seq,
        status="accepted" if decided.is_accepted else "refused",
        reservation=decided.reservation,
        reasons=shown_reasons(decided.reasons, services),
    )


@router.post("/reservations/{id}/cancel", responses=ACCEPTED)
def cancel(id: str, user: Caller, services: Given, key: Key = None, body: Nothing | None = None) -> ReservationOut:
    """Give a reservation up; a guest that runs is stopped with grace, its disk is kept."""
    return _change(services, user, Cancel(reservation=_own(id, user, services)), key)


@router.post("/reservations/{id}/stop", responses=ACCEPTED)
def stop(id: str, user: Caller, services: Given, key: Key = None, body: Nothing | None = None) -> ReservationOut:
    """End a reservation that has started; its disk is kept."""
    return _change(services, user, Stop(reservation=_own(id, user, services)), key)


@router.post("/reservations/{id}/restart", responses=ACCEPTED)
def restart(id: str, user: Caller, services: Given, key: Key = None, body: Nothing | None = None) -> ReservationOut:
    """Start again a guest that shut itself down, within its own time."""
    return _change(services, user, Restart(reservation=_own(id, user, services)), key)


@router.post("/reservations/{id}/extend", responses=ACCEPTED)
def extend(id: str, body: ExtendIn, user: Caller, services: Given, key: Key = None) -> ReservationOut:
    """Give a reservation more hours, if nobody is in the way."""
    return _change(services, user, Extend(reservation=_own(id, user, services), by_s=body.by_s), key)


@router.post("/reservations/{id}/start", status_code=201, responses=ACCEPTED)
def start(
    id: str, user: Caller, services: Given, answer: Response, key: Key = None, body: StartIn | None = None
) -> ReservationOut:
    """Reserve anew with the disk of an ended reservation: the same size, for the time left or the time given."""
    account = _account(id, user, services, services.snapshot())
    ended = account.reservation
    run_s = None if body is None else body.run_s
    if run_s is None:
        run_s = run_left_s(ended, delivered_s=account.delivered_s, settings=services.settings)
        if run_s == 0:
            message = f"all hours of {ended.id} were delivered; say for how long it shall go on (run_s)"
            raise Problem(409, "reservation.nothing_left", message)
    made = _submit(services, user, ask_to_go_on(ended, run_s=run_s), key)
    answer.headers["Location"] = f"{PREFIX}/reservations/{made.id}"
    return made


def _submit(services: Services, user: User, ask: Ask, key: str | None) -> ReservationOut:
    """Ask for a reservation, and show what was made of it."""
    decided = file_and_wait(services, user, Submit(ask=ask), key=key)
    assert decided.reservation is not None
    if not decided.is_accepted:
        # The record of what was refused is kept, and can be looked at.
        reasons = _with_taker_of_disk(decided.reasons, ask, user, services)
        raise refused(reasons, members={"reservation": decided.reservation})
    return _shown(decided.reservation, user, services)


def _with_taker_of_disk(reasons: tuple[Reason, ...], ask: Ask, user: User, services: Services) -> tuple[Reason, ...]:
    """Say who has the disk that is not kept for another, where it went on with a later reservation."""
    if ask.continues is None or reasons[0].code is not ReasonCode.DISK_NOT_KEPT:
        return reasons
    snapshot = services.snapshot()
    account = _account(ask.continues, user, services, snapshot)
    taker = taker_of_disk(account.reservation, snapshot)
    if taker is None:
        return reasons
    phase = f"{account.phase.value}, and its disk went on with {taker}"
    return (reason(ReasonCode.WRONG_PHASE, reservation=ask.continues, phase=phase, what="continued"), *reasons[1:])


def _change(services: Services, user: User, intent: Change, key: str | None) -> ReservationOut:
    """File what somebody wants of a reservation that is theirs, and show the reservation after it."""
    decided = file_and_wait(services, user, intent, key=key)
    if not decided.is_accepted:
        reasons = decided.reasons
        if reasons[0].code is ReasonCode.UNKNOWN_RESERVATION:
            # The plan has let go of it, since nothing of it is left on any host; it is known all the same.
            phase = _account(intent.reservation, user, services, services.snapshot()).phase.value
            what = _DONE[intent.kind]
            reasons = (reason(ReasonCode.WRONG_PHASE, reservation=intent.reservation, phase=phase, what=what),)
        raise refused(reasons)
    return _shown(intent.reservation, user, services)


def _shown(id: ReservationId, user: User, services: Services) -> ReservationOut:
    snapshot = services.snapshot()
    return shown_reservation(_account(id, user, services, snapshot), snapshot, services)


def _own(id: str, user: User, services: Services) -> ReservationId:
    """Return the id of a reservation that a user may act on; nothing is filed about any other."""
    if _is_being_planned(id, user, services):
        # What is asked of it now is decided after it, in order.
        return ReservationId(id)
    return _account(id, user, services, services.snapshot()).reservation.id


def _account(id: str, user: User, services: Services, snapshot: Snapshot) -> Account:
    found = None
    if re.fullmatch(RESERVATION_PATTERN, id, re.ASCII):
        found = account_of(ReservationId(id), snapshot=snapshot, store=services.store, settings=services.settings)
        if found is None:
            if _is_being_planned(id, user, services):
                message = f"{id} is being planned; look again in a moment"
                raise Problem(404, "reservation.being_planned", message, is_retryable=True)
            # It may have been decided between the two looks.
            found = account_of(ReservationId(id), snapshot=snapshot, store=services.store, settings=services.settings)
    if found is None or not may_see(found.reservation, user):
        raise unknown_reservation(id)
    return found


def _is_being_planned(id: str, user: User, services: Services) -> bool:
    """Whether it is theirs and filed, but not decided yet: what a 202 was answered for."""
    match = re.fullmatch(r"r-([1-9][0-9]{0,17})", id, re.ASCII)
    found = None if match is None else services.store.intent(int(match[1]))
    if found is None or found[1] is not None:
        return False
    intent = found[0].intent
    return isinstance(intent, Submit) and (is_admin(user) or intent.ask.owner == user.name)
