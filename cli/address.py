"""Where the server is and who speaks: from options, the environment, what `login` kept, or the server on this machine.

Holds no HTTP. A token is never sent in clear to another machine unless that was asked for.
"""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from scheduler.core.errors import NightshiftError

ENV_SERVER, ENV_TOKEN = "NIGHTSHIFT_SERVER", "NIGHTSHIFT_TOKEN"
ENV_CONFIG, ENV_DATA = "NIGHTSHIFT_CONFIG", "NIGHTSHIFT_DATA"
_LONGEST_FILE = 64 * 1024
_HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,62})?(\.[a-z0-9_]([a-z0-9_-]{0,62})?)*\.?", re.ASCII)


class NoServer(NightshiftError):
    """Nothing says where the server is, or what says it is not usable."""

    code = "server.unnamed"


class NoToken(NightshiftError):
    """Nothing says who speaks."""

    code = "token.missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A server, and the token to speak to it with."""

    url: str
    """Without a slash at its end."""
    token: str | None
    source: str
    """What named the server, for people."""

    @property
    def is_loopback(self) -> bool:
        return _is_loopback(urlsplit(self.url).hostname or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What `nightshift login` wrote."""

    url: str
    token: str


def find_address(
    *, server: str | None, token: str | None, is_insecure_allowed: bool, environ: Mapping[str, str]
) -> Address:
    """Return where to speak; raises NoServer.

    The token of one place is never sent to another: what `login` kept and what lies in the local data directory
    go only to their own server.
    """
    server = server or environ.get(ENV_SERVER) or None
    token = token or environ.get(ENV_TOKEN) or None
    kept = read_kept(environ)
    local = _local(environ)
    known = [(found, source) for found, source in ((kept, "nightshift login"), (local, "nightshift up")) if found]
    if server is not None:
        url = checked_url(server)
        own = next((found.token for found, _ in known if found.url == url), None)
        found, source = Kept(url=url, token=own or ""), "--server or NIGHTSHIFT_SERVER"
    elif known:
        found, source = known[0]
    else:
        raise NoServer(
            "no server is named and none runs here; start one with `nightshift up`, or name one with"
            " `nightshift login URL` or NIGHTSHIFT_SERVER"
        )
    address = Address(url=found.url, token=token or found.token or None, source=source)
    _refuse_clear_text(address, is_insecure_allowed)
    return address


def checked_url(text: str) -> str:
    """Return a server's URL in the one form that is compared and kept; raises NoServer."""
    written = text.strip()
    try:
        parts = urlsplit(written if "://" in written else f"http://{written}")
        is_usable = parts.scheme in ("http", "https") and parts.port != 0 and _is_host(parts.hostname or "")
    except ValueError:
        is_usable = False
        parts = urlsplit("")
    if not is_usable or parts.query or parts.fragment or "@" in parts.netloc or not written.isprintable():
        raise NoServer(
            f"{text!r} is not a server's address; write it like http://127.0.0.1:8470 or https://gpu.uni.edu"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/api/v1')}"


def kept_path(environ: Mapping[str, str]) -> Path:
    """Return where `login` keeps server and token."""
    named = environ.get(ENV_CONFIG)
    if named:
        return Path(named)
    import platformdirs

    return platformdirs.user_config_path("nightshift") / "client.toml"


def read_kept(environ: Mapping[str, str]) -> Kept | None:
    """Return what `login` kept; None if it never was, raises NoServer when the file is not readable."""
    path = kept_path(environ)
    text = _text(path)
    if text is None:
        return None
    try:
        values = tomllib.loads(text)
        url, token = values["server"], values["token"]
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise NoServer(f"{path} is damaged ({error}); run `nightshift login` again") from error
    if not isinstance(url, str) or not isinstance(token, str):
        raise NoServer(f"{path} is damaged (server and token must be texts); run `nightshift login` again")
    return Kept(url=checked_url(url), token=token)


def keep(kept: Kept, environ: Mapping[str, str]) -> Path:
    """Write what `login` keeps, readable by its owner alone; whole or not at all. Raises NoServer."""
    path = kept_path(environ)
    # A JSON text is a TOML text too, for what a URL and a token may hold.
    text = f"server = {json.dumps(kept.url)}\ntoken = {json.dumps(kept.token)}\n"
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        beside.replace(path)
    except OSError as error:
        raise NoServer(f"cannot write {path}: {error.strerror}; name another file with {ENV_CONFIG}") from error
    return path


def data_directory(environ: Mapping[str, str]) -> Path:
    """Return the data directory of the server on this machine."""
    named = environ.get(ENV_DATA)
    if named:
        return Path(named)
    import platformdirs

    return platformdirs.user_data_path("nightshift")


def _local(environ: Mapping[str, str]) -> Kept | None:
    """Return the server that runs here, if one does and tells where."""
    data = data_directory(environ)
    text = _text(data / "up.json")
    if text is None:
        return None
    try:
        said = json.loads(text)
        url = checked_url(said["url"]) if isinstance(said["url"], str) else None
    except (ValueError, KeyError, TypeError, NoServer):
        return None
    if url is None:
        return None
    return Kept(url=url, token=(_text(data / "admin.token") or "").strip())


def _text(path: Path) -> str | None:
    """Return a small text file; None if it is not there or not ours to read."""
    try:
        with path.open("rb") as file:
            return file.read(_LONGEST_FILE).decode("utf-8")
    except (OSError, ValueError):
        return None


def _refuse_clear_text(address: Address, is_allowed: bool) -> None:
    if address.url.startswith("http://") and not address.is_loopback and not is_allowed:
        raise NoServer(
            f"{address.url} is another machine and http:// would send your token readable for everyone between;"
            " use https://, or add --insecure if that network is yours alone"
        )


def _is_host(text: str) -> bool:
    if _HOST_NAME.fullmatch(text):
        return True
    try:
        return bool(ip_address(text))
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
