"""OR-Tools' CP-SAT, which finds the plan that none is better than, where there is little to plan and time to wait.

It runs in an interpreter of its own, which holds OR-Tools and nothing of ours; the product never has it.
"""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from benchmarks.peers import child, cp_sat_child, venv
from benchmarks.peers.peer import NotHere

PACKAGE = "ortools==9.15.6755"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Requests for one host; instants in steps of any length, from now on."""

    gpus: int
    busy: tuple[tuple[int, int], ...]
    """`(gpus, until)`, on the first blocks in this order."""
    requests: tuple[tuple[int, int, int | None], ...]
    """`(gpus, run, start_by)`; None: nothing was promised."""
    starts: tuple[int, ...] = ()
    """Of a plan to begin with, if there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimum:
    """The least that was found in the time."""

    seconds: float
    weight: int
    """The sum of GPUs times starts."""
    bound: float
    """No plan is below it; as much as `weight` where that is proved to be the least."""
    starts: tuple[int, ...]

    @property
    def is_proved(self) -> bool:
        return self.bound >= self.weight - 0.5


def solve(problems: Sequence[Problem], *, seconds: float, workers: int) -> list[Optimum]:
    """Solve problems one after the other, each within so many seconds. Raises NotHere where none was found."""
    asked = {
        "seconds": seconds,
        "workers": workers,
        "cases": [asdict(one) for one in problems],
    }
    answer = child.ask("OR-Tools", interpreter(), cp_sat_child.__file__, asked)
    return [_told(case, seconds) for case in cast("Sequence[Mapping[str, object]]", answer["cases"])]


def _told(case: Mapping[str, object], seconds: float) -> Optimum:
    if case["weight"] is None:
        raise NotHere(f"CP-SAT found no plan within {seconds:g} s: give it more --seconds")
    return Optimum(
        seconds=cast("float", case["seconds"]),
        weight=cast("int", case["weight"]),
        bound=cast("float", case["bound"]),
        starts=tuple(cast("list[int]", case["starts"])),
    )


def interpreter() -> Path:
    """Return an interpreter that has OR-Tools: this one, or that of the venv which `install` makes."""
    if _is_beside_us():
        return Path(sys.executable)
    own = venv.find("ortools")
    if own is None:
        raise NotHere(
            f"OR-Tools is not here: pip install {PACKAGE}, or add --install, which gives it a venv of its own"
        )
    return own


def install() -> None:
    """Make a venv with OR-Tools, unless it is here. May be called twice."""
    if not _is_beside_us():
        venv.make("ortools", (PACKAGE,))


def _is_beside_us() -> bool:
    return importlib.util.find_spec("ortools") is not None
