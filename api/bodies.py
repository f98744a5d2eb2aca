"""Bodies of requests: how large, how deep and how plain they may be. Checked while they come in, before anything else.

The program's JSON is strict: UTF-8, each key once, whole and finite numbers that a database can hold, no half surrogate
pairs, no NUL. What a body means is not known here.
"""

import asyncio
import json
import math
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import Problem

MOST_BYTES = 64 * 1024
MOST_BYTES_OF_POLICY = 1024 * 1024 + 64 * 1024
"""A policy of 1 MiB, and the JSON around it."""
LONGEST_S = 20.0
"""For a body to come in whole: who sends it by the byte would hold a place of the server's for good."""
MOST_DEPTH = 16
MOST_VALUES = 10_000
MOST_DIGITS = 18
"""Digits of a whole number: 64 bits hold them all."""
_WITH_POLICY = ("/policies", "/policies/check", "/policies/diff")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class Unreadable(ValueError):
    """What is wrong with a body, in words."""


class BodyLimits:
    """Middleware: reads a body up to its limit, refuses what is not plain JSON, and hands it on whole."""

    def __init__(self, app: ASGIApp, *, longest_s: float = LONGEST_S) -> None:
        self._app = app
        self._longest_s = longest_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in _WITH_BODY:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        path: str = scope["path"]
        most = MOST_BYTES_OF_POLICY if path.rstrip("/").endswith(_WITH_POLICY) else MOST_BYTES
        try:
            async with asyncio.timeout(self._longest_s):
                body = await _read(receive, headers, most)
        except TimeoutError:
            message = f"the body did not come in within {self._longest_s:g} s; send it at once"
            raise Problem(408, "body.too_slow", message, is_retryable=True, headers={"Connection": "close"}) from None
        if body is None:
            return
        if body:
            _check_kind(headers)
            try:
                if len(body) > MOST_BYTES:
                    # Long enough to keep everybody else waiting.
                    await asyncio.to_thread(read_json, body)
                else:
                    read_json(body)
            except Unreadable as error:
                raise Problem(400, "body.unreadable", f"the body is not plain JSON: {error}") from error
        await self._app(scope, _replay(body, receive), send)


async def _read(receive: Receive, headers: Headers, most: int) -> bytes | None:
    """Return the body; None when the caller went away."""
    announced = headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > MOST_DIGITS or int(announced) > most):
        raise _too_large(most)
    parts: list[bytes] = []
    length = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        part = message.get("body", b"")
        length += len(part)
        if length > most:
            raise _too_large(most)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large(most: int) -> Problem:
    # The rest is not read: the connection cannot be used for another request.
    message = f"the body is larger than {most // 1024} KiB; send less"
    return Problem(413, "body.too_large", message, headers={"Connection": "close"})


def _check_kind(headers: Headers) -> None:
    kind, _, parameters = headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower().replace('"', "")
    if kind.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise Problem(415, "body.not_json", "send the body as Content-Type: application/json, in UTF-8")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "body.not_json", "send the body without Content-Encoding")


def _replay(body: bytes, receive: Receive) -> Receive:
    is_sent = False

    async def replay() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def read_json(body: bytes) -> object:
    """Read strict JSON; raises Unreadable with what is wrong."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(f"byte {error.start} is not UTF-8") from error
    try:
        read = json.loads(
            text,
            object_pairs_hook=_once_each,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_short,
        )
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise Unreadable(f"{error.msg} at line {error.lineno}, column {error.colno}") from error
    _check_values(read)
    return read


def _once_each(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise Unreadable(f"the key {key[:40]!r} is there twice")
        found[key] = value
    return found


def _no_constant(text: str) -> object:
    raise Unreadable(f"{text} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Unreadable(f"the number {text[:40]} is too large")
    return number


def _short(text: str) -> int:
    if len(text.lstrip("-")) > MOST_DIGITS:
        raise Unreadable(f"the number {text[:40]} has more than {MOST_DIGITS} digits")
    return int(text)


def _check_values(read: object) -> None:
    waiting: list[tuple[object, int]] = [(read, 1)]
    seen = 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if seen > MOST_VALUES:
            raise Unreadable(f"it holds more than {MOST_VALUES} values")
        if depth > MOST_DEPTH:
            raise Unreadable(f"it is nested more than {MOST_DEPTH} deep")
        match value:
            case str():
                _check_text(value)
            case dict():
                for key in value:
                    _check_text(key)
                waiting.extend((item, depth + 1) for item in value.values())
            case list():
                waiting.extend((item, depth + 1) for item in value)
            case _:
                pass


def _check_text(text: str) -> None:
    if "\0" in text:
        raise Unreadable("a text holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unreadable("a text holds half a surrogate pair") from None
