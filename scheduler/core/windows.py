"""Windows and layouts: what may run on a host, when; and the one decision each window gets.

    planned ──decide_at──▶ open ──nothing left ahead──▶ released (the rest)
        └─────decide_at──▶ released (all of it)

Open if a booking lies in the window, or if the policy does not say `only_if_queued`. The plan assumes that every window
opens, so a released stretch is a gift: no promise rests on it. Released is never retaken. A decided window keeps the
policy version it was decided under.

Holds values and pure questions about them; who books what is in `placing`.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from operator import attrgetter
from typing import NamedTuple, NewType

from scheduler.core.requests import AtBoundary, HostId
from scheduler.core.spans import Instant, Span

WindowId = NewType("WindowId", str)
"""The unique key of a window: `name@local start`, the same for every ticker that files it."""


class WindowState(StrEnum):
    PLANNED = "planned"
    OPEN = "open"
    RELEASED = "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What may run while this layout holds: VM sizes in GPUs, and queues."""

    name: str
    sizes: frozenset[int]
    queues: frozenset[str]

    def admits(self, *, gpus: int, queue: str) -> bool:
        return gpus in self.sizes and queue in self.queues


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of time that a policy opens on some hosts for a layout. Carries its policy's numbers with it."""

    id: WindowId
    name: str
    layout: Layout
    hosts: frozenset[HostId]
    start_at: Instant
    end_at: Instant
    decide_at: Instant
    only_if_queued: bool
    at_boundary: frozenset[AtBoundary]
    """What a reservation may choose to do at this window's edges."""
    warnings_s: tuple[int, ...]
    """How long before the edge guests are warned, longest first."""
    grace_s: int
    policy_version: int
    source: str = ""
    """`file:line` of the policy entry."""
    state: WindowState = WindowState.PLANNED
    released_from_at: Instant | None = None
    """From when on the window is a gift; its start when it never opened."""

    @property
    def span(self) -> Span:
        return Span(start_at=self.start_at, end_at=self.end_at)

    @property
    def is_decided(self) -> bool:
        return self.state is not WindowState.PLANNED

    @property
    def closed_span(self) -> Span | None:
        """The part of the window that was not given away; None when all of it was."""
        gift_at = self.gift_from_at
        if gift_at is None:
            return self.span
        return None if gift_at <= self.start_at else Span(start_at=self.start_at, end_at=min(gift_at, self.end_at))

    @property
    def gift_from_at(self) -> Instant | None:
        """From when on the window was given away; None while it is not."""
        if self.state is not WindowState.RELEASED:
            return None
        return self.start_at if self.released_from_at is None else max(self.released_from_at, self.start_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Time in which one request may run on one host, without a boundary inside."""

    start_at: Instant
    end_at: Instant
    closed_by: Window | None
    """The window at whose edge the stretch ends; None when only the horizon ends it."""


def stretches(
    windows: Iterable[Window],
    *,
    outside: Layout,
    gpus: int,
    queue: str,
    at_boundary: AtBoundary,
    from_at: Instant,
    until_at: Instant,
    with_gifts: bool,
) -> Iterator[Stretch]:
    """Yield the stretches of `[from_at, until_at)` in which a request may run, in order.

    `windows` are those of one host, sorted by start and disjoint. Outside of windows the layout `outside` holds. With
    `with_gifts` released time counts as outside; without it released time is nobody's: that is how promises are made.
    """
    outside_admits = outside.admits(gpus=gpus, queue=queue)

    def admits(segment: _Segment) -> bool:
        if segment.window is None:
            return outside_admits
        if segment.is_gift:
            return outside_admits and with_gifts
        if segment.window.layout.admits(gpus=gpus, queue=queue):
            return True
        return outside_admits and at_boundary is AtBoundary.KEEP and AtBoundary.KEEP in segment.window.at_boundary

    start_at: Instant | None = None
    before: _Segment | None = None
    for segment in _segments(windows, from_at=from_at, until_at=until_at):
        if admits(segment):
            start_at = segment.start_at if start_at is None else start_at
        elif start_at is not None and before is not None:
            # What closes it: the window that comes next, or its own window when that is where it ends.
            yield Stretch(start_at=start_at, end_at=before.end_at, closed_by=segment.window or before.window)
            start_at = None
        before = segment
    if start_at is not None and before is not None:
        yield Stretch(start_at=start_at, end_at=before.end_at, closed_by=None)


class Stretches:
    """Stretches that are worked out as far as anybody looks: most look for the first few of ninety days."""

    def __init__(self, coming: Iterator[Stretch]) -> None:
        self._coming = coming
        self._known: list[Stretch] = []
        self._now: Instant = 0

    def advance(self, now: Instant) -> None:
        """Let go of what is over, and let the first begin no earlier than now."""
        if now <= self._now:
            return
        self._now = now
        while self._known and self._known[0].end_at <= now:
            del self._known[0]
        if self._known and self._known[0].start_at < now:
            self._known[0] = replace(self._known[0], start_at=now)

    def __iter__(self) -> Iterator[Stretch]:
        number = 0
        while number < len(self._known) or self._work_out():
            yield self._known[number]
            number += 1

    def not_over_at(self, at: Instant) -> Stretch | None:
        """Return the first one that is not over at an instant."""
        while not self._known or self._known[-1].end_at <= at:
            if not self._work_out():
                return None
        return self._known[bisect_right(self._known, at, key=_end_at)]

    def _work_out(self) -> bool:
        """Work out one more, if there are more."""
        for following in self._coming:
            if following.end_at > self._now:
                is_cut = following.start_at < self._now
                self._known.append(replace(following, start_at=self._now) if is_cut else following)
                return True
        return False


_end_at = attrgetter("end_at")


class _Segment(NamedTuple):
    start_at: Instant
    end_at: Instant
    window: Window | None
    is_gift: bool


def _segments(windows: Iterable[Window], *, from_at: Instant, until_at: Instant) -> Iterator[_Segment]:
    """Cut `[from_at, until_at)` at the edges of windows and gifts; window None stands for the time outside."""
    cursor = from_at
    for window in windows:
        if window.end_at <= cursor:
            continue
        if window.start_at >= until_at or cursor >= until_at:
            break
        if window.start_at > cursor:
            yield _Segment(cursor, window.start_at, None, is_gift=False)
            cursor = window.start_at
        end_at = min(window.end_at, until_at)
        gift_at = window.gift_from_at
        if gift_at is None or gift_at > cursor:
            closed_end_at = end_at if gift_at is None else min(gift_at, end_at)
            yield _Segment(cursor, closed_end_at, window, is_gift=False)
            cursor = closed_end_at
        if cursor < end_at:
            yield _Segment(cursor, end_at, window, is_gift=True)
            cursor = end_at
    if cursor < until_at:
        yield _Segment(cursor, until_at, None, is_gift=False)
