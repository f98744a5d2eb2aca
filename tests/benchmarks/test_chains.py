"""The slowest chain of a swap, read from logs whose every second is known."""

from collections.abc import Iterator

import pytest

from benchmarks.chains import NotInLog, and_back, start_s, to_night
from scheduler.core.requests import ReservationId
from scheduler.core.topology import PartitionId
from scheduler.profiles.loading import load_profile
from workers.drivers.simulated.log import LogLine

PROFILE = load_profile("dgx-2")
ADA, BELA, NIGHT = ReservationId("r-1"), ReservationId("r-2"), ReservationId("r-3")
PLACE = {ADA: PartitionId("8g0-7"), BELA: PartitionId("8g8-15"), NIGHT: PartitionId("16g0-15")}
OPENS_AT = 1_000


def log_of(*happened: tuple[int, str, ReservationId | None, dict[str, str]]) -> tuple[LogLine, ...]:
    """Make a log of (instant, kind, reservation, detail)."""
    return tuple(
        LogLine(
            seq=number,
            at=at,
            what=what,
            domain=None,
            name=None,
            reservation=key,
            generation=None,
            gpus=(),
            partition=None if key is None else PLACE[key],
            detail=tuple(detail.items()),
        )
        for number, (at, what, key, detail) in enumerate(happened, start=1)
    )


def reset(
    of: ReservationId, asked_at: int, took_s: int
) -> Iterator[tuple[int, str, ReservationId | None, dict[str, str]]]:
    """Reset one GPU of a partition, as the log has it."""
    gpu = PROFILE.gpu(min(PROFILE.partition(PLACE[of]).gpus)).address
    yield asked_at, "reset.asked", None, {"device": gpu}
    yield asked_at + took_s, "gpu.reset", None, {"device": gpu}


def test_the_chain_to_night_is_the_slowest_stop_with_its_reset_and_the_start() -> None:
    log = log_of(
        (OPENS_AT, "vm.shutdown_asked", ADA, {}),
        (OPENS_AT, "vm.shutdown_asked", BELA, {}),
        (OPENS_AT + 40, "vm.off", ADA, {}),
        *reset(ADA, OPENS_AT + 41, 5),
        (OPENS_AT + 30, "vm.off", BELA, {}),
        *reset(BELA, OPENS_AT + 31, 12),
        (OPENS_AT + 50, "disk.copying", None, {"disk": "d-r-3"}),
        (OPENS_AT + 60, "disk.made", None, {"disk": "d-r-3"}),
        (OPENS_AT + 62, "vm.starting", NIGHT, {"disk": "d-r-3"}),
        (OPENS_AT + 132, "vm.running", NIGHT, {}),
        (OPENS_AT + 182, "guest.up", NIGHT, {}),
    )
    found = to_night(log, PROFILE, opens_at=OPENS_AT, tenants=(ADA, BELA), night=NIGHT)
    assert (found.took_s, found.chain_s, found.overhead_s) == (182, 40 + 5 + 10 + 70 + 50, 7)
    assert found.slowest == "r-1: stop 40 + reset 5 + r-3: copy 10 + start 70 + boot 50"
    assert start_s(log, NIGHT) == 130


def test_the_chain_back_is_the_stop_of_the_night_and_the_slowest_tenant() -> None:
    asked_at = OPENS_AT + 500
    log = log_of(
        # Of the evening before, and no part of it.
        (OPENS_AT - 900, "vm.starting", ADA, {"disk": "d-r-1"}),
        (OPENS_AT - 700, "guest.up", ADA, {}),
        (asked_at, "vm.shutdown_asked", NIGHT, {}),
        (asked_at + 20, "vm.off", NIGHT, {}),
        *reset(ADA, asked_at + 21, 4),
        *reset(BELA, asked_at + 21, 9),
        (asked_at + 26, "vm.starting", ADA, {"disk": "d-r-1"}),
        (asked_at + 31, "vm.starting", BELA, {"disk": "d-r-2"}),
        (asked_at + 60, "vm.running", BELA, {}),
        (asked_at + 66, "vm.running", ADA, {}),
        (asked_at + 90, "guest.up", BELA, {}),
        (asked_at + 106, "guest.up", ADA, {}),
    )
    found = and_back(log, PROFILE, tenants=(ADA, BELA), night=NIGHT)
    assert (found.took_s, found.chain_s) == (106, 20 + 4 + 40 + 40)
    assert found.ratio == pytest.approx(106 / 104)


def test_a_log_without_the_swap_is_not_measured() -> None:
    with pytest.raises(NotInLog, match=r"no vm\.starting of r-3"):
        to_night(log_of((OPENS_AT, "host.made", None, {})), PROFILE, opens_at=OPENS_AT, tenants=(ADA,), night=NIGHT)
