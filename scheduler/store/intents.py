"""Intents: filed once for each key, read in order, decided by a plan commit."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy import Connection, bindparam, insert, select, update

from scheduler.core.errors import BrokenInvariant
from scheduler.core.intents import FiledIntent, Intent
from scheduler.core.plan import Decided
from scheduler.core.requests import Role
from scheduler.core.spans import Instant
from scheduler.store.codec import intent_from_json, to_json
from scheduler.store.engine import Database
from scheduler.store.failures import Unstorable
from scheduler.store.rows import decided_of, filed_intent_of, in_batches
from scheduler.store.tables import INTENT

_DECIDE = (
    update(INTENT)
    .where(INTENT.c.seq == bindparam("of_seq"))
    .values(
        decided_version=bindparam("in_version"),
        decided_at=bindparam("since_at"),
        reservation=bindparam("by_reservation"),
        reasons=bindparam("why"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntentRecord:
    """An intent and what became of it."""

    filed: FiledIntent
    decided: Decided | None
    """None while it is open."""
    decided_version: int | None = None
    """The plan's version that holds the decision."""
    decided_at: Instant | None = None


def file(
    database: Database, connection: Connection, intent: Intent, *, at: Instant, author: str, role: Role, key: str | None
) -> tuple[FiledIntent, bool]:
    """File an intent, or return the one that has its key; the flag says whether it is new."""
    # From here on we file alone, so the look for the key and the insert cannot be passed by another's insert.
    database.in_commit_order(connection)
    if key is not None:
        taken = connection.execute(select(INTENT).where(INTENT.c.key == key)).first()
        if taken is not None:
            return filed_intent_of(taken), False
    columns = {
        "at": at,
        "author": author,
        "role": role.value,
        "key": key,
        "kind": intent.kind,
        "payload": _payload(intent),
        "reasons": "[]",
    }
    inserted = connection.execute(insert(INTENT), columns).inserted_primary_key
    assert inserted is not None
    return FiledIntent(seq=inserted[0], at=at, author=author, role=role, intent=intent, key=key), True


def _payload(intent: Intent) -> str:
    """Write an intent; one that could not be read back is refused here, before it stands in everybody's way."""
    payload = to_json(intent)
    try:
        payload.encode()
        is_whole = intent_from_json(payload) == intent
    except ValueError as error:
        raise Unstorable(f"this {intent.kind} cannot be filed: {_first_line(error)}", kind=intent.kind) from error
    if not is_whole:
        raise Unstorable(f"this {intent.kind} cannot be filed: it does not read back as it was", kind=intent.kind)
    return payload


def _first_line(error: ValueError) -> str:
    """Return what the reader found wrong first, in one line: `ask.run_s: not a valid integer`."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"
    return str(error).splitlines()[0]


def read_open(connection: Connection) -> tuple[FiledIntent, ...]:
    """Return the intents that are not decided, in the order in which they came."""
    query = select(INTENT).where(INTENT.c.decided_at.is_(None)).order_by(INTENT.c.seq)
    return tuple(filed_intent_of(row) for row in connection.execute(query))


def read(connection: Connection, seqs: Iterable[int]) -> Mapping[int, IntentRecord]:
    """Return intents by number; a number that was never filed is not in it."""
    found: dict[int, IntentRecord] = {}
    for batch in in_batches(sorted(set(seqs))):
        for row in connection.execute(select(INTENT).where(INTENT.c.seq.in_(batch))):
            found[row.seq] = IntentRecord(
                filed=filed_intent_of(row),
                decided=decided_of(row),
                decided_version=row.decided_version,
                decided_at=row.decided_at,
            )
    return found


def decide(connection: Connection, decisions: Sequence[Decided], *, version: int, at: Instant) -> None:
    """Mark intents decided; raises when one does not exist, or (by a trigger) was decided before."""
    for decided in decisions:
        columns = {
            "of_seq": decided.seq,
            "in_version": version,
            "since_at": at,
            "by_reservation": decided.reservation,
            "why": to_json(decided.reasons),
        }
        if connection.execute(_DECIDE, columns).rowcount != 1:
            message = f"there is no intent {decided.seq} to decide; nothing was written"
            raise BrokenInvariant(message, constraint="intent_exists", seq=decided.seq)
