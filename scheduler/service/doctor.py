"""Doctor: which part of Nightshift does not work, since when, and what to do.

`gather` asks the database; `diagnose` looks at nothing itself: pings, heartbeats, plan and facts are handed in as
`Evidence`. What was found broken first is named as the cause of what depends on it, so that whoever reads the list
begins at the right end.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import assert_never

from scheduler.core.errors import NightshiftError
from scheduler.core.facts import OUT_OF_PLAN, UNREACHABLE, HostFacts, TroubleKind
from scheduler.core.plan import Host, Plan
from scheduler.core.requests import HostId
from scheduler.core.spans import DAY_S, Instant, utc_text
from scheduler.service.facts_cache import FactsCache
from scheduler.service.plan_cache import PlanCache
from scheduler.service.planned_windows import Compared, last_compared
from scheduler.service.policy_watches import WatchState, watches
from scheduler.service.ports import Clock
from scheduler.store.heartbeats import Heartbeat
from scheduler.store.store import Store

LATE_AFTER_MACHINE_S = 30.0
"""A part that has not said for so long that it works, works no more: it says so every 5 s, and a tick is 1 s."""
AHEAD_MACHINE_S = 10.0
"""A heartbeat that is so far ahead of our clock was written on a machine with another time."""
UNWATCHED_AFTER_MACHINE_S = 600.0
"""Who watches policy files says so every minute."""
SLOW_DATABASE_S = 0.5
SHORT_HORIZON_S = 7 * DAY_S
"""A policy is carried forward every day; windows known for less than this say that nobody does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    """`database`, `redis`, `ticker`, `worker`, `planning`, `host:<id>`, `host:<id>:<trouble>`, `policy`,
    `watch:<name>` or `clock`."""
    is_ok: bool
    detail: str
    """What was seen, in one line."""
    remedy: str = ""
    """What to do, in one line; empty when it is well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What the database told."""

    ping_s: float
    """How long it took to answer one small query."""
    heartbeats: tuple[Heartbeat, ...]
    plan: Plan
    facts: Mapping[HostId, HostFacts]
    open_intents: int
    """How many intents are not decided yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that a diagnosis is made of."""

    now: Instant
    now_machine_s: float
    speed: float
    """Product seconds in a machine second; 0 when product time stands still."""
    remembered: Remembered | str
    """What the database told; or why it told nothing."""
    redis_problem: str | None
    """Why Redis does not answer; None when it does."""


def gather(
    *, store: Store, clock: Clock, plans: PlanCache, known_facts: FactsCache, speed: float, redis_problem: str | None
) -> Evidence:
    """Ask the database for what a diagnosis is made of; a database that does not answer is evidence too."""
    now, began_machine_s = clock.now(), clock.machine_s()
    remembered: Remembered | str
    try:
        store.plan_version()
        ping_s = max(0.0, clock.machine_s() - began_machine_s)
        remembered = Remembered(
            ping_s=ping_s,
            heartbeats=store.heartbeats(),
            plan=plans.current(),
            facts=known_facts.current()[0],
            open_intents=len(store.open_intents()),
        )
    except NightshiftError as error:
        remembered = error.message
    # Machine time is read again: what was written while we asked is not ahead of us.
    now_machine_s = clock.machine_s()
    return Evidence(
        now=now, now_machine_s=now_machine_s, speed=speed, remembered=remembered, redis_problem=redis_problem
    )


def diagnose(evidence: Evidence) -> tuple[Check, ...]:
    """Check every part, causes before what they cause."""
    checks: list[Check] = []
    for check in _checks(evidence):
        cause = _cause(check, checks)
        checks.append(check if cause is None else _because_of(check, cause))
    return tuple(checks)


_NEEDS: Mapping[str, tuple[str, ...]] = {
    "ticker": ("database",),
    # A worker says that it lives when a message reaches it.
    "worker": ("database", "redis", "ticker"),
    "planning": ("database", "redis", "ticker", "worker"),
    "host": ("database", "redis", "ticker", "worker"),
    "policy": ("database", "planning"),
}
"""What a part cannot work without."""


def _cause(check: Check, before: Iterable[Check]) -> Check | None:
    """Return the first broken part that keeps a broken one from working."""
    if check.is_ok:
        return None
    part, _, of = check.name.partition(":")
    # What troubles a host itself is no matter of who looks at it.
    needs = () if ":" in of else _NEEDS.get(part, ())
    return next((other for other in before if other.name in needs and not other.is_ok), None)


def _because_of(check: Check, cause: Check) -> Check:
    return Check(
        name=check.name, is_ok=False, detail=check.detail, remedy=f"begin with {cause.name}; then: {check.remedy}"
    )


def _checks(evidence: Evidence) -> Iterator[Check]:
    remembered = evidence.remembered
    yield _database(remembered)
    yield _redis(evidence.redis_problem)
    if isinstance(remembered, str):
        for name in ("ticker", "worker", "planning", "policy"):
            yield Check(name=name, is_ok=False, detail="not known without the database", remedy="look again")
        yield _clock(evidence, ())
        return
    now_s = evidence.now_machine_s
    yield _ticker(remembered.heartbeats, now_s)
    yield _worker(remembered.heartbeats, now_s)
    yield _planning(remembered, now_s)
    for _, host in sorted(remembered.plan.hosts.items()):
        facts = remembered.facts.get(host.id)
        yield _host(host, facts, remembered.heartbeats, evidence)
        yield from _troubles(host, facts)
    yield _policy(remembered.plan, evidence.now, last_compared(remembered.heartbeats))
    yield from _watches(remembered, now_s)
    yield _clock(evidence, remembered.heartbeats)


def _database(remembered: Remembered | str) -> Check:
    if isinstance(remembered, str):
        remedy = "is NIGHTSHIFT_DATABASE right, does its server run, has its disk room?"
        return Check(name="database", is_ok=False, detail=f"no answer: {remembered}", remedy=remedy)
    detail = f"answers in {remembered.ping_s * 1000:.0f} ms"
    if remembered.ping_s < SLOW_DATABASE_S:
        return Check(name="database", is_ok=True, detail=detail)
    remedy = "is its disk busy or on a network? every answer and every start waits for it"
    return Check(name="database", is_ok=False, detail=detail, remedy=remedy)


def _redis(problem: str | None) -> Check:
    if problem is None:
        return Check(name="redis", is_ok=True, detail="answers")
    remedy = "is NIGHTSHIFT_REDIS right, does Redis run? logs/redis.log; nothing is lost, work goes on once it is back"
    return Check(name="redis", is_ok=False, detail=f"no answer: {problem}", remedy=remedy)


def _ticker(heartbeats: Iterable[Heartbeat], now_machine_s: float) -> Check:
    latest = _latest(heartbeats, "ticker", now_machine_s)
    return _leg("ticker", latest, now_machine_s, what="tick", remedy="is `nightshift ticker` running? logs/ticker.log")


def _worker(heartbeats: Iterable[Heartbeat], now_machine_s: float) -> Check:
    latest = _latest(heartbeats, "worker", now_machine_s)
    return _leg(
        "worker", latest, now_machine_s, what="sign of life", remedy="is `nightshift worker` running? logs/worker.log"
    )


def _planning(remembered: Remembered, now_machine_s: float) -> Check:
    latest = _latest(remembered.heartbeats, "plan", now_machine_s)
    remedy = "is a `nightshift worker` with --plan running? logs/worker.log"
    check = _leg("planning", latest, now_machine_s, what="run of the plan", remedy=remedy)
    waiting = f", {_count(remembered.open_intents, 'intent')} not decided" if remembered.open_intents else ""
    detail = f"{check.detail}; plan version {remembered.plan.version}{waiting}"
    return Check(name=check.name, is_ok=check.is_ok, detail=detail, remedy=check.remedy)


def _host(host: Host, facts: HostFacts | None, heartbeats: Iterable[Heartbeat], evidence: Evidence) -> Check:
    name = f"host:{host.id}"
    latest = _latest(heartbeats, "host", evidence.now_machine_s, host.id)
    remedy = f"is a `nightshift worker` that reaches {host.id} running (--host {host.id})? logs/worker.log"
    check = _leg(name, latest, evidence.now_machine_s, what="converge", remedy=remedy)
    if not check.is_ok:
        return check
    problem, remedy = _host_problem(host, facts, evidence.now)
    drained = "; drained" if host.is_drained else ""
    told = "" if not problem else f"; {problem}"
    return Check(name=name, is_ok=not problem, detail=f"{check.detail}{drained}{told}", remedy=remedy)


def _troubles(host: Host, facts: HostFacts | None) -> Iterator[Check]:
    """Check the host itself: one for each thing that is wrong with it, or that its worker cannot see."""
    for trouble in () if facts is None else facts.troubles:
        if trouble.code == UNREACHABLE:
            continue
        name = f"host:{host.id}:{trouble.code}"
        match trouble.kind:
            case TroubleKind.WRONG:
                yield Check(name=name, is_ok=False, detail=trouble.problem, remedy=trouble.mend)
            case TroubleKind.UNVERIFIED:
                yield Check(name=name, is_ok=True, detail=f"unverified: {trouble.problem} ({trouble.mend})")
            case _:
                assert_never(trouble.kind)


def _host_problem(host: Host, facts: HostFacts | None, now: Instant) -> tuple[str, str]:
    """Return what is wrong with a host that is being looked at, and what to do; both empty when nothing is."""
    if facts is None or (facts.seen_at is None and facts.unreachable_since_at is None):
        return "not seen yet", "wait for the first look; if none comes, see logs/worker.log"
    if facts.unreachable_since_at is not None:
        since_s = max(0, now - facts.unreachable_since_at)
        known = next((trouble for trouble in facts.troubles if trouble.code == UNREACHABLE), None)
        problem = facts.problem if known is None else known.problem
        said = f": {problem}" if problem else ""
        remedy = f"does {host.id} run, and its libvirt? can the worker log in there?" if known is None else known.mend
        return f"does not answer for {_lasting(since_s)}{said}", remedy
    if facts.problem:
        return facts.problem, f"`nightshift host show {host.id}` tells more"
    out = sorted(fact.gpu for fact in facts.gpus if fact.state in OUT_OF_PLAN)
    if out:
        fact_by_gpu = {fact.gpu: fact for fact in facts.gpus}
        first = fact_by_gpu[out[0]]
        said = f" ({first.state.value}: {first.problem})" if first.problem else f" ({first.state.value})"
        gpus = f"GPU {out[0]} is" if len(out) == 1 else f"GPUs {', '.join(map(str, out))} are"
        return f"{gpus} out of the plan{said}", f"`nightshift host show {host.id}` tells each one's trouble"
    return "", ""


def _policy(plan: Plan, now: Instant, compared: Compared | None) -> Check:
    if plan.rules is None:
        remedy = "`nightshift policy apply FILE`; nothing can be reserved before"
        return Check(name="policy", is_ok=False, detail="none is applied", remedy=remedy)
    detail = f"version {plan.rules.version}, windows known up to {utc_text(plan.horizon_at)}"
    if compared is not None and compared.moved and compared.version == plan.rules.version:
        detail += f"; time zone or holiday data changed: {_count(compared.moved, 'window')} would move"
        remedy = "`nightshift policy diff --applied` says which, `nightshift policy apply --applied` moves them"
        return Check(name="policy", is_ok=False, detail=detail, remedy=remedy)
    if plan.horizon_at - now >= SHORT_HORIZON_S:
        return Check(name="policy", is_ok=True, detail=detail)
    remedy = "windows are carried on by the ticker: is `nightshift ticker` running? logs/ticker.log"
    return Check(name="policy", is_ok=False, detail=detail, remedy=remedy)


def _watches(remembered: Remembered, now_machine_s: float) -> Iterator[Check]:
    """Check the policy files that are watched: whether they are applied, and whether anybody watches them."""
    rules = remembered.plan.rules
    holds = "no policy holds" if rules is None else f"version {rules.version} holds on"
    for watch in watches(remembered.heartbeats):
        name, age_s = f"watch:{watch.name}", max(0.0, now_machine_s - watch.machine_s)
        if watch.state is WatchState.ENDED:
            continue
        if watch.problem:
            remedy = (
                "correct the files, they are applied by themselves then; `nightshift policy check` and `diff` say more"
            )
            yield Check(name=name, is_ok=False, detail=f"not applied, {holds}: {watch.problem}", remedy=remedy)
        elif watch.state is WatchState.WATCHING and age_s > UNWATCHED_AFTER_MACHINE_S:
            remedy = "is `nightshift policy watch` running? what is changed in these files is not applied"
            yield Check(name=name, is_ok=False, detail=f"no sign of life for {_lasting(age_s)}", remedy=remedy)
        else:
            yield Check(name=name, is_ok=True, detail=f"as it holds, last look {_lasting(age_s)} ago")


def _clock(evidence: Evidence, heartbeats: Iterable[Heartbeat]) -> Check:
    ahead = max(heartbeats, key=lambda beat: beat.machine_s, default=None)
    if ahead is not None and ahead.machine_s - evidence.now_machine_s > AHEAD_MACHINE_S:
        ahead_s = ahead.machine_s - evidence.now_machine_s
        detail = f"the machine of {ahead.kind} {ahead.name} is {_lasting(ahead_s)} ahead of this one"
        return Check(name="clock", is_ok=False, detail=detail, remedy="set the clocks of all machines by NTP")
    shown = utc_text(evidence.now)
    if evidence.speed == 0:
        remedy = "it moves only while `nightshift up` runs; start it again"
        return Check(name="clock", is_ok=False, detail=f"time stands still at {shown}", remedy=remedy)
    pace = "" if evidence.speed == 1 else f", {evidence.speed:g} times as fast as real time"
    return Check(name="clock", is_ok=True, detail=f"{shown}{pace}")


def _latest(
    heartbeats: Iterable[Heartbeat], kind: str, now_machine_s: float, name: str | None = None
) -> Heartbeat | None:
    """Return the newest heartbeat of a kind: with several that do the same work, one that lives is enough.

    One that is far ahead may be of before our clock was put back: it counts only where there is no other.
    """
    found = [beat for beat in heartbeats if beat.kind == kind and name in (None, beat.name)]
    of_our_time = [beat for beat in found if beat.machine_s - now_machine_s <= AHEAD_MACHINE_S]
    return max(of_our_time or found, key=lambda beat: beat.machine_s, default=None)


def _leg(name: str, latest: Heartbeat | None, now_machine_s: float, *, what: str, remedy: str) -> Check:
    """Check one part by the age of its last heartbeat."""
    if latest is None:
        return Check(name=name, is_ok=False, detail=f"no {what} in the last day", remedy=remedy)
    age_s = max(0.0, now_machine_s - latest.machine_s)
    said = f" ({latest.detail})" if latest.detail else ""
    if age_s > LATE_AFTER_MACHINE_S:
        return Check(name=name, is_ok=False, detail=f"no {what} for {_lasting(age_s)}{said}", remedy=remedy)
    return Check(name=name, is_ok=True, detail=f"last {what} {_lasting(age_s)} ago{said}")


def _lasting(seconds: float) -> str:
    """Write a duration in the unit that tells it: 74 s, 12 min, 5 h, 3 d."""
    for unit_s, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
