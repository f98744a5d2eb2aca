"""Hosts as a worker reaches them: a simulated rack in its data directory, or a real host behind a libvirt URI.

Holds how each is opened and what a worker asks of either besides the ports. Everything about libvirt is imported only
when a host needs it: a worker of simulated hosts runs without.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from scheduler.core.errors import NightshiftError
from scheduler.core.plan import Host
from scheduler.core.spans import Instant
from scheduler.service.ports import Clock
from workers.drivers.simulated.rack import SimulatedRack
from workers.drivers.simulated.schema import rack_path
from workers.ports import Drivers

REAL_SPEED = 1.0


class NoRack(NightshiftError):
    """A host of the plan is simulated, and its rack is not where this worker runs."""

    code = "host.no_rack"


class NoLibvirt(NightshiftError):
    """A host is real, and the binding to libvirt is not installed where this worker runs."""

    code = "host.no_libvirt"


class RealHostNeedsRealTime(NightshiftError):
    """Product time is scaled: promises on a real host would be about another time than its own."""

    code = "host.needs_real_time"


class Reached(Protocol):
    """One host, opened."""

    def drivers(self) -> Drivers:
        """Return its ports."""

    def need_images(self, images: Iterable[str]) -> None:
        """See to it that disks can be made from these, or say which cannot. Raises HostUnreachable."""

    def next_due_at(self) -> Instant | None:
        """Return when something changes on it by itself that no event will tell of."""

    def close(self) -> None:
        """Let go of it; the host goes on."""


class ReachedRack:
    """A simulated rack."""

    def __init__(self, rack: SimulatedRack) -> None:
        self._rack = rack

    def drivers(self) -> Drivers:
        return self._rack.drivers()

    def need_images(self, images: Iterable[str]) -> None:
        for image in images:
            self._rack.install_image(image)

    def next_due_at(self) -> Instant | None:
        return self._rack.next_due_at()

    def close(self) -> None:
        self._rack.close()


def reach(host: Host, data: Path, clock: Clock, *, speed: float, on_change: Callable[[], None]) -> Reached:
    """Open a host of the plan. `on_change` is called when something happened on it.

    Raises NoRack, NoLibvirt, RealHostNeedsRealTime; whether a real host answers is seen at its first look.
    """
    if not host.connect:
        return _rack(host, data, clock)
    if speed != REAL_SPEED:
        raise RealHostNeedsRealTime(
            f"{host.id} is a real host ({host.connect}), and time goes at speed {speed:g} here; start Nightshift"
            " without --speed",
            host=host.id,
        )
    try:
        from workers.drivers.libvirt.host import LibvirtHost
    except ImportError as error:
        raise NoLibvirt(
            f"{host.id} is reached by {host.connect}, and there is no libvirt for Python here ({error}); install"
            " nightshift[host], which needs gcc, pkg-config and libvirt-dev",
            host=host.id,
        ) from error
    return LibvirtHost(host.id, host.profile, host.connect, on_change=on_change)


def _rack(host: Host, data: Path, clock: Clock) -> Reached:
    path = rack_path(data, host.id)
    if not path.exists():
        # Never made here: a name that is misspelt must not become a machine.
        raise NoRack(
            f"{host.id} has no rack: there is no {path}; make one with nightshift up --rack"
            f" {host.id}={host.profile.name}, or start the worker of {host.id} where its data is",
            host=host.id,
        )
    # A rack that exists keeps the seed that it was made with; one of another kind of host is refused.
    return ReachedRack(SimulatedRack(data / "racks", host.id, host.profile, clock, seed=0))
