"""Policies in simulated time side by side: each in a process of its own, or one after the other where that fails."""

import gc
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from zoneinfo import ZoneInfo

from policies.format import LoadedPolicy
from policies.loading import load_policy
from policies.simulated_figures import Figures, figures
from policies.simulating import SimulatedHost, Wanted, simulate
from scheduler.core.rules import Group
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile

FEW = 300
"""So few requests are simulated sooner than processes are started."""
_EVERY = 20
"""Requests between two words about progress."""
_GARBAGE = 10_000, 50, 1_000
"""How much Python lets come together before it looks for cycles."""

Moved = Callable[[int, int], None]
"""Is told which case has made how many requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All that a run depends on; small, so that it can be handed to another process."""

    text: str
    source: str
    wanted: tuple[Wanted, ...]
    hosts: tuple[SimulatedHost, ...]
    profiles: tuple[HostProfile, ...]
    from_at: Instant
    until_at: Instant
    zone: str
    groups: tuple[Group, ...] = ()
    may_be_compiled: bool = True


def figures_of(case: Case, moved: Callable[[int], None] | None = None) -> Figures:
    """Simulate one policy; raises PolicyRefused."""
    policy = load_policy(case.text, source=case.source)
    assert isinstance(policy, LoadedPolicy), policy
    by_name = {profile.name: profile for profile in case.profiles}
    run = simulate(
        policy,
        case.wanted,
        case.hosts,
        from_at=case.from_at,
        until_at=case.until_at,
        settings=Settings(),
        profiles=by_name.__getitem__,
        may_be_compiled=case.may_be_compiled,
        moved=moved,
    )
    return figures(
        policy, run, from_at=case.from_at, until_at=case.until_at, zone=ZoneInfo(case.zone), groups=case.groups
    )


def side_by_side(cases: Sequence[Case], moved: Moved) -> list[Figures]:
    """Return the figures of each case, in their order."""
    found: dict[int, Figures] = {}
    if (os.cpu_count() or 1) > 1 and max(len(case.wanted) for case in cases) > FEW:
        found = _in_processes(cases, moved)
    for number, case in enumerate(cases):
        if number not in found:
            # What failed there fails here too, and says why.
            found[number] = figures_of(case, lambda made, number=number: moved(number, made))  # type: ignore[misc]
    return [found[number] for number in range(len(cases))]


def _in_processes(cases: Sequence[Case], moved: Moved) -> dict[int, Figures]:
    """Return the figures of those cases whose process came to an end."""
    context = get_context("spawn")
    found: dict[int, Figures] = {}
    processes = []
    number_by_pipe: dict[Pipe, int] = {}
    try:
        for number, case in enumerate(cases):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(case, theirs), daemon=True)
            with suppress(OSError), _no_interrupts():
                process.start()
                processes.append(process)
                number_by_pipe[ours] = number
            theirs.close()
        while number_by_pipe:
            for pipe in wait(list(number_by_pipe)):
                assert isinstance(pipe, Pipe)
                _hear(pipe, number_by_pipe, found, moved)
    finally:
        for process in processes:
            process.terminate()
            process.join()
    return found


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Start what leaves Ctrl-C to whoever started it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _hear(pipe: Pipe, number_by_pipe: dict[Pipe, int], found: dict[int, Figures], moved: Moved) -> None:
    number = number_by_pipe[pipe]
    try:
        said = pipe.recv()
    except EOFError:
        del number_by_pipe[pipe]
        return
    if isinstance(said, int):
        moved(number, said)
    else:
        found[number] = said
        del number_by_pipe[pipe]


def _work(case: Case, pipe: Pipe) -> None:
    """Simulate one policy in a process of its own; whoever started it ends it."""
    told = 0
    # What was imported stays, and hardly anything is in cycles: looking for them costs a twentieth of the time.
    gc.freeze()
    gc.set_threshold(*_GARBAGE)

    def moved(made: int) -> None:
        nonlocal told
        if made >= told + _EVERY:
            told = made
            pipe.send(made)

    with suppress(Exception):
        # Whoever started it does the same once more, and hears what is wrong.
        pipe.send(figures_of(case, moved))
    pipe.close()
