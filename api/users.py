"""Users and their tokens. Admins make them; everybody may make, list and revoke tokens of their own."""

from fastapi import APIRouter, Response

from api.identity import Admin, Caller, is_admin
from api.problems import forbidden, unknown
from api.schemas import IssuedTokenOut, Nothing, TokenIn, TokenOut, TokensOut, UserIn, UserOut, UsersOut
from api.services import Given
from api.writing import PREFIX
from scheduler.core.requests import Role
from scheduler.store.accounts import User

router = APIRouter(tags=["users"])


@router.get("/users")
def list_users(user: Admin, services: Given) -> UsersOut:
    """List all users, disabled ones too."""
    return UsersOut(users=[_shown(one) for one in services.users.all()])


@router.post("/users", status_code=201)
def add_user(body: UserIn, user: Admin, services: Given, answer: Response) -> UserOut:
    """Add a user."""
    added = services.users.add(body.name, Role(body.role), by=user.name)
    answer.headers["Location"] = f"{PREFIX}/users/{added.name}"
    return _shown(added)


@router.get("/users/{name}")
def show_user(name: str, user: Caller, services: Given) -> UserOut:
    """Show a user; oneself, or for admins anybody."""
    return _shown(services.users.user(_named(name, user, "look at other users")))


@router.post("/users/{name}/disable")
def disable_user(name: str, user: Admin, services: Given, body: Nothing | None = None) -> UserOut:
    """Let none of a user's tokens work any more; what they have reserved stays."""
    return _shown(services.users.disable(name, by=user.name))


@router.post("/users/{name}/enable")
def enable_user(name: str, user: Admin, services: Given, body: Nothing | None = None) -> UserOut:
    """Let a disabled user's tokens work again."""
    return _shown(services.users.enable(name, by=user.name))


@router.get("/users/{name}/tokens")
def list_tokens(name: str, user: Caller, services: Given) -> TokensOut:
    """List a user's tokens; the secrets are not known any more."""
    tokens = services.users.tokens(_named(name, user, "list the tokens of others"))
    return TokensOut(
        tokens=[
            TokenOut(
                id=token.id,
                label=token.label,
                created_at=token.created_at,
                last_used_at=token.last_used_at,
                revoked_at=token.revoked_at,
            )
            for token in tokens
        ]
    )


@router.post("/users/{name}/tokens", status_code=201)
def issue_token(
    name: str, user: Caller, services: Given, answer: Response, body: TokenIn | None = None
) -> IssuedTokenOut:
    """Make a token; its secret is in this answer, and nowhere else."""
    label = "" if body is None else body.label
    issued = services.users.issue_token(_named(name, user, "make tokens for others"), label=label, by=user.name)
    # What is a secret must not lie in anybody's cache.
    answer.headers["Cache-Control"] = "no-store"
    return IssuedTokenOut(id=issued.id, label=issued.label, created_at=issued.created_at, secret=issued.secret)


@router.delete("/tokens/{id}", status_code=204)
def revoke_token(id: str, user: Caller, services: Given) -> None:
    """Revoke a token, for good."""
    token = services.users.token(id)
    if token is None or not (is_admin(user) or token.owner == user.name):
        raise unknown("token", id, code="token.unknown", remedy="list the tokens to see which there are")
    services.users.revoke(token.id, by=user.name)


def _named(name: str, user: User, what: str) -> str:
    """Return the name of a user whose matters are this user's business."""
    if name != user.name and not is_admin(user):
        raise forbidden(what)
    return name


def _shown(user: User) -> UserOut:
    return UserOut(name=user.name, role=user.role.value, created_at=user.created_at, is_disabled=user.is_disabled)
