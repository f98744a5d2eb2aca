"""Tries a new policy beside an old one: reads both, finds demand and hosts, simulates, and shows what came of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NamedTuple

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from cli.connecting import Connection, tables
from cli.output import EXIT_NO, complain
from cli.policy import finish_with, read_date, read_policy_text
from cli.policy_calendar import first_instant
from cli.policy_demand import AllWanted, day_of, history, of_history, of_trace
from cli.policy_server import policy_on_server
from cli.policy_simulation_report import Compared, as_svg, show
from cli.recorded import Asks, read_trace
from cli.side_by_side import Case, side_by_side
from cli.simulated_fleet import Fleet, fleet_of_server, named_fleet
from cli.times import instant, read_duration_s
from cli.written import check_writable, write
from policies.checks import check_policy, errors_of
from policies.files import PolicyText
from policies.format import LoadedPolicy
from policies.loading import load_policy
from policies.simulated_figures import Figures
from policies.windows import zone_of
from scheduler.core.rules import Group
from scheduler.core.spans import Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What is to be tried, as it was asked for."""

    new: Path
    old: Path | None
    """None: the policy that the server has."""
    trace: Path | None
    """None: what was asked for on the server."""
    since: str
    hosts: str | None
    """None: those of the server."""
    profile: str
    from_date: str
    """Of the first day; empty, with a history: the one that it was."""
    days: int | None
    asks: Asks
    seed: int
    as_json: bool
    picture: Path | None


class _Policy(NamedTuple):
    text: PolicyText
    loaded: LoadedPolicy


class _Basis(NamedTuple):
    """What both policies are tried on."""

    demand: AllWanted
    named: str
    """Where it is from, for people."""
    from_at: Instant


def try_policy(trial: Trial, connection: Connection | None) -> None:
    """Do all of it. `connection`: None if nothing is needed of a server."""
    if trial.picture is not None:
        check_writable(trial.picture, suffix=".svg")
    as_json = trial.as_json
    new = _loaded(read_policy_text(trial.new, as_json=as_json), as_json=as_json)
    old_text = policy_on_server(_of(connection)) if trial.old is None else read_policy_text(trial.old, as_json=as_json)
    old = _loaded(old_text, as_json=as_json)
    if trial.hosts is None:
        fleet = fleet_of_server(_of(connection), trial.profile)
    else:
        fleet = named_fleet(trial.hosts, trial.profile)
    basis = _basis(trial, connection, old.loaded, new.loaded, fleet)
    for policy in (old, new):
        _check(policy, basis.from_at, fleet, as_json=as_json)
    found = _compared(old, new, basis, fleet)
    if as_json:
        print(json.dumps(found.as_json(), indent=2))
    else:
        show(found, tables())
    if trial.picture is not None:
        write(trial.picture, as_svg(found))


def _of(connection: Connection | None) -> Connection:
    assert connection is not None
    return connection


def _loaded(text: PolicyText, *, as_json: bool) -> _Policy:
    policy = load_policy(text.text, source=text.source)
    if isinstance(policy, tuple):
        finish_with(policy, Path(text.source), as_json)
    return _Policy(text, policy)


def _basis(trial: Trial, connection: Connection | None, old: LoadedPolicy, new: LoadedPolicy, fleet: Fleet) -> _Basis:
    """Return the demand, in the new policy's zone; ends the command if there is none."""
    day = read_date(trial.from_date, trial.as_json)
    if trial.trace is not None:
        assert day is not None
        from_at = first_instant(day, new)
        demand = of_trace(
            read_trace(trial.trace),
            from_at=from_at,
            asks=trial.asks,
            seed=trial.seed,
            largest=fleet.largest,
            days=trial.days,
        )
        named = trial.trace.name
    else:
        from_at, demand = _history(trial, _of(connection), day, old, new, fleet)
        named = f"the last {trial.since} of {_of(connection).client.address.url}"
    if not demand.requests:
        complain(f"nothing was asked for in {named} that these hosts could give; try a longer time, or --trace")
        raise typer.Exit(EXIT_NO)
    return _Basis(demand, named, from_at)


def _history(
    trial: Trial, connection: Connection, day: date | None, old: LoadedPolicy, new: LoadedPolicy, fleet: Fleet
) -> tuple[Instant, AllWanted]:
    """Return when the first day begins, and what was asked for on the server; `day`: moved to begin there."""
    since_at = connection.times().now - read_duration_s(trial.since, option="--history")
    found = history(connection, since_at=since_at)
    first_at = day_of(min((instant(one["submitted_at"]) for one in found), default=since_at), zone_of(new))
    from_at = first_at if day is None else first_instant(day, new)
    demand = of_history(found, old=old, largest=fleet.largest, later_s=from_at - first_at, days=trial.days)
    return from_at, demand


def _check(policy: _Policy, from_at: Instant, fleet: Fleet, *, as_json: bool) -> None:
    """End the command if a policy has errors in these days; warn of what it says that these hosts are not."""
    problems = check_policy(policy.loaded, from_at=from_at, hosts=fleet.planned())
    errors = errors_of(problems)
    if errors:
        finish_with(errors, Path(policy.text.source), as_json)
    of_any_hosts = set(check_policy(policy.loaded, from_at=from_at))
    for problem in problems:
        if problem not in of_any_hosts:
            typer.echo(str(problem), err=True)


def _compared(old: _Policy, new: _Policy, basis: _Basis, fleet: Fleet) -> Compared:
    zone = zone_of(new.loaded)
    until_at = day_of(basis.demand.requests[-1].at, zone, later=1)
    cases = [
        Case(
            text=policy.text.text,
            source=policy.text.source,
            wanted=basis.demand.requests,
            hosts=fleet.hosts,
            profiles=tuple(fleet.profiles.values()),
            from_at=basis.from_at,
            until_at=until_at,
            zone=zone.key,
            groups=_groups(old.loaded, new.loaded),
        )
        for policy in (old, new)
    ]
    before, after = _run(cases)
    return Compared(
        demand=basis.demand,
        demand_from=basis.named,
        hosts=fleet.text,
        from_at=basis.from_at,
        until_at=until_at,
        zone=zone.key,
        old_name=old.text.name,
        new_name=new.text.name,
        old=before,
        new=after,
    )


def _groups(old: LoadedPolicy, new: LoadedPolicy) -> tuple[Group, ...]:
    """Return the groups whose waits are told: the new policy's, and those that only the old one has."""
    names = {group.name for group in new.groups}
    return (*new.groups, *(group for group in old.groups if group.name not in names))


def _run(cases: Sequence[Case]) -> list[Figures]:
    """Simulate them; show on a terminal how far they are."""
    screen = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        bars = [
            progress.add_task(f"{name} policy", total=len(case.wanted))
            for name, case in zip(("old", "new"), cases, strict=True)
        ]
        return side_by_side(cases, lambda number, made: progress.update(bars[number], completed=made))
