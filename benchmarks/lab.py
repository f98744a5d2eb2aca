"""Real VMs on the virtual DGX-2: a start by Nightshift beside one by bare libvirt calls, and a swap of eight at once.

A start is measured from the filing of a request for all 16 GPUs, which can start at once, until the guest's agent is
connected, as a connection of its own sees it. The limit is a script of bare calls for the same domain with devices
that are bound already: create the disk, define, create, and the same wait. The goal is 1.15 times that.

The swap is from a VM with 16 GPUs to eight with 2 each, from the first stop that is asked until the last of the eight
is up. The limit is the longest single chain in that same swap: the stop, and all steps of the slowest of the eight. The
goal is 1.25 times that. Beside it stand the same steps one after the other, measured on the same host.

Nightshift's parts run in this process: store on a disk, plan task, converge with its threads, drivers; no Redis. The
host is emulated on the cores of this machine, its guests within that: so read the ratios. Needs the image of the
virtual DGX-2 (`make lab-image`, as root) and libvirt's binding; without them it ends with status 3.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.driver_calls import STEPS
from benchmarks.lab_figures import Start, Swap
from tests.lab.guest.build import BuildError, build_guest
from tests.lab.host_image import HostImage, HostImageError, build_host_image, default_cache
from tests.lab.machine import QEMU, boot

START_GOAL, SWAP_GOAL = 1.15, 1.25
NOT_HERE = 3
"""The exit status where something is missing that the virtual DGX-2 needs."""
PARTS = ("plan", "look", *STEPS, "between", "boot")


class NotHere(Exception):
    """Something is missing here; the message says what, in one line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=3, help="so many starts of either kind, in turn (%(default)s)")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where images are kept (%(default)s)")


def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure, print the tables and return the figures."""
    try:
        with tempfile.TemporaryDirectory(prefix="nightshift-lab.") as folder:
            return _run(Path(folder), arguments)
    except NotHere as missing:
        print(missing, file=sys.stderr)
        raise SystemExit(NOT_HERE) from missing


def _run(directory: Path, arguments: argparse.Namespace) -> dict[str, object]:
    image, guest_image = _images(directory, arguments.cache)
    # Imported late: libvirt's binding is not everywhere.
    from benchmarks.lab_measures import Bench

    with boot(image, directory / "host") as machine:
        bench = Bench(machine.uri, directory / "nightshift.sqlite3", guest_image)
        try:
            starts, bare = bench.starts(arguments.rounds)
            swap, came = bench.swap()
            in_turn_s = bench.one_after_the_other(came)
        finally:
            bench.close()
    _show(starts, bare, swap, in_turn_s)
    return {"start": start_figures(starts, bare), "swap": swap_figures(swap, in_turn_s)}


def _images(directory: Path, cache: Path) -> tuple[HostImage, Path]:
    """Return the image of the host and that of a guest. Raises NotHere."""
    for program in (QEMU, "qemu-img"):
        if shutil.which(program) is None:
            raise NotHere(f"cannot boot the virtual DGX-2: no {program} here (apt install qemu-system-x86 qemu-utils)")
    try:
        import libvirt  # noqa: F401
    except ImportError as error:
        raise NotHere(
            f"no libvirt for Python here ({error}): pip install libvirt-python, which needs libvirt-dev"
        ) from error
    try:
        return build_host_image(cache, progress=lambda text: print(text, file=sys.stderr)), build_guest(
            directory / "guest.img"
        )
    except (BuildError, HostImageError) as error:
        raise NotHere(str(error).partition("\n")[0]) from error


def start_figures(starts: Sequence[Start], bare: Sequence[Start]) -> dict[str, object]:
    """Return medians; the ratio is that of the medians."""
    nightshift_s, bare_s = _took_s(starts), _took_s(bare)
    return {
        "nightshift_s": round(nightshift_s, 2),
        "bare_s": round(bare_s, 2),
        "ratio": round(nightshift_s / bare_s, 3),
        "parts": {"nightshift": _part_s(starts), "bare": _part_s(bare)},
        "rounds": {
            "nightshift": [round(one.took_s, 2) for one in starts],
            "bare": [round(one.took_s, 2) for one in bare],
        },
    }


def swap_figures(swap: Swap, in_turn_s: float) -> dict[str, object]:
    return {
        "seconds": round(swap.took_s, 2),
        "longest_chain_s": round(swap.longest_chain_s, 2),
        "ratio": round(swap.took_s / swap.longest_chain_s, 3),
        "one_after_the_other_s": round(in_turn_s, 2),
        "stop_s": round(swap.stop_s, 2),
        "waited_s": round(swap.waited_s, 2),
        "again": swap.again,
        "chains_s": [round(chain.took_s, 2) for chain in swap.chains],
    }


def _took_s(measured: Sequence[Start]) -> float:
    return statistics.median(one.took_s for one in measured)


def _part_s(measured: Sequence[Start]) -> Mapping[str, float]:
    return {
        part: round(statistics.median(one.part_s[part] for one in measured), 3)
        for part in PARTS
        if part in measured[0].part_s
    }


def _show(starts: Sequence[Start], bare: Sequence[Start], swap: Swap, in_turn_s: float) -> None:
    out = Console()
    ratios = Table("ratio", "goal", "what", "took, s", "limit, s", "the limit is")
    start_ratio, swap_ratio = _took_s(starts) / _took_s(bare), swap.took_s / swap.longest_chain_s
    ratios.add_row(
        f"{start_ratio:.3f}",
        _verdict(start_ratio, START_GOAL),
        f"a start of 16 GPUs, median of {len(starts)}",
        f"{_took_s(starts):.2f}",
        f"{_took_s(bare):.2f}",
        "bare libvirt calls",
    )
    ratios.add_row(
        f"{swap_ratio:.3f}",
        _verdict(swap_ratio, SWAP_GOAL),
        "a swap from 16 to 8 times 2",
        f"{swap.took_s:.2f}",
        f"{swap.longest_chain_s:.2f}",
        "its longest chain",
    )
    ratios.add_row("", "", "the same steps one after the other", f"{in_turn_s:.2f}", "", "")
    out.print(ratios)

    parts = Table("part of a start", "Nightshift, s", "bare, s", title="Where a start goes (medians)")
    ours, theirs = _part_s(starts), _part_s(bare)
    for part in PARTS:
        parts.add_row(part, f"{ours[part]:.3f}", f"{theirs[part]:.3f}" if part in theirs else "")
    out.print(parts)

    slowest = max(swap.chains, key=lambda chain: chain.took_s)
    steps = " + ".join(f"{part} {took_s:.2f}" for part, took_s in slowest.part_s.items())
    out.print(f"the longest chain of the swap, s: stop {swap.stop_s:.2f} + {steps}")
    out.print(
        f"between the stop and the first step: {swap.waited_s:.2f} s; by rule {swap.by_rule_s} s of product time, since"
        " nobody sees through libvirt that devices are reset"
    )
    if swap.again:
        out.print(f"{swap.again} starts of the swap failed and were made once more")


def _verdict(ratio: float, goal: float) -> str:
    return f"{goal}: {'met' if ratio <= goal else 'missed'}"
