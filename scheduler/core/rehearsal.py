"""The rehearsal: demand through the planner in simulated time, with hosts on which everything goes well.

The same `step` that plans for the product is taken at every instant at which something comes, ends or is due; what
starts, boots, is parked and shuts itself down in between is played here, as facts. What is not rehearsed: faults,
people who cancel or extend, and disks that are on a host for good.

Pure, and the same to the byte each time. Costs a step of the plan for each request that comes and each that ends.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from heapq import heappop, heappush

from scheduler.core.calendar.likely import Likely
from scheduler.core.converging.desired import run_end_at
from scheduler.core.facts import HostFacts, VmEnd, VmFact
from scheduler.core.intents import FiledIntent, Intent, Submit
from scheduler.core.plan import Outcome, Plan, PlanChange, Reservation, apply, pinned
from scheduler.core.planner.memory import Memory
from scheduler.core.planner.step import step
from scheduler.core.reasons import Reason
from scheduler.core.rehearsed_use import RehearsedUse
from scheduler.core.requests import Ask, HostId, Promise, ReservationId, Role
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, FOREVER, MINUTE_S, Instant
from scheduler.core.topology import HostProfile
from scheduler.core.windows import Window, WindowId, WindowState


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """One request that will be made."""

    at: Instant
    ask: Ask
    used_s: int
    """How long its guest has work for; then it shuts itself down."""
    role: Role = Role.STUDENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One stretch in which a guest was up."""

    host: HostId
    mask: int
    """Its GPUs."""
    held_at: Instant
    """From here its GPUs were its own."""
    up_at: Instant
    off_at: Instant


@dataclass(slots=True, kw_only=True)
class Story:
    """What became of one request."""

    demand: Demand
    key: str | None = None
    """Under which a policy filed it; None: a person asked for it."""
    is_awaited: bool = True
    """The rehearsal goes on until it is over."""
    reservation: ReservationId | None = None
    promise: Promise | None = None
    """What it was told first."""
    likely_at: Instant | None = None
    reasons: tuple[Reason, ...] = ()
    """Why it was refused."""
    ran: list[Ran] = field(default_factory=list)
    outcome: Outcome | None = None
    ended_at: Instant | None = None
    times_put_off: int = 0
    """How often its promise was raised."""

    @property
    def wanted_at(self) -> Instant:
        """When it could have started: its wait counts from here."""
        return max(self.demand.at, self.demand.ask.not_before_at or 0)

    @property
    def started_at(self) -> Instant | None:
        return self.ran[0].up_at if self.ran else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long things take on the hosts, within their bounds."""

    start_share: float = 1 / 3
    """Of the bound of a start."""
    stop_s: int = 30
    """How long a guest takes to shut down; never longer than its grace."""
    reset_s: int = 5

    def start_s(self, profile: HostProfile, gpus: int) -> int:
        return round(self.start_share * profile.bounds.start_s(gpus))

    def free_s(self, profile: HostProfile) -> int:
        """Return how long after a guest is off its GPUs are handed over."""
        return min(self.reset_s, profile.bounds.reset_s)


LOOK_AFTER_DISKS_S = 15 * MINUTE_S
"""So often it is looked whether the retention of disks is over: many end on the same day."""

NOBODY = ReservationId("")


class _What(IntEnum):
    """What is due, in the order in which it happens at one instant."""

    OFF = 0
    UP = 1
    DONE = 2
    EDGE = 3
    LOOK = 4


@dataclass(slots=True)
class _Guest:
    """A VM that holds GPUs."""

    story: Story
    host: HostId
    vm: VmFact
    mask: int
    work_left_s: int
    off_at: Instant | None = None
    """When it will be off, once that is certain."""


Filings = Callable[[Plan, Instant], tuple[Sequence[FiledIntent], Instant]]
"""What the clock files at an instant, given the plan, and when to ask next."""


class Rehearsal:
    """One run. `run` may be called once."""

    def __init__(
        self,
        plan: Plan,
        demand: Sequence[Demand],
        *,
        at: Instant,
        settings: Settings,
        profiles: Callable[[str], HostProfile],
        filings: Filings | None = None,
        pace: Pace | None = None,
        whole_until_at: Instant = 0,
        may_be_compiled: bool = True,
    ) -> None:
        """`plan`: hosts and a policy, with nobody on them. `demand`: what will be asked for, in order of time.

        `filings`: what the policy files as time goes on; asked whenever it says so. `whole_until_at`: the rehearsal
        goes on at least until then, and what the policy reserves before then is awaited too.
        """
        self.stories = [Story(demand=one) for one in demand]
        self.now = at
        self.steps = 0
        self.policys: list[Story] = []
        """What the policy reserved itself, or tried to."""
        self.opened: dict[WindowId, Window] = {}
        """Windows that opened, each on one host."""
        self.given_back: dict[WindowId, Window] = {}
        """Windows that did not open."""
        self._settings = settings
        self._profiles = profiles
        self._filings = filings
        self._filings_at = at if filings is not None else FOREVER
        self._pace = pace or Pace()
        self._plan = plan
        self._facts: dict[HostId, HostFacts] = {}
        self._kept = Memory(may_be_compiled=may_be_compiled)
        self._likely = Likely()
        self._use = RehearsedUse()
        self._whole_until_at = whole_until_at
        self._left = len(self.stories)
        """Of what is awaited, what has not come to its end yet."""
        self._tidied_at = at
        self._seq = 0
        self._due: list[tuple[Instant, _What, ReservationId, int]] = []
        self._stories: dict[ReservationId, Story] = {}
        self._guests: dict[ReservationId, _Guest] = {}
        self._begun: dict[ReservationId, None] = {}
        """Whose span has begun, and whose guest has not been started yet."""
        self._worked_s: dict[ReservationId, int] = {}
        self._edges: dict[ReservationId, Instant] = {}
        """When it is next looked whether a span of one that waits or is parked has begun."""
        self._held: dict[HostId, int] = {}
        """GPUs that a guest holds."""

    @property
    def plan(self) -> Plan:
        """The plan as it is now."""
        return self._plan

    def run(self, until_at: Instant = FOREVER, *, moved: Callable[[int], None] | None = None) -> Plan:
        """Live until all that was asked for is over, or until an instant; return the plan as it is then.

        `moved` is told now and then how many requests were made.
        """
        self._look_at(self._plan.windows.values())
        count, number = len(self.stories), 0
        while True:
            coming_at = self.stories[number].demand.at if number < count else FOREVER
            next_at = min(self._due[0][0] if self._due else FOREVER, coming_at)
            if next_at == FOREVER and self.now >= self._whole_until_at:
                break
            next_at = max(self.now, min(next_at, self._filings_at))
            if next_at == FOREVER or next_at > until_at:
                break
            self.now = next_at
            is_due = self._live()
            filed: list[FiledIntent] = []
            told: list[Story | None] = []
            if self._filings is not None and self.now >= self._filings_at:
                more, self._filings_at = self._filings(self._plan, self.now)
                for intent in more:
                    filed.append(replace(self._filed(intent.intent, intent.author, intent.role), key=intent.key))
                    told.append(self._policys_story(intent))
            while number < count and self.stories[number].demand.at <= self.now:
                story = self.stories[number]
                demand = story.demand
                filed.append(self._filed(Submit(ask=demand.ask), demand.ask.owner, demand.role))
                told.append(story)
                number += 1
            if filed or is_due:
                self._step(filed, told)
            else:
                self._start_begun()
            if filed and moved is not None:
                moved(number)
            if number == count and not self._left and self.now >= self._whole_until_at:
                break
        return self._plan

    def _tidy(self) -> None:
        """Once a day, when windows change anyway, let go of those that ended a day ago, as loading the plan does."""
        if self.now < self._tidied_at + DAY_S:
            return
        self._tidied_at = self.now
        windows = {key: window for key, window in self._plan.windows.items() if window.end_at > self.now - DAY_S}
        if len(windows) < len(self._plan.windows):
            self._plan = replace(self._plan, windows=windows)

    def _policys_story(self, filed: FiledIntent) -> Story | None:
        """Return the story of a reservation that the policy asks for; it stays for as long as it asks for."""
        if not isinstance(filed.intent, Submit):
            return None
        ask = filed.intent.ask
        demand = Demand(at=self.now, ask=ask, used_s=ask.run_s, role=Role.POLICY)
        is_awaited = max(self.now, ask.not_before_at or 0) < self._whole_until_at
        story = Story(demand=demand, key=filed.key, is_awaited=is_awaited)
        self._left += is_awaited
        self.policys.append(story)
        return story

    def _filed(self, intent: Intent, author: str, role: Role) -> FiledIntent:
        self._seq += 1
        return FiledIntent(seq=self._seq, at=self.now, author=author, role=role, intent=intent)

    # ---- planning

    def _step(self, filed: Sequence[FiledIntent], told: Sequence[Story | None]) -> None:
        """Plan once; `told` are the stories that intents belong to, one for each, None for what is no request."""
        self.steps += 1
        plan = self._plan
        change = step(
            plan,
            filed,
            self._facts,
            self.now,
            settings=self._settings,
            profiles=self._profiles,
            likely_wait_s=self._likely.wait_s,
            used_gpu_s=self._use.used_gpu_s,
            ended_uses=self._use.ended_uses,
            kept=self._kept,
            # Nobody reads that here.
            says_instead=False,
        )
        if not change.is_empty:
            self._plan = self._kept.plan_after
            self._take_note(change, told)
            if change.windows:
                self._tidy()
        self._start_begun()

    def _take_note(self, change: PlanChange, told: Sequence[Story | None]) -> None:
        for decided, story in zip(change.decided, told, strict=True):
            if story is None:
                continue
            assert decided.reservation is not None
            story.reservation, story.reasons = decided.reservation, decided.reasons
            self._stories[decided.reservation] = story
        for reservation in change.reservations:
            self._follow(reservation)
            if reservation.is_closed:
                self._use.is_closed(reservation, self.now)
        for window in change.windows:
            if window.state is WindowState.OPEN:
                self.opened[window.id] = window
            elif window.state is WindowState.RELEASED and window.id not in self.opened:
                self.given_back[window.id] = window
        for told_event in change.events:
            story = self._stories.get(told_event.reservation) if told_event.reservation else None
            if story is None or story.reservation is None:
                continue
            if told_event.kind == "reservation.promised":
                facts = dict(told_event.facts)
                likely_at = facts["likely_at"]
                assert isinstance(likely_at, int)
                story.likely_at = likely_at
                story.promise = self._plan.reservations[story.reservation].promise
            elif told_event.kind == "promise.raised":
                story.times_put_off += 1
        self._look_at(change.windows)
        for disk in change.disks:
            heappush(self._due, (-(-disk.until_at // LOOK_AFTER_DISKS_S) * LOOK_AFTER_DISKS_S, _What.LOOK, NOBODY, 0))

    def _look_at(self, windows: Iterable[Window]) -> None:
        """Look when windows are to be decided, begin and end."""
        for window in windows:
            if window.state is WindowState.PLANNED:
                heappush(self._due, (max(window.decide_at, self.now), _What.LOOK, NOBODY, 0))
            heappush(self._due, (window.start_at, _What.LOOK, NOBODY, 0))
            heappush(self._due, (window.end_at, _What.LOOK, NOBODY, 0))

    def _follow(self, reservation: Reservation) -> None:
        """Take note of where a reservation is booked now, and of its end."""
        key = reservation.request.id
        guest = self._guests.get(key)
        if reservation.outcome is not None:
            self._begun.pop(key, None)
            story = self._stories.get(key)
            if story is not None and story.outcome is None:
                story.outcome, story.ended_at = reservation.outcome, reservation.ended_at
                self._left -= story.is_awaited
            if guest is not None and guest.off_at is None:
                self._stop(guest)
            return
        for span in reservation.spans:
            if span.generation is not None:
                if guest is not None and span.generation == guest.vm.generation:
                    end_at = run_end_at(reservation, span)
                    heappush(self._due, (end_at, _What.EDGE, key, guest.vm.generation))
            elif span.start_at <= self.now < span.end_at:
                self._begun[key] = None
        self._look_at_next_span(reservation)

    def _look_at_next_span(self, reservation: Reservation) -> None:
        """Look when the next span of one begins; who is put later meanwhile is looked at once in vain."""
        key = reservation.id
        ahead = [span.start_at for span in reservation.spans if span.generation is None and span.start_at > self.now]
        if ahead and min(ahead) < self._edges.get(key, FOREVER):
            self._edges[key] = min(ahead)
            heappush(self._due, (min(ahead), _What.EDGE, key, -1))

    # ---- hosts

    def _live(self) -> bool:
        """Let happen on the hosts what is due; return whether there may be something to plan for it."""
        is_due = False
        while self._due and self._due[0][0] <= self.now:
            at, what, key, generation = heappop(self._due)
            if what is _What.EDGE and generation == -1:
                if self._edges.get(key) == at:
                    del self._edges[key]
                    reservation = self._plan.reservations.get(key)
                    if reservation is not None and reservation.outcome is None:
                        span = reservation.span_at(self.now)
                        if span is not None and not span.is_pinned:
                            self._begun[key] = None
                        self._look_at_next_span(reservation)
                continue
            if what is _What.LOOK:
                is_due = True
                continue
            guest = self._guests.get(key)
            if guest is None or guest.vm.generation != generation:
                continue
            if what is _What.UP:
                is_due = True
                self._put(guest, replace(guest.vm, up_at=at, running_at=at))
                self._use.runs(guest.story.demand.ask.owner, guest.story.demand.ask.gpus, at)
                heappush(self._due, (at + guest.work_left_s, _What.DONE, key, generation))
            elif what is _What.DONE and guest.off_at is None:
                # It is over for the plan after a grace, for which it looks again.
                is_due = is_due or not self._settings.self_shutdown_ends_after_s
                self._off(guest, at, VmEnd.SELF_SHUTDOWN)
            elif what is _What.EDGE and guest.off_at is None:
                reservation = self._plan.reservations[key]
                span = reservation.span_of(generation)
                assert span is not None
                is_due = True
                if run_end_at(reservation, span) <= self.now:
                    self._stop(guest)
            elif what is _What.OFF:
                if guest.vm.off_at is None:
                    is_due = True
                    self._off(guest, at, VmEnd.STOPPED)
                else:
                    self._let_go(guest)
        return is_due

    def _start_begun(self) -> None:
        """Start guests whose span has begun, where the GPUs are free; resumes first, then the largest."""
        if not self._begun:
            return
        ready = []
        for key in list(self._begun):
            reservation = self._plan.reservations.get(key)
            span = None if reservation is None or reservation.outcome is not None else reservation.span_at(self.now)
            if reservation is None or span is None or span.is_pinned:
                del self._begun[key]
                continue
            ready.append((reservation.generation == 0, -reservation.request.gpus, reservation, span))
        ready.sort(key=lambda item: item[:2])
        started: list[Reservation] = []
        for _, _, reservation, span in ready:
            key = reservation.id
            profile = self._plan.hosts[span.host].profile
            mask = profile.partition(span.partition).mask
            if self._held.get(span.host, 0) & mask or key in self._guests:
                continue
            del self._begun[key]
            self._held[span.host] = self._held.get(span.host, 0) | mask
            reservation = pinned(reservation, self.now)
            started.append(reservation)
            self._start(reservation, span.host, profile, mask)
        if started:
            self._plan = apply(self._plan, PlanChange(reservations=tuple(started)))
            for reservation in started:
                self._follow(reservation)

    def _start(self, reservation: Reservation, host: HostId, profile: HostProfile, mask: int) -> None:
        key, generation = reservation.id, reservation.generation
        span = reservation.span_at(self.now)
        assert span is not None
        up_at = self.now + self._pace.start_s(profile, reservation.request.gpus)
        running_at = up_at if up_at == self.now else None
        vm = VmFact(
            reservation=key,
            generation=generation,
            partition=span.partition,
            asked_at=self.now,
            up_at=running_at,
            running_at=running_at,
        )
        story = self._stories[key]
        left_s = story.demand.used_s - self._worked_s.get(key, 0)
        self._guests[key] = _Guest(story, host, vm, mask, left_s)
        facts = self._facts.get(host) or HostFacts(host=host)
        self._facts[host] = replace(facts, vms=(*facts.vms, vm))
        if running_at is None:
            heappush(self._due, (up_at, _What.UP, key, generation))
        else:
            self._use.runs(story.demand.ask.owner, story.demand.ask.gpus, up_at)
            heappush(self._due, (up_at + left_s, _What.DONE, key, generation))
        if story.promise is not None and not story.ran:
            told_s = story.promise.start_by_at - story.wanted_at
            self._likely.learn(reservation.request.gpus, told_s, up_at - story.wanted_at)
        story.ran.append(Ran(host=host, mask=mask, held_at=self.now, up_at=up_at, off_at=up_at))

    def _stop(self, guest: _Guest) -> None:
        """Ask a guest to shut down."""
        assert self._plan.rules is not None
        guest.off_at = self.now + min(self._pace.stop_s, self._plan.rules.grace_s)
        self._put(guest, replace(guest.vm, stop_asked_at=self.now))
        if guest.off_at == self.now:
            self._off(guest, self.now, VmEnd.STOPPED)
        else:
            heappush(self._due, (guest.off_at, _What.OFF, guest.vm.reservation, guest.vm.generation))

    def _off(self, guest: _Guest, at: Instant, how: VmEnd) -> None:
        guest.off_at = at
        self._put(guest, replace(guest.vm, off_at=at, end=how))
        key = guest.vm.reservation
        if guest.vm.running_at is not None:
            since_at, ask = guest.vm.running_at, guest.story.demand.ask
            self._worked_s[key] = self._worked_s.get(key, 0) + at - since_at
            self._use.is_off(ask.owner, ask.gpus, since_at=since_at, at=at)
        guest.story.ran[-1] = replace(guest.story.ran[-1], off_at=max(at, guest.story.ran[-1].up_at))
        free_s = self._pace.free_s(self._plan.hosts[guest.host].profile)
        if free_s:
            heappush(self._due, (at + free_s, _What.OFF, key, guest.vm.generation))
        else:
            self._let_go(guest)
        if how is VmEnd.SELF_SHUTDOWN and self._settings.self_shutdown_ends_after_s:
            ends_at = at + self._settings.self_shutdown_ends_after_s
            heappush(self._due, (ends_at, _What.LOOK, key, guest.vm.generation))

    def _let_go(self, guest: _Guest) -> None:
        """The GPUs of a guest are handed over, and it is gone from its host."""
        self._put(guest, replace(guest.vm, is_gone=True))
        self._held[guest.host] &= ~guest.mask
        del self._guests[guest.vm.reservation]

    def _put(self, guest: _Guest, vm: VmFact) -> None:
        """Set the fact of a guest; what is gone, and of which the plan knows nothing any more, is forgotten."""
        facts, old = self._facts[guest.host], guest.vm
        known = self._plan.reservations
        vms = [
            vm if one is old else one
            for one in facts.vms
            if not one.is_gone or (one.reservation in known and known[one.reservation].outcome is None)
        ]
        guest.vm = vm
        self._facts[guest.host] = replace(facts, vms=tuple(vms))
