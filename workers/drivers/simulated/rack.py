"""A simulated host: opens its rack, hands out its drivers, and lets somebody beside it meddle with it.

Holds the way in. The ports' verbs are in `hypervisor`, `devices` and `images`, what happens by itself in `clockwork`.
"""

from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

from scheduler.core.requests import HostId
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile
from scheduler.service.ports import Clock
from workers.drivers.simulated import faults, log
from workers.drivers.simulated.calls import Calls
from workers.drivers.simulated.clockwork import next_due_at
from workers.drivers.simulated.devices import SimulatedFabric, SimulatedPci
from workers.drivers.simulated.faults import DEFAULT_OUTAGE_S, Fault
from workers.drivers.simulated.foreign import make_foreign
from workers.drivers.simulated.happenings import mend, reboot, vanish
from workers.drivers.simulated.hypervisor import SimulatedHypervisor
from workers.drivers.simulated.images import SimulatedGuest, SimulatedImages
from workers.drivers.simulated.log import LogLine
from workers.drivers.simulated.look import Looker
from workers.drivers.simulated.schema import BadRack, Durability, RackFile
from workers.drivers.simulated.state import VFIO, Due
from workers.ports import Drivers


class SimulatedRack:
    """One simulated host. Several processes may each have one on the same file; threads share one."""

    def __init__(
        self,
        directory: Path | None,
        host: HostId,
        profile: HostProfile,
        clock: Clock,
        *,
        seed: int,
        images: Iterable[str] = (),
        durability: Durability = Durability.SAFE,
        boot_driver: str = VFIO,
    ) -> None:
        """Open `<directory>/<host>.rack.sqlite`, making it if need be; None: in memory.

        `boot_driver` is what devices are bound to after a boot: `vfio-pci`, `nvidia`, or empty for none. A rack that
        exists keeps the seed and the boot driver that it was made with.
        """
        self.host = host
        self.profile = profile
        self._file = RackFile(None if directory is None else directory / f"{host}.rack.sqlite", durability)
        try:
            seed = self._found_or_made(seed, boot_driver, clock.now())
        except BaseException:
            self._file.close()
            raise
        self._calls = Calls(file=self._file, clock=clock, host=host, seed=seed, profile=profile)
        self._looker = Looker(self._calls)
        for image in images:
            self.install_image(image)

    def _found_or_made(self, seed: int, boot_driver: str, now: Instant) -> int:
        with self._file.writing() as connection:
            row = connection.execute("SELECT name, profile, seed FROM host").fetchone()
            if row is None:
                connection.execute(
                    "INSERT INTO host (id, name, profile, seed, boots, boot_driver, unreachable_until)"
                    " VALUES (1, ?, ?, ?, 1, ?, 0)",
                    (self.host, self.profile.name, seed, boot_driver),
                )
                devices: list[tuple[str, int | None, str]] = []
                devices += [(gpu.address, gpu.index, boot_driver) for gpu in self.profile.gpus]
                devices += [(switch.address, None, boot_driver) for switch in self.profile.nvswitches]
                devices += [(hca.address, None, boot_driver) for hca in self.profile.hcas]
                connection.executemany(
                    "INSERT INTO devices (address, gpu, driver, is_alive, is_clean, is_resetting)"
                    " VALUES (?, ?, ?, 1, 1, 0)",
                    devices,
                )
                log.append(connection, now, "host.made", detail={"profile": self.profile.name, "seed": seed})
                return seed
        found_host, found_profile, found_seed = row
        if (found_host, found_profile) != (self.host, self.profile.name):
            raise BadRack(
                f"{self._file.path}: this rack is host {found_host} of kind {found_profile}, not {self.host} of kind"
                f" {self.profile.name}; move the file away to begin a new rack",
                host=found_host,
                profile=found_profile,
            )
        return int(found_seed)

    def drivers(self) -> Drivers:
        """Return the ports of this host."""
        return Drivers(
            host=self.host,
            hypervisor=SimulatedHypervisor(self._calls, self._looker.look),
            pci=SimulatedPci(self._calls),
            fabric=SimulatedFabric(self._calls),
            images=SimulatedImages(self._calls),
            guest=SimulatedGuest(self._calls),
        )

    def install_image(self, name: str) -> None:
        """Let disks be made from an image of this name; may be called twice."""
        with self._file.writing() as connection:
            made = connection.execute("INSERT INTO images (name) VALUES (?) ON CONFLICT (name) DO NOTHING", (name,))
            if made.rowcount:
                state = self._calls.state(connection)
                state.now = max(state.now, log.last_at(connection))
                state.log("image.installed", image=name)

    def inject(self, fault: Fault) -> int:
        """Add a fault to the script and return its number."""
        with self._calls.beside(self._calls.clock.now()) as state:
            number = faults.insert(state.connection, fault)
            if fault.at is not None:
                state.due(fault.at, Due.FAULT, str(number))
            state.log(
                "fault.injected",
                fault=number,
                kind=fault.kind.value,
                verb=None if fault.verb is None else fault.verb.value,
                subject=fault.subject,
                due_at=fault.at,
            )
            return number

    def clear_faults(self) -> None:
        """Take back every fault that waits for a call; what has befallen the host already stays."""
        with self._calls.beside(self._calls.clock.now()) as state:
            faults.clear(state.connection)
            state.log("faults.cleared")

    def reboot(self, now: Instant, *, down_s: int = DEFAULT_OUTAGE_S) -> None:
        """Reboot the host now; it answers again `down_s` later."""
        with self._calls.beside(now) as state:
            reboot(state, state.now + down_s)

    def mend_device(self, address: str) -> None:
        """Repair a dead device; it is dirty until it is reset."""
        with self._calls.beside(self._calls.clock.now()) as state:
            mend(state, address)

    def make_foreign_domain(
        self,
        name: str,
        gpus: tuple[int, ...],
        *,
        memory_gib_by_node: tuple[tuple[int, int], ...] | None = None,
        disk: str | None = None,
        disk_gib: int = 100,
    ) -> UUID:
        """Make a running domain by hand, without our metadata. Raises DeviceInUse where libvirt would.

        `memory_gib_by_node` None: what our own VM on these GPUs would have; `disk` is a volume made with it.
        """
        with self._calls.beside(self._calls.clock.now()) as state:
            return UUID(
                make_foreign(state, name, gpus, memory_gib_by_node=memory_gib_by_node, disk=disk, disk_gib=disk_gib)
            )

    def remove_domain(self, uuid: UUID) -> None:
        """Stop and undefine a domain by hand, whoever made it; its disk stays. An unknown one is a success."""
        with self._calls.beside(self._calls.clock.now()) as state:
            domain = state.domain(str(uuid))
            if domain is not None:
                vanish(state, domain, "vm.undefined")

    def next_due_at(self) -> Instant | None:
        """Return the next instant at which something changes by itself; it may be past if nobody looked since."""
        with self._file.reading() as connection:
            return next_due_at(self._calls.state(connection))

    def log(self, after_seq: int = 0) -> tuple[LogLine, ...]:
        """Return what happened up to now, oldest first."""
        self._calls.let_pass()
        with self._file.reading() as connection:
            return log.read(connection, after_seq)

    def close(self) -> None:
        """Close the file; the rack goes on."""
        self._file.close()
