"""How things are: that the API answers, who asks and what time it is here, and what is broken."""

from fastapi import APIRouter

from api.identity import Admin, Caller
from api.schemas import CheckOut, DoctorOut, MeOut, StatusOut
from api.services import Given, Services, installed_version
from scheduler.service.doctor import Check, diagnose, gather

router = APIRouter(tags=["status"])


@router.get("/status")
def status(services: Given) -> StatusOut:
    """Say that the API and its database answer. Needs no token."""
    services.store.plan_version()
    return StatusOut(ok=True, version=installed_version())


@router.get("/me")
def me(user: Caller, services: Given) -> MeOut:
    """Say who asks, and what the server's time and zone are."""
    services.plans.current()
    return MeOut(
        name=user.name,
        role=user.role.value,
        zone=services.zone().key,
        now=services.clock.now(),
        speed=services.speed(),
        version=installed_version(),
    )


@router.get("/doctor")
def doctor(user: Admin, services: Given) -> DoctorOut:
    """Check every part, causes before what they cause."""
    return DoctorOut(
        checks=[
            CheckOut(name=check.name, ok=check.is_ok, detail=check.detail, remedy=check.remedy)
            for check in look(services)
        ]
    )


def look(services: Services) -> tuple[Check, ...]:
    """Check every part."""
    return diagnose(
        gather(
            store=services.store,
            clock=services.clock,
            plans=services.plans,
            known_facts=services.known_facts,
            speed=services.speed(),
            redis_problem=services.redis_ping(),
        )
    )
