"""A worker killed anywhere and followed by another one: the end is the same as if it had never been killed."""

from collections.abc import Callable
from typing import Any

import pytest

from scheduler.core.facts import GpuState, VmEnd
from scheduler.core.plan import Outcome
from scheduler.core.requests import ReservationId
from scheduler.core.spans import HOUR_S
from tests.workers.converge_bench import BEGAN_AT, HOST, Worker, World
from workers.drivers.simulated.faults import Fault, FaultKind, RackVerb
from workers.ports import Drivers

STRIDE = 13
"""Every so-manieth point is tried here; a stride of 1 takes minutes and finds no more today."""
POINTS = 320
"""More than the story has: kills past its end change nothing."""


class Killed(BaseException):
    """`kill -9`: nothing may catch it."""


class Reaper:
    """Counts the commits and driver calls of a worker, before and after each, and kills at one of them."""

    def __init__(self, kill_at: int | None) -> None:
        self.kill_at = kill_at
        self.points = 0
        self.is_armed = True

    def pass_by(self, what: str) -> None:
        if self.is_armed:
            self.points += 1
            if self.points == self.kill_at:
                self.is_armed = False
                raise Killed(what)


class Watched:
    """A port that the reaper stands beside."""

    def __init__(self, port: Any, reaper: Reaper) -> None:
        self._port = port
        self._reaper = reaper

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        call = getattr(self._port, verb)
        if verb == "look":
            return call  # type: ignore[no-any-return]

        def watched(*args: Any, **named: Any) -> Any:
            self._reaper.pass_by(f"before {verb}")
            answer = call(*args, **named)
            self._reaper.pass_by(f"after {verb}")
            return answer

        return watched


def watched(drivers: Drivers, reaper: Reaper) -> Drivers:
    return Drivers(
        host=drivers.host,
        hypervisor=Watched(drivers.hypervisor, reaper),
        pci=Watched(drivers.pci, reaper),
        fabric=Watched(drivers.fabric, reaper),
        images=Watched(drivers.images, reaper),
        guest=Watched(drivers.guest, reaper),
    )


def tell_story(reaper: Reaper) -> World:
    """Two tenants, one of them deaf, make room for a VM of 16 GPUs, whose disk is deleted after its end."""
    reaper.is_armed = False
    world = World(on_commit=reaper.pass_by)
    world.book("r-1", "2g0-1", end_s=HOUR_S)
    world.book("r-2", "8g8-15", end_s=HOUR_S)
    world.book("r-3", "16g0-15", start_s=HOUR_S, end_s=2 * HOUR_S, disk_until_s=3 * HOUR_S)
    world.rack.inject(Fault(kind=FaultKind.IGNORE_SHUTDOWN, verb=RackVerb.ASK_SHUTDOWN, subject="r-1", times=9))
    world.rack.inject(Fault(kind=FaultKind.AGENT_SILENT, verb=RackVerb.ASK_SHUTDOWN, subject="r-1", after_s=1))

    def end_of_the_night() -> None:
        # The planner's commit: it is the worker that is killed here.
        armed, reaper.is_armed = reaper.is_armed, False
        world.change(ReservationId("r-3"), outcome=Outcome.COMPLETED, ended_at=world.clock.now())
        reaper.is_armed = armed

    world.agenda.at(BEGAN_AT + 2 * HOUR_S + 600, end_of_the_night)
    reaper.is_armed = True
    first = Worker(world, "worker-1", watched(world.rack.drivers(), reaper))
    try:
        world.run(4 * HOUR_S, worker=first)
    except Killed:
        first.kill()
        # Its lease is over in seconds of machine time; here it is over at once.
        for number in range(1, first.tokens + 1):
            world.store.release_lease(f"host.{HOST}", f"worker-1-{number}")
        world.run(4 * HOUR_S, worker=Worker(world, "worker-2"))
    return world


def end_of(world: World) -> object:
    facts = world.facts
    last = [world.vm(ReservationId(f"r-{n}")) for n in (1, 2, 3)]
    return (
        [(vm.reservation, vm.end, vm.is_gone) for vm in last],
        [(fact.disk, fact.deleted_at is None) for fact in facts.disks],
        {fact.state for fact in facts.gpus},
        facts.asked,
    )


def test_the_story_ends_as_it_should_when_nobody_is_killed() -> None:
    reaper = Reaper(None)
    world = tell_story(reaper)
    assert end_of(world) == (
        [("r-1", VmEnd.DESTROYED, True), ("r-2", VmEnd.STOPPED, True), ("r-3", VmEnd.STOPPED, True)],
        [("d-r-1", True), ("d-r-2", True), ("d-r-3", False)],
        {GpuState.CLEAN},
        (),
    )
    assert STRIDE < reaper.points < POINTS


@pytest.fixture(scope="module")
def undisturbed() -> object:
    return end_of(tell_story(Reaper(None)))


@pytest.mark.parametrize("point", range(1, POINTS, STRIDE))
def test_killed_anywhere_and_run_again_the_end_is_the_same(point: int, undisturbed: object) -> None:
    world = tell_story(Reaper(point))
    assert end_of(world) == undisturbed
    running = [event for event in world.events("vm.running") if event.reservation == "r-3"]
    assert running, "the night's VM never ran"
    assert running[-1].at < world.reservation(ReservationId("r-3")).spans[0].start_at + 1200
