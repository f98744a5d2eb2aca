"""A simulated host under virtual time, for the contract suite and for the rack's own tests."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from scheduler.core.replay import VirtualClock
from scheduler.core.requests import HostId
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile
from tests.contract.hypervisor_contract import HostBench
from workers.drivers.simulated.rack import SimulatedRack
from workers.drivers.simulated.schema import Durability

BEGAN_AT: Instant = 1_772_478_000
HOST = HostId("dgx2-a")
IMAGE = "ubuntu-22.04-cuda"


class SimulatedBench(HostBench):
    """The rack is in memory, or in a directory."""

    def __init__(
        self, profile: HostProfile, *, directory: Path | None = None, seed: int = 1, boot_driver: str = "vfio-pci"
    ) -> None:
        self.profile = profile
        # All guests of a rack take their time to answer and to go.
        self.image = self.silent_image = self.deaf_image = IMAGE
        self.beyond_the_pool_gib = profile.pool_gib + 1
        self.clock = VirtualClock(BEGAN_AT)
        self.rack = SimulatedRack(
            directory,
            HOST,
            profile,
            self.clock,
            seed=seed,
            images=[IMAGE],
            durability=Durability.FAST,
            boot_driver=boot_driver,
        )
        self.drivers = self.rack.drivers()

    def now(self) -> Instant:
        return self.clock.now()

    def pass_time(self, seconds: int) -> None:
        self.clock.move_to(self.clock.now() + seconds)

    def run(self, call: Callable[[], None]) -> int:
        began_at = self.clock.now()
        with self.clock.branch() as branch:
            try:
                call()
            finally:
                ended_at = branch.now
                # What the caller does next is on the main line, at the instant at which the call came back.
                self.clock.move_to(ended_at)
        return ended_at - began_at

    def begin(self, call: Callable[[], None]) -> Instant:
        """Call a blocking verb while the main line stands still, and return when the call will come back."""
        with self.clock.branch() as branch:
            call()
        return branch.now

    def make_foreign_domain(
        self, name: str, gpus: tuple[int, ...], memory_gib_by_node: tuple[tuple[int, int], ...]
    ) -> UUID:
        return self.rack.make_foreign_domain(name, gpus, memory_gib_by_node=memory_gib_by_node)

    def take_memory(self, node: int) -> None:
        self.make_foreign_domain("hoarder", (), ((node, self.profile.memory_gib // 4),))
