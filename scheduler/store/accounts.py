"""Who may speak: users and their tokens. Each call is one transaction, and what may not happen twice is decided in it.

Holds no secret, only SHA-256 of secrets; nothing here can turn one back. Names and labels are checked in
`scheduler.service.users`, which all but tests go through.
"""

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Connection, Row, bindparam, false, func, insert, or_, select, update

from scheduler.core.errors import NightshiftError
from scheduler.core.plan import Event, event
from scheduler.core.requests import Role
from scheduler.core.spans import Instant
from scheduler.store import events
from scheduler.store.engine import Database
from scheduler.store.tables import ACCOUNT, TOKEN

MOST_LIVE_TOKENS = 50
"""How many tokens that are not revoked one user may have."""

_TOKEN_ID = re.compile(r"t-([1-9][0-9]{0,17})", re.ASCII)
_USE_NOTED_EVERY_MS = 60_000


class UnknownUser(NightshiftError):
    """There is no user of that name."""

    code = "user.unknown"


class UserExists(NightshiftError):
    """The name is taken, perhaps by a user who is disabled: names are never given twice."""

    code = "user.exists"


class UserDisabled(NightshiftError):
    """What was asked for makes no sense for a user who is disabled."""

    code = "user.disabled"


class LastAdmin(NightshiftError):
    """Nobody could administer Nightshift any more."""

    code = "user.last_admin"


class UnknownToken(NightshiftError):
    """There is no token of that id."""

    code = "token.unknown"


class TooManyTokens(NightshiftError):
    """The user has as many live tokens as one may have."""

    code = "token.too_many"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who may speak to Nightshift."""

    name: str
    role: Role
    """`student` or `admin`."""
    created_at: Instant
    is_disabled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenInfo:
    """What is known of a token; the secret is not."""

    id: str
    owner: str
    label: str
    created_at: Instant
    last_used_at: Instant | None = None
    """Within a minute of machine time."""
    revoked_at: Instant | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """Who holds a secret, and whether this use of it is worth a write."""

    user: User
    token_seq: int
    is_use_to_note: bool


_BEARER = (
    select(ACCOUNT, TOKEN.c.seq, TOKEN.c.used_machine_ms)
    .join_from(TOKEN, ACCOUNT, TOKEN.c.owner == ACCOUNT.c.name)
    .where(
        TOKEN.c.secret_sha256 == bindparam("sha256"),
        TOKEN.c.revoked_at.is_(None),
        ACCOUNT.c.is_disabled == false(),
    )
)
_ADMINS = (
    select(ACCOUNT.c.name)
    .where(ACCOUNT.c.role == Role.ADMIN.value, ACCOUNT.c.is_disabled == false())
    # All in one order, so that two who take them at once do not wait for each other.
    .order_by(ACCOUNT.c.name)
    .with_for_update()
)
_NOW_MS = bindparam("now_ms", type_=BigInteger)
_NOTE_USE = (
    update(TOKEN)
    .where(
        TOKEN.c.seq == bindparam("of_seq"),
        # Far ahead of now is a clock that was put back since, not a use to come.
        or_(
            TOKEN.c.used_machine_ms.is_(None),
            TOKEN.c.used_machine_ms <= _NOW_MS - _USE_NOTED_EVERY_MS,
            TOKEN.c.used_machine_ms >= _NOW_MS + _USE_NOTED_EVERY_MS,
        ),
    )
    .values(last_used_at=bindparam("at"), used_machine_ms=_NOW_MS)
)


class Accounts:
    """The users and tokens of one database. Safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, user: User, *, by: str) -> None:
        """Add a user; raises UserExists."""
        columns = {
            "name": user.name,
            "role": user.role.value,
            "created_at": user.created_at,
            "is_disabled": user.is_disabled,
        }
        with self._database.writing("account") as connection:
            # From here on we add alone: the look for the name and the insert cannot be passed by another's insert.
            self._database.in_commit_order(connection)
            if connection.execute(select(ACCOUNT.c.name).where(ACCOUNT.c.name == user.name)).first() is not None:
                raise UserExists(f"there is a user {user.name!r} already; choose another name", user=user.name)
            connection.execute(insert(ACCOUNT), columns)
            self._tell(connection, event("user.added", user.created_at, actor=by, user=user.name, role=user.role.value))

    def all(self) -> tuple[User, ...]:
        """Return all users by name, disabled ones too."""
        with self._database.peeking() as connection:
            return tuple(map(_user_of, connection.execute(select(ACCOUNT).order_by(ACCOUNT.c.name))))

    def user(self, name: str) -> User | None:
        """Return one user; None when there is none of that name."""
        with self._database.peeking() as connection:
            row = connection.execute(select(ACCOUNT).where(ACCOUNT.c.name == name)).first()
            return None if row is None else _user_of(row)

    def set_disabled(self, name: str, *, is_disabled: bool, at: Instant, by: str) -> User:
        """Disable or enable a user; raises UnknownUser and LastAdmin. Nothing is written when it is so already."""
        with self._database.writing("account") as connection:
            # The admins first: whoever disables another at the same time waits here, and then sees what we did. For
            # enabling too: the trigger takes them then, and after the user it would wait for whoever waits for us.
            admins = connection.execute(_ADMINS).scalars().all()
            user = _locked(connection, name)
            if user.is_disabled == is_disabled:
                return user
            if is_disabled and list(admins) == [name]:
                message = f"{name} is the last admin who is not disabled; add or enable another admin first"
                raise LastAdmin(message, user=name)
            connection.execute(update(ACCOUNT).where(ACCOUNT.c.name == name).values(is_disabled=is_disabled))
            kind = "user.disabled" if is_disabled else "user.enabled"
            self._tell(connection, event(kind, at, actor=by, user=name))
        return User(name=user.name, role=user.role, created_at=user.created_at, is_disabled=is_disabled)

    def add_token(self, owner: str, *, label: str, secret_sha256: str, at: Instant, by: str) -> TokenInfo:
        """Remember a token by the hash of its secret; raises UnknownUser, UserDisabled and TooManyTokens."""
        columns = {"owner": owner, "label": label, "secret_sha256": secret_sha256, "created_at": at}
        live = select(func.count()).where(TOKEN.c.owner == owner, TOKEN.c.revoked_at.is_(None))
        with self._database.writing("account") as connection:
            if _locked(connection, owner).is_disabled:
                raise UserDisabled(f"{owner} is disabled, a token would not work; enable {owner} first", user=owner)
            if connection.execute(live).scalar_one() >= MOST_LIVE_TOKENS:
                message = f"{owner} has {MOST_LIVE_TOKENS} tokens, the most there may be; revoke one that is not used"
                raise TooManyTokens(message, user=owner, limit=MOST_LIVE_TOKENS)
            inserted = connection.execute(insert(TOKEN), columns).inserted_primary_key
            assert inserted is not None
            info = TokenInfo(id=_token_id(inserted[0]), owner=owner, label=label, created_at=at)
            self._tell(connection, event("token.issued", at, actor=by, user=owner, token=info.id, label=label))
        return info

    def tokens(self, owner: str) -> tuple[TokenInfo, ...]:
        """Return a user's tokens, oldest first, revoked ones too; none when there is no such user."""
        with self._database.peeking() as connection:
            query = select(TOKEN).where(TOKEN.c.owner == owner).order_by(TOKEN.c.seq)
            return tuple(map(_token_of, connection.execute(query)))

    def token(self, token_id: str) -> TokenInfo | None:
        """Return one token; None when there is none of that id."""
        seq = _seq_of(token_id)
        if seq is None:
            return None
        with self._database.peeking() as connection:
            row = connection.execute(select(TOKEN).where(TOKEN.c.seq == seq)).first()
            return None if row is None else _token_of(row)

    def revoke(self, token_id: str, *, at: Instant, by: str) -> TokenInfo:
        """Revoke a token, for good; raises UnknownToken. Nothing is written when it is revoked already."""
        seq = _seq_of(token_id)
        with self._database.writing("account") as connection:
            found = None
            if seq is not None:
                found = connection.execute(select(TOKEN).where(TOKEN.c.seq == seq).with_for_update()).first()
            if found is None:
                raise UnknownToken(f"there is no token {token_id}; list the user's tokens to see their ids")
            before = _token_of(found)
            if before.revoked_at is not None:
                return before
            # The clock that it was issued by may have been ahead of ours.
            revoked_at = max(at, before.created_at)
            connection.execute(update(TOKEN).where(TOKEN.c.seq == seq).values(revoked_at=revoked_at))
            self._tell(connection, event("token.revoked", at, actor=by, user=before.owner, token=before.id))
        return TokenInfo(
            id=before.id,
            owner=before.owner,
            label=before.label,
            created_at=before.created_at,
            last_used_at=before.last_used_at,
            revoked_at=revoked_at,
        )

    def bearer(self, secret_sha256: str, *, now_machine_s: float) -> Bearer | None:
        """Return who holds the secret with this hash: nobody when it is unknown, revoked or of a disabled user."""
        with self._database.peeking() as connection:
            row = connection.execute(_BEARER, {"sha256": secret_sha256}).first()
        if row is None:
            return None
        used_ms = row.used_machine_ms
        is_use_to_note = used_ms is None or abs(_ms(now_machine_s) - used_ms) >= _USE_NOTED_EVERY_MS
        return Bearer(user=_user_of(row), token_seq=row.seq, is_use_to_note=is_use_to_note)

    def note_use(self, bearer: Bearer, *, at: Instant, now_machine_s: float) -> None:
        """Write when a token was used last, unless that was written within a minute."""
        with self._database.writing("account") as connection:
            connection.execute(_NOTE_USE, {"of_seq": bearer.token_seq, "at": at, "now_ms": _ms(now_machine_s)})

    def _tell(self, connection: Connection, told: Event) -> None:
        events.append(self._database, connection, [told])


def _locked(connection: Connection, name: str) -> User:
    """Return a user whom nobody else changes before the commit; raises UnknownUser."""
    row = connection.execute(select(ACCOUNT).where(ACCOUNT.c.name == name).with_for_update()).first()
    if row is None:
        raise UnknownUser(f"there is no user {name!r}; list the users to see who is there", user=name)
    return _user_of(row)


def _user_of(row: Row[Any]) -> User:
    return User(name=row.name, role=Role(row.role), created_at=row.created_at, is_disabled=row.is_disabled)


def _token_of(row: Row[Any]) -> TokenInfo:
    return TokenInfo(
        id=_token_id(row.seq),
        owner=row.owner,
        label=row.label,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )


def _token_id(seq: int) -> str:
    return f"t-{seq}"


def _seq_of(token_id: str) -> int | None:
    match = _TOKEN_ID.fullmatch(token_id)
    return None if match is None else int(match[1])


def _ms(machine_s: float) -> int:
    return int(machine_s * 1000)
