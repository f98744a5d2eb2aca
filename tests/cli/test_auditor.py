"""The auditor finds what was done to a log, and nothing in an honest one.

The log is a real one: two days and a night of recorded demand on a simulated host. What people were told is what the
plan promised them. Each test then does one thing to the log, or to the answers, and sees exactly that found.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from cli.answers import KeptAnswers, Pace, Told, machine_s
from cli.auditor import Audit, FindingKind, Verdict, audit
from cli.recorded import arrivals, busiest, read_trace
from cli.runs import Run, read_runs
from cli.simulation import HOST, Simulation, Story, load_checked_policy
from scheduler.core.requests import ReservationId
from scheduler.core.spans import DAY_S, HOUR_S, Instant
from scheduler.core.topology import PartitionId
from scheduler.profiles.loading import load_profile
from workers.drivers.simulated.log import LogLine, read_file
from workers.drivers.simulated.schema import rack_path

PROFILE = load_profile("dgx-2")
FROM_AT = int(datetime(2026, 3, 2, 14, tzinfo=ZoneInfo("Europe/Berlin")).timestamp())
LENGTH_S = 30 * HOUR_S


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A host's log and what people kept of their answers."""

    log: tuple[LogLine, ...]
    answers: tuple[KeptAnswers, ...]
    until_at: Instant

    def audit(self, *paces: Pace) -> Audit:
        return audit(self.log, self.answers, profile=PROFILE, until_at=self.until_at, paces=paces)

    def with_lines(self, change: Callable[[LogLine], LogLine | None]) -> "History":
        changed = (change(line) for line in self.log)
        return replace(self, log=tuple(line for line in changed if line is not None))

    def with_line(self, new: LogLine) -> "History":
        log = sorted((*self.log, new), key=lambda line: line.at)
        return replace(self, log=tuple(log))

    def with_answer(self, key: ReservationId, change: Callable[[KeptAnswers], KeptAnswers]) -> "History":
        return replace(self, answers=tuple(change(k) if k.reservation == key else k for k in self.answers))

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(run for run in read_runs(self.log) if run.up_at is not None)

    @property
    def parked(self) -> tuple[Run, Run]:
        """Return the two first runs of somebody who was parked and resumed."""
        for run in self.runs:
            again = [r for r in self.runs if r.reservation == run.reservation and r.held_at > run.held_at]
            if again:
                return run, again[0]
        raise AssertionError("nobody was parked")


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> History:
    data: Path = tmp_path_factory.mktemp("audited")
    jobs = busiest(read_trace(), LENGTH_S)
    demand = arrivals(jobs, start_at=FROM_AT, length_s=LENGTH_S, cap_s=6 * HOUR_S, largest=8, seed=2)
    simulation = Simulation(policy=load_checked_policy(None), demand=demand, first_at=FROM_AT, seed=2, data=data)
    until_at = FROM_AT + LENGTH_S
    result = simulation.run(until_at, lambda _: None)
    answers = tuple(_kept(story) for story in result.stories)
    return History(log=read_file(rack_path(data, HOST)), answers=answers, until_at=until_at)


def _kept(story: Story) -> KeptAnswers:
    last_at = max((run.free_at for run in story.ran if run.free_at is not None), default=None)
    # The recorded guests shut themselves down once their work is done: from then on they want nothing more.
    off_by_itself = story.ran[-1].free_at if story.ran and story.outcome == "completed" else None
    told = () if story.promise is None else (
        Told(
            seen_at=story.submitted_at,
            start_by_at=story.promise.start_by_at,
            end_by_at=story.promise.end_by_at,
        ),
    )  # fmt: skip
    return KeptAnswers(
        reservation=story.id,
        owner=story.owner,
        gpus=story.gpus,
        run_s=story.run_s,
        submitted_at=story.submitted_at,
        told=told,
        let_go_at=off_by_itself,
        ended_at=last_at if story.outcome else None,
        kept_until_at=None if last_at is None else last_at + 7 * DAY_S,
        by_policy="entry" if story.is_by_policy else None,
    )


def kinds(found: Audit) -> set[FindingKind]:
    return {finding.kind for finding in found.findings}


def test_an_honest_log_gives_no_finding_and_every_promise_that_came_due_is_kept(honest: History) -> None:
    found = honest.audit()
    assert found.findings == ()
    assert found.count(Verdict.KEPT) >= 20
    assert found.count(Verdict.BROKEN) == found.count(Verdict.TOLD) == 0
    assert all(one.late_s == 0 for one in found.judged if one.late_s is not None)


def test_a_gpu_given_to_a_second_vm_is_an_overlap(honest: History) -> None:
    first = next(run for run in honest.runs if run.free_at is not None)
    start = next(line for line in honest.log if line.what == "vm.starting" and line.domain == first.domain)
    assert first.free_at is not None
    # Its end is taken out of the log; whoever got its GPUs next overlaps with it.
    tampered = honest.with_lines(
        lambda line: None if line.domain == start.domain and line.what in ("vm.off", "vm.undefined") else line
    )
    found = tampered.audit()
    conflicts = found.found(FindingKind.GPU_CONFLICT)
    assert conflicts
    assert all(str(start.name) in finding.sentence for finding in conflicts)
    assert kinds(found) <= {FindingKind.GPU_CONFLICT, FindingKind.TWO_VMS}


def test_a_start_moved_into_another_vms_time_is_an_overlap_of_every_gpu_that_they_share(honest: History) -> None:
    holder = next(run for run in honest.runs if len(run.gpus) == 4 and run.free_at is not None)
    intruder = next(line for line in honest.log if line.what == "vm.starting" and len(line.gpus) == 4)
    other = next(line for line in honest.log if line.what == "vm.starting" and line.domain != holder.domain)
    assert holder.up_at is not None
    new = replace(
        intruder, domain=other.domain, name="intruder", at=holder.up_at, gpus=holder.gpus, reservation=None, detail=()
    )
    alone = honest.with_lines(lambda line: line if line.domain == holder.domain else None)
    found = alone.with_line(new).audit()
    assert {f.subject for f in found.found(FindingKind.GPU_CONFLICT)} == {f"GPU {gpu}" for gpu in holder.gpus}


def test_a_disk_deleted_in_its_retention_is_lost(honest: History) -> None:
    over = next(kept for kept in honest.answers if kept.ended_at is not None and kept.let_go_at is not None)
    run = next(run for run in honest.runs if run.reservation == over.reservation)
    assert over.kept_until_at is not None
    assert run.disk is not None
    deleting = _disk_line("disk.deleting", run.disk, over.kept_until_at - 1)
    found = honest.with_line(deleting).audit()
    assert [(f.kind, f.subject) for f in found.findings] == [(FindingKind.DISK_LOST, run.disk)]
    in_its_time = replace(deleting, at=over.kept_until_at)
    assert honest.with_line(in_its_time).audit().findings == ()


def test_a_disk_deleted_while_its_guest_is_parked_is_lost_and_so_is_a_start_without_it(honest: History) -> None:
    before, after = honest.parked
    assert before.free_at is not None
    assert before.disk is not None
    found = honest.with_line(_disk_line("disk.deleted", before.disk, before.free_at + 1)).audit()
    assert kinds(found) == {FindingKind.DISK_LOST}
    assert any("not there" in f.sentence and f.at == after.held_at for f in found.findings)


def test_a_disk_written_over_is_lost(honest: History) -> None:
    before, _ = honest.parked
    assert before.free_at is not None
    assert before.disk is not None
    found = honest.with_line(_disk_line("disk.copying", before.disk, before.free_at + 1)).audit()
    assert [f.kind for f in found.findings] == [FindingKind.DISK_LOST]


def test_a_resume_with_another_disk_is_a_lost_disk(honest: History) -> None:
    _, after = honest.parked
    other = next(run.disk for run in honest.runs if run.disk != after.disk)
    found = honest.with_lines(
        lambda line: (
            replace(line, detail=tuple((k, other if k == "disk" else v) for k, v in line.detail))
            if line.what == "vm.starting" and line.domain == after.domain
            else line
        )
    ).audit()
    assert FindingKind.DISK_LOST in kinds(found)
    assert any(str(after.disk) in f.sentence and str(other) in f.sentence for f in found.findings)


def test_a_start_a_minute_and_a_second_late_is_late_and_a_minute_is_not(honest: History) -> None:
    kept = next(one for one in honest.answers if one.told and _up_at(honest, one.reservation) is not None)
    up_at = _up_at(honest, kept.reservation)
    assert up_at is not None

    def promised(start_by_at: Instant) -> History:
        told = (replace(kept.told[0], start_by_at=start_by_at),)
        return honest.with_answer(kept.reservation, lambda one: replace(one, told=told))

    assert promised(up_at - 60).audit().findings == ()
    late = promised(up_at - 61).audit()
    assert [(f.kind, f.subject) for f in late.findings] == [(FindingKind.LATE_START, kept.reservation)]
    assert late.count(Verdict.BROKEN) == 1


def test_a_guest_that_was_moved_past_its_promise_in_the_log_is_late(honest: History) -> None:
    run = next(run for run in honest.runs if run.generation == 1)
    kept = next(one for one in honest.answers if one.reservation == run.reservation)
    late_at = kept.told[0].start_by_at + 300
    found = honest.with_lines(
        lambda line: replace(line, at=late_at) if line.what == "guest.up" and line.domain == run.domain else line
    ).audit()
    assert found.found(FindingKind.LATE_START)[0].subject == run.reservation
    assert max(one.late_s or 0 for one in found.judged) == 300


def test_at_high_speed_a_second_of_machine_time_is_forgiven_and_more_is_not(honest: History) -> None:
    run = next(run for run in honest.runs if run.generation == 1)
    kept = next(one for one in honest.answers if one.reservation == run.reservation)
    late_at = kept.told[0].start_by_at + 300
    late = honest.with_lines(
        lambda line: replace(line, at=late_at) if line.what == "guest.up" and line.domain == run.domain else line
    )
    begins_at = FROM_AT - DAY_S
    assert late.audit(Pace(from_at=begins_at, speed=300.0)).found(FindingKind.LATE_START) == ()
    assert late.audit(Pace(from_at=begins_at, speed=299.0)).found(FindingKind.LATE_START) != ()
    slowed = (Pace(from_at=begins_at, speed=1e6), Pace(from_at=late_at - 200, speed=100.0))
    assert late.audit(*slowed).found(FindingKind.LATE_START) != ()


def test_one_who_never_ran_is_late_unless_they_gave_it_up_in_time(honest: History) -> None:
    run = next(run for run in honest.runs if run.generation == 1)
    start_by_at = next(one for one in honest.answers if one.reservation == run.reservation).told[0].start_by_at
    gone = honest.with_lines(lambda line: None if line.reservation == run.reservation else line)
    key = run.reservation
    assert key is not None
    never = gone.with_answer(key, lambda one: replace(one, let_go_at=None)).audit()
    assert [(f.kind, f.subject) for f in never.findings] == [(FindingKind.LATE_START, key)]
    gave_up = gone.with_answer(key, lambda one: replace(one, let_go_at=start_by_at)).audit()
    assert gave_up.findings == ()
    assert next(one for one in gave_up.judged if one.reservation == key).verdict is Verdict.LET_GO


def test_gpus_that_are_no_partition_are_found_and_so_is_a_partition_of_another_size(honest: History) -> None:
    run = next(run for run in honest.runs if len(run.gpus) == 4)
    crossing = tuple(gpu + 2 for gpu in range(4))

    def started_on(gpus: tuple[int, ...], partition: PartitionId | None) -> set[FindingKind]:
        return kinds(
            honest.with_lines(
                lambda line: (
                    replace(line, gpus=gpus, partition=partition or line.partition)
                    if line.domain == run.domain and line.what == "vm.starting"
                    else line
                )
            ).audit()
        ) - {FindingKind.GPU_CONFLICT}

    assert started_on(crossing, None) == {FindingKind.ILLEGAL_PARTITION}
    assert started_on(run.gpus, PartitionId("4g2-5")) == {FindingKind.ILLEGAL_PARTITION}
    smaller = next(p for p in PROFILE.partitions if p.size == 2)
    assert started_on(tuple(sorted(smaller.gpus)), smaller.id) == {FindingKind.WRONG_SIZE}


def test_one_who_was_parked_and_not_resumed_is_found_once_their_hours_cannot_be_delivered_any_more(
    honest: History,
) -> None:
    _, after = honest.parked
    key = after.reservation
    assert key is not None
    gone = honest.with_lines(lambda line: None if line.domain == after.domain else line)
    gone = gone.with_answer(key, lambda one: replace(one, let_go_at=None, ended_at=None))
    kept = next(one for one in gone.answers if one.reservation == key)
    before = [run for run in gone.runs if run.reservation == key]
    owed_s = kept.run_s - sum(run.up_s(0, gone.until_at) for run in before)
    end_by_at = kept.told[0].end_by_at
    resume_by_at = end_by_at - owed_s
    in_time = replace(gone, until_at=resume_by_at + 60).with_lines(
        lambda line: line if line.at <= resume_by_at else None
    )
    assert [f for f in in_time.audit().findings if f.subject == key] == []
    too_late = replace(in_time, until_at=resume_by_at + 61)
    assert [f.kind for f in too_late.audit().findings if f.subject == key] == [FindingKind.NOT_RESUMED]
    over = replace(in_time, until_at=end_by_at)
    assert [f.kind for f in over.audit().findings if f.subject == key] == [FindingKind.END_MISSED]


def test_a_vm_that_nobody_asked_for_is_found(honest: History) -> None:
    run = honest.runs[0]
    unasked = replace(honest, answers=tuple(k for k in honest.answers if k.reservation != run.reservation))
    assert kinds(unasked.audit()) == {FindingKind.NOBODY_ASKED}


def test_a_promise_put_off_without_a_word_is_found_and_with_one_it_is_counted_as_told(honest: History) -> None:
    kept = next(one for one in honest.answers if one.told and _up_at(honest, one.reservation) is not None)
    up_at = _up_at(honest, kept.reservation)
    assert up_at is not None
    first = replace(kept.told[0], start_by_at=up_at - 900)
    later = replace(first, seen_at=up_at - 800, start_by_at=up_at + 60, end_by_at=first.end_by_at + 900)

    def told(*promises: Told) -> Audit:
        return honest.with_answer(kept.reservation, lambda one: replace(one, told=promises)).audit()

    silent = told(first, later)
    assert kinds(silent) == {FindingKind.PUT_OFF_SILENTLY, FindingKind.LATE_START}
    spoken = told(first, replace(later, why="the host did not answer"))
    assert spoken.findings == ()
    assert spoken.count(Verdict.TOLD) == 1
    after_the_fact = told(first, replace(later, seen_at=up_at + 1, why="the host did not answer"))
    assert kinds(after_the_fact) == {FindingKind.LATE_START}


def test_one_to_whom_nothing_can_be_promised_any_more_was_told(honest: History) -> None:
    run = next(run for run in honest.runs if run.generation == 1)
    key = run.reservation
    assert key is not None
    gone = honest.with_lines(lambda line: None if line.reservation == key else line)
    given_up = gone.with_answer(
        key,
        lambda one: replace(one, let_go_at=None, told=(*one.told, replace(one.told[0], why="no place is left"))),
    ).audit()
    assert given_up.findings == ()
    assert next(one for one in given_up.judged if one.reservation == key).verdict is Verdict.TOLD


def test_machine_time_is_summed_over_the_speeds_that_were_run_at() -> None:
    paces = (Pace(from_at=0, speed=10.0), Pace(from_at=100, speed=100.0), Pace(from_at=1100, speed=0.0))
    assert machine_s(paces, 0, 100) == 10.0
    assert machine_s(paces, 50, 600) == 10.0
    assert machine_s(paces, 1000, 2000) == 1.0
    assert machine_s((), 5, 25) == 20.0


def _up_at(history: History, key: ReservationId) -> Instant | None:
    return min((run.up_at for run in history.runs if run.reservation == key and run.up_at), default=None)


def _disk_line(what: str, disk: str, at: Instant) -> LogLine:
    return LogLine(
        seq=0,
        at=at,
        what=what,
        domain=None,
        name=None,
        reservation=None,
        generation=None,
        gpus=(),
        partition=None,
        detail=(("disk", disk),),
    )
