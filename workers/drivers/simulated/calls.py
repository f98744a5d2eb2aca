"""How a verb is called on a simulated host: one transaction, the fault script, refusals, and blocking.

Every verb goes through `ask` or `block`. Both let what came due happen first, then meet the fault script, then act. A
refusal is committed with its log line before it is raised: what the host did stands, whoever hears of it.

A blocking verb enters its end as an instant in the rack, commits, sleeps outside of any transaction until then, and
only then looks at how it came out. A process killed while it sleeps changes nothing on the host. That last look is
undone afterwards: in virtual time a sleeper is ahead of everybody else, and must not drag the rack along.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from scheduler.core.requests import HostId
from scheduler.core.spans import FOREVER, Instant
from scheduler.core.topology import HostProfile
from scheduler.service.ports import Clock
from workers.drivers.simulated import faults, words
from workers.drivers.simulated.clockwork import advance, next_due_at
from workers.drivers.simulated.faults import Fault, FaultKind, RackVerb
from workers.drivers.simulated.schema import RackFile
from workers.drivers.simulated.state import Due, RackState
from workers.ports import DriverError

_ASKING = frozenset({RackVerb.ASK_SHUTDOWN, RackVerb.ASK_RESET, RackVerb.WARN})
"""A hanging host takes these and forgets them. On other verbs that do not block, the connection breaks."""


@dataclass(slots=True)
class Call:
    """What a verb is handed: the rack's state, and what the fault script wants of this call."""

    state: RackState
    verb: RackVerb
    is_half: bool = False
    """Do a part of the work, then raise."""
    is_lie: bool = False
    """Do nothing and return as if done."""
    is_deaf: bool = False
    """The guest ignores the ACPI button from now on."""
    hangs_until: Instant | None = None

    def ends_at(self, takes_s: int) -> Instant:
        """Return when a blocking verb begun now will end."""
        return self.state.now + takes_s if self.hangs_until is None else max(self.state.now, self.hangs_until)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Calls verbs on one host."""

    file: RackFile
    clock: Clock
    host: HostId
    seed: int
    profile: HostProfile

    def ask(self, verb: RackVerb, subjects: tuple[str, ...], act: Callable[[Call], None]) -> None:
        """Call a verb that does not block."""

        def act_at_once(call: Call) -> None:
            if call.hangs_until is None:
                act(call)
            elif verb not in _ASKING:
                raise words.silent_host(self.host)

        self._transact(verb, subjects, act_at_once)

    def block(
        self,
        verb: RackVerb,
        subjects: tuple[str, ...],
        act: Callable[[Call], Instant | None],
        *,
        timeout_s: int,
        check: Callable[[RackState], None],
    ) -> None:
        """Call a verb that blocks until the instant which `act` returns; None: it is done already.

        `check` raises DriverError if at that instant the rack does not show what was asked for.
        """
        limit_at = self.clock.now() + timeout_s
        done_at, boots = self._transact(verb, subjects, act)
        if done_at is None:
            return
        self.clock.sleep_until(min(done_at, limit_at))
        if done_at > limit_at:
            raise words.timed_out(verb.value, subjects[0], timeout_s)
        with self.file.trying() as connection:
            state = self.state(connection)
            advance(state, max(done_at, self.clock.now()))
            if boots_of(connection) != boots or state.unreachable_until():
                raise words.connection_lost(self.host)
            check(state)

    def state(self, connection: sqlite3.Connection) -> RackState:
        """Return a transaction's view, at the clock's instant; what came due has not happened in it yet."""
        return RackState(
            connection=connection, now=self.clock.now(), host=self.host, seed=self.seed, profile=self.profile
        )

    def let_pass(self) -> None:
        """Let what came due happen; costs one read if nothing did."""
        now = self.clock.now()
        with self.file.reading() as connection:
            due_at = next_due_at(self.state(connection))
        if due_at is not None and due_at <= now:
            with self.file.writing() as connection:
                advance(self.state(connection), now)

    @contextmanager
    def beside(self, now: Instant) -> Iterator[RackState]:
        """Run a transaction of somebody who stands beside the host: no fault falls on it, no outage stops it."""
        with self.file.writing() as connection:
            state = self.state(connection)
            advance(state, now)
            yield state

    def _transact(
        self, verb: RackVerb, subjects: tuple[str, ...], act: Callable[[Call], Instant | None]
    ) -> tuple[Instant | None, int]:
        """Run one verb's transaction; return when it will have ended, and how often the host had booted."""
        refusal: DriverError | None = None
        done_at: Instant | None = None
        with self.file.writing() as connection:
            state = self.state(connection)
            advance(state, state.now)
            boots = boots_of(connection)
            until_at = state.unreachable_until()
            if until_at:
                refusal = words.unreachable(self.host, until_at)
            else:
                try:
                    call = self._call(state, verb, subjects)
                    done_at = None if call.is_lie else act(call)
                except DriverError as error:
                    refusal = error
                    state.log(
                        "verb.refused", verb=verb.value, subject=subjects[0], code=error.code, message=error.message
                    )
        if refusal is not None:
            raise refusal
        return done_at, boots

    def _call(self, state: RackState, verb: RackVerb, subjects: tuple[str, ...]) -> Call:
        """Meet the fault script; raises what a `fail` says."""
        call = Call(state=state, verb=verb)
        failure: DriverError | None = None
        domain = state.domain(subjects[0])
        names = subjects if domain is None else (*subjects, *domain.subjects)
        for fault in faults.take(state.connection, verb, names):
            state.log(f"fault.{fault.kind}", fault=fault.id, verb=verb.value, subject=subjects[0])
            kind = FaultKind(fault.kind)
            match kind:
                case FaultKind.FAIL:
                    failure = words.failed(verb.value, subjects[0], fault.message)
                case FaultKind.HANG:
                    call.hangs_until = FOREVER if fault.until_at is None else fault.until_at
                case FaultKind.ACT_HALF:
                    call.is_half = True
                case FaultKind.LIE:
                    call.is_lie = True
                case FaultKind.IGNORE_SHUTDOWN:
                    call.is_deaf = True
                case _:
                    _follow(state, fault, subjects[0])
        if failure is not None:
            raise failure
        return call


def _follow(state: RackState, fault: faults.Pending, subject: str) -> None:
    """Let a happening follow a call."""
    at = state.now + (fault.after_s or 0)
    happening = Fault(
        kind=FaultKind(fault.kind),
        subject=fault.subject if fault.kind == FaultKind.FOREIGN else subject,
        at=at,
        until_at=fault.until_at,
        gpus=tuple(int(gpu) for gpu in fault.gpus.split(",") if gpu),
    )
    state.due(at, Due.FAULT, str(faults.insert(state.connection, happening)))


def boots_of(connection: sqlite3.Connection) -> int:
    """Return how often the host has booted."""
    (boots,) = connection.execute("SELECT boots FROM host").fetchone()
    return int(boots)
