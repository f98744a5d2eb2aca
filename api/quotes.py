"""Quotes and what is free: what would be promised, without booking it."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.asking import ask_of
from api.identity import Caller
from api.schemas import MOST_S, AskIn, FreeOut, FreeSizeOut, QuoteOut
from api.services import Given
from api.showing import shown_promise, shown_reasons, shown_spans
from scheduler.core.spans import HOUR_S
from scheduler.service.free import free_sizes
from scheduler.service.quote import quote_ask

router = APIRouter(tags=["quotes"])


@router.post("/quotes")
def quote(body: AskIn, user: Caller, services: Given) -> QuoteOut:
    """Say what a reservation would be promised if it were asked for now, or why not."""
    ask = ask_of(body, user, services)
    told = quote_ask(ask, store=services.store, plans=services.plans, clock=services.clock, settings=services.settings)
    return QuoteOut(
        promise=shown_promise(told.promise),
        likely_start_at=told.likely_start_at,
        spans=shown_spans(told.spans, services.snapshot()),
        reasons=shown_reasons(told.reasons, services),
        plan_version=told.plan_version,
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
