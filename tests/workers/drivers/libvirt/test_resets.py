"""What is known of resets: seen done on the host itself, unverified from anywhere else."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from scheduler.core.facts import CheckResult
from workers.drivers.libvirt import resets as module
from workers.drivers.libvirt.resets import NOT_ALLOWED, NOT_SEEN, Resets
from workers.drivers.libvirt.sysfs import Sysfs

GPU = "0000:34:00.0"
LONG_S = 10


class FakeBus(Sysfs):
    """Devices whose resets end when the test lets them, and as it says."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.may_end = threading.Event()
        self.error: OSError | None = None
        self.resets = 0

    def can_reset(self, address: str) -> bool:
        return True

    def reset(self, address: str) -> None:
        self.resets += 1
        assert self.may_end.wait(LONG_S)
        if self.error is not None:
            raise self.error


class Ended:
    """Counts resets that ended, and waits for the next one."""

    def __init__(self) -> None:
        self._count = threading.Semaphore(0)

    def __call__(self) -> None:
        self._count.release()

    def wait(self) -> None:
        assert self._count.acquire(timeout=LONG_S)


def begun(resets: Resets, bus: FakeBus) -> Callable[[], None]:
    """Begin a reset; what is returned lets it end."""
    ended = Ended()
    bus.may_end = threading.Event()
    resets.begin(GPU, ended)
    may_end = bus.may_end

    def end() -> None:
        may_end.set()
        ended.wait()

    return end


def test_nothing_is_known_of_a_device_at_first() -> None:
    check = Resets(FakeBus()).check(GPU, is_held=False)
    assert (check.result, check.detail) == (CheckResult.UNVERIFIED, "not reset since this worker began")


def test_a_held_device_is_used_until_its_reset_is_seen_done() -> None:
    bus = FakeBus()
    resets = Resets(bus)
    assert resets.check(GPU, is_held=True).result is CheckResult.FAILED
    assert resets.check(GPU, is_held=False).detail == "used since its last reset"
    end = begun(resets, bus)
    under_way = resets.check(GPU, is_held=False)
    assert (under_way.result, under_way.detail) == (CheckResult.FAILED, "a reset is under way")
    end()
    assert resets.check(GPU, is_held=False).result is CheckResult.PASSED
    assert resets.check(GPU, is_held=True).result is CheckResult.FAILED
    assert resets.check(GPU, is_held=False).result is CheckResult.FAILED


def test_a_reset_that_failed_says_why_and_may_be_asked_again() -> None:
    bus = FakeBus()
    resets = Resets(bus)
    bus.error = OSError(25, "Inappropriate ioctl for device")
    begun(resets, bus)()
    check = resets.check(GPU, is_held=False)
    assert (check.result, check.detail) == (CheckResult.FAILED, "its reset failed Inappropriate ioctl for device")
    bus.error = None
    begun(resets, bus)()
    assert resets.check(GPU, is_held=False).result is CheckResult.PASSED


def test_a_reset_asked_while_one_is_under_way_is_the_same_reset() -> None:
    bus = FakeBus()
    resets = Resets(bus)
    end = begun(resets, bus)
    resets.begin(GPU, lambda: None)
    end()
    assert bus.resets == 1


def test_a_reset_that_is_asked_is_made_although_nobody_was_seen_to_use_the_device() -> None:
    bus = FakeBus()
    resets = Resets(bus)
    begun(resets, bus)()
    begun(resets, bus)()
    assert bus.resets == 2


def test_the_end_of_an_earlier_reset_is_not_taken_for_that_of_a_later_one() -> None:
    bus = FakeBus()
    resets = Resets(bus)
    end_first = begun(resets, bus)
    resets.saw_held(GPU)
    end_second = begun(resets, bus)
    end_first()
    assert resets.check(GPU, is_held=False).detail == "a reset is under way"
    end_second()
    assert resets.check(GPU, is_held=False).result is CheckResult.PASSED


def test_a_reset_that_ends_after_the_device_was_used_again_counts_for_nothing() -> None:
    bus = FakeBus()
    resets = Resets(bus)
    end = begun(resets, bus)
    resets.saw_held(GPU)
    end()
    assert resets.check(GPU, is_held=False).result is CheckResult.FAILED


def test_after_a_break_in_the_looks_an_earlier_reset_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: now_s[0])
    bus = FakeBus()
    resets = Resets(bus)
    begun(resets, bus)()
    now_s[0] += module.WATCHED_WITHIN_S - 1
    resets.look()
    assert resets.check(GPU, is_held=False).result is CheckResult.PASSED
    now_s[0] += module.WATCHED_WITHIN_S
    resets.look()
    assert resets.check(GPU, is_held=False).result is CheckResult.UNVERIFIED


def test_a_break_in_the_looks_makes_no_used_device_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: now_s[0])
    resets = Resets(FakeBus())
    resets.saw_held(GPU)
    now_s[0] += 10 * module.WATCHED_WITHIN_S
    resets.look()
    assert resets.check(GPU, is_held=False).result is CheckResult.FAILED


def test_from_afar_a_reset_is_never_seen() -> None:
    resets = Resets(None)
    resets.check(GPU, is_held=True)
    resets.begin(GPU, lambda: None)
    check = resets.check(GPU, is_held=False)
    assert (check.result, check.detail) == (CheckResult.UNVERIFIED, NOT_SEEN)


def test_a_reset_file_that_is_not_ours_to_write_leaves_it_unverified(tmp_path: Path) -> None:
    device(tmp_path)
    resets = Resets(Sysfs(tmp_path))
    resets.saw_held(GPU)
    resets.begin(GPU, lambda: None)
    check = resets.check(GPU, is_held=False)
    assert (check.result, check.detail) == (CheckResult.UNVERIFIED, NOT_ALLOWED)


def test_a_reset_is_written_to_the_devices_own_file(tmp_path: Path) -> None:
    folder = device(tmp_path, reset="")
    resets, ended = Resets(Sysfs(tmp_path)), Ended()
    resets.begin(GPU, ended)
    ended.wait()
    assert (folder / "reset").read_text() == "1"
    assert resets.check(GPU, is_held=False).result is CheckResult.PASSED


def device(root: Path, *, config: bytes | None = None, reset: str | None = None) -> Path:
    folder = root / "bus" / "pci" / "devices" / GPU
    folder.mkdir(parents=True)
    if config is not None:
        (folder / "config").write_bytes(config)
    if reset is not None:
        (folder / "reset").write_text(reset)
    return folder


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (bytes([0xDE, 0x10]) + bytes(62), None),
        (b"\xff" * 64, "config space reads all ones"),
        (b"\xff" * 64 + bytes(192), "config space reads all ones"),
        (bytes(16), "only 16 bytes of its config space can be read"),
        (None, "its config space cannot be read: No such file or directory"),
    ],
)
def test_a_device_answers_when_its_header_can_be_read(
    tmp_path: Path, config: bytes | None, problem: str | None
) -> None:
    device(tmp_path, config=config)
    assert Sysfs(tmp_path).config_problem(GPU) == problem


def test_nothing_beyond_the_header_is_read(tmp_path: Path) -> None:
    folder = device(tmp_path)
    os.mkfifo(folder / "config")
    held_open = os.open(folder / "config", os.O_RDWR)
    os.write(held_open, bytes(64 + 7))
    assert Sysfs(tmp_path).config_problem(GPU) is None
    assert len(os.read(held_open, 100)) == 7
    os.close(held_open)
