"""Recorded demand: a stretch of a real GPU job trace, turned into what students ask for.

Reads traces (`submit_s,gpus,duration_s,user`, gzipped or not) and makes arrivals by seed. Books nothing.
"""

import csv
import gzip
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.resources import as_file, files
from pathlib import Path
from typing import TextIO

from scheduler.core.errors import NightshiftError
from scheduler.core.spans import HOUR_S, MINUTE_S, Instant

SHIPPED_TRACE = "philly_vc103959.csv.gz"
STUDENTS = ("ada", "bela", "chen", "dora", "emil", "fatma", "gita", "hugo", "ines", "jonas", "kwame", "lena")


class Asks(StrEnum):
    """How much people ask for."""

    EXACT = "exact"
    """As long as they run."""
    OVER = "over"
    """One to three times that, rounded up to a quarter of an hour."""


class BadTrace(NightshiftError):
    """A trace file cannot be read as one."""

    code = "trace.bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One line of a trace."""

    submit_s: int
    gpus: int
    duration_s: int
    user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Somebody asks: at `at` for `run_s`, of which the work will need `needs_s`."""

    at: Instant
    owner: str
    gpus: int
    run_s: int
    needs_s: int


def read_trace(path: Path | None = None) -> tuple[Job, ...]:
    """Read a trace file; None: the one that ships. Raises BadTrace naming the line."""
    name = str(path) if path is not None else SHIPPED_TRACE
    jobs: list[Job] = []
    try:
        with _opened(path) as lines:
            for number, row in enumerate(csv.DictReader(lines), start=2):
                try:
                    jobs.append(_job(row))
                except (KeyError, TypeError, ValueError) as error:
                    raise BadTrace(
                        f"{name}:{number}: not a job ({error}); give columns submit_s,gpus,duration_s,user", path=name
                    ) from error
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise BadTrace(f"cannot read trace {name}: {error}", path=name) from error
    if not jobs:
        raise BadTrace(f"{name} holds no jobs; give a CSV with columns submit_s,gpus,duration_s,user", path=name)
    return tuple(sorted(jobs, key=lambda job: job.submit_s))


def _job(row: dict[str, str]) -> Job:
    """Read one row; raises ValueError naming the value."""
    job = Job(
        submit_s=int(row["submit_s"]),
        gpus=int(row["gpus"]),
        duration_s=int(row["duration_s"]),
        user=row.get("user") or "",
    )
    for name, value, least in (("submit_s", job.submit_s, 0), ("gpus", job.gpus, 1), ("duration_s", job.duration_s, 0)):
        if not least <= value < 1 << 40:
            raise ValueError(f"{name} is {value}")
    return replace(job, duration_s=max(1, job.duration_s))


@contextmanager
def _opened(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        with as_file(files("cli").joinpath("data", SHIPPED_TRACE)) as shipped, gzip.open(shipped, "rt") as lines:
            yield lines
    elif path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
            yield lines
    else:
        with path.open(encoding="utf-8", newline="") as lines:
            yield lines


def busiest(jobs: tuple[Job, ...], length_s: int) -> tuple[Job, ...]:
    """Return the jobs of the stretch of this length in which most were submitted; the first of equals."""
    best: tuple[Job, ...] = ()
    end = 0
    for begin, job in enumerate(jobs):
        while end < len(jobs) and jobs[end].submit_s < job.submit_s + length_s:
            end += 1
        if end - begin > len(best):
            best = jobs[begin:end]
    return best


def arrivals(
    jobs: tuple[Job, ...], *, start_at: Instant, length_s: int, cap_s: int, largest: int, seed: int
) -> tuple[Arrival, ...]:
    """Turn jobs into arrivals, spread over `[start_at, start_at + length_s)` as they were submitted.

    Running times are capped at `cap_s`, sizes at `largest` GPUs. People ask for more than they need: the ask is the
    need times a seeded factor of 1 to 2, rounded up to a quarter of an hour and at most the cap.
    """
    draw = random.Random(f"arrivals/{seed}")
    first_s = jobs[0].submit_s if jobs else 0
    made = []
    for job in jobs:
        if job.gpus > largest or job.submit_s - first_s >= length_s:
            continue
        needs_s = max(10 * MINUTE_S, min(job.duration_s, cap_s))
        asked_s = min(int(needs_s * draw.uniform(1.0, 2.0)), cap_s)
        quarter_s = 15 * MINUTE_S
        run_s = max(quarter_s, -(-asked_s // quarter_s) * quarter_s)
        made.append(
            Arrival(
                at=start_at + job.submit_s - first_s,
                owner=draw.choice(STUDENTS),
                gpus=job.gpus,
                run_s=run_s,
                needs_s=min(needs_s, run_s),
            )
        )
    return tuple(made)


def wide_arrivals(*, start_at: Instant, length_s: int, sizes: tuple[int, ...], seed: int) -> tuple[Arrival, ...]:
    """Make requests that the trace lacks, one for each size given, at seeded instants of the first two thirds."""
    draw = random.Random(f"wide/{seed}")
    made = []
    for gpus in sizes:
        hours = draw.randint(2, 5)
        at = start_at + draw.randrange(0, length_s * 2 // 3)
        needs_s = int(hours * HOUR_S * draw.uniform(0.6, 1.0))
        made.append(Arrival(at=at, owner=draw.choice(STUDENTS), gpus=gpus, run_s=hours * HOUR_S, needs_s=needs_s))
    return tuple(sorted(made, key=lambda a: (a.at, a.gpus)))
