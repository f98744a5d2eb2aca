"""Who of the children lives and does not work any more: looked up in the database, beside the supervisor's own thread.

Holds what is looked up and who is excused. How long is too long is in `stall`; what is done about it, in `stack`.
"""

import time
from collections.abc import Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from types import MappingProxyType

from cli.children import Child
from cli.family import TICKER, WORKER, Family
from cli.stall import StallWatch
from scheduler.store.store import Store
from workers.broker import ping

_EVERY_S = 5.0
_TICKS_AFTER_S = 30.0
"""How long a ticker may take until it calls."""
_WATCHED: Mapping[str, str] = MappingProxyType({WORKER: "plan", TICKER: "ticker"})
"""By which kind of heartbeat a child is seen to work. What a worker does for everybody is to plan, when told to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signs:
    beats: Mapping[tuple[str, str], float]
    """The newest heartbeat by kind and instance."""
    is_redis_up: bool


class SignsOfLife:
    """Looks every few seconds, and never waits for what it asked."""

    def __init__(self, family: Family, store: Store, redis_url: str, executor: Executor) -> None:
        self._family = family
        self._store = store
        self._redis_url = redis_url
        self._executor = executor
        self._watch = StallWatch()
        self._asked_at_s = time.monotonic()
        self._asked: Future[_Signs] | None = None

    def stalled(self, now_s: float) -> tuple[Child, ...]:
        """Return the children that live and gave no sign of it for too long."""
        if self._asked is None:
            if now_s - self._asked_at_s >= _EVERY_S:
                self._asked_at_s = now_s
                self._asked = self._executor.submit(self._ask)
            return ()
        if not self._asked.done():
            return ()
        asked, self._asked = self._asked, None
        if asked.exception() is not None:
            # Nobody is judged by a database that does not answer.
            return ()
        return self._judge(asked.result(), now_s)

    def _ask(self) -> _Signs:
        beats = {(beat.kind, beat.name): beat.machine_s for beat in self._store.heartbeats()}
        return _Signs(beats=beats, is_redis_up=ping(self._redis_url).is_up)

    def _judge(self, signs: _Signs, now_s: float) -> tuple[Child, ...]:
        watched = [child for child in self._family.all() if child.spec.name in _WATCHED and child.pid is not None]
        ticker = self._family.get(TICKER)
        is_ticking = ticker is not None and ticker.pid is not None and now_s - ticker.started_at_s > _TICKS_AFTER_S
        # A worker to whom no messages come cannot show that it takes them.
        is_called = is_ticking and signs.is_redis_up
        stalled = self._watch.stalled(
            {child.instance: signs.beats.get((_WATCHED[child.spec.name], child.instance), 0.0) for child in watched},
            {child.instance: child.started_at_s for child in watched},
            now_s,
            excused=frozenset(child.instance for child in watched if child.spec.name == WORKER and not is_called),
        )
        return tuple(child for child in watched if child.instance in stalled)
