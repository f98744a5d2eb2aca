"""Writing: an intent is filed, and its decision waited for. The API changes nothing of the plan in any other way."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Header, Response
from starlette.responses import JSONResponse

from api.problems import Problem, refused
from api.schemas import BeingPlannedOut
from api.services import Services
from scheduler.core.intents import Intent, reservation_id
from scheduler.core.plan import Decided
from scheduler.service.answering import wait_for_decision
from scheduler.store.accounts import User

PREFIX = "/api/v1"

ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"model": BeingPlannedOut, "description": "It is filed, and being planned."}
}
"""What endpoints that file an intent may answer besides."""

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9._~:+/=@#-]+$",
        description="Asked twice under one key is asked once: the answer is the first one's.",
    ),
]


class BeingPlanned(Exception):
    """An intent is filed, and not decided yet."""

    def __init__(self, seq: int, *, is_submit: bool) -> None:
        super().__init__(f"intent {seq} is being planned")
        self.seq = seq
        self.is_submit = is_submit

    def response(self) -> Response:
        """Write the answer: where to look for the decision."""
        reservation = reservation_id(self.seq) if self.is_submit else None
        document = {"intent": self.seq, "status": "being planned", "reservation": reservation}
        return JSONResponse(document, status_code=202, headers={"Location": f"{PREFIX}/intents/{self.seq}"})


def file_and_wait(
    services: Services,
    user: User,
    intent: Intent,
    *,
    key: str | None = None,
    is_same: Callable[[Intent], bool] | None = None,
) -> Decided:
    """File an intent and return its decision, a yes or a no; raises BeingPlanned when it takes longer.

    With a key that this user has used before nothing is filed, and the decision is the earlier one's; `is_same` says
    whether that one asked for the same: it has to be equal, if not told otherwise. Raises Problem when it did not.
    """
    whole_key = None if key is None else f"api/{user.name}/{key}"
    filed = services.desk.file(intent, author=user.name, role=user.role, key=whole_key)
    if not (filed.intent == intent or (is_same is not None and is_same(filed.intent))):
        message = f"the Idempotency-Key {key} was used for another request; use a new one for each request"
        raise Problem(409, "key.reused", message)
    decided = _decision(services, filed.seq)
    if decided is None:
        raise BeingPlanned(filed.seq, is_submit=intent.kind == "submit")
    return decided


def _decision(services: Services, seq: int) -> Decided | None:
    """Wait for a decision, unless as many wait already as may: whoever only looks has to be answered meanwhile."""
    is_waiting = services.waiting.acquire(blocking=False)
    try:
        wait_s = services.settings.decision_wait_machine_s if is_waiting else 0.0
        return wait_for_decision(services.desk, seq, wait_machine_s=wait_s)
    finally:
        if is_waiting:
            services.waiting.release()


def decide(services: Services, user: User, intent: Intent, *, key: str | None = None) -> Decided:
    """File an intent and return its decision, which is a yes; raises Problem with the reasons for a no."""
    decided = file_and_wait(services, user, intent, key=key)
    if not decided.is_accepted:
        raise refused(decided.reasons)
    return decided
