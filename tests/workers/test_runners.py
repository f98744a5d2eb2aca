"""Chains: one after the other for one key, at once for several, and never on after a kill."""

from collections.abc import Callable
from threading import Barrier, Event

import pytest

from scheduler.core.replay import Agenda, VirtualClock
from workers.runners import AgendaRunner, ThreadRunner


class Killed(BaseException):
    pass


class Bench:
    def __init__(self) -> None:
        self.clock = VirtualClock(1000)
        self.agenda = Agenda(self.clock)
        self.runner = AgendaRunner(self.agenda, self.clock)
        self.seen: list[tuple[int, str]] = []

    def takes(self, name: str, seconds: int, failure: BaseException | None = None) -> Callable[[], None]:
        def step() -> None:
            self.seen.append((self.clock.now(), name))
            self.clock.sleep_until(self.clock.now() + seconds)
            if failure is not None:
                raise failure

        return step

    def done(self, name: str) -> Callable[[Exception | None], None]:
        return lambda failure: self.seen.append((self.clock.now(), f"{name} {failure}"))


def test_each_step_begins_when_the_one_before_returned_in_virtual_time() -> None:
    bench = Bench()
    bench.runner.run("a", (bench.takes("1", 30), bench.takes("2", 12)), bench.done("a"))
    assert bench.seen == []
    bench.agenda.run_until(2000)
    assert bench.seen == [(1000, "1"), (1030, "2"), (1042, "a None")]


def test_chains_of_one_key_queue_and_of_two_keys_do_not() -> None:
    bench = Bench()
    bench.runner.run("a", (bench.takes("a1", 30),), bench.done("a1"))
    bench.runner.run("a", (bench.takes("a2", 5),), bench.done("a2"))
    bench.runner.run("b", (bench.takes("b1", 10),), bench.done("b1"))
    bench.agenda.run_until(2000)
    assert [name for _, name in bench.seen] == ["a1", "b1", "b1 None", "a1 None", "a2", "a2 None"]
    assert bench.seen[-1] == (1035, "a2 None")


def test_a_failure_ends_its_chain_at_the_instant_it_was_raised() -> None:
    bench = Bench()
    bench.runner.run("a", (bench.takes("1", 30, ValueError("no")), bench.takes("2", 1)), bench.done("a"))
    bench.agenda.run_until(2000)
    assert bench.seen == [(1000, "1"), (1030, "a no")]


def test_a_kill_comes_out_of_the_agenda_and_no_later_step_runs() -> None:
    bench = Bench()
    bench.runner.run("a", (bench.takes("a1", 5, Killed()), bench.takes("a2", 1)), bench.done("a"))
    bench.runner.run("b", (bench.takes("b1", 50), bench.takes("b2", 1)), bench.done("b"))
    with pytest.raises(Killed):
        bench.agenda.run_until(2000)
    bench.runner.kill()
    bench.runner.run("c", (bench.takes("c1", 1),), bench.done("c"))
    bench.agenda.run_until(2000)
    assert [name for _, name in bench.seen] == ["a1"]


def test_threads_run_chains_of_different_keys_at_once_and_tell_their_ends() -> None:
    runner = ThreadRunner(2)
    both = Barrier(2, timeout=10)
    ends: list[Exception | None] = []
    told = [Event(), Event()]

    def done(number: int) -> Callable[[Exception | None], None]:
        def tell(failure: Exception | None) -> None:
            ends.append(failure)
            told[number].set()

        return tell

    def meet() -> None:
        both.wait()

    runner.run("a", (meet,), done(0))
    runner.run("b", (meet,), done(1))
    assert all(event.wait(10) for event in told)
    runner.close()
    assert ends == [None, None]


def test_threads_run_chains_of_one_key_in_order_and_tell_failures() -> None:
    runner = ThreadRunner(4)
    seen: list[str] = []
    last = Event()

    def fail() -> None:
        seen.append("first")
        raise ValueError("no")

    runner.run("a", (fail, lambda: seen.append("never")), lambda failure: seen.append(f"told {failure}"))
    runner.run("a", (lambda: seen.append("second"),), lambda failure: last.set())
    assert last.wait(10)
    runner.close()
    assert seen == ["first", "told no", "second"]


def test_closing_waits_for_the_running_step_and_begins_no_other() -> None:
    runner = ThreadRunner(1)
    running, go_on, told = Event(), Event(), Event()
    seen: list[str] = []

    def step() -> None:
        running.set()
        go_on.wait(10)
        seen.append("first")

    runner.run("a", (step, lambda: seen.append("second")), lambda failure: told.set())
    runner.run("b", (lambda: seen.append("other"),), lambda failure: told.set())
    assert running.wait(10)
    runner.begin_close()
    go_on.set()
    runner.close()
    runner.run("c", (lambda: seen.append("late"),), lambda failure: told.set())
    assert (seen, told.is_set()) == (["first"], False)
