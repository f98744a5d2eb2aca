"""Placing agrees with a slow oracle that tries every minute on every block.

The oracle knows no stretches and no conflicts to hop over: it has one list of minutes for each host (may this request
run then?) and one for each GPU (is it free then?), and takes the first minute at which everything fits.
NIGHTSHIFT_CALENDARS says how many random calendars are tried.
"""

import os
from dataclasses import replace
from itertools import product
from random import Random

import pytest

from scheduler.core.facts import GpuFact, GpuState, HostFacts
from scheduler.core.plan import BookedSpan, Host, Plan, Reservation
from scheduler.core.planner import placing
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.placing import Want, place
from scheduler.core.requests import AtBoundary, HostId, Promise, Request, ReservationId
from scheduler.core.settings import Settings
from scheduler.core.spans import MINUTE_S
from scheduler.core.topology import HostProfile, PartitionId
from scheduler.core.windows import Layout, Window, WindowId, WindowState
from tests.property.worlds import DAY_LAYOUT, MIDNIGHT, NIGHT_LAYOUT, dgx2, rules

CALENDARS = int(os.environ.get("NIGHTSHIFT_CALENDARS", "1000"))
MINUTES = 480
LEAD_MINUTES = {1: 11, 2: 11, 4: 12, 8: 13, 16: 15}
USEFUL_MINUTES = 10
LATER_MINUTES = 30


class Case:
    """A small random calendar, in minutes from now."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.profile: HostProfile = dgx2()
        self.hosts = [HostId(name) for name in ("a", "b")[: random.choice([1, 1, 2])]]
        self.windows: list[tuple[int, int, Layout, frozenset[AtBoundary], int | None]] = []
        cursor = random.randint(-60, 120)
        while cursor < MINUTES and len(self.windows) < 4:
            end = cursor + random.randint(20, 150)
            gift = random.choice([None, None, cursor, random.randint(cursor, end)])
            boundary = random.choice(
                [
                    frozenset({AtBoundary.PARK}),
                    frozenset({AtBoundary.FINISH}),
                    frozenset({AtBoundary.PARK, AtBoundary.KEEP}),
                ]
            )
            layout = random.choice(
                [
                    NIGHT_LAYOUT,
                    NIGHT_LAYOUT,
                    Layout(name="few", sizes=frozenset({1, 16}), queues=frozenset({"interactive", "hpc"})),
                ]
            )
            self.windows.append((cursor, end, layout, boundary, gift))
            cursor = end + random.choice([0, random.randint(1, 120)])
        self.busy: dict[tuple[HostId, int], set[int]] = {}
        self.booked: list[tuple[HostId, str, int, int]] = []
        for _ in range(random.choice([0, 3, 12, 40])):
            self._book()
        self.are_policys = random.random() < 0.5
        self.lost = {(host, random.randrange(16)) for host in self.hosts if random.random() < 0.2}

    def _book(self) -> None:
        random = self.random
        host, partition = random.choice(self.hosts), random.choice(self.profile.partitions)
        start = random.randint(0, MINUTES - 2)
        end = min(MINUTES, start + random.choice([5, 30, 100]) + random.randint(0, 20))
        minutes = set(range(start, end))
        if any(self.busy.get((host, gpu), set()) & minutes for gpu in partition.gpus):
            return
        for gpu in partition.gpus:
            self.busy.setdefault((host, gpu), set()).update(minutes)
        self.booked.append((host, partition.id, start, end))

    def want(self) -> Want:
        random = self.random
        is_hpc = random.random() < 0.3
        return Want(
            gpus=16 if is_hpc else random.choice([1, 2, 4, 8]),
            queue="hpc" if is_hpc else "interactive",
            at_boundary=random.choice(list(AtBoundary)),
            run_s=random.randint(1, 200) * MINUTE_S,
            from_at=MIDNIGHT + random.choice([0, random.randint(0, 300)]) * MINUTE_S,
            with_gifts=random.random() < 0.5,
            goes_on=random.random() < 0.3,
        )

    def draft(self) -> Draft:
        applied = rules(min_useful_s=USEFUL_MINUTES * MINUTE_S)
        windows = {}
        for number, (start, end, layout, boundary, gift) in enumerate(self.windows):
            windows[WindowId(str(number))] = Window(
                id=WindowId(str(number)),
                name="w",
                layout=layout,
                hosts=frozenset(self.hosts),
                start_at=MIDNIGHT + start * MINUTE_S,
                end_at=MIDNIGHT + end * MINUTE_S,
                decide_at=MIDNIGHT + (start - 60) * MINUTE_S,
                only_if_queued=True,
                at_boundary=boundary,
                warnings_s=(),
                grace_s=300,
                policy_version=1,
                state=WindowState.PLANNED if gift is None else WindowState.RELEASED,
                released_from_at=None if gift is None else MIDNIGHT + gift * MINUTE_S,
            )
        held = {}
        for number, (host, partition, start, end) in enumerate(self.booked):
            key = ReservationId(f"r-{number}")
            gpus = self.profile.partition(partition).size  # type: ignore[arg-type]
            request = Request(
                id=key,
                owner="ada",
                queue="interactive",
                gpus=gpus,
                run_s=60,
                submitted_at=MIDNIGHT,
                not_before_at=MIDNIGHT + start * MINUTE_S if self.are_policys else None,
                start_by_at=MIDNIGHT + start * MINUTE_S if self.are_policys else None,
                key=f"course#{number}" if self.are_policys else None,
                at_boundary=AtBoundary.PARK,
                image="ubuntu-24.04",
                disk_gib=10,
            )
            span = BookedSpan(
                start_at=MIDNIGHT + start * MINUTE_S,
                end_at=MIDNIGHT + end * MINUTE_S,
                host=host,
                partition=partition,  # type: ignore[arg-type]
            )
            held[key] = Reservation(request=request, promise=Promise(start_by_at=0, end_by_at=0), spans=(span,))
        plan = Plan(
            rules=applied,
            horizon_at=MIDNIGHT + MINUTES * MINUTE_S,
            hosts={host: Host(id=host, profile=self.profile, storage="s") for host in self.hosts},
            windows=windows,
            reservations=held,
        )
        facts = {
            host: replace(HostFacts(host=host), gpus=(GpuFact(gpu=gpu, state=GpuState.QUARANTINED, since_at=MIDNIGHT),))
            for host, gpu in self.lost
        }
        return Draft(plan, facts, MIDNIGHT, Settings())

    # The oracle.

    def window_at(self, minute: int) -> tuple[int, int, Layout, frozenset[AtBoundary], int | None] | None:
        return next((w for w in self.windows if w[0] <= minute < w[1]), None)

    def may_run(self, want: Want, minute: int) -> bool:
        is_for_outside = want.gpus in DAY_LAYOUT.sizes and want.queue in DAY_LAYOUT.queues
        window = self.window_at(minute)
        if window is None:
            return is_for_outside
        _, _, layout, boundary, gift = window
        if gift is not None and minute >= gift:
            return is_for_outside and want.with_gifts
        if want.gpus in layout.sizes and want.queue in layout.queues:
            return True
        return is_for_outside and want.at_boundary is AtBoundary.KEEP and AtBoundary.KEEP in boundary

    def first_span(self, want: Want, from_minute: int, run_minutes: int) -> tuple[int, int] | None:
        lead = LEAD_MINUTES[want.gpus]
        for start in range(from_minute, MINUTES):
            edge = start
            while edge < MINUTES and self.may_run(want, edge):
                edge += 1
            length = max(lead + run_minutes, lead + USEFUL_MINUTES)
            if start + length > edge:
                closing = None if edge >= MINUTES else (self.window_at(edge) or self.window_at(edge - 1))
                may_park = want.at_boundary is AtBoundary.PARK and closing is not None and AtBoundary.PARK in closing[3]
                if not may_park or start + lead + USEFUL_MINUTES > edge:
                    continue
                length = edge - start
            minutes = set(range(start, start + length))
            for host in self.hosts:
                for partition in self.profile.partitions_of_size(want.gpus):
                    gpus = [(host, gpu) for gpu in partition.gpus]
                    if not any(key in self.lost or self.busy.get(key, set()) & minutes for key in gpus):
                        return start, start + length
        return None

    def pieces(self, want: Want, start: int) -> list[tuple[int, int]]:
        """Cut a booking that starts at a minute where windows cut it; none if they do not let it."""
        lead, left, found = LEAD_MINUTES[want.gpus], want.run_s // MINUTE_S, list[tuple[int, int]]()
        minute = start
        while minute < MINUTES:
            edge = minute
            while edge < MINUTES and self.may_run(want, edge):
                edge += 1
            length = lead + max(left, USEFUL_MINUTES)
            if edge > minute and minute + length <= edge:
                return [*found, (minute, minute + length)]
            if minute + lead + USEFUL_MINUTES <= edge:
                closing = None if edge >= MINUTES else (self.window_at(edge) or self.window_at(edge - 1))
                if closing is None or AtBoundary.PARK not in closing[3] or want.at_boundary is not AtBoundary.PARK:
                    return []
                found.append((minute, edge))
                left -= edge - minute - lead
            elif not found:
                return []
            minute = edge
            while minute < MINUTES and not self.may_run(want, minute):
                minute += 1
        return []

    def on_one_partition(self, want: Want, from_minute: int) -> list[tuple[int, int]] | None:
        """Try every minute for a start of which all pieces are free on one partition."""
        for start in range(from_minute, MINUTES):
            pieces = self.pieces(want, start)
            minutes = {minute for piece in pieces for minute in range(*piece)}
            for host, partition in product(self.hosts, self.profile.partitions_of_size(want.gpus)):
                gpus = [(host, gpu) for gpu in partition.gpus]
                if pieces and not any(key in self.lost or self.busy.get(key, set()) & minutes for key in gpus):
                    return pieces
        return None

    def oracle(self, want: Want) -> list[tuple[int, int]] | None:
        """What is cut lies on one partition if one is free, else anywhere.

        Who goes on does so as soon as it can anywhere. Where the policy's own reservations stand in the way, or where
        a place is free now and none wait who are as wide, it has to be free soon, or within a quarter of the wait.
        """
        anywhere = self.anywhere(want)
        if anywhere is None or len(anywhere) == 1:
            return anywhere
        first = anywhere[0][0]
        found = self.on_one_partition(want, first)
        later = [(partition, start) for _, partition, start, _ in self.booked if start]
        is_nobodys = first == 0 and (self.are_policys or not any(self.may_want(want, one) for one, _ in later))
        is_crossed = self.are_policys and any(self.may_run(want, start) for _, start in later)
        most_later = 0 if want.goes_on else max(LATER_MINUTES, first // 4)
        if found and (want.goes_on or is_nobodys or is_crossed) and found[0][0] > first + most_later:
            found = None
        return found or anywhere

    def may_want(self, want: Want, partition: str) -> bool:
        """Whether one that is booked later is as wide, and could begin now as far as windows go."""
        gpus = self.profile.partition(PartitionId(partition)).size
        other = replace(want, gpus=gpus, queue="interactive", at_boundary=AtBoundary.PARK, with_gifts=True)
        least = LEAD_MINUTES[gpus] + USEFUL_MINUTES
        return gpus >= want.gpus and all(self.may_run(other, minute) for minute in range(least))

    def anywhere(self, want: Want) -> list[tuple[int, int]] | None:
        found: list[tuple[int, int]] = []
        from_minute, left = (want.from_at - MIDNIGHT) // MINUTE_S, want.run_s // MINUTE_S
        while left > 0:
            span = self.first_span(want, from_minute, left)
            if span is None:
                return None
            found.append(span)
            left -= span[1] - span[0] - LEAD_MINUTES[want.gpus]
            from_minute = span[1]
        return found


@pytest.mark.parametrize("block", range(10))
def test_placing_agrees_with_trying_every_minute(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "LATER_S", LATER_MINUTES * MINUTE_S)
    compared = 0
    for seed in range(block, CALENDARS, 10):
        case = Case(seed)
        draft = case.draft()
        for _ in range(2):
            want = case.want()
            spans = place(draft, want)
            got = spans and [((s.start_at - MIDNIGHT) // MINUTE_S, (s.end_at - MIDNIGHT) // MINUTE_S) for s in spans]
            assert got == case.oracle(want), f"seed {seed}: {want}"
            compared += spans is not None
    assert compared > CALENDARS // 20, "most calendars must have a place, or nothing is compared"
