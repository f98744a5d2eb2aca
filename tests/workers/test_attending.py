"""Tests of what a worker process keeps: which hosts it attends to, what it tells of them, and how it ends."""

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event

import pytest

from policies.loading import load_policy
from policies.ticker import apply_intent
from scheduler.core.errors import StoreBusy
from scheduler.core.intents import AddHost, ConnectHost, Intent, Submit
from scheduler.core.plan import Host, Plan
from scheduler.core.requests import Ask, HostId, Role
from scheduler.core.settings import Settings
from scheduler.core.spans import HOUR_S, Instant
from scheduler.service.facts_cache import FactsCache
from scheduler.service.plan import PlanRun, PlanTask
from scheduler.service.plan_cache import PlanCache
from scheduler.service.submit import Desk
from scheduler.store.leases import host_lease
from scheduler.store.store import Store
from tests.databases import find_profile_by_name
from tests.running import ROOT, wait_for
from workers.attending import RELEASED_WITHIN_S, STEPS_END_WITHIN_S, Attended, Attending, Shared, lease_prefix
from workers.converge import Converge, ConvergeReport
from workers.drivers.simulated.log import read_file
from workers.drivers.simulated.rack import SimulatedRack
from workers.drivers.simulated.schema import rack_path
from workers.ports import HostUnreachable
from workers.watching import ALONE_AFTER_S, LOOK_AROUND_EVERY_S, Watching

HOST = HostId("dgx2-a")
MONDAY_10_UTC = 1_772_445_600


class StoppedClock:
    """Both times, where a test puts them. What sleeps, sleeps until a test lets it go."""

    def __init__(self) -> None:
        self.product = MONDAY_10_UTC
        self.machine = 1_700_000_000.0
        self.is_over = Event()

    def now(self) -> Instant:
        return self.product

    def machine_s(self) -> float:
        return self.machine

    def sleep_until(self, instant: Instant) -> None:
        self.is_over.wait()


@dataclass
class Woken:
    """Counts who was woken."""

    times: Counter[str] = field(default_factory=Counter)

    def plan(self) -> None:
        self.times["plan"] += 1

    def host(self, host: HostId) -> None:
        self.times[host] += 1


class Site:
    """A data directory with a database, and one worker's parts."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.clock = StoppedClock()
        self.store = Store.open(f"sqlite:///{home / 'plan.sqlite3'}", durability="off", profiles=find_profile_by_name)
        self.store.migrate()
        self.woken = Woken()
        self.shared = Shared(
            data=home,
            store=self.store,
            clock=self.clock,
            wake=self.woken,
            plans=PlanCache(self.store, self.clock),
            known_facts=FactsCache(self.store),
            settings=Settings(),
            profiles=find_profile_by_name,
            instance="worker-1",
        )
        self.opened: list[Attending] = []

    def attending(self, *hosts: HostId, instance: str = "worker-1", does_plan: bool = True) -> Attending:
        attending = Attending(replace(self.shared, instance=instance), hosts=frozenset(hosts), does_plan=does_plan)
        self.opened.append(attending)
        return attending

    def make_rack(self, host: HostId = HOST) -> SimulatedRack:
        return SimulatedRack(self.home / "racks", host, find_profile_by_name("dgx-2"), self.clock, seed=1)

    def do(self, intent: Intent) -> None:
        desk = Desk(store=self.store, clock=self.clock, wake=self.woken)
        filed = desk.file(intent, author="ada", role=Role.ADMIN)
        self.attending().plan()
        decided = desk.decision(filed.seq)
        assert decided is not None
        assert decided.is_accepted, decided.reasons

    def add_host(self, host: HostId = HOST) -> None:
        self.do(AddHost(host=host, profile="dgx-2", storage="local"))

    def apply_policy(self) -> None:
        text = (ROOT / "policies" / "examples" / "university.yaml").read_text(encoding="utf-8")
        policy = load_policy(text, source="university.yaml")
        assert not isinstance(policy, tuple)
        self.do(apply_intent(policy, [HOST], now=self.clock.now(), version=1, settings=Settings()))

    def on_rack(self, host: HostId = HOST) -> list[str]:
        return [line.what for line in read_file(rack_path(self.home, host))]

    def can_have_lease(self) -> bool:
        return self.store.acquire_lease(host_lease(HOST), "test/1", now_machine_s=self.clock.machine, ttl_s=1)

    def close(self) -> None:
        self.clock.is_over.set()
        for attending in self.opened:
            attending.close()
        self.store.close()


@pytest.fixture
def site(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Site]:
    caplog.set_level(logging.INFO)
    site = Site(tmp_path)
    yield site
    site.close()


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    return [message for message in caplog.messages if message.startswith(event)]


def test_a_host_with_a_rack_is_attended_to_once_the_plan_has_it(site: Site) -> None:
    site.make_rack().close()
    attending = site.attending()
    assert attending.look_around() == {HOST}
    assert not attending.hosts
    site.add_host()
    assert attending.look_around() == {HOST}
    assert set(attending.hosts) == {HOST}
    attending.converge(HOST)
    assert [(beat.kind, beat.name) for beat in site.store.heartbeats()] == [("host", HOST)]


def test_only_named_hosts_are_attended_to_if_any_are_named(site: Site) -> None:
    other = HostId("dgx2-b")
    for host in (HOST, other):
        site.make_rack(host).close()
        site.add_host(host)
    attending = site.attending(other)
    assert attending.look_around() == {other}
    assert set(attending.hosts) == {other}


def test_a_host_of_the_plan_without_a_rack_is_told_once_and_no_rack_is_made(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.add_host()
    attending = site.attending(HOST)
    for _ in range(3):
        attending.look_around()
        attending.converge(HOST)
    (line,) = told(caplog, "host.attend")
    assert f"host.attend.failed of={HOST} code=host.no_rack" in line
    assert f"--rack {HOST}=dgx-2" in line
    assert not rack_path(site.home, HOST).exists()
    site.make_rack().close()
    attending.look_around()
    assert told(caplog, "host.attend.recovered")


def test_a_real_host_of_the_workers_own_machine_is_served_only_by_who_is_told_so(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    here, there = HostId("here"), HostId("there")
    site.do(AddHost(host=here, profile="dgx-2", storage="here", connect="qemu:///system"))
    site.do(AddHost(host=there, profile="dgx-2", storage="there", connect="qemu+tls://127.0.0.1:1/system"))
    assert site.attending().look_around() == {there}
    assert "start the worker there with --host here" in caplog.text
    shared = replace(site.shared, instance="worker-2")
    assert Attending(shared, hosts=frozenset(), does_plan=False, serves_local=True).look_around() == {here, there}
    assert site.attending(here).look_around() == {here}


def test_a_host_that_the_plan_reaches_another_way_by_now_is_opened_anew(site: Site) -> None:
    pytest.importorskip("libvirt", reason="libvirt-python is not installed: it is built where libvirt's headers are")
    site.add_host()
    site.make_rack().close()
    attending = site.attending()
    attending.converge(HOST)
    first = attending.hosts[HOST]
    attending.converge(HOST)
    assert attending.hosts[HOST] is first
    site.do(ConnectHost(host=HOST, connect="qemu+tls://127.0.0.1:1/system"))
    attending.converge(HOST)
    assert attending.hosts[HOST] is not first
    assert attending.hosts[HOST].connect == "qemu+tls://127.0.0.1:1/system"
    assert site.store.load_facts(HOST).unreachable_since_at is not None


def test_a_rack_of_another_kind_of_host_is_told_once_and_left_alone(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    other = replace(find_profile_by_name("dgx-2"), name="dgx-other")
    SimulatedRack(site.home / "racks", HOST, other, site.clock, seed=1).close()
    before = site.on_rack()
    site.add_host()
    attending = site.attending()
    for _ in range(3):
        attending.look_around()
        attending.converge(HOST)
    (line,) = told(caplog, "host.attend")
    assert "code=rack.bad" in line
    assert "of kind dgx-other, not dgx2-a of kind dgx-2" in line
    assert site.on_rack() == before


def test_an_unknown_host_is_told_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    attending = site.attending()
    for _ in range(3):
        attending.converge(HostId("nobody"))
    (line,) = told(caplog, "host.converge")
    assert "of=nobody code=host.unknown" in line


def test_the_images_that_the_rules_name_are_there_before_anything_is_started(site: Site) -> None:
    site.make_rack().close()
    site.add_host()
    attending = site.attending()
    attending.converge(HOST)
    assert "image.installed" not in site.on_rack()
    site.apply_policy()
    attending.converge(HOST)
    attending.converge(HOST)
    assert site.on_rack().count("image.installed") == 2


def test_lease_tokens_begin_with_the_name_of_the_process(site: Site) -> None:
    site.make_rack().close()
    site.add_host()
    site.attending(instance="worker-1").converge(HOST)
    assert not site.can_have_lease()
    assert site.store.release_leases_of(lease_prefix("worker-10")) == 0
    assert site.store.release_leases_of(lease_prefix("worker-1")) == 1
    assert site.can_have_lease()


def test_a_database_that_is_busy_is_told_once_and_looked_at_again(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.make_rack().close()
    site.add_host()
    attending = site.attending()

    def busy() -> int:
        raise StoreBusy("the database was busy; try again")

    monkeypatch.setattr(site.store, "plan_version", busy)
    for _ in range(3):
        attending.plan()
        attending.converge(HOST)
        attending.look_around()
    monkeypatch.undo()
    attending.plan()
    attending.converge(HOST)
    attending.look_around()
    lines = [line for line in caplog.messages if "store.busy" in line or "recovered" in line]
    assert [line.split(" ")[0] for line in lines] == [
        "plan.run.failed",
        "host.converge.failed",
        "worker.look_around.failed",
        "plan.run.recovered",
        "host.converge.recovered",
        "worker.look_around.recovered",
    ]


def test_a_call_to_plan_while_another_plans_makes_that_one_look_once_more(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    attending = site.attending()
    began, go_on = Event(), Event()
    runs = 0

    def run(_: PlanTask) -> PlanRun:
        nonlocal runs
        runs += 1
        began.set()
        assert go_on.wait(5)
        return PlanRun(version=0, is_changed=False, next_due_at=None)

    monkeypatch.setattr(PlanTask, "run", run)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(attending.plan)
        assert began.wait(5)
        for _ in range(5):
            attending.plan()
        assert runs == 1
        go_on.set()
        first.result(5)
    assert runs == 2


def test_a_clean_end_waits_a_little_for_what_runs_gives_the_lease_up_and_begins_nothing_more(site: Site) -> None:
    site.make_rack().close()
    site.add_host()
    site.apply_policy()
    site.do(Submit(ask=Ask(owner="ada", queue="interactive", gpus=2, run_s=HOUR_S)))
    attending = site.attending()
    attending.converge(HOST)
    wait_for("a step that lasts", lambda: "disk.copying" in site.on_rack(), within_s=5)
    assert not site.can_have_lease()
    began_s = time.monotonic()
    attending.close()
    assert time.monotonic() - began_s < STEPS_END_WITHIN_S + 2
    assert site.can_have_lease()
    attending.converge(HOST)
    site.clock.is_over.set()
    assert site.can_have_lease()
    assert "vm.defined" not in site.on_rack()


def test_a_host_that_hangs_at_the_end_keeps_no_other_hosts_lease(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, free = HostId("a-hangs"), HostId("b-free")
    for host in (hangs, free):
        site.make_rack(host).close()
        site.add_host(host)
    attending = site.attending()
    attending.look_around()
    attending.converge(free)
    looked, go_on = Event(), Event()

    def hang(_: Converge) -> ConvergeReport:
        looked.set()
        go_on.wait(30)
        return ConvergeReport(host=hangs, is_mine=True)

    monkeypatch.setattr(Converge, "_converge", hang)
    with ThreadPoolExecutor(2) as pool:
        look = pool.submit(attending.converge, hangs)
        assert looked.wait(5)
        end = pool.submit(attending.close)
        wait_for(
            "the other's lease is given up",
            lambda: site.store.acquire_lease(host_lease(free), "test/1", now_machine_s=site.clock.machine, ttl_s=1),
            within_s=STEPS_END_WITHIN_S + RELEASED_WITHIN_S,
        )
        end.result(STEPS_END_WITHIN_S + RELEASED_WITHIN_S + 1)
        go_on.set()
        look.result(5)


def test_a_look_that_the_end_overtook_keeps_no_lease(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.make_rack().close()
    site.add_host()
    attending = site.attending()
    attending.look_around()
    current = PlanCache.current

    def end_meanwhile(plans: PlanCache) -> Plan:
        monkeypatch.undo()
        attending.close()
        return current(plans)

    monkeypatch.setattr(PlanCache, "current", end_meanwhile)
    attending.converge(HOST)
    assert site.can_have_lease()


def test_a_rack_that_hangs_while_it_is_opened_takes_one_thread_and_keeps_nobody_waiting(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, free = HostId("a-hangs"), HostId("b-free")
    for host in (hangs, free):
        site.make_rack(host).close()
        site.add_host(host)
    attending = site.attending()
    opening, go_on = Event(), Event()
    opened = Attending._open

    def hang(self: Attending, host: Host) -> Attended:
        if host.id == hangs:
            opening.set()
            assert go_on.wait(30)
        return opened(self, host)

    monkeypatch.setattr(Attending, "_open", hang)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(attending.converge, hangs)
        assert opening.wait(5)
        attending.converge(hangs)
        attending.converge(free)
        attending.look_around()
        assert set(attending.hosts) == {free}
        go_on.set()
        first.result(5)
    assert set(attending.hosts) == {hangs, free}


@pytest.mark.parametrize("name", [b"\xff", b"", b"two\nlines"])
def test_a_file_whose_name_can_be_no_hosts_is_told_once_and_served_by_nobody(
    site: Site, caplog: pytest.LogCaptureFixture, name: bytes
) -> None:
    site.make_rack().close()
    Path(os.fsdecode(os.fsencode(site.home / "racks") + b"/" + name + b".rack.sqlite")).touch()
    attending = site.attending()
    for _ in range(3):
        assert attending.look_around() == {HOST}
    (line,) = told(caplog, "host.attend")
    assert "code=host.bad_name" in line


def test_a_rack_that_is_locked_is_converged_though_images_cannot_be_installed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.make_rack().close()
    site.add_host()
    site.apply_policy()

    def locked(*_: object) -> None:
        raise HostUnreachable("dgx2-a.rack.sqlite: database is locked")

    monkeypatch.setattr(SimulatedRack, "install_image", locked)
    attending = site.attending()
    attending.converge(HOST)
    assert site.store.load_facts(HOST).seen_at == site.clock.now()
    monkeypatch.undo()
    attending.converge(HOST)
    assert site.on_rack().count("image.installed") == 2


# Watching.


class Seconds:
    """Monotonic seconds, where a test puts them."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Watched:
    watching: Watching
    seconds: Seconds
    hosts: list[frozenset[HostId]]


def watch_over(site: Site, attending: Attending) -> Watched:
    seconds, hosts = Seconds(), list[frozenset[HostId]]()
    watching = Watching(
        attending,
        clock=site.clock,
        wake=site.woken,
        settings=Settings(),
        on_hosts=hosts.append,
        machine=seconds,
        begin=lambda _, work: work(),
    )
    return Watched(watching, seconds, hosts)


def test_what_comes_due_on_a_rack_wakes_its_host_once(site: Site) -> None:
    rack = site.make_rack()
    site.add_host()
    watched = watch_over(site, site.attending())
    rack.reboot(site.clock.now(), down_s=60)
    site.woken.times.clear()
    site.clock.product += 59
    watched.watching.watch()
    assert not site.woken.times
    site.clock.product += 1
    for _ in range(5):
        watched.watching.watch()
    assert site.woken.times == {HOST: 1}
    rack.close()


def test_what_the_plan_has_due_wakes_the_plan_task_and_the_host_once(site: Site) -> None:
    site.make_rack().close()
    site.add_host()
    site.apply_policy()
    site.do(
        Submit(
            ask=Ask(
                owner="ada",
                queue="interactive",
                gpus=2,
                run_s=HOUR_S,
                not_before_at=site.clock.now() + HOUR_S,
                start_by_at=site.clock.now() + 2 * HOUR_S,
            )
        )
    )
    attending = site.attending()
    watched = watch_over(site, attending)
    watched.watching.plan()
    watched.watching.converge(HOST)
    plan_due_at, host_due_at = attending.plan_due_at, attending.hosts[HOST].next_due_at
    assert plan_due_at is not None
    assert host_due_at is not None
    site.woken.times.clear()
    site.clock.product = min(plan_due_at, host_due_at) - 1
    watched.watching.watch()
    assert not site.woken.times
    site.clock.product = max(plan_due_at, host_due_at)
    for _ in range(5):
        watched.watching.watch()
    assert site.woken.times == {"plan": 1, HOST: 1}


def test_without_messages_it_looks_by_itself_each_tick_and_says_so_once(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.make_rack().close()
    site.add_host()
    site.store.file_intent(
        AddHost(host=HostId("later"), profile="dgx-2", storage="local"),
        at=site.clock.now(),
        author="admin",
        role=Role.ADMIN,
    )
    attending = site.attending()
    watched = watch_over(site, attending)
    watched.seconds.now_s += ALONE_AFTER_S - 0.1
    watched.watching.watch()
    assert len(site.store.open_intents()) == 1
    watched.seconds.now_s += 0.1
    for _ in range(20):
        watched.watching.watch()
        watched.seconds.now_s += 0.5
    assert not site.store.open_intents()
    assert [(beat.kind, beat.name) for beat in site.store.heartbeats()] == [("host", HOST)]
    assert len(told(caplog, "worker.alone")) == 1
    watched.watching.plan()
    assert len(told(caplog, "worker.heard")) == 1
    site.woken.times.clear()
    watched.watching.watch()
    assert not told(caplog, "worker.watch")


def test_a_held_lease_outlasts_messages_that_go_to_another_worker_of_the_host(site: Site) -> None:
    site.make_rack().close()
    site.add_host()
    watched = watch_over(site, site.attending(instance="worker-1"))
    watched.watching.converge(HOST)
    other = watch_over(site, site.attending(instance="worker-2"))
    for _ in range(60):
        site.clock.machine += 1
        for one in (watched, other):
            one.seconds.now_s += 1
        # As two workers on two queues may share them: one takes all that is for the plan, one all for the host.
        watched.watching.plan()
        watched.watching.watch()
        other.watching.converge(HOST)
        other.watching.watch()
    assert site.store.release_leases_of(lease_prefix("worker-2")) == 0
    assert site.store.release_leases_of(lease_prefix("worker-1")) == 1


def test_messages_for_others_do_not_hide_that_none_come_for_a_host(site: Site) -> None:
    site.make_rack().close()
    site.add_host()
    watched = watch_over(site, site.attending())
    for _ in range(int(ALONE_AFTER_S) + 2):
        watched.seconds.now_s += 1
        watched.watching.plan()
        watched.watching.watch()
    assert ("host", HOST) in {(beat.kind, beat.name) for beat in site.store.heartbeats()}


def test_a_rack_that_cannot_be_read_is_told_once_and_the_others_are_watched(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = HostId("a-bad"), HostId("b-good")
    for host in (bad, good):
        site.make_rack(host).close()
        site.add_host(host)
    attending = site.attending()
    watched = watch_over(site, attending)
    attending.look_around()

    def unreadable() -> Instant | None:
        raise OSError("the file is gone")

    monkeypatch.setattr(attending.hosts[bad].reached, "next_due_at", unreadable)
    monkeypatch.setattr(attending.hosts[good].reached, "next_due_at", site.clock.now)
    site.woken.times.clear()
    for _ in range(3):
        watched.watching.watch()
    assert site.woken.times == {good: 1}
    (line,) = told(caplog, "rack.watch")
    assert "of=a-bad" in line


def test_a_host_that_hangs_while_no_messages_come_keeps_no_other_host_waiting(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, free = HostId("a-hangs"), HostId("b-free")
    for host in (hangs, free):
        site.make_rack(host).close()
        site.add_host(host)
    attending = site.attending()
    attending.look_around()
    seconds, go_on, hanging, looked = Seconds(), Event(), Counter[str](), Event()

    def look(host: HostId) -> None:
        if host == free:
            looked.set()
            return
        hanging[host] += 1
        assert go_on.wait(30)

    monkeypatch.setattr(attending, "converge", look)
    watching = Watching(
        attending, clock=site.clock, wake=site.woken, settings=Settings(), on_hosts=lambda _: None, machine=seconds
    )
    watching.watch()
    for _ in range(5):
        seconds.now_s += ALONE_AFTER_S
        looked.clear()
        watching.watch()
        assert looked.wait(5)
    assert hanging == {hangs: 1}
    go_on.set()


def test_messages_that_arrive_are_told_by_heartbeats(site: Site) -> None:
    watched = watch_over(site, site.attending())
    watched.watching.converge(HOST)
    assert [(beat.kind, beat.name) for beat in site.store.heartbeats()] == [("worker", "worker-1")]
    watched.watching.plan()
    assert {beat.kind for beat in site.store.heartbeats()} == {"worker", "plan"}


def test_hosts_are_looked_for_every_few_seconds(site: Site) -> None:
    watched = watch_over(site, site.attending())
    watched.watching.watch()
    watched.watching.watch()
    assert watched.hosts == [frozenset()]
    site.make_rack().close()
    watched.seconds.now_s += LOOK_AROUND_EVERY_S
    watched.watching.watch()
    assert watched.hosts == [frozenset(), frozenset({HOST})]


def test_what_fails_while_watching_is_told_once_and_the_watch_goes_on(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    attending = site.attending()

    def fail() -> frozenset[HostId]:
        nonlocal looks
        looks += 1
        raise OSError("the directory is gone")

    monkeypatch.setattr(attending, "look_around", fail)
    watched = watch_over(site, attending)
    watched.watching.start()

    def pass_time() -> bool:
        watched.seconds.now_s += LOOK_AROUND_EVERY_S
        return looks >= 3

    wait_for("three looks", pass_time, within_s=10)
    watched.watching.close()
    assert len(told(caplog, "worker.watch.failed")) == 1


def test_news_of_a_host_wakes_the_plan_and_a_quiet_look_does_not(site: Site) -> None:
    site.add_host()
    site.make_rack()
    attending = site.attending()
    attending.converge(HOST)
    before = site.woken.times["plan"]
    attending.converge(HOST)
    assert site.woken.times["plan"] == before
    site.clock.product += 60
    rack = site.make_rack()
    rack.make_foreign_domain("by-hand", (3,))
    attending.converge(HOST)
    assert site.woken.times["plan"] == before + 1
