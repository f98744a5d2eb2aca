"""Users and their tokens: who is added, who may speak, and with which secret.

The values `User` and `TokenInfo`, and `UnknownUser`, `LastAdmin` and the like, are of `scheduler.store.accounts`.
Whether the one who acts (`by`) may do so is for the edge to check. A secret is in `IssuedToken` once and nowhere else:
what is stored is its SHA-256, which is enough to know it again and too little to make it.
"""

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from scheduler.core.errors import NightshiftError
from scheduler.core.requests import Role
from scheduler.core.spans import Instant
from scheduler.service.ports import Clock
from scheduler.store.accounts import TokenInfo, UnknownUser, User
from scheduler.store.store import Store

NAMES = r"[a-z][a-z0-9._-]{0,31}"
LONGEST_LABEL = 64
PROGRAMS_OWN = frozenset({"plan", "policy"})
"""Names under which the program itself files intents and writes events."""
SECRET_BITS = 256

_NAME = re.compile(NAMES, re.ASCII)
_SECRET = re.compile(r"ns_[A-Za-z0-9_-]{43}", re.ASCII)
_NOT_NOTED_FOR_S = 60.0
"""How long uses are not noted after the database was too busy to note one: nobody waits for that twice."""


class BadName(NightshiftError):
    """No user can have this name."""

    code = "user.bad_name"


class BadRole(NightshiftError):
    """No user can have this role."""

    code = "user.bad_role"


class BadLabel(NightshiftError):
    """No token can have this label."""

    code = "token.bad_label"


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedToken:
    """A new token with its secret: shown once, never stored, never logged."""

    id: str
    owner: str
    secret: str
    label: str
    created_at: Instant

    def __repr__(self) -> str:
        """Leave the secret out: a value that lands in a log or a traceback must not give it away."""
        return f"IssuedToken(id={self.id!r}, owner={self.owner!r}, label={self.label!r})"


def random_secret() -> str:
    """Return a new secret: `ns_` and 43 characters that are safe in URLs, 256 random bits."""
    return f"ns_{secrets.token_urlsafe(SECRET_BITS // 8)}"


class Users:
    """The users of one Nightshift. Safe to use from several threads."""

    def __init__(self, store: Store, clock: Clock, new_secret: Callable[[], str] = random_secret) -> None:
        self._accounts = store.accounts
        self._clock = clock
        self._new_secret = new_secret
        self._not_noted_until_machine_s = 0.0

    def add(self, name: str, role: Role, *, by: str) -> User:
        """Add a user; raises BadName, BadRole and UserExists."""
        if _NAME.fullmatch(name) is None or name in PROGRAMS_OWN:
            wanted = f"{name!r} is the program's own" if name in PROGRAMS_OWN else f"{name[:40]!r} is no user's name"
            raise BadName(f"{wanted}; write 1 to 32 of a-z, 0-9, '.', '_' and '-', a letter first", name=name[:40])
        if role not in (Role.STUDENT, Role.ADMIN):
            raise BadRole(f"no user can be a {role.value!r}; choose 'student' or 'admin'", role=role.value)
        user = User(name=name, role=role, created_at=self._clock.now())
        self._accounts.add(user, by=by)
        return user

    def all(self) -> tuple[User, ...]:
        """Return all users by name, disabled ones too."""
        return self._accounts.all()

    def user(self, name: str) -> User:
        """Return one user; raises UnknownUser."""
        found = self._accounts.user(name) if _NAME.fullmatch(name) else None
        if found is None:
            raise UnknownUser(f"there is no user {name[:40]!r}; list the users to see who is there", user=name[:40])
        return found

    def disable(self, name: str, *, by: str) -> User:
        """Let none of a user's tokens work any more; raises UnknownUser and LastAdmin. May be called twice."""
        return self._set_disabled(name, is_disabled=True, by=by)

    def enable(self, name: str, *, by: str) -> User:
        """Let a disabled user's tokens work again, those that are not revoked; raises UnknownUser."""
        return self._set_disabled(name, is_disabled=False, by=by)

    def _set_disabled(self, name: str, *, is_disabled: bool, by: str) -> User:
        self.user(name)
        return self._accounts.set_disabled(name, is_disabled=is_disabled, at=self._clock.now(), by=by)

    def issue_token(self, name: str, *, label: str, by: str) -> IssuedToken:
        """Make a token for a user; raises BadLabel, UnknownUser, UserDisabled and TooManyTokens."""
        if len(label) > LONGEST_LABEL or not label.isprintable():
            raise BadLabel(f"a label is one line of at most {LONGEST_LABEL} characters; write a shorter, plain one")
        self.user(name)
        secret = self._new_secret()
        if _SECRET.fullmatch(secret) is None:
            raise ValueError("a new secret has to be `ns_` and 43 characters of A-Z, a-z, 0-9, '_' and '-'")
        info = self._accounts.add_token(name, label=label, secret_sha256=_sha256(secret), at=self._clock.now(), by=by)
        return IssuedToken(id=info.id, owner=name, secret=secret, label=label, created_at=info.created_at)

    def tokens(self, name: str) -> tuple[TokenInfo, ...]:
        """Return a user's tokens, oldest first, revoked ones too; raises UnknownUser."""
        self.user(name)
        return self._accounts.tokens(name)

    def token(self, token_id: str) -> TokenInfo | None:
        """Return one token; None when there is none of that id."""
        return self._accounts.token(token_id)

    def revoke(self, token_id: str, *, by: str) -> TokenInfo:
        """Revoke a token, for good; raises UnknownToken. May be called twice."""
        return self._accounts.revoke(token_id, at=self._clock.now(), by=by)

    def authenticate(self, secret: str) -> User | None:
        """Return who holds a secret; None when it is unknown, revoked or of a disabled user. One small read."""
        if _SECRET.fullmatch(secret) is None:
            return None
        now_machine_s = self._clock.machine_s()
        bearer = self._accounts.bearer(_sha256(secret), now_machine_s=now_machine_s)
        if bearer is None:
            return None
        if bearer.is_use_to_note and now_machine_s >= self._not_noted_until_machine_s:
            try:
                self._accounts.note_use(bearer, at=self._clock.now(), now_machine_s=now_machine_s)
            except NightshiftError as error:
                if not error.retryable:
                    raise
                # When a token was used last is for people to look at; no request fails for it.
                self._not_noted_until_machine_s = now_machine_s + _NOT_NOTED_FOR_S
        return bearer.user


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode("ascii")).hexdigest()
