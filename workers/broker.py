"""The way to Redis: how its URL is read, whether it answers, and how many messages wait in a queue.

Redis carries "look now" and nothing else. Every limit here is machine time, and short: nobody waits for a message.
"""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from scheduler.core.errors import NightshiftError

ANSWER_WITHIN_S = 0.5
"""How long a connection, or one answer, may take."""
_SOCKET = "redis+socket"
_PASSWORD_IN_QUERY = re.compile(r"((?:^|&)password=)[^&]*")


class BadRedisUrl(NightshiftError):
    """The URL names no Redis that can be used."""

    code = "redis.bad_url"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerState:
    """Whether Redis answers, as people are told it."""

    is_up: bool
    detail: str


def open_redis(redis_url: str, *, timeout_s: float = ANSWER_WITHIN_S) -> Redis:
    """Return a client of `redis://…`, `rediss://…` or `redis+socket:///path.sock`; nothing is connected yet.

    It tries everything once: whoever is refused comes again at the next tick.
    """
    try:
        parts = urlsplit(redis_url)
    except ValueError as error:
        raise BadRedisUrl(f"NIGHTSHIFT_REDIS names no Redis: {error}; write redis://host:6379/0") from error
    if parts.scheme not in ("redis", "rediss", _SOCKET) or (parts.scheme == _SOCKET and not parts.path):
        raise BadRedisUrl(
            f"{shown(redis_url)!r} names no Redis; write redis://host:6379/0 or redis+socket:///path.sock",
            url=shown(redis_url),
        )
    url = redis_url
    if parts.scheme == _SOCKET:
        number = parts.query.replace("virtual_host=", "db=")
        url = f"unix://{parts.path}" + (f"?{number}" if number else "")
    try:
        return Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
        )
    except ValueError as error:
        raise BadRedisUrl(f"{shown(redis_url)!r} names no Redis: {error}", url=shown(redis_url)) from error


def ping(redis_url: str, *, timeout_s: float = ANSWER_WITHIN_S) -> BrokerState:
    """Ask Redis for an answer, and return what came of it; raises nothing but BadRedisUrl."""
    client = open_redis(redis_url, timeout_s=timeout_s)
    try:
        client.ping()
    except (RedisError, OSError) as error:
        return BrokerState(is_up=False, detail=f"{shown(redis_url)} does not answer: {error}")
    finally:
        client.close()
    return BrokerState(is_up=True, detail=f"{shown(redis_url)} answers")


def waiting(client: Redis, queue: str) -> int:
    """Return how many messages wait in a queue."""
    return client.llen(queue)


def shown(redis_url: str) -> str:
    """Return the URL without its password, for logs and messages."""
    parts = urlsplit(redis_url)
    query = _PASSWORD_IN_QUERY.sub(r"\1…", parts.query)
    netloc = parts.netloc if parts.password is None else parts.netloc.replace(f":{parts.password}@", ":…@")
    # Put together anew only where something was hidden: the rest is shown as it was written.
    return (
        redis_url
        if (query, netloc) == (parts.query, parts.netloc)
        else urlunsplit(parts._replace(netloc=netloc, query=query))
    )
