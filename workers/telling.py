"""What a worker finds and leaves alone, told once: each finding becomes an event when it is new, never at every look.

What was told is remembered by this process only, so a worker that begins anew tells it at most once more. Findings that
have an event of their own, told by the look from what is remembered of the host, are not told a second time.
Must not hold: rules about what is found (`scheduler.core.converging.diff`).
"""

from collections.abc import Iterable
from typing import TypeAlias

from scheduler.core.converging.actions import Finding
from scheduler.core.plan import Event
from scheduler.core.reasons import Fact, ReasonCode
from scheduler.core.requests import HostId, ReservationId
from scheduler.core.spans import Instant
from workers.answers import REFUSED

_Key: TypeAlias = tuple[ReservationId | None, str, tuple[tuple[str, Fact], ...]]

IS_NOTICE = {
    ReasonCode.UNKNOWN_STATE: True,
    ReasonCode.DRIVER_REFUSED: True,
    # Of the device itself the look has told; this is for the one whose start it holds up, and whom the plan moves.
    ReasonCode.GPU_HELD_BY_FOREIGN: False,
    ReasonCode.GPU_QUARANTINED: False,
    ReasonCode.WAITS_FOR_GROUP: False,
}
"""The findings that are told here, and whether a person is to know.

A host that does not answer, a silent agent, a stranger, and how a start ended are told by the look, once; to wait for a
hand-over, or for time, is no fault.
"""
_OF_A_START = frozenset({ReasonCode.GPU_HELD_BY_FOREIGN, ReasonCode.GPU_QUARANTINED})
_VARIES = frozenset({"problem", "since_at", "times"})
"""Facts that may read otherwise at each attempt, of what is one finding."""


class Told:
    """The findings and refusals that were told already."""

    def __init__(self, new_after_s: int) -> None:
        """`new_after_s`: what was not found for so long is new when it is found again."""
        self._new_after_s = new_after_s
        self._last_at: dict[_Key, Instant] = {}

    def new(self, findings: Iterable[Finding], host: HostId, now: Instant) -> tuple[Event, ...]:
        """Return the events of those that are new; `mark` them once the events are written."""
        fresh = {_key(f): f for f in findings if _is_told(f) and _key(f) not in self._last_at}
        return tuple(_event(finding, host, now) for finding in fresh.values())

    def without_repeats(self, events: Iterable[Event], now: Instant) -> tuple[Event, ...]:
        """Return the events without refusals that were told of an earlier attempt, and take the others for told."""
        kept: list[Event] = []
        for event in events:
            if event.kind == REFUSED:
                key = (event.reservation, event.kind, event.facts)
                is_repeat = key in self._last_at
                self._last_at[key] = now
                if is_repeat:
                    continue
            kept.append(event)
        return tuple(kept)

    def mark(self, findings: Iterable[Finding], now: Instant) -> None:
        """Remember what is found now, and forget what has not been found for long."""
        kept = {key: at for key, at in self._last_at.items() if now - at < self._new_after_s}
        self._last_at = {**kept, **{_key(finding): now for finding in findings if _is_told(finding)}}


def _is_told(finding: Finding) -> bool:
    code = finding.why.code
    return code in IS_NOTICE and (finding.reservation is not None or code not in _OF_A_START)


def _key(finding: Finding) -> _Key:
    why = finding.why
    # How a start is not understood makes a difference; how a driver words its refusal does not.
    varies = _VARIES - {"problem"} if why.code is ReasonCode.UNKNOWN_STATE else _VARIES
    return finding.reservation, why.code, tuple(fact for fact in why.facts if fact[0] not in varies)


def _event(finding: Finding, host: HostId, now: Instant) -> Event:
    why = finding.why
    return Event(
        kind=why.code.value,
        at=now,
        reservation=finding.reservation,
        host=host,
        facts=tuple(fact for fact in why.facts if fact[0] != "host"),
        is_notice=IS_NOTICE[why.code],
    )
