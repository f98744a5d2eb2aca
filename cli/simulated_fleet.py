"""The hosts that policies are tried on: so many of one kind, or those of a server."""

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass

from cli.connecting import Connection
from policies.simulating import SimulatedHost
from scheduler.core.errors import NightshiftError
from scheduler.core.plan import Host
from scheduler.core.requests import HostId
from scheduler.core.topology import HostProfile
from scheduler.profiles.loading import load_profile

MOST_HOSTS = 1_000
_NAME = re.compile(r"(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
"""With a letter in it: a number that is none is no name."""


class BadFleet(NightshiftError):
    """No hosts to try a policy on."""

    code = "simulation.hosts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Hosts and their kinds."""

    hosts: tuple[SimulatedHost, ...]
    profiles: Mapping[str, HostProfile]

    @property
    def largest(self) -> int:
        """GPUs of the largest VM."""
        return max(max(self.profiles[host.profile].sizes) for host in self.hosts)

    @property
    def text(self) -> str:
        """`17 × dgx-2`."""
        names = [host.profile for host in self.hosts]
        return " and ".join(f"{names.count(name)} × {name}" for name in sorted(set(names)))

    def planned(self) -> tuple[Host, ...]:
        """Return them as a plan has them."""
        return tuple(Host(id=h.id, profile=self.profiles[h.profile], storage=h.storage) for h in self.hosts)


def named_fleet(hosts: str, profile: str) -> Fleet:
    """Return so many hosts, or those that are named, `a,b,c`, of one kind; each has its own storage.

    Three hosts of `dgx-2` are called dgx2-a, dgx2-b and dgx2-c. Raises BadFleet, and what a profile has wrong.
    """
    kind = load_profile(profile)
    if hosts.isdecimal():
        count = int(hosts[:9])
        if not 1 <= count <= MOST_HOSTS:
            raise BadFleet(f"--hosts is {hosts}; write a number from 1 to {MOST_HOSTS}, or names as a,b,c")
        prefix = kind.name.replace("-", "")
        names = [f"{prefix}-{_letters(number)}" for number in range(count)]
    else:
        names = [name.strip() for name in hosts.split(",")]
        if not all(map(_NAME.fullmatch, names)) or len(set(names)) < len(names) or len(names) > MOST_HOSTS:
            raise BadFleet(f"--hosts is {hosts!r}; write a number from 1 to {MOST_HOSTS}, or different names as a,b,c")
    return Fleet(
        hosts=tuple(SimulatedHost(id=HostId(name), profile=kind.name, storage=name) for name in names),
        profiles={kind.name: kind},
    )


def fleet_of_server(connection: Connection, profile: str) -> Fleet:
    """Return a server's hosts but for those that are drained. `profile`: one that may not be among those that ship."""
    found = [one for one in connection.client.get("/hosts")["hosts"] if not one["is_drained"]]
    if not found:
        raise BadFleet(f"{connection.client.address.url} has no hosts that are not drained; give --hosts N")
    own = load_profile(profile)
    profiles = {name: own if name == own.name else load_profile(name) for name in {str(h["profile"]) for h in found}}
    hosts = [
        SimulatedHost(id=HostId(str(h["id"])), profile=str(h["profile"]), storage=str(h["storage"])) for h in found
    ]
    return Fleet(hosts=tuple(sorted(hosts, key=lambda host: host.id)), profiles=dict(sorted(profiles.items())))


def _letters(number: int) -> str:
    """Return a, b, … z, aa, ab, …"""
    letters = string.ascii_lowercase
    before, last = divmod(number, len(letters))
    return (_letters(before - 1) if before else "") + letters[last]
