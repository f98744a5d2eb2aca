"""Were the promises kept? Reads what was told and what happened, in order, and counts what should not have.

It knows nothing of the planner: only requests, hosts of 16 GPUs, and events. Events and requests are in one time, and
any will do; a closing is a span of it in which nothing may be anywhere.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from benchmarks.traces import HOST_GPUS, TraceRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """At submission: a promise, to start by an instant at the latest."""

    job: int
    at: int
    start_by_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A start, or a return after being parked: on the GPUs of a host, as a mask."""

    job: int
    at: int
    host: int
    mask: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """An end, or being parked."""

    job: int
    at: int


Event = Told | Placed | Left


class Violation(StrEnum):
    UNKNOWN_JOB = "a job that nobody asked for"
    TIME_GOES_BACK = "before the event that stands above"
    NOT_TOLD_AT_SUBMISSION = "told at another instant than the submission"
    TOLD_TWICE = "told twice"
    NOT_TOLD = "placed without a promise"
    BEFORE_SUBMISSION = "placed before the submission"
    LATE = "started after the promise"
    NEVER_STARTED = "told and never started"
    NO_SUCH_HOST = "placed on a host that is not there"
    NOT_A_BLOCK = "placed on GPUs that are no aligned block of the size"
    OVERLAP = "placed on GPUs that another has"
    PLACED_TWICE = "placed while placed"
    NOT_PLACED = "left without being placed"
    STOOD_STILL = "came back later than it was parked"
    WRONG_LENGTH = "ran for another time than it had to"
    CLOSED = "placed in a closing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a check came to."""

    promises: int
    kept: int
    """Promises to jobs with which nothing at all was wrong."""
    violations: tuple[tuple[int, Violation], ...]
    """Job and what was wrong, in the order of the events."""

    @property
    def counts(self) -> dict[Violation, int]:
        return dict(Counter(violation for _, violation in self.violations))


@dataclass(slots=True)
class _Job:
    """What was seen of one."""

    start_by_at: int | None = None
    started_at: int | None = None
    place: tuple[int, int] | None = None
    placed_at: int = 0
    left_at: int = 0
    ran_s: int = 0


def check(
    requests: Sequence[TraceRequest],
    events: Iterable[Event],
    *,
    hosts: int,
    closings: Sequence[tuple[int, int]] = (),
) -> Found:
    """Count violations. Closings are `[start, end)`."""
    checker = _Checker(requests, hosts, closings)
    for event in events:
        checker.read(event)
    return checker.found()


def _blocks(gpus: int) -> tuple[int, ...]:
    """Return the masks of the aligned blocks of a size."""
    return tuple(((1 << gpus) - 1) << first for first in range(0, HOST_GPUS, gpus))


class _Checker:
    def __init__(self, requests: Sequence[TraceRequest], hosts: int, closings: Sequence[tuple[int, int]]) -> None:
        self._request = {request.number: request for request in requests}
        self._seen = {request.number: _Job() for request in requests}
        self._used = [0] * hosts
        self._closings = closings
        self._now: int | None = None
        self._violations: list[tuple[int, Violation]] = []

    def read(self, event: Event) -> None:
        if event.job not in self._request:
            self._violations.append((event.job, Violation.UNKNOWN_JOB))
            return
        if self._now is not None and event.at < self._now:
            self._violations.append((event.job, Violation.TIME_GOES_BACK))
        self._now = event.at
        request, job = self._request[event.job], self._seen[event.job]
        match event:
            case Told():
                wrong = self._told(event, request, job)
            case Placed():
                wrong = self._placed(event, request, job)
            case Left():
                wrong = self._left(event, job)
            case _:
                assert_never(event)
        self._violations.extend((event.job, violation) for violation in wrong)

    def found(self) -> Found:
        for number, job in self._seen.items():
            if job.started_at is None:
                if job.start_by_at is not None:
                    self._violations.append((number, Violation.NEVER_STARTED))
            elif job.place is not None or job.ran_s != self._request[number].run_s:
                self._violations.append((number, Violation.WRONG_LENGTH))
        told = {number for number, job in self._seen.items() if job.start_by_at is not None}
        return Found(
            promises=len(told),
            kept=len(told - {number for number, _ in self._violations}),
            violations=tuple(self._violations),
        )

    def _told(self, event: Told, request: TraceRequest, job: _Job) -> list[Violation]:
        if job.start_by_at is not None:
            return [Violation.TOLD_TWICE]
        job.start_by_at = event.start_by_at
        return [] if event.at == request.submit_at else [Violation.NOT_TOLD_AT_SUBMISSION]

    def _placed(self, event: Placed, request: TraceRequest, job: _Job) -> list[Violation]:
        wrong = []
        if job.place is not None:
            return [Violation.PLACED_TWICE]
        if event.at < request.submit_at:
            wrong.append(Violation.BEFORE_SUBMISSION)
        if job.started_at is None:
            job.started_at = event.at
            if job.start_by_at is None:
                wrong.append(Violation.NOT_TOLD)
            elif event.at > job.start_by_at:
                wrong.append(Violation.LATE)
        elif event.at != job.left_at and (job.left_at, event.at) not in self._closings:
            wrong.append(Violation.STOOD_STILL)
        if not 0 <= event.host < len(self._used):
            return [*wrong, Violation.NO_SUCH_HOST]
        if event.mask not in _blocks(request.gpus):
            wrong.append(Violation.NOT_A_BLOCK)
        if self._used[event.host] & event.mask:
            wrong.append(Violation.OVERLAP)
        self._used[event.host] |= event.mask
        job.place, job.placed_at = (event.host, event.mask), event.at
        return wrong

    def _left(self, event: Left, job: _Job) -> list[Violation]:
        if job.place is None:
            return [Violation.NOT_PLACED]
        host, mask = job.place
        self._used[host] &= ~mask
        job.place, job.left_at = None, event.at
        job.ran_s += event.at - job.placed_at
        if any(start_at < event.at and job.placed_at < end_at for start_at, end_at in self._closings):
            return [Violation.CLOSED]
        return []
