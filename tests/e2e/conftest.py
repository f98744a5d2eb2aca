"""Prints what came of each scenario in a table, at the end of a run of the tests in this directory."""

import pytest
from rich.console import Console
from rich.table import Table

from tests.e2e.night import COLUMNS, ROW

_WIDTH = 140


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Draw the table of those that were lived through to their end; the others are reported as failures anyway."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    rows = [
        value for report in reports if report.when == "call" for name, value in report.user_properties if name == ROW
    ]
    if not rows:
        return
    table = Table(*COLUMNS, title="A swap to night and back, disturbed")
    for row in rows:
        table.add_row(*row)
    Console(width=_WIDTH).print(table)
