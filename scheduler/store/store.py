"""`Store`: everything that the rest of the program may ask of the database, one transaction for each call.

Holds which transaction a call runs in and nothing else; what it writes is in the modules beside this one. A store may
be used from several threads. Nothing is retried here: `StoreBusy` and `StalePlan` are for the caller to act on.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

from sqlalchemy import Connection

from scheduler.core.facts import HostFacts, Measurement, VmFact
from scheduler.core.intents import FiledIntent, Intent
from scheduler.core.plan import Decided, Event, Plan, PlanChange, Reservation
from scheduler.core.requests import HostId, ReservationId, Role
from scheduler.core.spans import DAY_S, Instant, Span
from scheduler.core.topology import HostProfile
from scheduler.core.use import EndedUse
from scheduler.store import commits, facts, heartbeats, intents, leases, listings, migrating, plans
from scheduler.store import events as record
from scheduler.store.accounts import Accounts
from scheduler.store.engine import Database, Durability
from scheduler.store.heartbeats import Heartbeat
from scheduler.store.intents import IntentRecord
from scheduler.store.leases import LeaseClaim
from scheduler.store.listings import AppliedPolicy
from scheduler.store.plans import PolicyRecord
from scheduler.store.tables import RESERVATION

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _KnownProfiles:
    """The profile of every host at one version of the plan; no other version may be served from it."""

    version: int
    by_host: Mapping[HostId, HostProfile]


class Store:
    """One database: intents, the plan, facts, events, leases, heartbeats; and `accounts`, who may speak."""

    def __init__(self, database: Database, profiles: Callable[[str], HostProfile]) -> None:
        self._database = database
        self._profiles = profiles
        self.accounts = Accounts(database)
        self._beaten_machine_s: dict[tuple[str, str], float] = {}
        self._known = _KnownProfiles(-1, {})
        self._peeked: dict[str, dict[Hashable, object]] = {}
        """What small reads of an in-memory database told, by the kind of row, until such rows are written."""

    def _peek(self, kind: str, key: Hashable, read: Callable[[Connection], T]) -> T:
        """Run a small read. An in-memory database is this store's alone: what it told holds until this store writes."""
        if not self._database.is_memory:
            with self._database.peeking() as connection:
                return read(connection)
        kept = self._peeked.setdefault(kind, {})
        if key not in kept:
            with self._database.peeking() as connection:
                # Inside of the turn: no writer can come in between.
                kept[key] = read(connection)
        return cast("T", kept[key])

    @contextmanager
    def _writing(self, kind: str, *changes: str) -> Iterator[Connection]:
        """Write in one transaction; `changes` are the kinds of rows whose small reads it may change."""
        try:
            with self._database.writing(kind) as connection:
                yield connection
        finally:
            # Also after a failure: it may have come after the commit.
            for changed in changes:
                self._peeked[changed] = {}

    @classmethod
    def open(
        cls,
        url: str,
        *,
        durability: Durability = "full",
        profiles: Callable[[str], HostProfile],
        on_commit: Callable[[str], None] | None = None,
    ) -> "Store":
        """Open a database; raises `SchemaTooNew` for one of a newer program. `migrate` makes the tables.

        `profiles` finds a host profile by its name. `on_commit` is called with `plan:before`, `plan:after` (and so on
        for facts, intent, event, lease and migrate) around each commit; what it raises before one rolls it back.
        """
        database = Database.open(url, durability=durability, on_commit=on_commit)
        try:
            with database.reading() as connection:
                migrating.refuse_newer(connection)
        except BaseException:
            database.close()
            raise
        return cls(database, profiles)

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def migrate(self) -> None:
        """Bring the tables up to this version of the program. May be called many times, and by many at once."""
        with self._database.writing("migrate") as connection:
            migrating.migrate(connection)

    # Intents.

    def file_intent(
        self, intent: Intent, *, at: Instant, author: str, role: Role, key: str | None = None
    ) -> tuple[FiledIntent, bool]:
        """File an intent and return it and True; or the one that already has its key, and False."""
        with self._writing("intent", "intent") as connection:
            return intents.file(self._database, connection, intent, at=at, author=author, role=role, key=key)

    def open_intents(self) -> tuple[FiledIntent, ...]:
        """Return the intents that are not decided yet, in the order in which they came."""
        return self._peek("intent", "open", intents.read_open)

    def intent(self, seq: int) -> tuple[FiledIntent, Decided | None] | None:
        """Return an intent and what became of it (None while it is open); None when no intent has this number."""
        found = self.intents([seq]).get(seq)
        return None if found is None else (found.filed, found.decided)

    def intents(self, seqs: Iterable[int]) -> Mapping[int, IntentRecord]:
        """Return intents by number, with what became of them, when, and in which version of the plan."""
        with self._database.reading() as connection:
            return intents.read(connection, seqs)

    # The plan.

    def plan_version(self) -> int:
        """Return the plan's version: one cheap query, for those who keep a plan in memory."""
        return self._peek("plan", "version", plans.version)

    def load_plan(self, now: Instant, *, past_at: Instant | None = None) -> Plan:
        """Return the plan, as one snapshot. Windows that ended by `past_at` are left out: a day ago if not given."""
        past_at = now - DAY_S if past_at is None else past_at
        with self._database.reading() as connection:
            plan = plans.load(connection, self._profiles, windows_past_at=past_at)
        self._known = _KnownProfiles(plan.version, {host.id: host.profile for host in plan.hosts.values()})
        return plan

    def commit_plan(
        self,
        base_version: int,
        change: PlanChange,
        *,
        at: Instant,
        author: str = "plan",
        lease: LeaseClaim | None = None,
    ) -> int:
        """Write a change made from the plan at `base_version`, and return the new version.

        With a `lease` it is written only if that is held, else `LeaseLost`: so converge pins.
        Raises `StalePlan` when another commit came first. Events whose key is taken are skipped.
        """
        known = self._known
        with self._writing("plan", "plan", "intent") as connection:
            if lease is not None:
                leases.need(connection, lease)
            if known.version != base_version:
                names = plans.profile_names(connection)
                known = _KnownProfiles(base_version, {host: self._profiles(name) for host, name in names.items()})
            by_host = known.by_host
            if change.hosts:
                by_host = {**by_host, **{host.id: host.profile for host in change.hosts}}
            version = commits.commit(
                self._database, connection, base_version, change, at=at, author=author, profile_by_host=by_host
            )
        self._known = _KnownProfiles(version, by_host)
        return version

    def reservation(self, reservation: ReservationId) -> Reservation | None:
        """Return one reservation, closed or not."""
        with self._database.reading() as connection:
            return next(iter(plans.read_reservations(connection, RESERVATION.c.id == reservation)), None)

    def reservations(
        self,
        *,
        owner: str | None = None,
        ids: Collection[ReservationId] | None = None,
        is_closed: bool | None = None,
        ended_since_at: Instant | None = None,
        limit: int = 200,
    ) -> tuple[Reservation, ...]:
        """Return the reservations that were submitted last and meet what is given, closed ones too, newest first.

        `ended_since_at` leaves out those that are closed and ended before.
        """
        with self._database.reading() as connection:
            return tuple(
                listings.reservations(
                    connection, owner=owner, ids=ids, is_closed=is_closed, ended_since_at=ended_since_at, limit=limit
                )
            )

    def asked_since(
        self, since_at: Instant, *, after: ReservationId | None = None, limit: int = 1000
    ) -> tuple[Reservation, ...]:
        """Return reservations submitted from an instant on, closed ones too, oldest first; only those after `after`."""
        with self._database.reading() as connection:
            return tuple(listings.asked_since(connection, since_at, after=after, limit=limit))

    def ended_uses(self, started_in: Span) -> tuple[EndedUse, ...]:
        """Return what closed reservations held that first started in a stretch of time."""
        with self._database.peeking() as connection:
            return tuple(listings.ended_uses(connection, started_in))

    def reservation_vms(self, ids: Collection[ReservationId]) -> Mapping[ReservationId, list[tuple[HostId, VmFact]]]:
        """Return every start of reservations with its host, by generation, also of those that facts have let go of.

        In the shape in which `planner.owed` counts hours. Each id is in the answer.
        """
        with self._database.reading() as connection:
            return listings.reservation_vms(connection, ids)

    def policy(self, version: int) -> PolicyRecord | None:
        """Return a policy as it was applied under this version; None when none was."""
        with self._database.peeking() as connection:
            return plans.read_policy(connection, version)

    def policies(self) -> tuple[AppliedPolicy, ...]:
        """Return all applied policy versions without their texts, newest first."""
        with self._database.peeking() as connection:
            return listings.policies(connection)

    # Facts.

    def load_facts(self, host: HostId) -> HostFacts:
        """Return what is remembered of one host; empty facts for one that was never looked at."""
        with self._database.reading() as connection:
            return facts.load(connection, host)

    def facts_revisions(self) -> Mapping[HostId, int]:
        """Return a number for each host that was ever looked at; it rises when facts that planning reads change."""
        return self._peek("facts", "revisions", facts.revisions)

    def load_all_facts(self) -> Mapping[HostId, HostFacts]:
        """Return what is remembered of every host, as one snapshot."""
        with self._database.reading() as connection:
            return facts.load_all(connection)

    def record_facts(
        self,
        host: HostId,
        token: str,
        old: HostFacts,
        new: HostFacts,
        events: Sequence[Event] = (),
        measurements: Sequence[Measurement] = (),
        *,
        now_machine_s: float,
    ) -> int | None:
        """Write the difference between two states of a host's facts, if the host's lease is held; else `LeaseLost`.

        Returns the new revision of the facts; None when nothing changed that planning reads.
        """
        if not old.host == new.host == host:
            raise ValueError(f"facts of {old.host!r} and {new.host!r} cannot be recorded for host {host!r}")
        name = leases.host_lease(host)
        with self._writing("facts", "facts") as connection:
            leases.need(connection, LeaseClaim(name=name, token=token, now_machine_s=now_machine_s))
            revision = facts.record(self._database, connection, old, new, measurements, self._profiles)
            record.append(self._database, connection, events)
        return revision

    def measurements(self, what: str, gpus: int | None = None, limit: int = 100) -> tuple[int, ...]:
        """Return how many seconds the latest of a kind took, newest first."""
        with self._database.peeking() as connection:
            return facts.took_s(connection, what, gpus=gpus, limit=limit)

    # Leases.

    def acquire_lease(self, name: str, token: str, *, now_machine_s: float, ttl_s: float) -> bool:
        """Take or renew a lease until `ttl_s` from now; False when another holds it."""
        with self._writing("lease", "lease") as connection:
            return leases.acquire(self._database, connection, name, token, now_machine_s=now_machine_s, ttl_s=ttl_s)

    def holds_lease(self, name: str, token: str, now_machine_s: float) -> bool:
        """Tell whether a token holds a lease now."""
        return self._peek(
            "lease",
            (name, token, now_machine_s),
            lambda connection: leases.holds(connection, name, token, now_machine_s=now_machine_s),
        )

    def release_lease(self, name: str, token: str) -> None:
        """Give a lease up. Does nothing when it is not ours (any more)."""
        with self._writing("lease", "lease") as connection:
            leases.release(connection, name, token)

    def release_leases_of(self, token_prefix: str) -> int:
        """Give up all leases whose tokens begin with a prefix, and return how many: their holder is known to be dead.

        End the prefix with what separates it in the token, or that of worker 1 is also that of worker 10.
        """
        with self._writing("lease", "lease") as connection:
            return leases.release_of(connection, token_prefix)

    # Heartbeats.

    def beat(self, kind: str, name: str, now_machine_s: float, detail: str = "", *, is_news: bool = False) -> bool:
        """Say that a part works. Call it as often as you like: this store writes each at most every 5 machine s.

        `is_news`: it is written at once. Returns whether it was written now.
        """
        last_s = self._beaten_machine_s.get((kind, name))
        if not is_news and last_s is not None and abs(now_machine_s - last_s) < heartbeats.BEAT_EVERY_S:
            return False
        with self._database.writing("heartbeat") as connection:
            heartbeats.write(self._database, connection, kind, name, now_machine_s=now_machine_s, detail=detail)
        self._beaten_machine_s[kind, name] = now_machine_s
        return True

    def heartbeats(self) -> tuple[Heartbeat, ...]:
        """Return every part's last heartbeat, by kind and name; those older than a day may be gone."""
        with self._database.peeking() as connection:
            return heartbeats.read(connection)

    # Events.

    def append_events(self, events: Sequence[Event]) -> None:
        """Append events to the record; those whose key is taken are skipped."""
        with self._database.writing("event") as connection:
            record.append(self._database, connection, events)

    def events(
        self,
        after_seq: int = 0,
        limit: int = 1000,
        kinds: Collection[str] | None = None,
        reservation: ReservationId | None = None,
        *,
        only_notices: bool = False,
    ) -> tuple[tuple[int, Event], ...]:
        """Return events with their numbers, oldest first. What follows the last number was committed later."""
        with self._database.peeking() as connection:
            return record.read(
                connection,
                after_seq=after_seq,
                limit=limit,
                kinds=kinds,
                reservation=reservation,
                only_notices=only_notices,
            )

    def last_event_seq(self) -> int:
        """Return the number of the newest event; 0 when there is none."""
        with self._database.peeking() as connection:
            return record.last_seq(connection)
