"""Watches: what somebody says who watches policy files and applies what changes, `nightshift policy watch`.

A watch is kept as a heartbeat, for `doctor` to look at. That its files cannot be applied is also told as an event, once
for each trouble. Decides nothing: the policy that holds stays whatever a watch says.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from scheduler.core.plan import event
from scheduler.service.ports import Clock
from scheduler.store.heartbeats import Heartbeat
from scheduler.store.store import Store

KIND = "watch"
"""The kind of the heartbeats."""
LONGEST_PROBLEM = 500
"""So many characters of a trouble are kept."""


class WatchState(StrEnum):
    WATCHING = "watching"
    ONCE = "once"
    """It looked once, as a timer's job does: nobody expects another sign of life."""
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What was said last of some files."""

    name: str
    """The machine and the path: `gpu-admin:/etc/nightshift/policy.d`."""
    state: WatchState
    problem: str
    """Why they are not applied; empty when all is well."""
    machine_s: float = 0.0


def report_watch(store: Store, clock: Clock, watch: Watch, *, actor: str, version: int) -> None:
    """Keep what is said of some files. `version` is the policy that holds. May be said any number of times."""
    problem = watch.problem[:LONGEST_PROBLEM]
    before = next((one for one in watches(store.heartbeats()) if one.name == watch.name), None)
    was = "" if before is None else before.problem
    detail = json.dumps({"problem": problem, "state": watch.state.value}, ensure_ascii=False)
    store.beat(KIND, watch.name, clock.machine_s(), detail, is_news=True)
    if problem == was:
        return
    told = event(
        "policy.watch_failed" if problem else "policy.watch_recovered",
        clock.now(),
        actor=actor,
        is_notice=bool(problem),
        watched=watch.name,
        version=version,
        problem=problem or None,
    )
    store.append_events((told,))


def watches(heartbeats: Iterable[Heartbeat]) -> tuple[Watch, ...]:
    """Return the watches that have said something in the last day, by name."""
    return tuple(_watch(beat) for beat in heartbeats if beat.kind == KIND)


def _watch(beat: Heartbeat) -> Watch:
    said = json.loads(beat.detail)
    return Watch(
        name=beat.name, state=WatchState(said["state"]), problem=str(said["problem"]), machine_s=beat.machine_s
    )
