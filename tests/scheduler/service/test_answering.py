"""Waiting for a decision: as long as it takes, up to a limit of machine time."""

from dataclasses import dataclass, field

from scheduler.core.plan import Decided
from scheduler.core.replay import VirtualClock
from scheduler.core.requests import HostId
from scheduler.service.answering import PATIENT_POLL_S, POLL_S, wait_for_decision
from scheduler.service.submit import Desk
from scheduler.store.store import Store


@dataclass
class Watch:
    """A machine time that only sleeping moves."""

    now_s: float = 0.0
    slept: list[float] = field(default_factory=list)

    def machine_s(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


class Nobody:
    def plan(self) -> None:
        pass

    def host(self, host: HostId) -> None:
        pass


class SlowDesk(Desk):
    """Knows a decision only at the third look."""

    looks = 0

    def decision(self, seq: int) -> Decided | None:
        SlowDesk.looks += 1
        return Decided(seq=seq) if SlowDesk.looks == 3 else None


def test_a_decision_is_returned_as_soon_as_it_is_there(store: Store) -> None:
    watch, SlowDesk.looks = Watch(), 0
    desk = SlowDesk(store=store, clock=VirtualClock(0), wake=Nobody())
    found = wait_for_decision(desk, 7, wait_machine_s=2.0, machine_s=watch.machine_s, sleep=watch.sleep)
    assert found == Decided(seq=7)
    assert watch.slept == [POLL_S, POLL_S]


def test_who_waits_longer_looks_less_often(store: Store) -> None:
    watch = Watch()
    desk = Desk(store=store, clock=VirtualClock(0), wake=Nobody())
    assert wait_for_decision(desk, 7, wait_machine_s=2.0, machine_s=watch.machine_s, sleep=watch.sleep) is None
    assert watch.slept[-2] == PATIENT_POLL_S
    assert len(watch.slept) < 32


def test_who_waits_in_vain_waits_no_longer_than_told(store: Store) -> None:
    watch = Watch()
    desk = Desk(store=store, clock=VirtualClock(0), wake=Nobody())
    assert wait_for_decision(desk, 7, wait_machine_s=0.05, machine_s=watch.machine_s, sleep=watch.sleep) is None
    assert sum(watch.slept) == 0.05
