"""Holds what a host's log says against what people were told, and knows nothing of the planner, its store or its plan.

    rack's log ─▶ runs (who held which GPUs when, and when a guest was up) ─┐
                                                                            ├─▶ findings, verdicts
    answers that people kept (promises, ends, retention) ───────────────────┘

A promise is kept when the log shows the guest running by `start_by`, give or take a minute of product time or a second
of machine time, and all its hours by `end_by`. A promise that was put off in an answer that says why is judged by what
was told last, and counted apart: told, not kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from uuid import UUID

from cli.answers import KeptAnswers, Pace, machine_s
from cli.runs import BEGINS, ENDS, Run, read_runs
from scheduler.core.requests import ReservationId
from scheduler.core.spans import MINUTE_S, Instant
from scheduler.core.topology import HostProfile
from workers.drivers.simulated.log import LogLine

LATE_S = MINUTE_S
"""So late in product time a start is still in time."""
LATE_MACHINE_S = 1.0
"""So late in machine time a start is still in time: at high speed a second is minutes of product time."""
OWED_S = MINUTE_S
"""Fewer hours missing than this are not worth another start."""


class FindingKind(StrEnum):
    GPU_CONFLICT = "gpu.conflict"
    TWO_VMS = "vm.twice"
    ILLEGAL_PARTITION = "partition.illegal"
    WRONG_SIZE = "partition.wrong_size"
    NOBODY_ASKED = "vm.nobody_asked"
    DISK_LOST = "disk.lost"
    LATE_START = "promise.late_start"
    END_MISSED = "promise.end_missed"
    NOT_RESUMED = "promise.not_resumed"
    PUT_OFF_SILENTLY = "promise.put_off_silently"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, in a sentence."""

    kind: FindingKind
    subject: str
    at: Instant
    sentence: str


class Verdict(StrEnum):
    KEPT = "kept"
    TOLD = "told"
    """Put off by a fault, and its owner was told; what was told last holds."""
    BROKEN = "broken"
    OPEN = "open"
    """Its time has not come by the end of the log."""
    LET_GO = "let_go"
    """Its owner gave it up before its time came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One reservation's promise, judged."""

    reservation: ReservationId
    verdict: Verdict
    up_at: Instant | None
    late_s: int | None
    """How far past `start_by` the guest was up; 0 when before it, None when it was not up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What an audit found."""

    findings: tuple[Finding, ...]
    judged: tuple[Judged, ...]

    def count(self, verdict: Verdict) -> int:
        return sum(1 for one in self.judged if one.verdict is verdict)

    def found(self, *kinds: FindingKind) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.kind in kinds)


def audit(
    log: Sequence[LogLine],
    answers: Sequence[KeptAnswers],
    *,
    profile: HostProfile,
    until_at: Instant,
    paces: Sequence[Pace] = (),
) -> Audit:
    """Judge one host's log, read up to `until_at`, by what people were told. Without `paces` time is not scaled."""
    answers_by_id = {kept.reservation: kept for kept in answers}
    runs = read_runs(log)
    findings = [
        *_shared_gpus(log),
        *_wrong_places(runs, answers_by_id, profile),
        *_two_vms(runs),
        *_lost_disks(log, runs, answers_by_id),
    ]
    judged = []
    for kept in answers:
        mine = [run for run in runs if run.reservation == kept.reservation]
        broken = [
            *_put_off_silently(kept),
            *_late_start(kept, mine, until_at, paces),
            *_hours(kept, mine, until_at, paces),
        ]
        findings += broken
        if kept.told:
            judged.append(_judged(kept, mine, until_at, is_broken=bool(broken)))
    return Audit(
        findings=tuple(sorted(findings, key=lambda f: (f.at, f.kind, f.subject))),
        judged=tuple(judged),
    )


# What holds at each instant.


def _shared_gpus(log: Sequence[LogLine]) -> Iterator[Finding]:
    """No GPU is in two running VMs."""
    holder_by_gpu: dict[int, tuple[UUID, str]] = {}
    for line in log:
        if line.domain is None:
            continue
        if line.what in BEGINS:
            for gpu in line.gpus:
                holder, name = holder_by_gpu.setdefault(gpu, (line.domain, str(line.name)))
                if holder != line.domain:
                    yield Finding(
                        kind=FindingKind.GPU_CONFLICT,
                        subject=f"GPU {gpu}",
                        at=line.at,
                        sentence=f"GPU {gpu} was given to {line.name} while {name} still held it",
                    )
        elif line.what in ENDS or line.what == "vm.stuck":
            kept = line.gpus if line.what == "vm.stuck" else ()
            for gpu in [g for g, (holder, _) in holder_by_gpu.items() if holder == line.domain and g not in kept]:
                del holder_by_gpu[gpu]


def _wrong_places(
    runs: Sequence[Run], answers_by_id: dict[ReservationId, KeptAnswers], profile: HostProfile
) -> Iterator[Finding]:
    """A VM's GPUs are exactly one partition of the host, of the size that was asked for."""
    legal = {str(partition.id): partition.gpus for partition in profile.partitions}
    for run in runs:
        if run.reservation is None:
            continue
        what = f"{run.reservation} was started on GPUs {_gpus_text(run.gpus)}"
        if legal.get(run.partition) != frozenset(run.gpus):
            yield Finding(
                kind=FindingKind.ILLEGAL_PARTITION,
                subject=run.reservation,
                at=run.held_at,
                sentence=f"{what}, which are not partition {run.partition or '(none)'} of a {profile.name}",
            )
        kept = answers_by_id.get(run.reservation)
        if kept is None:
            yield Finding(
                kind=FindingKind.NOBODY_ASKED,
                subject=run.reservation,
                at=run.held_at,
                sentence=f"{what}, and nobody has an answer about it",
            )
        elif len(run.gpus) != kept.gpus:
            yield Finding(
                kind=FindingKind.WRONG_SIZE,
                subject=run.reservation,
                at=run.held_at,
                sentence=f"{what}, {kept.gpus} were asked for",
            )


def _two_vms(runs: Sequence[Run]) -> Iterator[Finding]:
    """One reservation never has two VMs: both would write on one disk."""
    last: dict[ReservationId, Run] = {}
    for run in runs:
        if run.reservation is None:
            continue
        before = last.get(run.reservation)
        if before is not None and (before.free_at is None or before.free_at > run.held_at):
            yield Finding(
                kind=FindingKind.TWO_VMS,
                subject=run.reservation,
                at=run.held_at,
                sentence=f"{run.reservation} got a second VM on {run.partition} while it had one on {before.partition}",
            )
        last[run.reservation] = run


def _lost_disks(
    log: Sequence[LogLine], runs: Sequence[Run], answers_by_id: dict[ReservationId, KeptAnswers]
) -> Iterator[Finding]:
    """A disk is there, and the same one, from the first start to the end of its retention."""

    def lost(disk: str, at: Instant, sentence: str) -> Finding:
        return Finding(kind=FindingKind.DISK_LOST, subject=disk, at=at, sentence=sentence)

    owners: dict[str, set[ReservationId]] = {}
    disk_of: dict[ReservationId, str] = {}
    for run in runs:
        if run.reservation is None or run.disk is None:
            continue
        owners.setdefault(run.disk, set()).add(run.reservation)
        first = disk_of.setdefault(run.reservation, run.disk)
        if first != run.disk:
            yield lost(first, run.held_at, f"{run.reservation} was started with disk {run.disk}, it had {first} before")
    made: set[str] = set()
    for line in log:
        disk = str(line.fact("disk"))
        match line.what:
            case "disk.copying" if disk in made:
                yield lost(disk, line.at, f"disk {disk} was written over")
            case "disk.made":
                made.add(disk)
            case "vm.starting" if line.fact("disk") is not None and disk not in made:
                yield lost(disk, line.at, f"{line.reservation} was started with disk {disk}, which is not there")
            case "disk.deleting" | "disk.deleted" | "disk.cut_off" if disk in made:
                made.discard(disk)
                for kept in (answers_by_id[r] for r in sorted(owners.get(disk, ())) if r in answers_by_id):
                    if kept.ended_at is None or kept.ended_at > line.at:
                        yield lost(disk, line.at, f"disk {disk} was deleted, and {kept.reservation} has not ended")
                    elif kept.kept_until_at is None or line.at < kept.kept_until_at:
                        yield lost(disk, line.at, f"disk {disk} of {kept.reservation} was deleted in its retention")
            case _:
                pass


# What was promised.


def _put_off_silently(kept: KeptAnswers) -> Iterator[Finding]:
    """A promise only ever gets better, or the answer says what put it off."""
    for before, after in pairwise(kept.told):
        if before.is_put_off_by(after) and not after.why:
            yield Finding(
                kind=FindingKind.PUT_OFF_SILENTLY,
                subject=kept.reservation,
                at=after.seen_at,
                sentence=f"the promise of {kept.reservation} was put off, and nothing says why",
            )


def _is_in_time(paces: Sequence[Pace], by_at: Instant, at: Instant) -> bool:
    return at <= by_at + LATE_S or machine_s(paces, by_at, at) <= LATE_MACHINE_S


def _up_at(runs: Sequence[Run]) -> Instant | None:
    return min((run.up_at for run in runs if run.up_at is not None), default=None)


def _late_start(kept: KeptAnswers, runs: Sequence[Run], until_at: Instant, paces: Sequence[Pace]) -> Iterator[Finding]:
    if not kept.told or kept.is_given_up:
        return
    up_at = _up_at(runs)
    start_by_at = kept.start_by_at(up_at)
    if up_at is None and kept.let_go_at is not None and _is_in_time(paces, start_by_at, kept.let_go_at):
        return
    if not _is_in_time(paces, start_by_at, until_at if up_at is None else up_at):
        late_s = (until_at if up_at is None else up_at) - start_by_at
        how = "its guest was not up at the end" if up_at is None else "its guest was up"
        yield Finding(
            kind=FindingKind.LATE_START,
            subject=kept.reservation,
            at=start_by_at,
            sentence=f"{kept.reservation} was promised to run by then; {how} {late_s} s after it",
        )


def _hours(kept: KeptAnswers, runs: Sequence[Run], until_at: Instant, paces: Sequence[Pace]) -> Iterator[Finding]:
    """All hours are delivered by `end_by`; whoever was parked is up again while that can still be so."""
    if not kept.told or kept.is_given_up or _up_at(runs) is None:
        return
    end_by_at = kept.end_by_at()
    if kept.let_go_at is not None and kept.let_go_at <= end_by_at:
        return
    from_at = kept.not_before_at or 0
    ran_s = sum(run.up_s(from_at, min(end_by_at, until_at)) for run in runs)
    owed_s = kept.run_s - ran_s
    if owed_s <= OWED_S:
        return
    if end_by_at <= until_at:
        if machine_s(paces, end_by_at - owed_s, end_by_at) <= LATE_MACHINE_S:
            return
        yield Finding(
            kind=FindingKind.END_MISSED,
            subject=kept.reservation,
            at=end_by_at,
            sentence=f"{kept.reservation} was promised {kept.run_s} s by then and ran {ran_s} s",
        )
        return
    is_up = any(run.up_at is not None and run.down_at is None for run in runs)
    resume_by_at = end_by_at - owed_s
    if not is_up and not _is_in_time(paces, resume_by_at, until_at):
        yield Finding(
            kind=FindingKind.NOT_RESUMED,
            subject=kept.reservation,
            at=resume_by_at,
            sentence=f"{kept.reservation} is still owed {owed_s} s, had to run again by then and does not",
        )


def _judged(kept: KeptAnswers, runs: Sequence[Run], until_at: Instant, *, is_broken: bool) -> Judged:
    up_at = _up_at(runs)
    start_by_at = kept.start_by_at(up_at)
    if is_broken:
        verdict = Verdict.BROKEN
    elif up_at is None and kept.let_go_at is not None:
        verdict = Verdict.LET_GO
    elif kept.is_told:
        verdict = Verdict.TOLD
    elif up_at is None:
        verdict = Verdict.OPEN
    else:
        verdict = Verdict.KEPT
    return Judged(
        reservation=kept.reservation,
        verdict=verdict,
        up_at=up_at,
        late_s=None if up_at is None else max(0, up_at - start_by_at),
    )


def _gpus_text(gpus: Sequence[int]) -> str:
    if len(gpus) > 1 and tuple(gpus) == tuple(range(gpus[0], gpus[-1] + 1)):
        return f"{gpus[0]}-{gpus[-1]}"
    return ",".join(str(gpu) for gpu in gpus)
