"""The Celery application: its settings, its two tasks' names, and its queues.

A message says "look now", and nothing hangs on it: it is acknowledged early, expires, and has no result. So losing all
of Redis loses nothing, and a message that comes twice or late costs one look. Nothing is ever scheduled through Celery:
no ETA, no countdown, no retry; the database is the schedule. Must not hold what the tasks do (`tasks`).
"""

import logging
import warnings
from typing import Any

from celery import Celery
from celery.platforms import SecurityWarning
from celery.signals import setup_logging

from scheduler.core.requests import HostId
from workers.broker import ANSWER_WITHIN_S

PLAN_TASK = "plan"
CONVERGE_TASK = "converge"
PLAN_QUEUE = "plan"
_HOST_QUEUE = "host."

EXPIRES_S = 10
"""A message that waited longer is thrown away: the tick has long said it again."""
MOST_WAITING = 100
"""A queue that holds as many is sent nothing more: nobody reads it, and it must not grow."""
_CHATTER = ("celery", "kombu", "amqp", "redis")


def host_queue(host: HostId) -> str:
    """Return the queue that routes to the workers which reach a host."""
    return f"{_HOST_QUEUE}{host}"


def celery_app(redis_url: str) -> Celery:
    """Return an application on this Redis; nothing is connected yet."""
    app = Celery("nightshift", broker=redis_url, set_as_current=False)
    app.conf.update(_settings())
    _keep_quiet()
    return app


def _settings() -> dict[str, Any]:
    return {
        "enable_utc": True,
        "timezone": "UTC",
        # Messages.
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_backend": None,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "task_default_queue": PLAN_QUEUE,
        "task_default_delivery_mode": "transient",
        "task_publish_retry": False,
        # Early: a worker that dies is made good for by the next tick, not by a redelivery an hour later.
        "task_acks_late": False,
        "worker_prefetch_multiplier": 1,
        "worker_enable_prefetch_count_reduction": False,
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        # Redis may be away at the start, or go and come back empty: try for ever.
        "broker_connection_retry": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,
        "broker_pool_limit": 1,
        "broker_transport_options": {
            "socket_connect_timeout": ANSWER_WITHIN_S,
            # Of what is waited for; a message is waited for without any.
            "socket_timeout": 3.0,
            "socket_keepalive": True,
            "health_check_interval": 5,
            # What a killed worker had taken comes back after this, only to be thrown away as expired.
            "visibility_timeout": 60,
        },
        # One process, many threads, no talk among workers.
        "worker_consumer": "workers.consuming:SteadyConsumer",
        "worker_enable_remote_control": False,
        "worker_send_task_events": False,
        "task_send_sent_event": False,
        "worker_redirect_stdouts": False,
        "worker_hijack_root_logger": False,
        "worker_proc_alive_timeout": 5,
    }


def _keep_quiet() -> None:
    """Keep Celery from setting logging up its own way, and from telling of each message.

    What matters of it, that Redis is away or back, is told by `consuming` and `wake`, once each.
    """
    setup_logging.connect(_leave_logging_alone)
    # It dislikes workers that are root's, for what pickle could bring; ours take nothing but JSON.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    for name in _CHATTER:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _leave_logging_alone(**_: object) -> None:
    """Be connected; that alone keeps Celery's hands off."""
