"""Leases: who may act on a host, by token, until an instant of machine time."""

import math
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, func, select

from scheduler.core.errors import LeaseLost
from scheduler.core.requests import HostId
from scheduler.store.engine import Database
from scheduler.store.statements import insert_or_take_over
from scheduler.store.tables import LEASE

_HELD = select(LEASE.c.name).where(
    LEASE.c.name == bindparam("of_name"),
    LEASE.c.token == bindparam("of_token"),
    LEASE.c.expires_machine_ms > bindparam("now_ms"),
)
_LOCKED = _HELD.with_for_update()


def host_lease(host: HostId) -> str:
    """Return the name of the lease that guards a host and its facts."""
    return f"host.{host}"


def acquire(
    database: Database, connection: Connection, name: str, token: str, *, now_machine_s: float, ttl_s: float
) -> bool:
    """Take a lease that is free, expired or ours, until `ttl_s` from now; False when another holds it."""
    columns = {
        "name": name,
        "token": token,
        "expires_machine_ms": _ms(now_machine_s + ttl_s),
        "now_ms": _ms(now_machine_s),
    }
    return connection.execute(insert_or_take_over(database.dialect), columns).first() is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseClaim:
    """What a commit claims to hold; it is not made without it."""

    name: str
    token: str
    now_machine_s: float


def need(connection: Connection, claim: LeaseClaim) -> None:
    """Raise LeaseLost unless the lease is held; nobody else takes it before the commit."""
    if not holds(connection, claim.name, claim.token, now_machine_s=claim.now_machine_s, locks=True):
        message = f"lease {claim.name} is not held by {claim.token} any more; nothing was written, begin nothing more"
        raise LeaseLost(message, lease=claim.name, token=claim.token)


def holds(connection: Connection, name: str, token: str, *, now_machine_s: float, locks: bool = False) -> bool:
    """Tell whether a token holds a lease now; with `locks`, so that nobody else takes it before the commit."""
    columns = {"of_name": name, "of_token": token, "now_ms": _ms(now_machine_s)}
    return connection.execute(_LOCKED if locks else _HELD, columns).first() is not None


def release(connection: Connection, name: str, token: str) -> None:
    """Give a lease up; nothing happens when it is not ours."""
    connection.execute(delete(LEASE).where(LEASE.c.name == name, LEASE.c.token == token))


def release_of(connection: Connection, token_prefix: str) -> int:
    """Give up the leases of all tokens that begin with a prefix, and return how many those were."""
    if not token_prefix:
        raise ValueError("every token begins with an empty prefix; name whose leases are to be given up")
    # Not LIKE: that takes upper and lower case for the same on SQLite, and has letters of its own.
    of_prefix = func.substr(LEASE.c.token, 1, len(token_prefix)) == token_prefix
    return connection.execute(delete(LEASE).where(of_prefix)).rowcount


def _ms(machine_s: float) -> int:
    return math.floor(machine_s * 1000)
