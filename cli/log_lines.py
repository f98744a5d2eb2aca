"""How a server process logs: to stderr, one line for each event, `2026-03-02 20:00:00.123Z info vm.started key=value`.

The times are the machine's, whatever product time says: logs of several machines are laid side by side. Sets up the
standard logging and holds no events; those are where they happen.
"""

import logging
import sys
from datetime import UTC, datetime

_MOST_TRACEBACK = 4000


class OneLine(logging.Formatter):
    """Writes a record as one line, its traceback too."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        line = f"{at:%Y-%m-%d %H:%M:%S}.{int(record.msecs):03d}Z {record.levelname.lower()} {record.getMessage()}"
        if record.exc_info:
            line += f" traceback={self.formatException(record.exc_info)[-_MOST_TRACEBACK:]!r}"
        return line.replace("\r", "\\r").replace("\n", "\\n")


def log_to_stderr(level: int = logging.INFO) -> None:
    """Let everything that is logged in this process come out on stderr, and nowhere else."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # A logger that cannot write, because the disk is full, must not fill it further with its complaints.
    logging.raiseExceptions = False
    logging.captureWarnings(capture=True)
