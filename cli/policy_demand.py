"""The demand that policies are tried with: a trace of jobs, or what was asked for on a server and how long it ran.

Turns both into the same values. Holds nothing of any policy, but for the disks that one gives by default.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from datetime import time as clock_time
from zoneinfo import ZoneInfo

from cli.client import Json
from cli.connecting import Connection
from cli.recorded import Asks, Job
from cli.times import api_text, instant, instant_in
from policies.format import LoadedPolicy
from policies.occurrences import instant_of, local_of
from policies.simulating import Wanted
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, MINUTE_S, Instant

ASK_STEP_S = 15 * MINUTE_S
MOST_OVER = 3.0
NOBODY = "somebody"
"""Whoever asks in a trace that names nobody."""
PAGE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AllWanted:
    """What is asked for, in order of time."""

    requests: tuple[Wanted, ...]
    dropped: int = 0
    """Larger than any VM."""
    never_ran: int = 0
    """Given up before they ran: nobody knows for how long they would have."""


def of_trace(
    jobs: Sequence[Job], *, from_at: Instant, asks: Asks, seed: int, largest: int, days: int | None = None
) -> AllWanted:
    """Return what the jobs of a trace ask for; its first second is `from_at`. `days`: only so many from there.

    A factor is drawn for each line, also for those that are dropped. Nobody asks for less than may be asked for.
    """
    draw = random.Random(seed)
    shortest_s = Settings().shortest_run_s
    requests: list[Wanted] = []
    dropped = 0
    for job in jobs:
        factor = 1.0 if asks is Asks.EXACT else draw.uniform(1.0, MOST_OVER)
        if days is not None and job.submit_s >= days * DAY_S:
            continue
        if job.gpus > largest:
            dropped += 1
            continue
        asked_s = job.duration_s
        if asks is Asks.OVER:
            asked_s = -int(-job.duration_s * factor // ASK_STEP_S) * ASK_STEP_S
        requests.append(
            Wanted(
                at=from_at + job.submit_s,
                owner=job.user or NOBODY,
                gpus=job.gpus,
                run_s=max(asked_s, shortest_s),
                used_s=job.duration_s,
            )
        )
    return AllWanted(requests=tuple(requests), dropped=dropped)


def history(connection: Connection, *, since_at: Instant) -> list[Json]:
    """Return all that was asked for on a server since an instant, page by page."""
    found: list[Json] = []
    after: str | None = None
    while True:
        answer = connection.client.get("/demand", since=api_text(since_at), after=after, limit=PAGE)
        found += answer["requests"]
        after = answer["next"]
        if after is None:
            return found


def of_history(
    found: Iterable[Json], *, old: LoadedPolicy, largest: int, later_s: int = 0, days: int | None = None
) -> AllWanted:
    """Return what people asked for; the policy's own reservations are left out, since policies file their own.

    Who was refused asks again, and would use all of it; so does who has not ended yet. `later_s`: all of it is moved by
    so much. `days`: only so many from the first on.
    """
    requests: list[Wanted] = []
    dropped = never_ran = 0
    for one in found:
        if one["by_policy"] is not None:
            continue
        if one["gpus"] > largest:
            dropped += 1
        elif one["outcome"] not in (None, "refused") and not one["ran_s"]:
            never_ran += 1
        else:
            requests.append(_moved(_of_answer(one, old), later_s))
    if days is not None and requests:
        last_at = requests[0].at + days * DAY_S
        requests = [request for request in requests if request.at < last_at]
    return AllWanted(requests=tuple(requests), dropped=dropped, never_ran=never_ran)


def _of_answer(one: Json, old: LoadedPolicy) -> Wanted:
    known = next((queue for queue in old.queues if queue.name == one["queue"]), None)
    usual_gib = old.default_disk_gib if known is None else known.default_disk_gib or old.default_disk_gib
    used_s = one["ran_s"] if one["outcome"] not in (None, "refused") else one["run_s"]
    return Wanted(
        at=instant(one["submitted_at"]),
        owner=str(one["owner"]),
        gpus=int(one["gpus"]),
        run_s=int(one["run_s"]),
        used_s=max(1, int(used_s)),
        queue=str(one["queue"]),
        not_before_at=instant_in(one, "not_before_at"),
        start_by_at=instant_in(one, "asked_start_by_at"),
        disk_gib=None if one["disk_gib"] == usual_gib else int(one["disk_gib"]),
    )


def _moved(request: Wanted, by_s: int) -> Wanted:
    if not by_s:
        return request
    return replace(
        request,
        at=request.at + by_s,
        not_before_at=None if request.not_before_at is None else request.not_before_at + by_s,
        start_by_at=None if request.start_by_at is None else request.start_by_at + by_s,
    )


def day_of(at: Instant, zone: ZoneInfo, *, later: int = 0) -> Instant:
    """Return when the day of an instant begins in a zone, or so many days later."""
    day = local_of(at, zone).date() + timedelta(days=later)
    return instant_of(datetime.combine(day, clock_time()), zone)
