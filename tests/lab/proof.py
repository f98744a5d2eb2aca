"""What of a day on the virtual DGX-2 was proven: the last line of a run, for people and machines."""

import json
from dataclasses import dataclass

TENANTS = 3
NIGHT_GPUS, NIGHT_SWITCHES = 16, 12
NOT_PROVEN = 3
"""The exit status of a run that has not proven everything."""


@dataclass(slots=True, kw_only=True)
class Proof:
    """What was proven; the fields are what the last line says."""

    tenants: int = 0
    """Tenants whose guests ran with exactly the GPUs that they asked for."""
    gpus_seen: int = 0
    """By the night's guest."""
    switches_seen: int = 0
    dma_ok: int = 0
    """GPUs of the night's guest that moved data to and from its memory."""
    resumed_on_other_block: int = 0
    foreign_refused: bool = False
    survived_kill: bool = False
    survived_reboot: bool = False
    seconds: float = 0.0

    def is_whole(self) -> bool:
        return (
            self.tenants == TENANTS
            and (self.gpus_seen, self.dma_ok) == (NIGHT_GPUS, NIGHT_GPUS)
            and self.switches_seen == NIGHT_SWITCHES
            and self.resumed_on_other_block >= 1
            and self.foreign_refused
            and self.survived_kill
            and self.survived_reboot
        )

    def line(self) -> str:
        """Return the last line of a run."""
        return json.dumps({name: getattr(self, name) for name in self.__dataclass_fields__})
