"""Children of a supervisor: told how they ended, started again with a pause, gone when their parent is."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli import parent_watch
from cli.children import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    STEADY_AFTER_S,
    BackOff,
    Child,
    ChildEnd,
    ChildSpec,
    cut_log,
    last_line,
)
from cli.data_directory import birth_of, read_children
from cli.family import Family
from cli.installation import Installation
from tests.running import wait_for

WITHIN_S = 20.0


def ends_of(family: Family) -> tuple[ChildEnd, ...]:
    return wait_for("a child ends", lambda: family.tend() or None, within_s=WITHIN_S)


def wait_until(is_so: Callable[[], bool]) -> None:
    wait_for("it comes to that", is_so, within_s=WITHIN_S)


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    installation = Installation(data=tmp_path, database_url="sqlite://", redis_url="redis://127.0.0.1:1")
    installation.logs.mkdir()
    found = Family(installation, print)
    yield found
    found.kill(tuple(child.spec.name for child in found.all()))
    found.close()


def test_the_pause_doubles_up_to_a_limit_and_begins_anew_after_a_steady_life() -> None:
    back_off = BackOff()
    pauses = [back_off.after_end(0.0) for _ in range(8)]
    assert pauses[:4] == [FIRST_PAUSE_S * 2**n for n in range(4)]
    assert pauses[-1] == LONGEST_PAUSE_S
    assert back_off.failures == 8
    assert back_off.after_end(STEADY_AFTER_S) == FIRST_PAUSE_S
    assert back_off.failures == 1


def test_an_end_is_told_once_with_its_status_and_its_last_line(tmp_path: Path) -> None:
    log = tmp_path / "it.log"
    log.write_text("from the life before\n")
    command = python("import sys; print('first'); print('the disk is full', file=sys.stderr); sys.exit(7)")
    child = Child(spec=ChildSpec(name="it", command=command, log=log, environment={}))
    child.start("it-1", 100.0)
    end = wait_for("it ends", lambda: child.poll(103.0), within_s=WITHIN_S)
    assert (end.status, end.instance, end.alive_s, end.last_line) == (7, "it-1", 3.0, "the disk is full")
    assert end.text == "ended with status 7"
    assert child.poll(104.0) is None
    assert child.start_again_at_s == 103.0 + FIRST_PAUSE_S


def test_an_end_by_a_signal_names_it(family: Family) -> None:
    family.add("it", python("import time; time.sleep(60)"), environment={})
    child = family.get("it")
    assert child is not None
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    assert ends_of(family)[0].text == "was ended by SIGKILL"


def test_who_dies_is_started_again_under_another_name(family: Family) -> None:
    family.add("it", python("pass"), environment={})
    child = family.get("it")
    assert child is not None
    seen = {child.instance}

    def has_lived_thrice() -> bool:
        family.tend()
        seen.add(child.instance)
        return len(seen) >= 3

    wait_until(has_lived_thrice)


def test_a_program_that_is_not_there_is_told_in_its_log_and_tried_again(family: Family, tmp_path: Path) -> None:
    family.add("it", ("/nonexistent/redis-server",), environment={})
    (end,) = ends_of(family)
    assert end.status == 127
    assert "cannot run /nonexistent/redis-server" in end.last_line


def test_children_are_written_down_as_they_come_and_go(family: Family, tmp_path: Path) -> None:
    installation = Installation(data=tmp_path, database_url="sqlite://", redis_url="redis://127.0.0.1:1")
    family.add("it", python("import time; time.sleep(60)"), environment={})
    (record,) = read_children(installation)
    assert record.born == birth_of(record.pid)
    first = record.pid
    os.kill(first, signal.SIGKILL)

    def is_another_written_down() -> bool:
        family.tend()
        return [child.pid for child in read_children(installation) if child.pid != first] != []

    wait_until(is_another_written_down)


def test_killing_takes_along_what_the_child_started(family: Family, tmp_path: Path) -> None:
    told = tmp_path / "pid"
    code = f"""
import subprocess, sys, time
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open({str(told)!r}, "w").write(str(grandchild.pid))
time.sleep(60)
"""
    family.add("it", python(code), environment={})
    wait_until(lambda: told.exists() and told.read_text() != "")
    grandchild = int(told.read_text())
    assert birth_of(grandchild) is not None
    family.kill(("it",))
    wait_until(lambda: birth_of(grandchild) is None)


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    parent = f"""
import sys, time
from pathlib import Path
from cli.family import Family
from cli.installation import Installation
installation = Installation(data=Path({str(tmp_path)!r}), database_url="sqlite://", redis_url="redis://127.0.0.1:1")
installation.logs.mkdir()
family = Family(installation, print)
family.add("it", (sys.executable, "-c", "import time; time.sleep(60)"), environment={{}})
Path({str(told)!r}).write_text(str(family.get("it").pid))
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", parent])
    try:
        wait_until(lambda: told.exists() and told.read_text() != "")
        child = int(told.read_text())
        assert birth_of(child) is not None
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: birth_of(child) is None)


def test_a_child_whose_parent_died_before_it_began_runs_nothing(tmp_path: Path) -> None:
    told = tmp_path / "ran"
    outcome = subprocess.run(
        [sys.executable, "-m", "cli.parent_watch", "--", sys.executable, "-c", f"open({str(told)!r}, 'w')"],
        env={**os.environ, parent_watch.PARENT_VARIABLE: "1"},
        check=False,
    )
    assert outcome.returncode == 0
    assert not told.exists()


def test_the_watch_ends_its_process_once_and_then_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent_watch, "LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(parent_watch, "END_WITHIN_S", 0.001)
    parents = iter([4, 4, 1])
    calls: list[str] = []
    parent_watch.watch(4, lambda: next(parents), lambda: calls.append("end"), lambda: calls.append("at once"))
    wait_until(lambda: calls == ["end", "at once"])


def test_without_a_parent_named_nothing_is_watched() -> None:
    assert parent_watch.parent_named({}) is None
    assert parent_watch.parent_named({parent_watch.PARENT_VARIABLE: "no number"}) is None
    assert parent_watch.parent_named({parent_watch.PARENT_VARIABLE: "12"}) == 12


def test_a_log_that_grows_too_large_is_kept_beside_itself_once(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with log.open("ab") as writing:
        writing.write(b"old\n" * 10)
        writing.flush()
        assert not cut_log(log, most_bytes=40)
        writing.write(b"new\n")
        writing.flush()
        assert cut_log(log, most_bytes=40)
        # Whoever has it open goes on at its new beginning.
        writing.write(b"later\n")
    assert log.read_text() == "later\n"
    assert (tmp_path / "worker.log.1").read_text() == "old\n" * 9 + "new\n"


def test_a_log_that_is_not_there_is_not_cut(tmp_path: Path) -> None:
    assert not cut_log(tmp_path / "none.log")


@pytest.mark.parametrize(
    ("text", "begins_at", "said"),
    [
        ("one\ntwo\n\n", 0, "two"),
        ("one\n", 4, ""),
        ("one\n", 400, "one"),
        ("   \n", 0, ""),
        ("a\tb  c\n", 0, "a b c"),
        ("x" * 5000, 0, "x" * 160),
        ("caf\udce9\n", 0, "caf\ufffd"),
    ],
)
def test_the_last_line_is_short_and_of_this_life(tmp_path: Path, text: str, begins_at: int, said: str) -> None:
    log = tmp_path / "it.log"
    log.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert last_line(log, begins_at) == said
