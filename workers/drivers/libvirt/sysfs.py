"""The host's own sysfs, where the worker runs on the host itself: only there can devices be read and reset.

Holds reads and writes of single files. Which of them to trust for what is in `devices`.
"""

import os
from pathlib import Path

CONFIG_HEADER_BYTES = 64
"""What every user may read of a device's config space: the header."""


class Sysfs:
    """`/sys/bus/pci/devices`, or a tree that looks like it."""

    def __init__(self, root: Path = Path("/sys")) -> None:
        self._devices = root / "bus" / "pci" / "devices"

    def config_problem(self, address: str) -> str | None:
        """Return why a device does not answer on the bus; None when its config space can be read."""
        try:
            # No byte beyond: what lies there is not on every device harmless to read.
            with (self._devices / address / "config").open("rb", buffering=0) as file:
                header = file.read(CONFIG_HEADER_BYTES)
        except OSError as error:
            return f"its config space cannot be read: {error.strerror}"
        if len(header) < CONFIG_HEADER_BYTES:
            return f"only {len(header)} bytes of its config space can be read"
        return "config space reads all ones" if header == b"\xff" * len(header) else None

    def can_reset(self, address: str) -> bool:
        """Whether this process may reset a device, and the kernel knows how."""
        return os.access(self._devices / address / "reset", os.W_OK)

    def reset(self, address: str) -> None:
        """Reset a device and wait for it. Raises OSError. May be called again."""
        with (self._devices / address / "reset").open("w", encoding="ascii") as file:
            file.write("1")

    def boot_id(self) -> str:
        """Return the kernel's own name for this boot."""
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
