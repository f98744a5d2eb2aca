"""Runs command lines in this process, as the program would run them in its own."""

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from cli.client import Surroundings
from cli.main import run


@dataclass(frozen=True)
class Ran:
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def one_line(self) -> str:
        """Return what was said on stderr, which is one line."""
        (line,) = self.err.splitlines()
        return line


@dataclass
class CommandLine:
    """A terminal of a person: environment, connection, and how wide it is."""

    transport: httpx.BaseTransport | None
    environ: dict[str, str]
    slept_s: list[float]
    keys: Iterator[str]
    sleep: Callable[[float], None] | None = None
    """What is done in place of sleeping, beside noting it."""

    def __call__(self, *arguments: str, stdin: str = "", environ: Mapping[str, str] | None = None) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        surroundings = Surroundings(
            environ=self.environ if environ is None else environ,
            transport=self.transport,
            sleep=self._slept,
            new_key=lambda: next(self.keys),
        )
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stdin", io.StringIO(stdin))
            try:
                code = run(arguments, surroundings=surroundings)
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 1
        return Ran(code=code, out=out.getvalue(), err=err.getvalue())

    def _slept(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        if self.sleep is not None:
            self.sleep(seconds)


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """Return an environment that knows nothing of whoever runs the tests."""
    return {"NIGHTSHIFT_CONFIG": str(tmp_path / "client.toml"), "NIGHTSHIFT_DATA": str(tmp_path / "data"), **more}
