"""Problems: every no and every failure as one `application/problem+json` document (RFC 9457), in one place.

input that is not understood    400, 413, 415, 422 request.invalid, with the fields
a no of planning                403, 404, 409 by its first reason, else 422 request.refused; with all reasons
trouble of ours                 503 with Retry-After where trying again helps, else 500
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from api.instants import LAST_AT, instant_text
from scheduler.core.errors import NightshiftError
from scheduler.core.reasons import Reason, ReasonCode, sentence
from scheduler.core.spans import Instant
from scheduler.store.failures import Unstorable

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1

_CONFLICTS = frozenset(
    {
        ReasonCode.WRONG_PHASE,
        ReasonCode.HOST_EXISTS,
        ReasonCode.HOST_IN_USE,
        ReasonCode.POLICY_STALE,
        ReasonCode.POLICY_MISSES_HOSTS,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldProblem:
    """What is wrong with one field of a request."""

    field: str
    problem: str
    value: str | None = None
    """What was seen, cut when long; None when something is missing."""

    def as_json(self) -> dict[str, object]:
        return {"field": self.field, "problem": self.problem, "value": self.value}


class Problem(NightshiftError):
    """Ends a request with a problem document."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        is_retryable: bool = False,
        reasons: Sequence[Reason] = (),
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.retryable = is_retryable
        self.reasons = tuple(reasons)
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.members = dict(members or {})


def invalid(*errors: FieldProblem) -> Problem:
    """Return the problem of a request whose fields are not acceptable as they are."""
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    seen = "" if first.value is None else f" (seen: {first.value})"
    return Problem(422, "request.invalid", f"{first.field}: {first.problem}{seen}{more}", errors=errors)


def unknown(what: str, name: str, *, code: str, remedy: str) -> Problem:
    """Return the problem of something that is not there, or not for this caller."""
    shown = "".join(character if character.isprintable() else "?" for character in name[:64])
    return Problem(404, code, f"there is no {what} {shown}; {remedy}")


def forbidden(what: str) -> Problem:
    """Return the problem of somebody who is no admin."""
    return Problem(403, ReasonCode.ADMIN_ONLY.value, f"only an admin may {what}; ask one")


def refused(reasons: Sequence[Reason], *, members: Mapping[str, object] | None = None) -> Problem:
    """Return the problem that planning's reasons are; its sentence is made where the zone is known."""
    code = reasons[0].code
    if code.value.startswith("rights."):
        status = 403
    elif code.value.endswith(".unknown"):
        status = 404
    elif code in _CONFLICTS:
        status = 409
    elif code is ReasonCode.DEFECT:
        status = 500
    else:
        return Problem(422, "request.refused", "", reasons=reasons, members=members)
    return Problem(status, code.value, "", reasons=reasons, members=members)


_STATUS_BY_CODE = {
    "user.unknown": 404,
    "token.unknown": 404,
    "user.exists": 409,
    "user.disabled": 409,
    "user.last_admin": 409,
    "token.too_many": 409,
    "user.bad_name": 422,
    "user.bad_role": 422,
    "token.bad_label": 422,
    "policy.unreadable": 409,
}


def problem_of(error: NightshiftError) -> Problem:
    """Translate a failure of ours."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Unstorable):
        return Problem(422, "request.invalid", error.message)
    if error.code in _STATUS_BY_CODE:
        return Problem(_STATUS_BY_CODE[error.code], error.code, error.message)
    if error.retryable:
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        return Problem(503, error.code, error.message, is_retryable=True, headers=headers)
    return Problem(500, error.code, error.message)


def reason_json(why: Reason, show: Callable[[Instant], str]) -> dict[str, object]:
    """Return a reason as data, and as a sentence for people."""
    return {"code": why.code.value, "sentence": sentence(why, show), "facts": facts_json(why)}


def facts_json(why: Reason) -> dict[str, object]:
    """Return a reason's facts; instants as everywhere else."""

    def shown(name: str, value: object) -> object:
        is_instant = name.endswith("_at") and isinstance(value, int) and 0 <= value <= LAST_AT
        return instant_text(value) if is_instant and isinstance(value, int) else value

    return {name: shown(name, value) for name, value in why.facts}


def response(problem: Problem, show: Callable[[Instant], str]) -> JSONResponse:
    """Write a problem."""
    detail = problem.message or (sentence(problem.reasons[0], show) if problem.reasons else "")
    document: dict[str, Any] = {
        "type": f"urn:nightshift:problem:{problem.code}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": " ".join(detail.split()),
        "code": problem.code,
        "retryable": problem.retryable,
    }
    if problem.reasons:
        document["reasons"] = [reason_json(why, show) for why in problem.reasons]
    if problem.errors:
        document["errors"] = [error.as_json() for error in problem.errors]
    document.update(problem.members)
    return JSONResponse(document, status_code=problem.status, headers=problem.headers, media_type=MEDIA_TYPE)
