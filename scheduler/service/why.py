"""Why: what keeps a reservation from running now, as reasons. Reads only."""

from scheduler.core.errors import NightshiftError
from scheduler.core.planner.explaining import why
from scheduler.core.reasons import Reason
from scheduler.core.requests import ReservationId
from scheduler.core.settings import Settings
from scheduler.service.plan_cache import PlanCache
from scheduler.service.ports import Clock
from scheduler.store.store import Store


class UnknownReservation(NightshiftError):
    """There is no reservation of that id."""

    code = "reservation.unknown"


def why_waits(
    reservation_id: ReservationId, *, store: Store, plans: PlanCache, clock: Clock, settings: Settings
) -> tuple[Reason, ...]:
    """Return the reasons; empty only while the guest runs. Raises UnknownReservation."""
    plan = plans.current()
    reservation = plan.reservations.get(reservation_id) or store.reservation(reservation_id)
    if reservation is None:
        raise UnknownReservation(f"there is no reservation {reservation_id}; list yours to see what there is")
    return why(plan, store.load_all_facts(), reservation, clock.now(), settings)
