"""An installation: where its data, database and Redis are; and its parts put together for one process.

Reads the environment and the data directory's names. Holds no command. The server's parts are imported by `open_parts`
alone, so that a student's commands can ask where an installation is without them.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from cli.redis_server import socket_path
from scheduler.core.errors import NightshiftError

if TYPE_CHECKING:
    from scheduler.core.settings import Settings
    from scheduler.core.topology import HostProfile
    from scheduler.service.clock import InstallationClock
    from scheduler.service.facts_cache import FactsCache
    from scheduler.service.plan_cache import PlanCache
    from scheduler.service.submit import Desk
    from scheduler.store.store import Store
    from workers.wake import CeleryWake, NoWake

DATA = "NIGHTSHIFT_DATA"
DATABASE = "NIGHTSHIFT_DATABASE"
REDIS = "NIGHTSHIFT_REDIS"
DEFAULT_PORT = 8470


class BadInstallation(NightshiftError):
    """What the environment says of an installation cannot be."""

    code = "installation.bad"


def own_redis_url(data: Path) -> str:
    """Return where the Redis is that `nightshift up` runs for a data directory; a path is quoted in a URL."""
    return f"redis+socket://{quote(str(socket_path(data)))}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """Where an installation is. The same for all of its processes."""

    data: Path
    database_url: str
    """`sqlite:///…` or `postgresql://…`."""
    redis_url: str
    """`redis://…` or `redis+socket:///path.sock`."""

    @classmethod
    def found(cls, data: Path | None = None) -> "Installation":
        """Return the installation that `data`, the environment or the user's own data directory names."""
        if data is None:
            named = os.environ.get(DATA)
            data = Path(named) if named else _users_data()
        # All processes must mean the same place, wherever each was started.
        data = data.expanduser().absolute()
        if data.exists() and not data.is_dir():
            raise BadInstallation(f"{data} is not a directory; name a data directory with --data", data=str(data))
        if "?" in str(data) and not os.environ.get(DATABASE):
            raise BadInstallation(
                f"{data}: the URL of a database cannot hold '?'; name another directory", data=str(data)
            )
        return cls(
            data=data,
            database_url=os.environ.get(DATABASE) or f"sqlite:///{data / 'nightshift.sqlite3'}",
            redis_url=os.environ.get(REDIS) or own_redis_url(data),
        )

    def environment(self) -> dict[str, str]:
        """Return what tells another process of this installation."""
        return {DATA: str(self.data), DATABASE: self.database_url, REDIS: self.redis_url}

    @property
    def up_lock(self) -> Path:
        return self.data / "up.lock"

    @property
    def up_file(self) -> Path:
        return self.data / "up.json"

    @property
    def clock_file(self) -> Path:
        return self.data / "clock.json"

    @property
    def admin_token_file(self) -> Path:
        return self.data / "admin.token"

    @property
    def racks(self) -> Path:
        return self.data / "racks"

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    @property
    def redis_socket(self) -> Path:
        return socket_path(self.data)

    @property
    def redis_directory(self) -> Path:
        return self.data / "redis"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What every server process is put together from."""

    installation: Installation
    store: "Store"
    clock: "InstallationClock"
    wake: "CeleryWake | NoWake"
    plans: "PlanCache"
    known_facts: "FactsCache"
    desk: "Desk"
    settings: "Settings"
    profiles: "Callable[[str], HostProfile]"

    def close(self) -> None:
        """Send what still waits to be sent, for at most a second, and close the database."""
        self.wake.close()
        self.store.close()


def open_parts(installation: Installation, *, is_waking: bool = True) -> Parts:
    """Open an installation; its database is not migrated by this. Not waking: who files here leaves it to the tick."""
    from scheduler.core.settings import Settings
    from scheduler.profiles.loading import load_profile
    from scheduler.service.clock import open_clock
    from scheduler.service.facts_cache import FactsCache
    from scheduler.service.plan_cache import PlanCache
    from scheduler.service.submit import Desk
    from scheduler.store.store import Store
    from workers.wake import CeleryWake, NoWake

    profiles = lru_cache(maxsize=None)(load_profile)
    clock = open_clock(installation.data)
    store = Store.open(installation.database_url, profiles=profiles)
    wake = CeleryWake(installation.redis_url) if is_waking else NoWake()
    return Parts(
        installation=installation,
        store=store,
        clock=clock,
        wake=wake,
        plans=PlanCache(store, clock),
        known_facts=FactsCache(store),
        desk=Desk(store=store, clock=clock, wake=wake),
        settings=Settings(),
        profiles=profiles,
    )


def _users_data() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("nightshift"))
