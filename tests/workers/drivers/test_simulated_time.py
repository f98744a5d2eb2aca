"""A rack lives by itself: instants, killed processes, reboots, determinism, and how it meets virtual time."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread, Timer

import pytest

from scheduler.core.facts import DomainState, OffReason
from scheduler.core.requests import DiskId, HostId
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile
from scheduler.profiles.loading import load_profile
from tests.contract.hypervisor_contract import LONG_S
from tests.contract.simulated_bench import BEGAN_AT, HOST, IMAGE, SimulatedBench
from workers.drivers.simulated import schema
from workers.drivers.simulated.durations import Draw, boot_s, copy_s, start_s
from workers.drivers.simulated.rack import SimulatedRack
from workers.drivers.simulated.schema import BadRack, Durability, RackFile, rack_path
from workers.ports import DriverError, HostUnreachable

PROFILE = load_profile("dgx-2")


class Killed(BaseException):
    """The process is gone."""


class DyingClock:
    """The clock of a process that is killed in its sleep."""

    def __init__(self, now: Instant) -> None:
        self._now = now

    def now(self) -> Instant:
        return self._now

    def machine_s(self) -> float:
        return float(self._now)

    def sleep_until(self, instant: Instant) -> None:
        raise Killed


class SleepingClock(DyingClock):
    """The clock of a process that sleeps in no time."""

    def sleep_until(self, instant: Instant) -> None:
        self._now = max(self._now, instant)


@pytest.fixture
def bench() -> Iterator[SimulatedBench]:
    bench = SimulatedBench(PROFILE)
    yield bench
    bench.rack.close()


def a_day(seed: int, look_every_s: int) -> list[str]:
    """Run four VMs through starts, stops and a reboot, and return the log."""
    bench = SimulatedBench(PROFILE, seed=seed)
    began_at = bench.now()
    specs = [bench.spec(bench.partition(4, place), reservation=f"r-{place}") for place in range(4)]
    for spec in specs:
        bench.define(spec)
        bench.begin(lambda spec=spec: bench.drivers.hypervisor.start(spec.uuid, timeout_s=LONG_S))  # type: ignore[misc]
    acts = {
        1000: lambda: bench.drivers.hypervisor.ask_shutdown(specs[0].uuid),
        1200: lambda: bench.drivers.pci.ask_reset(specs[0].devices),
        1300: lambda: bench.rack.reboot(bench.now(), down_s=100),
    }
    for second in range(0, 1500, 10):
        bench.clock.move_to(max(bench.now(), began_at + second))
        if second in acts:
            acts[second]()
        if second % look_every_s == 0 and not 1300 <= second < 1400:
            bench.drivers.hypervisor.look()
    lines = [line.as_json() for line in bench.rack.log()]
    bench.rack.close()
    return lines


def test_one_seed_gives_one_log_to_the_byte() -> None:
    assert a_day(7, 10) == a_day(7, 10)


def test_another_seed_gives_another_log() -> None:
    assert a_day(7, 10) != a_day(8, 10)


def test_how_often_anybody_looks_changes_nothing() -> None:
    assert a_day(7, 10) == a_day(7, 500)


def test_the_log_is_in_order_of_time_and_tells_when_it_happened() -> None:
    bench = SimulatedBench(PROFILE)
    spec = bench.define(bench.spec(bench.partition(1)))
    began_at = bench.now()
    start_ends_at = bench.begin(lambda: bench.drivers.hypervisor.start(spec.uuid, timeout_s=LONG_S))
    bench.pass_time(10_000)
    by_what = {line.what: line.at for line in bench.rack.log()}
    assert by_what["vm.starting"] == began_at
    assert by_what["vm.running"] == start_ends_at
    assert start_ends_at < by_what["guest.up"] < began_at + 300
    instants = [line.at for line in bench.rack.log()]
    assert instants == sorted(instants)
    bench.rack.close()


def test_a_sleeper_ahead_in_virtual_time_does_not_drag_the_rack_along(bench: SimulatedBench) -> None:
    spec = bench.define(bench.spec(bench.partition(16)))
    ends_at = bench.begin(lambda: bench.drivers.hypervisor.start(spec.uuid, timeout_s=LONG_S))
    assert ends_at > bench.now()
    seen = bench.domain(spec.uuid)
    assert (seen.state, seen.is_busy) == (DomainState.PAUSED, True)
    bench.clock.move_to(ends_at - 1)
    assert bench.domain(spec.uuid).is_busy
    bench.clock.move_to(ends_at)
    assert bench.domain(spec.uuid).state is DomainState.RUNNING


def test_the_next_due_instant_is_when_something_changes(bench: SimulatedBench) -> None:
    assert bench.rack.next_due_at() is None
    spec = bench.define(bench.spec(bench.partition(1)))
    ends_at = bench.begin(lambda: bench.drivers.hypervisor.start(spec.uuid, timeout_s=LONG_S))
    assert bench.rack.next_due_at() == ends_at
    before = bench.drivers.hypervisor.look()
    bench.clock.move_to(ends_at - 1)
    assert bench.drivers.hypervisor.look() == before
    bench.clock.move_to(ends_at)
    assert bench.drivers.hypervisor.look() != before
    up_at = bench.rack.next_due_at()
    assert up_at is not None
    bench.clock.move_to(up_at)
    assert bench.domain(spec.uuid).is_guest_up is True
    assert bench.rack.next_due_at() is None


def test_a_process_killed_in_its_sleep_leaves_the_host_to_itself(tmp_path: Path) -> None:
    bench = SimulatedBench(PROFILE, directory=tmp_path)
    spec = bench.define(bench.spec(bench.partition(4)))
    bench.rack.close()

    dying = SimulatedRack(tmp_path, HOST, PROFILE, DyingClock(bench.now()), seed=1, durability=Durability.FAST)
    with pytest.raises(Killed):
        dying.drivers().hypervisor.start(spec.uuid, timeout_s=LONG_S)
    dying.close()

    later = SimulatedBench(PROFILE, directory=tmp_path)
    later.clock.move_to(bench.now() + 400)
    seen = later.domain(spec.uuid)
    assert (seen.state, seen.is_busy, seen.is_guest_up) == (DomainState.RUNNING, False, True)
    assert later.held_by(spec.uuid) == frozenset(spec.devices)
    later.rack.close()


def test_a_reboot_ends_all_that_ran_and_keeps_what_is_written(bench: SimulatedBench) -> None:
    running = bench.define(bench.spec(bench.partition(4, 0), reservation="r-1"))
    bench.start(running)
    starting = bench.define(bench.spec(bench.partition(4, 1), reservation="r-2"))
    bench.begin(lambda: bench.drivers.hypervisor.start(starting.uuid, timeout_s=LONG_S))
    copying = DiskId("d-3")
    bench.begin(lambda: bench.drivers.images.create_disk(copying, image=IMAGE, size_gib=9000, timeout_s=LONG_S))
    boot_id = bench.drivers.hypervisor.look().boot_id

    bench.rack.reboot(bench.now(), down_s=100)
    for verb in (
        bench.drivers.hypervisor.look,
        lambda: bench.drivers.hypervisor.destroy(running.uuid, timeout_s=60),
        lambda: bench.drivers.pci.bind(running.devices),
    ):
        with pytest.raises(HostUnreachable):
            verb()
    bench.pass_time(99)
    with pytest.raises(HostUnreachable):
        bench.drivers.hypervisor.look()
    bench.pass_time(1)

    seen = bench.drivers.hypervisor.look()
    assert seen.boot_id != boot_id
    assert {(d.uuid, d.state, d.off_reason, d.is_busy) for d in seen.domains} == {
        (running.uuid, DomainState.OFF, OffReason.UNKNOWN, False),
        (starting.uuid, DomainState.OFF, OffReason.UNKNOWN, False),
    }
    assert all(device.held_by is None for device in seen.devices)
    assert all([check.name for check in device.failed] == ["reset_done"] for device in seen.devices)
    assert {disk.id: (disk.is_ready, disk.is_busy) for disk in seen.disks} == {
        running.disk: (True, False),
        starting.disk: (True, False),
        copying: (False, False),
    }
    bench.pass_time(1000)
    assert bench.domain(starting.uuid).state is DomainState.OFF
    assert bench.make_disk(copying, 9000) > 0


def test_a_host_that_binds_nothing_at_boot_refuses_to_start_until_devices_are_bound() -> None:
    bench = SimulatedBench(PROFILE, boot_driver="nvidia")
    spec = bench.spec(bench.partition(1))
    bench.make_disk(spec.disk)
    bench.drivers.hypervisor.define(spec)
    assert [check.name for check in bench.device(spec.devices[0]).failed] == ["bound"]
    with pytest.raises(DriverError, match="must be manually detached from the host"):
        bench.start(spec)
    bench.drivers.pci.bind(spec.devices)
    bench.start(spec)
    bench.destroy(spec)
    bench.rack.reboot(bench.now(), down_s=1)
    bench.pass_time(1)
    assert "bound" in [check.name for check in bench.device(spec.devices[0]).failed]
    bench.rack.close()


def test_a_partition_left_set_up_by_a_vm_that_is_gone_stands_in_nobodys_way(bench: SimulatedBench) -> None:
    spec = bench.define(bench.spec(bench.partition(2)))
    bench.start(spec)
    bench.destroy(spec)
    bench.drivers.fabric.activate(bench.partition(4))
    last = bench.rack.log()[-2:]
    assert [(line.what, line.fact("partition")) for line in last] == [
        ("fabric.deactivated", spec.partition.id),
        ("fabric.activated", bench.partition(4).id),
    ]


def test_a_name_is_taken_until_its_domain_is_undefined(bench: SimulatedBench) -> None:
    first = bench.define(bench.spec(bench.partition(1), generation=1))
    second = bench.spec(bench.partition(1), generation=2)
    with pytest.raises(DriverError, match=f"domain 'r-1-1g0' already exists with uuid {first.uuid}"):
        bench.drivers.hypervisor.define(second)
    bench.drivers.hypervisor.undefine(first.uuid)
    bench.drivers.hypervisor.define(second)
    assert bench.domain(second.uuid).generation == 2


@pytest.mark.parametrize("size", PROFILE.sizes)
def test_copy_start_and_boot_together_stay_within_the_bound(size: int) -> None:
    longest = {
        "copy": max(copy_s(draw, PROFILE, size_gib=9000) for draw in draws("copy")),
        "start": max(start_s(draw, PROFILE, gpus=size) for draw in draws("start")),
        "boot": max(boot_s(draw, PROFILE, gpus=size) for draw in draws("boot")),
    }
    assert sum(longest.values()) <= PROFILE.bounds.start_s(size), longest


def test_durations_spread_over_the_range_of_their_size() -> None:
    small = [start_s(draw, PROFILE, gpus=1) for draw in draws("start")]
    large = [start_s(draw, PROFILE, gpus=16) for draw in draws("start")]
    assert (min(small), max(small)) == (12, 40)
    assert (min(large), max(large)) == (60, 150)
    assert sorted(large)[len(large) // 2] < 105


def draws(verb: str) -> list[Draw]:
    return [Draw(seed=1, verb=verb, subject=f"s-{n}", attempt=1) for n in range(2000)]


def test_a_rack_of_another_host_or_kind_is_refused(tmp_path: Path) -> None:
    SimulatedRack(tmp_path, HOST, PROFILE, DyingClock(BEGAN_AT), seed=1, durability=Durability.FAST).close()
    (tmp_path / f"{HOST}.rack.sqlite").rename(tmp_path / "dgx2-b.rack.sqlite")
    with pytest.raises(BadRack, match="this rack is host dgx2-a"):
        SimulatedRack(tmp_path, HostId("dgx2-b"), PROFILE, DyingClock(BEGAN_AT), seed=1)


def test_a_file_that_is_no_rack_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = rack_path(tmp_path, HOST)
    path.parent.mkdir()
    path.write_text("not a database, and longer than a header of SQLite would be" * 20)
    with pytest.raises(BadRack, match="not a rack file"):
        SimulatedRack(path.parent, HOST, PROFILE, DyingClock(BEGAN_AT), seed=1)
    assert path.read_text().startswith("not a database")


def test_two_racks_on_one_file_see_each_other_at_once(tmp_path: Path) -> None:
    one = SimulatedBench(PROFILE, directory=tmp_path)
    other = SimulatedRack(tmp_path, HOST, PROFILE, one.clock, seed=99, durability=Durability.FAST)
    spec = one.define(one.spec(one.partition(1)))
    for act in (lambda: one.start(spec), lambda: one.destroy(spec), lambda: one.pass_time(100)):
        act()
        assert other.drivers().hypervisor.look() == one.drivers.hypervisor.look()
    other.drivers().hypervisor.undefine(spec.uuid)
    assert one.drivers.hypervisor.look().domains == ()
    other.close()
    one.rack.close()


def test_threads_share_one_rack(tmp_path: Path) -> None:
    rack = SimulatedRack(
        tmp_path, HOST, PROFILE, SleepingClock(BEGAN_AT), seed=1, images=[IMAGE], durability=Durability.FAST
    )
    drivers = rack.drivers()
    failures: list[Exception] = []

    def work(number: int) -> None:
        try:
            for n in range(10):
                drivers.images.create_disk(DiskId(f"d-{number}-{n}"), image=IMAGE, size_gib=10, timeout_s=LONG_S)
                drivers.hypervisor.look()
        except Exception as error:
            failures.append(error)

    threads = [Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(drivers.hypervisor.look().disks) == 40
    assert sum(line.what == "disk.made" for line in rack.log()) == 40
    rack.close()


def test_a_rack_whose_file_another_process_is_just_making_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.rack.sqlite"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE beginnings (n INTEGER)")
    other.execute("BEGIN IMMEDIATE")
    done = Timer(0.3, other.execute, ["ROLLBACK"])
    done.start()
    rack = RackFile(path, Durability.FAST)
    done.join()
    assert rack.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    rack.close()
    other.close()


def test_a_rack_whose_file_stays_busy_is_no_bad_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "BUSY_TIMEOUT_MS", 50)
    path = tmp_path / "a.rack.sqlite"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE beginnings (n INTEGER)")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(HostUnreachable, match="another process keeps the rack's file"):
        RackFile(path, Durability.FAST)
    other.close()


OTHER_PROCESS = """
import sys
from pathlib import Path
from scheduler.core.requests import DiskId, HostId
from scheduler.profiles.loading import load_profile
from workers.drivers.simulated.rack import SimulatedRack
from workers.drivers.simulated.schema import Durability

class Clock:
    time = int(sys.argv[3])
    def now(self): return self.time
    def machine_s(self): return float(self.time)
    def sleep_until(self, instant): self.time = max(self.time, instant)

rack = SimulatedRack(Path(sys.argv[1]), HostId("dgx2-a"), load_profile("dgx-2"), Clock(), seed=1, images=["i"],
                     durability=Durability.FAST)
for n in range(40):
    rack.drivers().images.create_disk(DiskId(f"d-{sys.argv[2]}-{n}"), image="i", size_gib=10, timeout_s=3600)
    rack.drivers().hypervisor.look()
"""


def test_processes_make_and_use_one_rack_at_once(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OTHER_PROCESS, str(tmp_path), str(number), str(BEGAN_AT)], stderr=subprocess.PIPE
        )
        for number in range(3)
    ]
    ends = [(process.wait(60), process.stderr.read() if process.stderr else b"") for process in processes]
    for process in processes:
        if process.stderr is not None:
            process.stderr.close()
    assert ends == [(0, b"")] * 3
    rack = SimulatedRack(tmp_path, HOST, PROFILE, DyingClock(BEGAN_AT + 10_000), seed=1, durability=Durability.FAST)
    seen = rack.drivers().hypervisor.look()
    assert len(seen.disks) == 120
    assert all(disk.is_ready for disk in seen.disks)
    lines = rack.log()
    assert [line.at for line in lines] == sorted(line.at for line in lines)
    assert [line.seq for line in lines] == list(range(1, len(lines) + 1))
    rack.close()


def test_a_profile_of_another_shape_has_its_own_devices(bench: SimulatedBench) -> None:
    assert len(bench.drivers.hypervisor.look().devices) == 36
    fewer = HostProfile(
        name="small",
        gpus=PROFILE.gpus[:2],
        nvswitches=(),
        hcas=(),
        nvmes=(),
        threads=(),
        partitions=PROFILE.partitions_of_size(1)[:2],
        host_threads=(),
        memory_gib=256,
        bounds=PROFILE.bounds,
        pool_gib=1000,
        scratch_gib=0,
        os_disk_gib=50,
    )
    small = SimulatedBench(fewer)
    spec = small.define(small.spec(small.partition(1)))
    small.start(spec)
    assert len(small.drivers.hypervisor.look().devices) == 2
    small.rack.close()


def test_asking_for_a_shutdown_again_neither_hastens_nor_delays_it() -> None:
    off_at = []
    for asks in (1, 30):
        bench = SimulatedBench(PROFILE)
        spec = bench.define(bench.spec(bench.partition(1)))
        bench.start(spec)
        bench.pass_time(100)
        for _ in range(asks):
            bench.drivers.hypervisor.ask_shutdown(spec.uuid)
        bench.wait_until_off(spec.uuid)
        off_at.append(bench.now())
        assert sum(line.what == "guest.down" for line in bench.rack.log()) == 1
        bench.rack.close()
    assert off_at[0] == off_at[1]
