"""Synthetic worlds for the planner: hosts whose VMs start, run, stop, crash and fail as a seed says, in virtual time.

A world holds the plan, commits what `step` returns, pins and starts what the plan wants as a host's converge would, and
lets the checker judge every commit. It has no drivers and no store: facts are written here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from random import Random

from scheduler.core.converging.desired import Standing, desired_host, run_end_at, standing_of
from scheduler.core.facts import Asked, DiskFact, GpuFact, GpuState, HostFacts, Verb, VmEnd, VmFact
from scheduler.core.intents import AddHost, ApplyPolicy, FiledIntent, Intent, Materialise
from scheduler.core.plan import Limits, Plan, PlanChange, Queue, Reservation, Rules, apply, pinned
from scheduler.core.planner.deciding import OVERRIDDEN_EVENT
from scheduler.core.planner.due import next_plan_due_at
from scheduler.core.planner.memory import Memory
from scheduler.core.planner.step import step
from scheduler.core.requests import AtBoundary, HostId, ReservationId, Role
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S, Instant, Span
from scheduler.core.topology import HostProfile
from scheduler.core.use import EndedUse, counted_gpu_s, start_of
from scheduler.core.windows import Layout, Window, WindowId
from scheduler.profiles.loading import load_profile
from tests.property.checker import Scene, violations

MIDNIGHT: Instant = 1_772_409_600
"""2026-03-02 00:00Z, a Monday."""

DAY_LAYOUT = Layout(name="day", sizes=frozenset({1, 2, 4, 8}), queues=frozenset({"interactive"}))
NIGHT_LAYOUT = Layout(name="night", sizes=frozenset({16}), queues=frozenset({"hpc"}))


@cache
def dgx2(name: str = "dgx-2") -> HostProfile:
    """Return the profile; `dgx-2/small-pool` is one whose disks run out."""
    if name == "dgx-2/small-pool":
        return replace(load_profile("dgx-2"), name=name, pool_gib=3000, scratch_gib=1000)
    return load_profile("dgx-2")


def rules(version: int = 1, **changes: object) -> Rules:
    """Return the rules of the worked night: tenants outside of windows, everything by default."""
    usual = Rules(
        version=version,
        zone="UTC",
        outside=DAY_LAYOUT,
        queues=(
            Queue(name="interactive"),
            Queue(name="hpc", at_boundary=AtBoundary.PARK, is_scratch=True, default_disk_gib=500),
        ),
        images=("ubuntu-24.04",),
        default_disk_gib=100,
        retention_s=7 * DAY_S,
        grace_s=300,
        min_useful_s=30 * MINUTE_S,
        warnings_s=(900,),
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def nights(
    hosts: Sequence[HostId],
    *,
    from_at: Instant,
    until_at: Instant,
    version: int = 1,
    start_s: int = 20 * HOUR_S,
    length_s: int = 12 * HOUR_S,
    grace_s: int = 300,
    only_if_queued: bool = True,
    at_boundary: frozenset[AtBoundary] = frozenset({AtBoundary.PARK, AtBoundary.FINISH}),
    name: str = "night",
    every_days: int = 1,
) -> tuple[Window, ...]:
    """Return a night for each day that begins in `[from_at, until_at)`."""
    found = []
    day_at = from_at - from_at % DAY_S
    while day_at < until_at:
        start_at = day_at + start_s
        if from_at <= start_at < until_at and (day_at // DAY_S) % every_days == 0:
            found.append(
                Window(
                    id=WindowId(f"{name}@{start_at}"),
                    name=name,
                    layout=NIGHT_LAYOUT,
                    hosts=frozenset(hosts),
                    start_at=start_at,
                    end_at=start_at + length_s,
                    decide_at=start_at - 75 * MINUTE_S,
                    only_if_queued=only_if_queued,
                    at_boundary=at_boundary,
                    warnings_s=(3600, 900),
                    grace_s=grace_s,
                    policy_version=version,
                )
            )
        day_at += DAY_S
    return tuple(found)


@dataclass
class Vm:
    """What a seed has in store for one start."""

    host: HostId
    gpus: frozenset[int]
    up_at: Instant | None
    """None: the start fails at `ends_at`."""
    ends_at: Instant | None
    end: VmEnd | None
    """How it ends by itself; None: it runs until it is stopped."""
    off_at: Instant | None = None
    """When it will be off after it was asked to stop."""
    stop: VmEnd = VmEnd.STOPPED
    free_at: Instant | None = None
    """When its GPUs are reset."""


@dataclass
class Odds:
    """How often things go wrong, 0..1 for each start."""

    start_fails: float = 0.0
    crashes: float = 0.0
    leaves_early: float = 0.0
    vanishes: float = 0.0
    ignores_grace: float = 0.1


@dataclass
class World:
    seed: int
    now: Instant = MIDNIGHT
    odds: Odds = field(default_factory=Odds)
    full_pools: set[HostId] = field(default_factory=set)
    """Hosts on which no disk can be made."""
    settings: Settings = field(default_factory=Settings)
    plan: Plan = field(default_factory=Plan)
    is_checked: bool = True

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.facts: dict[HostId, HostFacts] = {}
        self.vms: dict[tuple[ReservationId, int], Vm] = {}
        self.excused: set[ReservationId] = set()
        self.stuck: dict[HostId, set[int]] = {}
        """GPUs on which nothing can be started, for a reason that no fact shows."""
        self.seq = 0
        self.changes: list[tuple[Instant, PlanChange]] = []
        self.gone: dict[ReservationId, Reservation] = {}
        """Those that have left the plan, refused ones too."""
        self.problems: list[str] = []
        self.steps = 0
        self.kept = Memory()
        self.log: list[str] = []

    # The plan.

    def file(self, *intents: Intent, author: str = "admin", role: Role = Role.ADMIN) -> PlanChange:
        """File intents and plan them in one step."""
        filed = []
        for intent in intents:
            self.seq += 1
            filed.append(FiledIntent(seq=self.seq, at=self.now, author=author, role=role, intent=intent))
        return self.step(tuple(filed))

    def step(self, filed: tuple[FiledIntent, ...] = ()) -> PlanChange:
        """Plan once, judge it and commit it; twice more to see that it is determined and settled."""
        self.steps += 1
        self._excuse_lost()
        afresh = self.kept.afresh(self.plan)
        change = self._plan(filed, kept=self.kept)
        before = self.plan
        # Once on the board that was kept, once on one that is made anew; some steps that find nothing to do as well.
        is_compared = self.is_checked and (not change.is_empty or self.steps % 4 == 0)
        if is_compared and self._plan(filed, kept=afresh) != change:
            self.problems.append(f"{self.now}: the same step gave two different changes")
        if change.is_empty:
            return change
        self.plan = apply(before, change)
        self.changes.append((self.now, change))
        self.gone |= {r.id: r for r in change.reservations if r.is_closed}
        # Whose promise an admin broke, and told, was hit like by a fault.
        overridden = {told.reservation for told in change.events if told.kind == OVERRIDDEN_EVENT}
        self.excused |= {key for key in overridden if key is not None}
        self._excuse_lost()
        if not self.is_checked:
            return change
        scene = Scene(
            before=before,
            after=self.plan,
            change=change,
            intents=filed,
            facts=self.facts,
            now=self.now,
            settings=self.settings,
            excused=frozenset(self.excused),
            gone=self.gone,
        )
        self.problems += [f"{self.now}: {text}" for text in violations(scene)]
        again = self._plan((), kept=self.kept.afresh(self.plan))
        if not again.is_empty:
            self.problems.append(f"{self.now}: a second step had something left to do: {_short(again, self.plan)}")
        return change

    def _plan(self, filed: tuple[FiledIntent, ...], kept: Memory | None = None) -> PlanChange:
        return step(
            self.plan,
            filed,
            self.facts,
            self.now,
            settings=self.settings,
            profiles=dgx2,
            ended_uses=self.ended_uses,
            kept=kept,
        )

    def ended_uses(self, week: Span) -> Iterator[EndedUse]:
        """Yield what those held that started in a week and have left the plan, as a store would tell it."""
        for r in self.gone.values():
            at = start_of(r, self.now)
            if at is not None and week.covers(at):
                yield EndedUse(reservation=r.id, owner=r.request.owner, gpu_s=counted_gpu_s(r))

    def _excuse_lost(self) -> None:
        """Whoever is booked on GPUs that are out of the plan was hit by a fault."""
        for r in self.plan.reservations.values():
            for span in r.spans:
                facts = self.facts.get(span.host)
                if facts is not None and span.end_at > self.now and r.outcome is None:
                    partition = self.plan.hosts[span.host].profile.partition(span.partition)
                    if partition.gpus & facts.gpus_out_of_plan:
                        self.excused.add(r.id)

        for r in self.live():
            begun = r.span_at(self.now)
            if begun is None:
                continue
            gpus = self.plan.hosts[begun.host].profile.partition(begun.partition).gpus
            if gpus & self._stuck(begun.host) or self.is_silent(begun.host):
                self.excused.add(r.id)

    def _stuck(self, host: HostId) -> set[int]:
        return self.stuck.get(host, set())

    def is_silent(self, host: HostId) -> bool:
        return self.host_facts(host).unreachable_since_at is not None

    def fall_silent(self, host: HostId) -> None:
        """Let a host not answer: its guests run on, nobody sees or does anything there."""
        facts = self.host_facts(host)
        if facts.unreachable_since_at is None:
            self.facts[host] = replace(facts, unreachable_since_at=self.now, problem="no route to host")

    def answer(self, host: HostId) -> None:
        self.facts[host] = replace(self.host_facts(host), unreachable_since_at=None, problem="")

    def live(self) -> list[Reservation]:
        return [r for _, r in sorted(self.plan.reservations.items()) if r.outcome is None]

    # The hosts.

    def host_facts(self, host: HostId) -> HostFacts:
        return self.facts.setdefault(host, HostFacts(host=host))

    def set_gpu(self, host: HostId, gpu: int, state: GpuState) -> None:
        facts = self.host_facts(host)
        others = tuple(g for g in facts.gpus if g.gpu != gpu)
        if state is not GpuState.CLEAN:
            others = (*others, GpuFact(gpu=gpu, state=state, since_at=self.now, problem="by the seed"))
        self.facts[host] = replace(facts, gpus=tuple(sorted(others, key=lambda g: g.gpu)))

    def _set_vm(self, host: HostId, key: tuple[ReservationId, int], **changes: object) -> None:
        facts = self.facts[host]
        vms = tuple(
            replace(vm, **changes) if (vm.reservation, vm.generation) == key else vm  # type: ignore[arg-type]
            for vm in facts.vms
        )
        self.facts[host] = replace(facts, vms=vms)

    def converge(self) -> bool:
        """Bring VMs and facts to `now`; returns whether anything changed."""
        before = (self.plan.version, dict(self.facts))
        for key, vm in sorted(self.vms.items()):
            if not self.is_silent(vm.host):
                self._live_on(key, vm)
        for host in sorted(self.plan.hosts):
            if self.is_silent(host):
                continue
            self._stop_ended(host)
            self._start_wanted(host)
            self._delete_expired(host)
        return before != (self.plan.version, self.facts)

    def _live_on(self, key: tuple[ReservationId, int], vm: Vm) -> None:
        fact = next(f for f in self.facts[vm.host].vms if (f.reservation, f.generation) == key)
        if fact.off_at is None:
            if fact.running_at is None and vm.up_at is not None and vm.up_at <= self.now:
                self._set_vm(vm.host, key, up_at=vm.up_at, running_at=vm.up_at)
            ends = [(at, end) for at, end in ((vm.off_at, vm.stop), (vm.ends_at, vm.end)) if at is not None and end]
            if ends and min(ends)[0] <= self.now:
                off_at, end = min(ends)
                problem = "" if end is not VmEnd.START_FAILED else "no boot"
                self._set_vm(vm.host, key, off_at=off_at, end=end, problem=problem)
                self._has_left(vm.host, fact)
                asked_at = fact.stop_asked_at if fact.stop_asked_at is not None else off_at
                bounds = self.plan.hosts[vm.host].profile.bounds
                latest_at = asked_at + self._grace_s() + bounds.destroy_s + bounds.reset_s
                quickest_at = max(off_at, self.now)
                vm.free_at = max(quickest_at, min(latest_at, quickest_at + self.random.randint(0, bounds.reset_s)))
                if end in (VmEnd.START_FAILED, VmEnd.VANISHED):
                    self.excused.add(key[0])
        if vm.free_at is not None and vm.free_at <= self.now:
            self._set_vm(vm.host, key, is_gone=True)
            del self.vms[key]

    def _grace_s(self) -> int:
        assert self.plan.rules is not None
        return self.plan.rules.grace_s

    def _stop_ended(self, host: HostId) -> None:
        for fact in self.host_facts(host).vms:
            key = (fact.reservation, fact.generation)
            if fact.off_at is not None or fact.stop_asked_at is not None:
                continue
            if standing_of(self.plan, host, self.now, *key) is Standing.ENDED:
                self._set_vm(host, key, stop_asked_at=self.now)
                self._ask_to_leave(host, fact)
                bounds = self.plan.hosts[host].profile.bounds
                vm = self.vms[key]
                if self.random.random() < self.odds.ignores_grace:
                    vm.off_at, vm.stop = self.now + self._grace_s() + bounds.destroy_s, VmEnd.DESTROYED
                else:
                    vm.off_at = self.now + self.random.randint(5, self._grace_s())

    def _ask_to_leave(self, host: HostId, vm: VmFact) -> None:
        """Note by when a guest is to have left: what it was given stays, whatever a later policy gives."""
        facts, until_at = self.facts[host], self.now + self._grace_s()
        asked = Asked(verb=Verb.SHUTDOWN, subject=str(vm.uuid), asked_at=self.now, until_at=until_at)
        self.facts[host] = replace(facts, asked=(*facts.asked, asked))

    def _has_left(self, host: HostId, vm: VmFact) -> None:
        facts = self.facts[host]
        self.facts[host] = replace(facts, asked=tuple(ask for ask in facts.asked if ask.subject != str(vm.uuid)))

    def _start_wanted(self, host: HostId) -> None:
        wanted = [(r, r.span_at(self.now)) for r in self.live()]
        for r, span in sorted(wanted, key=lambda item: (item[0].generation == 0, -item[0].request.gpus)):
            if span is None or span.host != host:
                continue
            facts = self.host_facts(host)
            last = max((f for f in facts.vms if f.reservation == r.id), key=lambda f: f.generation, default=None)
            is_same_start = last is not None and standing_of(self.plan, host, self.now, r.id, last.generation) is (
                Standing.WANTED
            )
            if last is not None and is_same_start and (last.end is None or not self._starts_again(r, last)):
                continue
            profile = self.plan.hosts[host].profile
            gpus = profile.partition(span.partition).gpus
            is_held = any(vm.host == host and vm.gpus & gpus for vm in self.vms.values())
            is_elsewhere = any(key[0] == r.id for key in self.vms)
            is_lost = bool(gpus & (facts.gpus_out_of_plan | self._stuck(host)))
            start_s = profile.bounds.start_s(len(gpus))
            if is_held or is_elsewhere or is_lost or self.now + start_s > run_end_at(r, span):
                continue
            self._start(host, r.id, gpus, start_s)

    def _starts_again(self, reservation: Reservation, last: VmFact) -> bool:
        vms = [f for h in self.facts.values() for f in h.vms if f.reservation == reservation.id]
        match last.end:
            case VmEnd.SELF_SHUTDOWN:
                return reservation.restart_after >= last.generation
            case VmEnd.CRASHED:
                return sum(1 for f in vms if f.end is VmEnd.CRASHED) <= self.settings.crash_restarts
            case VmEnd.START_FAILED:
                span = reservation.span_at(self.now)
                assert last.off_at is not None
                assert span is not None
                here = [
                    f
                    for f in vms
                    if f.end is VmEnd.START_FAILED and f.partition == span.partition and f.asked_at >= span.start_at
                ]
                is_time = self.now >= last.off_at + self.settings.retry_after_s
                return is_time and len(here) < self.settings.start_attempts
            case _:
                return True

    def _start(self, host: HostId, reservation_id: ReservationId, gpus: frozenset[int], start_s: int) -> None:
        reservation = pinned(self.plan.reservations[reservation_id], self.now)
        self.plan = apply(self.plan, PlanChange(reservations=(reservation,)))
        span = reservation.span_at(self.now)
        assert span is not None
        key = (reservation_id, reservation.generation)
        facts = self.host_facts(host)
        vm = VmFact(
            reservation=reservation_id, generation=reservation.generation, partition=span.partition, asked_at=self.now
        )
        disks = facts.disks
        if (
            host not in self.full_pools
            and reservation.disk is not None
            and reservation.disk not in {d.disk for h in self.facts.values() for d in h.disks}
        ):
            size_gib = reservation.request.disk_gib
            disks = (*disks, DiskFact(disk=reservation.disk, size_gib=size_gib, made_at=self.now))
        self.facts[host] = replace(facts, vms=(*facts.vms, vm), disks=disks)
        odds, roll = self.odds, self.random.random
        up_at: Instant | None = self.now + self.random.randint(30, start_s)
        ends_at: Instant | None = None
        end: VmEnd | None = None
        if roll() < odds.start_fails:
            ends_at, up_at, end = up_at, None, VmEnd.START_FAILED
        else:
            for chance, how in (
                (odds.crashes, VmEnd.CRASHED),
                (odds.leaves_early, VmEnd.SELF_SHUTDOWN),
                (odds.vanishes, VmEnd.VANISHED),
            ):
                if end is None and roll() < chance:
                    assert up_at is not None
                    ends_at, end = up_at + self.random.randint(1, 10 * HOUR_S), how
        self.vms[key] = Vm(host=host, gpus=gpus, up_at=up_at, ends_at=ends_at, end=end)

    def _delete_expired(self, host: HostId) -> None:
        facts = self.host_facts(host)
        if all(disk.until_at > self.now for disk in self.plan.disks.values()):
            return
        expired = {d.id for d in desired_host(self.plan, host, self.now, facts, self.settings).expired_disks}
        if any(d.disk in expired and d.deleted_at is None for d in facts.disks):
            disks = tuple(
                replace(d, deleted_at=self.now) if d.disk in expired and d.deleted_at is None else d
                for d in facts.disks
            )
            self.facts[host] = replace(facts, disks=disks)

    # Time.

    def _next_at(self) -> Instant | None:
        instants = [next_plan_due_at(self.plan, self.facts, self.now, self.settings)]
        for vm in self.vms.values():
            instants += [vm.up_at, vm.ends_at, vm.off_at, vm.free_at]
        for r in self.plan.reservations.values():
            if r.outcome is None:
                instants += [s.start_at for s in r.spans]
        for host in self.facts.values():
            for fact in host.vms:
                if fact.end is VmEnd.START_FAILED and fact.off_at is not None:
                    instants.append(fact.off_at + self.settings.retry_after_s)
        return min((at for at in instants if at is not None and at > self.now), default=None)

    def run_until(self, until_at: Instant) -> None:
        """Let time pass; hosts and plan look at every instant at which something is due."""
        self.look()
        for _ in range(100_000):
            next_at = self._next_at()
            if self.problems or next_at is None or next_at > until_at:
                break
            self.now = next_at
            self.look()
        else:
            raise AssertionError(f"time stands still at {self.now}")
        self.now = max(self.now, until_at)
        self.look()

    def look(self) -> None:
        """Converge and plan until nothing changes."""
        for _ in range(50):
            is_changed = self.converge()
            change = self.step()
            if not is_changed and change.is_empty:
                self._check_quiet()
                return
        self.problems.append(f"{self.now}: converge and plan never come to rest")

    def _check_quiet(self) -> None:
        """Until the next due instant nothing is to be planned, as long as nothing happens."""
        due_at = next_plan_due_at(self.plan, self.facts, self.now, self.settings)
        if not self.is_checked or due_at is None or due_at <= self.now + 1 or self.random.random() > 0.1:
            return
        for at in (due_at - 1, self.random.randint(self.now + 1, due_at - 1)):
            early = step(
                self.plan,
                (),
                self.facts,
                at,
                settings=self.settings,
                profiles=dgx2,
                ended_uses=self.ended_uses,
            )
            if not early.is_empty:
                self.problems.append(f"{self.now}: not due before {due_at}, yet at {at}: {_short(early, self.plan)}")

    def sleep_until(self, at: Instant) -> None:
        """Nobody looks until then: every promise that suffers from it was hit by a fault."""
        self.now = max(self.now, at)
        self.excused |= {r.id for r in self.live()}


def _short(change: PlanChange, plan: Plan) -> str:
    rows = [(plan.reservations.get(r.id), r) for r in change.reservations]
    return f"{rows} {change.windows} {change.disks} {change.dropped_disks} {change.events}"


def world(
    seed: int = 1,
    *,
    hosts: Mapping[str, str] | None = None,
    profile: str = "dgx-2",
    odds: Odds | None = None,
    horizon_days: int = 15,
    limits: Limits | None = None,
    now: Instant = MIDNIGHT,
    windows: tuple[Window, ...] | None = None,
    kind: "type[World]" = World,
    **rule_changes: object,
) -> World:
    """Return a world with hosts (name to storage) and one night a day."""
    made = kind(seed, now=now, odds=odds or Odds())
    by_name = hosts or {"dgx2-a": "a"}
    ids = [HostId(name) for name in by_name]
    horizon_at = now - now % DAY_S + horizon_days * DAY_S
    if windows is None:
        windows = nights(ids, from_at=now, until_at=horizon_at)
    applied = rules(**{"limits": limits or Limits(), **rule_changes})  # type: ignore[arg-type]
    made.file(ApplyPolicy(rules=applied, windows=(), hosts=frozenset(), horizon_at=horizon_at, text="policy"))
    for host, storage in by_name.items():
        mine = tuple(w for w in windows if HostId(host) in w.hosts)
        made.file(
            AddHost(
                host=HostId(host),
                profile=profile,
                storage=storage,
                windows=tuple(replace(w, hosts=frozenset({HostId(host)})) for w in mine),
                policy_version=1,
                horizon_at=horizon_at,
            )
        )
    return made


def materialise(made: World, days: int = 15) -> None:
    """Move the horizon on, as the ticker does each day."""
    assert made.plan.rules is not None
    horizon_at = made.now - made.now % DAY_S + days * DAY_S
    if horizon_at <= made.plan.horizon_at:
        return
    more = nights(
        sorted(made.plan.hosts),
        from_at=made.plan.horizon_at,
        until_at=horizon_at,
        version=made.plan.rules.version,
    )
    made.file(
        Materialise(
            policy_version=made.plan.rules.version,
            windows=more,
            hosts=frozenset(made.plan.hosts),
            horizon_at=horizon_at,
        ),
        role=Role.POLICY,
    )
