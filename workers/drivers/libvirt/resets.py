"""What this worker knows of the resets of a host's devices. In memory: after a restart nothing is known, and said so.

On a host that the worker runs on, a reset is written to sysfs and its end is seen. On a remote host libvirt cannot be
asked for one: vfio-pci resets a device when it is opened and when it is let go, and nobody tells how that went.
"""

import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic

from scheduler.core.facts import CheckResult, DeviceCheck
from workers.drivers.libvirt.sysfs import Sysfs

_log = logging.getLogger(__name__)

LOCAL = "local sysfs"
REMOTE = "node device"
NOT_SEEN = "vfio-pci resets a device when it is let go; how that went cannot be seen through libvirt"
NOT_ALLOWED = "this worker may not write to its reset file; run it as root on the host, or allow it by a udev rule"


WATCHED_WITHIN_S = 30.0
"""Who has not looked for so long may have missed a VM, another worker's for one."""


class _State(StrEnum):
    RUNNING = "a reset is under way"
    DONE = "done"
    USED = "used since its last reset"
    FAILED = "its reset failed"


@dataclass(slots=True)
class _Known:
    state: _State
    detail: str = ""
    number: int = 0


class Resets:
    """Resets of one host's devices. Safe to use from several threads."""

    def __init__(self, sysfs: Sysfs | None) -> None:
        """`sysfs`: the host's own, where the worker runs on it; None: the host is remote."""
        self._sysfs = sysfs
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._numbers = itertools.count(1)
        self._looked_at_s = monotonic()

    def look(self) -> None:
        """Begin a look. After a break in them a reset that was done before may have been used up unseen."""
        now_s = monotonic()
        with self._lock:
            has_watched = now_s - self._looked_at_s < WATCHED_WITHIN_S
            self._looked_at_s = now_s
        if not has_watched:
            self.forget()

    def forget(self) -> None:
        """Believe no reset that was done: what became of the devices since was not seen."""
        with self._lock:
            for address in [address for address, known in self._known.items() if known.state is _State.DONE]:
                del self._known[address]

    def saw_held(self, address: str) -> None:
        """Note that a domain has a device: whatever reset came before is used up."""
        with self._lock:
            self._known[address] = _Known(_State.USED)

    def begin(self, address: str, done: Callable[[], None]) -> None:
        """Begin a reset, unless one is under way. One too many harms nothing; one too few shows a tenant's data."""
        with self._lock:
            known = self._known.get(address)
            if known is not None and known.state is _State.RUNNING:
                return
            if self._sysfs is None or not self._sysfs.can_reset(address):
                return
            number = next(self._numbers)
            self._known[address] = _Known(_State.RUNNING, number=number)
        threading.Thread(
            target=self._reset, args=(self._sysfs, address, number, done), name=f"reset.{address}", daemon=True
        ).start()

    def _reset(self, sysfs: Sysfs, address: str, number: int, done: Callable[[], None]) -> None:
        try:
            sysfs.reset(address)
        except OSError as error:
            after = _Known(_State.FAILED, f"{error.strerror}", number)
            _log.warning("device.reset_failed address=%s error=%s", address, error)
        else:
            after = _Known(_State.DONE, number=number)
        with self._lock:
            known = self._known.get(address)
            if known is not None and known.state is _State.RUNNING and known.number == number:
                self._known[address] = after
        done()

    def check(self, address: str, *, is_held: bool) -> DeviceCheck:
        """Return how clean a device is known to be."""
        if is_held:
            self.saw_held(address)
            return _check(CheckResult.FAILED, self._source, "in use since its last reset")
        with self._lock:
            known = self._known.get(address)
        if known is not None and known.state is _State.DONE:
            return _check(CheckResult.PASSED, LOCAL, "")
        if known is not None and known.state in (_State.RUNNING, _State.FAILED):
            return _check(CheckResult.FAILED, LOCAL, f"{known.state.value} {known.detail}".rstrip())
        if self._sysfs is None:
            return _check(CheckResult.UNVERIFIED, REMOTE, NOT_SEEN)
        if not self._sysfs.can_reset(address):
            return _check(CheckResult.UNVERIFIED, LOCAL, NOT_ALLOWED)
        if known is None:
            return _check(CheckResult.UNVERIFIED, LOCAL, "not reset since this worker began")
        return _check(CheckResult.FAILED, LOCAL, known.state.value)

    @property
    def _source(self) -> str:
        return REMOTE if self._sysfs is None else LOCAL


def _check(result: CheckResult, source: str, detail: str) -> DeviceCheck:
    return DeviceCheck(name="reset_done", result=result, source=source, detail=detail)
