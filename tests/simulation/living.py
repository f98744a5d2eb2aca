"""One random history of the whole product on simulated racks: drawn from a seed, lived, brought to rest, judged.

The same plan task, converge, store and policies as in service; only people and fate are made up, and what they do is
drawn from the seed alone. Holds no command.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from time import process_time
from traceback import format_exception

from cli.in_process import HostSetup, InProcess
from policies.format import LoadedPolicy
from scheduler.core.converging.asked import forget_closed, in_order
from scheduler.core.facts import GpuState, VmEnd
from scheduler.core.intents import Cancel, Drain, Extend, FiledIntent, Mend, Restart, Stop, Submit, Undrain
from scheduler.core.phases import Phase, phase_of
from scheduler.core.plan import Decided, Plan, PlanChange, Reservation, apply
from scheduler.core.planner.explaining import quote, why
from scheduler.core.reasons import sentence
from scheduler.core.requests import Ask, HostId, ReservationId, Role
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S, Instant
from scheduler.core.windows import WindowState
from scheduler.store.leases import LeaseClaim
from tests.property.checker import Scene, violations
from tests.simulation import people
from tests.simulation.rack_auditor import audit, audit_quiet
from tests.simulation.told import History, Ledger, Unwatched
from workers.drivers.simulated.faults import Fault, FaultKind, RackVerb
from workers.drivers.simulated.log import LogLine

FIRST_AT: Instant = 1_772_409_600
"""2026-03-02, a Monday; a history begins up to five weeks later, so that some see the clocks change."""
REQUESTS_PER_HOST_DAY = 22
LOOKED_OVER_EVERY_S = 6 * HOUR_S
LEASE_S = 16.0
"""Machine time after which every lease has run out."""
MOST_PROBLEMS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What kind of history a seed tells; the rest is drawn on the way."""

    seed: int
    hosts: int
    days: int
    has_faults: bool
    is_checked: bool
    """Every commit of the plan is judged too, which is slow."""

    @classmethod
    def of(cls, seed: int) -> "Scope":
        random = Random(f"scope/{seed}")
        return cls(
            seed=seed,
            hosts=random.choice([1, 1, 2, 3]),
            days=random.randint(2, 7),
            has_faults=random.random() < 0.7,
            is_checked=random.random() < 0.15,
        )

    @property
    def host_days(self) -> int:
        return self.hosts * self.days


@dataclass(slots=True, kw_only=True)
class Judged:
    """What came of one history; plain values, so that it may come from another process."""

    scope: Scope
    problems: list[str] = field(default_factory=list)
    requests: int = 0
    refused: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    acts: Counter[str] = field(default_factory=Counter)
    events: int = 0
    promises_raised: int = 0
    seconds: float = 0.0
    digest: str = ""
    """Of all racks' logs and the event stream: the same seed gives the same bytes."""


def live(scope: Scope, *, store_url: str = "sqlite://") -> Judged:
    """Live through the history of a scope, and return what is to be said of it. Never raises for a broken product."""
    began = process_time()
    life = Life(scope, store_url)
    try:
        life.run()
    except Exception as error:
        # A history that breaks is a finding like any other, and names its seed.
        life.judged.problems.append("".join(format_exception(error)))
    finally:
        life.home.close()
    life.judged.seconds = process_time() - began
    return life.judged


class Life:
    """A history while it is lived."""

    def __init__(self, scope: Scope, store_url: str) -> None:
        self.scope = scope
        self.judged = Judged(scope=scope)
        self.random = Random(f"life/{scope.seed}")
        self.hosts = people.hosts_named(scope.hosts)
        self.first_at = FIRST_AT + self.random.randrange(35) * DAY_S + self.random.randrange(DAY_S)
        self.end_at = self.first_at + scope.days * DAY_S
        self.ledger = Ledger()
        self.unwatched: list[Unwatched] = []
        self.leaves: set[tuple[HostId, Instant]] = set()
        self.commits = 0
        self._before = Plan()
        self._open: dict[int, FiledIntent] = {}
        self._terms = people.random_terms(self.random)
        self._policies = 0
        self._read_to: dict[HostId, int] = {}
        self._hung: set[HostId] = set()
        """Hosts on which some call may have hung for ever."""
        self.home = InProcess(
            now=self.first_at,
            hosts=tuple(HostSetup(host=host, profile="dgx-2", storage=host) for host in self.hosts),
            store_url=store_url,
            seed=scope.seed,
            on_commit=self._committed,
        )
        self._watch_commits()

    def problem(self, text: str) -> None:
        if len(self.judged.problems) < MOST_PROBLEMS:
            self.judged.problems.append(text)

    # What is taken down on the way.

    def _committed(self, point: str) -> None:
        if point.endswith(":after") and not point.startswith("lease"):
            self.commits += 1

    def _watch_commits(self) -> None:
        """Take down every commit of the plan as it is told, whoever makes it."""
        store = self.home.store
        commit_plan, open_intents = store.commit_plan, store.open_intents

        def noted(
            base_version: int, change: PlanChange, *, at: Instant, author: str = "plan", lease: LeaseClaim | None = None
        ) -> int:
            version = commit_plan(base_version, change, at=at, author=author, lease=lease)
            self.ledger.note(change, at)
            self.judged.promises_raised += sum(event.kind == "promise.raised" for event in change.events)
            if self.scope.is_checked:
                self._check(change, at, author)
            return version

        def opened() -> tuple[FiledIntent, ...]:
            found = open_intents()
            self._open.update((filed.seq, filed) for filed in found)
            return found

        store.commit_plan = noted  # type: ignore[method-assign]  # a store that tells what it writes
        store.open_intents = opened  # type: ignore[method-assign]

    def _check(self, change: PlanChange, at: Instant, author: str) -> None:
        before = self._before
        self._before = after = apply(before, change)
        if author != "plan" or before.rules is None:
            return
        scene = Scene(
            before=before,
            after=after,
            change=change,
            intents=[self._open[decided.seq] for decided in change.decided],
            facts=self.home.facts,
            now=at,
            settings=self.home.settings,
            excused=frozenset(after.reservations) if self.scope.has_faults else frozenset(),
        )
        for wrong in violations(scene):
            self.problem(f"{at}: plan version {after.version}: {wrong}")

    # The whole of it.

    def run(self) -> None:
        home, random = self.home, self.random
        decided = home.apply_policy(self._next_policy(self._terms))
        if not decided.is_accepted:
            self.problem(f"the first policy was refused: {sentence(decided.reasons[0])}")
            return
        for call in self._drawn():
            home.agenda.at(random.randrange(self.first_at, self.end_at), call)
        for at in range(self.first_at + LOOKED_OVER_EVERY_S, self.end_at, LOOKED_OVER_EVERY_S):
            home.agenda.at(at + random.randrange(HOUR_S), self._look_over)
        home.agenda.run_until(self.end_at)
        self._come_to_rest()
        self._judge()

    def _drawn(self) -> list[Callable[[], None]]:
        """Return everything that people and fate will do, in no order."""
        scope = self.scope

        def often(per_host_day: float) -> int:
            return round(per_host_day * scope.host_days)

        calls: list[Callable[[], None]] = [self._submit] * often(REQUESTS_PER_HOST_DAY)
        calls += [self._cancel] * often(1.5) + [self._extend] * often(2) + [self._stop] * often(1)
        calls += [self._restart] * often(1) + [self._change_policy] * max(1, often(0.4))
        calls += [partial(self._fault, is_guests_own=True)] * often(1)
        calls += [partial(self._drain, host) for host in self.hosts if self.random.random() < 0.5]
        calls += [
            partial(self._replace_worker, host) for host in self.hosts for _ in range(often(0.7 / len(self.hosts)))
        ]
        if scope.has_faults:
            calls += [self._fault] * often(4) + [self._mend] * often(2)
            calls += [self._stand_still] * max(1, scope.days // 3)
        return calls

    # What people do.

    def _next_policy(self, terms: people.Terms) -> LoadedPolicy:
        self._policies += 1
        return people.policy_of(terms, number=self._policies)

    @property
    def plan(self) -> Plan:
        assert self.home.plan is not None
        return self.home.plan

    def _did(self, what: str, decided: Decided) -> None:
        self.judged.acts[f"{what} {'yes' if decided.is_accepted else 'no'}"] += 1
        for refused in decided.reasons:
            said = sentence(refused)
            if "?" in said:
                self.problem(f"{what} at {self.home.clock.now()}: a reason lacks its facts: {said}")

    def _submit(self) -> None:
        home, now = self.home, self.home.clock.now()
        ask = people.random_ask(self.random, self.plan, now)
        home.look()
        quoted = quote(self.plan, home.facts, ask, now, home.settings) if self.random.random() < 0.1 else None
        decided = home.do(Submit(ask=ask), author=ask.owner)
        self._did("submit", decided)
        self.judged.requests += 1
        self.judged.refused += not decided.is_accepted
        if decided.is_accepted and people.is_invalid(ask, self.plan, now):
            self.problem(f"{now}: accepted, and must not be: {ask}")
        if not decided.is_accepted or decided.reservation is None:
            return
        self._hold_to(ask, decided.reservation)
        promise = self.ledger.told[decided.reservation].promises[0][1]
        if quoted is not None and quoted.promise != promise:
            self.problem(f"{decided.reservation}: quoted {quoted.promise}, promised {promise}")
        if self.random.random() < 0.3:
            # Work that is done before its time: the guest powers itself off.
            after_s = self.random.randint(HOUR_S // 4, max(HOUR_S, ask.run_s))
            for rack in home.racks.values():
                rack.inject(
                    Fault(
                        kind=FaultKind.GUEST_SHUTDOWN,
                        verb=RackVerb.START,
                        subject=decided.reservation,
                        after_s=after_s,
                    )
                )

    def _hold_to(self, ask: Ask, reservation: ReservationId) -> None:
        """A yes is a yes to what was asked."""
        promise = self.ledger.told[reservation].promises[0][1]
        if ask.start_by_at is not None and promise.start_by_at > ask.start_by_at:
            self.problem(f"{reservation}: to start by {ask.start_by_at}, promised {promise}")
        if promise.end_by_at < promise.start_by_at + ask.run_s - MINUTE_S * 30 and ask.not_before_at is None:
            self.problem(f"{reservation}: {ask.run_s} s cannot be delivered by {promise}")

    def _anyone(self, fits: Callable[[Reservation], bool] = lambda _: True) -> Reservation | None:
        found = [r for r in people.known(self.plan) if r.outcome is None and fits(r)]
        return self.random.choice(found) if found else None

    def _cancel(self) -> None:
        whom = self._anyone()
        if whom is not None:
            self._did("cancel", self.home.do(Cancel(reservation=whom.id), author=whom.request.owner))

    def _extend(self) -> None:
        whom = self._anyone()
        if whom is not None:
            by_s = self.random.choice([-1, 600, HOUR_S, 5 * HOUR_S])
            self._did("extend", self.home.do(Extend(reservation=whom.id, by_s=by_s), author=whom.request.owner))

    def _stop(self) -> None:
        whom = self._anyone()
        if whom is not None:
            is_stranger = self.random.random() < 0.2
            author = "mallory" if is_stranger else whom.request.owner
            decided = self.home.do(Stop(reservation=whom.id), author=author)
            self._did("stop", decided)
            if is_stranger and decided.is_accepted:
                self.problem(f"{whom.id} was stopped by somebody else")

    def _restart(self) -> None:
        off = {
            vm.reservation
            for host in sorted(self.home.facts)
            for vm in self.home.facts[host].vms
            if vm.end is VmEnd.SELF_SHUTDOWN
        }
        whom = self._anyone(lambda r: r.id in off) or self._anyone()
        if whom is not None:
            self._did("restart", self.home.do(Restart(reservation=whom.id), author=whom.request.owner))

    def _drain(self, host: HostId) -> None:
        self._did("drain", self.home.do(Drain(host=host), author="root", role=Role.ADMIN))
        back_at = self.home.clock.now() + self.random.choice([HOUR_S, 6 * HOUR_S, 20 * HOUR_S])
        self.home.agenda.at(min(back_at, self.end_at), partial(self._undrain, host))

    def _undrain(self, host: HostId) -> None:
        self._did("undrain", self.home.do(Undrain(host=host), author="root", role=Role.ADMIN))

    def _change_policy(self) -> None:
        home, now = self.home, self.home.clock.now()
        before, terms = self.plan.rules, self._terms
        if self.random.random() < 0.3:
            self._policies += 1
            policy = people.policy_without_hpc(self.random, number=self._policies)
            must_be_refused = self._is_hpc_promised(now)
        else:
            is_small = self.random.random() < 0.7
            terms = people.changed_terms(self.random, terms) if is_small else people.random_terms(self.random)
            policy, must_be_refused = self._next_policy(terms), False
        decided = home.apply_policy(policy)
        if decided.is_accepted:
            self._terms = terms
        self._did("policy", decided)
        if must_be_refused and decided.is_accepted:
            self.problem(f"{now}: a policy without whole-host work was taken on while some is promised")
        if not decided.is_accepted and self.plan.rules != before:
            self.problem(f"{now}: a policy was refused, and its rules hold")

    def _is_hpc_promised(self, now: Instant) -> bool:
        """Whether whole-host work is booked in a window that is not decided yet, and would be gone."""
        planned = [w for w in self.plan.windows.values() if w.state is WindowState.PLANNED and w.start_at > now]
        return any(
            r.outcome is None
            and r.request.queue == "hpc"
            and any(
                w.start_at <= span.start_at < w.end_at and span.host in w.hosts for span in r.spans for w in planned
            )
            for r in people.known(self.plan)
        )

    # What fate does.

    def _fault(self, *, is_guests_own: bool = False) -> None:
        now = self.home.clock.now()
        host = self.random.choice(self.hosts)
        vms = self.home.facts[host].vms if host in self.home.facts else ()
        running = sorted({vm.reservation for vm in vms if vm.up_at is not None and vm.end is None})
        fault = people.random_fault(self.random, now, running)
        while people.is_guests_own(fault) is not is_guests_own:
            fault = people.random_fault(self.random, now, running)
        self.home.racks[host].inject(fault)
        if fault.kind is FaultKind.HANG and fault.until_at is None:
            self._hung.add(host)
        if fault.kind is FaultKind.FOREIGN and fault.until_at is not None:
            self.leaves.add((host, fault.until_at))
        self.home.wake.host(host)

    def _mend(self) -> None:
        """Repair some GPU that is out of order, and say so."""
        lost = [
            (host, gpu.gpu)
            for host, facts in sorted(self.home.facts.items())
            for gpu in facts.gpus
            if gpu.state is GpuState.QUARANTINED
        ]
        if lost:
            self._mend_one(*self.random.choice(lost))

    def _mend_one(self, host: HostId, gpu: int) -> None:
        rack = self.home.racks[host]
        rack.mend_device(rack.profile.gpu(gpu).address)
        self._did("mend", self.home.do(Mend(host=host, gpu=gpu), author="root", role=Role.ADMIN))

    def _replace_worker(self, host: HostId) -> None:
        """Kill a host's worker; another one comes, and gets the lease once it has run out."""
        now = self.home.clock.now()
        back_at = now + (self.random.choice([0, 16, 60, HOUR_S]) if self.scope.has_faults else 16)
        self.home.replace_worker(host)
        self.judged.acts["worker killed"] += 1
        self.unwatched.append(Unwatched(host=host, from_at=now, until_at=back_at + 1))

        def lease_is_over() -> None:
            self.home.clock.pass_machine_time(LEASE_S)
            for other in self.hosts:
                self.home.wake.host(other)

        self.home.agenda.at(back_at, lease_is_over)

    def _stand_still(self) -> None:
        """Let time jump, as when the whole installation was stopped: nothing was looked at meanwhile."""
        now = self.home.clock.now()
        until_at = min(now + self.random.choice([MINUTE_S, HOUR_S, 3 * HOUR_S]), self.end_at)
        self.judged.acts["stood still"] += 1
        self.unwatched += [Unwatched(host=host, from_at=now, until_at=until_at + 1) for host in self.hosts]
        self.home.clock.move_to(until_at)
        self.home.clock.pass_machine_time(until_at - now)
        for host in self.hosts:
            self.home.wake.host(host)

    # Looking it over on the way.

    def _look_over(self) -> None:
        home, now = self.home, self.home.clock.now()
        for host in self.hosts:
            home.workers[host].is_woken = True
        home.look()
        if any(facts.unreachable_since_at == now for facts in home.facts.values()):
            # The fault may be over by the second look.
            return
        commits = self.commits
        for host in self.hosts:
            self._read(host)
        for host in self.hosts:
            home.workers[host].is_woken = True
        home.plan_task.run()
        home.look()
        new_lines = {host: self._read(host) for host in self.hosts}
        if self.commits != commits or any(new_lines.values()):
            self.problem(f"{now}: a second look at the same instant did something")
        self._compare_with_store(now)
        for reservation in people.known(self.plan):
            self._ask_why(reservation, now)

    def _read(self, host: HostId) -> int:
        """Read on in a rack's log; return how many lines are new, but those of looks that were made to fail."""
        lines = self.home.racks[host].log(self._read_to.get(host, 0))
        if lines:
            self._read_to[host] = lines[-1].seq
        return sum(line.fact("verb") != RackVerb.LOOK.value for line in lines)

    def _compare_with_store(self, now: Instant) -> None:
        """What processes keep in memory is what the database has."""
        stored, kept = self.home.store.load_plan(now=now), self.plan
        for name in ("version", "rules", "horizon_at", "reservations", "disks"):
            if getattr(stored, name) != getattr(kept, name):
                self.problem(f"{now}: the {name} in memory are not those in the database")
        if {(h.id, h.is_drained, h.mended) for h in stored.hosts.values()} != {
            (h.id, h.is_drained, h.mended) for h in kept.hosts.values()
        }:
            self.problem(f"{now}: the hosts in memory are not those in the database")
        for key, window in stored.windows.items():
            if kept.windows.get(key) != window:
                self.problem(f"{now}: window {key} in memory is not the one in the database")
        for host, facts in self.home.facts.items():
            stored_facts = forget_closed(in_order(self.home.store.load_facts(host)), kept)
            if stored_facts.vms != forget_closed(in_order(facts), kept).vms:
                self.problem(f"{now}: the facts of {host} in memory are not those in the database")

    def _ask_why(self, reservation: Reservation, now: Instant) -> None:
        facts = self.home.facts
        vms = [vm for host in sorted(facts) for vm in facts[host].vms if vm.reservation == reservation.id]
        phase = phase_of(reservation, vms, now)
        said = why(self.plan, facts, reservation, now, self.home.settings)
        if phase is not Phase.RUNNING and not said:
            self.problem(f"{now}: {reservation.id} is {phase} and nothing says why")
        for reason in said:
            if "?" in sentence(reason):
                self.problem(f"{now}: {reservation.id}: why lacks its facts: {sentence(reason)}")

    # The end of it.

    def _come_to_rest(self) -> None:
        """Give everything up, repair all, run each host as a whole once, and wait for the end of all retention."""
        home = self.home
        self._cancel_all()
        decided = home.apply_policy(people.quiet_policy())
        if not decided.is_accepted:
            self.problem(f"the quiet policy was refused: {sentence(decided.reasons[0])}")
        self._cancel_all()
        for host in self.hosts:
            self._undrain(host)
        self._use_up_faults()
        for host in self.hosts:
            self._replace_worker(host)
        for _ in range(3):
            self._run_on(2 * HOUR_S)
            self._repair()
        self._run_on(12 * HOUR_S)
        self._book_whole_hosts()
        # A disk is kept for a booking that was cut short as it would be for the whole of it.
        over_at = max((disk.until_at for disk in self.plan.disks.values()), default=home.clock.now())
        self._run_on(over_at - home.clock.now() + DAY_S)

    def _run_on(self, seconds: int) -> None:
        self.home.agenda.run_until(self.home.clock.now() + seconds)

    def _cancel_all(self) -> None:
        for reservation in people.known(self.plan):
            if reservation.outcome is None:
                self._did("cancel", self.home.do(Cancel(reservation=reservation.id), author="root", role=Role.ADMIN))

    def _use_up_faults(self) -> None:
        """Nothing more is made to fail; what fails already goes on until somebody repairs it."""
        for host, rack in self.home.racks.items():
            rack.clear_faults()
            if host in self._hung:
                # What hangs for ever is ended by nobody but an admin.
                rack.reboot(self.home.clock.now())

    def _repair(self) -> None:
        """What an admin does who reads the notices: end by hand what cannot be stopped, repair GPUs, say so."""
        for host, facts in sorted(self.home.facts.items()):
            lost = [gpu for gpu in facts.gpus if gpu.state is GpuState.QUARANTINED]
            for gpu in lost:
                self._mend_one(host, gpu.gpu)

    def _book_whole_hosts(self) -> None:
        """Every GPU of every host can be had again, and at once."""
        now = self.home.clock.now()
        booked = []
        for _ in self.hosts:
            ask = Ask(owner="last", queue="hpc", gpus=people.GPUS, run_s=HOUR_S)
            decided = self.home.do(Submit(ask=ask), author="last")
            self._did("submit", decided)
            if decided.reservation is None or not decided.is_accepted:
                said = "; ".join(sentence(reason) for reason in decided.reasons)
                self.problem(f"{now}: everything is over, and not all GPUs can be had: {said}")
                return
            booked.append(decided.reservation)
        self._run_on(2 * HOUR_S)
        for reservation in booked:
            told = self.ledger.told[reservation]
            if told.promises[0][1].start_by_at > now + HOUR_S or told.raised or told.outcome != "completed":
                self.problem(f"{reservation}: everything is over, and it was not run at once: {told}")

    def _judge(self) -> None:
        home, judged = self.home, self.judged
        logs = {host: home.racks[host].log() for host in self.hosts}
        history = History(
            until_at=home.clock.now(),
            logs=logs,
            profiles={host: home.racks[host].profile for host in self.hosts},
            ledger=self.ledger,
            unwatched=(*self.unwatched, *(gap for host in self.hosts for gap in _outages(host, logs[host]))),
            leaves=frozenset(self.leaves),
            has_faults=self.scope.has_faults,
        )
        for wrong in (*audit(history), *audit_quiet(history), *self._left_over()):
            self.problem(wrong)
        for log in logs.values():
            for line in log:
                if line.what.startswith("fault.") and line.what not in ("fault.injected", "fault.missed"):
                    judged.faults[line.what.removeprefix("fault.")] += 1
        digest = hashlib.sha256()
        for host in self.hosts:
            digest.update("\n".join(line.as_json() for line in logs[host]).encode())
        seq = 0
        while page := home.store.events(after_seq=seq, limit=5000):
            digest.update("\n".join(map(repr, page)).encode())
            if [number for number, _ in page] != sorted({number for number, _ in page}):
                self.problem("events are not numbered in order")
            judged.events += len(page)
            seq = page[-1][0]
        judged.digest = digest.hexdigest()

    def _left_over(self) -> list[str]:
        """What plan and facts still hold, although everything is over."""
        found = [f"{r.id} is not closed: {r.outcome} {r.spans}" for r in people.known(self.plan)]
        found += [f"disk {disk} is still in the plan" for disk in sorted(self.plan.disks)]
        for host, facts in sorted(self.home.facts.items()):
            found += [
                f"{host}: GPU {gpu.gpu} is {gpu.state}: {gpu.problem}" for gpu in facts.gpus if gpu.state != "clean"
            ]
            found += [f"{host}: start {vm.reservation}/{vm.generation} is left" for vm in facts.vms if not vm.is_gone]
            found += [f"{host}: {ask.verb} of {ask.subject} is still asked: {ask.detail}" for ask in facts.asked]
            found += [f"{host}: {domain.name} is still there" for domain in facts.foreign]
        return found


def _outages(host: HostId, log: tuple[LogLine, ...]) -> list[Unwatched]:
    """Return when a host did not answer, as its log has it."""
    gaps: list[Unwatched] = []
    for line in log:
        until_at = line.fact("until_at")
        if line.what in ("host.unreachable", "host.rebooted") and isinstance(until_at, int):
            gaps.append(Unwatched(host=host, from_at=line.at, until_at=until_at + 1))
    return gaps
