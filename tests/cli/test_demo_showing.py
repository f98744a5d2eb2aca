"""What the demonstration shows while it runs: on a terminal one picture, elsewhere lines; readable without colour."""

import io
import re
from collections import Counter
from dataclasses import replace
from uuid import UUID
from zoneinfo import ZoneInfo

from rich.console import Console

from cli.answers import KeptAnswers, Told
from cli.demonstration.screen import Holder, Hours, LiveScreen, Picture, PlainScreen, screen_for
from cli.demonstration.students import Asked
from cli.demonstration.telling import Happening, of_asking, of_lines
from cli.recorded import Arrival
from cli.runs import read_runs
from scheduler.core.phases import Phase
from scheduler.core.requests import ReservationId
from scheduler.core.spans import HOUR_S
from scheduler.core.topology import PartitionId
from workers.drivers.simulated.log import LogLine

NOW = 1_772_442_000
"""Monday 10:00 in Berlin."""
SHOW = Hours(zone=ZoneInfo("Europe/Berlin"), near_at=NOW)
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ADA = ReservationId("r-7")

PICTURE = Picture(
    now=NOW,
    from_at=NOW,
    until_at=NOW + 48 * HOUR_S,
    speed=120.0,
    busy_with="starting",
    gpus=16,
    holders={
        0: Holder(reservation="r-7", owner="ada", state="running"),
        1: Holder(reservation="r-8", owner="bela", state="starting"),
        2: Holder(reservation="r-9", owner="chen", state="stopping"),
    },
    resetting=frozenset({3}),
    layout="day",
    is_window=False,
    phases=Counter({Phase.RUNNING: 1, Phase.STARTING: 1, Phase.PARKED: 4}),
    started=5,
    kept=4,
    seconds=12.3,
)


def shown(picture: Picture, *happenings: Happening, width: int) -> str:
    out = Console(file=io.StringIO(), width=width, height=40, force_terminal=True, color_system=None)
    with LiveScreen(out, SHOW) as screen:
        for happening in happenings:
            screen.happened(happening)
        screen.moved(picture)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_the_picture_says_who_has_which_gpu_and_what_it_does_without_colour() -> None:
    text = shown(PICTURE, Happening(at=NOW, text="r-7 (ada) runs on GPU 0"), width=100)
    for said in ("Mon 10:00", "layout day", "120× (starting)", "12 s", "r-7", "ada", "↑", "↓", "reset", "free"):
        assert said in text
    assert "1 starting · 1 running · 4 parked" in text
    assert "4 of 5 started in time" in text
    assert "Mon 10:00  r-7 (ada) runs on GPU 0" in text


def test_the_picture_fits_a_narrow_terminal() -> None:
    for width in (50, 80, 200):
        lines = _CONTROL.sub("", shown(PICTURE, Happening(at=NOW, text="word " * 60), width=width)).splitlines()
        panel = [line for line in lines if line[:1] in ("╭", "│", "╰")]
        assert len(panel) > 20
        assert {len(line) for line in panel} == {min(width, 100)}


def test_where_nobody_watches_big_things_are_told_and_how_it_stands_every_four_hours() -> None:
    out = Console(file=io.StringIO(), width=200)
    screen = screen_for(out, SHOW)
    assert isinstance(screen, PlainScreen)
    with screen:
        screen.happened(Happening(at=NOW, text="small"))
        screen.happened(Happening(at=NOW, text="big", is_big=True))
        for hours in range(9):
            screen.moved(replace(PICTURE, now=NOW + hours * HOUR_S))
    assert isinstance(out.file, io.StringIO)
    lines = out.file.getvalue().splitlines()
    assert lines[0] == "Mon 10:00  big"
    assert [line[:9] for line in lines[1:]] == ["Mon 10:00", "Mon 13:00", "Mon 17:00"]
    assert all("3 of 16 GPUs held" in line for line in lines[1:])


def test_an_instant_far_off_is_shown_with_its_date() -> None:
    assert SHOW(NOW + HOUR_S) == "Mon 11:00"
    assert SHOW(NOW + 7 * 24 * HOUR_S) == "Mon 09 Mar 10:00"


def test_asking_is_told_with_the_promise_or_the_reason_against_it() -> None:
    arrival = Arrival(at=NOW, owner="ada", gpus=16, run_s=3 * HOUR_S, needs_s=HOUR_S)
    told = Told(seen_at=NOW, start_by_at=NOW + HOUR_S, end_by_at=NOW + 9 * HOUR_S)
    kept = KeptAnswers(reservation=ADA, owner="ada", gpus=16, run_s=3 * HOUR_S, submitted_at=NOW, told=(told,))
    yes = Asked(arrival=arrival, reservation=ADA, said="")
    no = Asked(arrival=arrival, reservation=None, said="ada has too many")
    assert [(h.text, h.is_big) for h in of_asking([yes, no], {ADA: kept}, SHOW)] == [
        ("ada asks for 16 GPUs, 3h: r-7, runs by Mon 11:00", True),
        ("ada asks for 16 GPUs, 3h: no, ada has too many", True),
    ]


def line(what: str, at: int, generation: int, partition: str, *gpus: int) -> LogLine:
    return LogLine(
        seq=at,
        at=at,
        what=what,
        domain=UUID(int=generation),
        name="nightshift-r-7",
        reservation=ADA,
        generation=generation,
        gpus=gpus,
        partition=PartitionId(partition),
        detail=(),
    )


def test_a_guest_that_is_parked_and_back_elsewhere_is_told_as_that() -> None:
    log = (
        line("vm.starting", NOW, 1, "2g0-1", 0, 1),
        line("guest.up", NOW + 60, 1, "2g0-1", 0, 1),
        line("vm.off", NOW + 500, 1, "2g0-1", 0, 1),
        line("vm.starting", NOW + 900, 2, "2g4-5", 4, 5),
        line("guest.up", NOW + 960, 2, "2g4-5", 4, 5),
    )

    def told(phase: Phase) -> list[str]:
        return [h.text for h in of_lines(log, read_runs(log), {ADA: "ada"}, {ADA: phase}, gpus=16)]

    assert told(Phase.PARKED) == [
        "r-7 (ada) runs on GPUs 0-1",
        "r-7 (ada) is parked, its disk is kept",
        "r-7 (ada) is back on GPUs 4-5, another block",
    ]
    assert "r-7 (ada) is done" in told(Phase.ENDED)
