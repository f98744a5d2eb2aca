"""The policy that holds on a server, as a text like that of a file."""

from cli.client import Json, Problem
from cli.connecting import Connection
from policies.files import PolicyText


def current_policy(connection: Connection) -> Json | None:
    """Return the version that holds, with its text; None if none does."""
    number = connection.client.get("/policies", limit=1).get("current")
    return None if number is None else connection.client.get(f"/policies/{number}")


def policy_on_server(connection: Connection) -> PolicyText:
    """Return the text that holds; raises Problem when none does."""
    found = current_policy(connection)
    if found is None:
        said = "no policy is applied; name a policy file"
        raise Problem(said, status=404, document={"code": "policy.unknown", "detail": said})
    return PolicyText(text=str(found["text"]), source=str(found["source"]), name=str(found["source"]))
