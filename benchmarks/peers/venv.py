"""Virtual environments for peers that are Python packages: each has one of its own, below the cache. Knows no peer."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.peer import NotHere, cache

_WHOLE = "packages.txt"
"""Written last: a venv without it was not filled to the end."""


def find(peer: str) -> Path | None:
    """Return the interpreter of a peer's venv, if the venv is whole."""
    home = cache() / peer
    return home / "bin" / "python" if (home / _WHOLE).exists() else None


def make(peer: str, packages: Sequence[str]) -> None:
    """Make a peer's venv by pip, unless there is one that is whole. May be called twice."""
    if find(peer) is not None:
        return
    home = cache() / peer
    shutil.rmtree(home, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(home)], packages)
    _run([str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages], packages)
    (home / _WHOLE).write_text("".join(f"{package}\n" for package in packages), encoding="utf-8")


def _run(words: Sequence[str], packages: Sequence[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        raise NotHere(f"could not install {' '.join(packages)}: {errors[-1] if errors else done.stderr.strip()}")
