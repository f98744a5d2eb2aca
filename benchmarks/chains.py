"""How long a swap took and how long its slowest chain had to take, by a simulated rack's log alone.

A chain is what no scheduler can shorten: a guest shuts down, its GPUs are reset, the next VM is started on them. What
each of these took stands in the log, from being asked to being done. All figures are seconds of product time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scheduler.core.requests import ReservationId
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile, PartitionId
from workers.drivers.simulated.log import LogLine

_RESETS = frozenset({"gpu.reset", "device.reset"})


class NotInLog(Exception):
    """The log does not hold what is to be measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """One change of a host from one layout to the other."""

    what: str
    took_s: int
    chain_s: int
    slowest: str
    """The chain, as its parts."""

    @property
    def ratio(self) -> float:
        return self.took_s / self.chain_s

    @property
    def overhead_s(self) -> int:
        """What was not the rack's own time."""
        return self.took_s - self.chain_s


def to_night(
    log: Sequence[LogLine],
    profile: HostProfile,
    *,
    opens_at: Instant,
    tenants: Iterable[ReservationId],
    night: ReservationId,
) -> Swap:
    """Measure from the window's opening until the guest of the whole-host job was up."""
    after = [line for line in log if line.at >= opens_at]
    start_s, start_text = _start(after, night)
    stops = []
    for tenant in tenants:
        off = _first(after, "vm.off", tenant)
        stop_s = off.at - _first(after, "vm.shutdown_asked", tenant).at
        reset_s = _reset_s(after, profile, off.partition, since_at=off.at)
        stops.append((stop_s + reset_s, f"{tenant}: stop {stop_s} + reset {reset_s}"))
    slowest_s, text = max(stops)
    return Swap(
        what="to night",
        took_s=_first(after, "guest.up", night).at - opens_at,
        chain_s=slowest_s + start_s,
        slowest=f"{text} + {night}: {start_text}",
    )


def and_back(
    log: Sequence[LogLine], profile: HostProfile, *, tenants: Iterable[ReservationId], night: ReservationId
) -> Swap:
    """Measure from the asking of the whole-host job to shut down until the last tenant was up again."""
    asked = _first(log, "vm.shutdown_asked", night)
    after = [line for line in log if line.seq >= asked.seq]
    off_at = _first(after, "vm.off", night).at
    stop_s = off_at - asked.at
    chains = []
    up_at = asked.at
    for tenant in tenants:
        start_s, start_text = _start(after, tenant)
        starting = _first(after, "vm.starting", tenant)
        reset_s = _reset_s(after, profile, starting.partition, since_at=off_at)
        chains.append((reset_s + start_s, f"reset {reset_s} + {tenant}: {start_text}"))
        up_at = max(up_at, _first(after, "guest.up", tenant).at)
    slowest_s, text = max(chains)
    return Swap(
        what="and back",
        took_s=up_at - asked.at,
        chain_s=stop_s + slowest_s,
        slowest=f"{night}: stop {stop_s} + {text}",
    )


def start_s(log: Sequence[LogLine], reservation: ReservationId) -> int:
    """Return what the rack itself took for the first start in a log: to copy a disk, to start, to boot."""
    return _start(log, reservation)[0]


def _start(log: Sequence[LogLine], reservation: ReservationId) -> tuple[int, str]:
    starting = _first(log, "vm.starting", reservation)
    running = _first(log, "vm.running", reservation)
    up = _first(log, "guest.up", reservation)
    disk = starting.fact("disk")
    copying = next((line for line in log if line.what == "disk.copying" and line.fact("disk") == disk), None)
    made = next((line for line in log if line.what == "disk.made" and line.fact("disk") == disk), None)
    copy_s = made.at - copying.at if copying is not None and made is not None else 0
    parts = [("copy", copy_s), ("start", running.at - starting.at), ("boot", up.at - running.at)]
    return sum(part_s for _, part_s in parts), " + ".join(f"{name} {part_s}" for name, part_s in parts if part_s)


def _reset_s(log: Sequence[LogLine], profile: HostProfile, partition: PartitionId | None, *, since_at: Instant) -> int:
    """Return the longest reset of a partition's devices: they are reset side by side."""
    assert partition is not None
    took = []
    for device in profile.devices(profile.partition(partition)):
        mine = [line for line in log if line.fact("device") == device and line.at >= since_at]
        asked = next((line.at for line in mine if line.what == "reset.asked"), None)
        done = next((line.at for line in mine if line.what in _RESETS), None)
        if asked is not None and done is not None:
            took.append(done - asked)
    if not took:
        raise NotInLog(f"no device of {partition} was reset")
    return max(took)


def _first(log: Iterable[LogLine], what: str, reservation: ReservationId) -> LogLine:
    found = next((line for line in log if line.what == what and line.reservation == reservation), None)
    if found is None:
        raise NotInLog(f"there is no {what} of {reservation}")
    return found
