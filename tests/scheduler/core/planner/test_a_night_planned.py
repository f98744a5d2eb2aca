"""The worked night of the design, as the plan sees it: decide, park, run two jobs, give the rest back, resume."""

from dataclasses import replace

import pytest

from scheduler.core.facts import VmEnd
from scheduler.core.intents import AddHost, Cancel, Stop, Submit
from scheduler.core.plan import PlanChange, Reservation
from scheduler.core.requests import Ask, AtBoundary, HostId, Promise, ReservationId
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S, Instant
from scheduler.core.windows import Window, WindowState
from tests.property.worlds import MIDNIGHT, Odds, World, nights, world

HOST = HostId("dgx2-a")
SIZES = (1, 2, 8, 1, 4)
TENANTS = tuple(ReservationId(f"r-{seq}") for seq in range(3, 8))
FIRST_JOB, SECOND_JOB = ReservationId("r-8"), ReservationId("r-9")


def at(clock: str, day: int = 0) -> Instant:
    hours, minutes = clock.split(":")
    return MIDNIGHT + day * DAY_S + int(hours) * HOUR_S + int(minutes) * MINUTE_S


def day_with_tenants() -> World:
    """At 10:00 five tenants fill the host with 14 hours of work each."""
    made = world(1, odds=Odds(ignores_grace=0.0))
    made.run_until(at("10:00"))
    made.file(*(Submit(ask=Ask(owner="ada", queue="interactive", gpus=gpus, run_s=14 * HOUR_S)) for gpus in SIZES))
    return made


def night_with_jobs() -> World:
    """At 15:00 two whole-host jobs are asked for; nothing has been decided yet."""
    made = day_with_tenants()
    made.run_until(at("15:00"))
    made.file(*(Submit(ask=Ask(owner="sim", queue="hpc", gpus=16, run_s=hours * HOUR_S)) for hours in (8, 3)))
    return made


def spans(made: World, reservation: ReservationId) -> list[tuple[Instant, Instant]]:
    return [(s.start_at, s.end_at) for s in made.plan.reservations[reservation].spans]


def promises(made: World) -> dict[ReservationId, Promise | None]:
    return {key: made.plan.reservations[key].promise for key in TENANTS}


def tonight(made: World) -> Window:
    return next(w for w in made.plan.windows.values() if w.start_at == at("20:00"))


def guest_leaves(made: World, reservation: ReservationId, leaves_at: Instant) -> None:
    """Let a guest shut itself down; ten minutes later its booking ends."""
    vm = made.vms[reservation, made.plan.reservations[reservation].generation]
    vm.ends_at, vm.end = leaves_at, VmEnd.SELF_SHUTDOWN


def told(made: World, kind: str) -> list[tuple[Instant, PlanChange]]:
    return [(when, change) for when, change in made.changes if any(e.kind == kind for e in change.events)]


@pytest.fixture
def morning() -> World:
    """The whole night: the first job ends at 03:10, the second at 05:40, both early."""
    made = night_with_jobs()
    made.run_until(at("23:00"))
    guest_leaves(made, FIRST_JOB, at("03:00", 1))
    made.run_until(at("04:00", 1))
    guest_leaves(made, SECOND_JOB, at("05:30", 1))
    made.run_until(at("05:40", 1))
    return made


def test_tenants_end_at_eight_and_have_their_tails_from_eight_in_the_morning() -> None:
    made = day_with_tenants()
    for tenant, gpus in zip(TENANTS, SIZES, strict=True):
        lead_s = 480 + made.plan.hosts[made.plan.reservations[tenant].spans[0].host].profile.bounds.start_s(gpus)
        still_s = 14 * HOUR_S - (10 * HOUR_S - lead_s)
        tail_end_at = at("08:00", 1) + lead_s + still_s
        assert spans(made, tenant) == [(at("10:00"), at("20:00")), (at("08:00", 1), tail_end_at)]
        assert made.plan.reservations[tenant].promise == Promise(
            start_by_at=at("10:00") + lead_s, end_by_at=tail_end_at
        )


def test_a_job_that_is_booked_opens_the_window_at_a_quarter_to_seven() -> None:
    made = night_with_jobs()
    assert spans(made, FIRST_JOB) == [(at("20:00"), at("04:15", 1))]
    assert spans(made, SECOND_JOB) == [(at("04:15", 1), at("07:30", 1))]
    promise = made.plan.reservations[FIRST_JOB].promise
    assert promise is not None
    assert promise.start_by_at == at("20:15")
    made.run_until(at("18:45") - 1)
    assert tonight(made).state is WindowState.PLANNED
    made.run_until(at("18:45"))
    assert tonight(made).state is WindowState.OPEN
    assert made.problems == []


def test_a_job_that_ends_early_lets_the_next_one_move_up(morning: World) -> None:
    assert spans(morning, FIRST_JOB) == [(at("20:00"), at("03:10", 1))]
    assert spans(morning, SECOND_JOB)[0][0] == at("03:10", 1)
    assert morning.problems == []


def test_with_nothing_left_the_rest_is_released_and_tenants_resume_hours_early(morning: World) -> None:
    window = tonight(morning)
    assert (window.state, window.released_from_at) == (WindowState.RELEASED, at("05:40", 1))
    for tenant in TENANTS:
        assert spans(morning, tenant)[1][0] == at("05:40", 1)
    morning.run_until(at("06:00", 1))
    running = {vm.reservation for vm in morning.facts[next(iter(morning.plan.hosts))].vms if vm.off_at is None}
    assert running == set(TENANTS)
    assert morning.problems == []


def test_resumes_choose_their_blocks_largest_first() -> None:
    """Only three tenants come back: the largest takes the first block, and nothing is broken up for the small ones."""
    made = night_with_jobs()
    made.run_until(at("16:00"))
    made.run_until(at("23:00"))
    guest_leaves(made, FIRST_JOB, at("03:00", 1))
    made.run_until(at("04:00", 1))
    guest_leaves(made, SECOND_JOB, at("05:30", 1))
    made.run_until(at("05:40", 1))

    def block(reservation: Reservation) -> str:
        return str(reservation.spans[1].partition)

    by_size = sorted((made.plan.reservations[key] for key in TENANTS), key=lambda r: -r.request.gpus)
    assert [block(r) for r in by_size[:3]] == ["8g0-7", "4g8-11", "2g12-13"]
    assert {block(r) for r in by_size[3:]} == {"1g14", "1g15"}
    parked_on = [str(r.spans[0].partition) for r in by_size]
    assert parked_on != [block(r) for r in by_size], "the swap is a free defragmentation: they come back elsewhere"


def test_the_night_changes_no_promise(morning: World) -> None:
    evening = promises(night_with_jobs())
    assert promises(morning) == evening
    assert told(morning, "promise.raised") == []
    morning.run_until(at("18:00", 1))
    for tenant in TENANTS:
        vms = [vm for host in morning.facts.values() for vm in host.vms if vm.reservation == tenant]
        assert sum((vm.off_at or 0) - (vm.running_at or 0) for vm in vms) >= 14 * HOUR_S
    assert morning.problems == []


def test_a_night_that_nobody_wants_is_a_gift_and_tenants_run_on_without_a_stop() -> None:
    made = day_with_tenants()
    before = promises(made)
    made.run_until(at("18:45"))
    assert tonight(made).state is WindowState.RELEASED
    for tenant in TENANTS:
        (only,) = spans(made, tenant)
        assert only[0] == at("10:00")
        assert only[1] <= at("00:30", 1)
    made.run_until(at("09:00", 1))
    for tenant in TENANTS:
        (vm,) = [vm for host in made.facts.values() for vm in host.vms if vm.reservation == tenant]
        assert vm.off_at is not None
        assert vm.running_at is not None
        assert vm.off_at - vm.running_at >= 14 * HOUR_S
    assert {key: made.plan.reservations[key].promise for key in TENANTS} == before
    assert made.problems == []


def test_who_runs_on_through_a_gift_gives_up_as_much_at_the_end_and_nothing_moves() -> None:
    made = world(1, odds=Odds(ignores_grace=0.0))
    made.run_until(at("10:00"))
    made.file(*(Submit(ask=Ask(owner="ada", queue="interactive", gpus=gpus, run_s=60 * HOUR_S)) for gpus in SIZES))
    made.run_until(at("18:45") - 1)
    before = {key: spans(made, key) for key in TENANTS}
    made.run_until(at("18:45"))
    assert tonight(made).state is WindowState.RELEASED
    for tenant in TENANTS:
        first, *_, last = spans(made, tenant)
        gained_s = first[1] - before[tenant][0][1]
        assert gained_s > 0
        assert last[1] < before[tenant][-1][1]
        assert {start for start, _ in spans(made, tenant)} <= {start for start, _ in before[tenant]}
    made.run_until(at("18:00", 6))
    assert made.problems == []


def test_the_disk_of_who_runs_on_is_booked_until_after_its_last_hours() -> None:
    keeps = frozenset({AtBoundary.PARK, AtBoundary.FINISH, AtBoundary.KEEP})
    windows = nights([HOST], from_at=MIDNIGHT, until_at=MIDNIGHT + 15 * DAY_S, at_boundary=keeps)
    made = world(1, retention_s=HOUR_S, windows=windows, odds=Odds(ignores_grace=0.0))
    made.run_until(at("10:00"))
    # With its lead until eight in the morning: what is left cannot move up behind it.
    run_s = 6 * HOUR_S - 13 * MINUTE_S
    by_night = Ask(owner="bela", queue="interactive", gpus=8, run_s=run_s, at_boundary=AtBoundary.KEEP)
    made.file(*(Submit(ask=replace(by_night, not_before_at=at("02:00", 1))) for _ in range(2)))
    made.file(Submit(ask=Ask(owner="ada", queue="interactive", gpus=8, run_s=9 * HOUR_S, not_before_at=at("18:45"))))
    key = ReservationId(f"r-{made.seq}")
    made.run_until(at("18:45") - 1)
    made.now = at("18:45")
    made.step()
    assert tonight(made).state is WindowState.RELEASED
    one = made.plan.reservations[key]
    assert one.spans[0].end_at > at("20:00"), "it runs on"
    assert len(one.spans) == 2, "not for all of its hours: others are promised that time"
    assert one.disk is not None
    assert made.plan.disks[one.disk].until_at >= one.spans[-1].end_at + HOUR_S
    made.run_until(at("18:00", 1))
    assert made.problems == []


def test_who_is_parked_goes_on_at_once_on_a_host_that_is_added_without_nights() -> None:
    made = world(1, hosts={"dgx2-a": "a"}, odds=Odds(ignores_grace=0.0))
    made.run_until(at("10:00"))
    made.file(*(Submit(ask=Ask(owner="ada", queue="interactive", gpus=gpus, run_s=14 * HOUR_S)) for gpus in (1, 2)))
    tenants = [one.id for one in made.live()]
    made.file(Submit(ask=Ask(owner="bela", queue="interactive", gpus=4, run_s=2 * HOUR_S)))
    made.run_until(at("15:00"))
    made.file(Submit(ask=Ask(owner="sim", queue="hpc", gpus=16, run_s=8 * HOUR_S)))
    made.run_until(at("22:00"))
    assert [spans(made, key)[-1][0] for key in tenants] == [at("08:00", 1)] * 2
    added = AddHost(
        host=HostId("dgx2-b"),
        profile="dgx-2",
        storage="a",
        windows=(),
        policy_version=1,
        horizon_at=made.plan.horizon_at,
    )
    made.file(added)
    assert [spans(made, key)[-1][0] for key in tenants] == [at("22:00")] * 2
    assert made.problems == []


def test_a_window_that_opened_is_never_decided_again_while_jobs_are_ahead() -> None:
    made = night_with_jobs()
    made.run_until(at("23:00"))
    decisions = told(made, "window.decided")
    assert [when for when, _ in decisions] == [at("18:45")]


def test_a_job_asked_for_after_the_release_waits_for_the_next_night(morning: World) -> None:
    morning.file(Submit(ask=Ask(owner="sim", queue="hpc", gpus=16, run_s=HOUR_S)))
    late = ReservationId(f"r-{morning.seq}")
    assert spans(morning, late)[0][0] == at("20:00", 1)
    assert tonight(morning).state is WindowState.RELEASED


def test_a_night_that_is_called_off_while_tenants_are_told_to_leave_costs_nobody_hours() -> None:
    made = world(odds=Odds(ignores_grace=0))
    made.run_until(at("17:00"))
    made.file(Submit(ask=Ask(owner="climate", queue="hpc", gpus=16, run_s=10 * HOUR_S)))
    job = ReservationId(f"r-{made.seq}")
    made.file(Submit(ask=Ask(owner="ada", queue="interactive", gpus=8, run_s=6 * HOUR_S)))
    tenant = ReservationId(f"r-{made.seq}")
    made.run_until(at("19:30"))
    made.file(Cancel(reservation=job))
    made.run_until(at("20:00", day=1))
    ran = [vm for facts in made.facts.values() for vm in facts.vms if vm.reservation == tenant]
    assert next(vm.stop_asked_at for vm in ran) == at("20:00")
    delivered_s = sum((vm.off_at or 0) - (vm.running_at or 0) for vm in ran)
    assert len(ran) == 2
    assert delivered_s >= 6 * HOUR_S
    assert made.problems == []


def test_whose_rest_begins_when_the_night_is_over_is_not_looked_at_whenever_somebody_leaves() -> None:
    made = day_with_tenants()
    made.run_until(at("12:00"))
    for leaves in TENANTS[:2]:
        made.file(Stop(reservation=leaves))
        assert not made.kept.live().ahead
    assert made.problems == []


def test_who_was_parked_for_a_night_that_is_given_back_runs_on_through_another_that_is_given_away_with_it() -> None:
    a, b = HostId("dgx2-a"), HostId("dgx2-b")
    night = nights([a], from_at=MIDNIGHT, until_at=MIDNIGHT + DAY_S)
    morning = nights([b], from_at=at("00:00", 1), until_at=at("00:00", 2), start_s=6 * HOUR_S, length_s=6 * HOUR_S)
    made = world(1, hosts={a: "nfs", b: "nfs"}, windows=(*night, *morning), odds=Odds(ignores_grace=0.0))
    made.run_until(at("10:00"))
    made.file(Submit(ask=Ask(owner="ada", queue="interactive", gpus=8, run_s=40 * HOUR_S)))
    tenant = ReservationId(f"r-{made.seq}")
    made.file(Submit(ask=Ask(owner="sim", queue="hpc", gpus=16, run_s=10 * HOUR_S)))
    job = ReservationId(f"r-{made.seq}")
    made.run_until(at("23:00"))
    guest_leaves(made, job, at("04:35", 1))
    made.run_until(at("04:45", 1) - 1)
    assert [(s.host, s.end_at) for s in made.plan.reservations[tenant].spans][:2] == [
        (a, at("20:00")),
        (b, at("06:00", 1)),
    ]
    made.run_until(at("04:45", 1))
    assert {w.state for w in made.plan.windows.values()} == {WindowState.RELEASED}
    assert made.plan.reservations[tenant].spans[1].end_at > at("12:00", 1)
    assert made.problems == []
