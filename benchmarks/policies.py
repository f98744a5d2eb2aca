"""How fast policies are read, checked and made into windows.

    python -m benchmarks policies

*Check* is what `nightshift policy check DIR` does, from the first byte of 200 files to every error and warning over 400
days. *A year* is the windows of 1,000 hosts, as the ticker and an apply make them. *A hostile file* is the slowest of
those that tests keep. Times are of processor time, so that what else runs on the machine does not count; the smallest
of several is the one that least disturbed.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from policies.checks import check_policy, errors_of
from policies.files import PolicyText, read_policy
from policies.format import LoadedPolicy
from policies.loading import load_policy
from policies.windows import windows_between
from scheduler.core.requests import HostId
from scheduler.core.spans import DAY_S, Instant
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--times", type=int, default=5, help="how often each is done; the smallest counts")


def run(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Measure, print the table and return its rows."""
    with tempfile.TemporaryDirectory(prefix="nightshift-policies-") as directory:
        folder = Path(directory) / "policies.d"
        folder.mkdir()
        (folder / "000-site.yaml").write_text(_SITE, encoding="utf-8")
        for number in range(1, FILES):
            text = _HOST.format(number=number, minute=number % 60)
            (folder / f"{number:03}-host.yaml").write_text(text, encoding="utf-8")
        rows = [
            _row(f"check of {FILES} files", 1.0, _least_s(lambda: _check(folder), arguments.times)),
            *_year(arguments.times),
            _hostile(arguments.times),
        ]
    table = Table("what", "most, s", "took, s")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
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


def _row(what: str, most_s: float, took_s: float) -> dict[str, object]:
    return {"what": what, "most_s": most_s, "took_s": round(took_s, 3)}
