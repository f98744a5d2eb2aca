"""What a person or a policy asks for, and what they were told.

Holds the values only: whether an ask is acceptable is in `admission`, where it goes is in `placing`.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NewType

from scheduler.core.spans import Instant

HostId = NewType("HostId", str)
ReservationId = NewType("ReservationId", str)
DiskId = NewType("DiskId", str)


@lru_cache(maxsize=100_000)
def by_number(reservation: ReservationId) -> tuple[int, str]:
    """Sort ids in the order in which they were given: r-9 before r-10."""
    number = reservation.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0, reservation


class AtBoundary(StrEnum):
    """What happens to a reservation whose hours would run over the edge of its time."""

    PARK = "park"
    """Shut the guest down, keep its disk, resume when its time comes again."""
    FINISH = "finish"
    """Only be booked where all hours are delivered before the edge."""
    KEEP = "keep"
    """Run on through the window, where its policy allows that and no promise needs the GPUs."""

    # As quick as of any text: Python's own for enumerations is not, and much is looked up by it.
    __hash__ = str.__hash__


class Role(StrEnum):
    """Who speaks: decides what an intent may do."""

    STUDENT = "student"
    ADMIN = "admin"
    POLICY = "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A reservation as it is asked for; nothing in it is checked yet."""

    owner: str
    queue: str
    gpus: int
    run_s: int
    """Hours of running asked for, in seconds; being parked does not use them up."""
    not_before_at: Instant | None = None
    start_by_at: Instant | None = None
    """The latest start that is acceptable; `--at T` sets both this and `not_before_at` to T."""
    at_boundary: AtBoundary | None = None
    """None: what the queue does by default."""
    image: str | None = None
    """None: the policy's first image."""
    disk_gib: int | None = None
    """None: what the policy gives by default."""
    memory_gib: int | None = None
    """None: the partition's whole share."""
    vcpus: int | None = None
    """None: the partition's whole share."""
    ssh_key: str | None = None
    continues: ReservationId | None = None
    """Take over the kept disk of this earlier reservation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An admitted ask: every choice made, all values checked."""

    id: ReservationId
    owner: str
    queue: str
    gpus: int
    run_s: int
    submitted_at: Instant
    not_before_at: Instant | None
    start_by_at: Instant | None
    at_boundary: AtBoundary
    image: str
    disk_gib: int
    memory_gib: int | None = None
    """Less than the partition's share; None: all of it."""
    vcpus: int | None = None
    """Less than the partition's share; None: all of it."""
    ssh_key: str | None = None
    continues: ReservationId | None = None
    key: str | None = None
    """The unique key under which a policy filed it: entry name, local start, number."""

    @property
    def is_at_fixed_time(self) -> bool:
        """Whether it starts at one instant, or not at all."""
        return self.start_by_at is not None and self.start_by_at == self.not_before_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What the person was told; set at admission and only ever lowered, but by a fault or an override."""

    start_by_at: Instant
    """The guest is running by then."""
    end_by_at: Instant
    """All hours asked for are delivered by then, parkings included."""
