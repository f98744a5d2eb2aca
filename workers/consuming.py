"""How a worker process takes messages from Redis: Celery's worker, with our signals, our patience and our log lines.

Redis away at the start or later is tried again for ever, a second or two apart, and told once when it goes and once
when it is back. SIGTERM and SIGINT end it cleanly: nothing new is taken, what runs is waited for. Holds no task.
"""

import logging
import signal
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

from celery import Celery
from celery.apps.worker import Worker
from celery.worker import state
from celery.worker.consumer import Consumer

from workers.broker import shown

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.25
_LONGER_EACH_TIME_S = 0.25
_LONGEST_PAUSE_S = 2.0


class SteadyConsumer(Consumer):  # type: ignore[misc]  # Celery ships no types
    """Celery's consumer, which comes back soon and says little."""

    is_away = False
    """Told so, and not yet that it is back."""

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however often that takes."""

        def failed(error: Exception, _pause_s: float) -> None:
            self._say_away(error)

        connection = conn.ensure_connection(
            failed,
            None,
            interval_start=_FIRST_PAUSE_S,
            interval_step=_LONGER_EACH_TIME_S,
            interval_max=_LONGEST_PAUSE_S,
            callback=state.maybe_shutdown,
        )
        self.first_connection_attempt = False
        self._say_back()
        return connection

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        self._say_away(exc)
        super().on_connection_error_after_connected(exc)

    def _say_away(self, error: Exception) -> None:
        if not self.is_away:
            self.is_away = True
            url = shown(str(self.app.conf.broker_url))
            _log.warning("redis.away url=%s problem=%r", url, str(error))

    def _say_back(self) -> None:
        if self.is_away:
            self.is_away = False
            _log.info("redis.back url=%s", shown(str(self.app.conf.broker_url)))


class _OurWorker(Worker):  # type: ignore[misc]  # Celery ships no types
    """Celery's worker in this process, with no signals but the two that end it."""

    on_end: Callable[[], None] = staticmethod(lambda: None)

    def install_platform_tweaks(self, worker: Any) -> None:
        """Celery would run the program anew on SIGHUP, and open a debugger on SIGUSR2."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)

    def _end(self, number: int, _frame: FrameType | None) -> None:
        if state.should_stop is None:
            state.should_stop = 0
            self.on_end()


class Consuming:
    """Takes messages from queues until the process is told to end. One for each process: Celery's state is global."""

    def __init__(self, app: Celery, *, name: str, queues: Iterable[str], threads: int) -> None:
        self._worker = _OurWorker(
            app=app,
            hostname=name,
            pool_cls="threads",
            concurrency=threads,
            queues=list(queues),
            quiet=True,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )

    def run(self, *, on_end: Callable[[], None]) -> int:
        """Take messages until SIGTERM or SIGINT, in the main thread; return the exit status.

        `on_end` is called when that signal comes, before anything else is done about it.
        """
        self._worker.on_end = on_end
        self._worker.start()
        return int(self._worker.exitcode or 0)

    def take_also(self, queues: Iterable[str]) -> None:
        """Take messages from these queues too. May be called at any time, from any thread, as often as one likes."""
        wanted = tuple(queues)
        consumer = getattr(self._worker, "consumer", None)
        if consumer is None or consumer.hub is None or consumer.is_away:
            # While Redis is away what is called soon would pile up; the next call comes after it is back.
            return
        consumer.call_soon(_consume, consumer, wanted)


def _consume(consumer: Any, queues: tuple[str, ...]) -> None:
    """Run in the consumer's own thread; without a connection the next call does it."""
    if consumer.task_consumer is None:
        return
    for queue in queues:
        if not consumer.task_consumer.consuming_from(queue):
            consumer.add_task_queue(queue)
