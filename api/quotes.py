"""Quotes and what is free: what would be promised, without booking it."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.asking import ask_of, body_of
from api.identity import Caller
from api.schemas import MOST_S, AlternativeOut, AskIn, FreeOut, FreeSizeOut, QuoteOut
from api.services import Given
from api.showing import shown_promise, shown_reasons, shown_spans
from scheduler.core.planner.alternatives import MOST as MOST_ALTERNATIVES
from scheduler.core.planner.alternatives import Alternative
from scheduler.core.spans import HOUR_S
from scheduler.service.free import free_sizes
from scheduler.service.quote import quote_ask

router = APIRouter(tags=["quotes"])


@router.post("/quotes")
def quote(body: AskIn, user: Caller, services: Given) -> QuoteOut:
    """Say what a reservation would be promised if it were asked for now, or why not."""
    ask = ask_of(body, user, services)
    told = quote_ask(
        ask,
        store=services.store,
        plans=services.plans,
        clock=services.clock,
        settings=services.settings,
        most_alternatives=MOST_ALTERNATIVES,
    )
    return QuoteOut(
        promise=shown_promise(told.promise),
        likely_start_at=told.likely_start_at,
        gpu_hours=None if told.promise is None else told.gpu_s / HOUR_S,
        spans=shown_spans(told.spans, services.snapshot()),
        reasons=shown_reasons(told.reasons, services),
        alternatives=[_shown(other) for other in told.alternatives],
        plan_version=told.plan_version,
    )


def _shown(other: Alternative) -> AlternativeOut:
    promise = shown_promise(other.promise)
    assert promise is not None
    return AlternativeOut(
        change=other.change.value,
        ask=body_of(other.ask),
        gpu_hours=other.gpu_s / HOUR_S,
        promise=promise,
    )


@router.get("/free")
def free(
    user: Caller,
    services: Given,
    run_s: Annotated[int, Query(ge=1, le=MOST_S, description="For how long.")] = HOUR_S,
) -> FreeOut:
    """Say of each size how many partitions are free now, and what would be promised."""
    snapshot = services.snapshot()
    sizes = free_sizes(
        owner=user.name,
        run_s=run_s,
        snapshot=snapshot,
        store=services.store,
        plans=services.plans,
        clock=services.clock,
        settings=services.settings,
    )
    return FreeOut(
        now=snapshot.now,
        plan_version=snapshot.plan.version,
        sizes=[
            FreeSizeOut(
                gpus=size.gpus,
                queue=size.queue,
                free_now=size.free_now,
                promise=shown_promise(size.quote.promise),
                likely_start_at=size.quote.likely_start_at,
                reasons=shown_reasons(size.quote.reasons, services),
            )
            for size in sizes
        ],
    )
