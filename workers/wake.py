"""Waking through Celery: who has committed something says "look now" to whom it concerns.

A thread of its own does the sending, so nobody who wakes ever waits for Redis; what is asked for twice before it is
sent is sent once. A message that cannot be sent is lost: the next tick says the same.
"""

import logging
from collections.abc import Iterable
from threading import Condition, Thread
from time import monotonic
from typing import Any

from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from scheduler.core.requests import HostId
from scheduler.service.trouble import Trouble
from workers.app import (
    CONVERGE_TASK,
    EXPIRES_S,
    MOST_WAITING,
    PLAN_QUEUE,
    PLAN_TASK,
    celery_app,
    host_queue,
)
from workers.broker import ANSWER_WITHIN_S, open_redis, waiting

_log = logging.getLogger(__name__)

CLOSE_WITHIN_S = 1.0
_SENDING, _QUEUE = "wake.send", "wake.queue"


class NoWake:
    """Wakes nobody: what was committed is found by the next tick."""

    def plan(self) -> None:
        """Do nothing."""

    def host(self, host: HostId) -> None:
        """Do nothing."""

    def flush(self, timeout_s: float) -> bool:
        """Nothing waits."""
        return True

    def close(self) -> None:
        """Do nothing."""


class CeleryWake:
    """`scheduler.service.ports.Wake` by messages. Safe to use from several threads; never blocks."""

    def __init__(self, redis_url: str) -> None:
        """Raises BadRedisUrl; connects when there is something to send."""
        self._redis = open_redis(redis_url)
        self._sender = _Sender(celery_app(redis_url))
        self._trouble = Trouble(_log)
        self._changed = Condition()
        self._wanted: dict[HostId | None, None] = {}
        """Whom to wake, in order; None is the plan task."""
        self._is_sending = False
        self._is_closed = False
        self._thread: Thread | None = None

    def plan(self) -> None:
        self._want(None)

    def host(self, host: HostId) -> None:
        self._want(host)

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was wanted is sent or lost; False when that takes too long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._wanted and not self._is_sending, timeout_s)

    def close(self) -> None:
        """Send what is left, for at most a second, and end."""
        until_s = monotonic() + CLOSE_WITHIN_S
        self.flush(CLOSE_WITHIN_S)
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(max(0.0, until_s - monotonic()))

    def _want(self, whom: HostId | None) -> None:
        with self._changed:
            if self._is_closed:
                return
            self._wanted[whom] = None
            if self._thread is None:
                self._thread = Thread(target=self._send_for_ever, name="wake", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _send_for_ever(self) -> None:
        while True:
            with self._changed:
                self._is_sending = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._wanted or self._is_closed)
                if not self._wanted:
                    break
                wanted, self._wanted, self._is_sending = tuple(self._wanted), {}, True
            self._send(wanted)
        self._sender.forget()
        self._redis.close()

    def _send(self, wanted: Iterable[HostId | None]) -> None:
        try:
            for whom in wanted:
                queue = PLAN_QUEUE if whom is None else host_queue(whom)
                if waiting(self._redis, queue) >= MOST_WAITING:
                    self._trouble.is_wrong(
                        _QUEUE, "queue.full", f"{MOST_WAITING} messages wait, nobody reads them", of=queue
                    )
                    continue
                if whom is None:
                    self._sender.send(PLAN_TASK, queue)
                else:
                    self._sender.send(CONVERGE_TASK, queue, host=whom)
                self._trouble.went_well(_QUEUE, of=queue)
        except (RedisError, KombuError, OSError) as error:
            self._sender.forget()
            self._trouble.is_wrong(_SENDING, "redis.away", f"{error}; the next tick says it again")
        except Exception as error:
            # A thread that died of a defect would wake nobody ever again.
            self._sender.forget()
            self._trouble.failed(_SENDING, error)
        else:
            self._trouble.went_well(_SENDING)


class _Sender:
    """One connection to send on, opened anew after each failure. For one thread."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._producer: Any = None

    def send(self, task: str, queue: str, **arguments: str) -> None:
        if self._producer is None:
            limits = {"socket_timeout": ANSWER_WITHIN_S, "socket_connect_timeout": ANSWER_WITHIN_S, "max_retries": 1}
            connection = self._app.connection_for_write(transport_options=limits)
            connection.connect()
            self._producer = self._app.amqp.Producer(connection)
        # To the queue by its name, without declaring anything: a Redis that came back empty knows of no bindings.
        self._app.send_task(
            task,
            kwargs=arguments,
            queue=queue,
            declare=[],
            producer=self._producer,
            expires=EXPIRES_S,
            ignore_result=True,
            retry=False,
        )

    def forget(self) -> None:
        """Close the connection, which may be broken."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            producer.connection.close()
        except (RedisError, KombuError, OSError) as error:
            _log.debug("wake.close problem=%r", error)
