"""Quote: what would be promised, and what is likely, if this were asked for now. Reads only; books nothing."""

from scheduler.core.bounds import Estimates, percentile
from scheduler.core.planner.explaining import Quote, quote
from scheduler.core.requests import Ask
from scheduler.core.settings import Settings
from scheduler.service.plan_cache import PlanCache
from scheduler.service.ports import Clock
from scheduler.store.store import Store

MEASURED = 100
"""How many of the latest starts of a size an estimate is made of."""


def quote_ask(
    ask: Ask, *, store: Store, plans: PlanCache, clock: Clock, settings: Settings, most_alternatives: int = 0
) -> Quote:
    """Return the quote for an ask on the plan as it is now; the answer names the plan's version."""
    p95_s = percentile(store.measurements("start", gpus=ask.gpus, limit=MEASURED), 0.95)
    estimates = Estimates(start_p95_s={} if p95_s is None else {ask.gpus: p95_s})
    plan = plans.current()
    return quote(
        plan,
        store.load_all_facts(),
        ask,
        clock.now(),
        settings,
        estimates,
        most_alternatives=most_alternatives,
        likely_wait_s=plans.waits.likely_wait_s,
        ended_uses=plans.ended.seen_from(plan),
    )
