"""Tests of the clocks: what two processes see of one time, over beats, changes of speed, and ends of every kind."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.service.clock import (
    BEAT_S,
    HOLD_S,
    ClockKeeper,
    ClockUnreadable,
    RealClock,
    ScaledClock,
    open_clock,
    read_anchor,
)

START_S = 1_700_000_000.0
PRODUCT = 1_772_445_600


class Machine:
    """The machine's clock, which passes when a test says so; sleeping passes it."""

    def __init__(self) -> None:
        self.now_s = START_S
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "clock.json"


def keeper_at(path: Path, machine: Machine, speed: float) -> ClockKeeper:
    keeper = ClockKeeper(path, machine=machine)
    keeper.open(speed, PRODUCT)
    return keeper


def pass_with_beats(machine: Machine, keeper: ClockKeeper, seconds: float) -> None:
    until_s = machine.now_s + seconds
    while machine.now_s < until_s:
        machine.now_s = min(machine.now_s + BEAT_S, until_s)
        keeper.beat()


def test_product_time_goes_at_the_speed_while_it_is_kept(path: Path, machine: Machine) -> None:
    keeper = keeper_at(path, machine, 60)
    clock = ScaledClock(path, machine=machine)
    assert clock.now() == PRODUCT
    pass_with_beats(machine, keeper, 10)
    assert clock.now() == pytest.approx(PRODUCT + 600, abs=1)
    assert clock.machine_s() == machine.now_s
    assert clock.speed == 60


def test_product_time_stands_still_without_a_heartbeat(path: Path, machine: Machine) -> None:
    keeper_at(path, machine, 60)
    clock = ScaledClock(path, machine=machine)
    machine.now_s += 5
    held = clock.now()
    assert held == PRODUCT + HOLD_S * 60
    machine.now_s += 3600
    assert clock.now() == held
    assert clock.machine_s_at(held + 1) is None
    assert clock.heartbeat_age_s == pytest.approx(3605)


def test_a_machine_clock_that_is_put_back_takes_back_nothing_that_anybody_saw(path: Path, machine: Machine) -> None:
    keeper = keeper_at(path, machine, 60)
    pass_with_beats(machine, keeper, 2)
    machine.now_s += BEAT_S * 0.9
    seen = ScaledClock(path, machine=machine).now()
    machine.now_s -= 3600
    keeper.beat()
    # Another process, which has not seen anything yet.
    other = ScaledClock(path, machine=machine)
    assert seen <= other.now() <= seen + 60 * HOLD_S
    before = other.now()
    pass_with_beats(machine, keeper, 1)
    assert other.now() == pytest.approx(before + 60, abs=1)


def test_time_goes_on_from_where_everybody_saw_it_stop_when_the_keeper_was_held_up(
    path: Path, machine: Machine
) -> None:
    keeper = keeper_at(path, machine, 60)
    clock = ScaledClock(path, machine=machine)
    machine.now_s += 100
    stopped = clock.now()
    keeper.beat()
    assert clock.now() == stopped
    pass_with_beats(machine, keeper, 1)
    assert clock.now() == pytest.approx(stopped + 60, abs=1)


def test_after_an_end_that_was_not_clean_time_goes_on_no_earlier_than_anybody_saw(path: Path, machine: Machine) -> None:
    keeper = keeper_at(path, machine, 60)
    pass_with_beats(machine, keeper, 3)
    clock = ScaledClock(path, machine=machine)
    # Killed just after its last beat; a reader sees the curve to its end.
    machine.now_s += 50
    seen = clock.now()
    resumed = ClockKeeper(path, machine=machine).open(60, now=0)
    assert resumed >= seen
    assert resumed - seen <= 1
    assert clock.now() == resumed


def test_after_a_clean_end_time_stands_still_until_it_is_opened_again(path: Path, machine: Machine) -> None:
    keeper = keeper_at(path, machine, 60)
    pass_with_beats(machine, keeper, 2)
    keeper.close()
    clock = ScaledClock(path, machine=machine)
    machine.now_s += 1
    ended = clock.now()
    machine.now_s += 86_400
    assert clock.now() == ended
    assert clock.speed == 0
    assert ClockKeeper(path, machine=machine).open(1, now=0) == ended
    assert clock.now() == ended


def test_a_change_of_speed_bends_time_and_never_breaks_it(path: Path, machine: Machine) -> None:
    keeper = keeper_at(path, machine, 60)
    clock = ScaledClock(path, machine=machine)
    pass_with_beats(machine, keeper, 1)
    before = clock.now()
    keeper.set_speed(600)
    assert 0 <= clock.now() - before <= 1
    pass_with_beats(machine, keeper, 1)
    assert clock.now() == pytest.approx(before + 600, abs=5)
    faster = clock.now()
    keeper.set_speed(1)
    assert 0 <= clock.now() - faster <= 600 * 0.02
    slower = clock.now()
    pass_with_beats(machine, keeper, 10)
    assert clock.now() == pytest.approx(slower + 10, abs=1)


STEPS = st.one_of(
    st.tuples(st.just("pass"), st.floats(min_value=0, max_value=3)),
    st.tuples(st.just("set_back"), st.floats(min_value=0, max_value=100)),
    st.tuples(st.just("beat"), st.just(0.0)),
    st.tuples(st.just("speed"), st.sampled_from([0.0, 0.5, 1.0, 60.0, 3600.0])),
    st.tuples(st.just("close and open"), st.sampled_from([1.0, 60.0])),
    st.tuples(st.just("die and open"), st.sampled_from([1.0, 60.0])),
)


@settings(max_examples=60)
@given(steps=st.lists(STEPS, max_size=30))
def test_no_reader_ever_sees_time_go_back(
    steps: list[tuple[str, float]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("clock") / "clock.json"
    machine = Machine()
    keeper = keeper_at(path, machine, 60)
    first = ScaledClock(path, machine=machine)
    latest = 0
    for kind, value in steps:
        match kind:
            case "pass":
                machine.now_s += value
            case "set_back":
                machine.now_s -= value
            case "beat":
                keeper.beat()
            case "speed":
                keeper.set_speed(value)
            case "close and open":
                keeper.close()
                keeper.open(value, now=0)
            case _:
                keeper = ClockKeeper(path, machine=machine)
                keeper.open(value, now=0)
        seen = first.now()
        assert seen >= latest
        latest = seen
        # One that begins to look only now has no memory of its own; but for a machine whose clock was set back.
        if not any(kind == "set_back" for kind, _ in steps):
            assert ScaledClock(path, machine=machine).now() >= latest


def test_two_processes_agree(path: Path) -> None:
    keeper = ClockKeeper(path)
    keeper.open(1000, PRODUCT)
    code = (
        "import sys; from pathlib import Path; from scheduler.service.clock import ScaledClock;"
        "clock = ScaledClock(Path(sys.argv[1]))\n"
        "while clock.heartbeat_age_s < 1: pass\n"
        "print(clock.now())"
    )
    other = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(other.stdout) == ScaledClock(path).now() == PRODUCT + 1000


def test_a_look_costs_less_than_20_microseconds(path: Path) -> None:
    keeper = ClockKeeper(path)
    keeper.open(60, PRODUCT)
    clock = ScaledClock(path)
    times = []
    for _ in range(5):
        began_s = time.perf_counter()
        for _ in range(2000):
            clock.now()
        times.append((time.perf_counter() - began_s) / 2000)
    assert min(times) < 20e-6


def test_sleepers_follow_a_change_of_speed(path: Path, machine: Machine) -> None:
    keeper = keeper_at(path, machine, 1)

    def sleep(seconds: float) -> None:
        machine.sleep(seconds)
        if len(machine.slept) == 5:
            keeper.set_speed(3600)
        keeper.beat()

    clock = ScaledClock(path, machine=machine, sleep=sleep)
    clock.sleep_until(PRODUCT + 3600)
    assert clock.now() >= PRODUCT + 3600
    assert machine.now_s - START_S < 3


def test_a_sleeper_wakes_at_its_instant(path: Path, machine: Machine) -> None:
    keeper = keeper_at(path, machine, 60)

    def sleep(seconds: float) -> None:
        machine.sleep(seconds)
        keeper.beat()

    clock = ScaledClock(path, machine=machine, sleep=sleep)
    clock.sleep_until(PRODUCT + 30)
    assert clock.now() == PRODUCT + 30
    assert machine.now_s - START_S == pytest.approx(0.5, abs=0.01)
    clock.sleep_until(PRODUCT)
    assert machine.now_s - START_S == pytest.approx(0.5, abs=0.01)


def test_the_instant_of_an_instant_is_when_the_clock_shows_it(path: Path, machine: Machine) -> None:
    keeper = keeper_at(path, machine, 60)
    clock = ScaledClock(path, machine=machine)
    at_s = clock.machine_s_at(PRODUCT + 30)
    assert at_s is not None
    pass_with_beats(machine, keeper, at_s - machine.now_s - 0.001)
    assert clock.now() == PRODUCT + 29
    machine.now_s += 0.002
    assert clock.now() == PRODUCT + 30
    assert clock.machine_s_at(PRODUCT) == machine.now_s


@pytest.mark.parametrize("text", ["", "{", '{"machine_s": 1}', "[]", '{"machine_s": "x", "product_s": 1, "speed": 1}'])
def test_a_torn_file_leaves_readers_with_the_last_anchor(path: Path, machine: Machine, text: str) -> None:
    keeper = keeper_at(path, machine, 60)
    clock = ScaledClock(path, machine=machine)
    machine.now_s += 0.5
    path.write_text(text)
    assert clock.now() == PRODUCT + 30
    path.unlink()
    assert clock.now() == PRODUCT + 30
    keeper.beat()
    machine.now_s += 0.5
    assert clock.now() == PRODUCT + 60


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"machine_s": 1, "product_s": 1}',
        '{"machine_s": 1, "product_s": 1, "speed": -1}',
        '{"machine_s": 1, "product_s": NaN, "speed": 1}',
    ],
)
def test_a_file_that_never_said_the_time_is_refused_with_what_to_do(path: Path, machine: Machine, text: str) -> None:
    path.write_text(text)
    with pytest.raises(ClockUnreadable, match=r"clock\.json.*move the file away"):
        ScaledClock(path, machine=machine)
    with pytest.raises(ClockUnreadable):
        ClockKeeper(path, machine=machine).open(60, PRODUCT)


def test_the_file_is_replaced_whole(path: Path, machine: Machine) -> None:
    keeper = keeper_at(path, machine, 60)
    with path.open() as opened:
        pass_with_beats(machine, keeper, 1)
        # Who has the old file open reads the old file, to its end.
        assert json.load(opened)["product_s"] == PRODUCT
    assert read_anchor(path).product_s == pytest.approx(PRODUCT + 60)
    assert [entry.name for entry in path.parent.iterdir()] == ["clock.json"]


def test_beats_within_a_quarter_of_a_second_write_once(path: Path, machine: Machine) -> None:
    keeper = keeper_at(path, machine, 60)
    before = path.stat().st_ino
    for _ in range(5):
        machine.now_s += 0.04
        keeper.beat()
    assert path.stat().st_ino == before


@pytest.mark.parametrize("speed", [-1.0, float("nan"), float("inf")])
def test_what_is_no_speed_is_refused(path: Path, machine: Machine, speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        ClockKeeper(path, machine=machine).open(speed, PRODUCT)


def test_a_data_directory_has_real_time_unless_it_ever_ran_at_another_speed(tmp_path: Path) -> None:
    assert isinstance(open_clock(tmp_path), RealClock)
    ClockKeeper(tmp_path / "clock.json").open(60, PRODUCT)
    assert isinstance(open_clock(tmp_path), ScaledClock)


def test_real_time_is_the_machines() -> None:
    clock = RealClock()
    assert abs(clock.now() - time.time()) <= 1
    assert abs(clock.machine_s() - time.time()) < 1
    assert clock.machine_s_at(clock.now() + 5) == clock.now() + 5
    clock.sleep_until(clock.now() - 5)
