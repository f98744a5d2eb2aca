"""From a body that asks for something to the ask that is filed or quoted; whose it may be is decided here."""

from api.identity import is_admin
from api.problems import FieldProblem, forbidden, invalid, unknown
from api.schemas import AskIn
from api.services import Services
from scheduler.core.plan import Reservation
from scheduler.core.requests import Ask, AtBoundary, ReservationId
from scheduler.core.spans import utc_text
from scheduler.service.asks import Wish, complete
from scheduler.store.accounts import User


def ask_of(body: AskIn, user: User, services: Services) -> Ask:
    """Return the ask that a body amounts to; raises Problem for what is missing or is not theirs."""
    if body.owner not in (None, user.name) and not is_admin(user):
        raise forbidden("reserve for somebody else")
    if body.at is not None and (body.not_before_at is not None or body.start_by_at is not None):
        other = "not_before_at" if body.not_before_at is not None else "start_by_at"
        raise invalid(FieldProblem(field="at", problem=f"it sets {other} too; give one of them"))
    if body.ssh_key is not None and "PRIVATE KEY" in body.ssh_key:
        problem = "this is a private key, which is nobody else's business; send the line in the .pub file beside it"
        raise invalid(FieldProblem(field="ssh_key", problem=problem))
    like = None if body.like is None else reservation_named(body.like, user, services)
    if body.continues is not None:
        reservation_named(body.continues, user, services)
    wish = Wish(
        owner=body.owner or user.name,
        gpus=body.gpus,
        run_s=body.run_s,
        queue=body.queue,
        not_before_at=body.at if body.at is not None else body.not_before_at,
        start_by_at=body.at if body.at is not None else body.start_by_at,
        at_boundary=None if body.at_night is None else AtBoundary(body.at_night),
        image=body.image,
        disk_gib=body.disk_gib,
        memory_gib=body.memory_gib,
        vcpus=body.vcpus,
        ssh_key=body.ssh_key,
        continues=None if body.continues is None else ReservationId(body.continues),
    )
    ask = complete(wish, services.plans.current(), like=like)
    if isinstance(ask, tuple):
        raise invalid(*(FieldProblem(field=name, problem="it is missing; give it, or `like`") for name in ask))
    return ask


def body_of(ask: Ask) -> dict[str, str | int]:
    """Return the body that amounts to an ask, without a key: whoever asks for it puts in their own."""
    is_at = ask.not_before_at is not None and ask.not_before_at == ask.start_by_at
    body: dict[str, str | int | None] = {
        "gpus": ask.gpus,
        "run_s": ask.run_s,
        "queue": ask.queue,
        "at": utc_text(ask.not_before_at).replace(" ", "T") if is_at and ask.not_before_at is not None else None,
        "not_before_at": None if is_at or ask.not_before_at is None else utc_text(ask.not_before_at).replace(" ", "T"),
        "start_by_at": None if is_at or ask.start_by_at is None else utc_text(ask.start_by_at).replace(" ", "T"),
        "at_night": None if ask.at_boundary is None else ask.at_boundary.value,
        "image": ask.image,
        "disk_gib": ask.disk_gib,
        "memory_gib": ask.memory_gib,
        "vcpus": ask.vcpus,
        "continues": ask.continues,
    }
    return {name: value for name, value in body.items() if value is not None}


def reservation_named(name: str, user: User, services: Services) -> Reservation:
    """Return a reservation that a user may see; raises Problem for any other, as for one that is not there."""
    found = services.plans.current().reservations.get(ReservationId(name))
    if found is None:
        found = services.store.reservation(ReservationId(name))
    if found is None or not may_see(found, user):
        raise unknown_reservation(name)
    return found


def unknown_reservation(name: str) -> Exception:
    remedy = "list yours to see what there is"
    return unknown("reservation", name, code="reservation.unknown", remedy=remedy)


def may_see(reservation: Reservation, user: User) -> bool:
    return is_admin(user) or reservation.request.owner == user.name
