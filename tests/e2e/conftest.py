"""Prints what came of each scenario in a table, at the end of a run of the tests in this directory."""

import pytest
from rich.console import Console
from rich.table import Table

from tests.e2e.night import COLUMNS, ROW, SCENARIO

_WIDTH = 150


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Draw the table of scenarios; without any there is none."""
    table = Table(*COLUMNS, "outcome", title="A swap to night and back, disturbed")
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            left = dict(report.user_properties)
            if report.when == "call" and SCENARIO in left:
                blank = [left[SCENARIO], "", f"{report.duration:.0f}", *([""] * (len(COLUMNS) - 3))]
                table.add_row(*left.get(ROW, blank), outcome)
    if table.row_count:
        Console(width=_WIDTH).print(table)
