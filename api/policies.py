"""Policies: which are and were applied, what is wrong with a text, what it would change, and applying one.

Read by all; tried, applied and rolled back by admins.
"""

import re
from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.identity import Admin, Caller
from api.problems import Problem, refused, unknown
from api.schemas import (
    BookingChangeOut,
    BookingSpanOut,
    BrokenPromiseOut,
    OverriddenOut,
    PoliciesOut,
    PolicyAppliedOut,
    PolicyApplyIn,
    PolicyCheckedOut,
    PolicyDiffOut,
    PolicyIn,
    PolicyProblemOut,
    PolicyRemarksIn,
    PolicyVersionOut,
    PolicyWithTextOut,
    WatchIn,
    WatchOut,
    WindowChangeOut,
)
from api.services import Given, Services
from api.showing import shown_promise, shown_reasons
from api.writing import ACCEPTED, PREFIX, Key, file_and_wait
from policies.applying import CheckedPolicy, apply_to_plan, check_text
from policies.problems import Problem as PolicyProblem
from scheduler.core.intents import ApplyPolicy, Intent
from scheduler.core.planner.causes import was_overridden_by
from scheduler.core.planner.policy_diff import BookingChange, PolicyDiff, policy_diff
from scheduler.core.planner.window_changes import WindowChange
from scheduler.core.reasons import ReasonCode
from scheduler.service.policy_versions import policy_history
from scheduler.service.policy_watches import Watch, WatchState, report_watch
from scheduler.store.accounts import User
from scheduler.store.plans import PolicyRecord

router = APIRouter(tags=["policies"])

MOST_TRIES = 3
"""How often windows are made anew because another policy or host came first."""
_CAME_FIRST = frozenset({ReasonCode.POLICY_STALE, ReasonCode.POLICY_MISSES_HOSTS})
_VERSION = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
MOST_VERSIONS = 500
"""So many versions are listed at once."""


@router.get("/policies")
def list_policies(
    user: Caller, services: Given, limit: Annotated[int, Query(ge=1, le=MOST_VERSIONS)] = 50
) -> PoliciesOut:
    """List the versions that were applied with the names of their files, newest first."""
    current = _current(services)
    return PoliciesOut(
        current=current,
        policies=[
            PolicyVersionOut(
                version=one.version,
                applied_at=one.applied_at,
                author=one.author,
                is_current=one.version == current,
                source=one.source,
                message=one.note.message,
                override=one.note.override or None,
                made_with=dict(one.note.made_with),
                same_text_as=one.same_text_as,
            )
            for one in policy_history(services.store, most=limit)
        ],
    )


@router.get("/policies/{version}")
def show_policy(version: str, user: Caller, services: Given) -> PolicyWithTextOut:
    """Show one applied version with its text."""
    record = _record(version, services)
    return PolicyWithTextOut(
        version=record.version,
        applied_at=record.applied_at,
        author=record.author,
        is_current=record.version == _current(services),
        source=record.rules.source,
        message=record.note.message,
        override=record.note.override or None,
        made_with=dict(record.note.made_with),
        text=record.text,
    )


@router.post("/policies/check")
def check_policy(body: PolicyIn, user: Admin, services: Given) -> PolicyCheckedOut:
    """Say what is wrong with a policy; nothing is applied."""
    checked = _checked(body.text, body.source, services)
    return PolicyCheckedOut(ok=checked.policy is not None, problems=_shown(checked.problems))


@router.post("/policies/diff")
def diff_policy(body: PolicyIn, user: Admin, services: Given) -> PolicyDiffOut:
    """Say what applying a policy now would change; nothing is applied."""
    checked = _checked(body.text, body.source, services)
    if checked.policy is None:
        raise _invalid(checked)
    seen = services.snapshot()
    intent = apply_to_plan(checked.policy, seen.plan, now=seen.now, settings=services.settings)
    found = policy_diff(
        seen.plan,
        seen.facts,
        intent,
        seen.now,
        settings=services.settings,
        profiles=services.profiles,
        likely_wait_s=services.plans.waits.likely_wait_s,
        used_gpu_s=services.plans.shares.used_gpu_s,
        ended_uses=services.plans.ended.seen_from(seen.plan),
    )
    return _diff_out(found, checked, _current(services), services)


@router.post("/policies", status_code=201, responses=ACCEPTED)
def apply_policy(
    body: PolicyApplyIn, user: Admin, services: Given, answer: Response, key: Key = None
) -> PolicyAppliedOut:
    """Apply a policy: all of it, or nothing."""
    return _apply(body, user, services, answer, key)


@router.post("/policies/{version}/rollback", status_code=201, responses=ACCEPTED)
def roll_back(
    version: str, user: Admin, services: Given, answer: Response, key: Key = None, body: PolicyRemarksIn | None = None
) -> PolicyAppliedOut:
    """Apply the text of an earlier version as a new one: all of it, or nothing."""
    record = _record(version, services)
    if record.version == _current(services):
        raise Problem(409, "policy.is_current", f"policy version {record.version} holds already; name an earlier one")
    remarks = body or PolicyRemarksIn()
    source = record.rules.source or "policy.yaml"
    again = PolicyApplyIn.model_construct(
        text=record.text, source=source, message=remarks.message, override=remarks.override
    )
    return _apply(again, user, services, answer, key)


@router.post("/policies/watches")
def report(body: WatchIn, user: Admin, services: Given) -> WatchOut:
    """Keep what somebody says who watches policy files: that they are applied, or why not. Nothing is applied."""
    problem = " ".join((body.problem or "").split())
    watch = Watch(name=body.name, state=WatchState(body.state), problem=problem)
    report_watch(services.store, services.clock, watch, actor=user.name, version=_current(services) or 0)
    return WatchOut(name=body.name, problem=problem or None)


def _record(version: str, services: Services) -> PolicyRecord:
    record = services.store.policy(int(version)) if _VERSION.fullmatch(version) else None
    if record is None:
        remedy = "list the policies to see which were applied"
        raise unknown("policy version", version, code="policy.unknown", remedy=remedy)
    return record


def _apply(body: PolicyApplyIn, user: User, services: Services, answer: Response, key: str | None) -> PolicyAppliedOut:
    message, override = body.message.strip(), (body.override or "").strip()

    def is_same(filed: Intent) -> bool:
        return isinstance(filed, ApplyPolicy) and (
            (filed.text, filed.rules.source, filed.note.message, filed.note.override)
            == (body.text, body.source, message, override)
        )

    checked = _checked(body.text, body.source, services)
    if checked.policy is None:
        raise _invalid(checked)
    for number in range(MOST_TRIES):
        plan = services.plans.current()
        intent = apply_to_plan(
            checked.policy,
            plan,
            now=services.clock.now(),
            settings=services.settings,
            message=message,
            override=override,
        )
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
        source=applied.rules.source,
        message=applied.note.message,
        override=applied.note.override or None,
        made_with=dict(applied.note.made_with),
        problems=_shown(checked.problems),
        overridden=_overridden(version, services),
    )


def _overridden(version: int, services: Services) -> list[OverriddenOut]:
    """Return those whose promise a version broke, as far as they are not over yet."""
    seen = services.snapshot()
    return [
        OverriddenOut(
            reservation=one.id,
            owner=one.request.owner,
            promise=shown_promise(one.promise),
            has_place=any(span.end_at > seen.now for span in one.spans),
        )
        for one in seen.plan.reservations.values()
        if one.outcome is None and was_overridden_by(one, version)
    ]


def _checked(text: str, source: str, services: Services) -> CheckedPolicy:
    return check_text(
        text,
        source=source,
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


def _diff_out(found: PolicyDiff, checked: CheckedPolicy, current: int | None, services: Services) -> PolicyDiffOut:
    return PolicyDiffOut(
        current=current,
        plan_version=found.plan_version,
        now=found.now,
        until_at=found.until_at,
        is_empty=found.is_empty,
        is_refused=found.is_refused,
        rules=list(found.rules),
        windows=[_window_out(change) for change in found.windows],
        bookings=[_booking_out(change) for change in found.bookings],
        broken=[
            BrokenPromiseOut(
                reservation=one.reservation,
                owner=one.owner,
                reason=why,
                promise=shown_promise(one.promise),
                after=shown_promise(one.after),
            )
            for one, why in zip(found.broken, shown_reasons([one.why for one in found.broken], services), strict=True)
        ],
        is_broken_complete=found.is_broken_complete,
        reasons=shown_reasons(found.refusals, services),
        owners_hit=list(found.owners_hit),
        problems=_shown(checked.problems),
    )


def _window_out(change: WindowChange) -> WindowChangeOut:
    before, after = change.before, change.after
    return WindowChangeOut(
        name=change.name,
        hosts=list(change.hosts),
        before_start_at=None if before is None else before.start_at,
        before_end_at=None if before is None else before.end_at,
        after_start_at=None if after is None else after.start_at,
        after_end_at=None if after is None else after.end_at,
        start_moves_s=None if before is None or after is None else after.start_at - before.start_at,
        end_moves_s=None if before is None or after is None else after.end_at - before.end_at,
        differs=list(change.differs),
    )


def _booking_out(change: BookingChange) -> BookingChangeOut:
    return BookingChangeOut(
        reservation=change.reservation,
        owner=change.owner,
        gpus=change.gpus,
        promise=shown_promise(change.promise),
        before=[BookingSpanOut(start_at=s.start_at, end_at=s.end_at, host=s.host) for s in change.before],
        after=[BookingSpanOut(start_at=s.start_at, end_at=s.end_at, host=s.host) for s in change.after],
        start_moves_s=change.start_moves_s,
        end_moves_s=change.end_moves_s,
    )
