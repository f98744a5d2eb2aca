"""What is refused is refused with every reason at once; nothing refused leaves a trace but its record."""

from dataclasses import replace

import pytest

from scheduler.core.intents import AddHost, Cancel, ConnectHost, Drain, Extend, Restart, Stop, Submit
from scheduler.core.plan import Host, Limits, Outcome
from scheduler.core.planner.admission import check
from scheduler.core.planner.draft import Draft
from scheduler.core.reasons import ReasonCode, sentence
from scheduler.core.requests import Ask, AtBoundary, HostId, ReservationId, Role
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, HOUR_S
from scheduler.profiles.loading import load_profile
from tests.property.worlds import World, world

GOOD = Ask(owner="ada", queue="interactive", gpus=1, run_s=HOUR_S)


def codes(made: World) -> list[ReasonCode]:
    return [r.code for r in made.changes[-1][1].decided[-1].reasons if r.code is not ReasonCode.INSTEAD]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"gpus": 3}, [ReasonCode.UNKNOWN_SIZE]),
        ({"gpus": 16}, [ReasonCode.UNKNOWN_SIZE]),
        ({"run_s": 59}, [ReasonCode.BAD_DURATION]),
        ({"run_s": 31 * DAY_S}, [ReasonCode.BAD_DURATION]),
        ({"queue": "batch"}, [ReasonCode.UNKNOWN_QUEUE]),
        ({"image": "beos"}, [ReasonCode.UNKNOWN_IMAGE]),
        ({"disk_gib": 9}, [ReasonCode.BAD_DISK]),
        ({"disk_gib": 1251}, [ReasonCode.BAD_DISK]),
        ({"memory_gib": 0}, [ReasonCode.BAD_SHARE]),
        ({"vcpus": 10**30}, [ReasonCode.BAD_SHARE]),
        ({"memory_gib": -1, "vcpus": 0}, [ReasonCode.BAD_SHARE, ReasonCode.BAD_SHARE]),
        ({"gpus": 3, "memory_gib": 0}, [ReasonCode.UNKNOWN_SIZE]),
        ({"owner": ""}, [ReasonCode.BAD_TEXT]),
        ({"ssh_key": "one-word"}, [ReasonCode.BAD_TEXT]),
        ({"at_boundary": AtBoundary.KEEP}, [ReasonCode.BOUNDARY_NOT_ALLOWED]),
        ({"not_before_at": 5}, [ReasonCode.IN_THE_PAST]),
        ({"continues": ReservationId("r-77")}, [ReasonCode.DISK_NOT_KEPT]),
        ({"gpus": 3, "image": "beos", "run_s": 0}, None),
    ],
)
def test_a_bad_ask_is_refused_with_every_reason(changes: dict[str, object], expected: list[ReasonCode] | None) -> None:
    made = world()
    before = made.plan
    made.file(Submit(ask=replace(GOOD, **changes)))  # type: ignore[arg-type]
    if expected is None:
        assert set(codes(made)) >= {ReasonCode.UNKNOWN_SIZE, ReasonCode.UNKNOWN_IMAGE, ReasonCode.BAD_DURATION}
    else:
        assert codes(made) == expected
    assert replace(made.plan, version=before.version) == before
    assert made.changes[-1][1].reservations[0].outcome is Outcome.REFUSED


def test_limits_are_counted_within_one_step_too() -> None:
    made = world(limits=Limits(open_reservations=2, gpus_at_once=9))
    at = made.now + HOUR_S
    timed = replace(GOOD, not_before_at=at, start_by_at=at)
    change = made.file(*(Submit(ask=replace(timed, gpus=gpus)) for gpus in (8, 2, 1, 1)))
    assert [d.is_accepted for d in change.decided] == [True, False, True, False]
    assert change.decided[1].reasons[0].code is ReasonCode.LIMIT
    assert made.problems == []


def test_a_student_acts_only_on_what_is_theirs() -> None:
    made = world()
    made.file(Submit(ask=GOOD))
    one = ReservationId(f"r-{made.seq}")
    for intent in (Cancel(reservation=one), Stop(reservation=one), Extend(reservation=one, by_s=60)):
        made.file(intent, author="mal", role=Role.STUDENT)
        assert codes(made) == [ReasonCode.NOT_YOURS]
    made.file(Submit(ask=GOOD), author="mal", role=Role.STUDENT)
    assert codes(made) == [ReasonCode.ADMIN_ONLY]
    made.file(Drain(host=HostId("dgx2-a")), author="ada", role=Role.STUDENT)
    assert codes(made) == [ReasonCode.ADMIN_ONLY]
    made.file(Cancel(reservation=one), author="ada", role=Role.STUDENT)
    assert codes(made) == []


def test_what_is_not_there_or_over_cannot_be_changed() -> None:
    made = world()
    made.file(Cancel(reservation=ReservationId("r-99")))
    assert codes(made) == [ReasonCode.UNKNOWN_RESERVATION]
    made.file(Submit(ask=GOOD))
    one = ReservationId(f"r-{made.seq}")
    made.file(Restart(reservation=one))
    assert codes(made) == [ReasonCode.WRONG_PHASE]
    made.look()
    made.file(Stop(reservation=one))
    assert codes(made) == []
    made.file(Extend(reservation=one, by_s=60))
    assert codes(made) == [ReasonCode.WRONG_PHASE]


def test_less_than_the_share_of_a_size_may_be_asked_for_and_no_more_than_every_partition_has() -> None:
    made = world()
    made.file(Submit(ask=replace(GOOD, gpus=2, memory_gib=1, vcpus=10)))
    kept = made.plan.reservations[ReservationId(f"r-{made.seq}")].request
    assert (kept.memory_gib, kept.vcpus) == (1, 10)
    made.file(Submit(ask=replace(GOOD, gpus=2, memory_gib=181, vcpus=11)))
    *said, instead = [sentence(why) for why in made.changes[-1][1].decided[-1].reasons]
    assert instead.startswith("instead: ")
    assert said == [
        "181 GiB of memory cannot be had with 2 GPUs; ask for 1 to 180",
        "11 vCPUs cannot be had with 2 GPUs; ask for 1 to 10",
    ]
    refused = made.changes[-1][1].reservations[0].request
    assert (refused.memory_gib, refused.vcpus) == (181, 11)
    made.file(Submit(ask=GOOD))
    whole = made.plan.reservations[ReservationId(f"r-{made.seq}")].request
    assert (whole.memory_gib, whole.vcpus) == (None, None)


def test_a_host_is_reached_elsewhere_only_while_nothing_of_ours_is_on_it() -> None:
    made = world()
    host = HostId("dgx2-a")

    def connect(uri: str) -> list[ReasonCode]:
        made.file(ConnectHost(host=host, connect=uri))
        return codes(made)

    assert connect("qemu+ssh://root@dgx2-b/system") == []
    made.file(Submit(ask=GOOD))
    one = ReservationId(f"r-{made.seq}")
    # Booked, and not begun: it starts on the machine that is meant.
    assert connect("qemu+ssh://root@dgx2-a/system") == []
    made.look()
    assert any(span.is_pinned for span in made.plan.reservations[one].spans)
    assert connect("qemu+ssh://root@dgx2-b/system") == [ReasonCode.HOST_IN_USE]
    assert connect("qemu:///system") == [ReasonCode.HOST_IN_USE]
    assert connect("qemu+tls://DGX2-A/system") == []
    assert made.plan.hosts[host].connect == "qemu+tls://DGX2-A/system"
    assert connect("qemu+tcp://dgx2-a/system") == [ReasonCode.BAD_CONNECT]
    made.file(ConnectHost(host=host, connect="qemu:///system"), author="ada", role=Role.STUDENT)
    assert codes(made) == [ReasonCode.ADMIN_ONLY]
    # Its disk is kept after it has ended.
    made.file(Stop(reservation=one))
    made.look()
    assert connect("qemu:///system") == [ReasonCode.HOST_IN_USE]
    assert made.problems == []


def test_a_host_is_added_with_where_it_is_reached() -> None:
    made = world()
    rules = made.plan.rules
    assert rules is not None
    added = AddHost(
        host=HostId("dgx2-z"),
        profile="dgx-2",
        storage="z",
        connect="qemu+ssh://dgx2-z/system",
        policy_version=rules.version,
        horizon_at=made.plan.horizon_at,
    )
    made.file(replace(added, connect="qemu+ssh://root:secret@dgx2-z/system"))
    (why,) = made.changes[-1][1].decided[-1].reasons
    assert why.code is ReasonCode.BAD_CONNECT
    assert "secret" not in sentence(why)
    made.file(added)
    assert made.plan.hosts[HostId("dgx2-z")].connect == "qemu+ssh://dgx2-z/system"


@pytest.mark.parametrize(("os_disk_gib", "least_gib"), [(1, 1), (50, 10)])
def test_a_disk_has_ten_gib_at_least_or_a_whole_system_disk_where_that_is_smaller(
    os_disk_gib: int, least_gib: int
) -> None:
    profile = replace(load_profile("dgx-2"), os_disk_gib=os_disk_gib)
    host = Host(id=HostId("dgx2-a"), profile=profile, storage="dgx2-a")
    made = world()
    draft = Draft(replace(made.plan, hosts={host.id: host}), {}, made.now, Settings())
    request, _ = check(draft, replace(GOOD, disk_gib=least_gib), reservation=ReservationId("r-1"))
    assert request is not None
    request, reasons = check(draft, replace(GOOD, disk_gib=least_gib - 1), reservation=ReservationId("r-1"))
    assert request is None
    assert [why.code for why in reasons] == [ReasonCode.BAD_DISK]
    assert reasons[0].fact("least_gib") == least_gib
