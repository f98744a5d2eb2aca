"""Every row of the table of phases, and that nothing falls between the rows."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.facts import VmEnd, VmFact
from scheduler.core.phases import Phase, phase_of
from scheduler.core.plan import BookedSpan, Outcome, Reservation
from scheduler.core.requests import AtBoundary, HostId, Promise, Request, ReservationId
from scheduler.core.topology import PartitionId

ID = ReservationId("r-1")
HOST, BLOCK = HostId("a"), PartitionId("1g0")
REQUEST = Request(
    id=ID,
    owner="ada",
    queue="interactive",
    gpus=1,
    run_s=3600,
    submitted_at=0,
    not_before_at=None,
    start_by_at=None,
    at_boundary=AtBoundary.PARK,
    image="ubuntu",
    disk_gib=100,
)


def span(start_at: int, end_at: int) -> BookedSpan:
    return BookedSpan(start_at=start_at, end_at=end_at, host=HOST, partition=BLOCK)


TWO_SPANS = Reservation(
    request=REQUEST, promise=Promise(start_by_at=200, end_by_at=2000), spans=(span(100, 500), span(1000, 1500))
)
ASKED = VmFact(reservation=ID, generation=1, partition=BLOCK, asked_at=100)
RUNNING = replace(ASKED, up_at=110, running_at=120)
OFF = replace(RUNNING, off_at=510, end=VmEnd.STOPPED)
AGAIN = replace(ASKED, generation=2, asked_at=1000)


@pytest.mark.parametrize(
    ("reservation", "vms", "now", "phase"),
    [
        (replace(TWO_SPANS, spans=()), (), 0, Phase.WAITING),
        (TWO_SPANS, (), 50, Phase.PROMISED),
        (TWO_SPANS, (), 100, Phase.STARTING),
        (TWO_SPANS, (ASKED,), 110, Phase.STARTING),
        (TWO_SPANS, (RUNNING,), 130, Phase.RUNNING),
        (TWO_SPANS, (RUNNING,), 500, Phase.PARKING),
        (TWO_SPANS, (OFF,), 520, Phase.PARKED),
        (TWO_SPANS, (OFF,), 1000, Phase.RESUMING),
        (TWO_SPANS, (OFF, AGAIN), 1010, Phase.RESUMING),
        (TWO_SPANS, (OFF, replace(AGAIN, up_at=1010, running_at=1020)), 1030, Phase.RUNNING),
        (replace(TWO_SPANS, outcome=Outcome.COMPLETED), (RUNNING,), 1600, Phase.STOPPING),
        (replace(TWO_SPANS, outcome=Outcome.COMPLETED), (OFF,), 1600, Phase.ENDED),
        (replace(TWO_SPANS, outcome=Outcome.STOPPED), (OFF,), 1600, Phase.ENDED),
        (replace(TWO_SPANS, outcome=Outcome.CANCELLED), (), 50, Phase.CANCELLED),
        (replace(TWO_SPANS, outcome=Outcome.REFUSED), (), 50, Phase.REFUSED),
        (replace(TWO_SPANS, outcome=Outcome.FAILED), (OFF,), 50, Phase.FAILED),
    ],
)
def test_each_row_of_the_table(reservation: Reservation, vms: tuple[VmFact, ...], now: int, phase: Phase) -> None:
    assert phase_of(reservation, vms, now) is phase


def test_the_table_names_every_phase() -> None:
    import scheduler.core.phases as module

    assert module.__doc__ is not None
    for phase in Phase:
        assert f"| {phase.value} " in module.__doc__


@given(
    outcome=st.one_of(st.none(), st.sampled_from(Outcome)),
    now=st.integers(0, 2000),
    vms=st.lists(st.sampled_from([ASKED, RUNNING, OFF, AGAIN]), max_size=2, unique_by=lambda vm: vm.generation),
    spans=st.sampled_from([(), TWO_SPANS.spans[:1], TWO_SPANS.spans]),
)
def test_there_is_always_exactly_one_phase(
    outcome: Outcome | None, now: int, vms: list[VmFact], spans: tuple[BookedSpan, ...]
) -> None:
    reservation = replace(TWO_SPANS, outcome=outcome, spans=spans)
    phase = phase_of(reservation, vms, now)
    assert phase_of(reservation, list(reversed(vms)), now) is phase
    if outcome is None:
        assert phase not in (Phase.ENDED, Phase.CANCELLED, Phase.REFUSED, Phase.FAILED, Phase.STOPPING)
