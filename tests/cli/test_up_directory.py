"""The data directory of a running Nightshift: private, held by one, and rid of what a killed one left."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cli.data_directory import (
    ORPHANS_END_WITHIN_S,
    AlreadyRunning,
    ChildRecord,
    DataUnusable,
    DirectoryLock,
    UpRecord,
    birth_of,
    children_file,
    end_orphans,
    forget_run,
    make_data_directory,
    read_children,
    read_up,
    write_children,
    write_up,
)
from cli.installation import Installation

RECORD = UpRecord(pid=4711, url="http://127.0.0.1:8470", speed=1.0, started_machine_s=12.5, version="0.1.0")


def installed(data: Path) -> Installation:
    return Installation(data=data, database_url="sqlite://", redis_url=f"redis+socket://{data}/redis.sock")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_new_directory_is_for_its_user_alone(tmp_path: Path) -> None:
    data = tmp_path / "deep" / "down"
    make_data_directory(data)
    make_data_directory(data)
    assert mode(data) == 0o700
    assert list(data.iterdir()) == []


def test_a_directory_of_ours_is_made_private_and_one_with_things_of_others_is_left(tmp_path: Path) -> None:
    ours, others = tmp_path / "ours", tmp_path / "others"
    for directory, name in ((ours, "nightshift.sqlite3"), (others, "thesis.tex")):
        directory.mkdir(mode=0o755)
        (directory / name).touch()
        make_data_directory(directory)
    assert mode(ours) == 0o700
    assert mode(others) == 0o755


def test_a_file_where_the_directory_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataUnusable, match=r"file is not a directory.*--data"):
        make_data_directory(tmp_path / "file")
    with pytest.raises(DataUnusable, match=r"cannot be written: Not a directory.*--data"):
        make_data_directory(tmp_path / "file" / "below")


def test_a_directory_that_cannot_be_written_is_named() -> None:
    with pytest.raises(DataUnusable, match=r"/proc/nothing cannot be written.*--data"):
        make_data_directory(Path("/proc/nothing"))


def test_a_second_one_is_told_who_runs_and_where(tmp_path: Path) -> None:
    first, second = DirectoryLock(installed(tmp_path)), DirectoryLock(installed(tmp_path))
    first.acquire()
    with pytest.raises(AlreadyRunning, match=rf"already running on .*: pid {os.getpid()}, not answering yet; .*--data"):
        second.acquire()
    write_up(installed(tmp_path), replace(RECORD, pid=os.getpid()))
    with pytest.raises(AlreadyRunning, match=r"pid .*, http://127\.0\.0\.1:8470; ") as refused:
        second.acquire()
    assert refused.value.retryable
    first.release()
    second.acquire()
    assert second.is_held
    second.release()


def test_children_do_not_hold_the_lock(tmp_path: Path) -> None:
    first, second = DirectoryLock(installed(tmp_path)), DirectoryLock(installed(tmp_path))
    first.acquire()
    program = "print('here', flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False
    )
    try:
        # Once it says something it is a program of its own: what is closed at exec is closed.
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        first.release()
        second.acquire()
        second.release()
    finally:
        child.communicate(b"\n")


def test_what_is_written_down_is_read_back_and_forgotten(tmp_path: Path) -> None:
    installation = installed(tmp_path)
    child = ChildRecord(name="worker", instance="worker-1", pid=12, born="boot:34")
    write_up(installation, RECORD)
    write_children(installation, (child,))
    assert read_up(installation) == RECORD
    assert read_children(installation) == (child,)
    assert mode(installation.up_file) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["children.json", "up.json"]
    forget_run(installation)
    forget_run(installation)
    assert read_up(installation) is None
    assert read_children(installation) == ()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": "x"}', '[{"pid": 1}]', "\0"])
def test_a_torn_file_says_nothing(tmp_path: Path, text: str) -> None:
    installation = installed(tmp_path)
    installation.up_file.write_text(text)
    children_file(installation).write_text(text)
    assert read_up(installation) is None
    assert read_children(installation) == ()


def test_a_process_is_told_from_a_later_one_with_its_number() -> None:
    assert birth_of(os.getpid()) == birth_of(os.getpid())
    assert birth_of(os.getpid()) != birth_of(os.getppid())
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    assert birth_of(ended.pid) is None


class Machine:
    """Processes by number, that end at an instant if they are not killed before."""

    def __init__(self, ends_at_s: dict[int, float]) -> None:
        self.ends_at_s = ends_at_s
        self.now_s = 0.0
        self.killed: list[int] = []

    def birth(self, pid: int) -> str | None:
        return f"born-{pid}" if self.ends_at_s.get(pid, 0.0) > self.now_s else None

    def kill(self, pid: int, number: int) -> None:
        assert number == signal.SIGKILL
        self.killed.append(pid)

    def monotonic_s(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def end(self, *children: ChildRecord) -> tuple[ChildRecord, ...]:
        return end_orphans(children, birth=self.birth, kill=self.kill, monotonic_s=self.monotonic_s, sleep=self.sleep)


def record(pid: int, born: str | None = None) -> ChildRecord:
    return ChildRecord(name="worker", instance=f"worker-{pid}", pid=pid, born=born or f"born-{pid}")


def test_orphans_are_given_time_to_end_by_themselves() -> None:
    machine = Machine({11: 3.0, 12: 5.0})
    assert machine.end(record(11), record(12)) == ()
    assert machine.killed == []
    assert 5.0 <= machine.now_s < 6.0


def test_orphans_that_stay_are_killed() -> None:
    machine = Machine({11: 3.0, 12: 1e9})
    assert machine.end(record(11), record(12)) == (record(12),)
    assert machine.killed == [12]
    assert machine.now_s >= ORPHANS_END_WITHIN_S


def test_a_stranger_that_got_the_number_is_left_alone() -> None:
    machine = Machine({11: 1e9})
    assert machine.end(record(11, born="born-before-that")) == ()
    assert machine.killed == []
    assert machine.now_s == 0.0
