"""Demand: all that was asked for, and how long it ran; what policies are tried with. For admins."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.identity import Admin
from api.instants import InstantIn
from api.schemas import RESERVATION_PATTERN, DemandOut, WantedOut
from api.services import Given
from scheduler.core.requests import ReservationId
from scheduler.service.listing import asked_since

router = APIRouter(tags=["policies"])

MOST_LISTED = 1000


@router.get("/demand")
def demand(
    user: Admin,
    services: Given,
    since: Annotated[InstantIn, Query(description="From when on.")],
    after: Annotated[
        str | None,
        Query(pattern=RESERVATION_PATTERN, description="Only what came after it: `next` of the page before."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = MOST_LISTED,
) -> DemandOut:
    """List what was asked for, oldest first, and how long its guests ran by now."""
    snapshot = services.snapshot()
    found = asked_since(
        since,
        snapshot=snapshot,
        store=services.store,
        settings=services.settings,
        after=None if after is None else ReservationId(after),
        limit=limit,
    )
    requests = [(one.reservation.request, one) for one in found]
    return DemandOut(
        requests=[
            WantedOut(
                id=request.id,
                owner=request.owner,
                queue=request.queue,
                gpus=request.gpus,
                run_s=request.run_s,
                submitted_at=request.submitted_at,
                not_before_at=request.not_before_at,
                asked_start_by_at=request.start_by_at,
                disk_gib=request.disk_gib,
                by_policy=None if request.key is None else request.key.partition("@")[0],
                outcome=None if one.reservation.outcome is None else one.reservation.outcome.value,
                ran_s=one.delivered_s,
            )
            for request, one in requests
        ],
        next=found[-1].reservation.id if len(found) == limit else None,
        now=snapshot.now,
    )
