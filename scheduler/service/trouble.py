"""What fails again and again, told once: a line when it begins, a line when it is over, none in between."""

import logging
from dataclasses import dataclass
from threading import Lock

from scheduler.core.errors import NightshiftError

DEFECT = "defect"


@dataclass(slots=True)
class _Known:
    code: str
    times: int = 1


class Trouble:
    """The trouble that one process has, by what it was doing and to what. Safe to use from several threads."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._lock = Lock()
        self._known: dict[tuple[str, str], _Known] = {}

    def failed(self, what: str, error: Exception, *, of: str = "") -> None:
        """Tell of a failure, unless the last try failed in the same way; a defect of ours with its traceback.

        `of` tells tries at the same thing apart: a host, a queue.
        """
        if isinstance(error, NightshiftError):
            self.is_wrong(what, error.code, error.message, of=of)
        elif self._is_new(what, of, f"{DEFECT} {type(error).__name__}"):
            self._log.error("%s.failed%s code=%s problem=%r", what, _shown(of), DEFECT, error, exc_info=error)

    def is_wrong(self, what: str, code: str, problem: str, *, of: str = "") -> None:
        """Tell of something that is not as it should be, unless it was the same the last time."""
        if self._is_new(what, of, code):
            self._log.warning("%s.failed%s code=%s problem=%r", what, _shown(of), code, problem)

    def went_well(self, what: str, *, of: str = "") -> None:
        """Tell that a trouble is over, if there was one."""
        if (what, of) not in self._known:
            return
        with self._lock:
            known = self._known.pop((what, of), None)
        if known is not None:
            self._log.info("%s.recovered%s failures=%d", what, _shown(of), known.times)

    def _is_new(self, what: str, of: str, code: str) -> bool:
        with self._lock:
            known = self._known.get((what, of))
            if known is not None and known.code == code:
                known.times += 1
                return False
            self._known[what, of] = _Known(code, 1 if known is None else known.times + 1)
            return True


def _shown(of: str) -> str:
    return f" of={of}" if of else ""
