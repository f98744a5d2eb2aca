"""Hosts: what runs on them and what is wrong with them; admins add, connect, drain and undrain them."""

from collections.abc import Iterable

from fastapi import APIRouter, Response

from api.identity import Admin, Caller, is_admin
from api.problems import FieldProblem, Problem, invalid, refused, unknown
from api.schemas import (
    ConnectHostIn,
    ForeignOut,
    GpuProblemOut,
    HostIn,
    HostOut,
    HostsOut,
    HostTroubleOut,
    HostVmOut,
    HostWindowOut,
    Nothing,
)
from api.services import Given, Services
from api.writing import ACCEPTED, PREFIX, Key, decide, file_and_wait
from policies.applying import add_to_plan
from scheduler.core.connect import connect_problem
from scheduler.core.facts import OUT_OF_PLAN
from scheduler.core.intents import AddHost, ConnectHost, Drain, Intent, Undrain
from scheduler.core.reasons import ReasonCode
from scheduler.core.requests import HostId
from scheduler.core.spans import Instant
from scheduler.service.hosts import HostView, VmOnHost, host_view, last_seen_at
from scheduler.service.snapshot import Snapshot
from scheduler.store.accounts import User
from scheduler.store.heartbeats import Heartbeat

router = APIRouter(tags=["hosts"])

REAL_SPEED = 1.0
MOST_TRIES = 3
"""How often a host's windows are made anew because the policy changed meanwhile."""


@router.get("/hosts")
def list_hosts(user: Caller, services: Given) -> HostsOut:
    """List all hosts."""
    snapshot = services.snapshot()
    heartbeats = services.store.heartbeats()
    hosts = [_shown(HostId(host), user, snapshot, services, heartbeats) for host in sorted(snapshot.plan.hosts)]
    return HostsOut(hosts=hosts, plan_version=snapshot.plan.version, now=snapshot.now)


@router.get("/hosts/{id}")
def show_host(id: str, user: Caller, services: Given) -> HostOut:
    """Show one host."""
    return _shown(HostId(id), user, services.snapshot(), services)


@router.post("/hosts", status_code=201, responses=ACCEPTED)
def add_host(body: HostIn, user: Admin, services: Given, answer: Response, key: Key = None) -> HostOut:
    """Add a host, with its windows under the applied policy."""

    def is_same(filed: Intent) -> bool:
        wanted = (body.id, body.profile, storage, body.connect or "")
        return isinstance(filed, AddHost) and (filed.host, filed.profile, filed.storage, filed.connect) == wanted

    storage = body.storage or body.id
    if body.connect is not None:
        _check_connect(body.connect, services)
    for number in range(MOST_TRIES):
        intent = _adding(body, storage, services)
        # Each try is asked for once; the tries of a repeated request meet those of the first.
        numbered = key if key is None or number == 0 else f"{key}#{number}"
        decided = file_and_wait(services, user, intent, key=numbered, is_same=is_same)
        if decided.is_accepted:
            answer.headers["Location"] = f"{PREFIX}/hosts/{body.id}"
            return _shown(HostId(body.id), user, services.snapshot(), services)
        if decided.reasons[0].code is not ReasonCode.POLICY_STALE:
            raise refused(decided.reasons)
    message = "the policy was changed again and again meanwhile; try again"
    raise Problem(503, "policy.stale", message, is_retryable=True, headers={"Retry-After": "1"})


def _check_connect(uri: str, services: Services) -> None:
    """Raise the problem of a URI that is not taken: before it is kept anywhere, since it may hold a password."""
    problem = connect_problem(uri)
    if uri and problem is None and services.speed() != REAL_SPEED:
        problem = "time is scaled here, and the guests of a real host live in the machine's; start it without --speed"
    if problem is not None:
        raise invalid(FieldProblem(field="connect", problem=problem))


def _adding(body: HostIn, storage: str, services: Services) -> AddHost:
    plan = services.plans.current()
    record = None if plan.rules is None else services.store.policy(plan.rules.version)
    return add_to_plan(
        HostId(body.id),
        profile=body.profile,
        storage=storage,
        connect=body.connect or "",
        plan=plan,
        applied_text=None if record is None else record.text,
        now=services.clock.now(),
        settings=services.settings,
    )


@router.post("/hosts/{id}/connect", responses=ACCEPTED)
def connect(id: str, body: ConnectHostIn, user: Admin, services: Given, key: Key = None) -> HostOut:
    """Reach a host in another way, or on another machine while nothing of ours is on it."""
    _check_connect(body.connect, services)
    return _change(id, ConnectHost(host=HostId(id), connect=body.connect), user, services, key)


@router.post("/hosts/{id}/drain", responses=ACCEPTED)
def drain(id: str, user: Admin, services: Given, key: Key = None, body: Nothing | None = None) -> HostOut:
    """Let nothing new start on a host; `stuck` names what no other place can take."""
    return _change(id, Drain(host=HostId(id)), user, services, key)


@router.post("/hosts/{id}/undrain", responses=ACCEPTED)
def undrain(id: str, user: Admin, services: Given, key: Key = None, body: Nothing | None = None) -> HostOut:
    """Use a drained host again."""
    return _change(id, Undrain(host=HostId(id)), user, services, key)


def _change(id: str, intent: ConnectHost | Drain | Undrain, user: User, services: Services, key: str | None) -> HostOut:
    _shown(HostId(id), user, services.snapshot(), services)
    decide(services, user, intent, key=key)
    return _shown(HostId(id), user, services.snapshot(), services)


def _shown(
    id: HostId, user: User, snapshot: Snapshot, services: Services, heartbeats: Iterable[Heartbeat] | None = None
) -> HostOut:
    view = host_view(id, snapshot)
    if view is None:
        known = ", ".join(sorted(snapshot.plan.hosts)) or "none"
        raise unknown("host", id, code="host.unknown", remedy=f"known hosts: {known}")
    seen_at = last_seen_at(
        view.facts,
        services.store.heartbeats() if heartbeats is None else heartbeats,
        now=snapshot.now,
        now_machine_s=services.clock.machine_s(),
        speed=services.speed(),
    )
    return _host(view, user, seen_at)


def _host(view: HostView, user: User, seen_at: Instant | None) -> HostOut:
    facts, window = view.facts, view.window
    window_out = None
    if window is not None:
        until_at = window.end_at if window.closed_span is None else window.closed_span.end_at
        window_out = HostWindowOut(name=window.name, layout=window.layout.name, until_at=until_at)
    return HostOut(
        id=view.host.id,
        profile=view.host.profile.name,
        storage=view.host.storage,
        connect=view.host.connect if is_admin(user) else None,
        is_drained=view.host.is_drained,
        gpus=len(view.host.profile.gpus),
        gpus_running=len(view.gpus_running),
        gpus_free=len(view.gpus_free),
        layout=view.layout,
        window=window_out,
        seen_at=seen_at,
        unreachable_since_at=facts.unreachable_since_at,
        problem=facts.problem,
        troubles=[
            HostTroubleOut(code=trouble.code, kind=trouble.kind.value, problem=trouble.problem, mend=trouble.mend)
            for trouble in (facts.troubles if is_admin(user) else ())
        ],
        gpu_problems=[
            GpuProblemOut(gpu=gpu.gpu, state=gpu.state.value, since_at=gpu.since_at, problem=gpu.problem)
            for gpu in facts.gpus
            # Dirty is what every GPU in use is.
            if gpu.state in OUT_OF_PLAN or gpu.problem
        ],
        vms=[_vm(on_host, user) for on_host in view.vms],
        foreign=[
            ForeignOut(uuid=str(domain.uuid), name=domain.name, gpus=sorted(domain.gpus)) for domain in facts.foreign
        ],
        stuck=list(view.stuck) if is_admin(user) else [],
    )


def _vm(on_host: VmOnHost, user: User) -> HostVmOut:
    owner = None if on_host.reservation is None else on_host.reservation.request.owner
    is_named = is_admin(user) or owner == user.name
    return HostVmOut(
        reservation=on_host.vm.reservation if is_named else None,
        owner=owner if is_named else None,
        partition=on_host.vm.partition,
        gpus=list(on_host.gpus),
        phase=None if on_host.phase is None else on_host.phase.value,
        generation=on_host.vm.generation,
        running_at=on_host.vm.running_at,
    )
