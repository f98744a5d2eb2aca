"""The children of one supervisor: started, written down, started again when they die, and ended together.

Holds how that is done for any of them. Which there are, in which order, and what their death means is in `stack`.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from cli.children import Child, ChildEnd, ChildSpec, cut_log
from cli.data_directory import ChildRecord, birth_of, write_children
from cli.installation import Installation

REDIS, WORKER, TICKER, API = "redis", "worker", "ticker", "api"
LOOK_EVERY_S = 0.02
_GONE_AFTER_KILL_S = 0.3


class Family:
    """Not for several threads."""

    def __init__(self, installation: Installation, on_line: Callable[[str], None]) -> None:
        self._installation = installation
        self._on_line = on_line
        self._children: dict[str, Child] = {}
        # Children live as long as the thread that started them: this one is ours until the end.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="starter")

    def add(
        self, name: str, command: tuple[str, ...], *, environment: Mapping[str, str], passes: tuple[int, ...] = ()
    ) -> None:
        """Start a new child; from now on `tend` keeps it running."""
        log = self._installation.logs / f"{name}.log"
        cut_log(log)
        spec = ChildSpec(name=name, command=command, log=log, environment=environment, passes=passes)
        self._children[name] = Child(spec=spec)
        self._start(self._children[name])

    def get(self, name: str) -> Child | None:
        return self._children.get(name)

    def all(self) -> tuple[Child, ...]:
        return tuple(self._children.values())

    def tend(self) -> tuple[ChildEnd, ...]:
        """Start again whom it is time for, and return who has died since the last call."""
        now_s = time.monotonic()
        ends = []
        for child in self._children.values():
            end = child.poll(now_s)
            if end is not None:
                ends.append(end)
            if child.start_again_at_s is not None and now_s >= child.start_again_at_s:
                self._start(child)
        if ends:
            self._write_down()
        return tuple(ends)

    def _start(self, child: Child) -> None:
        # Random and of one length: no instance's name begins with another's.
        instance = f"{child.spec.name}-{secrets.token_hex(4)}"
        try:
            self._starter.submit(child.start, instance, time.monotonic()).result()
        except OSError as error:
            child.could_not_start(time.monotonic())
            self._on_line(f"{child.spec.name} cannot be started: {error}; it is tried again")
        self._write_down()

    def _write_down(self) -> None:
        records = [
            ChildRecord(name=c.spec.name, instance=c.instance, pid=c.pid, born=birth_of(c.pid) or "")
            for c in self._children.values()
            if c.pid is not None
        ]
        with suppress(OSError):
            write_children(self._installation, tuple(records))

    def cut_logs(self) -> None:
        """See that no log grows without limit."""
        for child in self._children.values():
            with suppress(OSError):
                cut_log(child.spec.log)

    # Ending. From here on nobody is started again, as long as `tend` is not called.

    def alive(self, names: Iterable[str]) -> tuple[Child, ...]:
        """Return which of these children run."""
        found = [self._children[name] for name in names if name in self._children]
        for child in found:
            child.poll(time.monotonic())
        return tuple(child for child in found if child.pid is not None)

    def ask_to_end(self, name: str) -> None:
        for child in self.alive((name,)):
            child.terminate()

    def kill(self, names: tuple[str, ...]) -> tuple[Child, ...]:
        """End at once which of these still run, and return them."""
        killed = self.alive(names)
        for child in killed:
            child.kill()
        until_s = time.monotonic() + _GONE_AFTER_KILL_S
        while self.alive(names) and time.monotonic() < until_s:
            time.sleep(LOOK_EVERY_S)
        return killed

    def close(self) -> None:
        """Let go of the children; what is not ended now ends by itself."""
        self._children = {}
        self._starter.shutdown()
