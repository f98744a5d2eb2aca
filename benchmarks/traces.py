"""What a trace asks for: requests read from a CSV file, and the clock of hosts that are closed at night. No scheduling.

The form is `submit_s,gpus,duration_s,user`, gzipped or not: whole seconds from the first submission, sorted by it; 1,
2, 4, 8, 16 or more GPUs. Sizes in between are refused, not rounded up: that would change the load without a word.
"""

import csv
import gzip
import io
import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

SIZES = (1, 2, 4, 8, 16)
HOST_GPUS = SIZES[-1]
COLUMNS = ("submit_s", "gpus", "duration_s", "user")
HOUR_S = 3600
DAY_S = 24 * HOUR_S
NIGHT_AT_S = 20 * HOUR_S
"""Of each day, counted from the file's start."""
ASK_STEP_S = 15 * 60
MOST_OVER = 3.0
LONGEST_S = 100 * 366 * DAY_S
"""No instant and no duration is beyond: a number larger than this is no number of seconds."""
_GZIP = b"\x1f\x8b"


class BadTrace(Exception):
    """The file is not of the form; the message says where, what stands there and what should."""


class Asks(StrEnum):
    """What people ask for."""

    EXACT = "exact"
    """As long as they run."""
    OVER = "over"
    """One to three times that, rounded up to a quarter of an hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceJob:
    """One line of the file."""

    submit_s: int
    gpus: int
    duration_s: int
    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRequest:
    """A request that can be placed."""

    number: int
    """Its place among those that can, from 0: the index into a schedule."""
    submit_at: int
    gpus: int
    run_s: int
    asked_s: int
    """At least `run_s`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    requests: tuple[TraceRequest, ...]
    dropped: int
    """Larger than a host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When each request started, and when it was told at submission that it would; by number."""

    start_at: list[int]
    told_at: list[int] | None
    """None where nothing is told."""


def load(path: Path) -> tuple[TraceJob, ...]:
    """Read a trace. Raises BadTrace."""
    text = _text(path)
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    jobs: list[TraceJob] = []
    try:
        header = tuple(name.strip() for name in next(rows, ()))
        if header != COLUMNS:
            raise BadTrace(f"{path}:1: the columns are {_shown(','.join(header))}: write {','.join(COLUMNS)}")
        for row in rows:
            if row:
                jobs.append(_job(row, where=f"{path}:{rows.line_num}", after_s=jobs[-1].submit_s if jobs else 0))
    except csv.Error as error:
        raise BadTrace(f"{path}:{rows.line_num}: not a line of CSV ({error}): write {','.join(COLUMNS)}") from error
    if not jobs:
        raise BadTrace(f"{path}:2: no request stands under the columns: write one a line, such as 0,1,3600,ada")
    return tuple(jobs)


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadTrace(f"{path}: cannot be read ({error.strerror}): give the path of a trace, CSV or CSV.gz") from error
    if raw.startswith(_GZIP) or path.suffix == ".gz":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise BadTrace(f"{path}: not a whole gzip file ({error}): compress the CSV anew") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise BadTrace(f"{path}:{line}: byte {raw[error.start]:#04x} is not UTF-8: write the file as UTF-8") from error


def _job(row: Sequence[str], *, where: str, after_s: int) -> TraceJob:
    if len(row) != len(COLUMNS):
        raise BadTrace(f"{where}: {len(row)} values, {_shown(','.join(row))}: write {','.join(COLUMNS)}")
    submit_s = _whole(row[0], "submit_s", where)
    gpus = _whole(row[1], "gpus", where)
    duration_s = _whole(row[2], "duration_s", where)
    if submit_s < after_s:
        raise BadTrace(f"{where}: submit_s is {submit_s}, after a line with {after_s}: sort the lines by submit_s")
    if gpus not in SIZES and gpus < HOST_GPUS:
        sizes = ", ".join(str(size) for size in SIZES)
        larger = next(size for size in SIZES if size > gpus)
        raise BadTrace(f"{where}: gpus is {gpus}: write {sizes} or more; the next size is {larger}")
    # A job that ran for less than a second was there all the same.
    return TraceJob(submit_s=submit_s, gpus=gpus, duration_s=max(1, duration_s), user=row[3])


def _whole(text: str, column: str, where: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit()):
        raise BadTrace(f"{where}: {column} is {_shown(text)}: write a whole number, 0 or more")
    if len(digits.lstrip("0")) > len(str(LONGEST_S)) or int(digits) > LONGEST_S:
        raise BadTrace(f"{where}: {column} is {_shown(text)}: write at most {LONGEST_S}")
    return int(digits)


def _shown(text: str) -> str:
    """Return text as a message can carry it."""
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


def asks(jobs: Sequence[TraceJob], *, kind: Asks = Asks.EXACT, seed: int = 1) -> Asked:
    """Return what is asked for, in wall time. A factor is drawn for each line, also for those that are dropped."""
    draw = random.Random(seed)
    factors = [1.0 if kind is Asks.EXACT else draw.uniform(1.0, MOST_OVER) for _ in jobs]
    requests: list[TraceRequest] = []
    for job, factor in zip(jobs, factors, strict=True):
        if job.gpus > HOST_GPUS:
            continue
        asked_s = job.duration_s
        if kind is Asks.OVER:
            asked_s = -int(-job.duration_s * factor // ASK_STEP_S) * ASK_STEP_S
        requests.append(
            TraceRequest(
                number=len(requests),
                submit_at=job.submit_s,
                gpus=job.gpus,
                run_s=job.duration_s,
                asked_s=asked_s,
            )
        )
    return Asked(requests=tuple(requests), dropped=len(jobs) - len(requests))


@dataclass(frozen=True, slots=True)
class OpenClock:
    """Wall seconds and open seconds: hosts are closed to tenants from 20:00 of each day on, for so many hours.

    Open time stands still over a closing. So it is the scheduler's time: what runs over a closing goes on after it.
    The closing of the evening before the file's start counts too: one of 12 hours has the file start closed.
    """

    night_hours: float = 0

    def __post_init__(self) -> None:
        if not 0 <= self.closed_s < DAY_S:
            raise ValueError(f"closed for {self.night_hours} h a day: write 0 or more, and less than 24")

    @property
    def closed_s(self) -> int:
        """Of a day."""
        return round(self.night_hours * HOUR_S)

    @property
    def open_s(self) -> int:
        """Of a day."""
        return DAY_S - self.closed_s

    def to_open(self, wall_at: int) -> int:
        return self._since_a_closing(wall_at) - self._since_a_closing(0)

    def start_to_wall(self, open_at: int) -> int:
        """Return when something starts in wall time: what falls on a closing starts at its end."""
        day, rest_s = divmod(open_at + self._since_a_closing(0), self.open_s)
        return NIGHT_AT_S + day * DAY_S + self.closed_s + rest_s

    def end_to_wall(self, open_at: int) -> int:
        """Return when something ends in wall time: what falls on a closing ends at its start."""
        day, rest_s = divmod(open_at + self._since_a_closing(0), self.open_s)
        return NIGHT_AT_S + day * DAY_S + (self.closed_s + rest_s if rest_s else 0)

    def nights(self, *, until_at: int) -> Iterator[int]:
        """Yield when closings are (those of no length too), after the file's start and up to `until_at`: open time."""
        at = self.to_open(NIGHT_AT_S)
        while at <= until_at:
            yield at
            at += self.open_s

    def _since_a_closing(self, wall_at: int) -> int:
        day, rest_s = divmod(wall_at - NIGHT_AT_S, DAY_S)
        return day * self.open_s + max(0, rest_s - self.closed_s)


def in_open_time(requests: Sequence[TraceRequest], clock: OpenClock) -> tuple[TraceRequest, ...]:
    """Return the requests as a scheduler sees them: submitted while closed is submitted at the opening."""
    return tuple(
        TraceRequest(
            number=request.number,
            submit_at=clock.to_open(request.submit_at),
            gpus=request.gpus,
            run_s=request.run_s,
            asked_s=request.asked_s,
        )
        for request in requests
    )


def in_wall_time(schedule: Schedule, clock: OpenClock) -> Schedule:
    """Return a schedule made in open time as people see it."""
    told_at = schedule.told_at
    return Schedule(
        start_at=[clock.start_to_wall(at) for at in schedule.start_at],
        told_at=None if told_at is None else [clock.start_to_wall(at) for at in told_at],
    )
