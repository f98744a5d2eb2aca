"""The calendar: GPUs × time, with windows. Students see that others are there, and not who."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.identity import Caller, is_admin
from api.instants import LAST_AT, InstantIn, instant_text
from api.problems import FieldProblem, invalid
from api.schemas import CalendarBookingOut, CalendarHostOut, CalendarOut, CalendarWindowOut
from api.services import Given
from scheduler.core.facts import HostFacts
from scheduler.core.spans import DAY_S, HOUR_S
from scheduler.service.calendar import LONGEST_S, CalendarEntry, calendar_between
from scheduler.service.snapshot import Snapshot
from scheduler.store.accounts import User

router = APIRouter(tags=["calendar"])

BEFORE_S = 2 * HOUR_S
LENGTH_S = 2 * DAY_S


@router.get("/calendar")
def calendar(
    user: Caller,
    services: Given,
    from_at: Annotated[InstantIn | None, Query()] = None,
    until_at: Annotated[InstantIn | None, Query()] = None,
) -> CalendarOut:
    """Show bookings and windows of a stretch of time, two days from two hours ago if not told otherwise."""
    snapshot = services.snapshot()
    first_at = from_at if from_at is not None else snapshot.now - BEFORE_S
    if from_at is None and until_at is not None and until_at <= first_at:
        first_at = max(0, until_at - LENGTH_S)
    last_at = until_at if until_at is not None else min(first_at + LENGTH_S, LAST_AT)
    if not first_at < last_at <= first_at + LONGEST_S:
        problem = f"it has to be after {instant_text(first_at)}, by at most {LONGEST_S // DAY_S} days"
        raise invalid(FieldProblem(field="until_at", problem=problem, value=instant_text(last_at)))
    view = calendar_between(
        from_at=first_at, until_at=last_at, snapshot=snapshot, plans=services.plans, store=services.store
    )
    return CalendarOut(
        now=snapshot.now,
        zone=services.zone().key,
        from_at=first_at,
        until_at=last_at,
        plan_version=snapshot.plan.version,
        hosts=_hosts(snapshot),
        windows=[
            CalendarWindowOut(
                id=window.id,
                name=window.name,
                layout=window.layout.name,
                hosts=sorted(window.hosts),
                start_at=window.start_at,
                end_at=window.end_at,
                state=window.state.value,
                released_from_at=window.released_from_at,
            )
            for window in view.windows
        ],
        bookings=[_booking(entry, user) for entry in view.entries],
    )


def _hosts(snapshot: Snapshot) -> list[CalendarHostOut]:
    return [
        CalendarHostOut(
            id=host.id,
            profile=host.profile.name,
            gpus=len(host.profile.gpus),
            is_drained=host.is_drained,
            gpus_out=sorted(snapshot.facts.get(host.id, HostFacts(host=host.id)).gpus_out_of_plan),
        )
        for _, host in sorted(snapshot.plan.hosts.items())
    ]


def _booking(entry: CalendarEntry, user: User) -> CalendarBookingOut:
    request = entry.reservation.request
    is_mine = request.owner == user.name
    is_named = is_mine or is_admin(user)
    return CalendarBookingOut(
        host=entry.span.host,
        partition=entry.span.partition,
        gpus=list(entry.gpus),
        start_at=entry.span.start_at,
        end_at=entry.span.end_at,
        is_mine=is_mine,
        reservation=request.id if is_named else None,
        owner=request.owner if is_named else None,
        queue=request.queue,
        phase=entry.phase.value,
    )
