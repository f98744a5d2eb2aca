"""A server that answers as docs/api.md says, in memory: for what the command line makes of answers and of failures.

It books nothing: what it says was decided by who wrote it. That the real API answers like this is tested against the
real one (test_commands_on_the_api.py).
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

NOW = "2026-11-23T08:08:00Z"
"""A Monday, 09:08 in Berlin."""
TOKEN = "ns_" + "a" * 43
URL = "http://127.0.0.1:8470"

Json = dict[str, Any]


def reservation(name: str = "r-17", **changed: Any) -> Json:
    """Return a promised reservation of two GPUs that is parked over the night."""
    return {
        "id": name, "owner": "ada", "queue": "interactive", "gpus": 2, "run_s": 14 * 3600, "phase": "promised",
        "submitted_at": NOW, "not_before_at": None, "asked_start_by_at": None, "at_boundary": "park",
        "image": "ubuntu-24.04-cuda", "disk_gib": 100, "memory_gib": None, "vcpus": None, "continues": None,
        "by_policy": None,
        "promise": {"start_by_at": "2026-11-23T08:12:00Z", "end_by_at": "2026-11-24T10:20:00Z"},
        "spans": [
            {"start_at": NOW, "end_at": "2026-11-23T19:00:00Z", "host": "dgx2-a", "partition": "2g0-1",
             "gpus": [0, 1], "is_pinned": False},
            {"start_at": "2026-11-24T07:00:00Z", "end_at": "2026-11-24T10:20:00Z", "host": "dgx2-a",
             "partition": "2g4-5", "gpus": [4, 5], "is_pinned": False},
        ],
        "delivered_s": 0, "vm": None, "disk": None, "outcome": None, "ended_at": None, "reasons": [],
        "next": "starts by Mon 2026-11-23 09:12", "plan_version": 3,
    } | changed  # fmt: skip


def reason(code: str, sentence: str, **facts: Any) -> Json:
    return {"code": code, "sentence": sentence, "facts": facts}


def problem(status: int, code: str, detail: str, **more: Any) -> httpx.Response:
    document = {
        "type": f"urn:nightshift:problem:{code}", "title": code, "status": status, "detail": detail, "code": code,
        "retryable": status == 503,
    } | more  # fmt: skip
    return httpx.Response(status, json=document, headers={"Content-Type": "application/problem+json"})


HOST: Json = {
    "id": "dgx2-a", "profile": "dgx-2", "storage": "dgx2-a", "connect": "", "troubles": [], "is_drained": False,
    "gpus": 16, "gpus_running": 2, "gpus_free": 13, "layout": "day", "seen_at": NOW,
    "window": {"name": None, "layout": "day", "until_at": "2026-11-23T19:00:00Z"},
    "unreachable_since_at": None, "problem": None,
    "gpu_problems": [{"gpu": 7, "state": "quarantined", "since_at": NOW, "problem": "it did not come back"}],
    "vms": [{"reservation": "r-17", "owner": "ada", "partition": "2g0-1", "gpus": [0, 1], "phase": "running",
             "generation": 1, "running_at": NOW}],
    "foreign": [{"uuid": "1b4e28ba-2fa1-11d2-883f-0016d3cca427", "name": "old-vm", "gpus": [15]}],
}  # fmt: skip

CALENDAR: Json = {
    "now": NOW, "zone": "Europe/Berlin", "from_at": "2026-11-23T06:00:00Z", "until_at": "2026-11-25T06:00:00Z",
    "plan_version": 3,
    "hosts": [{"id": "dgx2-a", "profile": "dgx-2", "gpus": 16, "is_drained": False, "gpus_out": [7]}],
    "windows": [
        {"id": "night@2026-11-23T20:00", "name": "night", "layout": "night", "hosts": ["dgx2-a"],
         "start_at": "2026-11-23T19:00:00Z", "end_at": "2026-11-24T07:00:00Z", "state": "planned",
         "released_from_at": None},
        {"id": "night@2026-11-24T20:00", "name": "night", "layout": "night", "hosts": ["dgx2-a"],
         "start_at": "2026-11-24T19:00:00Z", "end_at": "2026-11-25T07:00:00Z", "state": "released",
         "released_from_at": "2026-11-25T02:00:00Z"},
    ],
    "bookings": [
        {"host": "dgx2-a", "partition": "2g0-1", "gpus": [0, 1], "start_at": NOW, "end_at": "2026-11-23T19:00:00Z",
         "is_mine": True, "reservation": "r-17", "owner": "ada", "queue": "interactive", "phase": "running"},
        {"host": "dgx2-a", "partition": "4g4-7", "gpus": [4, 5, 6, 7], "start_at": "2026-11-23T10:00:00Z",
         "end_at": "2026-11-23T15:00:00Z", "is_mine": False, "reservation": None, "owner": None,
         "queue": "interactive", "phase": None},
        {"host": "dgx2-a", "partition": "16g0-15", "gpus": list(range(16)), "start_at": "2026-11-23T19:00:00Z",
         "end_at": "2026-11-24T01:15:00Z", "is_mine": False, "reservation": None, "owner": None, "queue": "hpc",
         "phase": None},
    ],
}  # fmt: skip


@dataclass
class FakeServer:
    """Answers; keeps what it was asked."""

    role: str = "student"
    asked: list[httpx.Request] = field(default_factory=list)
    slept_s: list[float] = field(default_factory=list)
    first: list[httpx.Response | Exception] = field(default_factory=list)
    """What comes before any answer of its own, in order."""
    answers: dict[str, Callable[[httpx.Request], httpx.Response]] = field(default_factory=dict)
    """`GET /reservations/r-17`: what is answered in place of its own."""

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.answer)

    def bodies(self, path: str) -> list[Json]:
        return [json.loads(asked.content) for asked in self.asked if asked.url.path == f"/api/v1{path}"]

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self.first:
            given = self.first.pop(0)
            if isinstance(given, Exception):
                raise given
            return given
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return problem(401, "token.unknown", "this token is not known; ask your admin for a new one")
        path = request.url.path.removeprefix("/api/v1")
        own = self.answers.get(f"{request.method} {path}")
        return own(request) if own is not None else self._own(request.method, path, request)

    def _own(self, method: str, path: str, request: httpx.Request) -> httpx.Response:
        for pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, f"{method} {path}")
            if match is not None:
                made = answer(self, match, request)
                return made if isinstance(made, httpx.Response) else httpx.Response(200, json=made)
        return problem(404, "path.unknown", f"there is nothing at {path}")


def _me(server: FakeServer, match: re.Match[str], request: httpx.Request) -> Json:
    return {"name": "ada", "role": server.role, "zone": "Europe/Berlin", "now": NOW, "speed": 1, "version": "0.1.0"}


def _list(server: FakeServer, match: re.Match[str], request: httpx.Request) -> Json:
    ended = reservation(
        "r-9", phase="ended", outcome="completed", ended_at=NOW, delivered_s=3600, run_s=3600, spans=[], gpus=1
    )
    running = reservation(
        "r-12", phase="running", gpus=4, delivered_s=1800,
        vm={"host": "dgx2-a", "partition": "4g8-11", "gpus": [8, 9, 10, 11], "generation": 1, "uuid": "u", "up_at": NOW,
            "running_at": NOW},
    )  # fmt: skip
    waiting = reservation("r-18", phase="waiting", promise=None, spans=[])
    parked = reservation("r-19", phase="parked")
    found = [reservation(), running, waiting, parked]
    return {"reservations": [*found, ended], "plan_version": 3, "now": NOW}


def _known(match: re.Match[str]) -> Json | httpx.Response:
    name = match["name"]
    if name not in ("r-17", "r-9", "r-12"):
        return problem(404, "reservation.unknown", f"there is no reservation {name}; list yours with nightshift ls")
    return reservation(name)


def _show(server: FakeServer, match: re.Match[str], request: httpx.Request) -> Json | httpx.Response:
    return _known(match)


def _why(server: FakeServer, match: re.Match[str], request: httpx.Request) -> Json | httpx.Response:
    found = _known(match)
    if isinstance(found, httpx.Response):
        return found
    why = reason("wait.held_by", "r-3 has 2g0-1 of dgx2-a until Mon 2026-11-23 09:11", holder="r-3")
    return {"id": found["id"], "phase": "promised", "promise": found["promise"], "reasons": [why], "plan_version": 3,
            "now": NOW}  # fmt: skip


def _submit(server: FakeServer, match: re.Match[str], request: httpx.Request) -> httpx.Response:
    body = json.loads(request.content)
    if body.get("gpus") not in (None, 1, 2, 4, 8, 16):
        said = f"{body['gpus']} GPUs cannot be given to one VM here; ask for one of 1, 2, 4, 8, 16"
        return problem(422, "request.refused", said, reasons=[reason("request.unknown_size", said)])
    made = reservation(gpus=body.get("gpus", 2), run_s=body.get("run_s", 14 * 3600))
    return httpx.Response(201, json=made, headers={"Location": "/api/v1/reservations/r-17"})


def _act(server: FakeServer, match: re.Match[str], request: httpx.Request) -> Json | httpx.Response:
    found = _known(match)
    if isinstance(found, httpx.Response):
        return found
    disk = {"id": "d-17", "size_gib": 100, "kept_until_at": "2026-11-30T08:08:00Z"}
    match match["act"]:
        case "start":
            return httpx.Response(201, json=reservation("r-18", continues=found["id"]))
        case "cancel":
            return found | {"phase": "cancelled", "outcome": "cancelled", "ended_at": NOW, "disk": disk}
        case "stop":
            return found | {"phase": "stopping", "outcome": "stopped", "ended_at": NOW, "disk": disk}
        case _:
            return found


def _quote(server: FakeServer, match: re.Match[str], request: httpx.Request) -> Json:
    one = reservation()
    return {"promise": one["promise"], "likely_start_at": "2026-11-23T08:10:00Z", "spans": one["spans"], "reasons": [],
            "plan_version": 3}  # fmt: skip


def _free(server: FakeServer, match: re.Match[str], request: httpx.Request) -> Json:
    promise = reservation()["promise"]
    night = reason("wait.window", "waits for window night to open at Mon 2026-11-23 20:00")
    never = reason("request.never_fits", "16 GPUs for 86400 s in queue 'hpc' fit nowhere; ask for less")
    sizes = [
        {"gpus": 1, "queue": "interactive", "free_now": 5, "promise": promise, "likely_start_at": NOW, "reasons": []},
        {"gpus": 8, "queue": "interactive", "free_now": 0, "promise": promise, "likely_start_at": None,
         "reasons": [night]},
        {"gpus": 16, "queue": "hpc", "free_now": 0, "promise": None, "likely_start_at": None, "reasons": [never]},
    ]  # fmt: skip
    return {"now": NOW, "plan_version": 3, "sizes": sizes}


def _host(server: FakeServer, match: re.Match[str], request: httpx.Request) -> Json | httpx.Response:
    if match["name"] != "dgx2-a":
        return problem(404, "host.unknown", f"there is no host {match['name']}; known hosts: dgx2-a")
    return HOST | ({"stuck": ["r-12"]} if match["act"] else {})


def _policy(server: FakeServer, match: re.Match[str], request: httpx.Request) -> httpx.Response:
    if "windos" in json.loads(request.content)["text"]:
        found = [{"line": 3, "column": 1, "severity": "error", "message": "windos is not a key: 'windos'"}]
        return problem(422, "policy.invalid", "the policy has 1 error", problems=found)
    return httpx.Response(201, json={"version": 2, "applied_at": NOW, "author": "ada", "problems": []})


def _admins(
    answer: Callable[[FakeServer, re.Match[str], httpx.Request], Json | httpx.Response],
) -> Callable[[FakeServer, re.Match[str], httpx.Request], Json | httpx.Response]:
    def checked(server: FakeServer, match: re.Match[str], request: httpx.Request) -> Json | httpx.Response:
        if server.role != "admin":
            return problem(403, "rights.admin_only", "only an admin may do this; ask one")
        return answer(server, match, request)

    return checked


def _plain(document: Json) -> Callable[[FakeServer, re.Match[str], httpx.Request], Json]:
    return lambda server, match, request: document


_USER = {"name": "ada", "role": "student", "created_at": NOW, "is_disabled": False}
_CHECKS = [
    {"name": "database", "ok": True, "detail": "answers in 1 ms", "remedy": None},
    {"name": "worker", "ok": False, "detail": "no converge for 74 s", "remedy": "is `nightshift worker` running?"},
]
_TOKENS = [
    {"id": "t-1", "label": "laptop", "created_at": NOW, "last_used_at": None, "revoked_at": None},
    {"id": "t-2", "label": "old", "created_at": NOW, "last_used_at": NOW, "revoked_at": NOW},
]
_POLICIES = [
    {"version": 1, "applied_at": NOW, "author": "admin", "is_current": True, "source": "university.yaml",
     "message": "", "override": None, "made_with": {"tzdata": "2026a"}}
]  # fmt: skip
_WANTED: Json = {
    "id": "r-17", "owner": "ada", "queue": "interactive", "gpus": 2, "run_s": 10800, "submitted_at": NOW,
    "not_before_at": None, "asked_start_by_at": None, "disk_gib": 100, "by_policy": None, "outcome": None, "ran_s": 60,
}  # fmt: skip
_VERSIONS = [_POLICIES[0] | {"same_text_as": None}]
_DIFF: Json = {
    "current": 1, "plan_version": 3, "now": NOW, "until_at": "2027-02-20T08:08:00Z", "is_empty": True,
    "is_refused": False, "rules": [], "windows": [], "bookings": [], "broken": [], "is_broken_complete": True,
    "reasons": [], "owners_hit": [], "problems": [],
}  # fmt: skip
_NAME = "(?P<name>[^/]+)"

_ROUTES: tuple[tuple[str, Callable[[FakeServer, re.Match[str], httpx.Request], Json | httpx.Response]], ...] = (
    ("GET /me", _me),
    ("GET /reservations", _list),
    ("POST /reservations", _submit),
    (f"GET /reservations/{_NAME}", _show),
    (f"GET /reservations/{_NAME}/why", _why),
    (f"POST /reservations/{_NAME}/(?P<act>cancel|stop|restart|extend|start)", _act),
    ("POST /quotes", _quote),
    ("GET /free", _free),
    ("GET /calendar", _plain(CALENDAR)),
    ("GET /hosts", _plain({"hosts": [HOST], "now": NOW})),
    (f"GET /hosts/{_NAME}(?P<act>)", _host),
    ("POST /hosts", _admins(_plain(HOST))),
    (f"POST /hosts/{_NAME}(?P<act>/connect|/drain|/undrain)", _admins(_host)),
    ("GET /policies", _plain({"current": 1, "policies": _VERSIONS})),
    ("POST /policies/diff", _admins(_plain(_DIFF))),
    (r"POST /policies/\d+/rollback", _admins(_plain(_POLICIES[0] | {"version": 2, "problems": [], "overridden": []}))),
    ("POST /policies/watches", _admins(_plain({"name": "here", "problem": None}))),
    (r"GET /policies/\d+", _plain(_POLICIES[0] | {"text": "version: 1\n"})),
    ("POST /policies", _admins(_policy)),
    ("GET /demand", _admins(_plain({"requests": [_WANTED], "next": None, "now": NOW}))),
    ("GET /users", _admins(_plain({"users": [_USER, _USER | {"name": "bob", "is_disabled": True}]}))),
    ("POST /users", _admins(_plain(_USER))),
    (f"POST /users/{_NAME}/tokens", _plain({"id": "t-3", "label": "", "secret": "ns_secret", "created_at": NOW})),
    (f"GET /users/{_NAME}/tokens", _plain({"tokens": _TOKENS})),
    (f"POST /users/{_NAME}/(?:disable|enable)", _admins(_plain(_USER))),
    ("DELETE /tokens/[^/]+", _plain({})),
    ("GET /doctor", _admins(_plain({"checks": _CHECKS}))),
)
