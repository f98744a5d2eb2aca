"""`nightshift api`: the process that serves the HTTP API. Puts its parts together.

Listens on this machine only unless told otherwise: it speaks plain HTTP, and tokens pass through it. Ends on SIGTERM
and SIGINT once the requests that run are answered, after two seconds at most.
"""

import logging
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import missing_server_parts
from cli.probes import LOOPBACK, listening_socket

if TYPE_CHECKING:
    from api.services import Services
    from cli.installation import Parts

_log = logging.getLogger(__name__)

LISTEN_FD = "NIGHTSHIFT_LISTEN_FD"
"""Names an inherited socket that listens already: that of a supervisor."""
_END_WITHIN_S = 2
_BEAT_EVERY_S = 1.0


def api(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = LOOPBACK,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")] = 8470,
    data: Annotated[
        Path | None, typer.Option(envvar="NIGHTSHIFT_DATA", help="The data directory of the installation.")
    ] = None,
) -> None:
    """Serve the HTTP API, until told to end."""
    try:
        import uvicorn  # noqa: F401

        from cli.installation import Installation, open_parts

        listening = inherited_socket(os.environ) or listening_socket(port, host)
        parts = open_parts(Installation.found(data))
    except ImportError as error:
        raise typer.Exit(missing_server_parts(error)) from error
    from cli.log_lines import log_to_stderr

    log_to_stderr()
    _serve(parts, listening)
    logging.shutdown()
    # Not by way of the interpreter's own end: that waits for every thread, also for one that still plans an answer.
    os._exit(0)


def inherited_socket(environment: Mapping[str, str]) -> socket.socket | None:
    """Return the socket that a supervisor handed down; None when there is none."""
    number = environment.get(LISTEN_FD, "")
    if not number.isdecimal():
        return None
    listening = socket.socket(fileno=int(number))
    listening.set_inheritable(False)
    return listening


def _serve(parts: "Parts", listening: socket.socket) -> None:
    import uvicorn

    from api.app import create_app
    from cli.instance import instance_name
    from cli.parent_watch import end_with_parent

    instance = instance_name("api")
    # Raises where the database is not there, or not migrated: better now than at each request.
    parts.store.plan_version()
    for number in (signal.SIGTERM, signal.SIGINT):
        # The server has handlers of its own while it runs, and raises what it caught again when it has ended.
        signal.signal(number, lambda _number, _frame: None)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(_services(parts)),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_END_WITHIN_S,
        )
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    end_with_parent()
    ended = Event()
    beating = Thread(target=_beat, args=(parts, instance, ended), name="beating", daemon=True)
    beating.start()
    address, port, *_ = listening.getsockname()
    _log.info("api.started instance=%s address=%s port=%d", instance, address, port)
    server.run(sockets=[listening])
    ended.set()
    beating.join(_BEAT_EVERY_S)
    parts.close()
    _log.info("api.ended instance=%s", instance)


def _services(parts: "Parts") -> "Services":
    from api.services import Services
    from scheduler.service.users import Users
    from workers.broker import ping

    def redis_problem() -> str | None:
        state = ping(parts.installation.redis_url)
        return None if state.is_up else state.detail

    return Services(
        store=parts.store,
        clock=parts.clock,
        desk=parts.desk,
        plans=parts.plans,
        known_facts=parts.known_facts,
        settings=parts.settings,
        profiles=parts.profiles,
        users=Users(parts.store, parts.clock),
        redis_ping=redis_problem,
        speed=lambda: parts.clock.speed,
    )


def _beat(parts: "Parts", instance: str, ended: Event) -> None:
    """Say that this process lives, until it ends."""
    from scheduler.service.trouble import Trouble

    trouble = Trouble(_log)
    while not ended.is_set():
        try:
            parts.store.beat("api", instance, parts.clock.machine_s())
        except Exception as error:
            trouble.failed("api.beat", error)
        else:
            trouble.went_well("api.beat")
        ended.wait(_BEAT_EVERY_S)
