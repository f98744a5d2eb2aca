"""Speaks to the server: one request, its answer as plain data, and every failure as one of ours with an exit code.

Holds no texts for people beyond what went wrong, and nothing of what the answers mean.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from cli.address import Address, NoToken
from cli.output import EXIT_FAILED, EXIT_NO, EXIT_USAGE
from scheduler.core.errors import NightshiftError

if TYPE_CHECKING:
    import httpx

Json: TypeAlias = dict[str, Any]
"""An object of the API as it came."""

API = "/api/v1"
CONNECT_S, ANSWER_S = 3.0, 15.0
PAUSES_S = (0.3, 1.0)
"""Before the second and the third attempt."""
_LONGEST_PAUSE_S = 3.0
_MOST_BYTES = 32 * 1024 * 1024


class Answer(dict[str, Any]):
    """An object of the API; what is not in it, though it belongs there, is said as trouble of the server."""

    def __missing__(self, name: str) -> Any:
        raise ServerAway(f"the server's answer has no {name!r}; is it of another version? see `nightshift whoami`")


class ServerAway(NightshiftError):
    """The server was not reached, or did not answer as one."""

    code = "server.away"
    retryable = True


class Unsendable(NightshiftError):
    """What was written cannot be sent at all."""

    code = "request.unsendable"


class Problem(NightshiftError):
    """The server said no, as problem+json."""

    def __init__(self, message: str, *, status: int, document: Json) -> None:
        super().__init__(message, status=status)
        self.status = status
        self.document = document
        self.code = str(document.get("code", "error"))
        self.retryable = status >= 500 or status == 429

    @property
    def exit_code(self) -> int:
        match self.status:
            case 403 | 404 | 409:
                return EXIT_NO
            case 422:
                return EXIT_USAGE if self.code in ("request.invalid", "policy.invalid") else EXIT_NO
            case _:
                return EXIT_FAILED if self.retryable else EXIT_USAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the commands take from the process that they run in; tests hand in their own."""

    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    transport: "httpx.BaseTransport | None" = None
    """None: real sockets."""
    sleep: Callable[[float], None] = time.sleep
    new_key: Callable[[], str] = lambda: str(uuid.uuid4())


class Client:
    """One server, as one person."""

    def __init__(self, address: Address, surroundings: Surroundings, *, answer_s: float = ANSWER_S) -> None:
        import httpx

        self.address = address
        self.surroundings = surroundings
        headers = {"Accept": "application/json", "User-Agent": "nightshift"}
        if address.token is not None:
            headers["Authorization"] = f"Bearer {_sendable(address.token)}"
        self._http = httpx.Client(
            base_url=address.url,
            headers=headers,
            timeout=httpx.Timeout(answer_s, connect=min(CONNECT_S, answer_s)),
            transport=surroundings.transport,
            # A proxy for the world outside cannot reach this machine's own server.
            trust_env=not address.is_loopback,
        )

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **query: str | int | bool | None) -> Json:
        """Ask; raises Problem or ServerAway."""
        shown = {name: _query_text(value) for name, value in query.items() if value is not None}
        return self._answer("GET", path, params=shown)

    def get_once(self, path: str) -> Json:
        """Ask and take the first answer: for a shell that waits."""
        return self._answer("GET", path, pauses_s=())

    def post(self, path: str, body: Json | None = None) -> Json:
        """Ask for a change; an attempt that is made again is still one request. Raises Problem or ServerAway."""
        # Each attempt has the same key: the server takes them as one.
        key = {"Idempotency-Key": self.surroundings.new_key()}
        return self._answer("POST", path, json=body if body is not None else {}, headers=key)

    def post_once(self, path: str, body: Json) -> Json:
        """Ask for what the server makes anew each time; only what never reached it is tried again."""
        return self._answer("POST", path, json=body, is_repeatable=False)

    def delete(self, path: str) -> Json:
        """Take something away; doing it twice does no more. Raises Problem or ServerAway."""
        return self._answer("DELETE", path)

    def _answer(
        self,
        method: str,
        path: str,
        *,
        pauses_s: tuple[float, ...] = PAUSES_S,
        is_repeatable: bool = True,
        **arguments: Any,
    ) -> Json:
        import httpx

        if self.address.token is None and path != "/status":
            raise NoToken(
                f"no token for {self.address.url}; ask your admin for one and run `nightshift login`,"
                " or set NIGHTSHIFT_TOKEN"
            )
        for pause_s in (*pauses_s, None):
            try:
                response = self._http.request(method, API + path, **arguments)
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.RemoteProtocolError, httpx.ReadError) as error:
                was_unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if pause_s is None or not (is_repeatable or was_unsent):
                    raise self._away(error) from error
            except httpx.TimeoutException as error:
                raise ServerAway(
                    f"{self.address.url} did not answer within {ANSWER_S:.0f} s; try again, or see `nightshift doctor`"
                ) from error
            except UnicodeError as error:
                raise Unsendable("an option holds bytes that are not text; write it in UTF-8") from error
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                raise self._away(error) from error
            else:
                if response.status_code != 503 or pause_s is None:
                    return self._read(response)
                pause_s = _retry_after_s(response.headers.get("Retry-After"), pause_s)
            self.surroundings.sleep(pause_s)
        raise AssertionError("the last attempt answers or raises")

    def _read(self, response: "httpx.Response") -> Json:
        if 300 <= response.status_code < 400:
            there = response.headers.get("Location", "elsewhere")
            raise ServerAway(f"{self.address.url} sends us to {there}; set NIGHTSHIFT_SERVER to the server itself")
        if response.status_code == 204:
            return {}
        try:
            is_small = len(response.content) <= _MOST_BYTES
            document = json.loads(response.content, object_hook=Answer) if is_small else None
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise ServerAway(
                f"{self.address.url} answered {response.status_code} with what is not Nightshift's API;"
                " is another program on that port? see NIGHTSHIFT_SERVER"
            )
        if response.is_success:
            return document
        raise Problem(_said(document, response.status_code), status=response.status_code, document=document)

    def _away(self, error: Exception) -> ServerAway:
        return ServerAway(
            f"cannot reach {self.address.url} ({_cause(error)}); is `nightshift up` running? or set NIGHTSHIFT_SERVER"
        )


def part(text: str) -> str:
    """Return a text as one part of a path; raises Unsendable."""
    if text.strip(". ") == "":
        raise Unsendable(f"{text!r} is not a name; see what there is with `ls`")
    return quote(text, safe="", errors="replace")


def reasons_of(document: Json) -> list[Json]:
    """Return the reasons in an answer or a problem."""
    found = document.get("reasons")
    return [reason for reason in found if isinstance(reason, dict)] if isinstance(found, list) else []


def as_text(document: Json) -> str:
    """Write an answer of the API for machines."""
    return json.dumps(document, indent=2, ensure_ascii=False)


def _said(document: Json, status: int) -> str:
    """Put a problem in one line: each field that is wrong, else each reason, else what the server says."""
    errors = document.get("errors")
    if isinstance(errors, list) and errors:
        return "; ".join(_field_text(error) for error in errors if isinstance(error, dict))
    sentences = [str(reason.get("sentence", "")) for reason in reasons_of(document)]
    if any(sentences):
        return "; ".join(s for s in sentences if s)
    return str(document.get("detail") or document.get("title") or f"the server answered {status}")


def _field_text(error: Json) -> str:
    value = error.get("value")
    shown = "" if value is None else f" {value!r}"
    return f"{error.get('field', 'request')}{shown}: {error.get('problem', 'is not acceptable')}"


def _cause(error: Exception) -> str:
    """Name what went wrong below, shortly."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.strerror:
            return below.strerror.lower().removeprefix("[errno -2] ")
        below = below.__cause__ or below.__context__
    text = str(error).lower() or type(error).__name__
    return "connection refused" if "refused" in text else text


def _retry_after_s(header: str | None, otherwise_s: float) -> float:
    if header is not None and header.isascii() and header.isdecimal():
        return min(float(header[:6]), _LONGEST_PAUSE_S)
    return otherwise_s


def _query_text(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _sendable(token: str) -> str:
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise NoToken("the token holds characters that no token has; copy it again, it begins with ns_")
    return token
