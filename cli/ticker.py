"""`nightshift ticker`: the process that files what policies want and wakes everybody. Puts its parts together.

Any number of them may run. Ends on SIGTERM and SIGINT, after the tick that runs.
"""

import logging
import os
import signal
import time
from pathlib import Path
from threading import Timer
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import missing_server_parts

if TYPE_CHECKING:
    from cli.installation import Parts

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.2
END_WITHIN_S = 7.5
"""Machine time from the signal to the end, whatever a database keeps waiting."""


class _Signals:
    """Whether it was told to end. A flag and no event: what waits for an event holds its lock now and then."""

    have_come = False

    def take(self, _number: int, _frame: FrameType | None) -> None:
        self.have_come = True


def ticker(
    data: Annotated[
        Path | None, typer.Option(envvar="NIGHTSHIFT_DATA", help="The data directory of the installation.")
    ] = None,
) -> None:
    """Tick each second, until told to end."""
    signals = _Signals()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signals.take)
    try:
        from cli.installation import Installation, open_parts

        parts = open_parts(Installation.found(data))
    except ImportError as error:
        raise typer.Exit(missing_server_parts(error)) from error
    from cli.log_lines import log_to_stderr

    log_to_stderr()
    _tick(parts, signals)
    logging.shutdown()
    os._exit(0)


def _tick(parts: "Parts", signals: "_Signals") -> None:
    from cli.instance import instance_name
    from cli.parent_watch import end_with_parent
    from policies.ticking import Ticking

    instance = instance_name("ticker")
    end_with_parent()
    # Raises where the database is not there, or not migrated: better now than at each tick.
    parts.store.plan_version()
    ticking = Ticking(
        store=parts.store,
        clock=parts.clock,
        wake=parts.wake,
        plans=parts.plans,
        known_facts=parts.known_facts,
        settings=parts.settings,
        name=instance,
    )
    _log.info("ticker.started instance=%s", instance)
    ticking.start()
    while not signals.have_come:
        time.sleep(_LOOK_EVERY_S)
        ticking.tend()
    in_any_case = Timer(END_WITHIN_S, lambda: os._exit(0))
    in_any_case.daemon = True
    in_any_case.start()
    ticking.stop()
    parts.close()
    _log.info("ticker.ended instance=%s", instance)
