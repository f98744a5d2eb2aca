"""The simulated-time loop moves forward only, in order, and never hangs."""

import pytest

from scheduler.core.replay import Agenda, VirtualClock


def test_calls_run_in_order_of_time_and_then_of_entry() -> None:
    agenda = Agenda(VirtualClock(100))
    seen: list[tuple[str, int]] = []
    for name, at in (("c", 120), ("a", 110), ("past", 5), ("b", 110)):
        agenda.at(at, lambda name=name: seen.append((name, agenda.clock.now())))  # type: ignore[misc]
    agenda.run_until(119)
    assert seen == [("past", 100), ("a", 110), ("b", 110)]
    assert agenda.clock.now() == 119
    agenda.run_until(120)
    assert seen[3:] == [("c", 120)]


def test_a_loop_that_does_not_move_time_on_is_ended() -> None:
    agenda = Agenda(VirtualClock(0))

    def again() -> None:
        agenda.at(0, again)

    again()
    with pytest.raises(RuntimeError, match="without reaching"):
        agenda.run_until(1, most_calls=100)


def test_a_blocking_call_has_time_of_its_own() -> None:
    clock = VirtualClock(10)
    with clock.branch() as branch:
        clock.sleep_until(50)
        assert clock.now() == 50
        with pytest.raises(RuntimeError, match="do not nest"), clock.branch():
            pass
    assert branch.now == 50
    assert clock.now() == 10
    with pytest.raises(RuntimeError, match="nothing may block"):
        clock.sleep_until(11)
    with pytest.raises(ValueError, match="cannot go back"):
        clock.move_to(9)
