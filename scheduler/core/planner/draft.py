"""The workspace of one planning step: the plan as it is being changed, with its calendar.

A step reads the plan and the facts, changes rows here, and takes the whole as one `PlanChange`. Holds the book-keeping
only (rows, calendar, events, undo); what to change is decided in `booking`, `settling` and `step`.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from scheduler.core.bounds import lead_s, longest_grace_s
from scheduler.core.facts import HostFacts, VmFact
from scheduler.core.plan import (
    BookedSpan,
    Decided,
    Event,
    Host,
    Plan,
    PlanChange,
    PolicyNote,
    Reservation,
    Rules,
)
from scheduler.core.planner.board import Board
from scheduler.core.planner.freed import Left
from scheduler.core.planner.host_book import HostBook
from scheduler.core.planner.late_stops import late_stops
from scheduler.core.planner.memory import Memory, Openings
from scheduler.core.planner.rows import DiskRows
from scheduler.core.planner.window_book import WindowBook
from scheduler.core.reasons import Fact
from scheduler.core.requests import AtBoundary, DiskId, HostId, ReservationId, by_number
from scheduler.core.settings import Settings
from scheduler.core.spans import FOREVER, MINUTE_S, Instant, Span
from scheduler.core.topology import HostProfile, Partition, mask_of
from scheduler.core.use import EndedUse
from scheduler.core.windows import Stretches, Window, WindowId, stretches

K = TypeVar("K")
V = TypeVar("V")

LikelyWait = Callable[[int, int], int]
UsedGpus = Callable[[str, int, Instant], float]
EndedUses = Callable[[Span], Iterable[EndedUse]]

WAIT_FOR_LOOK_S = MINUTE_S
"""So long after a standstill a host is waited for to be looked at, before starts on it are judged by older facts."""


class Draft:
    """The plan of one step. Not thread-safe, never kept."""

    def __init__(
        self,
        plan: Plan,
        facts: Mapping[HostId, HostFacts],
        now: Instant,
        settings: Settings,
        *,
        awake_since_at: Instant | None = None,
        likely_wait_s: LikelyWait | None = None,
        used_gpu_s: UsedGpus | None = None,
        ended_uses: EndedUses | None = None,
        memory: Memory | None = None,
    ) -> None:
        """`awake_since_at`: since when planning goes on without a standstill; None: for as long as anybody knows.

        `likely_wait_s`: the wait that is likely for a size in GPUs and a wait told, in seconds; None: as long as told.
        `used_gpu_s`: how much an owner has used by now, with a half-life in seconds; None: nobody anything.
        `ended_uses`: what those held that started in a week and are not in the plan any more; None: nobody anything.
        `memory`: what earlier steps left; it is followed to this plan, and changed. None: of nothing.
        """
        self.likely_wait_s = likely_wait_s
        self.used_gpu_s = used_gpu_s
        self.ended_uses = ended_uses
        self._planned_by_owner: dict[str, list[ReservationId]] | None = None
        self.plan = plan
        self.facts = facts
        self.now = now
        self.settings = settings
        self.is_just_awake = awake_since_at is not None and now < awake_since_at + WAIT_FOR_LOOK_S
        """Time has stood still for us; whoever looks at hosts will do so soon."""
        self.rules: Rules | None = plan.rules
        self.horizon_at = plan.horizon_at
        self.memory = Memory() if memory is None else memory
        self.memory.begin(plan, facts, now)
        self._window_book: WindowBook | None = self.memory.window_book(plan)
        # In one order, however the plan was read: equal plans give equal changes.
        self._host_book: HostBook | None = self.memory.host_book(plan)
        self.hosts: dict[HostId, Host] = self._host_book.by_id
        self._are_hosts_ours = False
        """Whether `hosts` is a copy that may be written to."""
        self.windows: dict[WindowId, Window] = self._window_book.by_id
        self._are_windows_ours = False
        """Whether `windows` is a copy that may be written to."""
        self.reservations = self.memory.reservations(plan)
        self.disks: DiskRows = self.memory.disks(plan)
        self._live = self.memory.live()
        self._round = 0, 0, 0
        self.touched: set[ReservationId] = set()
        """Reservations that were changed since somebody has looked at these."""
        self.decided: list[Decided] = []
        self.events: list[Event] = []
        self.new_rules: Rules | None = None
        self.policy_text: str | None = None
        self.policy_note: PolicyNote | None = None
        self.is_room_freed = False
        """Something ended or left: whoever is booked later may move earlier."""
        self.are_all_to_be_tried = False
        """Something ended or left: whoever waits may start now."""
        self.put_late = self.tried_late = 0
        """How many that wait were put late in this step, and how many were looked at for it."""
        self.silent_hosts = frozenset([host for host in self.memory.facts.silent_hosts if host in plan.hosts])
        """Hosts that do not answer now."""
        self._are_begins_stale = True
        self.begins: tuple[tuple[HostId, Hashable], ...] = ()
        """What keeps sets of some hosts from being booked, or for a while; after `ready_board`."""
        self._stretches, self.openings = self.memory.stretches(self._window_book, self.rules, self.horizon_at)
        self.crossed: dict[Hashable, bool] = {}
        """Of which shapes of requests it was looked whether the policy's own reservations stand in their way."""
        self._leads_s: dict[tuple[int, int], int] = {}
        self._grace_s: int | None = None
        """The longest grace that anybody may be given."""
        self._mask_out: dict[HostId, int] = {}
        self._trouble: tuple[object, ...] | None = None
        self._scratch: dict[str, bool] = {}
        self._late_stops: dict[HostId, tuple[tuple[int, Instant], ...]] = {}
        self._windows_of: dict[HostId, tuple[Window, ...]] = {}
        self._of_a_kind: dict[str | None, tuple[HostId, ...]] = {}
        self._window_writes = 0
        self._windows_written: set[WindowId] = set()
        self.settled = self.memory.settled
        self._freed_mark = 0
        self.board = self._make_board() if self.memory.board is None else self.memory.board
        self.board.set_silent_hosts(self.silent_hosts)

    def _make_board(self) -> Board:
        first = min((by_number(key)[0] for key in self.reservations), default=0)
        board = Board(self.hosts.values(), self.now, first_number=first, may_be_compiled=self.memory.may_be_compiled)
        for reservation in self.reservations.values():
            board.doubt(reservation.id)
            for span in reservation.spans:
                board.book(reservation.id, span)
        return board

    def ready_board(self) -> Board:
        """Return the board, with what may be booked from when on as it is now."""
        if self._are_begins_stale and self.rules is not None:
            self._are_begins_stale = False
            self.begins = ()
            marked = self.memory.facts.marked_hosts | self.host_book.drained
            for host in sorted((marked & self.hosts.keys()) | self.board.hosts_with_begins):
                by: Hashable = self.hosts[host].is_drained, self.mask_out(host), self.late_stops_on(host)
                if by == (False, 0, ()):
                    by = None
                else:
                    self.begins += ((host, by),)
                self.board.set_begins(host, by, partial(self._begin_at, self.hosts[host]))
        return self.board

    def _begin_at(self, host: Host) -> Callable[[int], Instant]:
        out, late = self.mask_out(host.id), self.late_stops_on(host.id)

        def begin_at(mask: int) -> Instant:
            if host.is_drained or mask & out:
                return FOREVER
            return max((at for others, at in late if mask & others), default=0)

        return begin_at

    # Reading.

    @property
    def policy_version(self) -> int:
        """The version of the policy that is applied; 0 before any is."""
        return self.rules.version if self.rules is not None else 0

    def windows_of(self, host: HostId) -> tuple[Window, ...]:
        """Return a host's windows that are not over, sorted by start."""
        if host not in self._windows_of:
            mine = self.window_book.by_host.get(host, ())
            self._windows_of[host] = tuple([window for window in mine if window.end_at > self.now])
        return self._windows_of[host]

    @property
    def host_book(self) -> HostBook:
        """The hosts as they are now, looked up."""
        if self._host_book is None:
            self._are_hosts_ours = False
            self._host_book = HostBook(self.hosts)
        return self._host_book

    @property
    def window_book(self) -> WindowBook:
        """The windows as they are now, looked up."""
        if self._window_book is None:
            self._window_book = WindowBook(self.share_windows())
        return self._window_book

    def stretches_of(
        self, host: HostId, *, gpus: int, queue: str, at_boundary: AtBoundary, with_gifts: bool
    ) -> Stretches:
        """Return the stretches from now to the horizon in which such a request may run on a host.

        Hosts with the same windows have the very same ones.
        """
        host = self.window_book.like(host)
        key = (host, gpus, queue, at_boundary, with_gifts)
        if key not in self._stretches:
            assert self.rules is not None
            self._stretches[key] = (
                Stretches(iter(()))
                if self.horizon_at <= self.now
                else Stretches(
                    stretches(
                        self.windows_of(host),
                        outside=self.rules.outside,
                        gpus=gpus,
                        queue=queue,
                        at_boundary=at_boundary,
                        from_at=self.now,
                        until_at=self.horizon_at,
                        with_gifts=with_gifts,
                    )
                )
            )
        self._stretches[key].advance(self.now)
        return self._stretches[key]

    def hosts_of_a_kind(self, storage: str | None = None) -> Iterable[HostId]:
        """Return one host of all those that have the same windows, of all or those that reach a storage.

        Others have the same stretches.
        """
        if storage not in self._of_a_kind:
            book, hosts = self.window_book, self.host_book
            among = hosts.by_id if storage is None else [host.id for host in hosts.by_storage[storage]]
            self._of_a_kind[storage] = tuple(dict.fromkeys(book.like(host) for host in among))
        return self._of_a_kind[storage]

    def lead_s(self, profile: HostProfile, gpus: int) -> int:
        key = id(profile), gpus
        if key not in self._leads_s:
            self._leads_s[key] = lead_s(profile, gpus=gpus, grace_s=self.longest_grace_s())
        return self._leads_s[key]

    def longest_grace_s(self) -> int:
        """Return the longest grace that anybody may be given."""
        assert self.rules is not None
        if self._grace_s is None:
            self._grace_s = longest_grace_s(self.rules, ())
            if self.window_book.most_grace_s > self._grace_s:
                self._grace_s = max(self._grace_s, self.window_book.longest_grace_s(self.now))
        return self._grace_s

    def late_stops_on(self, host: HostId) -> tuple[tuple[int, Instant], ...]:
        """Return the stops on a host that outlast a lead: their GPUs as bit masks, and until when nothing may begin."""
        if host not in self._late_stops:
            facts, profile = self.facts.get(host), self.hosts[host].profile
            found = () if facts is None else late_stops(facts, profile, self.now, grace_s=self.longest_grace_s())
            self._late_stops[host] = tuple(found)
        return self._late_stops[host]

    def begin_round(self) -> None:
        """From here on `has_changed` tells whether anything is different."""
        self._round = self.reservations.mark(), self.disks.mark(), self._window_writes

    def has_changed(self) -> bool:
        """Whether any row is different from what it was when the round began."""
        reservations, disks, window_writes = self._round
        if self._window_writes != window_writes:
            return True
        return self.disks.differs_from(disks) or self.reservations.differs_from(reservations)

    def live(self) -> Iterable[Reservation]:
        """The reservations that have not ended, in the order in which they came. Whoever changes them takes a list."""
        return self._live.all.values()

    def live_by_sort(self) -> Mapping[tuple[int, str], Mapping[ReservationId, Reservation]]:
        """The same by their GPUs and queue, in no order."""
        return self._live.by_sort

    def live_of_policy(self) -> Iterable[Reservation]:
        """Those of them that the policy has asked for itself, in no order."""
        return self._live.of_policy.values()

    def unstarted(self) -> Mapping[ReservationId, Reservation]:
        """Those of them of which nothing was ever started, in the order in which they came."""
        return self._live.unstarted

    def going_on_later(self) -> Mapping[ReservationId, Reservation]:
        """Those that have been started and have a last span that has not, in no order.

        Without those of whom it was said that they cannot be earlier, as long as windows and hosts stay.
        """
        self._live.wake(self.openings)
        return self._live.ahead

    def rest(self, reservation: Reservation) -> None:
        """Say that the later spans of one begin as soon as anybody lets them in."""
        self.openings.earliest[reservation.id] = reservation
        self._live.rest(reservation.id)

    def planned_of(self, owner: str) -> Iterable[ReservationId]:
        """Return the reservations of an owner that the step began with."""
        if self._planned_by_owner is None:
            self._planned_by_owner = {}
            for key, reservation in self.plan.reservations.items():
                self._planned_by_owner.setdefault(reservation.request.owner, []).append(key)
        return self._planned_by_owner.get(owner, ())

    def partition_of(self, span: BookedSpan) -> Partition:
        return self.hosts[span.host].profile.partition(span.partition)

    def mask_out(self, host: HostId) -> int:
        """Return the GPUs of a host that nothing may be booked on, as a bit mask."""
        if host not in self._mask_out:
            facts = self.facts.get(host)
            self._mask_out[host] = mask_of(facts.gpus_out_of_plan) if facts else 0
        return self._mask_out[host]

    def hosts_in_trouble(self) -> tuple[object, ...]:
        """Return which hosts do not answer, are drained, or have GPUs out of the plan."""
        if self._trouble is not None:
            return self._trouble
        marked = sorted(self.memory.facts.marked_hosts)
        out = tuple([(host, self.mask_out(host)) for host in marked if self.facts[host].gpus])
        self._trouble = out, self.host_book.drained, self.silent_hosts
        return self._trouble

    def is_scratch(self, queue: str) -> bool:
        """Whether the disks of a queue come from the scratch part of the pool."""
        if queue not in self._scratch:
            known = self.rules.queue(queue) if self.rules is not None else None
            self._scratch[queue] = known is not None and known.is_scratch
        return self._scratch[queue]

    def is_lost(self, span: BookedSpan) -> bool:
        """Whether a span's GPUs are quarantined or in foreign hands."""
        out = self.mask_out(span.host)
        return bool(out) and bool(self.partition_of(span).mask & out)

    def is_left(self, host: HostId) -> bool:
        """Whether a host has not answered for so long that what is about to start there goes elsewhere."""
        if host not in self.silent_hosts:
            return False
        since_at = self.facts[host].unreachable_since_at
        assert since_at is not None
        return self.now >= since_at + self.settings.leave_silent_host_after_s

    def is_unseen_since(self, host: HostId, at: Instant) -> bool:
        """Whether time has stood still for us, and nobody has looked at a host since an instant, but soon will."""
        facts = self.facts.get(host)
        if not self.is_just_awake or facts is None or facts.unreachable_since_at is not None:
            return False
        return facts.seen_at is None or facts.seen_at < at

    def vms_of(self, reservation: ReservationId) -> list[tuple[HostId, VmFact]]:
        """Return the starts of a reservation that are remembered, by generation."""
        return self.memory.facts.starts_of(reservation)

    def hours_s(self, span: BookedSpan, gpus: int) -> int:
        """Return the running time that a span delivers at the least."""
        return span.end_at - span.start_at - self.lead_s(self.hosts[span.host].profile, gpus)

    # Writing.

    def put(self, reservation: Reservation) -> None:
        """Set a reservation; the calendar follows its spans."""
        old = self.reservations.get(reservation.id)
        self.put_moved(reservation)
        before = old.spans if old else ()
        if before == reservation.spans:
            return
        # Spans that stay are the very same values.
        was, will_be = {id(span) for span in before}, {id(span) for span in reservation.spans}
        self.board.unbook(*[span for span in before if id(span) not in will_be])
        for span in reservation.spans:
            if id(span) not in was:
                self.board.book(reservation.id, span)

    def put_moved(self, reservation: Reservation) -> None:
        """Set a reservation; its spans lie on the board already."""
        key = reservation.id
        self.touched.add(key)
        self.settled.look_at(key)
        self.board.doubt(key)
        self.reservations[key] = reservation
        self._live.put(reservation)

    def put_window(self, window: Window) -> None:
        self._copy_windows()
        self.windows[window.id] = window
        self._windows_written.add(window.id)
        self.forget_windows()

    def drop_window(self, window: WindowId) -> None:
        self._copy_windows()
        del self.windows[window]
        self._windows_written.add(window)
        self.forget_windows()

    def _copy_windows(self) -> None:
        if not self._are_windows_ours:
            self.windows = dict(self.windows)
            self._are_windows_ours = True

    def share_windows(self) -> dict[WindowId, Window]:
        """Return the windows as they are, never to change."""
        self._are_windows_ours = False
        return self.windows

    def set_windows(self, windows: dict[WindowId, Window]) -> None:
        """Bring the windows back to what they were when they were shared."""
        self.windows = windows
        self._are_windows_ours = False

    def set_rules(self, rules: Rules, text: str) -> None:
        self.rules = self.new_rules = rules
        self.policy_text = text
        self.forget_windows()

    def set_horizon(self, horizon_at: Instant) -> None:
        self.horizon_at = horizon_at
        self.memory.freed.note_all()
        self._stretches, self.openings = {}, Openings()
        self.board.forget_stretches()

    def note_freed(self) -> None:
        """Take note of what was freed by what has changed since this was last done."""
        for key, was in self.reservations.before(self._freed_mark).items():
            self.memory.freed.note(was, self.reservations.get(key))
        self._freed_mark = self.reservations.mark()

    def freed_since(self, by: Hashable) -> list[Left] | None:
        """Return what was freed since this was last asked, in this step or before; None: anything may have been.

        `by`: what else matters.
        """
        self.note_freed()
        return self.memory.freed.take((by, self.rules, self.horizon_at, self.silent_hosts, self.begins))

    def put_host(self, host: Host) -> None:
        self.memory.freed.note_all()
        is_new = host.id not in self.hosts
        self._trouble = None
        if not self._are_hosts_ours:
            self.hosts, self._are_hosts_ours = dict(self.hosts), True
        self.hosts[host.id] = host
        self._host_book = None
        if is_new:
            self.board.add_host(host)
            self._of_a_kind.clear()
            self.openings = Openings()
        self._are_begins_stale = True

    def forget_windows(self) -> None:
        """Windows changed: what was worked out from them is stale."""
        self._window_writes += 1
        self._window_book = None
        self.memory.freed.note_all()
        self.crossed.clear()
        self._windows_of.clear()
        self._scratch.clear()
        self._of_a_kind.clear()
        self._stretches, self.openings = {}, Openings()
        self._late_stops.clear()
        self._grace_s = None
        self._leads_s.clear()
        self._are_begins_stale = True
        self.board.forget_stretches()

    def tell(self, event: Event) -> None:
        self.events.append(event)

    def note(self, kind: str, reservation: Reservation, *, is_notice: bool = False, **facts: Fact) -> None:
        """Tell an event about a reservation."""
        self.tell(
            Event(
                kind=kind,
                at=self.now,
                reservation=reservation.id,
                facts=tuple(sorted(facts.items())),
                is_notice=is_notice,
            )
        )

    @contextmanager
    def attempt(self) -> Iterator["Attempt"]:
        """Try a set of changes; unless `keep()` was called they are all undone at the end."""
        saved = _Saved(self)
        attempt = Attempt()
        try:
            yield attempt
        finally:
            if not attempt.is_kept:
                saved.restore(self)

    def undo_rows(self, reservations: int, disks: int) -> None:
        """Bring reservations and disks back to marks; the calendar follows."""
        before = self.reservations.before(reservations)
        changed = [key for key, was in before.items() if self.reservations.get(key) is not was]
        for key in changed:
            self.board.unbook(*self.reservations[key].spans)
        self.reservations.undo(reservations)
        self.disks.undo(disks)
        is_in_order = not self._live.would_be_out_of_order({key: before[key] for key in changed})
        for key in changed:
            self.settled.look_at(key)
            self.board.doubt(key)
            was = before[key]
            if was is None:
                self._live.drop(key)
                continue
            for span in was.spans:
                self.board.book(key, span)
            self._live.put(was)
        if not is_in_order:
            self._live.refill(self.reservations.values())

    def undo_freed(self, reservations: int, takes: int) -> None:
        """The same for what was freed; what was asked for since was moved up into in vain."""
        self._freed_mark = min(self._freed_mark, reservations)
        if self.memory.freed.takes != takes:
            self.memory.freed.note_all()

    def change(self) -> PlanChange:
        """Return everything that differs from the plan."""
        plan, written = self.plan, sorted(self.disks.before())
        windows_written = sorted(self._windows_written)
        return PlanChange(
            reservations=_changed(plan.reservations, self._written()),
            windows=_changed(plan.windows, {key: self.windows[key] for key in windows_written if key in self.windows}),
            dropped_windows=tuple([key for key in windows_written if key in plan.windows and key not in self.windows]),
            hosts=() if self.hosts is self.memory.host_book(plan).by_id else _changed(plan.hosts, self.hosts),
            disks=_changed(plan.disks, {key: self.disks[key] for key in written if key in self.disks}),
            dropped_disks=tuple([key for key in written if key in plan.disks and key not in self.disks]),
            rules=self.new_rules,
            policy_text=self.policy_text,
            policy_note=self.policy_note,
            horizon_at=None if self.horizon_at == plan.horizon_at else self.horizon_at,
            decided=tuple(self.decided),
            events=tuple(self.events),
        )

    def hand_over(self, change: PlanChange) -> None:
        """Leave what is known of the plan as it will be after a change to the step that follows."""
        self.note_freed()
        self.memory.end(self.plan, change, self.board, self.reservations, self.disks)
        if self._window_book is not None:
            self.memory.keep_windows(self._window_book, self.rules, self.horizon_at, self._stretches, self.openings)

    def to_close(self) -> list[Reservation]:
        """Return the ended reservations of which nothing may be left any more, in the order in which they came."""
        ended = self.memory.ended
        keys = set(ended) if self.memory.is_new else self.memory.news & ended.keys()
        keys |= self.reservations.before().keys()
        keys |= {disk.reservation for disk in self.disks.before().values() if disk is not None}
        found = [self.reservations[key] for key in sorted(keys, key=by_number) if key in self.reservations]
        return [r for r in found if r.outcome is not None and not r.is_closed]

    def _written(self) -> dict[ReservationId, Reservation]:
        written = sorted(self.reservations.before(), key=by_number)
        return {key: self.reservations[key] for key in written if key in self.reservations}

    # Disks.

    def pool_peak_gib(self, storage: str, *, is_scratch: bool, start_at: Instant, end_at: Instant) -> int:
        """Return the most that is booked at one instant of `[start_at, end_at)` in one part of a storage's pool."""
        return self.disks.levels(storage, is_scratch=is_scratch).peak(start_at, end_at)

    def has_pool_room(
        self, storage: str, *, is_scratch: bool, start_at: Instant, end_at: Instant, more_gib: int
    ) -> bool:
        """Whether one part of a storage's pool takes so many GiB more at every instant of `[start_at, end_at)`."""
        room_gib = self.pool_room_gib(storage, is_scratch=is_scratch) - more_gib
        if self.disks.booked_gib(storage, is_scratch=is_scratch) <= room_gib:
            # Nearly always there is room for all of them at once.
            return True
        return self.pool_peak_gib(storage, is_scratch=is_scratch, start_at=start_at, end_at=end_at) <= room_gib

    def pool_room_gib(self, storage: str, *, is_scratch: bool) -> int:
        """Return the size of one part of a storage's pool; hosts that share a storage describe one pool."""
        return self.host_book.pool_gib(storage, is_scratch=is_scratch)

    def keep_disk_until(self, disk_id: DiskId, until_at: Instant) -> None:
        """Move the end of a disk's retention; it never moves earlier."""
        disk = self.disks[disk_id]
        if until_at > disk.until_at:
            self.disks[disk_id] = replace(disk, until_at=until_at)


def _changed(before: Mapping[K, V], after: Mapping[K, V]) -> tuple[V, ...]:
    """Return the rows that are new or differ; most are the very same object, which need not be compared."""
    if not after:
        return ()
    new = [(old, row) for key, row in after.items() if (old := before.get(key)) is not row]
    return tuple([row for old, row in new if old != row])


class Attempt:
    """Whether the changes of an attempt stay."""

    def __init__(self) -> None:
        self.is_kept = False

    def keep(self) -> None:
        self.is_kept = True


class _Saved:
    """What an attempt may change, as it was before."""

    def __init__(self, draft: Draft) -> None:
        self.marks = draft.reservations.mark(), draft.disks.mark()
        self.windows = draft.share_windows()
        self.rules = (draft.rules, draft.new_rules, draft.policy_text, draft.horizon_at)
        self.events = len(draft.events)
        self.is_room_freed = draft.is_room_freed
        self.takes = draft.memory.freed.takes

    def restore(self, draft: Draft) -> None:
        draft.undo_rows(*self.marks)
        draft.undo_freed(self.marks[0], self.takes)
        before = draft.rules, draft.new_rules, draft.policy_text, draft.horizon_at
        if draft.windows is not self.windows or before != self.rules:
            draft.set_windows(self.windows)
            draft.rules, draft.new_rules, draft.policy_text, draft.horizon_at = self.rules
            draft.forget_windows()
        del draft.events[self.events :]
        draft.is_room_freed = self.is_room_freed
