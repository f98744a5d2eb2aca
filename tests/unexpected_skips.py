"""A pytest plugin: with NIGHTSHIFT_CI set, a skip whose reason is not listed in .ci/allowed-skips.txt fails the run.

A test that is skipped on the one machine that has everything proves nothing, and nobody would notice. Works with and
without xdist: the reports of all processes pass through the one that was started. Holds no tests.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ALLOWED_SKIPS = Path(__file__).parent.parent / ".ci" / "allowed-skips.txt"


def read_allowed(path: Path) -> frozenset[str]:
    """Read one reason per line; empty lines and lines that begin with # say nothing."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return frozenset(line for line in lines if line and not line.startswith("#"))


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Name the reason that the skipping test gave."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


class UnexpectedSkips:
    """Collects what was skipped and turns the exit status if that was not foreseen."""

    def __init__(self, allowed: frozenset[str]) -> None:
        self._allowed = allowed
        self._unexpected: dict[str, str] = {}

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        # An expected failure is reported as skipped too; xfail_strict keeps those honest.
        if report.skipped and not hasattr(report, "wasxfail") and reason_of(report) not in self._allowed:
            self._unexpected[report.nodeid] = reason_of(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        # Before the others finish: the terminal reporter passes on the status that it finds.
        if self._unexpected and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        yield

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for nodeid, reason in sorted(self._unexpected.items()):
            terminalreporter.write_line(
                f"UNEXPECTED SKIP {nodeid}: {reason!r} is not listed in .ci/allowed-skips.txt", red=True
            )


def pytest_configure(config: pytest.Config) -> None:
    """Register where the reports of all processes come together."""
    if os.environ.get("NIGHTSHIFT_CI") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(UnexpectedSkips(read_allowed(ALLOWED_SKIPS)), "unexpected-skips")
