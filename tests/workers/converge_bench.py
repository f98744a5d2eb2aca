"""A small world under virtual time: a real store in memory, a simulated host, and workers that converge it."""

from collections.abc import Callable
from dataclasses import replace

from scheduler.core.facts import DomainState, HostFacts, VmFact
from scheduler.core.plan import BookedDisk, BookedSpan, Event, Host, PlanChange, Reservation, Rules
from scheduler.core.replay import Agenda, VirtualClock
from scheduler.core.requests import AtBoundary, DiskId, HostId, Promise, Request, ReservationId
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, HOUR_S, Instant
from scheduler.core.topology import PartitionId
from scheduler.core.windows import Layout, Window
from scheduler.profiles.loading import load_profile
from scheduler.service.facts_cache import FactsCache
from scheduler.service.plan_cache import PlanCache
from scheduler.store.store import Store
from workers.converge import Converge, ConvergeReport
from workers.drivers.simulated.rack import SimulatedRack
from workers.drivers.simulated.schema import Durability
from workers.ports import Drivers
from workers.runners import AgendaRunner

BEGAN_AT: Instant = 1_772_478_000
HOST = HostId("dgx2-a")
IMAGE = "ubuntu"
PROFILE = load_profile("dgx-2")
LONG_LEASE = Settings(lease_machine_s=1e9, lease_renew_machine_s=1e8)
RULES = Rules(
    version=1,
    zone="UTC",
    outside=Layout(name="day", sizes=frozenset({1, 2, 4, 8, 16}), queues=frozenset({"interactive"})),
    queues=(),
    images=(IMAGE,),
    default_disk_gib=100,
    retention_s=7 * DAY_S,
    grace_s=300,
    min_useful_s=1800,
    warnings_s=(900,),
)


def no_commit_hook(point: str) -> None:
    """Let every commit pass."""


class Worker:
    """One worker process: it has a converge, chains in flight, and can be killed."""

    def __init__(self, world: "World", name: str, drivers: Drivers | None = None) -> None:
        self.world = world
        self.name = name
        self.is_killed = False
        self.tokens = 0
        self.runner = AgendaRunner(world.agenda, world.clock)
        self.converge = Converge(
            HOST,
            world.store,
            drivers or world.rack.drivers(),
            world.clock,
            self.runner,
            self,
            plans=PlanCache(world.store, world.clock),
            known_facts=FactsCache(world.store),
            settings=world.settings,
            profile=PROFILE,
            actor=name,
            new_token=self._new_token,
        )
        self.reports: list[ConvergeReport] = []

    def _new_token(self) -> str:
        self.tokens += 1
        return f"{self.name}-{self.tokens}"

    def plan(self) -> None:
        """Nobody plans in this world."""

    def host(self, host: HostId) -> None:
        assert host == HOST
        self.world.agenda.at(self.world.clock.now(), self.look)

    def look_once(self) -> None:
        """Converge, and do not come back."""
        self.reports.append(self.converge.converge())

    def look(self) -> None:
        """Converge, and come back at the next instant at which something is due."""
        if self.is_killed:
            return
        self.look_once()
        report = self.reports[-1]
        now = self.world.clock.now()
        due = [at for at in (report.next_due_at, self.world.rack.next_due_at()) if at is not None]
        if due and report.is_mine:
            self.world.agenda.at(max(min(due), now + 1), self.look)

    def kill(self) -> None:
        self.is_killed = True
        self.runner.kill()


class World:
    def __init__(
        self,
        *,
        seed: int = 1,
        settings: Settings = LONG_LEASE,
        on_commit: Callable[[str], None] = no_commit_hook,
    ) -> None:
        self.settings = settings
        self.clock = VirtualClock(BEGAN_AT)
        self.agenda = Agenda(self.clock)
        self.store = Store.open("sqlite://", durability="off", profiles=lambda name: PROFILE, on_commit=on_commit)
        self.store.migrate()
        self.rack = SimulatedRack(
            None, HOST, PROFILE, self.clock, seed=seed, images=[IMAGE], durability=Durability.FAST
        )
        self.commit(PlanChange(hosts=(Host(id=HOST, profile=PROFILE, storage="local"),), rules=RULES))
        self.worker = Worker(self, "worker-1")

    # The plan, as a planner would write it.

    def commit(self, change: PlanChange) -> None:
        self.store.commit_plan(self.store.plan_version(), change, at=self.clock.now())

    def book(
        self, name: str, partition: str, start_s: int = 0, end_s: int = 4 * HOUR_S, *, disk_until_s: int | None = None
    ) -> ReservationId:
        """Book a reservation for `[start_s, end_s)` after the beginning of the world."""
        id_, disk = ReservationId(name), DiskId(f"d-{name}")
        start_at, end_at = BEGAN_AT + start_s, BEGAN_AT + end_s
        until_at = end_at + 7 * DAY_S if disk_until_s is None else BEGAN_AT + disk_until_s
        request = Request(
            id=id_,
            owner="ada",
            queue="interactive",
            gpus=PROFILE.partition(PartitionId(partition)).size,
            run_s=end_at - start_at,
            submitted_at=BEGAN_AT,
            not_before_at=None,
            start_by_at=None,
            at_boundary=AtBoundary.PARK,
            image=IMAGE,
            disk_gib=100,
        )
        reservation = Reservation(
            request=request,
            promise=Promise(start_by_at=end_at, end_by_at=end_at),
            spans=(BookedSpan(start_at=start_at, end_at=end_at, host=HOST, partition=PartitionId(partition)),),
            disk=disk,
        )
        booked_disk = BookedDisk(
            id=disk,
            reservation=id_,
            owner="ada",
            size_gib=100,
            storage="local",
            is_scratch=False,
            from_at=start_at,
            until_at=until_at,
        )
        self.commit(PlanChange(reservations=(reservation,), disks=(booked_disk,)))
        return id_

    def reservation(self, id_: ReservationId) -> Reservation:
        found = self.store.reservation(id_)
        assert found is not None
        return found

    def change(self, id_: ReservationId, **fields: object) -> None:
        """Change a reservation as a plan commit would."""
        changed: Reservation = replace(self.reservation(id_), **fields)  # type: ignore[arg-type]
        self.commit(PlanChange(reservations=(changed,)))

    def end_now(self, id_: ReservationId) -> None:
        """Cut the current span short, as `stop` does."""
        now = self.clock.now()
        spans = tuple(replace(s, end_at=min(s.end_at, now)) for s in self.reservation(id_).spans if s.start_at < now)
        self.change(id_, spans=spans)

    def open_window(self, start_s: int, end_s: int, *, grace_s: int, warnings_s: tuple[int, ...]) -> None:
        window = Window(
            id="night@x",  # type: ignore[arg-type]
            name="night",
            layout=Layout(name="night", sizes=frozenset({16}), queues=frozenset({"hpc"})),
            hosts=frozenset({HOST}),
            start_at=BEGAN_AT + start_s,
            end_at=BEGAN_AT + end_s,
            decide_at=BEGAN_AT,
            only_if_queued=False,
            at_boundary=frozenset({AtBoundary.PARK}),
            warnings_s=warnings_s,
            grace_s=grace_s,
            policy_version=1,
        )
        self.commit(PlanChange(windows=(window,)))

    def set_domain_state(self, id_: ReservationId, state: DomainState) -> None:
        """Put a reservation's domain into a state, as somebody at the host's own console could."""
        with self.rack._file.writing() as connection:
            found = connection.execute(
                "UPDATE domains SET state = ? WHERE name LIKE ?", (state.value, f"{id_}-%")
            ).rowcount
        assert found == 1

    # Time.

    def run(self, until_s: int, *, worker: Worker | None = None) -> None:
        """Let a worker look now and whenever something is due, until so long after the beginning."""
        self.agenda.at(self.clock.now(), (worker or self.worker).look)
        self.agenda.run_until(BEGAN_AT + until_s, most_calls=20_000)

    # What can be seen.

    @property
    def facts(self) -> HostFacts:
        return self.store.load_facts(HOST)

    def vms(self, id_: ReservationId) -> list[VmFact]:
        return [vm for vm in self.facts.vms if vm.reservation == id_]

    def vm(self, id_: ReservationId) -> VmFact:
        return max(self.vms(id_), key=lambda vm: vm.generation)

    def events(self, *kinds: str) -> list[Event]:
        return [event for _, event in self.store.events(limit=100_000, kinds=kinds or None)]

    def rack_log(self, *what: str) -> list[str]:
        return [line.what for line in self.rack.log() if not what or line.what in what]

    def last_problem(self) -> str:
        return self.worker.reports[-1].problem
