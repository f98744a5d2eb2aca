"""What the demonstration counts, by hand-written runs whose counts can be read off."""

from dataclasses import replace
from uuid import uuid4

from cli.answers import KeptAnswers, Told
from cli.auditor import Audit, Finding, FindingKind, Judged, Verdict
from cli.demonstration.counting import Numbers, Parkings, count, missing, parkings, swaps
from cli.runs import Run
from scheduler.core.requests import ReservationId

WHOLE = tuple(range(16))


def run(number: int, held_at: int, free_at: int | None, *gpus: int, partition: str = "") -> Run:
    return Run(
        domain=uuid4(),
        reservation=ReservationId(f"r-{number}"),
        generation=1,
        partition=partition or f"{len(gpus)}g{gpus[0]}",
        gpus=gpus,
        disk=f"disk-{number}",
        held_at=held_at,
        up_at=held_at + 1,
        down_at=free_at,
        free_at=free_at,
    )


def kept(number: int, *, ended_at: int | None = None, by_policy: str | None = None) -> KeptAnswers:
    return KeptAnswers(
        reservation=ReservationId(f"r-{number}"),
        owner="ada",
        gpus=1,
        run_s=100,
        submitted_at=0,
        told=(Told(seen_at=0, start_by_at=50, end_by_at=500),),
        ended_at=ended_at,
        by_policy=by_policy,
    )


NIGHT = (
    run(1, 0, 20, 0),
    run(2, 0, 20, 1),
    run(3, 25, 60, *WHOLE),
    run(4, 62, 80, *WHOLE),
    run(1, 85, 120, 5),
    run(2, 85, None, 1),
    run(5, 90, 100, 2, 3),
)


def test_a_swap_is_counted_once_however_many_vms_take_part() -> None:
    assert swaps(NIGHT, gpus=16) == (1, 1)
    assert swaps((*NIGHT, run(6, 130, 150, *WHOLE)), gpus=16) == (2, 1)
    assert swaps(NIGHT[:2], gpus=16) == (0, 0)


def test_a_vm_whose_guest_never_came_up_makes_no_swap() -> None:
    failed = replace(run(6, 10, 15, *WHOLE), up_at=None)
    assert swaps((NIGHT[0], failed, NIGHT[1]), gpus=16) == (0, 0)


def test_parkings_are_counted_with_those_that_wait_and_moves_to_another_block() -> None:
    answers = [kept(number, ended_at=120 if number != 2 else None) for number in range(1, 6)]
    assert parkings(NIGHT, answers) == Parkings(parked=2, resumed=2, resumed_on_other_block=1)
    waiting = (*NIGHT[:2], NIGHT[2])
    assert parkings(waiting, [kept(1), kept(2), kept(3, ended_at=60)]) == Parkings(
        parked=2, resumed=0, resumed_on_other_block=0
    )


def test_the_numbers_are_those_that_were_promised_to_be_written() -> None:
    audited = Audit(
        findings=(Finding(kind=FindingKind.DISK_LOST, subject="disk-1", at=1, sentence="gone"),),
        judged=(
            Judged(reservation=ReservationId("r-1"), verdict=Verdict.KEPT, up_at=1, late_s=0),
            Judged(reservation=ReservationId("r-2"), verdict=Verdict.BROKEN, up_at=1, late_s=90),
            Judged(reservation=ReservationId("r-5"), verdict=Verdict.OPEN, up_at=None, late_s=None),
        ),
    )
    answers = [kept(1, ended_at=120), kept(2), kept(3, ended_at=60, by_policy="nightly"), kept(4), kept(5)]
    written = count(NIGHT, answers, audited, gpus=16).as_json(seconds=12.34)
    wanted = {
        "reservations", "started", "promises", "promises_kept", "swaps", "parked", "resumed", "resumed_on_other_block",
        "by_policy", "gpu_conflicts", "disks_lost", "late_s", "seconds",
    }  # fmt: skip
    assert wanted <= set(written)
    assert written["reservations"] == written["started"] == 5
    assert (written["promises"], written["promises_kept"], written["promises_open"]) == (2, 1, 1)
    assert (written["swaps"], written["swaps_to_night"], written["swaps_back"]) == (2, 1, 1)
    assert (written["by_policy"], written["disks_lost"], written["gpu_conflicts"]) == (1, 1, 0)
    assert written["late_s"] == {"p50": 0, "p95": 90, "max": 90}
    assert written["seconds"] == 12.3


ENOUGH = Numbers(
    reservations=40,
    started=40,
    promises=40,
    promises_kept=40,
    promises_told=0,
    promises_open=0,
    swaps_to_night=2,
    swaps_back=2,
    parkings=Parkings(parked=6, resumed=6, resumed_on_other_block=1),
    by_policy=1,
    gpu_conflicts=0,
    disks_lost=0,
    late_s=(0, 0, 0),
)


def test_each_thing_that_falls_short_is_named_in_a_line_of_its_own() -> None:
    assert list(missing(ENOUGH)) == []
    short = {
        "reservations": replace(ENOUGH, reservations=39),
        "swaps to night": replace(ENOUGH, swaps_to_night=1),
        "swaps back": replace(ENOUGH, swaps_back=1),
        "parked and resumed": replace(ENOUGH, parkings=replace(ENOUGH.parkings, resumed=5)),
        "another block": replace(ENOUGH, parkings=replace(ENOUGH.parkings, resumed_on_other_block=0)),
        "policy": replace(ENOUGH, by_policy=0),
    }
    for what, numbers in short.items():
        (line,) = missing(numbers)
        assert what in line
