"""Long random histories against every invariant: `python -m tests.simulation.histories --host-days 2000 --jobs 2`.

Lives through histories until the host-days asked for are reached, each from its own seed, and judges each. Prints what
was covered, and for every history with violations its seed and how to see it again.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from multiprocessing import get_context
from time import perf_counter

import psycopg
from sqlalchemy import make_url

from tests.simulation.living import Judged, Scope, live

REPLAY = "python -m tests.simulation.histories --seed {seed} --histories 1"


def scopes(*, host_days: int, first_seed: int, histories: int | None = None) -> Iterator[Scope]:
    """Yield the histories that together make up these host-days, or so many of them."""
    seed, done = first_seed, 0
    while done < host_days if histories is None else seed < first_seed + histories:
        scope = Scope.of(seed)
        yield scope
        done += scope.host_days
        seed += 1


def live_all(todo: Iterable[Scope], *, jobs: int, server: str | None = None) -> Iterator[Judged]:
    """Live through histories, several at once; each is the same whatever runs beside it."""
    one = partial(live_on, server)
    if jobs == 1:
        yield from map(one, todo)
        return
    with get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(one, list(todo))


def live_on(server: str | None, scope: Scope) -> Judged:
    """Live through a history in memory, or in a database of its own on a PostgreSQL server."""
    if server is None:
        return live(scope)
    url = make_url(server)
    name = f"history_{scope.seed}"
    administers = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(administers, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            return live(scope, store_url=url.set(database=name).render_as_string(hide_password=False))
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def told(judged: Judged) -> str:
    """Say what is wrong with a history, and how to see it again."""
    scope = judged.scope
    kind = "with faults" if scope.has_faults else "without faults"
    head = f"seed {scope.seed} ({scope.hosts} hosts, {scope.days} days, {kind}): {len(judged.problems)} violations"
    lines = [f"  {problem}" for problem in judged.problems[:8]]
    return "\n".join([head, *lines, f"  again: {REPLAY.format(seed=scope.seed)}"])


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 1 when anything was violated."""
    parser = argparse.ArgumentParser(prog="histories", description=__doc__)
    parser.add_argument("--host-days", type=int, default=100, help="how many days of how many hosts, at the least")
    parser.add_argument("--histories", type=int, help="so many histories, however long they are")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seed", type=int, default=1, help="the seed of the first history; each next one has the next")
    parser.add_argument("--store", metavar="URL", help="a PostgreSQL server, for a database for each; else in memory")
    asked = parser.parse_args(arguments)
    began = perf_counter()
    todo = list(scopes(host_days=asked.host_days, first_seed=asked.seed, histories=asked.histories))
    lived: list[Judged] = []
    for judged in live_all(todo, jobs=asked.jobs, server=asked.store):
        lived.append(judged)
        if judged.problems:
            print(told(judged), flush=True)
    print(summary(lived, seconds=perf_counter() - began))
    return 1 if any(judged.problems for judged in lived) else 0


def summary(lived: list[Judged], *, seconds: float) -> str:
    """Say what was covered."""
    host_days = sum(judged.scope.host_days for judged in lived)
    requests = sum(judged.requests for judged in lived)
    faults: Counter[str] = Counter()
    acts: Counter[str] = Counter()
    for judged in lived:
        faults += judged.faults
        acts += judged.acts
    broken = [judged for judged in lived if judged.problems]
    working_s = sum(judged.seconds for judged in lived)
    lines = [
        f"{len(lived)} histories, {host_days} host-days, {requests} requests"
        f" ({requests / max(1, host_days):.1f} per host-day), {sum(j.refused for j in lived)} refused with reasons,"
        f" {sum(j.events for j in lived)} events, {sum(j.promises_raised for j in lived)} notices of a broken promise",
        "faults: " + (", ".join(f"{kind} {count}" for kind, count in sorted(faults.items())) or "none"),
        "acts: " + ", ".join(f"{act} {count}" for act, count in sorted(acts.items())),
        f"violations: {sum(len(judged.problems) for judged in broken)} in {len(broken)} histories"
        + (f" (seeds {', '.join(str(judged.scope.seed) for judged in broken)})" if broken else ""),
        f"seconds: {seconds:.1f}, {working_s / max(1, host_days):.2f} of one core per host-day",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
