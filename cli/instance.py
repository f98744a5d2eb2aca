"""The name of this life of a process, which its heartbeats, its events and its leases carry."""

import os
import secrets
import socket
from collections.abc import Mapping

INSTANCE = "NIGHTSHIFT_INSTANCE"


def instance_name(kind: str, environment: Mapping[str, str] | None = None) -> str:
    """Return the name that the supervisor gave, or one that nobody else has or ever had."""
    given = (os.environ if environment is None else environment).get(INSTANCE)
    return given or f"{kind}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
