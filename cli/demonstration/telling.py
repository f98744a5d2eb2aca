"""What happened, in words: one short line for what a person wants to know of, from the rack's log and the answers.

Pure. Holds no drawing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from cli.answers import KeptAnswers
from cli.demonstration.students import Asked
from cli.runs import Run
from policies.units import duration_text
from scheduler.core.phases import Phase
from scheduler.core.requests import ReservationId
from scheduler.core.spans import Instant
from workers.drivers.simulated.log import LogLine

ShowHour = Callable[[Instant], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One line."""

    at: Instant
    text: str
    is_big: bool = False
    """Also told where nobody watches."""


def of_asking(asked: Iterable[Asked], kept: Mapping[ReservationId, KeptAnswers], show: ShowHour) -> Iterator[Happening]:
    """Tell what somebody asked for and what they were promised."""
    for one in asked:
        arrival = one.arrival
        what = f"{arrival.owner} asks for {gpus_text(arrival.gpus)}, {duration_text(arrival.run_s)}"
        answer = None if one.reservation is None else kept.get(one.reservation)
        if one.reservation is None:
            yield Happening(at=arrival.at, text=f"{what}: no, {one.said}", is_big=True)
        elif answer is None or not answer.told:
            yield Happening(at=arrival.at, text=f"{what}: {one.reservation}, being planned")
        else:
            by = show(answer.told[0].start_by_at)
            yield Happening(at=arrival.at, text=f"{what}: {one.reservation}, runs by {by}", is_big=arrival.gpus >= 8)


def of_lines(
    lines: Iterable[LogLine],
    runs: Iterable[Run],
    owners: Mapping[ReservationId, str],
    phases: Mapping[ReservationId, Phase],
    *,
    gpus: int,
) -> Iterator[Happening]:
    """Tell what happened on a host of so many GPUs."""
    up_before: dict[ReservationId, list[Run]] = {}
    for run in runs:
        if run.reservation is not None and run.up_at is not None:
            up_before.setdefault(run.reservation, []).append(run)
    for line in lines:
        if line.reservation is None:
            continue
        who = f"{line.reservation} ({owners.get(line.reservation, '?')})"
        if line.what == "guest.up":
            earlier = [run for run in up_before.get(line.reservation, []) if (run.up_at or 0) < line.at]
            yield _of_up(line, who, earlier, gpus=gpus)
        elif line.what == "vm.off":
            is_parked = phases.get(line.reservation) in (Phase.PARKING, Phase.PARKED)
            text = f"{who} is parked, its disk is kept" if is_parked else f"{who} is done"
            yield Happening(at=line.at, text=text, is_big=len(line.gpus) == gpus)


def _of_up(line: LogLine, who: str, earlier: list[Run], *, gpus: int) -> Happening:
    where = f"all {gpus} GPUs" if len(line.gpus) == gpus else f"GPUs {line.gpus[0]}-{line.gpus[-1]}"
    if len(line.gpus) == 1:
        where = f"GPU {line.gpus[0]}"
    if not earlier:
        return Happening(at=line.at, text=f"{who} runs on {where}", is_big=len(line.gpus) == gpus)
    is_moved = earlier[-1].partition != line.partition
    return Happening(at=line.at, text=f"{who} is back on {where}{', another block' if is_moved else ''}")


def gpus_text(gpus: int) -> str:
    return "1 GPU" if gpus == 1 else f"{gpus} GPUs"
