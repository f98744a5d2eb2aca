"""The outermost layer: one line in the log for each request, and the answer to failures that nobody foresaw.

Logs neither queries nor headers nor bodies: tokens, keys and names of tenants stay out of it.
"""

import logging
import time
from secrets import token_hex

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.instants import shower
from api.problems import Problem, problem_of, response
from api.services import Services
from scheduler.core.errors import NightshiftError

_log = logging.getLogger(__name__)

_LONGEST_PATH = 120


class Access:
    """Middleware: logs each request, and turns what was raised into a problem document."""

    def __init__(self, app: ASGIApp, *, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = time.monotonic()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        scope.setdefault("state", {})
        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            if status:
                # Half of the answer is out: all that is left is to break the connection off.
                raise
            await response(_problem(error), shower(self._services.zone()))(scope, receive, sending)
        finally:
            elapsed_ms = round(1000 * (time.monotonic() - began_s))
            user = scope["state"].get("user", "-")
            _log.info(
                "request method=%s path=%s status=%d ms=%d user=%s",
                scope["method"],
                _shown(scope["path"]),
                status,
                elapsed_ms,
                user,
            )


def _problem(error: Exception) -> Problem:
    if isinstance(error, NightshiftError):
        problem = problem_of(error)
        if problem.status >= 500:
            _log.warning("request.failed code=%s detail=%s", problem.code, _shown(problem.message))
        return problem
    number = token_hex(4)
    _log.error("defect id=%s", number, exc_info=error)
    detail = f"a defect of Nightshift (id {number}, in its log with all particulars); report it, and try again"
    return Problem(500, "defect", detail, members={"id": number})


def note_user(request: Request, name: str) -> None:
    """Remember who asks, for the log."""
    request.scope["state"]["user"] = name


def _shown(text: str) -> str:
    """Return a text as one word of a log line."""
    kept = "".join(character if character.isprintable() and character != " " else "?" for character in text)
    return kept if len(kept) <= _LONGEST_PATH else f"{kept[:_LONGEST_PATH]}…"
