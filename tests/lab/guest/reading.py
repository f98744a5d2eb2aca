"""Reads what the guest printed on its serial console: one report for each boot. Pure; needs neither compiler nor QEMU.

The guest prints lines of `GUEST <what> key=value ...`; `source/main.c` has them in order. A log may hold several boots
one after another, and may be cut off anywhere. A last line without its end is not read, because `dma_ok=1` may be the
beginning of `dma_ok=16`; nor is a line that lacks something.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

_PREFIX = "GUEST "
_BOOTED_PREFIX = "booted "
_BOOTED = re.compile(r"booted boots=(?P<boots>\d+) vcpus=(?P<vcpus>\d+) memory_mib=(?P<memory_mib>\d+)")
_DEVICE = (
    r"pci (?P<address>[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) (?P<id>[0-9a-f]{4}:[0-9a-f]{4}) class=(?P<pci_class>[0-9a-f]{6})"
)
_OUTCOME = "ok|FAIL|unreachable"
_GPU = re.compile(
    rf"{_DEVICE} kind=gpu ident=(?P<identification>\w+) compute=(?P<compute>{_OUTCOME}) dma=(?P<dma>{_OUTCOME})"
)
_SWITCH = re.compile(rf"{_DEVICE} kind=nvswitch")
_SUMMARY = re.compile(
    r"summary gpus=(?P<gpus>\d+) switches=(?P<switches>\d+) dma_ok=(?P<dma_ok>\d+) boots=(?P<boots>\d+)"
)


class Outcome(StrEnum):
    """How a GPU did in one trial."""

    OK = "ok"
    FAIL = "FAIL"
    UNREACHABLE = "unreachable"  # the firmware has placed its registers nowhere, or above 4 GiB


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReport:
    """One GPU stand-in, at its address in the guest (bb:dd.f), and how it did."""

    address: str
    id: str  # vendor:device
    pci_class: str  # 6 hex digits
    identification: str  # the register's 8 hex digits, or "unreachable"
    compute: Outcome
    dma: Outcome

    @property
    def is_usable(self) -> bool:
        """Return whether it computes and reaches the guest's memory."""
        return self.compute == Outcome.OK and self.dma == Outcome.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchReport:
    """One NVSwitch stand-in, at its address in the guest (bb:dd.f)."""

    address: str
    id: str  # vendor:device
    pci_class: str  # 6 hex digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The guest's own count, printed when all devices were tried."""

    gpus: int
    switches: int
    dma_ok: int
    boots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestReport:
    """What one boot has said so far; a running guest says more."""

    boots: int | None  # as counted on the disk, this one included; None if the log begins later
    vcpus: int | None = None
    memory_mib: int | None = None
    gpus: tuple[GpuReport, ...] = ()
    switches: tuple[SwitchReport, ...] = ()
    summary: Summary | None = None
    has_agent: bool = False
    is_ready: bool = False
    warned: tuple[str, ...] = ()
    was_button_pressed: bool = False
    ignored_presses: int = 0
    was_shut_down_by_agent: bool = False
    is_powered_off: bool = False
    faults: tuple[str, ...] = ()

    @property
    def dma_ok(self) -> int:
        """Count the GPUs that reach the guest's memory."""
        return sum(gpu.dma == Outcome.OK for gpu in self.gpus)


def read_console(text: str) -> tuple[GuestReport, ...]:
    """Read a console log; one report for each boot, the oldest first."""
    return tuple(_read_boot(lines) for lines in _boots(_guest_lines(text)))


def _guest_lines(text: str) -> Iterator[str]:
    # By newlines alone: a warning may hold characters that other splits would break at.
    for line in text.split("\n")[:-1]:
        if line.startswith(_PREFIX):
            yield line.removeprefix(_PREFIX).rstrip("\r")


def _boots(lines: Iterable[str]) -> Iterator[list[str]]:
    boot: list[str] = []
    for line in lines:
        if line.startswith(_BOOTED_PREFIX) and boot:
            yield boot
            boot = []
        boot.append(line)
    if boot:
        yield boot


def _read_boot(lines: list[str]) -> GuestReport:
    started = _BOOTED.fullmatch(lines[0])
    return GuestReport(
        boots=int(started["boots"]) if started else None,
        vcpus=int(started["vcpus"]) if started else None,
        memory_mib=int(started["memory_mib"]) if started else None,
        gpus=tuple(_gpu(match) for match in map(_GPU.fullmatch, lines) if match),
        switches=tuple(SwitchReport(**match.groupdict()) for match in map(_SWITCH.fullmatch, lines) if match),
        summary=next((_summary(match) for match in map(_SUMMARY.fullmatch, lines) if match), None),
        has_agent="agent open" in lines,
        is_ready="ready" in lines,
        warned=_after("warned ", lines),
        was_button_pressed="button" in lines or "button ignored" in lines,
        ignored_presses=lines.count("button ignored"),
        was_shut_down_by_agent="agent shutdown" in lines,
        is_powered_off="poweroff" in lines,
        faults=_after("fault what=", lines),
    )


def _after(prefix: str, lines: list[str]) -> tuple[str, ...]:
    return tuple(line.removeprefix(prefix) for line in lines if line.startswith(prefix))


def _gpu(match: re.Match[str]) -> GpuReport:
    return GpuReport(
        address=match["address"],
        id=match["id"],
        pci_class=match["pci_class"],
        identification=match["identification"],
        compute=Outcome(match["compute"]),
        dma=Outcome(match["dma"]),
    )


def _summary(match: re.Match[str]) -> Summary:
    return Summary(**{name: int(value) for name, value in match.groupdict().items()})
