"""What the two days came to, in numbers, and whether that is enough: from the rack's log and an audit of it.

Pure. Holds no texts but those that say what is missing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from cli.answers import KeptAnswers
from cli.auditor import Audit, FindingKind, Verdict
from cli.runs import Run
from scheduler.core.bounds import percentile
from scheduler.core.requests import ReservationId

LEAST_RESERVATIONS = 40
LEAST_SWAPS_EACH_WAY = 2
LEAST_RESUMED = 6
LEAST_ON_OTHER_BLOCK = 1
LEAST_BY_POLICY = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Parkings:
    """How often guests were parked, and how that went on."""

    parked: int
    resumed: int
    resumed_on_other_block: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """The two days in numbers."""

    reservations: int
    started: int
    promises: int
    """Those whose time came: kept, broken, or put off by a fault and told."""
    promises_kept: int
    promises_told: int
    promises_open: int
    """Those whose time comes after the two days."""
    swaps_to_night: int
    swaps_back: int
    parkings: Parkings
    by_policy: int
    gpu_conflicts: int
    disks_lost: int
    late_s: tuple[int | None, int | None, int | None]
    """p50, p95 and the most, past what was promised; 0 is in time."""

    def as_json(self, *, seconds: float) -> dict[str, Any]:
        """Return what `--json` writes; `seconds` of machine time it all took."""
        p50, p95, most = self.late_s
        return {
            "reservations": self.reservations,
            "started": self.started,
            "promises": self.promises,
            "promises_kept": self.promises_kept,
            "promises_open": self.promises_open,
            "swaps": self.swaps_to_night + self.swaps_back,
            "swaps_to_night": self.swaps_to_night,
            "swaps_back": self.swaps_back,
            "parked": self.parkings.parked,
            "resumed": self.parkings.resumed,
            "resumed_on_other_block": self.parkings.resumed_on_other_block,
            "by_policy": self.by_policy,
            "gpu_conflicts": self.gpu_conflicts,
            "disks_lost": self.disks_lost,
            "late_s": {"p50": p50, "p95": p95, "max": most},
            "seconds": round(seconds, 1),
        }


def count(runs: Sequence[Run], kept: Sequence[KeptAnswers], audited: Audit, *, gpus: int) -> Numbers:
    """Count; `gpus` of the whole host."""
    late_s = [one.late_s for one in audited.judged if one.late_s is not None]
    up = {run.reservation for run in runs if run.up_at is not None and run.reservation is not None}
    to_night, back = swaps(runs, gpus=gpus)
    settled = (Verdict.KEPT, Verdict.TOLD, Verdict.BROKEN)
    return Numbers(
        reservations=sum(1 for one in kept if one.told),
        started=len(up),
        promises=sum(audited.count(verdict) for verdict in settled),
        promises_kept=audited.count(Verdict.KEPT),
        promises_told=audited.count(Verdict.TOLD),
        promises_open=audited.count(Verdict.OPEN),
        swaps_to_night=to_night,
        swaps_back=back,
        parkings=parkings(runs, kept),
        by_policy=sum(1 for one in kept if one.by_policy is not None and one.reservation in up),
        gpu_conflicts=len(audited.found(FindingKind.GPU_CONFLICT)),
        disks_lost=len(audited.found(FindingKind.DISK_LOST)),
        late_s=(percentile(late_s, 0.5), percentile(late_s, 0.95), max(late_s, default=None)),
    )


def swaps(runs: Sequence[Run], *, gpus: int) -> tuple[int, int]:
    """Return how often the whole host went from tenants to one VM, and how often back."""
    was_whole: bool | None = None
    to_night = back = 0
    for run in (run for run in runs if run.up_at is not None):
        is_whole = len(run.gpus) == gpus
        if was_whole is False and is_whole:
            to_night += 1
        elif was_whole is True and not is_whole:
            back += 1
        was_whole = is_whole
    return to_night, back


def parkings(runs: Sequence[Run], kept: Sequence[KeptAnswers]) -> Parkings:
    """Count guests that went off with hours left to deliver, and those that were up again."""
    runs_of: dict[ReservationId, list[Run]] = {}
    for run in runs:
        if run.reservation is not None and run.up_at is not None:
            runs_of.setdefault(run.reservation, []).append(run)
    pairs = [pair for mine in runs_of.values() for pair in pairwise(mine)]
    is_over = {one.reservation for one in kept if one.ended_at is not None or one.let_go_at is not None}
    waiting = [key for key, mine in runs_of.items() if mine[-1].free_at is not None and key not in is_over]
    return Parkings(
        parked=len(pairs) + len(waiting),
        resumed=len(pairs),
        resumed_on_other_block=sum(1 for before, after in pairs if before.partition != after.partition),
    )


def missing(numbers: Numbers) -> Iterator[str]:
    """Yield what falls short of what a demonstration has to show, a line each."""
    enough = (
        ("reservations", numbers.reservations, LEAST_RESERVATIONS),
        ("swaps to night", numbers.swaps_to_night, LEAST_SWAPS_EACH_WAY),
        ("swaps back", numbers.swaps_back, LEAST_SWAPS_EACH_WAY),
        ("guests parked and resumed", numbers.parkings.resumed, LEAST_RESUMED),
        ("guests resumed on another block", numbers.parkings.resumed_on_other_block, LEAST_ON_OTHER_BLOCK),
        ("reservations that the policy asked for and that ran", numbers.by_policy, LEAST_BY_POLICY),
    )
    for what, found, least in enough:
        if found < least:
            yield f"{found} {what}, at least {least} are to be seen"
