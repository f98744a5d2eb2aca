"""A run of recorded demand through one simulated host, and what the rack's log says became of it.

What ran is read from the rack alone; what was promised from the plan. Holds no drawing.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from cli.in_process import HostSetup, InProcess
from cli.recorded import Arrival
from policies.checks import check_policy, errors_of
from policies.format import LoadedPolicy
from policies.loading import load_policy
from policies.problems import Problem
from scheduler.core.errors import NightshiftError
from scheduler.core.intents import Submit
from scheduler.core.plan import Reservation
from scheduler.core.reasons import sentence
from scheduler.core.requests import Ask, HostId, Promise, ReservationId
from scheduler.core.spans import Instant
from scheduler.core.windows import Window, WindowId
from workers.drivers.simulated.faults import Fault, FaultKind
from workers.drivers.simulated.log import LogLine
from workers.drivers.simulated.schema import rack_path

HOST = HostId("dgx2-a")
EXAMPLE = "university.yaml"


class BadPolicy(NightshiftError):
    """A policy file with errors; the message names the first."""

    code = "policy.bad"


def load_checked_policy(path: Path | None) -> LoadedPolicy:
    """Load a policy file, or the example that ships; raises BadPolicy when it has errors."""
    if path is None:
        source, text = EXAMPLE, files("policies").joinpath("examples", EXAMPLE).read_text(encoding="utf-8")
    else:
        source = str(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadPolicy(f"cannot read policy {path}: {error}") from error
    policy = load_policy(text, source=source)
    if isinstance(policy, tuple):
        raise _bad(policy)
    problems = errors_of(check_policy(policy, from_at=0))
    if problems:
        raise _bad(problems)
    return policy


def _bad(problems: tuple[Problem, ...]) -> BadPolicy:
    more = f" (and {len(problems) - 1} more: nightshift policy check)" if len(problems) > 1 else ""
    return BadPolicy(f"{problems[0]}{more}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One stretch in which a guest was up, as the rack's log has it."""

    reservation: ReservationId
    generation: int
    partition: str
    gpus: tuple[int, ...]
    held_at: Instant
    """From here its GPUs were held."""
    up_at: Instant | None
    """The guest was up."""
    free_at: Instant | None
    """The GPUs were let go; None: at the end of the run it still ran."""
    how: str
    """Why it went off, as the host has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One reservation from asking to end."""

    id: ReservationId
    owner: str
    queue: str
    gpus: int
    run_s: int
    submitted_at: Instant
    is_by_policy: bool
    promise: Promise | None
    outcome: str
    why: str
    ran: tuple[Ran, ...]

    @property
    def started_at(self) -> Instant | None:
        return next((r.up_at for r in self.ran if r.up_at is not None), None)

    @property
    def parkings(self) -> int:
        return max(0, sum(1 for r in self.ran if r.up_at is not None) - 1)

    @property
    def blocks(self) -> tuple[str, ...]:
        return tuple(r.partition for r in self.ran if r.up_at is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run shows."""

    from_at: Instant
    until_at: Instant
    stories: tuple[Story, ...]
    windows: tuple[Window, ...]
    gpus: int
    broken: int
    """Promises that were not kept, by the rack's log."""
    seconds: float
    virtual_events: int

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain data; instants are seconds since 1970 UTC."""
        return {
            "from_at": self.from_at,
            "until_at": self.until_at,
            "reservations": [asdict(story) for story in self.stories],
            "windows": [
                {"name": w.name, "start_at": w.start_at, "end_at": w.end_at, "state": w.state.value}
                for w in self.windows
            ],
            "promises_broken": self.broken,
        }


class Simulation:
    """Demand on one simulated host under a policy."""

    def __init__(
        self,
        *,
        policy: LoadedPolicy,
        demand: tuple[Arrival, ...],
        first_at: Instant,
        seed: int,
        data: Path | None = None,
    ) -> None:
        """`data`: a directory to keep database and rack in; None: in memory."""
        self._home = InProcess(
            now=first_at,
            hosts=(HostSetup(host=HOST, profile="dgx-2", storage=HOST),),
            store_url="sqlite://" if data is None else f"sqlite:///{data / 'nightshift.sqlite3'}",
            rack_directory=None if data is None else rack_path(data, HOST).parent,
            seed=seed,
        )
        self._policy = policy
        self._demand = demand
        self._first_at = first_at
        self._needs_s: dict[ReservationId, int] = {}
        self._up: dict[ReservationId, Instant] = {}
        self._read = 0
        self._known: dict[ReservationId, Reservation] = {}
        self._windows: dict[WindowId, Window] = {}

    def run(self, until_at: Instant, moved: Callable[[Instant], None]) -> Result:
        """Run to an instant; `moved` is told the virtual time now and then."""
        home = self._home
        decided = home.apply_policy(self._policy)
        if not decided.is_accepted:
            raise BadPolicy(f"the policy was refused: {sentence(decided.reasons[0])}")
        for arrival in self._demand:
            home.agenda.at(arrival.at, partial(self._arrive, arrival))
        home.on_looked = self._follow_guests
        step_s = 15 * 60
        for now in range(self._first_at, until_at, step_s):
            home.agenda.run_until(min(now + step_s, until_at))
            moved(home.clock.now())
        result = self._result(until_at)
        home.close()
        return result

    def _arrive(self, arrival: Arrival) -> None:
        queue = next(
            (
                queue
                for layout in (self._policy.outside, *self._policy.layouts)
                for queue in sorted(layout.queues)
                if layout.admits(gpus=arrival.gpus, queue=queue)
            ),
            sorted(self._policy.outside.queues)[0],
        )
        ask = Ask(owner=arrival.owner, queue=queue, gpus=arrival.gpus, run_s=arrival.run_s)
        decided = self._home.do(Submit(ask=ask), author=arrival.owner)
        if decided.reservation is not None:
            self._needs_s[decided.reservation] = arrival.needs_s

    def _follow_guests(self) -> None:
        """Let guests power themselves off once their work is done; keep what the plan will forget."""
        plan = self._home.plan
        if plan is not None:
            self._known.update(plan.reservations)
            self._windows.update(plan.windows)
        for line in self._home.racks[HOST].log(self._read):
            self._read = line.seq
            if line.reservation is None:
                continue
            if line.what == "guest.up":
                self._up[line.reservation] = line.at
                self._enter_end_of_work(line)
            elif line.what in ("guest.down", "vm.off", "vm.vanished") and line.reservation in self._up:
                worked_s = line.at - self._up.pop(line.reservation)
                if line.reservation in self._needs_s:
                    self._needs_s[line.reservation] -= worked_s

    def _enter_end_of_work(self, line: LogLine) -> None:
        needs_s = self._needs_s.get(line.reservation or ReservationId(""))
        if needs_s is None:
            return

        def end_of_work() -> None:
            if self._up.get(line.reservation or ReservationId("")) == line.at:
                now = self._home.clock.now()
                fault = Fault(kind=FaultKind.GUEST_SHUTDOWN, subject=str(line.domain), at=now)
                self._home.racks[HOST].inject(fault)
                self._home.enter_look()

        self._home.agenda.at(line.at + max(needs_s, 60), end_of_work)

    def _result(self, until_at: Instant) -> Result:
        log = self._home.racks[HOST].log()
        ran = _ran(log)
        vms_ran: dict[ReservationId, list[Ran]] = {}
        for one in ran:
            vms_ran.setdefault(one.reservation, []).append(one)
        stories = tuple(
            _story(reservation, tuple(vms_ran.get(key, ())))
            for key, reservation in sorted(self._known.items(), key=lambda item: item[1].request.submitted_at)
            if reservation.request.submitted_at < until_at and _is_shown(reservation, until_at)
        )
        return Result(
            from_at=self._first_at,
            until_at=until_at,
            stories=stories,
            windows=tuple(w for w in sorted(self._windows.values(), key=lambda w: w.start_at) if w.start_at < until_at),
            gpus=len(self._home.racks[HOST].profile.gpus),
            broken=sum(1 for story in stories if _is_broken(story, until_at)),
            seconds=0.0,
            virtual_events=self._home.agenda.calls,
        )


def _is_shown(reservation: Reservation, until_at: Instant) -> bool:
    """A policy's reservations for later days are filed already; they are not part of this picture."""
    return reservation.request.key is None or any(s.start_at < until_at for s in reservation.spans)


def _is_broken(story: Story, until_at: Instant) -> bool:
    if story.promise is None or story.promise.start_by_at >= until_at:
        return False
    if story.started_at is None:
        return story.outcome not in ("cancelled", "stopped")
    return story.started_at > story.promise.start_by_at


def _story(reservation: Reservation, ran: tuple[Ran, ...]) -> Story:
    request = reservation.request
    return Story(
        id=request.id,
        owner=request.owner,
        queue=request.queue,
        gpus=request.gpus,
        run_s=request.run_s,
        submitted_at=request.submitted_at,
        is_by_policy=request.key is not None,
        promise=reservation.promise,
        outcome=reservation.outcome.value if reservation.outcome else "",
        why="; ".join(sentence(r) for r in reservation.reasons),
        ran=ran,
    )


def _ran(log: tuple[LogLine, ...]) -> list[Ran]:
    """Read from the log who held which GPUs when."""
    open_by_domain: dict[str, Ran] = {}
    done: list[Ran] = []
    for line in log:
        if line.domain is None or line.reservation is None or line.generation is None:
            continue
        key = str(line.domain)
        if line.what == "vm.starting":
            open_by_domain[key] = Ran(
                reservation=line.reservation,
                generation=line.generation,
                partition=str(line.partition),
                gpus=line.gpus,
                held_at=line.at,
                up_at=None,
                free_at=None,
                how="",
            )
        elif line.what == "guest.up" and key in open_by_domain:
            open_by_domain[key] = replace(open_by_domain[key], up_at=line.at)
        elif line.what in ("vm.off", "vm.vanished") and key in open_by_domain:
            how = str(line.fact("reason") or line.what)
            done.append(replace(open_by_domain.pop(key), free_at=line.at, how=how))
    return sorted((*done, *open_by_domain.values()), key=lambda r: (r.held_at, r.reservation))
