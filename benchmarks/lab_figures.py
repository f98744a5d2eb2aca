"""What came out on the virtual DGX-2: a start, and a swap of eight. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A start: seconds from the asking until its guest was up, and what they went to."""

    took_s: float
    part_s: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """A swap of eight."""

    took_s: float
    stop_s: float
    """From the first stop that was asked until that VM was off."""
    waited_s: float
    """From then until the first step of the first start."""
    by_rule_s: int
    """As long has to pass where it cannot be seen that devices are reset."""
    again: int
    """Starts that failed and were made once more; only the last of a VM is in its chain."""
    chains: tuple[Start, ...]
    """Of each VM that came: from its first step until its guest was up."""

    @property
    def longest_chain_s(self) -> float:
        return self.stop_s + max(chain.took_s for chain in self.chains)
