"""A process that ends when the one that started it does, however that ended.

The kernel sends SIGTERM when the parent dies; run as `python -m cli.parent_watch -- command …` this module asks for
that and becomes the command, so that programs of others (the Redis server) end with `nightshift up` too. Our own
processes also look themselves, and end hard when ending takes too long. Standard library only: it starts fast.
"""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

PARENT_VARIABLE = "NIGHTSHIFT_PARENT"
LOOK_EVERY_S = 0.5
END_WITHIN_S = 9.0
"""What a process may take to end cleanly once its parent is gone; then it ends at once."""

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2
"""prctl(2). The signal comes when the *thread* that forked us ends; it is kept over execve."""
_USAGE = 2
_CANNOT_RUN = 127


def parent_named(environment: Mapping[str, str]) -> int | None:
    """Return the process that this one is to end with; None when it stands on its own."""
    text = environment.get(PARENT_VARIABLE, "")
    return int(text) if text.isdecimal() else None


def end_with_parent(environment: Mapping[str, str] | None = None) -> None:
    """Send this process SIGTERM when the process in NIGHTSHIFT_PARENT is gone; without that variable do nothing.

    Call it once at the start of a process's main, after its handler of SIGTERM is set.
    """
    parent = parent_named(os.environ if environment is None else environment)
    if parent is not None:
        watch(parent, os.getppid, _end, lambda: os._exit(1))


def _end() -> None:
    """Ask this process to end, once: a second SIGTERM means to some libraries that there is no time for a clean end."""
    if not _is_told_by_kernel():
        os.kill(os.getpid(), signal.SIGTERM)


def _is_told_by_kernel() -> bool:
    """Tell whether the kernel sends a signal to this process when its parent dies."""
    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(_PR_GET_PDEATHSIG, ctypes.byref(number), 0, 0, 0)
    return number.value == signal.SIGTERM


def watch(parent: int, parent_now: Callable[[], int], end: Callable[[], None], end_at_once: Callable[[], None]) -> None:
    """Look from a thread whether the parent is still the same; if not, end, and end at once if that takes too long."""
    rest = threading.Event()

    def look() -> None:
        while parent_now() == parent:
            rest.wait(LOOK_EVERY_S)
        end()
        rest.wait(END_WITHIN_S)
        end_at_once()

    threading.Thread(target=look, name="parent-watch", daemon=True).start()


def die_with_parent(parent: int | None) -> bool:
    """Ask the kernel for SIGTERM at the parent's death; False when the parent is gone already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    return parent is None or os.getppid() == parent


def main(arguments: Sequence[str]) -> int:
    """Become the command after `--`."""
    if len(arguments) < 2 or arguments[0] != "--":
        print("usage: python -m cli.parent_watch -- command …", file=sys.stderr)
        return _USAGE
    if not die_with_parent(parent_named(os.environ)):
        return 0
    try:
        os.execvp(arguments[1], list(arguments[1:]))
    except OSError as error:
        print(f"nightshift: cannot run {arguments[1]}: {error.strerror}", file=sys.stderr)
        return _CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
