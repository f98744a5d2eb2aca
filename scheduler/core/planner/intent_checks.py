"""Is an administrative intent sound in itself? Checked before anything of it is taken on: all of it, or nothing.

Policies parse files with line numbers and find these problems first; this is the last line, for whatever files an
intent by another way. Asks have checks of their own in `admission`.
"""

from collections.abc import Iterable, Iterator
from typing import assert_never

from scheduler.core.bounds import longest_grace_s
from scheduler.core.intents import AddHost, ApplyPolicy, Materialise
from scheduler.core.plan import Rules
from scheduler.core.reasons import Reason, ReasonCode, reason
from scheduler.core.spans import DAY_S, FOREVER, HOUR_S, Instant
from scheduler.core.windows import Window, WindowState

LONGEST_NAME = 64
MOST_VERSION = 2**31 - 1
LONGEST_GRACE_S = 6 * HOUR_S
LONGEST_RETENTION_S = 3650 * DAY_S
MOST_DISK_GIB = 1 << 30


def check_intent(
    intent: AddHost | ApplyPolicy | Materialise, now: Instant, *, rules: Rules | None
) -> tuple[Reason, ...]:
    """Return what is wrong with an intent as it stands; empty when it is sound.

    `rules`: those that are applied, which the windows of a host or of a longer horizon have to fit.
    """
    of_windows = rules
    match intent:
        case AddHost():
            problems = [*_name("host", intent.host), *_name("storage", intent.storage)]
        case ApplyPolicy():
            of_windows = intent.rules
            problems = [*_rules(intent.rules), *_horizon(intent.horizon_at, now), *_text("policy text", intent.text)]
            problems += _too_short(intent.windows)
        case Materialise():
            problems = list(_horizon(intent.horizon_at, now))
        case _:
            assert_never(intent)
    problems += _windows(intent.windows, of_windows)
    return tuple(reason(ReasonCode.POLICY_INVALID, problem=problem) for problem in problems)


def _name(what: str, value: str) -> Iterator[str]:
    if not value or len(value) > LONGEST_NAME or not value.isprintable() or "/" in value:
        shown = "".join(c if c.isprintable() else "?" for c in value[:LONGEST_NAME])
        yield f"{what} {shown!r} is not a name; give 1 to {LONGEST_NAME} printable characters without /"


def _text(what: str, value: str) -> Iterator[str]:
    if "\0" in value:
        yield f"the {what} holds a NUL character; take it out"


def _number(what: str, value: int, least: int, most: int) -> Iterator[str]:
    if not least <= value <= most:
        yield f"{what} is {value}; give {least} to {most}"


def _horizon(horizon_at: Instant, now: Instant) -> Iterator[str]:
    yield from _number("the horizon", horizon_at, now + 1, FOREVER)


def _rules(rules: Rules) -> Iterator[str]:
    yield from _number("the version", rules.version, 1, MOST_VERSION)
    yield from _number("grace in seconds", rules.grace_s, 1, LONGEST_GRACE_S)
    yield from _number("the longest grace in seconds", rules.longest_grace_s, 0, LONGEST_GRACE_S)
    yield from _number("retention in seconds", rules.retention_s, 0, LONGEST_RETENTION_S)
    yield from _number("the minimum useful length in seconds", rules.min_useful_s, 0, DAY_S)
    yield from _number("the default disk in GiB", rules.default_disk_gib, 1, MOST_DISK_GIB)
    for warning_s in rules.warnings_s:
        yield from _number("a warning in seconds before the end", warning_s, 1, DAY_S)
    limits = rules.limits
    named_limits = (
        ("open reservations", limits.open_reservations),
        ("GPUs at once", limits.gpus_at_once),
        ("longest run in seconds", limits.longest_run_s),
    )
    for what, limit in named_limits:
        if limit is not None:
            yield from _number(f"the limit of {what}", limit, 1, MOST_VERSION)
    for queue in rules.queues:
        yield from _name("queue", queue.name)
        if queue.default_disk_gib is not None:
            what = f"the default disk of queue {queue.name} in GiB"
            yield from _number(what, queue.default_disk_gib, 1, MOST_DISK_GIB)
    for image in rules.images:
        yield from _name("image", image)
    if not rules.queues:
        yield "no queue is defined; define at least one"
    if not rules.images:
        yield "no image is defined; define at least one"


def _too_short(windows: Iterable[Window]) -> Iterator[str]:
    """Yield the windows that are over before their guests have to have left.

    Only where somebody is there to change it: once a policy is taken on, what the change of clocks leaves of one of its
    windows must not keep the others from being filed.
    """
    for window in windows:
        length_s = window.end_at - window.start_at
        if length_s < window.grace_s:
            yield f"window {window.name!r} lasts {length_s} s, its grace {window.grace_s} s; lengthen it or give less"


def _windows(windows: Iterable[Window], rules: Rules | None) -> Iterator[str]:
    longest_s = LONGEST_GRACE_S if rules is None else min(longest_grace_s(rules, ()), LONGEST_GRACE_S)
    for window in windows:
        named = f"window {window.name!r} ({window.source})" if window.source else f"window {window.name!r}"
        yield from _text(f"name of {named}", window.id + window.name)
        if not 0 <= window.decide_at <= window.start_at < window.end_at <= FOREVER:
            yield f"{named} has to be decided before it starts, and to end after that"
        if window.state is not WindowState.PLANNED or window.released_from_at is not None:
            yield f"{named} is decided already; only planned windows can be filed"
        # Leads are made of the longest grace of the policy, so as never to grow under it.
        yield from _number(f"the grace of {named} in seconds", window.grace_s, 1, longest_s)
        for warning_s in window.warnings_s:
            yield from _number(f"a warning of {named} in seconds", warning_s, 1, DAY_S)
