"""A night, worked: the example of the design, line by line, on the whole stack in virtual time.

Real policy, plan task, store and converge; a simulated DGX-2. What is due by the clock comes from Nightshift; what
guests do (power off, ignore the button, finish early) is steered at the rack.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from cli.in_process import HostSetup, InProcess
from policies.format import LoadedPolicy
from policies.loading import load_policy
from scheduler.core.facts import Asked, CheckResult, Verb
from scheduler.core.intents import Submit
from scheduler.core.plan import Event, Outcome, Reservation
from scheduler.core.requests import Ask, HostId, ReservationId
from scheduler.core.spans import HOUR_S, MINUTE_S, Instant
from scheduler.core.windows import WindowState
from tests.simulation.judged import audited
from tests.simulation.kill_points import watch_commits
from tests.simulation.told import Ledger
from workers.drivers.simulated.faults import Fault, FaultKind, RackVerb
from workers.drivers.simulated.log import LogLine
from workers.ports import Drivers

HOST = HostId("dgx2-a")
MIDNIGHT: Instant = 1_772_406_000
"""2026-03-02 00:00 in Berlin."""
POLICY = """\
version: 1
zone: Europe/Berlin
outside: day
layouts:
  day: {sizes: [1, 2, 4, 8], queues: [interactive]}
  night: {sizes: [16], queues: [hpc]}
queues:
  interactive: {at_boundary: park, default_disk: 100GiB}
  hpc: {at_boundary: finish, scratch: true, default_disk: 500GiB}
images: [ubuntu]
defaults: {retention: 7d, grace: 5m, min_useful: 30m, warnings: [60m, 15m]}
windows:
  - {name: night, layout: night, hosts: ["dgx2-*"], opens: "0 20 * * *", for: 12h, only_if_queued: true}
"""
TENANTS = {"ada": 1, "bela": 2, "chen": 4, "dora": 2, "emil": 4}
"""Five owners and their GPUs, in the order in which they come; dora's guest will ignore everything."""
TENANTS_RUN_S = 6 * HOUR_S
CLOSING_S = (2, 1)
"""From each job's power-off to the end of its VM, on a rack of this seed."""


def at(clock: str) -> Instant:
    """Return the instant of a wall clock's time that evening, or in the morning after."""
    hours, minutes, seconds = (*(int(part) for part in clock.split(":")), 0)[:3]
    is_morning = hours < 12
    return MIDNIGHT + (24 * HOUR_S if is_morning else 0) + hours * HOUR_S + minutes * MINUTE_S + seconds


@dataclass(slots=True)
class Night:
    """The night as it was, and what everybody was promised when they asked."""

    home: InProcess
    tenants: dict[str, ReservationId]
    jobs: list[ReservationId]
    promised: dict[ReservationId, Reservation]
    ledger: Ledger
    written_when_asked: dict[UUID, Asked | None]
    """What the database held of a shutdown at the very moment in which the driver was called."""
    windows: dict[Instant, WindowState] = field(default_factory=dict)

    def log(self, what: str, id_: ReservationId | None = None) -> list[LogLine]:
        lines = self.home.racks[HOST].log()
        return [line for line in lines if line.what == what and id_ in (None, line.reservation)]

    def told(self, kind: str, id_: ReservationId | None = None) -> list[Event]:
        events = [event for _, event in self.home.store.events(limit=10_000, kinds=(kind,))]
        return [event for event in events if id_ in (None, event.reservation)]

    def reservation(self, id_: ReservationId) -> Reservation:
        found = self.home.store.reservation(id_)
        assert found is not None
        return found


class Asking:
    """Stands before the hypervisor, and reads from the database what was written before each shutdown was asked."""

    def __init__(self) -> None:
        self.home: InProcess | None = None
        self.written: dict[UUID, Asked | None] = {}

    def watch(self, drivers: Drivers) -> Drivers:
        return Drivers(
            host=drivers.host,
            hypervisor=_Watched(drivers.hypervisor, self),
            pci=drivers.pci,
            fabric=drivers.fabric,
            images=drivers.images,
            guest=drivers.guest,
        )

    def asked(self, uuid: UUID) -> None:
        assert self.home is not None
        asks = self.home.store.load_facts(HOST).asked
        found = next((ask for ask in asks if (ask.verb, ask.subject) == (Verb.SHUTDOWN, str(uuid))), None)
        self.written.setdefault(uuid, found)


class _Watched:
    def __init__(self, hypervisor: Any, asking: Asking) -> None:
        self._hypervisor = hypervisor
        self._asking = asking

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._hypervisor, verb)

    def ask_shutdown(self, uuid: UUID, *, through_agent: bool = False) -> None:
        self._asking.asked(uuid)
        self._hypervisor.ask_shutdown(uuid, through_agent=through_agent)


@pytest.fixture(scope="module")
def night() -> Iterator[Night]:
    asking = Asking()
    home = asking.home = InProcess(
        now=at("16:30"), hosts=(HostSetup(host=HOST, profile="dgx-2", storage="local"),), watch=asking.watch
    )
    ledger = watch_commits(home)
    loaded = load_policy(POLICY, source="night.yaml")
    assert isinstance(loaded, LoadedPolicy)
    assert home.apply_policy(loaded).is_accepted

    def ask(owner: str, queue: str, gpus: int, run_s: int) -> ReservationId:
        decided = home.do(Submit(ask=Ask(owner=owner, queue=queue, gpus=gpus, run_s=run_s)), author=owner)
        assert decided.is_accepted
        assert decided.reservation is not None
        return decided.reservation

    tenants = {owner: ask(owner, "interactive", gpus, TENANTS_RUN_S) for owner, gpus in TENANTS.items()}
    jobs = [ask("climate", "hpc", 16, 8 * HOUR_S), ask("genome", "hpc", 16, 3 * HOUR_S)]
    promised = {id_: _reservation(home, id_) for id_ in (*tenants.values(), *jobs)}
    told = Night(home, tenants, jobs, promised, ledger, asking.written)
    _steer_guests(told)
    for clock in ("18:44:59", "18:45", "05:39:59", "05:40", "11:30"):
        home.agenda.run_until(at(clock))
        assert home.plan is not None
        window = min(home.plan.windows.values(), key=lambda w: w.start_at)
        told.windows[at(clock)] = window.state
    yield told
    home.close()


def _reservation(home: InProcess, id_: ReservationId) -> Reservation:
    found = home.store.reservation(id_)
    assert found is not None
    return found


def _steer_guests(night: Night) -> None:
    """Let four guests follow the button within a minute and the fifth not at all; let both jobs be done early."""
    rack, deaf = night.home.racks[HOST], night.tenants["dora"]
    rack.inject(Fault(kind=FaultKind.IGNORE_SHUTDOWN, verb=RackVerb.ASK_SHUTDOWN, subject=deaf))
    rack.inject(Fault(kind=FaultKind.AGENT_SILENT, verb=RackVerb.ASK_SHUTDOWN, subject=deaf, after_s=1))
    for owner, id_ in night.tenants.items():
        if owner != "dora":
            rack.inject(Fault(kind=FaultKind.GUEST_SHUTDOWN, subject=id_, at=at("20:00:40")))
    # A guest that powers itself off ends its booking ten minutes later.
    for job, off_at, closing_s in zip(night.jobs, (at("03:00"), at("05:30")), CLOSING_S, strict=True):
        rack.inject(Fault(kind=FaultKind.GUEST_SHUTDOWN, subject=job, at=off_at - closing_s))


def test_at_18_45_the_window_is_decided_and_opens_because_an_hpc_job_is_booked(night: Night) -> None:
    assert night.windows[at("18:44:59")] is WindowState.PLANNED
    assert night.windows[at("18:45")] is WindowState.OPEN
    decided = night.told("window.decided")[0]
    assert (decided.at, dict(decided.facts)["state"]) == (at("18:45"), "open")


def test_at_19_00_and_19_45_warnings_are_shown_in_the_guests_and_sent_as_notices(night: Night) -> None:
    for id_ in night.tenants.values():
        assert [line.at for line in night.log("guest.warned", id_)][:2] == [at("19:00"), at("19:45")]
        notices = night.told("vm.warned", id_)[:2]
        assert [(event.at, event.is_notice) for event in notices] == [(at("19:00"), True), (at("19:45"), True)]
        assert {dict(event.facts)["end_at"] for event in notices} == {at("20:00")}


def test_at_20_00_five_vms_are_asked_to_shut_down_and_the_asking_is_written_first(night: Night) -> None:
    asked = [line for line in night.log("vm.shutdown_asked") if line.at == at("20:00")]
    assert {line.reservation for line in asked} == set(night.tenants.values())
    for line in asked:
        assert line.domain is not None
        written = night.written_when_asked[line.domain]
        assert written is not None, "the driver was called before the asking was committed"
        assert (written.asked_at, written.until_at, written.detail) == (at("20:00"), at("20:05"), "")


def test_at_20_01_four_are_off_their_devices_reset_checked_and_free(night: Night) -> None:
    profile = night.home.racks[HOST].profile
    for owner in TENANTS.keys() - {"dora"}:
        off = night.log("vm.off", night.tenants[owner])[0]
        assert off.at < at("20:01")
        assert off.fact("reason") == "shutdown"
        clean = [event for event in night.told("gpu.clean") if off.at <= event.at < at("20:01")]
        clean_gpus = {int(gpu) for event in clean for gpu in str(dict(event.facts)["gpus"]).split(",")}
        assert off.partition is not None
        assert profile.partition(off.partition).gpus <= clean_gpus


def test_at_20_05_the_fifth_that_ignored_its_grace_is_destroyed_its_disk_kept_and_said_so(night: Night) -> None:
    dora = night.tenants["dora"]
    assert [line.at for line in night.log("guest.ignored_shutdown", dora)] == [at("20:00")]
    assert [line.at for line in night.log("vm.destroy_asked")] == [at("20:05")]
    off = night.log("vm.off", dora)[0]
    assert (off.fact("reason"), off.at <= at("20:05:10")) == ("destroyed", True)
    assert [event.is_notice for event in night.told("vm.destroy_asked", dora)] == [True]
    (end,) = [event for event in night.told("vm.off", dora) if dict(event.facts)["end"] == "destroyed"]
    assert end.is_notice
    assert night.log("disk.deleting") == []


def test_by_20_06_the_job_is_pinned_and_started_as_generation_1(night: Night) -> None:
    (pin,) = night.told("span.pinned", night.jobs[0])
    assert at("20:05") < pin.at <= at("20:06")
    assert dict(pin.facts) == {"generation": 1, "partition": "16g0-15"}
    (starting,) = night.log("vm.starting", night.jobs[0])
    assert (starting.generation, starting.gpus, starting.fact("dirty")) == (1, tuple(range(16)), 0)
    assert starting.fact("is_fabric_set")


def test_it_runs_well_before_20_15_which_was_promised(night: Night) -> None:
    promise = night.promised[night.jobs[0]].promise
    assert promise is not None
    assert promise.start_by_at == at("20:15")
    (up,) = night.log("guest.up", night.jobs[0])
    assert up.at <= at("20:10")


def test_at_03_10_the_job_has_ended_early_and_the_next_one_starts(night: Night) -> None:
    first, second = night.jobs
    assert night.reservation(first).outcome is Outcome.COMPLETED
    assert night.reservation(first).ended_at == at("03:10")
    (starting,) = night.log("vm.starting", second)
    assert at("03:10") <= starting.at <= at("03:12")
    booked = night.promised[second]
    assert booked.promise is not None
    assert starting.at < booked.spans[0].start_at < booked.promise.start_by_at


def test_at_05_40_nothing_is_left_and_the_rest_is_released(night: Night) -> None:
    assert night.windows[at("05:39:59")] is WindowState.OPEN
    assert night.windows[at("05:40")] is WindowState.RELEASED
    opened, released = night.told("window.decided")[:2]
    assert (released.at, dict(released.facts)["released_from_at"]) == (at("05:40"), at("05:40"))
    assert dict(opened.facts)["start_at"] == dict(released.facts)["start_at"]


def test_the_tenants_resume_at_once_largest_first_on_other_blocks_hours_before_08_00(night: Night) -> None:
    pins = [event for event in night.told("span.pinned") if event.at >= at("05:40")][: len(TENANTS)]
    assert {event.reservation for event in pins} == set(night.tenants.values())
    sizes = [night.promised[event.reservation].request.gpus for event in pins if event.reservation is not None]
    assert sizes == sorted(TENANTS.values(), reverse=True)
    for id_ in night.tenants.values():
        _, after = night.log("guest.up", id_)
        assert after.at < at("05:45")
        assert after.generation == 2
    moved = [id_ for id_ in night.tenants.values() if len({line.partition for line in night.log("guest.up", id_)}) == 2]
    assert len(moved) >= 2


def test_everybody_has_all_hours_by_the_end_they_were_promised_and_no_promise_ever_moved(night: Night) -> None:
    assert night.told("promise.raised") == []
    for id_ in night.tenants.values():
        reservation, promise = night.reservation(id_), night.promised[id_].promise
        assert reservation.promise == promise
        assert promise is not None
        assert reservation.outcome is Outcome.COMPLETED
        ups, offs = night.log("guest.up", id_), night.log("vm.off", id_)
        assert len(ups) == len(offs) == 2
        assert ups[0].at <= promise.start_by_at
        assert offs[-1].at <= promise.end_by_at
        # The running hours asked for; what passes between the end of an hour and the asking is not counted twice.
        assert sum(off.at - up.at for up, off in zip(ups, offs, strict=True)) >= TENANTS_RUN_S
    assert {disk.id for disk in night.home.racks[HOST].drivers().hypervisor.look().disks if disk.is_ready} == {
        f"d-{id_}" for id_ in night.promised
    }
    assert all(
        device.held_by is None and device.result_of("reset_done") is CheckResult.PASSED
        for device in night.home.racks[HOST].drivers().hypervisor.look().devices
    )


def test_the_auditor_who_reads_only_the_host_and_what_people_were_told_finds_nothing_wrong(night: Night) -> None:
    assert set(night.promised) <= night.ledger.told.keys()
    assert audited(night.home, night.ledger, has_faults=False) == []
