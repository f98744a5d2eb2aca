"""What a calendar holds and is asked for: places, what is looked for, and bookings. Values only.

Both calendars, in Python and in C, take and give these.
"""

from collections.abc import Sequence
from typing import NamedTuple

from scheduler.core.spans import FOREVER, Instant

FIXED = -1
"""The due instant of a booking that is never moved."""

MOST_PIECES = 128
"""A booking is never cut into more."""

ONE_PIECE = -1
"""The lead of what is not to be cut."""

MOST_EVER_DISPLACED = 64
MOST_DISPLACED = 8
"""So many bookings are placed anew for one that starts early."""


class Place(NamedTuple):
    """Where and when something is booked, or could be."""

    start_at: Instant
    end_at: Instant
    host: int
    set: int


class Fit(NamedTuple):
    """What is looked for."""

    size: int
    whole_s: int
    """How long it is booked for in one piece."""
    shortest_s: int
    """The shortest piece that ends at an edge where it may be parked; `whole_s` where it may not."""
    shape: int = -1
    """The number of the stretches of time that it may run in; -1: always."""
    label: int = -1
    """Only on hosts with this label; -1: on any."""
    may_be_silent: bool = False
    """Also on hosts that do not answer."""
    kind: int = -1
    """Only on hosts of the kind that was added as this number; -1: of any."""
    lead_s: int = ONE_PIECE
    """It may be cut at edges where it may be parked, and goes on in the next stretch, on the same set; each piece
    begins with so long a lead. ONE_PIECE: a piece that is cut is all that is looked for."""
    end_by_at: Instant = FOREVER
    """Of one that may be cut: the latest end that its promise allows."""


class Booking(NamedTuple):
    """A booking: its place, and how it may be moved."""

    place: Place
    fit: Fit
    due_at: Instant
    """The latest start that its promise allows; FIXED: never moved."""
    pieces: tuple[tuple[Instant, Instant], ...] = ()
    """Of one that is cut: start and end of each piece, the first and the last of them those of the place."""


class Rooms(NamedTuple):
    """Where there is room for what is booked, which it keeps for a while after its end.

    Wherever there is room from now on until then it may lie. What a booking has is its own: on all hosts with the label
    of the one that it is booked on, from its start on if it moves to now, and at any time if it moves later.
    """

    until_at: Sequence[Instant]
    """Of each host by number: until when it has room."""
    kept_s: int
