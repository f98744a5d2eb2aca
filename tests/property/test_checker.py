"""The checker bites: each thing that must never be so is planted in a good plan, and is found."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from scheduler.core.intents import ApplyPolicy, Submit
from scheduler.core.plan import PlanChange, Reservation, apply
from scheduler.core.requests import Ask, HostId, Promise, ReservationId
from scheduler.core.spans import DAY_S, HOUR_S
from scheduler.core.topology import PartitionId
from scheduler.core.windows import WindowState
from tests.property.checker import Scene, violations
from tests.property.worlds import MIDNIGHT, World, dgx2, nights, rules, world

ONE, TWO, JOB = ReservationId("r-3"), ReservationId("r-4"), ReservationId("r-5")


def good() -> World:
    made = world()
    for gpus in (4, 4, 16):
        queue = "hpc" if gpus == 16 else "interactive"
        made.file(Submit(ask=Ask(owner="ada", queue=queue, gpus=gpus, run_s=3 * HOUR_S)))
    made.run_until(made.now + 9 * HOUR_S)
    assert made.problems == []
    made.file(Submit(ask=Ask(owner="ada", queue="interactive", gpus=4, run_s=14 * HOUR_S)))
    made.look()
    return made


RUNS = ReservationId("r-6")


def judge(made: World, change: PlanChange) -> list[str]:
    after = apply(made.plan, change)
    return violations(
        Scene(
            before=made.plan,
            after=after,
            change=change,
            intents=(),
            facts=made.facts,
            now=made.now,
            settings=made.settings,
        )
    )


def changed(edit: Callable[[Reservation], Reservation], key: ReservationId = RUNS) -> Callable[[World], PlanChange]:
    return lambda made: PlanChange(reservations=(edit(made.plan.reservations[key]),))


def moved_tail(by_s: int) -> Callable[[Reservation], Reservation]:
    def edit(r: Reservation) -> Reservation:
        tail = r.spans[-1]
        later = replace(tail, start_at=tail.start_at + by_s, end_at=tail.end_at + by_s)
        return replace(r, spans=(*r.spans[:-1], later))

    return edit


def raised(r: Reservation) -> Reservation:
    assert r.promise is not None
    return replace(r, promise=Promise(start_by_at=r.promise.start_by_at, end_by_at=r.promise.end_by_at + 1))


def onto(partition: str) -> Callable[[Reservation], Reservation]:
    return lambda r: replace(r, spans=tuple(replace(s, partition=PartitionId(partition)) for s in r.spans))


def double(made: World) -> PlanChange:
    """Book somebody else on the GPUs that are in use."""
    r = made.plan.reservations[RUNS]
    other = replace(r, request=replace(r.request, id=ReservationId("r-99")))
    return PlanChange(reservations=(other,))


def reopened(made: World) -> PlanChange:
    made.run_until(MIDNIGHT + 19 * HOUR_S)
    window = next(w for w in made.plan.windows.values() if w.state is not WindowState.PLANNED)
    return PlanChange(windows=(replace(window, state=WindowState.PLANNED, released_from_at=None),))


def shortened_disk(made: World) -> PlanChange:
    disk = made.plan.disks[made.plan.reservations[RUNS].disk or next(iter(made.plan.disks))]
    return PlanChange(disks=(replace(disk, until_at=disk.until_at - DAY_S),))


def grown_disk(made: World) -> PlanChange:
    disk = made.plan.disks[made.plan.reservations[RUNS].disk or next(iter(made.plan.disks))]
    return PlanChange(disks=(replace(disk, size_gib=1_000_000),))


def lengthened_grace(made: World) -> PlanChange:
    """Let the policy give a grace that no window has yet, with somebody booked who has not begun."""
    made.file(Submit(ask=Ask(owner="bob", queue="hpc", gpus=16, run_s=3 * HOUR_S)))
    assert made.plan.rules is not None
    return PlanChange(rules=replace(made.plan.rules, longest_grace_s=900))


@pytest.mark.parametrize(
    ("plant", "sentence"),
    [
        (double, "is booked twice"),
        (changed(onto("2g0-1")), "asked for 4 GPUs and is booked on 2g0-1"),
        (changed(onto("4g12-15")), "a pinned span moved or vanished"),
        (changed(lambda r: replace(r, spans=r.spans[1:])), "a pinned span moved or vanished"),
        (changed(lambda r: replace(r, spans=r.spans[:1])), "is delivered or booked only"),
        (changed(moved_tail(HOUR_S)), "promised by"),
        (changed(moved_tail(-2 * HOUR_S)), "is booked where it may not run"),
        (changed(raised), "had its promise raised without a notice"),
        (changed(lambda r: replace(raised(r), promise_notice=1)), "has a notice counted and none written"),
        (changed(lambda r: replace(r, generation=r.generation + 1)), "the plan changed its generation"),
        (changed(lambda r: replace(r, is_closed=True)), "is closed and has not ended"),
        (reopened, "went from"),
        (shortened_disk, "was shortened"),
        (grown_disk, "disks of"),
        (lengthened_grace, "may run only at"),
    ],
)
def test_a_planted_wrong_is_found(plant: Callable[[World], PlanChange], sentence: str) -> None:
    made = good()
    found = judge(made, plant(made))
    assert any(sentence in text for text in found), found


def test_a_good_plan_has_nothing_wrong() -> None:
    made = good()
    made.run_until(made.now + 2 * DAY_S)
    assert made.problems == []


def test_the_longer_grace_of_a_night_that_is_over_delays_nobody_under_a_later_policy() -> None:
    host = HostId("dgx2-a")
    until_at = MIDNIGHT + 15 * DAY_S
    made = world(windows=nights([host], from_at=MIDNIGHT, until_at=until_at, grace_s=480), longest_grace_s=480)
    made.run_until(MIDNIGHT + DAY_S + 9 * HOUR_S)
    made.file(
        ApplyPolicy(
            rules=rules(2),
            windows=nights([host], from_at=made.now, until_at=until_at, version=2),
            hosts=frozenset({host}),
            horizon_at=until_at,
            text="policy",
        )
    )
    assert max(w.grace_s for w in made.plan.windows.values() if w.end_at <= made.now) == 480
    job = made.file(Submit(ask=Ask(owner="ada", queue="hpc", gpus=16, run_s=3 * HOUR_S))).reservations[0]
    span, bounds = job.spans[0], dgx2("dgx-2").bounds
    assert span.end_at - span.start_at == 300 + bounds.destroy_s + bounds.reset_s + bounds.start_s(16) + 3 * HOUR_S
    assert made.problems == []
