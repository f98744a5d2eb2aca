"""`nightshift worker`: the process that plans, and converges the hosts that it reaches. Puts its parts together.

Ends cleanly on SIGTERM and SIGINT: nothing new is begun, steps that run are waited for a few seconds, leases are given
up. What it began and did not see the end of is found on the hosts by whoever comes next.
"""

import logging
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from threading import Event, Thread, Timer
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import missing_server_parts
from scheduler.core.requests import HostId

if TYPE_CHECKING:
    from cli.installation import Parts
    from workers.attending import Attending
    from workers.watching import Watching

_log = logging.getLogger(__name__)

END_WITHIN_S = 7.5
"""Machine time from the signal to the end, whatever still runs."""
_THREADS = 8
"""How many messages are worked on at once: the plan task, and hosts."""


def worker(
    host: Annotated[
        list[str] | None,
        typer.Option(help="Serve this host; may be repeated. Without it: all with a rack here, and all remote ones."),
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Without --host: this machine is the one that qemu:///system means.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan/--no-plan", help="Also run the plan task.")] = True,
    data: Annotated[
        Path | None, typer.Option(envvar="NIGHTSHIFT_DATA", help="The data directory of the installation.")
    ] = None,
) -> None:
    """Serve hosts, and plan, until told to end."""
    # Until there is something to end, a signal ends it at once, and just as cleanly.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: os._exit(0))
    try:
        from cli.installation import Installation, open_parts

        parts = open_parts(Installation.found(data))
    except ImportError as error:
        raise typer.Exit(missing_server_parts(error)) from error
    from cli.log_lines import log_to_stderr

    log_to_stderr()
    status = _serve(parts, frozenset(HostId(name) for name in host or ()), does_plan=plan, serves_local=local)
    logging.shutdown()
    # Not by way of the interpreter's own end: that waits for every thread, also for one whose host never answers.
    os._exit(status)


def _serve(parts: "Parts", hosts: frozenset[HostId], *, does_plan: bool, serves_local: bool) -> int:
    from cli.instance import instance_name
    from cli.parent_watch import end_with_parent
    from workers.app import PLAN_QUEUE, celery_app, host_queue
    from workers.attending import Attending, Shared
    from workers.broker import shown
    from workers.consuming import Consuming
    from workers.tasks import add_tasks
    from workers.watching import Watching

    instance = instance_name("worker")
    # Raises where the database is not there, or not migrated: better now than at each message.
    parts.store.plan_version()
    shared = Shared(
        data=parts.installation.data,
        store=parts.store,
        clock=parts.clock,
        wake=parts.wake,
        plans=parts.plans,
        known_facts=parts.known_facts,
        settings=parts.settings,
        profiles=parts.profiles,
        instance=instance,
        speed=lambda: parts.clock.speed,
    )
    attending = Attending(shared, hosts=hosts, does_plan=does_plan, serves_local=serves_local)
    always = (PLAN_QUEUE,) if does_plan else ()

    def take_from(served: Iterable[HostId]) -> None:
        consuming.take_also((*always, *(host_queue(host) for host in sorted(served))))

    watching = Watching(attending, clock=parts.clock, wake=parts.wake, settings=parts.settings, on_hosts=take_from)
    app = celery_app(parts.installation.redis_url)
    add_tasks(app, watching)
    served = attending.look_around()
    consuming = Consuming(
        app, name=instance, queues=(*always, *(host_queue(host) for host in sorted(served))), threads=_THREADS
    )
    _log.info(
        "worker.started instance=%s plan=%s hosts=%s redis=%s",
        instance,
        does_plan,
        ",".join(sorted(served)) or "none",
        shown(parts.installation.redis_url),
    )
    ending = _Ending(watching, attending)
    watching.start()
    end_with_parent()
    status = consuming.run(on_end=ending.begin)
    ending.begin()
    ending.finish()
    parts.close()
    _log.info("worker.ended instance=%s status=%d", instance, status)
    return status


class _Ending:
    """The end of what is kept, beside that of taking messages: a Redis that hangs must not keep the leases."""

    def __init__(self, watching: "Watching", attending: "Attending") -> None:
        self._watching = watching
        self._attending = attending
        # Waits from now on: a signal's handler must start no thread.
        self._is_wanted = Event()
        self._thread = Thread(target=self._end, name="ending", daemon=True)
        self._thread.start()
        self._in_any_case = Timer(END_WITHIN_S, self._give_up)
        self._in_any_case.daemon = True

    def begin(self) -> None:
        """Begin no further step, and give the leases up once those that run have ended. May be called twice."""
        self._is_wanted.set()

    def finish(self) -> None:
        """Wait for that."""
        self._thread.join()
        self._in_any_case.cancel()

    def _end(self) -> None:
        self._is_wanted.wait()
        self._in_any_case.start()
        self._watching.close()
        self._attending.close()

    def _give_up(self) -> None:
        _log.warning("worker.ended_late after_s=%g; what it waited for is left as it is", END_WITHIN_S)
        logging.shutdown()
        os._exit(0)
