"""Where a host is reached: which libvirt URIs are taken, and what is wrong with any other.

    qemu:///system   qemu+unix:///system   qemu+ssh://root@dgx2-a/system   qemu+tls://dgx2-a/system
    qemu+tcp://127.0.0.1:16509/system      empty: a simulated rack

Taken apart by hand: what is written here ends in the arguments of a program, and is shown and kept as text. What is
understood is a closed list, so that no URI runs a command, leaves out a check of the other side, or holds a password.
"""

import re

LONGEST_URI = 512
LOCAL = ("qemu", "qemu+unix")
REMOTE = ("qemu+ssh", "qemu+tls", "qemu+tcp")
SCHEMES = (*LOCAL, *REMOTE)
PATHS = ("/system", "/session")
PARAMETERS = frozenset({"keyfile", "known_hosts", "mode", "no_tty", "pkipath", "proxy", "socket", "sshauth"})
"""Those of libvirt's that say where keys and sockets are; not `command`, `netcat` or `no_verify`."""
EXAMPLE = "qemu+ssh://root@dgx2-a/system"

_PARTS = re.compile(r"([a-z0-9+]*)://([^/?#]*)(/[^?#]*)?(?:\?([^#]*))?(#.*)?", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", re.ASCII)
_MACHINE = re.compile(r"(?:([A-Za-z0-9][A-Za-z0-9._-]{0,252})|\[([0-9A-Fa-f:.]{2,45})\])(?::([0-9]{1,5}))?", re.ASCII)
_LOOPBACK = re.compile(r"localhost|127(?:\.[0-9]{1,3}){3}|::1", re.ASCII)
_MOST_PORT = 65_535


def connect_problem(uri: str) -> str | None:
    """Return what is wrong with a libvirt URI, and what to write; None when it is sound.

    The answer never repeats a password.
    """
    if len(uri) > LONGEST_URI or not uri.isascii() or not uri.isprintable() or " " in uri:
        return f"it is not a libvirt URI of at most {LONGEST_URI} printable characters; write it like {EXAMPLE}"
    parts = _PARTS.fullmatch(uri)
    if parts is None:
        return f"it is not a libvirt URI; write it like {EXAMPLE}, or qemu:///system on the host itself"
    scheme, place, path, query, fragment = parts.groups()
    user, has_user, machine = place.rpartition("@")
    if ":" in user:
        return f"it holds a password, which would be kept and shown; leave it out, and use keys: {EXAMPLE}"
    if scheme not in SCHEMES:
        return f"its scheme is {scheme!r}; use one of {', '.join(SCHEMES)}, as in {EXAMPLE}"
    if path not in PATHS:
        return f"its path is {path or ''!r}; end it with /system (or /session for an ordinary user's libvirt)"
    if fragment is not None:
        return f"it has a part after #, which means nothing here; end it with {path}"
    problem = _local_problem(scheme, place, path) if scheme in LOCAL else _remote_problem(scheme, machine, path)
    if problem is None and has_user and _USER.fullmatch(user) is None:
        problem = "what stands before @ is not a user's name; write it like root@dgx2-a"
    return problem or _query_problem(query)


def machine_of(uri: str) -> str:
    """Return the name or address of the machine that a sound URI leads to; empty for the worker's own."""
    parts = _PARTS.fullmatch(uri)
    found = None if parts is None else _MACHINE.fullmatch(parts[2].rpartition("@")[2])
    return "" if found is None else (found[1] or found[2]).lower()


def _local_problem(scheme: str, place: str, path: str) -> str | None:
    if not place:
        return None
    return f"{scheme} reaches only the worker's own machine; write {scheme}://{path} there, or qemu+ssh://{place}{path}"


def _remote_problem(scheme: str, machine: str, path: str) -> str | None:
    found = _MACHINE.fullmatch(machine)
    if found is None:
        return f"it names no machine that {scheme} could reach; write {scheme}://NAME{path}"
    if found[3] is not None and not 1 <= int(found[3]) <= _MOST_PORT:
        return f"its port is {found[3]}; give 1 to {_MOST_PORT}"
    if scheme == "qemu+tcp" and _LOOPBACK.fullmatch(machine_of(f"{scheme}://{machine}{path}")) is None:
        return (
            "qemu+tcp has no encryption and no login, so it is taken only to this machine itself (127.0.0.1); use"
            " qemu+tls or qemu+ssh"
        )
    return None


def _query_problem(query: str | None) -> str | None:
    for parameter in (query or "").split("&"):
        name, _, value = parameter.partition("=")
        if query is not None and (name not in PARAMETERS or not value):
            return f"its parameter {name!r} is not taken; leave it out, or give one of {', '.join(sorted(PARAMETERS))}"
    return None
