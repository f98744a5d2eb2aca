"""Whether the parts of a Nightshift on this machine can be reached: the API's port, and what answers.

Each look is short, since who looks also keeps the clock. Holds no waiting and no decision.
"""

import errno
import socket
from pathlib import Path

from scheduler.core.errors import NightshiftError

LOOPBACK = "127.0.0.1"
STATUS_PATH = "/api/v1/status"
_QUESTION = f"GET {STATUS_PATH} HTTP/1.1\r\nHost: {LOOPBACK}\r\nConnection: close\r\n\r\n".encode("ascii")
_MOST_ANSWER = 4096
_LOOK_S = 0.3
_MOST_WAITING = 128


class PortTaken(NightshiftError):
    """The port cannot be had."""

    code = "up.port_taken"


def listening_socket(port: int, host: str = LOOPBACK) -> socket.socket:
    """Return a socket that listens, by default on this machine only; port 0 takes a free one. Raises PortTaken.

    The supervisor keeps it: while the API is started again its callers wait, and nobody else gets the port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_MOST_WAITING)
    except OSError as error:
        listening.close()
        taken = error.errno == errno.EADDRINUSE
        what = "is in use by another program" if taken else f"cannot be had: {error.strerror or error}"
        raise PortTaken(f"port {port} on {host} {what}; choose another one with --port", port=port) from error
    return listening


class StatusProbe:
    """Asks the API on this machine whether it answers: one question, which waits at its door until it is open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._asking: socket.socket | None = None

    def is_answered(self) -> bool:
        """Tell whether the answer has come, and is a yes. Never waits; call it again."""
        try:
            if self._asking is None:
                self._asking = socket.create_connection((LOOPBACK, self._port), timeout=_LOOK_S)
                self._asking.sendall(_QUESTION)
                self._asking.setblocking(False)
            answer = self._asking.recv(_MOST_ANSWER)
        except BlockingIOError:
            return False
        except OSError:
            answer = b""
        self.close()
        return answer.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200"))

    def close(self) -> None:
        """Ask anew the next time."""
        if self._asking is not None:
            self._asking.close()
            self._asking = None


def redis_answers(path: Path) -> bool:
    """Tell whether a Redis server answers on a Unix socket now."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(_LOOK_S)
        try:
            asking.connect(str(path))
            asking.sendall(b"PING\r\n")
            return asking.recv(64).startswith(b"+PONG")
        except OSError:
            return False
