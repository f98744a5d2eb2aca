"""How fast policies are read, checked and made into windows, and tried in simulated time.

    python -m benchmarks policies
    python -m benchmarks policies --trace itp07.csv.gz --hosts 17

*Check* is what `nightshift policy check DIR` does, from the first byte of 200 files to every error and warning over 400
days. *A year* is the windows of 1,000 hosts, as the ticker and an apply make them. *A hostile file* is the slowest of
those that tests keep. Times are of processor time, so that what else runs on the machine does not count; the smallest
of several is the one that least disturbed.

With a trace, two policies are tried on it side by side, as `nightshift policy simulate` does it, with the compiled
calendar and without: that is wall time, of two processes. Then once more, with the disks that everybody gets where a
policy says nothing of disks: on a busy server they fill the pools, and people wait for them too.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.table import Table

from cli.policy_demand import day_of, of_trace
from cli.recorded import Asks, read_trace
from cli.side_by_side import Case, side_by_side
from cli.simulated_fleet import named_fleet
from policies.checks import check_policy, errors_of
from policies.files import PolicyText, read_policy
from policies.format import LoadedPolicy
from policies.loading import load_policy
from policies.windows import windows_between
from scheduler.core.requests import HostId
from scheduler.core.spans import DAY_S, HOUR_S, Instant
from tests.policies.test_never_raises import HOSTILE

FILES = 200
HOSTS = 1_000
FROM_AT: Instant = 1_772_409_600
"""2026-03-02 00:00 UTC; the year has both changes of the clock in it."""
YEAR_S = 365 * DAY_S
_SITE = """\
version: 1
zone: Europe/Berlin
outside: day
layouts:
  day: {sizes: [1, 2, 4, 8], queues: [interactive]}
  night: {sizes: [16], queues: [hpc]}
queues:
  interactive:
  hpc: {at_boundary: finish, scratch: true}
images: [ubuntu-24.04-cuda]
holidays: {country: DE, region: BY}
limits: {open_reservations: 20, gpus_at_once: 16, longest: 14d}
"""
_HOST = """\
version: 1
# The host of group {number}: its nights, its course, its people.
windows:
  - name: night-{number}
    layout: night
    hosts: [dgx2-{number:03}]
    opens: "{minute} 20 * * mon-fri"
    for: 11h
    only_if_queued: true
  - name: weekend-{number}
    layout: night
    hosts: [dgx2-{number:03}]
    opens: "{minute} 18 * * sat-sun"
    for: 13h
    holidays: skip
    only_if_queued: true
groups:
  group-{number}: {{members: [ada-{number}, bela-{number}]}}
limits:
  groups:
    group-{number}: {{gpus_at_once: 16}}
reserve:
  - name: course-{number}
    cron: "{minute} 10 * * tue"
    for: 2h
    gpus: 2
    count: 4
    queue: interactive
    owner: group-{number}
"""
_MANY_HOSTS = (
    _SITE
    + """\
windows:
  - {{name: night, layout: night, opens: "0 20 * * mon-fri", for: 12h}}
  - {{name: weekend, layout: night, opens: "0 18 * * sat-sun", for: 14h}}
maintenance:
  - {{name: patches, opens: "0 17 * * tue#1", for: 2h, hosts: ["*7"]}}
  - {{name: power, at: ["2026-06-06 22:00"], for: 4h, hosts: ["dgx2-00*"]}}
"""
)


_TRIED = """\
version: 1
zone: Europe/Berlin
outside: day
layouts:
  day: {{sizes: [1, 2, 4, 8], queues: [interactive]}}
  night: {{sizes: [16], queues: [hpc]}}
queues:
  interactive:
  hpc: {{at_boundary: finish, scratch: true}}
images: [ubuntu-24.04-cuda]
defaults: {disks}
windows:
  - {{name: night, layout: night, opens: "0 {opens} * * *", for: {length}, only_if_queued: true}}
reserve:
  - {{name: climate, cron: "0 {opens} * * mon-fri", for: 6h, gpus: 16, queue: hpc, owner: climate-group}}
"""
_FEW_DISKS, _MANY_DISKS = "{disk: 20GiB, retention: 3d}", "{disk: 100GiB, retention: 7d}"
"""A trace says nothing of disks; the second is what holds where a policy says nothing of them either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """One way to try both policies on a trace."""

    what: str
    disks: str
    may_be_compiled: bool
    most_s: float | None
    """None: there is no goal for it."""


_TRIALS = (
    _Trial(what="", disks=_FEW_DISKS, may_be_compiled=True, most_s=15.0),
    _Trial(what=", without the compiled calendar", disks=_FEW_DISKS, may_be_compiled=False, most_s=120.0),
    _Trial(what=", with the disks of a policy that names none", disks=_MANY_DISKS, may_be_compiled=True, most_s=None),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--times", type=int, default=5, help="how often each is done; the smallest counts")
    parser.add_argument("--trace", type=Path, help="only try policies, on this trace: CSV or CSV.gz")
    parser.add_argument("--hosts", type=int, default=17, help="DGX-2s to try them on")
    parser.add_argument("--days", type=int, help="only so many days of the trace")


def run(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Measure, print the table and return its rows."""
    if arguments.trace is not None:
        rows = _tried(arguments.trace, hosts=arguments.hosts, days=arguments.days)
    else:
        rows = _read(arguments.times)
    table = Table("what", "most, s", "took, s")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console().print(table)
    return rows


def _read(times: int) -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory(prefix="nightshift-policies-") as directory:
        folder = Path(directory) / "policies.d"
        folder.mkdir()
        (folder / "000-site.yaml").write_text(_SITE, encoding="utf-8")
        for number in range(1, FILES):
            text = _HOST.format(number=number, minute=number % 60)
            (folder / f"{number:03}-host.yaml").write_text(text, encoding="utf-8")
        return [
            _row(f"check of {FILES} files", 1.0, _least_s(lambda: _check(folder), times)),
            *_year(times),
            _hostile(times),
        ]


def _tried(trace: Path, *, hosts: int, days: int | None) -> list[dict[str, object]]:
    """Return how long two policies take side by side; both calendars have to find the same."""
    fleet = named_fleet(str(hosts), "dgx-2")
    from_at = FROM_AT - HOUR_S
    demand = of_trace(read_trace(trace), from_at=from_at, asks=Asks.OVER, seed=1, largest=fleet.largest, days=days)
    zone = ZoneInfo("Europe/Berlin")
    until_at = day_of(demand.requests[-1].at, zone, later=1)
    rows, found = [], []
    for trial in _TRIALS:
        texts = {
            "old.yaml": _TRIED.format(opens=20, length="12h", disks=trial.disks),
            "new.yaml": _TRIED.format(opens=22, length="8h", disks=trial.disks),
        }
        cases = [
            Case(
                text=text,
                source=source,
                wanted=demand.requests,
                hosts=fleet.hosts,
                profiles=tuple(fleet.profiles.values()),
                from_at=from_at,
                until_at=until_at,
                zone=zone.key,
                may_be_compiled=trial.may_be_compiled,
            )
            for source, text in texts.items()
        ]
        began_s = time.perf_counter()
        found.append(side_by_side(cases, lambda number, made: None))
        took_s = time.perf_counter() - began_s
        what = f"old and new on {len(demand.requests)} requests, {(until_at - from_at) // DAY_S} days, {hosts} hosts"
        rows.append(_row(what + trial.what, trial.most_s, took_s))
    assert found[0] == found[1]
    return rows


def _check(folder: Path) -> None:
    read = read_policy(folder)
    assert isinstance(read, PolicyText)
    policy = load_policy(read.text, source=read.source)
    assert isinstance(policy, LoadedPolicy), policy[0]
    assert len(policy.windows) == 2 * (FILES - 1)
    assert not errors_of(check_policy(policy, from_at=FROM_AT))


def _year(times: int) -> list[dict[str, object]]:
    policy = load_policy(_MANY_HOSTS.replace("{{", "{").replace("}}", "}"), source="hosts.yaml")
    assert isinstance(policy, LoadedPolicy), policy[0]
    hosts = [HostId(f"dgx2-{number:03}") for number in range(HOSTS)]
    made: list[int] = []

    def windows() -> None:
        found = windows_between(policy, hosts, from_at=FROM_AT, until_at=FROM_AT + YEAR_S, version=1)
        made.append(sum(len(window.hosts) for window in found))

    row = _row(f"a year of windows, {HOSTS} hosts", 1.0, _least_s(windows, times))
    return [{**row, "what": f"{row['what']} ({made[-1]} windows of one host)"}]


def _hostile(times: int) -> dict[str, object]:
    took_s = {name: _least_s(lambda text=text: load_policy(text, source="x"), times) for name, text in HOSTILE.items()}  # type: ignore[misc]
    slowest = max(took_s, key=lambda name: took_s[name])
    return _row(f"a hostile file ({slowest})", 1.0, took_s[slowest])


def _least_s(work: Callable[[], object], times: int) -> float:
    took = []
    for _ in range(times):
        began_s = time.process_time()
        work()
        took.append(time.process_time() - began_s)
    return min(took)


def _row(what: str, most_s: float | None, took_s: float) -> dict[str, object]:
    return {"what": what, "most_s": most_s, "took_s": round(took_s, 3)}
