"""Which data the windows of a policy are made with: the time zones and the holidays that are installed.

New data moves windows though no text has changed; so the versions are kept with each policy that is applied.
"""

import re
import zoneinfo
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_ZONES_VERSION = re.compile(r"# version (\S+)", re.ASCII)


@lru_cache(maxsize=1)
def data_versions() -> tuple[tuple[str, str], ...]:
    """Return the versions of the data that this process uses, by name: `holidays`, `tzdata`."""
    return (("holidays", _package_version("holidays")), ("tzdata", _zones_version(zoneinfo.TZPATH)))


def versions_text(versions: Iterable[tuple[str, str]]) -> str:
    """Write versions in one line: `holidays 0.109, tzdata 2025b`."""
    return ", ".join(f"{name} {said}" for name, said in versions) or "not known"


def _zones_version(paths: tuple[str, ...]) -> str:
    """Return the version of the zones as `zoneinfo` finds them: the machine's first, else those of the package."""
    for path in map(Path, paths):
        try:
            if not (path / "Europe" / "Berlin").is_file():
                continue
            with (path / "tzdata.zi").open(encoding="utf-8", errors="replace") as opened:
                found = _ZONES_VERSION.match(opened.readline(200))
        except (OSError, ValueError):
            return "the machine's"
        return found[1] if found is not None else "the machine's"
    return _package_version("tzdata")


def _package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not known"
