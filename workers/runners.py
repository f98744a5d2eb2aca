"""Where chains of blocking steps run: threads in a worker, an agenda of instants in virtual time.

Chains of one key run one after the other, those of different keys at once. What the steps do is in `chains`.
"""

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

from scheduler.core.replay import Agenda, VirtualClock

_log = logging.getLogger(__name__)

Steps = tuple[Callable[[], None], ...]
Done = Callable[[Exception | None], None]


@dataclass(frozen=True, slots=True)
class _Chain:
    steps: Steps
    done: Done


class _Lines:
    """Which chains wait behind which: one line for each key, its first chain running."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[_Chain]] = {}

    def join(self, key: str, chain: _Chain) -> bool:
        """Queue a chain; True when it is the first and may run now."""
        if key in self._waiting:
            self._waiting[key].append(chain)
            return False
        self._waiting[key] = deque()
        return True

    def leave(self, key: str) -> _Chain | None:
        """Take the running chain off its line; return the next one, which may run now."""
        if self._waiting[key]:
            return self._waiting[key].popleft()
        del self._waiting[key]
        return None


class ThreadRunner:
    """Runs chains in threads of this process."""

    def __init__(self, threads: int) -> None:
        """`threads`: how many chains run at once; a host needs as many as it has smallest partitions, and some more."""
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="chain")
        self._lock = Lock()
        self._lines = _Lines()
        self._is_closing = False

    def run(self, key: str, steps: Steps, done: Done) -> None:
        chain = _Chain(steps, done)
        with self._lock:
            if self._is_closing:
                return
            if self._lines.join(key, chain):
                self._pool.submit(self._work, key, chain)

    def begin_close(self) -> None:
        """Begin no further step; nobody is told of chains that are cut short so."""
        with self._lock:
            self._is_closing = True

    def close(self) -> None:
        """Begin no further step, and wait for those that run."""
        self.begin_close()
        self._pool.shutdown(wait=True)

    def _work(self, key: str, chain: _Chain) -> None:
        following: _Chain | None = chain
        while following is not None and not self._is_closing:
            try:
                self._run_one(following)
            except Exception:
                # Only telling can fail here. Whoever was to be told looks again by himself; the line must go on.
                _log.exception("chain.not_told key=%s", key)
            with self._lock:
                following = self._lines.leave(key)

    def _run_one(self, chain: _Chain) -> None:
        for step in chain.steps:
            if self._is_closing:
                return
            try:
                step()
            except Exception as error:
                chain.done(error)
                return
        chain.done(None)


class AgendaRunner:
    """Runs chains on an agenda: each step in a branch of virtual time, what follows at the instant it returned."""

    def __init__(self, agenda: Agenda, clock: VirtualClock) -> None:
        self._agenda = agenda
        self._clock = clock
        self._lines = _Lines()
        self._is_killed = False
        self._held: list[Callable[[], None]] | None = None
        """What came due while the worker's process was stopped; None while it runs."""

    def run(self, key: str, steps: Steps, done: Done) -> None:
        if self._is_killed:
            return
        chain = _Chain(steps, done)
        if self._lines.join(key, chain):
            self._enter(key, chain, 0)

    def kill(self) -> None:
        """Let no later step of any chain run, as when the worker's process is killed."""
        self._is_killed = True

    def pause(self) -> None:
        """Let what follows wait for `resume`, as when the worker's process is stopped; a step under way ends."""
        self._held = self._held or []

    def resume(self) -> None:
        """Let what waited run now."""
        held, self._held = self._held or [], None
        for call in held:
            self._agenda.at(self._clock.now(), call)

    def _enter(self, key: str, chain: _Chain, number: int) -> None:
        self._agenda.at(self._clock.now(), lambda: self._step(key, chain, number))

    def _step(self, key: str, chain: _Chain, number: int) -> None:
        if self._held is not None:
            self._held.append(lambda: self._step(key, chain, number))
            return
        if self._is_killed:
            return
        failure: Exception | None = None
        with self._clock.branch() as branch:
            try:
                if number < len(chain.steps):
                    chain.steps[number]()
            except Exception as error:
                failure = error
        if failure is None and number + 1 < len(chain.steps):
            self._agenda.at(branch.now, lambda: self._step(key, chain, number + 1))
        else:
            self._agenda.at(branch.now, lambda: self._finish(key, chain, failure))

    def _finish(self, key: str, chain: _Chain, failure: Exception | None) -> None:
        if self._held is not None:
            self._held.append(lambda: self._finish(key, chain, failure))
            return
        if self._is_killed:
            return
        following = self._lines.leave(key)
        if following is not None:
            self._enter(key, following, 0)
        chain.done(failure)
