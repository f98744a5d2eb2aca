"""Files that a command writes where somebody asked for them: seen beforehand whether that can be, then written."""

import os
from pathlib import Path
from typing import NoReturn

import typer

from cli.output import EXIT_USAGE, complain


def check_writable(path: Path, *, suffix: str = "") -> None:
    """See before minutes have gone by whether a file can be written; writes nothing, ends the command if not.

    `suffix`: how its name has to end, so that a slip overwrites nothing else.
    """
    if path.is_dir():
        _not_written(path, "it is a directory")
    if path.suffix.lower() != suffix and suffix:
        _not_written(path, f"its name has to end in {suffix}")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        _not_written(path, "it is not allowed, or its directory is not there")


def write(path: Path, text: str) -> None:
    """Write a file; ends the command if that cannot be."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        _not_written(path, error.strerror or str(error))


def _not_written(path: Path, problem: str) -> NoReturn:
    complain(f"cannot write {path}: {problem}; give a path in a directory that exists and is yours")
    raise typer.Exit(EXIT_USAGE)
