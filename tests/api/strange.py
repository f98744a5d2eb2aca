"""Requests that nobody should send, and some that people do: drawn by a seed, over every endpoint.

Most bodies are nearly right, since those get furthest in; a part of them is exactly right.
"""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.api.bench import POLICY

USERS = ("ann", "ben", "root")
DEEP = b"[" * 5000
BYTES = (
    b"", b" ", b"{", b"}", b"null", b"true", b"3", b'"x"', b"[]", b"{}", b"\xff\xfe", b"\xef\xbb\xbf{}", b"\x00",
    DEEP, b'{"a":' * 40 + b"1" + b"}" * 40, b'{"gpus":1,"gpus":2}', b'{"gpus":NaN}', b'{"gpus":-Infinity}',
    b'{"gpus":1e400}', b'{"gpus":' + b"9" * 5000 + b"}", b'{"image":"\\ud800"}', b'{"image":"a\\u0000b"}',
    b'{"image":"\x01"}', b"{'gpus':1}", b'{"gpus":1,}', b'{"gpus":01}', b"x" * 70_000,
    b'{"text":"' + b"y" * 70_000 + b'"}',
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 16, 17, 10**9, 10**10, -(10**17), 10**17, 0.5, 1.0, 1e300, "", " ", "x", "3",
    "a" * 300, "r-1", "r-3", "r-0", "r-999999999999999999", "../../etc/passwd", "'; DROP TABLE plan; --", "é", "𝕏",
    "\u202e", "a\nb", "\t", "park", "2026-03-02T09:00:00Z", "2026-03-02T09:00:00", "2026-13-45T99:99:99Z",
    "1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0000-00-00T00:00:00Z", [], [1], {}, {"a": 1}, [[[[]]]],
)  # fmt: skip
WORDS = (
    "r-1", "r-2", "r-3", "r-5", "r-40", "x", "..", "%00", "%ff", "%2F", "r-%30", "0", "-1", "9" * 30, "é", "t-1",
    "t-4", "dgx2-a", "ann", "root", "*", "a" * 500,
)  # fmt: skip
QUERIES = (
    "", "?", "?all=true", "?all=1&all=0", "?limit=0", "?limit=5", "?limit=x", "?phase=running", "?phase=",
    "?owner=ann", "?owner=%00", "?run_s=3600", "?run_s=-1", "?run_s=1e9", "?run_s=", "?from_at=2026-03-02T00:00:00Z",
    "?from_at=2026-03-02T00:00:00%2B01:00&until_at=2026-03-03T00:00:00Z", "?until_at=1970-01-01T00:00:00Z",
    "?from_at=x", "?from_at=9999-12-31T23:59:58Z", "?%00=%00", "?=&&==", "?a=" + "b" * 3000,
)  # fmt: skip
HEADERS: tuple[Mapping[str, str], ...] = (
    {}, {}, {"Idempotency-Key": "k"}, {"Idempotency-Key": "k"}, {"Idempotency-Key": ""}, {"Idempotency-Key": "a b"},
    {"Idempotency-Key": "é"}, {"Idempotency-Key": "x" * 200}, {"Content-Type": "text/plain"}, {"Content-Type": ""},
    {"Content-Type": "application/json; charset=utf-16"}, {"Content-Encoding": "gzip"},
    {"Content-Length": "99999999999999999999999"}, {"Content-Length": "-1"}, {"Authorization": ""},
    {"Authorization": "Bearer"}, {"Authorization": "Bearer ns_" + "é" * 43}, {"Authorization": "Basic YTpi"},
    {"Authorization": "Bearer ns_" + "A" * 43}, {"Accept": "text/html"}, {"Host": "\xff"},
    {"X-Forwarded-For": "1.1.1.1"},
)  # fmt: skip
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "FOO", "get")

Body = Callable[[random.Random], dict[str, Any]]


def _ask(draw: random.Random) -> dict[str, Any]:
    body: dict[str, Any] = {"gpus": draw.choice((1, 1, 2, 4, 8, 16)), "run_s": draw.choice((60, 3600, 7200, 86_400))}
    for name, values in (
        ("queue", ("interactive", "hpc", "none")),
        ("at", ("2026-03-02T12:00:00Z", "2026-03-05T09:00:00+01:00", "2025-01-01T00:00:00Z")),
        ("not_before_at", ("2026-03-02T12:00:00Z", "2027-01-01T00:00:00Z")),
        ("start_by_at", ("2026-03-02T07:30:00Z", "2026-03-04T12:00:00Z")),
        ("at_night", ("park", "finish", "keep")),
        ("image", ("ubuntu", "debian", "none")),
        ("disk_gib", (1, 10, 50, 100_000)),
        ("memory_gib", (1, 64, 2000)),
        ("vcpus", (1, 4, 200)),
        ("ssh_key", ("ssh-ed25519 AAAA ann", "-----BEGIN OPENSSH PRIVATE KEY-----", "ssh-")),
        ("continues", ("r-3", "r-4", "r-9")),
        ("like", ("r-3", "r-4", "r-9")),
        ("owner", ("ann", "ben", "group-a", "a/b")),
    ):
        if draw.random() < 0.12:
            body[name] = draw.choice(values)
    return body


def _policy(draw: random.Random) -> dict[str, Any]:
    text = draw.choice(
        ("", "version: 1", POLICY[: draw.randrange(len(POLICY))], "a: &a [*a]", "{" * 200, "\ud7ff", POLICY)
    )
    return {"text": text, "source": draw.choice(("p.yaml", "a" * 150, "é.yaml"))}


def _user(draw: random.Random) -> dict[str, Any]:
    return {"name": draw.choice(("carl", "dora", "Ann", "plan", "a b", "é")), "role": draw.choice(("student", "admin"))}


def _host(draw: random.Random) -> dict[str, Any]:
    return draw.choice(
        (
            {"id": "dgx2-b", "profile": "dgx-2"},
            {"id": "x", "profile": "none"},
            {"id": "a/b", "profile": "/etc"},
            {"id": "dgx2-c", "profile": "dgx-2", "connect": "qemu+tls://dgx2-c/system"},
            {"id": "x", "profile": "dgx-2", "connect": "qemu+tcp://x/system"},
        )
    )


def _connect(draw: random.Random) -> dict[str, Any]:
    return {"connect": draw.choice(("qemu:///system", "qemu+ssh://a:b@x/system", "é", "qemu+tls://dgx2-a/system"))}


def _no_body(draw: random.Random) -> dict[str, Any]:
    return {}


ENDPOINTS: tuple[tuple[str, str, Body | None, int], ...] = (
    ("POST", "/reservations", _ask, 6),
    ("GET", "/reservations", None, 2),
    ("GET", "/reservations/{}", None, 2),
    ("GET", "/reservations/{}/why", None, 2),
    ("POST", "/reservations/{}/cancel", _no_body, 3),
    ("POST", "/reservations/{}/stop", _no_body, 2),
    ("POST", "/reservations/{}/restart", _no_body, 1),
    ("POST", "/reservations/{}/start", lambda draw: draw.choice(({}, {"run_s": 3600})), 1),
    ("POST", "/reservations/{}/extend", lambda draw: {"by_s": draw.choice((60, 3600, 10**8))}, 2),
    ("GET", "/intents/{}", None, 1),
    ("POST", "/quotes", _ask, 3),
    ("GET", "/free", None, 1),
    ("GET", "/calendar", None, 2),
    ("GET", "/hosts", None, 1),
    ("GET", "/hosts/{}", None, 1),
    ("POST", "/hosts", _host, 1),
    ("POST", "/hosts/{}/connect", _connect, 1),
    ("POST", "/hosts/{}/drain", _no_body, 1),
    ("POST", "/hosts/{}/undrain", _no_body, 2),
    ("GET", "/policies", None, 1),
    ("GET", "/policies/{}", None, 1),
    ("POST", "/policies", _policy, 1),
    ("POST", "/policies/check", _policy, 1),
    ("GET", "/users", None, 1),
    ("POST", "/users", _user, 1),
    ("GET", "/users/{}", None, 1),
    ("GET", "/users/{}/tokens", None, 1),
    ("POST", "/users/{}/tokens", lambda draw: {"label": draw.choice(("", "laptop", "\n", "x" * 199))}, 1),
    ("POST", "/users/{}/disable", _no_body, 1),
    ("POST", "/users/{}/enable", _no_body, 1),
    ("DELETE", "/tokens/{}", None, 1),
    ("GET", "/me", None, 1),
    ("GET", "/status", None, 1),
    ("GET", "/doctor", None, 1),
    ("GET", "/openapi.json", None, 1),
)
_WEIGHTS = [weight for _, _, _, weight in ENDPOINTS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Strange:
    """One request."""

    method: str
    path: str
    raw: bytes = b""
    user: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    parts: int = 1


def draw_request(draw: random.Random) -> Strange:
    """Draw a request."""
    method, template, body, _ = draw.choices(ENDPOINTS, _WEIGHTS)[0]
    word = f"r-{draw.randrange(3, 60)}" if draw.random() < 0.6 else draw.choice(WORDS)
    if "hosts" in template and draw.random() < 0.7:
        word = "dgx2-a"
    if "users" in template and draw.random() < 0.7:
        word = draw.choice(USERS)
    path = template.replace("{}", word)
    if draw.random() < 0.15:
        path += draw.choice(QUERIES)
    if draw.random() < 0.04:
        path += draw.choice(("/", "//", "/x", "%00", ";a", "#f"))
    if draw.random() < 0.03:
        method = draw.choice(METHODS)
    user = draw.choices((*USERS, None), (5, 3, 5, 1))[0]
    headers = draw.choice(HEADERS) if draw.random() < 0.2 else {}
    return Strange(
        method=method,
        path=path,
        raw=b"" if body is None and draw.random() < 0.95 else _raw(draw, body or _ask),
        user=user,
        headers=headers,
        parts=draw.choice((1, 1, 1, 3)),
    )


def _raw(draw: random.Random, body: Body) -> bytes:
    kind = draw.random()
    if kind < 0.07:
        return draw.choice(BYTES)
    if kind < 0.09:
        return draw.randbytes(draw.randrange(40))
    made = body(draw)
    if kind < 0.35:
        for _ in range(draw.randrange(1, 3)):
            _spoil(draw, made)
    text = json.dumps(made, ensure_ascii=draw.random() < 0.5).encode("utf-8", "replace")
    if 0.35 <= kind < 0.4 and text:
        at = draw.randrange(len(text))
        text = text[:at] + draw.choice((b"", draw.randbytes(1))) + text[at + 1 :]
    return text


def _spoil(draw: random.Random, body: dict[str, Any]) -> None:
    names = [*body, "owner", "gpus", "run_s", "strange"]
    name = draw.choice(names)
    if draw.random() < 0.2:
        body.pop(name, None)
    else:
        body[name] = draw.choice(VALUES)
