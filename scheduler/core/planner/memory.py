"""What one planning step leaves for the next, so that a step costs what has happened since: never the truth.

The board of the plan that was decided last, who needs no look for now, the windows looked up, who was tried for an
early start in vain. It follows a plan from one version to the next, whoever changed it. Without it a step decides the
same, but for two things: who was tried in vain is not tried again before room is freed or a while has passed, and after
a window was decided what one step left is put late by the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from scheduler.core.facts import HostFacts
from scheduler.core.layered import different
from scheduler.core.plan import BookedDisk, Plan, PlanChange, Reservation, Rules, apply
from scheduler.core.planner.board import Board
from scheduler.core.planner.followed_facts import FollowedFacts
from scheduler.core.planner.freed import Freed
from scheduler.core.planner.host_book import HostBook
from scheduler.core.planner.limit_book import LimitBook
from scheduler.core.planner.live import Live
from scheduler.core.planner.rows import DiskRows, Rows
from scheduler.core.planner.settled import Settled
from scheduler.core.planner.tried import Tried
from scheduler.core.planner.window_book import WindowBook
from scheduler.core.requests import AtBoundary, DiskId, HostId, ReservationId, by_number
from scheduler.core.spans import Instant
from scheduler.core.windows import Stretches, Window, WindowId


@dataclass(slots=True)
class Openings:
    """When some host next lets a request in; it changes with the windows and with what hosts there are."""

    ranges: dict[tuple[int, str, AtBoundary, str | None], list[tuple[Instant, Instant, Instant]]] = field(
        default_factory=dict
    )
    """Of whom, and on hosts of which storage, or on all: for instants from one on and before another, from when on
    somebody is let in."""
    earliest: dict[ReservationId, Reservation] = field(default_factory=dict)
    """Those whose later spans begin as soon as they are let in."""


StretchesKey = tuple[HostId, int, str, AtBoundary, bool]


class Memory:
    """Handed to each step. Not thread-safe."""

    def __init__(self, *, may_be_compiled: bool = True) -> None:
        self.settled = Settled()
        self.facts = FollowedFacts()
        self.tried = Tried()
        self.freed = Freed()
        self.to_put_late: list[ReservationId] = []
        """Those that wait and are still to be put late, since a window was decided; the last of them first."""
        self.was_put_late: set[ReservationId] = set()
        """Those that the last step has put late."""
        self.board: Board | None = None
        """Of the plan at hand; None: it has to be made."""
        self.may_be_compiled = may_be_compiled
        self._window_book = WindowBook({})
        self._limit_book: LimitBook | None = None
        self._windows: Mapping[WindowId, Window] = {}
        """The windows of which the book is."""
        self.news: set[ReservationId] = set()
        """Reservations that were changed by others, or of whose starts hosts remember anything different."""
        self.is_new = True
        """Nothing is remembered of a plan before."""
        self.ended: dict[ReservationId, Reservation] = {}
        """Reservations that have ended and of which something is left."""
        self._live = Live()
        self._plan: Plan | None = None
        self._is_open = False
        """A step has begun and not ended."""
        self._now: Instant = 0
        self._host_book = HostBook({})
        self._rows: Rows[ReservationId, Reservation] | None = None
        """The reservations of the plan at hand, in the order in which they came; lent to the step that goes on."""
        self._disks: tuple[Mapping[DiskId, BookedDisk], DiskRows] | None = None
        self._stretches_by: tuple[object, ...] = ()
        self._stretches: dict[StretchesKey, Stretches] = {}
        self._openings = Openings()

    def afresh(self, plan: Plan) -> "Memory":
        """Return one for a plan that remembers only who was tried in vain, and what was freed since.

        A step on the plan decides the same with it as with this one.
        """
        other, known = Memory(may_be_compiled=self.may_be_compiled), self._plan
        if self._is_open:
            return other
        other.tried = self.tried.copy()
        other.freed = self.freed.copy()
        other.to_put_late = list(self.to_put_late)
        if known is not None:
            _note_freed(other.freed, known, plan)
        return other

    def begin(self, plan: Plan, facts: Mapping[HostId, HostFacts], now: Instant) -> None:
        """Come to a plan, to what hosts remember and to an instant; a step that begins so ends with `end`."""
        known, self._plan = self._plan, None
        if self._is_open:
            # The last step did not come to its end: whom it tried, it tried in vain.
            self.tried = Tried()
            self.freed.note_all()
        self._is_open = True
        if now < self._now:
            self._stretches_by = ()
        self._now = now
        self.news = self.facts.follow(facts)
        if known is None or self.board is None or not self._follow(self.board, known, plan, now):
            if known is not None:
                _note_freed(self.freed, known, plan)
            self.board = self._rows = None
            self.settled = Settled()
            self.news.clear()
            self._live.refill(_in_order(plan).values())
            self.ended = {key: r for key, r in plan.reservations.items() if r.outcome is not None}
        self.was_put_late.clear()
        self.is_new = self.board is None
        for changed in self.news:
            self.settled.look_at(changed)

    def _follow(self, board: Board, known: Plan, plan: Plan, now: Instant) -> bool:
        """Bring the board from one plan to another; False: it costs less to make one."""
        if now < board.calendar.now or board.is_worn:
            return False
        if known.hosts is not plan.hosts and not _are_alike(known, plan):
            return False
        # Numbered as a new board would number them: ties are broken by it.
        if len(board.hosts) != len(plan.hosts) or not board.is_in_order:
            return False
        if not _are_of_one_time(known, plan):
            board.forget_stretches()
            self.freed.note_all()
        board.advance(now)
        if known.reservations is plan.reservations:
            return True
        before, after = known.reservations, plan.reservations
        changed = sorted(different(before, after), key=by_number)
        # What was not committed after all is to be done again.
        self.to_put_late += [key for key in changed if key in self.was_put_late]
        self.news.update(changed)
        is_in_order = not self._live.would_be_out_of_order({key: after.get(key) for key in changed})
        if any(key not in before for key in changed):
            self._rows = None
        stayed: set[ReservationId] = set()
        for key in changed:
            self._sort_in(key, after.get(key))
            board.doubt(key)
            self.freed.note(before.get(key), after.get(key))
            if key in before and key in after and _lie_alike(before[key], after[key]):
                # Most of what others change is that something was started where it was booked.
                stayed.add(key)
                board.fix(key)
            elif key in before:
                board.unbook(*before[key].spans)
            if key not in after:
                self.settled.drop(key)
            if self._rows is not None:
                self._rows.follow(key, after.get(key))
        if not is_in_order:
            self._rows = None
            self._live.refill(_in_order(plan).values())
            # Rows that a step wrote back as they were are in the plan the older of two equal values.
            for key in list(board.movable):
                board.doubt(key)
        for key in changed:
            if key in after and key not in stayed:
                for span in after[key].spans:
                    board.book(key, span)
        return True

    def _sort_in(self, key: ReservationId, reservation: Reservation | None) -> None:
        """Follow one reservation, or that there is none any more."""
        self.ended.pop(key, None)
        if reservation is None:
            self._live.drop(key)
            return
        self._live.put(reservation)
        if reservation.outcome is not None:
            self.ended[key] = reservation

    def live(self) -> Live:
        """Return the reservations of the plan at hand that have not ended, to be changed by the step that begins."""
        return self._live

    def end(
        self,
        plan: Plan,
        change: PlanChange,
        board: Board,
        reservations: Rows[ReservationId, Reservation],
        disks: DiskRows,
    ) -> None:
        """Keep what is as the plan will be after a change; if that is not committed after all, it is followed back."""
        after = plan if change.is_empty else apply(plan, change)
        for reservation in change.reservations:
            key, row = reservation.request.id, None if reservation.is_closed else reservation
            self._sort_in(key, row)
            reservations.follow(key, row)
        reservations.forget()
        self.board, self._plan, self._is_open = board, after, False
        self._rows, self._disks = reservations, (after.disks, disks)

    def keep_windows(
        self,
        book: WindowBook,
        rules: Rules | None,
        horizon_at: Instant,
        stretches: dict[StretchesKey, Stretches],
        openings: Openings,
    ) -> None:
        """Keep what was worked out from the windows, which are now those of the plan at hand."""
        self._window_book, self._windows = book, self.plan_after.windows
        self._stretches_by = book, rules, horizon_at, self.host_book(self.plan_after).ids
        self._stretches, self._openings = stretches, openings

    @property
    def plan_after(self) -> Plan:
        """The plan as it is after the change of the last step: the same as `apply` gives, made already."""
        assert self._plan is not None
        return self._plan

    def host_book(self, plan: Plan) -> HostBook:
        if self._host_book.hosts is not plan.hosts:
            self._host_book = HostBook(plan.hosts)
        return self._host_book

    def limit_book(self, rules: Rules) -> LimitBook:
        """Return the limits of a policy."""
        if self._limit_book is None or self._limit_book.rules is not rules:
            self._limit_book = LimitBook(rules)
        return self._limit_book

    def window_book(self, plan: Plan) -> WindowBook:
        if self._windows is not plan.windows:
            self._window_book, self._windows = WindowBook(plan.windows), plan.windows
        return self._window_book

    def stretches(
        self, book: WindowBook, rules: Rules | None, horizon_at: Instant
    ) -> tuple[dict[StretchesKey, Stretches], Openings]:
        """Return the stretches that were worked out from these windows, and when they open; what is added is kept."""
        by = book, rules, horizon_at, self._host_book.ids
        if self._stretches_by != by:
            self._stretches_by, self._stretches, self._openings = by, {}, Openings()
        return self._stretches, self._openings

    def disks(self, plan: Plan) -> DiskRows:
        """Return a plan's disks, to be changed by the step that begins."""
        kept, self._disks = self._disks, None
        if kept is None or kept[0] is not plan.disks:
            return DiskRows(dict(plan.disks))
        kept[1].forget()
        return kept[1]

    def reservations(self, plan: Plan) -> Rows[ReservationId, Reservation]:
        """Return a plan's reservations in the order in which they came, to be changed by the step that begins."""
        kept, self._rows = self._rows, None
        return Rows(_in_order(plan)) if kept is None else kept


def _note_freed(freed: Freed, known: Plan, plan: Plan) -> None:
    """Take note of what is free in a plan that was not in the one before, whoever changed it."""
    if not _are_of_one_time(known, plan):
        freed.note_all()
    for key in different(known.reservations, plan.reservations):
        freed.note(known.reservations.get(key), plan.reservations.get(key))


def _in_order(plan: Plan) -> dict[ReservationId, Reservation]:
    """Return a plan's reservations in the order in which they came, however it was read."""
    return dict(sorted(plan.reservations.items(), key=lambda item: by_number(item[0])))


def _are_of_one_time(known: Plan, plan: Plan) -> bool:
    """Whether in two plans the same may run when."""
    return known.windows is plan.windows and known.rules is plan.rules and known.horizon_at == plan.horizon_at


def _are_alike(known: Plan, plan: Plan) -> bool:
    """Whether two plans have the same hosts, as far as a board knows them."""
    if known.hosts.keys() != plan.hosts.keys():
        return False
    return all(
        (host.profile, host.storage) == (plan.hosts[key].profile, plan.hosts[key].storage)
        for key, host in known.hosts.items()
    )


def _lie_alike(one: Reservation, other: Reservation) -> bool:
    """Whether two forms of a reservation are booked on the same GPUs at the same times."""
    if one.spans is other.spans:
        return True
    return len(one.spans) == len(other.spans) and all(
        (a.start_at, a.end_at, a.host, a.partition) == (b.start_at, b.end_at, b.host, b.partition)
        for a, b in zip(one.spans, other.spans, strict=True)
    )
