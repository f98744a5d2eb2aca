"""Policies: which are and were applied, what is wrong with a text, and applying one. Read by all, applied by admins."""

import re

from fastapi import APIRouter, Response

from api.identity import Admin, Caller
from api.problems import Problem, refused, unknown
from api.schemas import (
    PoliciesOut,
    PolicyAppliedOut,
    PolicyCheckedOut,
    PolicyIn,
    PolicyOut,
    PolicyProblemOut,
    PolicyWithTextOut,
)
from api.services import Given, Services
from api.writing import ACCEPTED, PREFIX, Key, file_and_wait
from policies.applying import CheckedPolicy, apply_to_plan, check_text
from policies.problems import Problem as PolicyProblem
from scheduler.core.intents import ApplyPolicy, Intent
from scheduler.core.reasons import ReasonCode

router = APIRouter(tags=["policies"])

MOST_TRIES = 3
"""How often windows are made anew because another policy or host came first."""
_CAME_FIRST = frozenset({ReasonCode.POLICY_STALE, ReasonCode.POLICY_MISSES_HOSTS})
_VERSION = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


@router.get("/policies")
def list_policies(user: Caller, services: Given) -> PoliciesOut:
    """List the versions that were applied, newest first."""
    current = _current(services)
    return PoliciesOut(
        current=current,
        policies=[
            PolicyOut(
                version=applied.version,
                applied_at=applied.applied_at,
                author=applied.author,
                is_current=applied.version == current,
            )
            for applied in services.store.policies()
        ],
    )


@router.get("/policies/{version}")
def show_policy(version: str, user: Caller, services: Given) -> PolicyWithTextOut:
    """Show one applied version with its text."""
    record = services.store.policy(int(version)) if _VERSION.fullmatch(version) else None
    if record is None:
        remedy = "list the policies to see which were applied"
        raise unknown("policy version", version, code="policy.unknown", remedy=remedy)
    return PolicyWithTextOut(
        version=record.version,
        applied_at=record.applied_at,
        author=record.author,
        is_current=record.version == _current(services),
        text=record.text,
    )


@router.post("/policies/check")
def check_policy(body: PolicyIn, user: Admin, services: Given) -> PolicyCheckedOut:
    """Say what is wrong with a policy; nothing is applied."""
    checked = _checked(body, services)
    return PolicyCheckedOut(ok=checked.policy is not None, problems=_shown(checked.problems))


@router.post("/policies", status_code=201, responses=ACCEPTED)
def apply_policy(body: PolicyIn, user: Admin, services: Given, answer: Response, key: Key = None) -> PolicyAppliedOut:
    """Apply a policy: all of it, or nothing."""

    def is_same(filed: Intent) -> bool:
        return isinstance(filed, ApplyPolicy) and (filed.text, filed.rules.source) == (body.text, body.source)

    checked = _checked(body, services)
    if checked.policy is None:
        raise _invalid(checked)
    for number in range(MOST_TRIES):
        plan = services.plans.current()
        intent = apply_to_plan(checked.policy, plan, now=services.clock.now(), settings=services.settings)
        numbered = key if key is None or number == 0 else f"{key}#{number}"
        decided = file_and_wait(services, user, intent, key=numbered, is_same=is_same)
        if decided.is_accepted:
            return _applied(decided.seq, checked, services, answer)
        if decided.reasons[0].code not in _CAME_FIRST:
            raise refused(decided.reasons)
    message = "other policies or hosts came first again and again; try again"
    raise Problem(503, "policy.stale", message, is_retryable=True, headers={"Retry-After": "1"})


def _applied(seq: int, checked: CheckedPolicy, services: Services, answer: Response) -> PolicyAppliedOut:
    # By the intent that was decided: the answer to a repeated request is about the first one's version.
    found = services.store.intent(seq)
    assert found is not None
    applied = found[0].intent
    assert isinstance(applied, ApplyPolicy)
    version = applied.rules.version
    record = services.store.policy(version)
    assert record is not None
    answer.headers["Location"] = f"{PREFIX}/policies/{version}"
    return PolicyAppliedOut(
        version=version,
        applied_at=record.applied_at,
        author=found[0].author,
        is_current=version == _current(services),
        problems=_shown(checked.problems),
    )


def _checked(body: PolicyIn, services: Services) -> CheckedPolicy:
    return check_text(
        body.text,
        source=body.source,
        now=services.clock.now(),
        settings=services.settings,
        hosts=services.plans.current().hosts.values(),
    )


def _invalid(checked: CheckedPolicy) -> Problem:
    first = checked.problems[0]
    more = f" (and {len(checked.problems) - 1} more)" if len(checked.problems) > 1 else ""
    problems = [problem.model_dump() for problem in _shown(checked.problems)]
    return Problem(422, "policy.invalid", f"{first}{more}", members={"problems": problems})


def _shown(problems: tuple[PolicyProblem, ...]) -> list[PolicyProblemOut]:
    return [
        PolicyProblemOut(
            file=problem.place.file,
            line=problem.place.line,
            column=problem.place.column,
            severity=problem.severity.value,
            message=problem.message,
        )
        for problem in problems
    ]


def _current(services: Services) -> int | None:
    rules = services.plans.current().rules
    return None if rules is None else rules.version
