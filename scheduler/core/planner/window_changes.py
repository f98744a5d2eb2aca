"""What is different between the windows of two plans: which move, appear, vanish, or are others at the same time.

Compares values; which windows a plan has is decided in `deciding`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from scheduler.core.requests import HostId
from scheduler.core.spans import DAY_S, Instant, Span
from scheduler.core.windows import Window

NEAR_S = DAY_S
"""A window that starts this much earlier or later is another one, not one that moved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowChange:
    """A window that would move, appear, vanish or be another one at its time, on hosts to which the same happens."""

    name: str
    hosts: tuple[HostId, ...]
    before: Span | None
    """None: it would appear."""
    after: Span | None
    """None: it would vanish."""
    differs: tuple[str, ...] = ()
    """What else would be different, by the words of the policy file: `layout`, `grace`, …"""


def window_changes(
    before: Iterable[Window], after: Iterable[Window], *, now: Instant, until_at: Instant
) -> tuple[WindowChange, ...]:
    """Return what is different of windows that are not over at `now` and start before `until_at`, by start."""
    hosts_by_change: dict[WindowChange, list[HostId]] = defaultdict(list)
    old, new = _by_host_and_name(before, now), _by_host_and_name(after, now)
    for host, name in sorted(old.keys() | new.keys()):
        for was, will_be in _pairs(old.get((host, name), []), new.get((host, name), [])):
            differs = () if was is None or will_be is None else _that_differs(was, will_be)
            starts_at = min(window.start_at for window in (was, will_be) if window is not None)
            is_same = was is not None and will_be is not None and was.span == will_be.span and not differs
            if is_same or starts_at >= until_at:
                continue
            change = WindowChange(
                name=name,
                hosts=(),
                before=None if was is None else was.span,
                after=None if will_be is None else will_be.span,
                differs=differs,
            )
            hosts_by_change[change].append(host)
    found = [replace(change, hosts=tuple(hosts)) for change, hosts in hosts_by_change.items()]
    return tuple(sorted(found, key=lambda change: (_first_at(change), change.name, change.hosts)))


def _first_at(change: WindowChange) -> Instant:
    return min(span.start_at for span in (change.before, change.after) if span is not None)


def _by_host_and_name(windows: Iterable[Window], now: Instant) -> dict[tuple[HostId, str], list[Window]]:
    found: dict[tuple[HostId, str], list[Window]] = defaultdict(list)
    for window in sorted(windows, key=lambda window: window.start_at):
        for host in window.hosts:
            if window.end_at > now:
                found[host, window.name].append(window)
    return found


def _pairs(before: Sequence[Window], after: Sequence[Window]) -> Iterator[tuple[Window | None, Window | None]]:
    """Pair the windows of one name on one host: the same local start, else the nearest one within a day; by start."""
    new_by_id = {window.id: window for window in after}
    known = [window for window in before if window.id in new_by_id]
    yield from ((window, new_by_id[window.id]) for window in known)
    paired = {window.id for window in known}
    old = [window for window in before if window.id not in paired]
    new = [window for window in after if window.id not in paired]
    i = j = 0
    while i < len(old) and j < len(new):
        away_s = abs(old[i].start_at - new[j].start_at)
        if i + 1 < len(old) and abs(old[i + 1].start_at - new[j].start_at) < away_s:
            yield old[i], None
            i += 1
        elif j + 1 < len(new) and abs(old[i].start_at - new[j + 1].start_at) < away_s:
            yield None, new[j]
            j += 1
        elif away_s < NEAR_S:
            yield old[i], new[j]
            i, j = i + 1, j + 1
        elif old[i].start_at < new[j].start_at:
            yield old[i], None
            i += 1
        else:
            yield None, new[j]
            j += 1
    yield from ((window, None) for window in old[i:])
    yield from ((None, window) for window in new[j:])


def _that_differs(before: Window, after: Window) -> tuple[str, ...]:
    pairs = (
        ("layout", before.layout, after.layout),
        ("at_boundary", before.at_boundary, after.at_boundary),
        ("warnings", before.warnings_s, after.warnings_s),
        ("grace", before.grace_s, after.grace_s),
        ("decide", before.start_at - before.decide_at, after.start_at - after.decide_at),
        ("only_if_queued", before.only_if_queued, after.only_if_queued),
    )
    return tuple(word for word, was, will_be in pairs if was != will_be)
