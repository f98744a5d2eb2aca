"""How commands speak: where errors go, what they end with, which console is used.

Exit codes, the same for every command: 0 done · 1 the answer is no · 2 wrong use, or something named is not there ·
3 a part that this needs is not installed · 4 the other side failed, try again later.
"""

import sys

from rich.console import Console
from rich.text import Text

from scheduler.core.errors import NightshiftError

EXIT_NO = 1
EXIT_USAGE = 2
EXIT_NOT_INSTALLED = 3
EXIT_FAILED = 4


def console(*, width: int | None = None) -> Console:
    """Return a console on stdout; colour and width follow the terminal."""
    return Console(width=width, highlight=False)


def say(text: str) -> None:
    """Write a sentence on stdout: broken between words in a terminal, whole in a pipe."""
    out = console()
    if out.is_terminal:
        out.print(Text(text))
    else:
        print(text)


def complain(message: str) -> None:
    """Write one line on stderr."""
    print(f"nightshift: {' '.join(message.split())}", file=sys.stderr)


def fail(error: NightshiftError) -> int:
    """Say what failed in one line and return the exit code."""
    complain(error.message)
    return EXIT_FAILED if error.retryable else EXIT_USAGE


def missing_server_parts(error: ImportError) -> int:
    """Say that a command needs more than the light client."""
    complain(f"this needs the server parts ({error.name} is missing): pip install 'nightshift[server]'")
    return EXIT_NOT_INSTALLED
