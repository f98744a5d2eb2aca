"""Whether the planned windows are those that the applied policy makes today: new time zone or holiday data moves some.

The ticker compares and says so here; `doctor` reads it. Nothing is moved: that is an admin's to apply.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

from scheduler.core.plan import event
from scheduler.service.ports import Clock
from scheduler.store.heartbeats import Heartbeat
from scheduler.store.store import Store

KIND = "windows"
"""The kind of the heartbeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What came of a comparison."""

    version: int
    """The policy whose windows were compared."""
    moved: int
    """So many would be at other times, or not at all, or are missing."""


def report_compared(store: Store, clock: Clock, compared: Compared, *, made_with: str, installed: str) -> None:
    """Keep what came of a comparison; of windows that would move an event tells once for each data. May be repeated."""
    detail = json.dumps({"version": compared.version, "moved": compared.moved})
    store.beat(KIND, "planned", clock.machine_s(), detail, is_news=True)
    if not compared.moved:
        return
    told = event(
        "policy.data_changed",
        clock.now(),
        actor="ticker",
        is_notice=True,
        version=compared.version,
        windows=compared.moved,
        made_with=made_with,
        installed=installed,
    )
    store.append_events((replace(told, key=f"policy.data_changed/{compared.version}/{installed}"),))


def last_compared(heartbeats: Iterable[Heartbeat]) -> Compared | None:
    """Return what came of the latest comparison; None if there was none in the last day."""
    latest = max((beat for beat in heartbeats if beat.kind == KIND), key=lambda beat: beat.machine_s, default=None)
    if latest is None:
        return None
    said = json.loads(latest.detail)
    return Compared(version=int(said["version"]), moved=int(said["moved"]))
