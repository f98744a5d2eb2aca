"""The data directory of a running Nightshift: made private, held by one supervisor, and what is written down there.

Holds `up.lock`, `up.json` and `children.json`, and ending what a killed supervisor left behind. Starts nothing.
"""

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from cli.installation import Installation
from scheduler.core.errors import NightshiftError

ORPHANS_END_WITHIN_S = 12.0
"""Children of a killed supervisor end by themselves in less; then they are killed."""
_LOOK_EVERY_S = 0.05
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_OURS = ("up.lock", "nightshift.sqlite3", "admin.token", "clock.json")


class DataUnusable(NightshiftError):
    """The data directory cannot be used."""

    code = "data.unusable"


class AlreadyRunning(NightshiftError):
    """Another supervisor holds this data directory."""

    code = "up.already_running"
    retryable = True


@dataclass(frozen=True, slots=True, kw_only=True)
class UpRecord:
    """What `up.json` says while Nightshift runs."""

    pid: int
    url: str
    speed: float
    started_machine_s: float
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildRecord:
    """A child as it is written down, so that a later supervisor knows it again."""

    name: str
    instance: str
    pid: int
    born: str
    """Tells it from another process that got its number: see `birth_of`."""


def make_data_directory(data: Path) -> None:
    """Make the directory, for this user alone, and see that it can be written. May be called many times.

    Raises DataUnusable. A directory that holds things of others keeps its mode; what we write there is private anyway.
    """
    if data.exists() and not data.is_dir():
        raise DataUnusable(f"{data} is not a directory; name another one with --data", data=str(data))
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = os.listdir(data)
        if not names or any(name in names for name in _OURS):
            data.chmod(0o700)
        probe = data / f".writable.{os.getpid()}"
        probe.touch(mode=0o600)
        probe.unlink()
    except OSError as error:
        raise DataUnusable(
            f"the data directory {data} cannot be written: {error.strerror}; name one of your own with --data",
            data=str(data),
        ) from error


class DirectoryLock:
    """That no two supervisors run on one data directory. Children do not inherit it."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take it, or raise AlreadyRunning at once."""
        path = self._installation.up_lock
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataUnusable(f"{path} cannot be opened: {error.strerror}; name another directory") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise self._already_running(holder) from error
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode("ascii"))
        self._fd = fd

    @property
    def is_held(self) -> bool:
        return self._fd is not None

    def release(self) -> None:
        """Let others have it. May be called many times."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _already_running(self, holder: str) -> AlreadyRunning:
        record = read_up(self._installation)
        where = "not answering yet" if record is None or str(record.pid) != holder else record.url
        return AlreadyRunning(
            f"Nightshift is already running on {self._installation.data}: pid {holder}, {where}; stop that one, or"
            " give this one a directory of its own with --data",
            pid=holder,
            url=where,
        )


def read_up(installation: Installation) -> UpRecord | None:
    """Return what `up.json` says; None when it is not there or cannot be read. It may be of a run that was killed."""
    try:
        read = json.loads(installation.up_file.read_text(encoding="utf-8"))
        return UpRecord(
            pid=int(read["pid"]),
            url=str(read["url"]),
            speed=float(read["speed"]),
            started_machine_s=float(read["started_machine_s"]),
            version=str(read["version"]),
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_up(installation: Installation, record: UpRecord) -> None:
    """Write `up.json`."""
    _replace(installation.up_file, json.dumps(asdict(record)))


def children_file(installation: Installation) -> Path:
    """Return where the children are written down."""
    return installation.data / "children.json"


def write_children(installation: Installation, children: tuple[ChildRecord, ...]) -> None:
    """Write down which children run now."""
    _replace(children_file(installation), json.dumps([asdict(child) for child in children]))


def read_children(installation: Installation) -> tuple[ChildRecord, ...]:
    """Return the children that were written down last; none when that cannot be read."""
    try:
        read = json.loads(children_file(installation).read_text(encoding="utf-8"))
        return tuple(
            ChildRecord(name=str(c["name"]), instance=str(c["instance"]), pid=int(c["pid"]), born=str(c["born"]))
            for c in read
        )
    except (OSError, ValueError, TypeError, KeyError):
        return ()


def forget_run(installation: Installation) -> None:
    """Remove what says that Nightshift runs here."""
    installation.up_file.unlink(missing_ok=True)
    children_file(installation).unlink(missing_ok=True)


def birth_of(pid: int) -> str | None:
    """Return what tells a process from all others that ever had its number; None when there is none, or no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return None
    # proc(5): the name in brackets may hold anything; after it come the state and, as the 20th more, the start time.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def end_orphans(
    children: tuple[ChildRecord, ...],
    *,
    birth: Callable[[int], str | None] = birth_of,
    kill: Callable[[int, int], None] = os.kill,
    monotonic_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[ChildRecord, ...]:
    """Wait for the end of children that a killed supervisor left, and end those that stay; return who was killed.

    They got SIGTERM when it died. Until the last is gone two workers would be at work, or the port be taken.
    """
    until_s = monotonic_s() + ORPHANS_END_WITHIN_S
    while True:
        left = tuple(child for child in children if birth(child.pid) == child.born)
        if not left or monotonic_s() >= until_s:
            break
        sleep(_LOOK_EVERY_S)
    for child in left:
        # One that ended in this moment is no failure.
        try:
            kill(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return left


def _replace(path: Path, text: str) -> None:
    """Replace a file by rename: a reader finds the old text or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(beside, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)
    beside.replace(path)
