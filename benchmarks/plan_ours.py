"""Our side of `plan`: a batch of requests on a fleet that is busy, with reservations ahead."""

from collections.abc import Sequence

from scheduler.core.calendar.bookings import Fit
from scheduler.core.calendar.kinds import aligned_kind
from scheduler.core.calendar.making import make_calendar

HOST = aligned_kind(16)


def plan_ours(
    hosts: int,
    occupied: Sequence[tuple[int, int]],
    requests: Sequence[tuple[int, int]],
    reservations: Sequence[tuple[int, int, int]],
    *,
    may_be_compiled: bool = True,
) -> list[int]:
    """Return when requests (GPUs, seconds) would start, each at its earliest place in turn.

    `occupied`: (host, until when a 16-GPU VM has it); `reservations`: (start, GPUs, seconds), at that start or as soon
    after it as there is room, the widest first: they are all known.
    """
    calendar = make_calendar(0, may_be_compiled=may_be_compiled)
    for _ in range(hosts):
        calendar.add_host(HOST)
    key = 0
    for host, until_s in occupied:
        fit = Fit(16, until_s, until_s, label=-1)
        place = calendar.earliest(fit, 0)
        assert place is not None
        calendar.book(key, place._replace(host=host, set=0), fit)
        key += 1
    for start_s, gpus, run_s in sorted(reservations, key=lambda one: (-one[1], one[0])):
        fit = Fit(gpus, run_s, run_s)
        place = calendar.earliest(fit, start_s)
        assert place is not None
        calendar.book(key, place, fit)
        key += 1
    return calendar.book_all(key, requests, 0)
