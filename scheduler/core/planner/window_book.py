"""The windows of a plan, looked up: by host, what is to be decided next, what is given away.

Made once for a set of windows, and used until that changes: a plan has a window for each night of each host.
"""

from bisect import bisect_right
from collections.abc import Mapping
from functools import cached_property
from operator import attrgetter

from scheduler.core.requests import AtBoundary, HostId
from scheduler.core.spans import Instant
from scheduler.core.windows import Layout, Window, WindowId, WindowState

NO_WINDOWS = HostId("")
"""Stands for all hosts without windows."""

_start_at = attrgetter("start_at")


class WindowBook:
    """Immutable; what is looked up is worked out at first use."""

    def __init__(self, windows: Mapping[WindowId, Window]) -> None:
        self.windows = windows

    @cached_property
    def by_id(self) -> dict[WindowId, Window]:
        """In the order of their ids. Not to be changed."""
        return dict(sorted(self.windows.items()))

    @cached_property
    def by_host(self) -> Mapping[HostId, tuple[Window, ...]]:
        """Sorted by start; those that are over are among them."""
        found: dict[HostId, list[Window]] = {}
        for window in self.by_id.values():
            for host in window.hosts:
                found.setdefault(host, []).append(window)
        return {host: tuple(sorted(mine, key=_start_at)) for host, mine in found.items()}

    @cached_property
    def _alike(self) -> Mapping[HostId, HostId]:
        known: dict[tuple[object, ...], HostId] = {}
        gift = WindowState.RELEASED

        def pattern(windows: tuple[Window, ...]) -> tuple[object, ...]:
            return tuple(
                [
                    (w.start_at, w.end_at, w.gift_from_at if w.state is gift else None, id(w.layout), w.at_boundary)
                    for w in windows
                ]
            )

        return {host: known.setdefault(pattern(mine), host) for host, mine in self.by_host.items()}

    def like(self, host: HostId) -> HostId:
        """Return one host of all those that have windows like those of one: others may run there at the same times."""
        return self._alike.get(host, NO_WINDOWS)

    @cached_property
    def layouts(self) -> frozenset[Layout]:
        # Of a policy's few layouts each window has the very same value: told apart by that, and only then hashed.
        return frozenset({id(window.layout): window.layout for window in self.windows.values()}.values())

    @cached_property
    def first(self) -> Window | None:
        return min(self.windows.values(), key=lambda w: (w.start_at, w.id), default=None)

    @cached_property
    def allows_keeping(self) -> bool:
        """Whether through some window a guest may run on."""
        return any(AtBoundary.KEEP in window.at_boundary for window in self.windows.values())

    @cached_property
    def has_gifts(self) -> bool:
        """Whether some time was given away."""
        return any(window.state is WindowState.RELEASED for window in self.windows.values())

    @cached_property
    def _planned(self) -> tuple[list[Instant], list[WindowId]]:
        planned = sorted([(w.decide_at, w.id) for w in self.by_id.values() if w.state is WindowState.PLANNED])
        return [at for at, _ in planned], [key for _, key in planned]

    @cached_property
    def _may_be_released(self) -> tuple[WindowId, ...]:
        return tuple([w.id for w in self.by_id.values() if w.state is WindowState.OPEN and w.only_if_queued])

    def to_decide(self, now: Instant) -> list[WindowId]:
        """Return the windows that are to be decided, or may be released, by their ids."""
        at, planned = self._planned
        return sorted((*planned[: bisect_right(at, now)], *self._may_be_released))

    @cached_property
    def _edges(self) -> list[Instant]:
        # Of hosts that are alike those of one are those of all.
        windows = [window for host in set(self._alike.values()) for window in self.by_host[host]]
        gifts = {gift_at for window in windows if (gift_at := window.gift_from_at) is not None}
        return sorted({window.start_at for window in windows} | {window.end_at for window in windows} | gifts)

    def last_edge_at(self, now: Instant) -> Instant:
        """Return when a window last began, ended or was given away; 0 when none has."""
        at = bisect_right(self._edges, now)
        return self._edges[at - 1] if at else 0

    @cached_property
    def _graces(self) -> tuple[tuple[Instant, int], ...]:
        latest: dict[int, Instant] = {}
        for window in self.windows.values():
            latest[window.grace_s] = max(window.end_at, latest.get(window.grace_s, 0))
        return tuple((end_at, grace_s) for grace_s, end_at in latest.items())

    @cached_property
    def most_grace_s(self) -> int:
        """The longest grace of all, those that are over among them; 0 when there is none."""
        return max([grace_s for _, grace_s in self._graces], default=0)

    def longest_grace_s(self, now: Instant) -> int:
        """Return the longest grace of any window that is not over; 0 when there is none."""
        return max((grace_s for end_at, grace_s in self._graces if end_at > now), default=0)
