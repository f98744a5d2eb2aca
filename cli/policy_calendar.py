"""What a policy will do in the coming days: its windows and its own reservations, in local time and UTC; and a picture.

Shows what was computed by `policies`; computes nothing about windows itself.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from datetime import time as clock_time

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from cli.policy_picture import draw_days
from policies.clock_changes import ClockChange, clock_changes
from policies.filings import FilingTime, filing_times
from policies.format import LoadedPolicy
from policies.occurrences import instant_of, local_of
from policies.units import duration_text
from policies.windows import WindowTime, local_text, window_times, zone_of
from scheduler.core.spans import DAY_S, HOUR_S, Instant

MIDNIGHT = clock_time()
_WIDTH_OF_FILES = 140
_NAMED_SHIFT = {HOUR_S: "23 hours", -HOUR_S: "25 hours"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Coming:
    """What happens in `[from_at, until_at)`."""

    policy: LoadedPolicy
    from_at: Instant
    days: int
    windows: tuple[WindowTime, ...]
    filings: tuple[FilingTime, ...]
    clock_changes: tuple[ClockChange, ...]


def first_instant(day: date, policy: LoadedPolicy) -> Instant:
    """Return when a day begins in the policy's zone."""
    return instant_of(datetime.combine(day, MIDNIGHT), zone_of(policy))


def coming(policy: LoadedPolicy, *, from_at: Instant, days: int) -> Coming:
    until_at = from_at + days * DAY_S
    return Coming(
        policy=policy,
        from_at=from_at,
        days=days,
        windows=window_times(policy, from_at=from_at, until_at=until_at),
        filings=filing_times(policy, from_at=from_at, until_at=until_at),
        clock_changes=clock_changes(zone_of(policy), from_at=from_at, until_at=until_at),
    )


def show_coming(found: Coming, heading: str, *, with_picture: bool) -> None:
    """Print it as tables, and as a picture if wanted."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        # What goes into a file or a pipe is not folded at 80 columns.
        console = Console(highlight=False, markup=False, width=_WIDTH_OF_FILES)
    console.print(f"{heading} Times below are {found.policy.zone} and UTC, for {found.days} days.", soft_wrap=True)
    for change in found.clock_changes:
        console.print(change_text(change), soft_wrap=True)
    console.print(_windows_table(found) if found.windows else "No window opens.")
    console.print(_filings_table(found) if found.filings else "The policy itself reserves nothing.")
    if with_picture and (found.windows or found.filings):
        first = local_of(found.from_at, zone_of(found.policy)).date()
        marked = {change.to_local.date(): _short(change) for change in found.clock_changes}
        for line in draw_days(found.windows, found.filings, first=first, days=found.days, notes=marked):
            console.print(line, soft_wrap=True)


def change_text(change: ClockChange) -> str:
    """Say what a change of the clock does to its day."""
    hours = _NAMED_SHIFT.get(change.shift_s, f"{24 - change.shift_s / HOUR_S:g} hours")
    return f"{change.to_local:%a %Y-%m-%d} has {hours}: at {change.from_local:%H:%M} the clock is set to {_to(change)}."


def as_json(found: Coming) -> dict[str, object]:
    zone = zone_of(found.policy)
    return {
        "zone": found.policy.zone,
        "from": iso(found.from_at),
        "until": iso(found.from_at + found.days * DAY_S),
        "clock_changes": [
            {
                "at": iso(change.at),
                "date": f"{change.to_local:%Y-%m-%d}",
                "from_local": change.from_local.isoformat(timespec="minutes"),
                "to_local": change.to_local.isoformat(timespec="minutes"),
                "shift_s": change.shift_s,
            }
            for change in found.clock_changes
        ],
        "windows": [
            {
                "id": window.id,
                "layout": window.entry.layout.name,
                "hosts": list(window.entry.hosts),
                "start_at": iso(window.start_at),
                "end_at": iso(window.end_at),
                "decide_at": iso(window.decide_at),
                "local_start": window.local_start.isoformat(timespec="minutes"),
                "local_end": window.local_end.isoformat(timespec="minutes"),
            }
            for window in found.windows
        ],
        "reservations": [
            {
                "name": filing.entry.name,
                "start_at": iso(filing.occurrence.at),
                "filed_at": iso(filing.occurrence.at - filing.entry.ahead_s),
                "local_start": filing.occurrence.local_text,
                "local_end": local_of(filing.occurrence.at + filing.entry.run_s, zone).isoformat(timespec="minutes"),
                "run_s": filing.entry.run_s,
                "count": filing.entry.count,
                "gpus": filing.entry.gpus,
                "queue": filing.entry.queue,
                "owner": filing.entry.owner,
            }
            for filing in found.filings
        ],
    }


def iso(instant: Instant) -> str:
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _to(change: ClockChange) -> str:
    is_other_day = change.to_local.date() != change.from_local.date()
    return f"{change.to_local:%a %H:%M}" if is_other_day else f"{change.to_local:%H:%M}"


def _short(change: ClockChange) -> str:
    return f"{change.from_local:%H:%M}→{change.to_local:%H:%M}"


def _windows_table(found: Coming) -> Table:
    zone = zone_of(found.policy)
    table = _table("Windows", ("window", "opens", "closes", "UTC", "decided", "hosts"))
    for window in found.windows:
        table.add_row(
            window.entry.name,
            local_text(window.start_at, zone),
            local_text(window.end_at, zone),
            f"{_utc(window.start_at)} – {_utc(window.end_at)}",
            local_text(window.decide_at, zone),
            ", ".join(window.entry.hosts),
        )
    return table


def _filings_table(found: Coming) -> Table:
    zone = zone_of(found.policy)
    table = _table("Reservations of the policy", ("name", "starts", "UTC", "for", "GPUs", "queue", "owner", "filed"))
    for filing in found.filings:
        entry, at = filing.entry, filing.occurrence.at
        table.add_row(
            entry.name,
            local_text(at, zone),
            _utc(at),
            duration_text(entry.run_s),
            f"{entry.count} × {entry.gpus}" if entry.count > 1 else str(entry.gpus),
            entry.queue,
            entry.owner,
            local_text(at - entry.ahead_s, zone),
        )
    return table


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _utc(instant: Instant) -> str:
    return f"{datetime.fromtimestamp(instant, UTC):%m-%d %H:%MZ}"
