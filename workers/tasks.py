"""The two Celery tasks. Each is "look now": what there is to do is read from the database and from the host.

Holds the way from a message to whoever looks, and nothing else.
"""

from typing import Protocol

from celery import Celery

from scheduler.core.requests import HostId
from workers.app import CONVERGE_TASK, PLAN_TASK


class Looks(Protocol):
    """Who looks when a message says so. Neither call raises, and both may come at any time, from many threads."""

    def plan(self) -> None:
        """Bring the plan up to date."""

    def converge(self, host: HostId) -> None:
        """Bring a host nearer to what the plan says."""


def add_tasks(app: Celery, looks: Looks) -> None:
    """Let messages that this application takes reach `looks`."""

    def plan() -> None:
        looks.plan()

    def converge(host: str) -> None:
        looks.converge(HostId(host))

    app.task(name=PLAN_TASK)(plan)
    app.task(name=CONVERGE_TASK)(converge)
