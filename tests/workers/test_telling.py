"""What is found is told when it is new, and what comes back soon is not new."""

from scheduler.core.converging.actions import Finding
from scheduler.core.plan import event
from scheduler.core.reasons import ReasonCode, reason
from scheduler.core.requests import HostId, ReservationId
from workers.answers import REFUSED
from workers.telling import Told

HOST = HostId("dgx2-a")
R1 = ReservationId("r-1")
T = 1_772_478_000


def left(problem: str = "the domain is paused") -> Finding:
    return Finding(reservation=R1, why=reason(ReasonCode.UNKNOWN_STATE, host=HOST, subject="uuid-1", problem=problem))


def refused(problem: str) -> Finding:
    why = reason(ReasonCode.DRIVER_REFUSED, host=HOST, verb="delete_disk", subject="d-1", problem=problem)
    return Finding(reservation=None, why=why)


def tell(told: Told, at_s: int, *findings: Finding) -> list[str]:
    events = told.new(findings, HOST, T + at_s)
    told.mark(findings, T + at_s)
    return [event.kind for event in events]


def test_a_finding_is_told_once_however_long_it_stays() -> None:
    told = Told(100)
    assert tell(told, 0, left()) == ["fault.unknown_state"]
    assert [tell(told, at_s, left()) for at_s in (1, 50, 400, 9000)] == [[], [], [], []]


def test_a_finding_that_comes_back_is_new_only_after_a_while() -> None:
    told = Told(100)
    tell(told, 0, left())
    tell(told, 10)
    assert tell(told, 99, left()) == []
    tell(told, 110)
    tell(told, 199)
    assert tell(told, 200, left()) == ["fault.unknown_state"]


def test_another_state_is_another_finding_and_another_wording_of_a_refusal_is_not() -> None:
    told = Told(100)
    tell(told, 0, left(), refused("busy (pid 811)"))
    assert tell(told, 10, left("the domain is unknown"), refused("busy (pid 902)")) == ["fault.unknown_state"]


def test_a_finding_is_told_even_if_its_first_event_could_not_be_written() -> None:
    told = Told(100)
    assert len(told.new([left()], HOST, T)) == 1
    # Not marked: the commit failed.
    assert len(told.new([left()], HOST, T + 1)) == 1


def test_waits_and_what_the_look_tells_itself_are_not_told_again() -> None:
    silent = Finding(reservation=R1, why=reason(ReasonCode.AGENT_SILENT, host=HOST, reservation=R1))
    away = Finding(reservation=None, why=reason(ReasonCode.HOST_UNREACHABLE, host=HOST))
    waits = Finding(reservation=R1, why=reason(ReasonCode.WAITS_FOR_HAND_OVER, host=HOST, holder="r-2"))
    stranger = reason(ReasonCode.GPU_HELD_BY_FOREIGN, host=HOST, gpu=1, domain="bench")
    assert tell(Told(100), 0, silent, away, waits, Finding(reservation=None, why=stranger)) == []
    assert tell(Told(100), 0, Finding(reservation=R1, why=stranger)) == ["fault.gpu_held_by_foreign"]


def test_a_refusal_is_told_of_the_first_attempt() -> None:
    told = Told(100)
    refusal = event(REFUSED, T, host=HOST, verb="reset", subject="0000:61:00.0", problem="in use")
    other = event("vm.up", T, host=HOST)
    assert told.without_repeats([refusal, other], T) == (refusal, other)
    assert told.without_repeats([refusal, other], T + 50) == (other,)
    assert told.without_repeats([event(REFUSED, T, host=HOST, problem="gone")], T + 60) != ()


def test_who_holds_a_device_of_the_same_iommu_group_is_in_the_record_of_who_waits_and_is_no_notice() -> None:
    why = reason(ReasonCode.WAITS_FOR_GROUP, host=HOST, gpus="0", holder="r-2-1g1", device="0000:34:00.0")
    (told,) = Told(100).new([Finding(reservation=R1, why=why)], HOST, T)
    assert (told.kind, told.reservation, told.is_notice) == ("wait.iommu_group", R1, False)
