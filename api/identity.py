"""Who asks: the bearer of a token. Unknown, revoked and disabled look alike from outside."""

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from api.access import note_user
from api.problems import Problem, forbidden
from api.services import Given
from scheduler.core.requests import Role
from scheduler.store.accounts import User

_CHALLENGE = {"WWW-Authenticate": "Bearer"}
# For the description of the API; the header itself is read below, where each way to get it wrong has its answer.
_bearer = HTTPBearer(auto_error=False, description="A token as `nightshift user token` shows it: `ns_…`.")


def identify(request: Request, services: Given, _: Annotated[object, Security(_bearer)]) -> User:
    """Return the user whose token came with a request."""
    header = request.headers.get("authorization", "")
    if not header.strip():
        message = "no token was sent; send Authorization: Bearer ns_… (nightshift login keeps one for you)"
        raise Problem(401, "token.missing", message, headers=_CHALLENGE)
    scheme, _, secret = header.partition(" ")
    user = services.users.authenticate(secret.strip()) if scheme.lower() == "bearer" else None
    if user is None:
        message = "this token is not known, or not any more; ask an admin for a new one"
        raise Problem(401, "token.unknown", message, headers=_CHALLENGE)
    note_user(request, user.name)
    return user


Caller = Annotated[User, Depends(identify)]
"""Parameter of endpoints: who asks."""


async def identify_admin(user: Caller) -> User:
    """Return the user if they are an admin."""
    if user.role is not Role.ADMIN:
        raise forbidden("do this")
    return user


Admin = Annotated[User, Depends(identify_admin)]
"""Parameter of endpoints that only admins may use."""


def is_admin(user: User) -> bool:
    return user.role is Role.ADMIN
