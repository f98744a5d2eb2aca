"""A policy that changes nothing for what is booked is taken on, and what is booked stays where it is."""

from collections.abc import Iterator

import pytest

from cli.in_process import HostSetup, InProcess
from cli.simulation import load_checked_policy
from scheduler.core.intents import Submit
from scheduler.core.plan import BookedSpan
from scheduler.core.requests import Ask, HostId, ReservationId
from scheduler.core.spans import HOUR_S, MINUTE_S

HOST = HostId("dgx2-a")
SUNDAY_14_UTC = 1_795_356_000
"""Between two days with windows; on Tuesday a course has booked every GPU."""


@pytest.fixture
def home() -> Iterator[InProcess]:
    made = InProcess(now=SUNDAY_14_UTC, hosts=(HostSetup(host=HOST, profile="dgx-2", storage=HOST),))
    assert made.apply_policy(load_checked_policy(None)).is_accepted
    yield made
    made.close()


def bookings(home: InProcess) -> dict[ReservationId, tuple[BookedSpan, ...]]:
    assert home.plan is not None
    return {key: reservation.spans for key, reservation in home.plan.reservations.items()}


@pytest.mark.parametrize("gpus", [1, 2, 4, 8])
def test_the_same_policy_again_moves_nobody(home: InProcess, gpus: int) -> None:
    ask = Ask(owner="ada", queue="interactive", gpus=gpus, run_s=30 * HOUR_S)
    assert home.do(Submit(ask=ask), author="ada").is_accepted
    home.agenda.run_until(home.clock.now() + 30 * MINUTE_S)
    before = bookings(home)
    assert any(span.is_pinned for spans in before.values() for span in spans), "somebody runs, and parks tonight"
    assert home.apply_policy(load_checked_policy(None)).is_accepted
    assert bookings(home) == before
